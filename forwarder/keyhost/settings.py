"""How are key hosts asked?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["KeyHostSettings"]


@dataclass(frozen=True, slots=True)
class KeyHostSettings:
    """All but ``timeout`` (seconds for everything, the DNS included) is for labs. ``ca_file``: ``None`` trusts whom the
    system trusts."""

    port: int = 443
    allow_private: bool = False
    ca_file: Path | None = None
    timeout: float = 5.0
