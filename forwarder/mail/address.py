"""Which address is meant? RFC 5321 section 4.1.2 paths, RFC 6531 for UTF-8, and the RFC 5322 section 3.6.2 From field.

An SMTP path and a From field have different grammars, and the attacks live in the difference: comments, routes, quotes
and encoded words that one reader takes for an address and the next does not ("Composition Kills", USENIX Security
2020). So the path parser knows no comments at all, and the From parser takes only what every reader reads in the same
way; the rest gets a reason and no address. Both are one pass over bounded input, without recursion.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from email.errors import HeaderParseError
from email.header import decode_header
from functools import lru_cache, partial
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

import idna

from forwarder.kept import Kept
from forwarder.mail.charset import decode_text
from forwarder.model import Address, Message
from forwarder.values import value

__all__ = [
    "MAX_FROM",
    "MAX_PATH",
    "AddressError",
    "Author",
    "FromHeader",
    "NonAsciiAddress",
    "Path",
    "ascii_domain",
    "needs_smtputf8",
    "parse_address",
    "parse_author",
    "parse_from",
    "parse_path",
    "wire",
]

#: RFC 5321 section 4.5.3.1.3: octets of a path with its brackets. The 64 octets of section 4.5.3.1.1 for a local part
#: are not enforced: bounce addresses of large senders (VERP, SRS) are longer, and our own reversible address fits.
MAX_PATH = 256
#: RFC 1035 section 2.3.4: octets of a domain name and of one label.
_MAX_DOMAIN = 255
_MAX_LABEL = 63
#: Octets of a From field. Nobody reads more authors than fit into this.
MAX_FROM = 4096
#: Octets of one whose authors are kept, and how many are.
_KEPT_FROM = 256
_KEPT_AUTHORS = 1024
#: Addresses in a From field, and the words and signs they are made of.
_MAX_AUTHORS = 50
_MAX_TOKENS = 1000
#: Comments within comments (RFC 5322 section 3.2.2); real mail has none or one.
_MAX_COMMENT_DEPTH = 16

# RFC 5322 section 3.2.3 atext, RFC 6532 section 3.2: and everything beyond ASCII.
_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]"
_DOT_ATOM = rf"{_ATEXT}+(?:\.{_ATEXT}+)*"
# RFC 5321 section 4.1.2 QcontentSMTP: no control characters, not even behind a backslash.
_QUOTED = r'"(?:[ !#-\[\]-~\x80-\U0010ffff]|\\[ -~])*"'
_LOCAL = re.compile(rf"{_DOT_ATOM}|{_QUOTED}")
#: The same, with dots wherever they are.
_LOOSE_LOCAL = re.compile(rf"\.*{_ATEXT}(?:{_ATEXT}|\.)*|{_QUOTED}")
# A-d-l of RFC 5321 section 4.1.2; the domains are looked at no closer, as nothing is done with them.
_ROUTE = re.compile(r"@[A-Za-z0-9._\[\]-]+(?:,@[A-Za-z0-9._\[\]-]+)*:")
_LITERAL = re.compile(r"\[(?:(?P<v4>[0-9.]+)|[Ii][Pp][Vv]6:(?P<v6>[0-9A-Fa-f:.]+))\]\Z")
_BEHIND_DOMAIN = re.compile(r"[> ]|\Z")
# RFC 5321 section 4.1.2 sub-domain. Names with an underscore exist in the DNS and in the envelopes of real senders; no
# reader reads them in two ways, so they pass.
_ASCII_DOMAIN = re.compile(r"(?!-)[A-Za-z0-9_-]+(?<!-)(?:\.(?!-)[A-Za-z0-9_-]+(?<!-))*\Z")
# Scripts need the joiners (RFC 5892 appendix A); every other invisible or control character is refused.
_JOINERS = str.maketrans("", "", "\u200c\u200d")


class AddressError(ValueError):
    """No address. The text says why, quotes nothing of the input, and may be shown to whoever sent it."""


class NonAsciiAddress(AddressError):
    """An address that needs SMTPUTF8 (RFC 6531 section 3.5) where that was not asked for."""


# --- paths ------------------------------------------------------------------------------------------------------------


@value
class Path:
    """``address`` is ``None`` for the null path ``<>``; ``rest`` is what follows the closing bracket."""

    address: Address | None
    rest: str


def parse_path(text: bytes, *, smtputf8: bool, postmaster_domain: str | None = None, loose_dots: bool = False) -> Path:
    """The ``<...>`` at the start of ``text``. Raises AddressError.

    ``postmaster_domain``: where given, ``<postmaster>`` without a domain is taken and gets it (RFC 5321 section
    4.1.1.3). ``loose_dots``: see ``parse_address``.
    """
    decoded = _decode(text)
    if not decoded.startswith("<"):
        raise AddressError("a path begins with <")
    if decoded.startswith("<>"):
        return Path(None, decoded[2:])
    start = 1
    # RFC 5321 section 4.1.1.3, appendix C: a source route may come and is ignored. The identity is the mailbox.
    if decoded.startswith("@", start):
        route = _ROUTE.match(decoded, start)
        if route is None:
            raise AddressError("the local part is empty")
        start = route.end()
    if postmaster_domain is not None and decoded[start : start + 11].lower() == "postmaster>":
        return Path(Address(decoded[start : start + 10], postmaster_domain), decoded[start + 11 :])
    local, domain, end = _split_mailbox(decoded, start, loose_dots=loose_dots)
    if not decoded.startswith(">", end):
        raise AddressError("the path does not end with >")
    if len(decoded[: end + 1].encode()) > MAX_PATH:
        raise AddressError(f"the path is longer than {MAX_PATH} octets")
    address = _address(local, domain)
    if not smtputf8 and not (local.isascii() and domain.isascii()):
        raise NonAsciiAddress("the address needs SMTPUTF8")
    return Path(address, decoded[end + 1 :])


def parse_address(text: str, *, loose_dots: bool = False) -> Address:
    """``local@domain`` as an operator writes it, without brackets. Raises AddressError.

    ``loose_dots``: a local part that begins or ends with a dot, or has several in a row, is taken for the same in quotes, which
    is what it has to be written as (RFC 5321 section 4.1.2) and how it leaves us.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_PATH - 2:
        raise AddressError(f"the address is longer than {MAX_PATH - 2} octets")
    if not text:
        raise AddressError("the address is empty")
    if text.startswith("@"):
        raise AddressError("the local part is empty")
    local, domain, end = _split_mailbox(text, 0, loose_dots=loose_dots)
    if end != len(text):
        raise AddressError("an address is local@domain and nothing else")
    return _address(local, domain)


