"""What do EHLO, MAIL and RCPT ask for? RFC 5321 section 4.1.1, with the parameters of RFC 1870, 6152, 6531, 3461, 4954, 8689.

Grammar only: bytes in, a value or the refusal out; and the parameters of RFC 3461 as we write them. They keep their case,
since ENVID and ORCPT go on to whoever writes a report (RFC 3461 section 4.2, 4.4). The text of a refusal quotes nothing of
what the client sent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from forwarder.mail.address import AddressError, NonAsciiAddress, Path, parse_path
from forwarder.model import Address, BodyKind, Reply
from forwarder.smtp.lenient import STANDARD, Lenient
from forwarder.values import value

__all__ = [
    "MAX_ORCPT",
    "CommandError",
    "MailCommand",
    "RcptCommand",
    "parse_helo",
    "parse_mail",
    "parse_rcpt",
    "render_mail_dsn",
    "render_rcpt_dsn",
]

#: RFC 5321 section 4.5.3.1.2: octets of a domain.
_MAX_HELO = 255
#: RFC 3461 section 4.4 and 4.2: characters of ENVID and of ORCPT, as they stand in the command.
_MAX_ENVID = 100
MAX_ORCPT = 500
#: RFC 1870 section 3: digits of SIZE.
_MAX_SIZE_DIGITS = 20

_SYNTAX_MAIL = Reply(501, "5.5.4", "syntax: MAIL FROM:<address> [parameters]")
_SYNTAX_RCPT = Reply(501, "5.5.4", "syntax: RCPT TO:<address> [parameters]")
_NO_BRACKETS = Reply(501, "5.5.2", "the address must stand in angle brackets")
_NULL_RECIPIENT = Reply(501, "5.1.3", "the null address takes no mail")
_BAD_HELO = Reply(501, "5.5.4", "syntax: a host name or an address literal")
_BAD_PARAMETER = Reply(501, "5.5.4", "syntax error in the parameters")
_TWICE = Reply(501, "5.5.4", "a parameter is given twice")
_UNKNOWN_PARAMETER = Reply(555, "5.5.4", "parameter unknown or not offered")
# RFC 8689 section 2: within TLS only, which is where it is offered.
_NOT_IN_CLEAR = Reply(530, "5.7.10", "REQUIRETLS is for encrypted sessions: STARTTLS first")
_TOO_LARGE = Reply(552, "5.3.4", "message too large")
_NON_ASCII = Reply(553, "5.6.7", "the address needs SMTPUTF8")

_FROM = re.compile(rb"FROM:( *)", re.IGNORECASE)
_TO = re.compile(rb"TO:( *)", re.IGNORECASE)
# RFC 5321 section 4.1.2 esmtp-param; RFC 6531 section 3.3 adds UTF-8 to the value.
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~\x80-\U0010ffff]+))?\Z")
# RFC 3461 section 4: xtext.
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*\Z")
_HEX = re.compile(r"\+([0-9A-F]{2})")
# RFC 6533 section 3: utf-8-addr-xtext and utf-8-addr-unitext.
_UTF8_XTEXT = re.compile(r"(?:[!-*,-<>-\[\]-~\x80-\U0010ffff]|\\x\{[0-9A-F]{2,6}\})*\Z")
_ATOM = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+\Z")
_HELO_LITERAL = re.compile(r"\[(?:(?P<v4>[0-9.]+)|(?:IPv6:)?(?P<v6>[0-9A-F:.]+))\]\Z", re.IGNORECASE)
_HELO_NAME = re.compile(r"[A-Za-z0-9._-]*[A-Za-z0-9][A-Za-z0-9._-]*\Z")


class CommandError(Exception):
    """The command is refused; ``reply`` says how."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


@value
class MailCommand:
    """``size`` is ``None`` where the client declared none; ``ret`` and ``envid`` stand as they came."""

    sender: Address | None
    size: int | None = None
    body: BodyKind = BodyKind.SEVEN_BIT
    smtputf8: bool = False
    ret: str | None = None
    envid: str | None = None
    require_tls: bool = False


@value
class RcptCommand:
    """``notify`` and ``orcpt`` stand as they came."""

    address: Address
    notify: str | None = None
    orcpt: str | None = None


def parse_helo(argument: bytes, lenient: Lenient = STANDARD) -> str | None:
    """The name behind EHLO or HELO; raises CommandError. ``None``: what came is no name, and is taken for the want of one
    (``lenient.helo``).

    Underscores, single labels and a final dot pass, since real hosts are called so. Nothing passes that could end or
    mark up a Received field, a log line or a page.
    """
    if lenient.helo and _is_text(argument):
        with suppress(CommandError):
            return parse_helo(argument)
        return None
    try:
        name = argument.decode("ascii").rstrip(" ")
    except UnicodeDecodeError as error:
        # RFC 6531 section 3.7.1: the argument stays ASCII, even where SMTPUTF8 is offered.
        raise CommandError(_BAD_HELO) from error
    if len(name) <= _MAX_HELO and (_HELO_NAME.match(name) or _is_literal(name)):
        return name
    raise CommandError(_BAD_HELO)


