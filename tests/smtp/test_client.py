"""forwarder/smtp/client.py: bytes in, events and bytes out, no socket anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.model import Reply
from forwarder.smtp.client import (
    Answer,
    Broken,
    Closed,
    Extensions,
    Finished,
    GoAhead,
    Mail,
    Phase,
    Ready,
    Refused,
    SmtpClient,
    StartTls,
    TlsRefused,
    parse_extensions,
)

MAIL = Mail(b"<a@a.test>", (b"<b@b.test>", b"<c@c.test>"), 100)
ALL = b"250-x\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 STARTTLS\r\n"


def greeted(ehlo: bytes = ALL) -> SmtpClient:
    client = SmtpClient("us.test")
    client.receive_data(b"220 hi\r\n")
    client.take_output()
    (event,) = client.receive_data(ehlo)
    assert isinstance(event, Ready)
    return client


def sending(ehlo: bytes = ALL, mail: Mail = MAIL) -> SmtpClient:
    client = greeted(ehlo)
    client.begin(mail)
    return client


def answered(code: int, phase: Phase, text: str = "x") -> Answer:
    return Answer(phase, Reply(code, None, text))


# --- the beginning


def test_it_says_ehlo_to_a_greeting() -> None:
    client = SmtpClient("us.test")
    assert client.phase is Phase.GREETING
    assert client.receive_data(b"220-hello\r\n") == []
    assert client.take_output() == b""
    assert client.receive_data(b"220 world\r\n") == []
    assert client.take_output() == b"EHLO us.test\r\n"
    assert client.receive_data(ALL) == [Ready(Extensions(True, 1000, True, True, True))]
    assert client.phase is Phase.IDLE


@pytest.mark.parametrize("code", [421, 450, 521, 554])
def test_a_greeting_can_refuse_the_session(code: int) -> None:
    client = SmtpClient("us.test")
    assert client.receive_data(b"%d no\r\n" % code) == [Refused(Phase.GREETING, Reply(code, None, "no"))]
    client.quit()
    assert client.take_output() == b"QUIT\r\n"


def test_it_falls_back_to_helo() -> None:
    client = SmtpClient("us.test")
    client.receive_data(b"220 hi\r\n")
    client.take_output()
    assert client.receive_data(b"502 what?\r\n") == []
    assert client.take_output() == b"HELO us.test\r\n"
    assert client.receive_data(b"250 hi\r\n") == [Ready(Extensions())]


def test_helo_can_be_refused_too() -> None:
    client = SmtpClient("us.test")
    client.receive_data(b"220 hi\r\n502 what?\r\n")
    assert client.receive_data(b"550 no\r\n") == [Refused(Phase.HELO, Reply(550, None, "no"))]


def test_a_temporary_no_to_ehlo_is_no_reason_for_helo() -> None:
    client = SmtpClient("us.test")
    client.receive_data(b"220 hi\r\n")
    assert client.receive_data(b"451 later\r\n") == [Refused(Phase.EHLO, Reply(451, None, "later"))]


@pytest.mark.parametrize("hostname", ["", "a b", "a\r\nRSET", "ä.test", "x" * 256])
def test_a_host_name_that_would_break_the_command_is_not_taken(hostname: str) -> None:
    with pytest.raises(ValueError, match="host name"):
        SmtpClient(hostname)


@pytest.mark.parametrize(
    ("lines", "extensions"),
    [
        ((), Extensions()),
        (("pipelining", " Size 5 ", "8bitmime"), Extensions(pipelining=True, size=5, eight_bit=True)),
        (("SIZE",), Extensions(size=0)),
        (("SIZE lots",), Extensions(size=0)),
        (("SIZE " + "9" * 400,), Extensions(size=0)),
        (("SIZE -1",), Extensions(size=0)),
        (("AUTH plain LOGIN", "", "X-PIPELINING"), Extensions(auth=frozenset({"PLAIN", "LOGIN"}))),
        (("AUTH",), Extensions()),
        (("requiretls",), Extensions(requiretls=True)),
    ],
)
def test_extensions_are_what_is_offered_in_a_form_we_know(lines: tuple[str, ...], extensions: Extensions) -> None:
    assert parse_extensions(lines) == extensions


# --- STARTTLS


def test_after_the_handshake_everything_is_learned_anew() -> None:
    client = greeted()
    client.start_tls()
    assert client.take_output() == b"STARTTLS\r\n"
    assert client.receive_data(b"220 go\r\n") == [StartTls()]
    assert client.phase is Phase.TLS
    client.tls_started()
    assert client.extensions == Extensions()
    assert client.take_output() == b"EHLO us.test\r\n"
    assert client.receive_data(b"250 x\r\n") == [Ready(Extensions())]


def test_a_refused_starttls_leaves_the_session_as_it_was() -> None:
    client = greeted()
    client.start_tls()
    assert client.receive_data(b"454 not now\r\n") == [TlsRefused(Reply(454, None, "not now"))]
    assert client.phase is Phase.IDLE
    assert client.extensions.pipelining


@pytest.mark.parametrize("injected", [b"2", b"250 x\r\n", b"250-x\r\n", b"250 x\r\n250 x\r\n2"])
def test_bytes_in_the_same_packet_as_the_220_are_an_attack(injected: bytes) -> None:
    client = greeted()
    client.start_tls()
    event = client.receive_data(b"220 go\r\n" + injected)[-1]
    assert isinstance(event, Broken)
    assert event.reason == "bytes in clear after the reply to STARTTLS"
    assert client.over


@pytest.mark.parametrize("injected", [b"2", b"250 x\r\n"])
def test_bytes_in_clear_before_the_handshake_are_an_attack(injected: bytes) -> None:
    client = greeted()
    client.start_tls()
    client.receive_data(b"220 go\r\n")
    (event,) = client.receive_data(injected)
    assert isinstance(event, Broken)


# --- a transaction


def test_with_pipelining_it_goes_in_one_flight() -> None:
    client = sending()
    assert client.take_output() == (
        b"MAIL FROM:<a@a.test> SIZE=100\r\nRCPT TO:<b@b.test>\r\nRCPT TO:<c@c.test>\r\nDATA\r\n"
    )
    assert client.receive_data(b"250 x\r\n250 x\r\n250 x\r\n354 x\r\n") == [GoAhead()]
    assert client.phase is Phase.BODY
    assert client.finish_message() == b".\r\n"
    assert client.phase is Phase.END
    assert client.receive_data(b"250 x\r\n") == [Finished((answered(250, Phase.END),) * 2)]
    assert client.phase is Phase.IDLE


def test_without_pipelining_it_waits_for_each_reply() -> None:
    client = sending(b"250 x\r\n")
    said = [client.take_output()]
    events = []
    for reply in (b"250 x\r\n", b"250 x\r\n", b"251 x\r\n", b"354 x\r\n"):
        events += client.receive_data(reply)
        said.append(client.take_output())
    assert said == [
        b"MAIL FROM:<a@a.test>\r\n",
        b"RCPT TO:<b@b.test>\r\n",
        b"RCPT TO:<c@c.test>\r\n",
        b"DATA\r\n",
        b"",
    ]
    assert events == [GoAhead()]


@pytest.mark.parametrize(
    ("ehlo", "eight_bit", "smtputf8", "command"),
    [
        (b"250 x\r\n", True, True, b"MAIL FROM:<>\r\n"),
        (b"250-x\r\n250 8BITMIME\r\n", True, True, b"MAIL FROM:<> BODY=8BITMIME\r\n"),
        (b"250-x\r\n250 8BITMIME\r\n", False, False, b"MAIL FROM:<>\r\n"),
        (
            b"250-x\r\n250-8BITMIME\r\n250-SIZE\r\n250 SMTPUTF8\r\n",
            True,
            True,
            b"MAIL FROM:<> SIZE=9 BODY=8BITMIME SMTPUTF8\r\n",
        ),
        (b"250-x\r\n250 SMTPUTF8\r\n", False, False, b"MAIL FROM:<>\r\n"),
    ],
)
def test_parameters_only_where_they_are_offered_and_needed(
    ehlo: bytes, eight_bit: bool, smtputf8: bool, command: bytes
) -> None:
    client = sending(ehlo, Mail(b"<>", (b"<b@b.test>",), 9, eight_bit, smtputf8))
    assert client.take_output() == command


@pytest.mark.parametrize(
    "mail",
    [
        Mail(b"<a@a.test>\r\nRSET", (b"<b@b.test>",), 1),
        Mail(b"<a@a.test\n>", (b"<b@b.test>",), 1),
        Mail(b"<>", (b"<b@b.test>", b"<c\r@c.test>"), 1),
        Mail(b"<>", (b"<b\x00@b.test>",), 1),
        Mail(b"<>", (b"b@b.test",), 1),
        Mail(b"<>", (), 1),
    ],
)
def test_a_path_with_a_line_end_never_leaves(mail: Mail) -> None:
    client = greeted()
    with pytest.raises(ValueError, match="path"):
        client.begin(mail)
    assert client.take_output() == b""


def test_each_recipient_gets_its_own_answer() -> None:
    client = sending()
    assert client.receive_data(b"250 x\r\n550 no\r\n250 x\r\n354 x\r\n") == [GoAhead()]
    client.finish_message()
    assert client.receive_data(b"250 x\r\n") == [Finished((answered(550, Phase.RCPT, "no"), answered(250, Phase.END)))]


def test_a_refused_sender_is_the_answer_for_all() -> None:
    client = sending()
    assert client.receive_data(b"550 no\r\n503 x\r\n503 x\r\n503 x\r\n") == [
        Finished((answered(550, Phase.MAIL, "no"),) * 2)
    ]
    client.take_output()
    client.begin(MAIL)
    assert client.take_output().startswith(b"MAIL"), "nothing was left open"


def test_a_refused_data_is_the_answer_for_the_accepted() -> None:
    client = sending()
    assert client.receive_data(b"250 x\r\n550 no\r\n250 x\r\n451 later\r\n") == [
        Finished((answered(550, Phase.RCPT, "no"), answered(451, Phase.DATA, "later")))
    ]


def test_without_recipients_the_next_transaction_begins_with_rset() -> None:
    client = sending()
    assert client.receive_data(b"250 x\r\n550 x\r\n550 x\r\n503 x\r\n") == [Finished((answered(550, Phase.RCPT),) * 2)]
    client.take_output()
    client.begin(MAIL)
    assert client.take_output().startswith(b"RSET\r\nMAIL")
    assert client.receive_data(b"250 x\r\n250 x\r\n250 x\r\n250 x\r\n354 x\r\n") == [GoAhead()]


def test_a_refused_rset_breaks_the_connection() -> None:
    client = sending()
    client.receive_data(b"250 x\r\n550 x\r\n550 x\r\n503 x\r\n")
    client.begin(MAIL)
    (event,) = client.receive_data(b"500 what?\r\n")
    assert isinstance(event, Broken)


def test_354_without_recipients_is_answered_with_a_lone_dot() -> None:
    """RFC 2920 section 3.1"""
    client = sending()
    client.take_output()
    assert client.receive_data(b"250 x\r\n550 x\r\n550 x\r\n354 x\r\n") == []
    assert client.take_output() == b".\r\n"
    assert client.receive_data(b"554 no\r\n") == [Finished((answered(550, Phase.RCPT),) * 2)]


def test_354_for_a_refused_sender_and_accepted_recipients_gets_no_dot() -> None:
    """A dot would deliver an empty message."""
    client = sending()
    client.take_output()
    (event,) = client.receive_data(b"550 no\r\n250 x\r\n250 x\r\n354 x\r\n")
    assert isinstance(event, Broken)
    assert event.answers == (answered(550, Phase.MAIL, "no"),) * 2
    assert client.take_output() == b""


def test_without_pipelining_nothing_more_is_said_after_a_refusal() -> None:
    client = sending(b"250 x\r\n")
    client.take_output()
    assert client.receive_data(b"450 later\r\n") == [Finished((answered(450, Phase.MAIL, "later"),) * 2)]
    assert client.take_output() == b""
    client.begin(MAIL)
    client.receive_data(b"250 x\r\n550 x\r\n")
    client.take_output()
    assert client.receive_data(b"550 x\r\n") == [Finished((answered(550, Phase.RCPT),) * 2)]
    assert client.take_output() == b"", "DATA would have nobody to go to"


# --- ends


@pytest.mark.parametrize(
    ("replies", "phase", "answers"),
    [
        (b"421 bye\r\n", Phase.MAIL, (None, None)),
        (b"250 x\r\n550 no\r\n421 bye\r\n", Phase.RCPT, (answered(550, Phase.RCPT, "no"), None)),
        (b"250 x\r\n250 x\r\n250 x\r\n421 bye\r\n", Phase.DATA, (None, None)),
    ],
)
def test_421_ends_the_connection_and_keeps_the_answers_so_far(
    replies: bytes, phase: Phase, answers: tuple[Answer | None, ...]
) -> None:
    client = sending()
    assert client.receive_data(replies) == [Broken(phase, "421", Reply(421, None, "bye"), answers)]
    assert client.over


def test_421_to_the_message_is_an_answer() -> None:
    client = sending()
    client.receive_data(b"250 x\r\n250 x\r\n250 x\r\n354 x\r\n")
    client.finish_message()
    (event,) = client.receive_data(b"421 bye\r\n")
    assert isinstance(event, Broken)
    assert event.answers == (answered(421, Phase.END, "bye"),) * 2


@pytest.mark.parametrize(("dot", "sent"), [(False, False), (True, True)])
def test_a_lost_connection_tells_whether_the_dot_was_sent(dot: bool, sent: bool) -> None:
    client = sending()
    client.receive_data(b"250 x\r\n250 x\r\n250 x\r\n354 x\r\n")
    if dot:
        client.finish_message()
    (event,) = client.lost("gone")
    assert isinstance(event, Broken)
    assert (event.reason, event.answers, event.dot_sent) == ("gone", (None, None), sent)
    assert client.lost("gone") == [], "once is enough"


def test_rubbish_after_the_dot_is_no_answer() -> None:
    client = sending()
    client.receive_data(b"250 x\r\n250 x\r\n250 x\r\n354 x\r\n")
    client.finish_message()
    (event,) = client.receive_data(b"lovely\r\n")
    assert isinstance(event, Broken)
    assert (event.answers, event.dot_sent) == ((None, None), True)


def test_a_server_may_refuse_a_message_before_its_end() -> None:
    client = sending()
    events = client.receive_data(b"250 x\r\n250 x\r\n250 x\r\n354 x\r\n552 too much\r\n")
    assert events[0] == GoAhead()
    assert isinstance(events[1], Broken)
    assert events[1].answers == (answered(552, Phase.END, "too much"),) * 2
    assert not events[1].dot_sent


def test_a_yes_before_the_end_of_the_message_is_none() -> None:
    client = sending()
    client.receive_data(b"250 x\r\n250 x\r\n250 x\r\n354 x\r\n")
    (event,) = client.receive_data(b"250 queued\r\n")
    assert isinstance(event, Broken)
    assert event.answers == (None, None)


@pytest.mark.parametrize("reply", [b"421 idle too long\r\n", b"250 by the way\r\n", b"rubbish\r\n"])
def test_a_word_from_an_idle_server_is_its_last(reply: bytes) -> None:
    client = sending()
    client.receive_data(b"250 x\r\n250 x\r\n250 x\r\n354 x\r\n")
    client.finish_message()
    client.receive_data(b"250 x\r\n")
    (event,) = client.receive_data(reply)
    assert isinstance(event, Broken)
    assert (event.answers, event.dot_sent) == ((), False), "the last transaction is over"


@pytest.mark.parametrize(
    "replies",
    [b"354 x\r\n", b"250 x\r\n354 x\r\n", b"250 x\r\n250 x\r\n250 x\r\n250 x\r\n"],
    ids=["MAIL", "RCPT", "DATA"],
)
def test_a_reply_that_fits_no_command_breaks_the_connection(replies: bytes) -> None:
    (event,) = sending().receive_data(replies)
    assert isinstance(event, Broken)
    assert event.reason == "unexpected reply"


def test_quit_closes() -> None:
    client = greeted()
    client.quit()
    assert client.take_output() == b"QUIT\r\n"
    assert client.receive_data(b"221 bye\r\n") == [Closed()]
    assert client.receive_data(b"more\r\n") == []


@pytest.mark.parametrize("what", ["start_tls", "tls_started", "finish_message"])
def test_nothing_can_be_said_out_of_turn(what: str) -> None:
    client = sending()
    with pytest.raises(RuntimeError):
        getattr(client, what)()


_REPLIES = st.lists(
    st.sampled_from(
        [
            b"220 x\r\n",
            b"250 x\r\n",
            b"250-x\r\n",
            b"354 x\r\n",
            b"421 x\r\n",
            b"450 x\r\n",
            b"550 x\r\n",
            b"?\r\n",
            ALL,
        ]
    ),
    max_size=12,
).map(b"".join)


@given(_REPLIES, st.booleans())
def test_whatever_a_server_says_every_recipient_is_accounted_for(data: bytes, pipelining: bool) -> None:
    client = greeted(ALL if pipelining else b"250 x\r\n")
    client.begin(MAIL)
    ends = []
    for at in range(len(data)):
        for event in client.receive_data(data[at : at + 1]):
            if isinstance(event, GoAhead):
                client.finish_message()
            if isinstance(event, Finished | Broken):
                ends.append(event)
    ends += client.lost("gone")
    assert isinstance(ends[-1], Broken)
    assert len(ends[0].answers) == 2
    for answer in ends[0].answers:
        if answer is not None and answer.reply.code // 100 == 2:
            assert answer.phase is Phase.END, "only the answer to the message is a delivery"


# --- reports (RFC 3461)

ASKING = MAIL._replace(dsn=b" RET=HDRS ENVID=Q1", notices=(b" NOTIFY=NEVER", b" ORCPT=rfc822;x@x.test"))


def test_what_is_asked_of_reports_is_asked_where_dsn_is_offered() -> None:
    client = sending(b"250-x\r\n250-PIPELINING\r\n250 DSN\r\n", ASKING)
    assert client.take_output() == (
        b"MAIL FROM:<a@a.test> RET=HDRS ENVID=Q1\r\n"
        b"RCPT TO:<b@b.test> NOTIFY=NEVER\r\nRCPT TO:<c@c.test> ORCPT=rfc822;x@x.test\r\nDATA\r\n"
    )


def test_and_nowhere_else() -> None:
    client = sending(b"250-x\r\n250 PIPELINING\r\n", ASKING)
    assert client.take_output() == b"MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nRCPT TO:<c@c.test>\r\nDATA\r\n"


@pytest.mark.parametrize("broken", [b" NOTIFY=NEVER\r\nRSET", b" ORCPT=utf-8;\xc3\xa4", b"\0"])
def test_a_parameter_that_would_break_the_command_is_not_taken(broken: bytes) -> None:
    with pytest.raises(ValueError, match="printable"):
        sending(mail=MAIL._replace(notices=(b"", broken)))
    with pytest.raises(ValueError, match="printable"):
        sending(mail=MAIL._replace(dsn=broken))
