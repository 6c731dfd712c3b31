"""What lies in the store, in files of the operator's, and in reversible addresses."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from forwarder import srs, srslegacy
from forwarder.bounce.letter import Letter, parse_letter
from forwarder.config import ConfigError
from forwarder.config.reading import load
from forwarder.mail.address import AddressError, parse_path, wire
from forwarder.mail.reasons import RulesError, parse_rules
from forwarder.model import Address
from forwarder.ports import Dialect, Forwarded, Legacy, StsMode, StsPolicy
from forwarder.store.queue import Carried
from forwarder.store.queuefile import LineError, build_line, parse_line
from forwarder.store.queuerecords import open_held, pack_held
from forwarder.store.records import (
    VERSION,
    Names,
    open_address,
    open_finding,
    open_forwarded,
    open_policy,
    open_salt,
    open_session,
    open_standing,
    seal_address,
    seal_forwarded,
    seal_policy,
)
from tests.fuzz.target import Target, holds
from tests.store.queue.items import BODY, rewritable

NOW = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
TODAY = NOW.date()

# --- records ------------------------------------------------------------------------------------------------------------

_NAMES = Names(b"s" * 32)
_NAME = b"name"
_BOB = Address("bob", "sender.test")
_SEAL = 9


def run_record(data: bytes) -> None:
    """Content under a good seal, as an older or newer release or a program of ours gone wrong could leave it."""
    sealed = VERSION + _NAMES.tag(_NAME, data) + data
    for value in (sealed, data):
        open_address(_NAMES, _NAME, value)
        open_forwarded(_NAMES, _NAME, value, _BOB)
        open_policy(_NAMES, _NAME, value)
        open_standing(_NAMES, _NAME, value)
        open_finding(_NAMES, _NAME, value)
        open_session("a.test", VERSION + value)
        open_salt(value)
        open_held(_NAMES, _NAME, value, None)
        open_held(_NAMES, _NAME, value, (data, BODY))


RECORDS = Target(
    "records",
    run_record,
    (
        pack_held(rewritable()),
        seal_address(_NAMES, _NAME, _BOB)[_SEAL:],
        seal_forwarded(_NAMES, _NAME, Forwarded(_BOB, _BOB, _BOB, _BOB, "<1@a.test>", "e1", NOW), "<1@a.test>")[_SEAL:],
        seal_policy(_NAMES, _NAME, StsPolicy("1", StsMode.ENFORCE, ("mx.a.test",), 86400))[_SEAL:],
    ),
    (
        *(
            b"\xc0",
            b"\xc2",
            b"\xc3",
            b"\x90",
            b"\x91",
            b"\x9f",
            b"\xdc\xff\xff",
            b"\xdd\xff\xff\xff\xff",
            b"\xdf\xff\xff\xff\xff",
            b"\x80",
        ),
        *(
            b"\xc4\x00",
            b"\xc6\xff\xff\xff\xff",
            b"\xd9\xff",
            b"\xa0",
            b"\xa1\xff",
            b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00",
            b"\xd3\x80" + b"\0" * 7,
        ),
        *(
            b"\xd6\xff\x00\x00\x00\x00",
            b"\xd7\xff" + b"\xff" * 8,
            b"\xc7\x0c\xff" + b"\xff" * 12,
            b"\xc7\x0c\xff" + b"\0" * 4 + b"\x80" + b"\0" * 7,
        ),
        *(b"\xa7999.1.1", b"\xa3::1", b"\x91" * 3000, b"\x81" * 3000, b"\xc4\x01@", b"\xff", b"\x00", b"\x7f"),
    ),
    20_000,
)

# --- files of the operator's --------------------------------------------------------------------------------------------


def run_line(data: bytes) -> None:
    """A line of a queue that was carried here."""
    with suppress(LineError):
        carried = parse_line(data, NOW)
        holds(carried.due_in >= 0 and carried.dead_for >= 0, "a time that lies before now")


LINES = Target(
    "lines",
    run_line,
    (build_line(Carried(rewritable(), due_in=5.0), NOW),),
    (
        *(
            b'"',
            b"{",
            b"}",
            b"[",
            b"]",
            b":",
            b",",
            b"null",
            b"true",
            b"1e999",
            b"-1",
            b"\\ud800",
            b"\\u0000",
            b"\xff",
            b"[" * 3000,
        ),
        *(
            b'"about":',
            b'{"a":' * 50,
            b'"due_at":"9999-12-31T23:59:59Z"',
            b'"0001-01-01T00:00:00+23:59"',
            b'"check":""',
        ),
    ),
    50_000,
)


def run_text(data: bytes) -> None:
    """Templates of letters, and rules for bounces."""
    text = data.decode("utf-8", "replace")
    for letter in Letter:
        with suppress(ValueError):
            parse_letter(letter, text)
    with suppress(RulesError):
        parse_rules(text)


#: Octets of TOML, which takes quadratic time for keys of many parts. An operator's file may; strangers write none.
_MAX_TOML = 4096
TEXTS = Target(
    "texts",
    run_text,
    (
        b"Subject: about ${alias}\n\n${findings}\n\n$hostname $$ ${told}\n",
        b'[[rule]]\nreason = "user-unknown"\nwords = ["no such user"]\nstatus = ["5.1.1"]\n',
    ),
    (
        *(
            b"Subject: ",
            b"${",
            b"$",
            b"$$",
            b"}",
            b"${alias}",
            b"\n",
            b"\n\n",
            b"\r\n",
            b"[[rule]]\n",
            b'"""',
            b'"',
            b"=",
            b"[",
            b"]",
        ),
        *(b"words = ", b"status = ", b'["5.1.1"]', b"\\", b"#", b"\xff", b"\xc3\xbc", b"\0", b"1e999", b"[[[[[[[["),
    ),
    _MAX_TOML,
)