def wire(address: Address | None) -> bytes:
    """The path as it goes into MAIL and RCPT, with its brackets; ``<>`` for ``None``.

    The domain is A-labels, which every next hop takes (RFC 6531 section 3.2); only the local part can need SMTPUTF8.
    """
    return b"<>" if address is None else f"<{address.local}@{ascii_domain(address.domain)}>".encode()


def needs_smtputf8(address: Address | None) -> bool:
    """Does ``wire(address)`` hold non-ASCII octets?"""
    return address is not None and not address.local.isascii()


@lru_cache(maxsize=4096)
def ascii_domain(domain: str) -> str:
    """A domain in lower-case A-labels (RFC 5890 section 2.3.2.1); a literal as it is. Raises AddressError."""
    if domain.isascii():
        return domain if domain.startswith("[") else domain.lower()
    if len(domain) > _MAX_DOMAIN:
        raise AddressError(f"the domain is longer than {_MAX_DOMAIN} octets")
    try:
        return idna.encode(_lower(domain)).decode("ascii")
    except (idna.IDNAError, UnicodeError) as error:
        raise AddressError("the domain is no internationalized domain name") from error


def _decode(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise AddressError("the address is not UTF-8") from error


def _split_mailbox(text: str, start: int, *, loose_dots: bool) -> tuple[str, str, int]:
    """Local part, domain, and where the domain ends, which is at the end of the text or before a ``>`` or a space."""
    local = (_LOOSE_LOCAL if loose_dots else _LOCAL).match(text, start)
    if local is None:
        raise AddressError("the local part is neither a dot-atom nor a quoted string")
    at = local.end()
    if not text.startswith("@", at):
        raise AddressError("the domain is missing" if text[at : at + 1] in ("", ">") else "the local part is malformed")
    end = _BEHIND_DOMAIN.search(text, at).start()  # type: ignore[union-attr]  # the end is always there
    spelled = f'"{local[0]}"' if loose_dots and not _LOCAL.fullmatch(local[0]) else local[0]
    return spelled, text[at + 1 : end], end


def _address(local: str, domain: str) -> Address:
    if not local.isascii() and not local.translate(_JOINERS).isprintable():
        raise AddressError("the local part holds an invisible character")
    return Address(local, _domain(domain))


@lru_cache(maxsize=4096)
def _domain(domain: str) -> str:
    """The domain as an Address holds it: lower case, checked."""
    if domain.startswith("["):
        return _literal(domain)
    if not domain:
        raise AddressError("the domain is empty")
    encoded = ascii_domain(domain)
    if not _ASCII_DOMAIN.match(encoded):
        raise AddressError("the domain is no domain name")
    if len(encoded) > _MAX_DOMAIN or max(map(len, encoded.split("."))) > _MAX_LABEL:
        raise AddressError(f"the domain is longer than {_MAX_DOMAIN} octets, or a label of it than {_MAX_LABEL}")
    return encoded if domain.isascii() else _lower(domain)


def _literal(text: str) -> str:
    # RFC 5321 section 4.1.3. No tag but IPv6 was ever registered. One address has one spelling here (RFC 5952), so that
    # equal literals compare equal; the library takes no leading zeros, and the pattern no zone ids.
    literal = _LITERAL.match(text)
    try:
        if literal and literal["v4"]:
            return f"[{IPv4Address(literal['v4'])}]"
        if literal and literal["v6"]:
            return f"[IPv6:{IPv6Address(literal['v6'])}]"
    except ValueError:
        pass
    raise AddressError("the address literal is malformed")


def _lower(domain: str) -> str:
    # RFC 5895 section 2: case and composition are mapped before IDNA looks; nothing else is, as U+FEFF and its like
    # would vanish and two spellings become one domain. The ideographic full stops stay illegal for the same reason.
    lowered = unicodedata.normalize("NFC", domain.lower())
    if any(dot in lowered for dot in "\u3002\uff0e\uff61"):
        raise AddressError("the domain is no internationalized domain name")
    return lowered


# --- From -------------------------------------------------------------------------------------------------------------


@value
class FromHeader:
    """Who wrote the message. ``reason`` says why the field cannot be used, and ``addresses`` is empty then; with
    ``reason`` ``None``, empty addresses mean an empty group (RFC 6854), and several mean several authors."""

    addresses: tuple[Address, ...] = ()
    reason: str | None = None

    @property
    def author(self) -> Address | None:
        """The author, where there is exactly one."""
        return self.addresses[0] if len(self.addresses) == 1 else None


def parse_from(message: Message, *, loose_dots: bool = False) -> FromHeader:
    """The one From field of the message. Never raises. ``loose_dots``: see ``parse_address``."""
    fields = message.all(b"from")
    if len(fields) != 1:
        # RFC 5322 section 3.6: exactly one. With two, one reader takes the first and the next the last.
        return FromHeader(reason="no From field" if not fields else "several From fields")
    return (_loose_authors if loose_dots else _authors)[fields[0].value]


def _read_from(value: bytes, *, loose_dots: bool = False) -> FromHeader:
    if len(value) > MAX_FROM:
        return FromHeader(reason=f"From field longer than {MAX_FROM} octets")
    try:
        text = _unfolded(value)
        if simple := _SIMPLE.match(text):
            return FromHeader((parse_address(simple[1], loose_dots=loose_dots),))
        return FromHeader(tuple(_parse_address_list(_tokens(text), loose_dots=loose_dots)))
    except AddressError as error:
        return FromHeader(reason=str(error))


#: Who writes writes again.
_authors = Kept(_read_from, most=_KEPT_AUTHORS, longest=_KEPT_FROM)
_loose_authors = Kept(partial(_read_from, loose_dots=True), most=_KEPT_AUTHORS, longest=_KEPT_FROM)


@value
class Author:
    """Who wrote the message, and what the author is called: decoded, as it came otherwise; ``""``: nothing."""

    address: Address
    name: str


def parse_author(message: Message) -> Author | None:
    """The author, where there is exactly one, and not in a group (RFC 6854). Never raises."""
    # Whether such dots are taken at all was decided when the message came.
    author = parse_from(message, loose_dots=True).author
    if author is None:
        return None
    name: list[_Token] = []
    for token in _tokens(_unfolded(message.all(b"from")[0].value)):
        if token.kind == _SPECIAL and token.text == "<":
            return Author(author, _spoken(name))
        if token.kind == _SPECIAL and token.text in ":,":
            return None
        name.append(token)
    return Author(author, "")


# The shape of nearly every From field, "phrase <addr-spec>" in ASCII, in one step; the rest goes the long way.
_SIMPLE = re.compile(
    r"""(?:[A-Za-z0-9!#$%&'*+./=?^_`{|}~ \t-]*|[ \t]*"(?:[ !#-\[\]-~]|\\[ -~])*"[ \t]*)"""
    r"""<((?!=\?)[A-Za-z0-9!#$%&'*+./=?^_`{|}~-]+@[A-Za-z0-9._-]+)>[ \t]*\Z"""
)

# Kinds of token. A space is a token because it decides what may stand together; comments count as space.
_SPACE, _ATOM, _STRING, _ENCODED, _BRACKETED, _SPECIAL, _END = (
    "space",
    "atom",
    "string",
    "encoded",
    "literal",
    "special",
    "",
)

# RFC 2047 section 5 (3) has neither comma nor colon in a name's encoded-words, and software writes both. Whoever takes the colon
# for a group's finds the same address in it.
_TOKEN = re.compile(
    rf"""(?P<space>[ \t]+)
    |(?P<encoded>=\?[!#-'*+.0-9A-Z^_`a-z{{|}}~-]+\?[BbQq]\?[!#-'*+,./0-9:=A-Z^_`a-z{{|}}~-]*\?=(?!{_ATEXT}))
    |(?P<atom>{_ATEXT}+)
    |(?P<string>"(?:[^"\\]|\\.)*")
    |(?P<literal>\[[^\[\]\\ \t]*\])
    |(?P<special>[<>@,;:.()])""",
    re.VERBOSE,
)
_COMMENT_PART = re.compile(r"(?:[^()\\]|\\.)*")


class _Token(NamedTuple):
    kind: str
    text: str


def _unfolded(value: bytes) -> str:
    # RFC 5322 section 2.2.3. Octets that are no UTF-8 may stand in a display name; no address takes a surrogate.
    text = value.replace(b"\r\n", b"").decode("utf-8", "surrogateescape")
    if not text.isprintable() and re.search(r"[\x00-\x08\x0a-\x1f\x7f]", text):
        raise AddressError("control character in From")
    return text


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    for _ in range(_MAX_TOKENS):
        if at == len(text):
            yield _Token(_END, "")
            return
        match = _TOKEN.match(text, at)
        if match is None:
            raise AddressError("malformed From")
        kind, at = str(match.lastgroup), match.end()
        if kind == _SPECIAL and match[0] == "(":
            at = _skip_comment(text, at)
            kind = _SPACE
        yield _Token(kind, match[0])
    raise AddressError("too many words in From")


def _skip_comment(text: str, at: int) -> int:
    # RFC 5322 section 3.2.2. Counted, not recursed into: 5,000 parentheses cost nothing.
    depth = 1
    while depth:
        part = _COMMENT_PART.match(text, at)
        at = part.end() if part else at
        if at >= len(text) or text[at] == "\\":
            raise AddressError("a comment in From does not end")
        depth += 1 if text[at] == "(" else -1
        if depth > _MAX_COMMENT_DEPTH:
            raise AddressError("comments in From nested too deep")
        at += 1
    return at


def _parse_address_list(tokens: Iterator[_Token], *, loose_dots: bool) -> Iterator[Address]:
    """RFC 5322 section 3.4 address-list, RFC 6854 groups. Cut at the commas, then each mailbox by itself."""
    element: list[_Token] = []
    angle = False
    group = False
    elements = 0
    for token in tokens:
        text = token.text if token.kind == _SPECIAL else ""
        if angle:
            angle = text != ">"
            element.append(token)
            if token.kind == _END:
                raise AddressError("an angle bracket in From does not close")
        elif text == "<":
            angle = True
            element.append(token)
        elif text == ":":
            if group or not any(one.kind in (_ATOM, _STRING, _ENCODED) for one in element):
                raise AddressError("malformed group in From")
            group, element, elements = True, [], elements + 1
        elif text in (",", ";") or token.kind == _END:
            if (text == ";" and not group) or (token.kind == _END and group):
                raise AddressError("malformed group in From")
            # RFC 5322 section 4.4 lets a list hold empty elements; they name nobody.
            if any(one.kind != _SPACE for one in element):
                yield _parse_mailbox(element, loose_dots=loose_dots)
                elements += 1
                if elements > _MAX_AUTHORS:
                    raise AddressError("too many addresses in From")
            element, group = [], group and text != ";"
        else:
            element.append(token)
    if not elements:
        raise AddressError("From is empty")


def _parse_mailbox(element: list[_Token], *, loose_dots: bool) -> Address:
    """``name <addr-spec>`` or ``addr-spec``, with nothing around it that another reader could prefer."""
    opening = next((at for at, one in enumerate(element) if one == _Token(_SPECIAL, "<")), None)
    if opening is None:
        return _parse_addr_spec(element, loose_dots=loose_dots)
    closing = next(at for at, one in enumerate(element) if one == _Token(_SPECIAL, ">"))
    if any(one.kind != _SPACE for one in element[closing + 1 :]):
        raise AddressError("text behind the address in From")
    name = element[:opening]
    address = _parse_addr_spec(element[opening + 1 : closing], loose_dots=loose_dots)
    if _Token(_SPECIAL, "@") in name:
        # Software writes 'From: a@b <a@b>'. Read either way that is one address; anything else would be two.
        if _parse_addr_spec(name, loose_dots=loose_dots) != address:
            raise AddressError("an unquoted address as the display name in From")
    elif any((one.kind == _SPECIAL and one.text != ".") or one.kind == _BRACKETED for one in name):
        raise AddressError("malformed display name in From")
    return address


def _parse_addr_spec(element: list[_Token], *, loose_dots: bool) -> Address:
    start = 0
    end = len(element)
    while start < end and element[start].kind == _SPACE:
        start += 1
    while end > start and element[end - 1].kind == _SPACE:
        end -= 1
    core = element[start:end]
    if any(one.kind == _ENCODED for one in core):
        # RFC 2047 section 5: an encoded-word is never part of an address, though some readers decode it into one.
        raise AddressError("an encoded word in the place of an address in From")
    if any(one.kind == _SPACE for one in core):
        raise AddressError("white space or a comment inside an address in From")
    text = "".join(one.text for one in core)
    if text.startswith("@"):
        raise AddressError("a route in the From address")
    try:
        return parse_address(text, loose_dots=loose_dots)
    except AddressError as error:
        raise AddressError(f"From: {error}") from error


# --- display names ----------------------------------------------------------------------------------------------------


def _spoken(name: list[_Token]) -> str:
    """RFC 5322 section 3.2.5: the words of a phrase, without their quotes and encodings."""
    text, encoded = "", ""
    for token in name:
        if token.kind == _ENCODED:
            encoded += f" {token.text}"
        elif token.kind != _SPACE:
            text += f"{_decode_words(encoded)} " if encoded else ""
            text += re.sub(r"\\(.)", r"\1", token.text[1:-1]) if token.kind == _STRING else token.text
            encoded = ""
        elif not encoded:
            # RFC 2047 section 6.2: the space between two encoded words is none.
            text += " "
    return (text + _decode_words(encoded)).strip()


def _decode_words(words: str) -> str:
    """What cannot be decoded stays as it is."""
    try:
        decoded = [
            decode_text(raw, charset or "ascii") if isinstance(raw, bytes) else raw
            for raw, charset in decode_header(words.strip())
        ]
    except (HeaderParseError, ValueError):
        return words
    return words if None in decoded else "".join(map(str, decoded))