def parse_mail(argument: bytes, *, max_size: int, offered: frozenset[str], lenient: Lenient = STANDARD) -> MailCommand:
    """The argument of MAIL, ``FROM:<...> parameters``; raises CommandError.

    ``offered`` holds the EHLO keywords of this session ("SIZE", "8BITMIME", "SMTPUTF8", "DSN", "AUTH", "REQUIRETLS"): empty after
    HELO. ``max_size`` is what SIZE announces; 0 means no limit.
    """
    text = _behind(argument, _FROM, _SYNTAX_MAIL, lenient)
    path = _path(text, "5.1.7", smtputf8=True, loose_dots=lenient.dots)
    parameters = _parameters(path.rest, _MAIL_PARAMETERS, offered)
    smtputf8 = "SMTPUTF8" in parameters
    if path.address is not None and not smtputf8 and not str(path.address).isascii():
        # RFC 6531 section 3.5. Known only now, as the parameter comes behind the address.
        raise CommandError(_NON_ASCII)
    size = int(parameters["SIZE"]) if "SIZE" in parameters else None
    if size is not None and max_size and size > max_size:
        raise CommandError(_TOO_LARGE)
    return MailCommand(
        path.address,
        size,
        BodyKind(parameters["BODY"].upper()) if "BODY" in parameters else BodyKind.SEVEN_BIT,
        smtputf8,
        parameters.get("RET"),
        parameters.get("ENVID"),
        "REQUIRETLS" in parameters,
    )


# A server hears of the same recipients again and again; the space for them is 2 MB at the most.
@lru_cache(maxsize=1024)
def parse_rcpt(
    argument: bytes,
    *,
    smtputf8: bool,
    postmaster_domain: str,
    offered: frozenset[str],
    lenient: Lenient = STANDARD,
) -> RcptCommand:
    """The argument of RCPT, ``TO:<...> parameters``; raises CommandError.

    ``smtputf8``: the MAIL of this transaction asked for it. ``postmaster_domain`` is what ``<postmaster>`` without a
    domain gets (RFC 5321 section 4.1.1.3).
    """
    text = _behind(argument, _TO, _SYNTAX_RCPT, lenient)
    path = _path(text, "5.1.3", smtputf8=smtputf8, postmaster_domain=postmaster_domain)
    if path.address is None:
        raise CommandError(_NULL_RECIPIENT)
    parameters = _parameters(path.rest, _RCPT_PARAMETERS, offered)
    orcpt = parameters.get("ORCPT")
    if orcpt is not None and not smtputf8 and not orcpt.isascii():
        raise CommandError(_NON_ASCII)
    return RcptCommand(path.address, parameters.get("NOTIFY"), orcpt)


def _behind(argument: bytes, prefix: re.Pattern[bytes], syntax: Reply, lenient: Lenient) -> bytes:
    """What follows ``FROM:`` or ``TO:``, from the opening bracket on."""
    begin = prefix.match(argument)
    if begin is None or begin.end() == len(argument) or (begin[1] and not lenient.space):
        raise CommandError(syntax)
    text = argument[begin.end() :]
    if text.startswith(b"<"):
        return text
    if not lenient.brackets:
        raise CommandError(_NO_BRACKETS)
    # A bracket or a space in it is found by whoever reads it next: the path ends there, and the rest is no parameter.
    address, space, rest = text.partition(b" ")
    return b"<" + address + b">" + space + rest


def _path(
    text: bytes, bad_address: str, *, smtputf8: bool, postmaster_domain: str | None = None, loose_dots: bool = False
) -> Path:
    try:
        return parse_path(text, smtputf8=smtputf8, postmaster_domain=postmaster_domain, loose_dots=loose_dots)
    except NonAsciiAddress as error:
        raise CommandError(_NON_ASCII) from error
    except AddressError as error:
        raise CommandError(Reply(501, bad_address, f"bad address: {error}")) from error


# --- parameters -------------------------------------------------------------------------------------------------------


@value
class _Parameter:
    """``keyword`` is the EHLO keyword that offers it; ``check`` raises CommandError for a bad value; ``missing`` says that it
    is not offered."""

    keyword: str
    check: Callable[[str | None], None]
    missing: Reply = _UNKNOWN_PARAMETER


