"""What must the sender of a message not read in what comes back? The address behind the alias, and every host there.

Two tools. ``scrub`` makes one line of a stranger's text fit to be passed on: it does not look for the secret alone, but
takes out whatever looks like an address, a host or a link, written plainly or in an encoding, and keeps codes and
words. ``Secrets.told_by`` finds the secret itself in any text, for what is passed on as it is and for the last look at
a finished report.
"""

from __future__ import annotations

import base64
import binascii
import html
import re
import unicodedata
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from forwarder.mail.address import AddressError, ascii_domain
from forwarder.mail.charset import decode_text
from forwarder.model import Address

__all__ = ["HIDDEN", "MAX_TEXT", "Secrets", "scrub", "scrub_of"]

HIDDEN = "[hidden]"
#: Characters that scrub returns at most, and that it reads at most.
MAX_TEXT = 500
_MAX_READ = 2000
#: Characters of a word. Nothing that people write is longer, and the patterns below take the square of it.
_MAX_WORD = 300
#: Letters that a piece of a local part or a host name needs before it is hidden as a word of its own.
_MIN_PIECE = 3
#: Letters of a piece that is looked for in what may be random octets: fewer would come about by chance.
_MIN_CODED = 5
#: Letters of a local part that is nobody else's name.
_MIN_TELLING = 8
#: Labels that are words of every reply; to hide them would tell more than it hides.
_COMMON = frozenset(
    {"mail", "smtp", "imap", "mta", "relay", "gateway", "inbound", "outbound", "email", "server", "host", "mailhost"}
    | {"www", "com", "net", "org", "the", "and", "postfix", "exim", "protection", "local", "domain"}
    | {"user", "users", "unknown", "address", "message", "mailbox", "recipient"}
)

# Signs of their own while the text is worked on: what they stand for is put in last, and is searched by nothing.
_ALIAS_MARK = "\ue000"
_HIDDEN_MARK = "\ue001"


def scrub(text: str, *, hidden: Address | None, alias: Address | None, peer: str | None = None) -> str:
    """One line of printable ASCII, at most MAX_TEXT characters, out of what a next hop said about ``hidden``.

    Every e-mail address in it becomes ``alias``; hosts, IP addresses, links and the local part become ``[hidden]``;
    enhanced status codes and numbers stay. ``peer`` is the host that said it, as in ``mx.example[192.0.2.1]:25``.
    Empty where the text told the secret in a way that could not be taken out.
    """
    return scrub_of(Secrets.of([hidden], hosts=[peer]), text, alias)


def scrub_of(secrets: Secrets, text: str, alias: Address | None) -> str:
    """The same for several secrets."""
    text = _flat(_ENCODED_WORDS.sub(_decode_words, _mended(text[:_MAX_READ])))
    text = " ".join(_HIDDEN_MARK if _is_encoded_secret(word, secrets) else word for word in text.split(" "))
    for pattern in secrets.spaced_addresses():
        text = pattern.sub(_ALIAS_MARK, text)
    if (names := secrets.spaced_names()) is not None:
        text = names.sub(_HIDDEN_MARK, text)
    text = _LINK.sub(_HIDDEN_MARK, text)
    text = _ADDRESS.sub(_ALIAS_MARK, text)
    text = _IPV6.sub(_HIDDEN_MARK, text)
    text = _DOTTED.sub(lambda match: match[0] if _is_code(match[0]) else _HIDDEN_MARK, text)
    if secrets.words:
        text = _any_word(secrets.words).sub(_HIDDEN_MARK, text)
    text = text.replace(f"[{_HIDDEN_MARK}]", _HIDDEN_MARK)
    text = re.sub(f"{_HIDDEN_MARK}(?:[ .:;,+_-]*{_HIDDEN_MARK})+", _HIDDEN_MARK, text)
    if secrets.told_by(text) or secrets.coded_in(text):
        return ""
    shown = f"<{alias}>" if alias is not None else HIDDEN
    text = text.replace(f"<{_ALIAS_MARK}>", _ALIAS_MARK).replace(_ALIAS_MARK, shown).replace(_HIDDEN_MARK, HIDDEN)
    return _UNPRINTABLE.sub("?", text)[:MAX_TEXT].strip()


