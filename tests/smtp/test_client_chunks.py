"""BDAT in forwarder/smtp/client.py: RFC 3030."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.model import Reply
from forwarder.smtp.client import NO_CHUNKS, Answer, Broken, Finished, GoAhead, Mail, Phase, SmtpClient, last_chunk

HEAD = b"Subject: x\r\n\r\n"
MAIL = Mail(b"<a@a.test>", (b"<b@b.test>", b"<c@c.test>"), 100, head=HEAD)
EHLO = b"250-x\r\n250-PIPELINING\r\n250 CHUNKING\r\n"
FLIGHT = b"MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nRCPT TO:<c@c.test>\r\nBDAT 14\r\n" + HEAD


def sending(ehlo: bytes = EHLO) -> SmtpClient:
    client = SmtpClient("us.test")
    client.receive_data(b"220 hi\r\n" + ehlo)
    client.take_output()
    assert client.extensions.chunking
    client.begin(MAIL)
    return client


def answered(code: int, phase: Phase) -> Answer:
    return Answer(phase, Reply(code, None, "x"))


def test_the_head_goes_in_the_first_flight_and_the_rest_in_the_second() -> None:
    client = sending()
    assert client.take_output() == FLIGHT
    assert client.receive_data(b"250 x\r\n250 x\r\n250 x\r\n250 x\r\n") == [GoAhead()]
    assert last_chunk(86) == b"BDAT 86 LAST\r\n"
    assert client.finish_message() == b"", "nothing stands behind a chunk"
    assert client.phase is Phase.END
    assert client.receive_data(b"250 x\r\n") == [Finished((answered(250, Phase.END),) * 2)]
    client.begin(MAIL)
    assert client.take_output() == FLIGHT, "nothing was left open"


def test_without_pipelining_it_waits_for_each_reply() -> None:
    client = sending(b"250-x\r\n250 CHUNKING\r\n")
    said = [client.take_output()]
    for _ in range(3):
        assert client.receive_data(b"250 x\r\n") == []
        said.append(client.take_output())
    assert b"".join(said) == FLIGHT
    assert client.receive_data(b"250 x\r\n") == [GoAhead()]


@pytest.mark.parametrize("code", [503, 554, 451, 250])
def test_where_nobody_is_accepted_nothing_follows_the_head(code: int) -> None:
    client = sending()
    client.take_output()
    (event,) = client.receive_data(b"250 x\r\n550 x\r\n550 x\r\n%d x\r\n" % code)
    assert event == Finished((answered(550, Phase.RCPT),) * 2)
    assert client.take_output() == b""
    client.begin(MAIL)
    assert client.take_output() == b"RSET\r\n" + FLIGHT


def test_a_refused_sender_is_the_answer_for_all() -> None:
    client = sending()
    (event,) = client.receive_data(b"550 x\r\n503 x\r\n503 x\r\n503 x\r\n")
    assert event == Finished((answered(550, Phase.MAIL),) * 2)


def test_a_chunk_taken_for_a_refused_sender_makes_no_sense() -> None:
    (event,) = sending().receive_data(b"550 x\r\n250 x\r\n250 x\r\n250 x\r\n")
    assert isinstance(event, Broken)


@pytest.mark.parametrize("code", [451, 452, 552, 554])
def test_a_refused_head_is_the_answer_for_the_accepted(code: int) -> None:
    client = sending()
    (event,) = client.receive_data(b"250 x\r\n550 x\r\n250 x\r\n%d x\r\n" % code)
    assert event == Finished((answered(550, Phase.RCPT), answered(code, Phase.DATA)))
    client.take_output()
    client.begin(MAIL)
    assert client.take_output() == b"RSET\r\n" + FLIGHT


@pytest.mark.parametrize("code", [500, 501, 502, 503, 504, 555])
def test_a_server_that_does_not_know_its_own_offer_is_left(code: int) -> None:
    """What it makes of the octets of the chunk nobody knows."""
    client = sending()
    (event,) = client.receive_data(b"250 x\r\n250 x\r\n250 x\r\n%d what?\r\n500 what?\r\n" % code)
    assert event == Broken(Phase.DATA, NO_CHUNKS, None, (None, None))


@pytest.mark.parametrize("code", [451, 552, 554])
def test_after_a_refused_last_chunk_the_next_transaction_begins_with_rset(code: int) -> None:
    """RFC 3030 section 2: nothing but RSET is certain to work then."""
    client = sending()
    client.receive_data(b"250 x\r\n250 x\r\n250 x\r\n250 x\r\n")
    client.finish_message()
    (event,) = client.receive_data(b"%d x\r\n" % code)
    assert event == Finished((answered(code, Phase.END),) * 2)
    client.take_output()
    client.begin(MAIL)
    assert client.take_output() == b"RSET\r\n" + FLIGHT


@pytest.mark.parametrize(("last", "sent"), [(False, False), (True, True)])
def test_a_lost_connection_tells_whether_the_last_octet_was_handed_over(last: bool, sent: bool) -> None:
    client = sending()
    client.receive_data(b"250 x\r\n250 x\r\n250 x\r\n250 x\r\n")
    if last:
        client.finish_message()
    (event,) = client.lost("gone")
    assert isinstance(event, Broken)
    assert (event.answers, event.dot_sent) == ((None, None), sent)


_REPLIES = st.lists(
    st.sampled_from(
        [b"250 x\r\n", b"250-x\r\n", b"354 x\r\n", b"421 x\r\n", b"450 x\r\n", b"502 x\r\n", b"550 x\r\n", b"?\r\n"]
    ),
    max_size=12,
).map(b"".join)


@given(_REPLIES, st.booleans())
def test_whatever_a_server_says_only_the_answer_to_the_last_chunk_is_a_delivery(data: bytes, pipelining: bool) -> None:
    client = sending(EHLO if pipelining else b"250-x\r\n250 CHUNKING\r\n")
    ends = []
    for at in range(len(data)):
        for event in client.receive_data(data[at : at + 1]):
            if isinstance(event, GoAhead):
                client.finish_message()
            if isinstance(event, Finished | Broken):
                ends.append(event)
    ends += client.lost("gone")
    assert len(ends[0].answers) == 2
    for answer in ends[0].answers:
        if answer is not None and answer.reply.code // 100 == 2:
            assert answer.phase is Phase.END