class Settings:
    """The reader wants a file; one serves all inputs."""

    def __init__(self) -> None:
        self._folder: TemporaryDirectory[str] | None = None

    def run(self, data: bytes) -> None:
        """A configuration file."""
        if self._folder is None:
            self._folder = TemporaryDirectory()
        path = Path(self._folder.name) / "forwarder.toml"
        path.write_bytes(data)
        try:
            load(path, {})
        except ConfigError as error:
            holds(str(error).isprintable() or "\n" in str(error), "a mistake that cannot be shown")
            holds("\x1b" not in str(error), "a mistake with a control character in it")

    def close(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()


_SETTINGS = Settings()
close_settings = _SETTINGS.close
CONFIG = Target(
    "config",
    _SETTINGS.run,
    (
        b"""\
hostname = "mx.fwd.test"
listen = ["127.0.0.25:25", {address = "[::1]:587", submission = true}]
store = "embedded"
[srs]
domain = "fwd.test"
secret_file = "keys/srs.secret"
[[keys.dkim]]
domain = "fwd.test"
selector = "rsa"
key = "keys/fwd.rsa.pk8"
[relay]
smarthost = "127.0.0.1:2599"
in_session = 20
[queue.destinations."sink.test"]
per_minute = 5
[policy]
unauthenticated = "tag"
[domains."fwd.test".aliases]
alias = ["dest@sink.test"]
"*" = {targets = ["a@b.test"], enabled = false}
""",
        b'hostname = "mx.fwd.test"\nstore = "redis://h:1/0"\n[[limits.networks]]\nnetwork = "::/0"\n',
    ),
    (
        *(
            b"\n",
            b"[",
            b"]",
            b"[[",
            b"]]",
            b"=",
            b'"',
            b"'",
            b'"""',
            b"{",
            b"}",
            b",",
            b".",
            b"#",
            b"\\",
            b"\\u0000",
            b"\\U0010ffff",
            b"\xff",
            b"\x1b",
        ),
        *(
            b"true",
            b"-1",
            b"1e999",
            b"nan",
            b"inf",
            b"0x7fffffffffffffffffff",
            b"1979-05-27T07:32:00Z",
            b"\xc3\xbc",
            b"[relay.tls]\n",
            b"workers = ",
        ),
        *(
            b"a@b",
            b"127.0.0.1",
            b":99999",
            b"redis+cluster://",
            b"unix://",
            b'"\\u001b[31m"',
            b'[domains."\xc3\xbc".aliases]\n',
            b"a.b.c.d = 1\n",
        ),
    ),
    _MAX_TOML,
)

# --- reversible addresses -----------------------------------------------------------------------------------------------

_SECRETS = (b"s" * 32, b"t" * 32)
_LEGACY = tuple(
    Legacy(dialect, "fwd.test", (b"old secret",), date(2027, 1, 1))
    for dialect in (Dialect.POSTSRSD, Dialect.EXIM, Dialect.OPENSMTPD)
)
_MINTED = (
    srs.encode(_BOB, "fwd.test", _SECRETS, TODAY).address,
    srs.encode(Address("a" * 60, "sender.test"), "fwd.test", _SECRETS, TODAY).address,
    srs.encode_one_way(_BOB, "fwd.test", _SECRETS, TODAY),
    srs.encode(Address("SRS0=AAAA=BB=c.test=d", "first.test"), "fwd.test", _SECRETS, TODAY).address,
    srs.encode_reply(_BOB, "fwd.test", _SECRETS, TODAY).address,
)
#: Relays fold case; our own prefix may have another separator (the MAC is over the rest).
_KNOWN = {re.sub(r"^(srs[01])[=+-]", r"\1=", one.local.lower()) for one in _MINTED}


def run_reversible(data: bytes) -> None:
    """A recipient, as RCPT has it; only what we minted opens."""
    try:
        path = parse_path(b"<" + data + b"@fwd.test>", smtputf8=len(data) % 2 == 0)
    except AddressError:
        return
    address = path.address
    if address is None or address.domain != "fwd.test":
        return
    known = re.sub(r"^(srs[01])[=+-]", r"\1=", address.local.lower()) in _KNOWN
    for found in (srs.decode(address, _SECRETS, TODAY), srs.decode_reply(address, _SECRETS, TODAY)):
        holds(known or isinstance(found, srs.WhyNot), f"{address} opens: {found}")
    legacy = srslegacy.decode(address, _LEGACY, TODAY)
    if isinstance(legacy, srs.Reversed):
        wire(legacy.sender)
    srs.token_in(address)
    srs.minted_on(address, TODAY)


REVERSIBLE = Target(
    "reversible",
    run_reversible,
    (
        *(one.local.encode() for one in _MINTED),
        b"SRS0=aB3d=BB=sender.test=bob",
        b"SRS1=aB3d=first.test==AAAA=BB=c.test=d",
    ),
    (
        *(
            b"=",
            b"==",
            b"+",
            b"-",
            b"SRS0",
            b"SRS1",
            b"srs0=",
            b"reply=",
            b"=-=",
            b"=+=",
            b"sender.test",
            b"bob",
            b"AAAAAAAAAAAAA",
            b"22",
            b"77",
        ),
        *(
            b'"',
            b"\\",
            b".",
            b"..",
            b"@",
            b"<",
            b">",
            b"%",
            b"!",
            b"/",
            b"\xc5\xbf",
            b"\xe2\x84\xaa",
            b"\xc4\xb1",
            b"\xff",
            b"\xc3\xbc",
            b"SR\xc5\xbf0=",
        ),
    ),
    250,
)
