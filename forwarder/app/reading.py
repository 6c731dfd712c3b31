"""What does a new configuration change, and do all workers have the same?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime

from forwarder.app.errors import StartError
from forwarder.app.parts import Material, read_material
from forwarder.config import ConfigError, Settings

__all__ = ["Load", "digest_of", "keep_what_stays", "read_again"]

#: Reads the configuration. Raises ConfigError.
Load = Callable[[], Settings]


#: What is opened or begun once and for all: a change of it counts at the next start.
_AT_START = (
    "state_dir",
    "store",
    "store_password_file",
    "store_insecure",
    "store_replicas",
    "store_timeout",
    "workers",
    "log",
    "trace",
    "metrics",
    "otel",
)


def keep_what_stays(now: Settings, wanted: Settings) -> tuple[Settings, list[str]]:
    """The settings that can count now, and the names of those that wait for a restart."""
    waiting = [name for name in _AT_START if getattr(wanted, name) != getattr(now, name)]
    return wanted.model_copy(update={name: getattr(now, name) for name in waiting}), waiting


def digest_of(material: Material) -> str:
    """Equal where two processes have read the same settings and keys."""
    return hashlib.sha256(repr((material.settings.model_dump(), material.keys.content())).encode()).hexdigest()


def read_again(now: Settings, load: Load, at: datetime) -> tuple[Material, list[str]]:
    """The material of a new configuration, and the settings of it that wait for a restart. Raises StartError."""
    try:
        settings, waiting = keep_what_stays(now, load())
        return read_material(settings, at), waiting
    except ConfigError as error:
        raise StartError("; ".join(str(error).splitlines())) from error
