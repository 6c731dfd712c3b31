"""Which new keys stand beside a configured one? Their file names are all the state there is (docs/decisions/0007).

``keys/mailkey.pem`` is the configured key; ``keys/mailkey.pem+0001+k20261127`` was staged after it, with the selector
k20261127, and ``+0002+`` after that one. A file appears whole or not at all.
"""

from __future__ import annotations

import os
import re
import secrets
from datetime import date
from pathlib import Path

from forwarder.keys.files import Key, KeyFile, KeyFileError, generate_ed25519, generate_rsa

__all__ = ["MAX_STAGED", "find_staged", "stage"]

#: Keys beside one configured key that are looked at; the newest count.
MAX_STAGED = 8
#: Bits of a new RSA key, where its predecessor has fewer (RFC 8301 section 3.2).
_BITS = 2048
_NAME = re.compile(r"\+([0-9]{4})\+([a-z0-9][a-z0-9.-]{0,62})\Z")


def find_staged(path: Path, domain: str) -> tuple[KeyFile, ...]:
    """Those beside the configured key at ``path``, the newest first."""
    return tuple(KeyFile(domain, selector, file) for _, selector, file in _numbered(path)[:MAX_STAGED])


def stage(configured: Key, path: Path, today: date, selector: str | None = None) -> KeyFile:
    """A new key of the same kind beside the configured one at ``path``. Raises KeyFileError."""
    found = _numbered(path)
    taken = {configured.selector, *(one for _, one, _ in found)}
    name = selector or _free_selector(f"{configured.selector or 'k'}-{today:%Y%m%d}", taken)
    if name in taken:
        raise KeyFileError(f"selector {name} is in use already; choose another")
    number = found[0][0] + 1 if found else 1
    final = path.with_name(f"{path.name}+{number:04}+{name}")
    if not _NAME.search(final.name):
        raise KeyFileError(f"selector {name}: lower case letters, digits and hyphens only")
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        if configured.algorithm == "rsa-sha256":
            generate_rsa(draft, max(_BITS, configured.bits))
        else:
            generate_ed25519(draft)
        # Unlike a rename, a link never replaces what another rotation made in the meantime.
        os.link(draft, final)
    except OSError as error:
        raise KeyFileError(f"{final}: {error.strerror}") from None
    finally:
        draft.unlink(missing_ok=True)
    return KeyFile(configured.domain, name, final)


def _numbered(path: Path) -> list[tuple[int, str, Path]]:
    """Number, selector and file, the newest first."""
    try:
        names = [one.name for one in path.parent.iterdir() if one.name.startswith(f"{path.name}+")]
    except OSError:
        return []
    found = ((name, _NAME.match(name, len(path.name))) for name in names)
    return sorted(((int(one[1]), one[2], path.with_name(name)) for name, one in found if one), reverse=True)


def _free_selector(base: str, taken: set[str]) -> str:
    number = 1
    name = base
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    return name
