"""Which hosts that a stranger named may be asked over HTTPS, and how? ``client`` asks; it is imported where that is needed, since
aiohttp takes long to import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["HttpsFault", "HttpsSettings"]


@dataclass(frozen=True, slots=True)
class HttpsSettings:
    """All but ``timeout`` (seconds for everything, the DNS included) is for labs. ``ca_file``: ``None`` trusts whom the
    system trusts."""

    port: int = 443
    allow_private: bool = False
    ca_file: Path | None = None
    timeout: float = 5.0


class HttpsFault(Exception):
    """There is no answer that could be used. ``temporary``: later there may be."""

    def __init__(self, reason: str, *, temporary: bool) -> None:
        super().__init__(reason)
        self.temporary = temporary