@dataclass(frozen=True, slots=True)
class Secrets:
    """What must not be told, all of it folded by ``_fold``.

    ``addresses`` and ``domains`` in full; ``locals`` in front of an ``@``; ``words`` are pieces that are hidden in a
    diagnostic but prove nothing elsewhere; ``known`` are the addresses that the reader has anyway.
    """

    addresses: frozenset[str]
    locals: frozenset[str]
    domains: frozenset[str]
    words: frozenset[str]
    known: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        hidden: Collection[Address | None],
        *,
        hosts: Collection[str | None] = (),
        known: Collection[Address] = (),
        ours: str = "",
    ) -> Secrets:
        """``hosts`` are names or IP addresses that serve ``hidden``, in any notation; ``known`` are addresses, and
        ``ours`` a host, whose domains the reader has anyway and which are therefore no secrets."""
        locals_: set[str] = set()
        addresses: set[str] = set()
        words: set[str] = set()
        names = {name for host in hosts if host is not None for name in _names_in(host)}
        for one in hidden:
            if one is None or one in known:
                continue
            local = _fold(one.local.strip('"').replace("\\", ""))
            domains = {_fold(one.domain.strip("[]")), _spelling(one.domain)}
            # user+detail and dotted names are spelled without their detail or dots by the systems that ignore them.
            spellings = {local, local.partition("+")[0] or local}
            locals_ |= spellings
            addresses |= {f"{spelling}@{domain}" for spelling in spellings for domain in domains}
            words |= spellings | {spelling.replace(".", "") for spelling in spellings} | _pieces(local)
            names |= domains
        words |= {piece for name in names for piece in _pieces(name.rpartition(".")[0])} - _COMMON
        words |= {name for name in names if "." not in name and ":" not in name}
        public = {_spelling(one.domain) for one in known} | ({_fold(ours)} if ours else set())
        return cls(
            frozenset(addresses),
            frozenset(locals_),
            frozenset(name for name in names if not any(_related(name, one) for one in public)),
            frozenset(words - {""}),
            tuple(sorted((_fold(str(one)) for one in known), key=len, reverse=True)),
        )

    def told_by(self, text: str) -> bool:
        """Does ``text`` tell one of the secrets, plainly, broken by white space, or in an encoding?"""
        readings = _readings_unbroken(text)
        if any(self._told_plainly(one) for one in readings):
            return True
        # What stands in octets that are mostly something else must be long enough to be no accident.
        long = [_squeeze(one) for one in self.addresses | self.domains if len(one) >= _MIN_CODED]
        # Readings that differ in their breaks only say the same.
        joined = {_BREAK.sub("", one) for one in readings}
        return any(_holds_squeezed(garbled.lower(), long) for one in joined for garbled in _garbled(one))

    def _told_plainly(self, text: str) -> bool:
        text = self._unknown(text)
        squeezed = _squeeze(text)
        if any(_squeeze(one) in squeezed for one in self.addresses):
            return True
        if any(_ends_with_word(text, local, "@") for local in self.locals):
            return True
        return any(_holds_name(text, name) or (_is_long(name) and name in squeezed) for name in self.domains)

    def _unknown(self, text: str) -> str:
        """``text``, folded, without the addresses that the reader has."""
        text = _fold(text)
        for one in self.known:
            text = text.replace(one, " ")
        return text

    def named_in(self, text: str) -> bool:
        """Does ``text`` tell one of the secrets, or the local part alone, where that is no word that anybody might write?"""
        readings = [_squeeze(self._unknown(one)) for one in _readings(text)]
        telling = [_squeeze(one) for one in self.locals if len(one) >= _MIN_TELLING]
        return self.told_by(text) or any(one in reading for reading in readings for one in telling)

    def coded_in(self, text: str) -> bool:
        """Does one line of a stranger's tell even a piece of the secrets in an encoding, however it is cut and joined?"""
        pieces = {_bare(one) for one in self.words | self.locals | self.domains}
        pieces = {one for one in pieces if len(one) >= _MIN_CODED}
        readings = _readings_unbroken(text)
        coded = readings - {text} | {one for reading in readings for one in _garbled(reading)}
        return any(piece in bare for bare in map(_bare, coded) for piece in pieces)

    def spaced_addresses(self) -> Iterator[re.Pattern[str]]:
        """Patterns for each address with white space anywhere in it: a fold in the middle of a word leaves a space."""
        for address in self.addresses:
            yield re.compile(r"\s?".join(map(re.escape, address)), re.IGNORECASE)

    def spaced_names(self) -> re.Pattern[str] | None:
        """The same for hosts, and for words that are long enough not to be made of others by chance."""
        names = [one for one in self.domains | self.words if len(one) >= _MIN_CODED]
        spaced = (r"\s?".join(map(re.escape, one)) for one in sorted(names, key=len, reverse=True))
        # With the labels in front: the name of a host tells as much as its domain.
        return (
            re.compile(rf"(?<![^\W_])(?:[\w-]+\.)*(?:{'|'.join(spaced)})(?![^\W_])", re.IGNORECASE) if names else None
        )


