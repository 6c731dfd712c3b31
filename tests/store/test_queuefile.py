"""store/queuefile.py: is a line of a file read back whole, and everything noticed that was changed in it?"""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta

import pytest

from forwarder.store.queue import Carried
from forwarder.store.queuefile import LineError, build_line, parse_line
from tests.store.queue.items import NOW, held


def test_a_line_of_a_file_is_read_back_whole() -> None:
    one = Carried(held(recipients=2), 60, 1, "why", 3600, on_hold=True, given_up=True)
    assert parse_line(build_line(one, NOW), NOW) == replace(one, due_in=0)
    waiting = Carried(held(), due_in=60)
    assert parse_line(build_line(waiting, NOW), NOW + timedelta(seconds=20)) == replace(waiting, due_in=40)


def test_whatever_is_changed_in_a_line_is_noticed() -> None:
    line = build_line(Carried(held()), NOW)
    about = line.index(b'"about"'), line.index(b'"due_at"')
    rng = random.Random(3)
    for _ in range(500):
        changed, at = bytearray(line), rng.randrange(len(line) - 1)
        changed[at] ^= 1 << rng.randrange(7)
        if about[0] <= at < about[1]:
            continue
        with pytest.raises(LineError):
            parse_line(bytes(changed), NOW)


@pytest.mark.parametrize("text", [b"", b"\n", b"{}", b"[]", b"\xff", b'{"format":1}', b"x" * 1000])
def test_what_is_no_line_is_said_so(text: bytes) -> None:
    with pytest.raises(LineError):
        parse_line(text, NOW)
