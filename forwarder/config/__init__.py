"""How is the program set up? A TOML file, with the environment over it, becomes one frozen ``Settings`` or a list of mistakes.

locate        on which line a setting stands
environment   FORWARDER_RELAY__PORT=2526
values        what one value may be
sections      every setting there is, section by section
settings      all of them under their names
checks        what only shows when settings are seen together, or on the disk
mistakes      what the operator reads
reading       the steps in order: ``load``
"""

from __future__ import annotations

from forwarder.config.mistakes import ConfigError, Mistake
from forwarder.config.reading import Loaded, load, read
from forwarder.config.settings import Settings

__all__ = ["ConfigError", "Loaded", "Mistake", "Settings", "load", "read"]