# --- looking closer ---------------------------------------------------------------------------------------------------

_UNPRINTABLE = re.compile(r"[^ -~]")
_LINK = re.compile(r"(?:[a-z][a-z0-9+.-]{1,20}://|\bwww\.|\bmailto:)[^\s<>\"']*", re.IGNORECASE)
# Anything around an @; a quoted local part with what it quotes; white space beside the @ as some write it.
_ADDRESS = re.compile(r"""(?:"[^"@]{1,100}"|[^\s<>()\[\]"',;:]+)?\s?@\s?[^\s<>()"',;]+""")
_IPV6 = re.compile(r"(?<![0-9A-Za-z:.])(?:[Ii][Pp][Vv]6:)?(?=[0-9A-Fa-f:]*::|(?:[0-9A-Fa-f]+:){3})[0-9A-Fa-f:.]{3,45}")
_DOTTED = re.compile(r"[\w-]+(?:\.[\w-]+)+\.?")
_CODE = re.compile(r"(?:[0-9]{3}-)?[0-9]+(?:\.[0-9]+){1,2}\.?")
_ENCODED_WORDS = re.compile(r"=\?[^?\s]{1,60}\?[BbQq]\?[^?\s]*\?=(?:\s+(?==\?))?")
_BROKEN_WORD = re.compile(r"=\?[^?\s]{1,60}\?[BbQq]\?[^?]{1,200}\?=")
_ENCODED_WORD = re.compile(r"=\?([^?\s]{1,60})\?([BbQq])\?([^?\s]*)\?=")
_INVISIBLE = ("Cf", "Cn", "Co", "Mn")
_DOTS = str.maketrans({"\u3002": ".", "\uff0e": ".", "\uff61": ".", "\u2024": "."})


def _flat(text: str) -> str:
    """One line, compatibility forms folded (full-width letters are letters), every other kind of space one space."""
    text = unicodedata.normalize("NFKC", text.translate(_DOTS))
    text = text.replace(_ALIAS_MARK, "?").replace(_HIDDEN_MARK, "?")
    # Invisible characters vanish: they could stand within an address.
    text = "".join(one for one in text if one.isspace() or unicodedata.category(one)[0] != "C" or ord(one) < ord(" "))
    return re.sub(r"[\s\x00-\x1f\x7f]+", " ", text).strip()


def _fold(text: str) -> str:
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFKC", text.translate(_DOTS)).casefold()
    return text if text.isascii() else "".join(one for one in text if unicodedata.category(one) not in _INVISIBLE)


def _squeeze(text: str) -> str:
    """Without white space and whatever else could stand within an address."""
    return _NOT_ADDRESS.sub("", text)


def _holds_squeezed(text: str, sought: Sequence[str]) -> bool:
    """Is one of those in the text, once that is squeezed?"""
    # Without what is not ASCII as well, all that is found in it squeezed is found, and it is made thirty times as quickly.
    quickly = text.encode("ascii", "ignore").translate(None, _NO_ADDRESS_OCTETS).decode("ascii")
    likely = [one for one in sought if not one.isascii() or one in quickly]
    if not likely:
        return False
    squeezed = _squeeze(text)
    return any(one in squeezed for one in likely)


def _bare(text: str) -> str:
    """Letters and digits alone."""
    return "".join(one for one in _fold(text) if one.isalnum())


