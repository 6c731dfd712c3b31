"""edge.auth: what a client gives, and how many passwords are checked at once."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from ipaddress import ip_address

import pytest

from forwarder.edge.auth import Authenticator, Given, decode, parse_plain

RIGHT = Given("a", "right")


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
    checks = [asyncio.ensure_future(authenticator.check(RIGHT, ip_address(f"192.0.2.{n}"))) for n in range(40)]
    refused, _ = await asyncio.wait(checks, timeout=10, return_when=asyncio.FIRST_COMPLETED)
    assert {one.result() for one in refused} == {None}
    passwords.go_on.set()
    answers = await asyncio.gather(*checks)
    authenticator.close()
    assert (answers.count(True), answers.count(None)) == (32, 8)
    assert passwords.most == 2


@pytest.mark.parametrize(
    ("same", "other"), [(["192.0.2.1"] * 40, "192.0.2.2"), ([f"2001:db8::{n}" for n in range(40)], "2001:db8:0:1::1")]
)
async def test_one_client_that_guesses_keeps_nobody_else_out(same: list[str], other: str) -> None:
    passwords = SlowPasswords()
    authenticator = Authenticator(passwords)
    guesses = [asyncio.ensure_future(authenticator.check(Given("a", "wrong"), ip_address(ip))) for ip in same]
    await asyncio.sleep(0)
    user = asyncio.ensure_future(authenticator.check(RIGHT, ip_address(other)))
    await asyncio.sleep(0)
    passwords.go_on.set()
    assert await user is True
    answers = await asyncio.gather(*guesses)
    assert (answers.count(False), answers.count(None)) == (2, 38)
    assert await authenticator.check(RIGHT, ip_address(same[0])) is True
    authenticator.close()


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
