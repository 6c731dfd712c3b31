"""The grammar of EHLO, MAIL and RCPT: what is taken, and how the rest is refused."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.mail.address import wire
from forwarder.model import Address, BodyKind, Reply
from forwarder.smtp.commands import (
    CommandError,
    MailCommand,
    RcptCommand,
    parse_helo,
    parse_mail,
    parse_rcpt,
    render_mail_dsn,
    render_rcpt_dsn,
)
from forwarder.smtp.lenient import Lenient

ALL = frozenset({"SIZE", "8BITMIME", "SMTPUTF8", "DSN"})
BOB = Address("bob", "sender.test")


def mail(argument: bytes, *, max_size: int = 1000, offered: frozenset[str] = ALL) -> MailCommand:
    return parse_mail(argument, max_size=max_size, offered=offered)


def rcpt(argument: bytes, *, smtputf8: bool = False, offered: frozenset[str] = ALL) -> RcptCommand:
    return parse_rcpt(argument, smtputf8=smtputf8, postmaster_domain="mx.fwd.test", offered=offered)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        (b"FROM:<bob@sender.test>", MailCommand(BOB)),
        (b"from: <bob@SENDER.test>  ", MailCommand(BOB)),
        (b"FROM:<>", MailCommand(None)),
        (b"FROM:<bob@sender.test> SIZE=1000", MailCommand(BOB, size=1000)),
        (b"FROM:<bob@sender.test>  body=8bitmime  size=0", MailCommand(BOB, 0, BodyKind.EIGHT_BIT_MIME)),
        (b"FROM:<bob@sender.test> SMTPUTF8", MailCommand(BOB, smtputf8=True)),
        (
            "FROM:<böb@bücher.test> SMTPUTF8".encode(),
            MailCommand(Address("böb", "bücher.test"), smtputf8=True),
        ),
        (b"FROM:<bob@sender.test> RET=hdrs ENVID=Qq+2BAb", MailCommand(BOB, ret="hdrs", envid="Qq+2BAb")),
        (b"FROM:<@a.test,@b.test:bob@sender.test>", MailCommand(BOB)),
        (rb'FROM:<"x\" SIZE=1"@sender.test> SIZE=2', MailCommand(Address(r'"x\" SIZE=1"', "sender.test"), size=2)),
    ],
)
def test_a_well_formed_mail_command_is_read(argument: bytes, expected: MailCommand) -> None:
    assert mail(argument) == expected


@pytest.mark.parametrize(
    ("argument", "code", "enhanced"),
    [
        (b"", 501, "5.5.4"),
        (b"FROM:", 501, "5.5.4"),
        (b"TO:<bob@sender.test>", 501, "5.5.4"),
        (b"FROM :<bob@sender.test>", 501, "5.5.4"),
        (b"FROM:bob@sender.test", 501, "5.5.2"),
        (b"FROM:<bob@sender.test", 501, "5.1.7"),
        (b"FROM:<bob@sender.test>>", 501, "5.5.4"),
        (b"FROM:<bob@sender.test>SIZE=1", 501, "5.5.4"),
        (b"FROM:<bob>", 501, "5.1.7"),
        (b"FROM:<postmaster>", 501, "5.1.7"),
        (b"FROM:<@sender.test>", 501, "5.1.7"),
        (b"FROM:<a@b@sender.test>", 501, "5.1.7"),
        (b"FROM:<a@-bad-.test>", 501, "5.1.7"),
        (b"FROM:<a@sender..test>", 501, "5.1.7"),
        (b"FROM:<a@" + b"x" * 64 + b".test>", 501, "5.1.7"),
        (b"FROM:<" + b"a" * 250 + b"@sender.test>", 501, "5.1.7"),
        (b"FROM:<any(a@sender.test>", 501, "5.1.7"),
        (b"FROM:<any@legitimate.test(a.sender.test>", 501, "5.1.7"),
        (b"FROM:<a\x00b@sender.test>", 501, "5.1.7"),
        (b"FROM:<a\tb@sender.test>", 501, "5.1.7"),
        (b'FROM:<"a\\\rb"@sender.test>', 501, "5.1.7"),
        (b"FROM:<" + b"(" * 240 + b">", 501, "5.1.7"),
        (b"FROM:<  @", 501, "5.1.7"),
        (b'FROM:<"', 501, "5.1.7"),
        (b"FROM:<bob(c)@sender.test>", 501, "5.1.7"),
        ("FROM:<böb@sender.test>".encode(), 553, "5.6.7"),
        ("FROM:<bob@bücher.test>".encode(), 553, "5.6.7"),
        (b"FROM:<b\xf6b@sender.test> SMTPUTF8", 501, "5.1.7"),
        (b"FROM:<bob@sender.test> SIZE=-1", 501, "5.5.4"),
        (b"FROM:<bob@sender.test> SIZE", 501, "5.5.4"),
        (b"FROM:<bob@sender.test> SIZE=1x", 501, "5.5.4"),
        (b"FROM:<bob@sender.test> SIZE=" + b"9" * 23, 552, "5.3.4"),
        (b"FROM:<bob@sender.test> SIZE=1001", 552, "5.3.4"),
        (b"FROM:<bob@sender.test> BODY=BINARYMIME", 555, "5.5.4"),
        (b"FROM:<bob@sender.test> BODY", 501, "5.5.4"),
        (b"FROM:<bob@sender.test> FOO=BAR", 555, "5.5.4"),
        (b"FROM:<bob@sender.test> AUTH=<>", 555, "5.5.4"),
        (b"FROM:<bob@sender.test> REQUIRETLS", 530, "5.7.10"),
        (b"FROM:<bob@sender.test> NOTIFY=NEVER", 555, "5.5.4"),
        (b"FROM:<bob@sender.test> SIZE=1 SIZE=1", 501, "5.5.4"),
        (b"FROM:<bob@sender.test> SMTPUTF8 smtputf8", 501, "5.5.4"),
        (b"FROM:<bob@sender.test> SMTPUTF8=1", 501, "5.5.4"),
        (b"FROM:<bob@sender.test> =1", 501, "5.5.4"),
        (b"FROM:<bob@sender.test> RET=ALL", 501, "5.5.4"),
        (b"FROM:<bob@sender.test> ENVID=a+0D+0Ab", 501, "5.5.4"),
        (b"FROM:<bob@sender.test> ENVID=a+zz", 501, "5.5.4"),
        (b"FROM:<bob@sender.test> ENVID=" + b"a" * 101, 501, "5.5.4"),
    ],
)
def test_a_malformed_mail_command_is_refused_with_its_code(argument: bytes, code: int, enhanced: str) -> None:
    with pytest.raises(CommandError) as error:
        mail(argument)
    assert (error.value.reply.code, error.value.reply.enhanced) == (code, enhanced)


def test_parameters_need_the_extension_that_offers_them() -> None:
    for parameter in (b"SIZE=1", b"BODY=8BITMIME", b"SMTPUTF8", b"RET=FULL", b"ENVID=x"):
        with pytest.raises(CommandError) as error:
            mail(b"FROM:<bob@sender.test> " + parameter, offered=frozenset())
        assert error.value.reply.code == 555


def test_auth_is_taken_where_it_is_offered() -> None:
    assert mail(b"FROM:<bob@sender.test> AUTH=<>", offered=ALL | {"AUTH"}) == MailCommand(BOB)
    assert mail(b"FROM:<bob@sender.test> AUTH=e+3Dmc2@x", offered=ALL | {"AUTH"}) == MailCommand(BOB)


def test_no_limit_takes_every_size() -> None:
    assert mail(b"FROM:<> SIZE=99999999999999999999", max_size=0).size == 99999999999999999999


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        (b"TO:<bob@sender.test>", RcptCommand(BOB)),
        (b"to: <bob@sender.test>", RcptCommand(BOB)),
        (b"TO:<PostMaster>", RcptCommand(Address("PostMaster", "mx.fwd.test"))),
        (b"TO:<postmaster@sender.test>", RcptCommand(Address("postmaster", "sender.test"))),
        (b"TO:<@relay.test:bob@sender.test>", RcptCommand(BOB)),
        (b"TO:<bob@sender.test> NOTIFY=Never", RcptCommand(BOB, "Never")),
        (
            b"TO:<bob@sender.test> notify=SUCCESS,delay ORCPT=rfc822;Bob+2Btag@X.test",
            RcptCommand(BOB, "SUCCESS,delay", "rfc822;Bob+2Btag@X.test"),
        ),
        (rb"TO:<bob@sender.test> ORCPT=utf-8;b\x{F6}b@x.test", RcptCommand(BOB, None, r"utf-8;b\x{F6}b@x.test")),
    ],
)
def test_a_well_formed_rcpt_command_is_read(argument: bytes, expected: RcptCommand) -> None:
    assert rcpt(argument) == expected


@pytest.mark.parametrize(
    ("argument", "code", "enhanced"),
    [
        (b"TO:", 501, "5.5.4"),
        (b"FROM:<bob@sender.test>", 501, "5.5.4"),
        (b"TO:bob@sender.test", 501, "5.5.2"),
        (b"TO:<>", 501, "5.1.3"),
        (b"TO:<bob>", 501, "5.1.3"),
        (b"TO:<alias\x00@fwd.test>", 501, "5.1.3"),
        ("TO:<böb@sender.test>".encode(), 553, "5.6.7"),
        (b"TO:<bob@sender.test> SIZE=1", 555, "5.5.4"),
        (b"TO:<bob@sender.test> NOTIFY=NEVER,SUCCESS", 501, "5.5.4"),
        (b"TO:<bob@sender.test> NOTIFY=SOMETIMES", 501, "5.5.4"),
        (b"TO:<bob@sender.test> NOTIFY", 501, "5.5.4"),
        (b"TO:<bob@sender.test> ORCPT=rfc822", 501, "5.5.4"),
        (b"TO:<bob@sender.test> ORCPT=rfc822;", 501, "5.5.4"),
        (b"TO:<bob@sender.test> ORCPT=rfc822;a+0Ab", 501, "5.5.4"),
        ("TO:<bob@sender.test> ORCPT=utf-8;böb@x.test".encode(), 553, "5.6.7"),
        (b"TO:<bob@sender.test> ORCPT=rfc822;" + b"a" * 500, 501, "5.5.4"),
    ],
)
def test_a_malformed_rcpt_command_is_refused_with_its_code(argument: bytes, code: int, enhanced: str) -> None:
    with pytest.raises(CommandError) as error:
        rcpt(argument)
    assert (error.value.reply.code, error.value.reply.enhanced) == (code, enhanced)


def test_utf8_recipients_pass_in_a_transaction_that_asked_for_them() -> None:
    assert rcpt("TO:<böb@sender.test>".encode(), smtputf8=True).address == Address("böb", "sender.test")
    assert rcpt("TO:<bob@sender.test> ORCPT=utf-8;böb@x.test".encode(), smtputf8=True).orcpt == "utf-8;böb@x.test"


def test_what_a_recipient_is_read_as_depends_on_all_that_was_asked_for() -> None:
    read = [
        parse_rcpt(b"TO:<postmaster>", smtputf8=False, postmaster_domain=domain, offered=frozenset()).address.domain
        for domain in ("one.test", "two.test", "one.test")
    ]
    assert read == ["one.test", "two.test", "one.test"]
    assert rcpt("TO:<böb@sender.test>".encode(), smtputf8=True).address == Address("böb", "sender.test")
    with pytest.raises(CommandError):
        rcpt("TO:<böb@sender.test>".encode(), smtputf8=False)


@pytest.mark.parametrize(
    "name",
    [
        "client.sender.test",
        "localhost",
        "my_pc",
        "host.test.",
        "192.0.2.1",
        "[192.0.2.1]",
        "[IPv6:2001:db8::1]",
        "[::1]",
    ],
)
def test_helo_takes_the_names_that_real_hosts_have(name: str) -> None:
    assert parse_helo(name.encode() + b" ") == name


@pytest.mark.parametrize(
    "argument",
    [
        *(b"", b"   ", b"a\x00b", b"a\rb", b"a b", b"\x1b[31mx", b"<b>x</b>", b"a;b", b"(a)", b'"a"', b"[1.2.3]"),
        *(b"[x]", b"[fe80::1%eth0]", b"...", b"x" * 256, "bücher.test".encode(), b"\xff"),
    ],
)
def test_helo_refuses_what_could_mark_up_a_log_or_a_header(argument: bytes) -> None:
    with pytest.raises(CommandError) as error:
        parse_helo(argument)
    assert (error.value.reply.code, error.value.reply.enhanced) == (501, "5.5.4")


@given(st.binary(max_size=300) | st.text('<>@"\\ ab.[]:,=+;()', max_size=200).map(str.encode))
def test_no_argument_raises_anything_but_a_command_error_nor_comes_back_in_the_reply(rest: bytes) -> None:
    for parse, argument in ((mail, b"FROM:<" + rest), (rcpt, b"TO:<" + rest), (mail, rest), (rcpt, rest)):
        refusal = refused(parse, argument)
        assert refusal is None or refusal.code in (501, 530, 552, 553, 555)
        assert refusal is None or (refusal.text.isascii() and refusal.text.isprintable())
    try:
        name = parse_helo(rest)
    except CommandError:
        return
    assert name.isascii()
    assert name.isprintable()
    assert " " not in name


def refused(parse: Callable[[bytes], object], argument: bytes) -> Reply | None:
    try:
        parse(argument)
    except CommandError as error:
        return error.reply
    return None


@pytest.mark.parametrize("unit", [b"a", b"(", b'"', b"@a,", b"a.", b" A=b", b"\\", b"<", b"[", b"+2B", b":", b"@:"])
def test_long_arguments_cost_linear_time(unit: bytes) -> None:
    argument = unit * (200_000 // len(unit))
    started = time.process_time()
    for parse, begin in ((mail, b"FROM:<"), (rcpt, b"TO:<"), (mail, b"FROM:<a@b.test> ENVID="), (rcpt, b"TO:<a@b> ")):
        with pytest.raises(CommandError):
            parse(begin + argument)
    with pytest.raises(CommandError):
        parse_helo(argument)
    assert time.process_time() - started < 1


# --- as we write them


def test_parameters_of_reports_are_written_as_they_came() -> None:
    assert render_mail_dsn(None, None) == b""
    assert render_mail_dsn("HDRS", "Q+2B1") == b" RET=HDRS ENVID=Q+2B1"
    assert (
        render_rcpt_dsn("SUCCESS,FAILURE", "rfc822;a+2Bb@c.test")
        == b" NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a+2Bb@c.test"
    )
    assert render_rcpt_dsn(None, None) == b""


def test_an_orcpt_in_utf_8_is_written_without_it_and_left_out_where_it_grows_too_long() -> None:
    assert render_rcpt_dsn(None, "utf-8;jürgen@c.test") == rb" ORCPT=utf-8;j\x{FC}rgen@c.test"
    parsed = rcpt(rb"TO:<a@b.test> ORCPT=utf-8;j\x{FC}rgen@c.test")
    assert parsed.orcpt == r"utf-8;j\x{FC}rgen@c.test"
    assert render_rcpt_dsn("NEVER", "utf-8;" + "ü" * 100) == b" NOTIFY=NEVER"


# --- what real senders write ------------------------------------------------------------------------------------------

STRICT = Lenient(space=False)
LOOSE = Lenient(brackets=True, dots=True, helo=True)


def test_a_space_behind_the_colon_is_taken_or_not() -> None:
    assert mail(b"FROM:  <bob@sender.test>").sender == BOB
    with pytest.raises(CommandError):
        parse_mail(b"FROM: <bob@sender.test>", max_size=0, offered=ALL, lenient=STRICT)
    assert parse_mail(b"FROM:<bob@sender.test>", max_size=0, offered=ALL, lenient=STRICT).sender == BOB


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        (b"FROM:bob@sender.test", MailCommand(BOB)),
        (b"FROM: bob@sender.test SIZE=10", MailCommand(BOB, size=10)),
        (b"FROM:bob@sender.test>", None),
        (b"FROM:bob@sender.test> SIZE=10", None),
        (b"FROM:bob@sender.test <eve@sender.test>", None),
        (b"FROM:bob@sender.test eve@sender.test", None),
        (b"FROM:bob", None),
        (b"FROM:", None),
    ],
)
def test_without_brackets_an_address_ends_at_the_first_space(argument: bytes, expected: MailCommand | None) -> None:
    found: MailCommand | int
    try:
        found = parse_mail(argument, max_size=1000, offered=ALL, lenient=LOOSE)
    except CommandError as error:
        found = error.reply.code
    assert found == (expected or 501)


@pytest.mark.parametrize(
    ("local", "expected"),
    [(b"bob.", b'"bob."'), (b".bob", b'".bob"'), (b"b..ob", b'"b..ob"'), (b"b.ob", b"b.ob"), (b'"b. ob"', b'"b. ob"')],
)
def test_dots_that_no_dot_atom_has_are_written_in_quotes(local: bytes, expected: bytes) -> None:
    found = parse_mail(b"FROM:<" + local + b"@sender.test>", max_size=0, offered=ALL, lenient=LOOSE)
    assert wire(found.sender) == b"<" + expected + b"@sender.test>"


@pytest.mark.parametrize("local", [b".", b"..", b"a.(b)", b"a b", b""])
def test_dots_alone_are_no_local_part(local: bytes) -> None:
    with pytest.raises(CommandError):
        parse_mail(b"FROM:<" + local + b"@sender.test>", max_size=0, offered=ALL, lenient=LOOSE)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        (b"mx.sender.test", "mx.sender.test"),
        (b"Bobs Rechner", None),
        (b"[1.2.3", None),
        (b"b\xfcro", None),
    ],
)
def test_where_a_name_is_none_there_is_none(argument: bytes, expected: str | None) -> None:
    assert parse_helo(argument, LOOSE) == expected