def _names_in(host: str) -> set[str]:
    """The host names and IP addresses in a notation such as ``dns; mx.example ([192.0.2.1]:25)``."""
    text = _fold(host[:_MAX_WORD])
    return {one.rstrip(".") for one in (*_DOTTED.findall(text), *_IPV6.findall(text)) if not _is_code(one)}


def _spelling(domain: str) -> str:
    try:
        return ascii_domain(domain).strip("[]")
    except AddressError:
        return _fold(domain)


def _pieces(name: str) -> set[str]:
    return {one for one in re.split(r"[._+=-]", name) if len(one) >= _MIN_PIECE and not one.isdigit()}


def _related(name: str, public: str) -> bool:
    return name == public or name.endswith(f".{public}") or public.endswith(f".{name}")


def _is_code(text: str) -> bool:
    """5.1.1, 550-5.1.1 or 1.5: an enhanced status code or a number, not an address of four parts."""
    return _CODE.fullmatch(text) is not None


def _any_word(words: Collection[str]) -> re.Pattern[str]:
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile(rf"(?<![^\W_])(?:{'|'.join(map(re.escape, longest_first))})(?![^\W_])", re.IGNORECASE)


def _ends_with_word(text: str, word: str, sign: str) -> bool:
    at = text.find(word + sign)
    while at >= 0:
        if at == 0 or not text[at - 1].isalnum():
            return True
        at = text.find(word + sign, at + 1)
    return False


def _is_long(name: str) -> bool:
    """Long enough not to come about by chance where words run into each other."""
    return "." in name and len(name) > 2 * _MIN_PIECE


def _holds_name(text: str, name: str) -> bool:
    """``name`` as a whole host name or the end of one."""
    at = text.find(name)
    while at >= 0:
        before, behind = text[at - 1 : at] if at else "", text[at + len(name) : at + len(name) + 1]
        if not (before.isalnum() or before == "-") and not (behind.isalnum() or behind == "-"):
            return True
        at = text.find(name, at + 1)
    return False


# --- encodings --------------------------------------------------------------------------------------------------------

#: Encodings within encodings that are undone.
_MAX_LAYERS = 2
_TOKEN = re.compile(r"[A-Za-z0-9+/_-]{8,}(?:\r?\n[ \t]?[A-Za-z0-9+/]{4,})*={0,2}")
_NOT_ADDRESS = re.compile(r"[^\w@.-]|_")
#: The same of ASCII.
_NO_ADDRESS_OCTETS = bytes(octet for octet in range(128) if _NOT_ADDRESS.match(chr(octet)))
#: A fold, a soft line break of quoted-printable, any white space; the end of an encoded word (RFC 2047) is none.
_BREAK = re.compile(r"(?<!\?)=\r?\n[ \t]*|\s+")
_HEADER_FOLD = re.compile(r"\r?\n[ \t]+")
_LETTERS = re.compile(r"[A-Za-z0-9+/_-]{8,}")
_HEX_TOKEN = re.compile(r"[0-9A-Fa-f]{10,}")


def _unhex(pattern: str) -> Callable[[str], str]:
    compiled = re.compile(pattern)
    return lambda text: compiled.sub(lambda match: chr(min(int(match[1], 16), 0x10FFFF)), text)


def _unhex_octets(sign: str) -> Callable[[str], str]:
    """Runs of octets are UTF-8."""
    compiled = re.compile(rf"(?:{re.escape(sign)}[0-9A-Fa-f]{{2}})+")
    return lambda text: compiled.sub(
        lambda match: bytes.fromhex(match[0].replace(sign, "")).decode("utf-8", "replace"), text
    )


#: A label that says Unicode in ASCII (RFC 5890 section 2.3.2.1), at most 63 octets long.
_A_LABEL = re.compile(r"xn--([a-z0-9-]{1,59})", re.IGNORECASE)


def _u_label(match: re.Match[str]) -> str:
    # By punycode alone, and whatever comes of it: what no registry takes (full-width letters) is read all the same.
    try:
        return match[1].encode("ascii").decode("punycode")
    except UnicodeError:
        return match[0]