def _parameters(rest: str, known: Mapping[str, _Parameter], offered: frozenset[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    if not rest:
        return found
    if not rest.startswith(" "):
        raise CommandError(_BAD_PARAMETER)
    for one in rest.split(" "):
        if not one:
            # RFC 5321 section 4.1.1: white space behind the last word is tolerated.
            continue
        match = _PARAMETER.match(one)
        if match is None:
            raise CommandError(_BAD_PARAMETER)
        name, value = match[1].upper(), match[2]
        parameter = known.get(name)
        if parameter is None or parameter.keyword not in offered:
            # RFC 5321 section 4.1.1.11
            raise CommandError(_UNKNOWN_PARAMETER if parameter is None else parameter.missing)
        if name in found:
            raise CommandError(_TWICE)
        parameter.check(value)
        found[name] = value or ""
    return found


def _check_size(value: str | None) -> None:
    if value is None or not (value.isascii() and value.isdigit()):
        raise CommandError(_BAD_PARAMETER)
    if len(value) > _MAX_SIZE_DIGITS:
        raise CommandError(_TOO_LARGE)


def _check_body(value: str | None) -> None:
    if value is None:
        raise CommandError(_BAD_PARAMETER)
    if value.upper() not in tuple(BodyKind):
        # RFC 3030 BINARYMIME is not offered.
        raise CommandError(_UNKNOWN_PARAMETER)


def _check_no_value(value: str | None) -> None:
    if value is not None:
        raise CommandError(_BAD_PARAMETER)


def _check_ret(value: str | None) -> None:
    if value is None or value.upper() not in ("FULL", "HDRS"):
        raise CommandError(_BAD_PARAMETER)


def _check_envid(value: str | None) -> None:
    # RFC 3461 section 4.4: xtext of printable characters. A CR or LF inside would end up in a report's header.
    if value is None or len(value) > _MAX_ENVID or not _is_xtext(value):
        raise CommandError(_BAD_PARAMETER)


def _check_notify(value: str | None) -> None:
    # RFC 3461 section 4.1: NEVER stands alone.
    words = value.upper().split(",") if value else []
    if words != ["NEVER"] and (not words or not set(words) <= {"SUCCESS", "FAILURE", "DELAY"}):
        raise CommandError(_BAD_PARAMETER)


def _check_orcpt(value: str | None) -> None:
    # RFC 3461 section 4.2, RFC 6533 section 3
    if value is None or len(value) > MAX_ORCPT:
        raise CommandError(_BAD_PARAMETER)
    kind, semicolon, address = value.partition(";")
    if not semicolon or not address or not _ATOM.match(kind):
        raise CommandError(_BAD_PARAMETER)
    utf8 = kind.lower() == "utf-8" and _UTF8_XTEXT.match(address) is not None and address.isprintable()
    if not utf8 and not _is_xtext(address):
        raise CommandError(_BAD_PARAMETER)


def _check_auth(value: str | None) -> None:
    # RFC 4954 section 5: taken, and not believed.
    if value is None or (value != "<>" and not _is_xtext(value)):
        raise CommandError(_BAD_PARAMETER)


def _is_xtext(value: str) -> bool:
    """xtext whose decoded form is printable ASCII."""
    return bool(_XTEXT.match(value)) and all(0x20 <= int(pair, 16) < 0x7F for pair in _HEX.findall(value))


_MAIL_PARAMETERS = {
    "SIZE": _Parameter("SIZE", _check_size),
    "BODY": _Parameter("8BITMIME", _check_body),
    "SMTPUTF8": _Parameter("SMTPUTF8", _check_no_value),
    "RET": _Parameter("DSN", _check_ret),
    "ENVID": _Parameter("DSN", _check_envid),
    "AUTH": _Parameter("AUTH", _check_auth),
    "REQUIRETLS": _Parameter("REQUIRETLS", _check_no_value, missing=_NOT_IN_CLEAR),
}
_RCPT_PARAMETERS = {
    "NOTIFY": _Parameter("DSN", _check_notify),
    "ORCPT": _Parameter("DSN", _check_orcpt),
}


def render_mail_dsn(ret: str | None, envid: str | None) -> bytes:
    """RET and ENVID, each with a space before it. ``envid`` is xtext already (RFC 3461 section 4.4)."""
    return _rendered(("RET", ret), ("ENVID", envid))


def render_rcpt_dsn(notify: str | None, orcpt: str | None) -> bytes:
    """NOTIFY and ORCPT, each with a space before it. An ORCPT in UTF-8 becomes the form that needs no SMTPUTF8 (RFC 6533
    section 3, utf-8-addr-xtext), and is left out where that makes it too long."""
    if orcpt is not None:
        orcpt = "".join(one if one.isascii() else f"\\x{{{ord(one):02X}}}" for one in orcpt)
        orcpt = orcpt if len(orcpt) <= MAX_ORCPT else None
    return _rendered(("NOTIFY", notify), ("ORCPT", orcpt))


def _rendered(*parameters: tuple[str, str | None]) -> bytes:
    return b"".join(f" {name}={value}".encode("ascii") for name, value in parameters if value is not None)


# --- HELO -------------------------------------------------------------------------------------------------------------


def _is_text(argument: bytes) -> bool:
    """Something, and nothing in it that a terminal, a log or a header would obey."""
    return 0 < len(argument) <= _MAX_HELO and all(0x20 <= one != 0x7F for one in argument)


def _is_literal(name: str) -> bool:
    """RFC 5321 section 4.1.3; the tag of an IPv6 literal may be missing."""
    literal = _HELO_LITERAL.match(name)
    try:
        if literal and literal["v6"]:
            IPv6Address(literal["v6"])
        elif literal:
            IPv4Address(literal["v4"])
    except ValueError:
        return False
    return literal is not None
