"""edge.auth: what a client gives, and how many passwords are checked at once."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field

import pytest

from forwarder.edge.auth import Authenticator, Given, decode, parse_plain


@dataclass
class SlowPasswords:
    """Takes as long as it is told; counts how many are asked at once."""

    go_on: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    now: int = 0
    most: int = 0

    def check(self, login: str, password: str) -> bool:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        assert self.go_on.wait(10)
        with self.lock:
            self.now -= 1
        return password == "right"


async def test_two_are_checked_at_once_some_wait_and_the_rest_hears_so_at_once() -> None:
    passwords = SlowPasswords()
    authenticator = Authenticator(passwords)
    checks = [asyncio.ensure_future(authenticator.check(Given("a", "right"))) for _ in range(40)]
    refused, _ = await asyncio.wait(checks, timeout=10, return_when=asyncio.FIRST_COMPLETED)
    assert {one.result() for one in refused} == {None}
    passwords.go_on.set()
    answers = await asyncio.gather(*checks)
    authenticator.close()
    assert (answers.count(True), answers.count(None)) == (32, 8)
    assert passwords.most == 2


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"\0alice\0pw", Given("alice", "pw")),
        (b"alice\0alice\0pw", Given("alice", "pw")),
        (b"root\0alice\0pw", None),
        (b"\0\0pw", None),
        (b"\0alice\0", None),
        (b"alice\0pw", None),
        (b"\0alice\0p\0w", None),
        (b"\0\xff\0pw", None),
        (b"", None),
    ],
)
def test_plain_is_read_strictly(message: bytes, expected: Given | None) -> None:
    assert parse_plain(message) == expected


@pytest.mark.parametrize(("line", "expected"), [(b"YQ==", b"a"), (b"YQ=", None), (b"YQ==\t", None), (b"", b"")])
def test_base64_is_base64_and_nothing_else(line: bytes, expected: bytes | None) -> None:
    assert decode(line) == expected
