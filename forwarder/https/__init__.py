"""Which hosts that a stranger named may be asked over HTTPS, and how? ``client`` asks; it is imported where that is needed, since
aiohttp takes long to import."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

__all__ = ["HttpsFault", "HttpsSettings", "forget_roots", "trusting"]


@dataclass(frozen=True, slots=True)
class HttpsSettings:
    """All but ``timeout`` (seconds for everything, the DNS included) is for labs. ``ca_file``: ``None`` trusts whom the
    system trusts."""

    port: int = 443
    allow_private: bool = False
    ca_file: Path | None = None
    timeout: float = 5.0


class HttpsFault(Exception):
    """There is no answer that could be used. ``temporary``: later there may be. ``certificate``: its own is not valid."""

    def __init__(self, reason: str, *, temporary: bool, certificate: bool = False) -> None:
        super().__init__(reason)
        self.temporary = temporary
        self.certificate = certificate


@lru_cache(maxsize=4)
def trusting(ca_file: Path | None) -> ssl.SSLContext:
    """Made once: to read the system's certificates takes as long as many messages."""
    return ssl.create_default_context(cafile=ca_file)


def forget_roots() -> None:
    """The files of trusted certificates may have changed: they are read again for the next request."""
    trusting.cache_clear()
