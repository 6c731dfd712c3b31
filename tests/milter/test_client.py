"""The server's side of the milter protocol, without any I/O: what is told, and what is made of the answers."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.milter import Broken, Finished, MilterClient, MilterMail, Phase
from forwarder.milter.client import MAX_FIELDS, MAX_RESPONSES
from forwarder.milter.packets import ACTIONS, CHUNK, LEADING_SPACE, MAX_PACKET, STEPS, Step

MAIL = MilterMail(
    ip=ip_address("192.0.2.1"),
    name="mx.sender.test",
    helo="helo.test",
    sender=b"<bob@sender.test>",
    recipients=[b"<a@fwd.test>", b"<b@fwd.test>"],
    fields=[(b"From", b" Bob\r\n <bob@sender.test>\r\n"), (b"X-Tight", b"x\r\n")],
    body=b"b" * (CHUNK + 10),
    macros={"connect": [("j", "mx.fwd.test")], "mail": [("i", "q1")]},
)


def packet(letter: str, data: bytes = b"") -> bytes:
    return struct.pack("!IB", 1 + len(data), ord(letter)) + data


def negotiation(steps: int = 0, version: int = 6) -> bytes:
    return packet("O", struct.pack("!III", version, 0, steps))


def packets(stream: bytes) -> Iterator[tuple[str, bytes]]:
    while stream:
        (length,) = struct.unpack("!I", stream[:4])
        yield chr(stream[4]), stream[5 : 4 + length]
        stream = stream[4 + length :]


def written(client: MilterClient) -> list[tuple[str, bytes]]:
    """All that is to be written until an answer is needed."""
    found: list[tuple[str, bytes]] = []
    while chunks := client.take_output():
        found += packets(b"".join(chunks))
    return found


def begun(steps: int = 0) -> MilterClient:
    client = MilterClient(MAIL)
    client.start()
    [(letter, data)] = written(client)
    assert (letter, data) == ("O", struct.pack("!III", 6, ACTIONS, STEPS))
    assert client.receive_data(negotiation(steps)) is None
    return client


def at_end() -> MilterClient:
    """All is told, and the answer to the end of the message is awaited."""
    client = begun(sum(one.skip for one in Step))
    assert [letter for letter, _ in written(client)] == ["E"]
    assert client.phase is Phase.END
    return client


def fed(client: MilterClient, data: bytes, pieces: Sequence[int] = ()) -> Finished | Broken | None:
    at = 0
    for size in (*pieces, len(data)):
        ended = client.receive_data(data[at : at + size]) if data[at : at + size] else None
        at += size
        if ended is not None:
            return ended
    return None


def test_every_step_is_told_and_waits_for_its_answer() -> None:
    client, told = begun(), list[tuple[str, bytes]]()
    ended = None
    while ended is None:
        now = written(client)
        assert sum(letter != "D" for letter, _ in now) == 1
        told += now
        ended = client.receive_data(packet("c"))

    assert ended == Finished("accept")
    assert told == [
        ("D", b"Cj\0mx.fwd.test\0"),
        ("C", b"mx.sender.test\0004\0\000192.0.2.1\0"),
        ("H", b"helo.test\0"),
        ("D", b"Mi\0q1\0"),
        ("M", b"<bob@sender.test>\0"),
        ("R", b"<a@fwd.test>\0"),
        ("R", b"<b@fwd.test>\0"),
        ("T", b""),
        ("L", b"From\0Bob\n <bob@sender.test>\0"),
        ("L", b"X-Tight\0x\0"),
        ("N", b""),
        ("B", b"b" * CHUNK),
        ("B", b"b" * 10),
        ("E", b""),
    ]
    assert written(client) == [("Q", b"")]


def test_what_it_does_not_want_is_not_told_and_what_it_does_not_answer_not_waited_for() -> None:
    client = begun(Step.CONNECT.skip | Step.RCPT.skip | Step.HEADER.silent | Step.BODY.silent | Step.HELO.silent)

    assert [letter for letter, _ in written(client)] == ["H", "D", "M"]
    assert client.receive_data(packet("c")) is None
    assert [letter for letter, _ in written(client)] == ["T"]
    assert client.receive_data(packet("c")) is None
    assert [letter for letter, _ in written(client)] == ["L", "L", "N"]
    assert client.receive_data(packet("c")) is None
    assert [letter for letter, _ in written(client)] == ["B", "B", "E"]
    assert client.receive_data(packet("a")) == Finished("accept")


def test_values_are_told_with_their_space_to_who_asks_for_it() -> None:
    steps = LEADING_SPACE | sum(one.skip for one in Step if one is not Step.HEADER)

    assert written(begun(steps))[0] == ("L", b"From\0 Bob\n <bob@sender.test>\0")


def test_a_filter_may_have_enough_of_the_body() -> None:
    client = begun(sum(one.skip for one in Step if one is not Step.BODY))
    assert written(client)[0][0] == "B"
    assert client.receive_data(packet("s")) is None
    assert [letter for letter, _ in written(client)] == ["E"]


@pytest.mark.parametrize(
    ("answer", "want"),
    [
        (packet("a"), Finished("accept")),
        (packet("c"), Finished("accept")),
        (packet("p") * 3 + packet("c"), Finished("accept")),
        (packet("r"), Finished("reject")),
        (packet("t"), Finished("tempfail")),
        (packet("d"), Finished("discard")),
        (packet("y", b"554 5.7.1 no\0"), Finished("reject", "554 5.7.1 no")),
        (packet("y", b"451 later\0"), Finished("tempfail", "451 later")),
        (packet("q", b"odd\0") + packet("c"), Finished("quarantine", "odd")),
        (packet("h", b"X-A\0one\n two\0") + packet("c"), Finished("accept", fields=(("X-A", b"one\n two"),))),
        (packet("i", b"\0\0\0\1X-A\0one\0") + packet("c"), Finished("accept", fields=(("X-A", b"one"),))),
        (packet("m", b"\0\0\0\1X-A\0one\0") + packet("c"), Finished("accept", fields=(("X-A", b"one"),))),
        (packet("m", b"\0\0\0\1From\0\0") + packet("c"), Finished("accept", undone=("remove a header field",))),
        (packet("b", b"x" * 65535) * 40 + packet("c"), Finished("accept", undone=("replace the body",))),
        (
            packet("+", b"<x@y.test>\0") + packet("-", b"<a@fwd.test>\0") + packet("e", b"<>\0") + packet("c"),
            Finished("accept", undone=("add a recipient", "remove a recipient", "change the sender")),
        ),
    ],
)
@pytest.mark.parametrize("pieces", [(), (1,) * 60, (3, 2, 1)], ids=["whole", "octets", "pieces"])
def test_what_is_made_of_an_answer(answer: bytes, want: Finished, pieces: Sequence[int]) -> None:
    assert fed(at_end(), answer, pieces) == want


@pytest.mark.parametrize("letter", ["r", "t", "d", "a"])
def test_an_answer_before_the_end_ends_it(letter: str) -> None:
    client = begun()
    written(client)

    assert isinstance(client.receive_data(packet(letter)), Finished)
    assert client.phase is Phase.OVER
    assert written(client) == [("Q", b"")]
    assert isinstance(client.receive_data(packet("c")), Broken)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        struct.pack("!IB", MAX_PACKET + 1, ord("b")),
        struct.pack("!I", 0),
        packet("Z"),
        packet("y", b"hello\0"),
        packet("y", b"250 fine\0"),
        packet("h", b"X-A"),
        packet("h", "Grüße\0x\0".encode()),
        packet("h", b"\0x\0"),
        packet("i", b"\0"),
        packet("f"),
        packet("4"),
        negotiation(),
        packet("p") * (MAX_RESPONSES + 1),
        b"",
    ],
)
def test_what_is_no_answer_ends_it_with_a_reason_of_ours(answer: bytes) -> None:
    ended = at_end().receive_data(answer)

    assert isinstance(ended, Broken)
    assert "Gr" not in ended.reason


@pytest.mark.parametrize("answer", [packet("c"), negotiation(version=1), negotiation(version=7), packet("O", b"\0\0")])
def test_who_does_not_negotiate_is_not_told_anything(answer: bytes) -> None:
    client = MilterClient(MAIL)
    client.start()
    written(client)

    assert isinstance(client.receive_data(answer), Broken)
    assert written(client) == [("Q", b"")]


def test_a_change_is_for_the_end_of_the_message() -> None:
    client = begun()
    written(client)

    assert isinstance(client.receive_data(packet("h", b"X-A\0one\0")), Broken)


def test_fields_are_bounded() -> None:
    ended = at_end().receive_data(packet("h", b"X-A\0one\0") * 1000 + packet("c"))

    assert isinstance(ended, Finished)
    assert len(ended.fields) == MAX_FIELDS


@given(st.binary(max_size=400), st.lists(st.integers(1, 9), max_size=9), st.integers(0, (1 << 32) - 1))
def test_whatever_comes_it_ends_or_waits(data: bytes, pieces: list[int], steps: int) -> None:
    client = begun(steps)
    written(client)
    fed(client, data, pieces)
    written(client)


@given(st.lists(st.tuples(st.sampled_from("acrtdspfhimq+-2be4ylOZ"), st.binary(max_size=40)), max_size=20))
def test_whatever_packets_come_it_ends_or_waits(answers: list[tuple[str, bytes]]) -> None:
    for client in (begun(), at_end()):
        written(client)
        for letter, data in answers:
            if client.receive_data(packet(letter, data)) is not None:
                break
            written(client)