_DECODERS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("%", _unhex_octets("%")),
    ("=", _unhex_octets("=")),
    ("=", lambda text: re.sub(r"=\r?\n", "", text)),
    ("+", _unhex_octets("+")),
    ("&", html.unescape),
    ("\\", _unhex(r"\\x\{?([0-9A-Fa-f]{2,6})\}?")),
    ("\\", _unhex(r"\\u\{?([0-9A-Fa-f]{4,6})\}?")),
    ("\\", lambda text: text.replace("\\", "")),
    ("--", lambda text: _A_LABEL.sub(_u_label, text)),
    ("=?", lambda text: _ENCODED_WORDS.sub(_decode_words, _mended(text))),
)


def _readings(text: str) -> set[str]:
    """The text, and what it says once encodings are undone, up to two within each other."""
    found = {text}
    layer = {text}
    for _ in range(_MAX_LAYERS):
        layer = {reading for one in layer for reading in _decodings(one)} - found
        found |= layer
    return found


def _readings_unbroken(text: str) -> set[str]:
    """The same, and of the text without its breaks, as a fold may stand within an encoding too: without those that readers of
    bodies take out, with the equals sign before them, and without the folds of a header alone."""
    return _readings(text) | _readings(_BREAK.sub("", text)) | _readings(_HEADER_FOLD.sub("", text))


def _decodings(text: str) -> Iterator[str]:
    for sign, decode in _DECODERS:
        if sign in text:
            yield decode(text)
    tokens = [re.sub(r"[\r\n\t =]", "", one[0]) for one in _TOKEN.finditer(text)]
    said = [_printable(one) for one in (*map(_unbase64, tokens), *map(_unhexlify, _HEX_TOKEN.findall(text)))]
    if inside := " ".join(one for one in said if one):
        yield inside


def _garbled(text: str, layers: int = _MAX_LAYERS) -> Iterator[str]:
    """What its base64 and hexadecimal words say, wherever they are broken, and wherever in a run of letters they begin: mostly
    random octets."""
    joined = _BREAK.sub("", text)
    letters, digits = _LETTERS.findall(joined), _HEX_TOKEN.findall(joined)
    said = [" ".join(_unbase64(one[start:]) for one in letters) for start in range(4) if letters]
    said += [" ".join(_unhexlify(one[start:]) for one in digits) for start in range(2) if digits]
    for one in said:
        yield one
        if layers > 1:
            yield from _decodings(one)
            yield from _garbled(one, layers - 1)


def _unbase64(letters: str) -> str:
    letters = letters.replace("-", "+").replace("_", "/")
    if len(letters) % 4 == 1:
        letters = letters[:-1]
    return base64.b64decode(letters + "=" * (-len(letters) % 4)).decode("utf-8", "replace")


def _unhexlify(digits: str) -> str:
    return binascii.unhexlify(digits[: len(digits) // 2 * 2]).decode("utf-8", "replace")


def _printable(text: str) -> str:
    readable = sum(one.isprintable() and one != "\ufffd" for one in text)
    return text if readable * 10 >= len(text) * 9 else ""


def _is_encoded_secret(word: str, secrets: Secrets) -> bool:
    """Does a word say something once decoded that it does not say as it stands: an address, a host, the secret?"""
    if len(word) > _MAX_WORD:
        return True
    pattern = _any_word(secrets.words) if secrets.words else None
    for reading in _readings(word) - {word}:
        folded = _flat(reading)
        if "@" in folded and "@" not in word:
            return True
        if pattern is not None and pattern.search(folded) and not pattern.search(word):
            return True
        if any(not _is_code(one) and one not in word for one in _DOTTED.findall(folded)):
            return True
    return False


def _mended(text: str) -> str:
    """Encoded words that a fold breaks, put together again as some readers do."""
    return _BROKEN_WORD.sub(lambda match: "".join(match[0].split()), text)


def _decode_words(match: re.Match[str]) -> str:
    """RFC 2047 section 6.2: encoded words next to each other are one text."""
    return "".join(_decode_word(*one) for one in _ENCODED_WORD.findall(match[0]))


def _decode_word(charset: str, encoding: str, text: str) -> str:
    coded = text.encode("ascii", "replace")
    try:
        raw = binascii.a2b_base64(coded) if encoding in "Bb" else binascii.a2b_qp(coded, header=True)
    except ValueError:
        return text
    decoded = decode_text(raw, charset, errors="strict")
    return raw.decode("latin-1") if decoded is None else decoded
