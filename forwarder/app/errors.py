"""How does the program say that it cannot start?"""

from __future__ import annotations

__all__ = ["StartError"]


class StartError(Exception):
    """The program cannot start; the text says why and what to do, in one line."""
