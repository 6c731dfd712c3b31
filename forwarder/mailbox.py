"""How do postmaster's and abuse's messages get into a local file? An mbox (RFC 4155), quoted the ``mboxrd`` way.

``mboxrd`` puts one ``>`` before every line that is ``From `` after any number of ``>``: taking one away gives back
exactly what came, where plain mbox cannot tell a quoted line from one that arrived so. Lines end with LF, as every mail
reader on the host expects.

A message is in the file as a whole or not at all: what a full disk cut short is taken back, and an unfinished end that
a power cut left is closed before the next message begins.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from forwarder.model import Address
from forwarder.ports import Clock

__all__ = ["MailboxFiles"]

#: Octets of one mailbox. Whoever floods abuse@ must not fill the disk that the queue lives on.
DEFAULT_LIMIT = 64 * 1024 * 1024
#: Seconds to wait for a mail reader that has the file locked.
LOCK_LIMIT = 10.0
_LOCK_TICK = 0.05

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
_FROM_LINE = re.compile(rb"^(>*From )", re.MULTILINE)
_NOT_IN_FROM_LINE = re.compile(r"[\x00-\x20\x7f]")


class MailboxFiles:
    """``ports.Mailboxes``: ``directory/NAME``, made when first needed, readable by us alone."""

    def __init__(self, directory: Path, clock: Clock, *, limit: int = DEFAULT_LIMIT) -> None:
        self._directory = directory
        self._clock = clock
        self._limit = limit
        # A POSIX lock is the process's: it keeps mail readers out, not our own threads.
        self._one_at_a_time = threading.Lock()

    async def append(self, mailbox: str, sender: Address | None, data: Sequence[bytes]) -> None:
        """See ``ports.Mailboxes``."""
        if not _NAME.match(mailbox):
            raise OSError(errno.EINVAL, "not a mailbox name", mailbox)
        # RFC 4155: the form of asctime, in UTC.
        date = time.asctime(self._clock.now().utctimetuple())
        await asyncio.to_thread(self._append, self._directory / mailbox, sender, date, data)

    def _append(self, path: Path, sender: Address | None, date: str, data: Sequence[bytes]) -> None:
        message = _render(sender, date, data)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_new = not path.exists()
        with self._one_at_a_time:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                with _locked(descriptor, path):
                    self._write(descriptor, path, message)
            finally:
                os.close(descriptor)
            if is_new:
                _sync_directory(path.parent)

    def _write(self, descriptor: int, path: Path, message: bytes) -> None:
        size = os.fstat(descriptor).st_size
        message = _seam(descriptor, size) + message
        if size + len(message) > self._limit:
            raise OSError(errno.EFBIG, f"mailbox is full: {size} of {self._limit} octets; read and empty it", str(path))
        try:
            rest = memoryview(message)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)
            raise


def _render(sender: Address | None, date: str, data: Sequence[bytes]) -> bytes:
    text = b"".join(data).replace(b"\r\n", b"\n")
    if not text.endswith(b"\n"):
        text += b"\n"
    envelope = _NOT_IN_FROM_LINE.sub("-", str(sender)) if sender else "MAILER-DAEMON"
    # RFC 5321 section 4.4: final delivery puts the reverse-path on top.
    path = f"<{_NOT_IN_FROM_LINE.sub('-', str(sender))}>" if sender else "<>"
    start = f"From {envelope} {date}\nReturn-Path: {path}\n".encode("utf-8", "replace")
    return start + _FROM_LINE.sub(rb">\1", text) + b"\n"


def _seam(descriptor: int, size: int) -> bytes:
    """What is missing between the file's end and a From line: a message ends with an empty line."""
    if size == 0:
        return b""
    end = os.pread(descriptor, 2, max(0, size - 2))
    return b"" if end == b"\n\n" else b"\n" if end.endswith(b"\n") else b"\n\n"


@contextmanager
def _locked(descriptor: int, path: Path) -> Iterator[None]:
    deadline = time.monotonic() + LOCK_LIMIT
    while True:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except (BlockingIOError, PermissionError):
            if time.monotonic() > deadline:
                raise OSError(errno.EAGAIN, "locked by another program", str(path)) from None
            time.sleep(_LOCK_TICK)
    try:
        yield
    finally:
        fcntl.lockf(descriptor, fcntl.LOCK_UN)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
