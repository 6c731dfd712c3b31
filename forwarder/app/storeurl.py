"""Where is the store, and what does it know us by? The URL as configured, with the password that lies in a file of its own."""

from __future__ import annotations

from urllib.parse import quote, urlsplit, urlunsplit

from forwarder.app.errors import StartError
from forwarder.config import Settings
from forwarder.keys import KeyFileError, read_private

__all__ = ["store_url"]


def store_url(settings: Settings) -> str:
    """Of a store that is not ours. Raises StartError, which tells no secret."""
    file = settings.store_password_file
    if file is None:
        return settings.store
    try:
        password = read_private(file).removesuffix(b"\n").removesuffix(b"\r")
    except KeyFileError as error:
        raise StartError(f"store_password_file: {error}") from None
    if not password or b"\n" in password:
        raise StartError(f"store_password_file: {file}: write the password into its only line")
    url = urlsplit(settings.store)
    user, _, place = url.netloc.rpartition("@")
    return urlunsplit(url._replace(netloc=f"{user}:{quote(password, safe='')}@{place}"))
