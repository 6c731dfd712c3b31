"""What do our keys and values look like in the store? Names without addresses, values that show when they are damaged.

A name is ``{fwd0}:KIND:DIGEST``. ``{fwd0}`` is the hash tag of all that one step may touch together, so that a script may
touch several keys on a cluster; traces have others there (docs/decisions/0044). The digest is a BLAKE2b keyed with the
store's salt: whoever sees names only (SLOWLOG, MONITOR, a list of keys, a memory report) learns no address and cannot
guess one. The salt is 32 random octets kept in the store itself. A key of the operator's would be one more file to copy to
every host, and forgetting it would part the hosts' ledgers in silence; an SRS secret would lose ten days of forwards each
time it is changed.

A value is one version octet, an 8-octet keyed tag over its name and content, and the content in MessagePack. An unknown
version, a tag that does not fit (a flipped bit, a value under another's name) and an unreadable content are all the
same: no value.
"""

from __future__ import annotations

import hmac
import secrets
from binascii import b2a_base64
from collections.abc import Sequence
from datetime import datetime
from hashlib import blake2b
from typing import TypeVar

import msgspec

from forwarder.model import Address, Finding, TlsResult, TlsSession
from forwarder.ports import Evidence, Forwarded, Measure, Standing, StsMode, StsPolicy, Subject, SubjectKind

__all__ = [
    "HASH_TAG",
    "UNREADABLE",
    "VERSION",
    "Names",
    "new_salt",
    "open_address",
    "open_finding",
    "open_forwarded",
    "open_policy",
    "open_salt",
    "open_session",
    "open_standing",
    "seal_address",
    "seal_finding",
    "seal_forwarded",
    "seal_policy",
    "seal_salt",
    "seal_session",
    "seal_standing",
]

HASH_TAG = b"{fwd0}"
VERSION = b"\x01"
#: What a decoder raises for content that is none of ours: text that is not UTF-8 and values within values are no MsgspecError.
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_TAG = 8
#: 144 bits: nobody finds two names that fall together, salt or no salt. 18 octets are 24 characters of base64, no
#: padding.
_DIGEST = 18
_SALT = 32
#: Characters of a text in a finding.
_MAX_FINDING = 500

T = TypeVar("T")


class _Forward(msgspec.Struct, array_like=True, frozen=True):
    """Forwarded without the reversible address, which its key stands for. Text is bytes: SMTP's need not be UTF-8. It may only
    grow at its end, with defaults: what an older release has put is read."""

    sender_local: bytes
    sender_domain: bytes
    alias_local: bytes
    alias_domain: bytes
    destination_local: bytes
    destination_domain: bytes
    message_id: bytes | None
    envelope_id: bytes
    at: datetime
    notify: str | None = None
    orcpt: str | None = None
    envid: str | None = None
    client: str | None = None
    verified: bool = True


class _Evidence(msgspec.Struct, array_like=True, frozen=True):
    """Evidence. Text that came by mail is bytes."""

    at: datetime
    what: bytes
    weight: float
    source: bytes
    message: bytes


class _Standing(msgspec.Struct, array_like=True, frozen=True):
    """Standing. It may only grow at its end, with defaults."""

    kind: SubjectKind
    name: bytes
    score: float
    at: datetime
    half_life: float
    over_at: datetime
    mail: float
    evidence: tuple[_Evidence, ...]
    measure: Measure | None
    until: datetime | None
    by_hand: bool
    since: datetime | None = None


class _Sender(msgspec.Struct, array_like=True, frozen=True):
    local: bytes
    domain: bytes


class _Policy(msgspec.Struct, array_like=True, frozen=True):
    """StsPolicy."""

    id: str
    mode: StsMode
    hosts: tuple[str, ...]
    max_age: int


class _Session(msgspec.Struct, array_like=True, frozen=True):
    """TlsSession without its domain, which its key stands for."""

    kind: str
    policy: tuple[str, ...]
    patterns: tuple[str, ...]
    result: TlsResult
    host: str
    address: str
    reason: str


class _Finding(msgspec.Struct, array_like=True, frozen=True):
    """Finding. Text is bytes: a stranger wrote most of it."""

    at: datetime
    alias: bytes
    sender: bytes
    destination: bytes
    kind: str
    status: str
    said: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode_finding = msgspec.msgpack.Decoder(_Finding).decode
_decode_forward = msgspec.msgpack.Decoder(_Forward).decode
_decode_sender = msgspec.msgpack.Decoder(_Sender).decode
_decode_session = msgspec.msgpack.Decoder(_Session).decode
_decode_standing = msgspec.msgpack.Decoder(_Standing).decode
_decode_policy = msgspec.msgpack.Decoder(_Policy).decode


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogatepass")


# --- names ------------------------------------------------------------------------------------------------------------


class Names:
    """Makes the names of keys, and the tags of values, from the salt."""

    __slots__ = ("_kinds", "_tags", "salt")

    def __init__(self, salt: bytes) -> None:
        self.salt = salt
        #: Of each kind, what a name begins with, and a hash that has the salt: to copy one costs half of making it.
        self._kinds: dict[bytes, tuple[bytes, blake2b]] = {}
        self._tags = blake2b(digest_size=_TAG, key=salt, person=b"value")

    def key(self, kind: bytes, *parts: bytes | str) -> bytes:
        """The name for these parts: every kind its own names, and ("ab", "c") is not ("a", "bc")."""
        begin, salted = self._kinds.get(kind) or self._kind(kind)
        return begin + b2a_base64(_digest(salted, parts), newline=False)

    def place(self, tags: Sequence[bytes], kind: bytes, *parts: bytes | str) -> tuple[bytes, bytes]:
        """Of these tags the one that the name's digest chooses, and the name with it."""
        _, salted = self._kinds.get(kind) or self._kind(kind)
        digest = _digest(salted, parts)
        tag = tags[int.from_bytes(digest[:2], "big") % len(tags)]
        return tag, b"%b:%b:%b" % (tag, kind, b2a_base64(digest, newline=False))

    def field(self, *parts: bytes | str) -> bytes:
        """A name inside a hash."""
        _, salted = self._kinds.get(b"field") or self._kind(b"field")
        return _digest(salted, parts)[:12]

    def tag(self, name: bytes, content: bytes) -> bytes:
        """What shows that ``content`` was put under ``name`` by us and is whole."""
        state = self._tags.copy()
        state.update(name)
        state.update(content)
        return state.digest()

    def _kind(self, kind: bytes) -> tuple[bytes, blake2b]:
        made = self._kinds[kind] = (
            b"%b:%b:" % (HASH_TAG, kind),
            blake2b(digest_size=_DIGEST, key=self.salt, person=kind),
        )
        return made


def _digest(salted: blake2b, parts: Sequence[bytes | str]) -> bytes:
    state = salted.copy()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        state.update(len(raw).to_bytes(4, "big") + raw)
    return state.digest()


def new_salt() -> bytes:
    """32 random octets."""
    return secrets.token_bytes(_SALT)


def seal_salt(salt: bytes) -> bytes:
    """The salt as it lies in the store."""
    return VERSION + blake2b(salt, digest_size=_TAG, person=b"salt").digest() + salt


def open_salt(value: bytes) -> bytes | None:
    """None: this is no salt of ours."""
    salt = value[1 + _TAG :]
    return salt if len(salt) == _SALT and hmac.compare_digest(value, seal_salt(salt)) else None


# --- values -----------------------------------------------------------------------------------------------------------


def _seal(names: Names, name: bytes, record: msgspec.Struct) -> bytes:
    content = _encode(record)
    return VERSION + names.tag(name, content) + content


def _open(names: Names, name: bytes, value: bytes) -> bytes | None:
    content = value[1 + _TAG :]
    whole = value[:1] == VERSION and hmac.compare_digest(value[1 : 1 + _TAG], names.tag(name, content))
    return content if whole else None


def seal_address(names: Names, name: bytes, address: Address) -> bytes:
    """The value under ``name`` that stands for ``address``."""
    return _seal(names, name, _Sender(_bytes(address.local), _bytes(address.domain)))


def open_address(names: Names, name: bytes, value: bytes) -> Address | None:
    """None: unreadable."""
    content = _open(names, name, value)
    if content is None:
        return None
    try:
        record = _decode_sender(content)
        return Address(_text(record.local), _text(record.domain))
    except UNREADABLE:
        return None


def seal_forwarded(names: Names, name: bytes, forwarded: Forwarded, message_id: str | None) -> bytes:
    """The value that stands for ``forwarded``, with this Message-ID, under any key that ``name`` speaks for."""
    sender, alias, destination = forwarded.sender, forwarded.alias, forwarded.destination
    record = _Forward(
        _bytes(sender.local),
        _bytes(sender.domain),
        _bytes(alias.local),
        _bytes(alias.domain),
        _bytes(destination.local),
        _bytes(destination.domain),
        None if message_id is None else _bytes(message_id),
        _bytes(forwarded.envelope_id),
        forwarded.at,
        forwarded.notify,
        forwarded.orcpt,
        forwarded.envid,
        forwarded.client,
        forwarded.verified,
    )
    return _seal(names, name, record)


def open_forwarded(names: Names, name: bytes, value: bytes, reversible: Address) -> Forwarded | None:
    """None: unreadable."""
    content = _open(names, name, value)
    if content is None:
        return None
    try:
        record = _decode_forward(content)
        return Forwarded(
            reversible=reversible,
            sender=Address(_text(record.sender_local), _text(record.sender_domain)),
            alias=Address(_text(record.alias_local), _text(record.alias_domain)),
            destination=Address(_text(record.destination_local), _text(record.destination_domain)),
            message_id=None if record.message_id is None else _text(record.message_id),
            envelope_id=_text(record.envelope_id),
            at=record.at,
            notify=record.notify,
            orcpt=record.orcpt,
            envid=record.envid,
            client=record.client,
            verified=record.verified,
        )
    except UNREADABLE:
        return None


def seal_policy(names: Names, name: bytes, policy: StsPolicy) -> bytes:
    """The value under ``name`` that stands for ``policy``."""
    return _seal(names, name, _Policy(policy.id, policy.mode, policy.hosts, policy.max_age))


def open_policy(names: Names, name: bytes, value: bytes) -> StsPolicy | None:
    """None: unreadable."""
    content = _open(names, name, value)
    if content is None:
        return None
    try:
        record = _decode_policy(content)
    except UNREADABLE:
        return None
    return StsPolicy(record.id, record.mode, record.hosts, record.max_age)


def seal_session(session: TlsSession) -> bytes:
    """The field that stands for this kind of session, in the hash of its domain: a name, so it carries no tag."""
    one = session
    return VERSION + _encode(
        _Session(one.kind, one.policy, one.patterns, one.result, one.host, one.address, one.reason)
    )


def open_session(domain: str, field: bytes) -> TlsSession | None:
    """None: unreadable."""
    if field[:1] != VERSION:
        return None
    try:
        one = _decode_session(field[1:])
    except UNREADABLE:
        return None
    return TlsSession(domain, one.kind, one.policy, one.patterns, one.result, one.host, one.address, one.reason)


def seal_standing(names: Names, name: bytes, standing: Standing) -> bytes:
    """The value under ``name`` that stands for ``standing``."""
    record = _Standing(
        standing.subject.kind,
        _bytes(standing.subject.name),
        standing.score,
        standing.at,
        standing.half_life,
        standing.over_at,
        standing.mail,
        tuple(
            _Evidence(one.at, _bytes(one.what), one.weight, _bytes(one.source), _bytes(one.message))
            for one in standing.evidence
        ),
        standing.measure,
        standing.until,
        standing.by_hand,
        standing.since,
    )
    return _seal(names, name, record)


def open_standing(names: Names, name: bytes, value: bytes) -> Standing | None:
    """None: unreadable."""
    content = _open(names, name, value)
    if content is None:
        return None
    try:
        record = _decode_standing(content)
        return Standing(
            subject=Subject(record.kind, _text(record.name)),
            score=record.score,
            at=record.at,
            half_life=record.half_life,
            over_at=record.over_at,
            mail=record.mail,
            evidence=tuple(
                Evidence(one.at, _text(one.what), one.weight, _text(one.source), _text(one.message))
                for one in record.evidence
            ),
            measure=record.measure,
            until=record.until,
            by_hand=record.by_hand,
            since=record.since,
        )
    except UNREADABLE:
        return None


def seal_finding(names: Names, name: bytes, finding: Finding) -> bytes:
    """The value in the digest ``name`` that stands for ``finding``, its text cut to what a letter shows."""
    one = finding
    texts = [_bytes(text[:_MAX_FINDING]) for text in (one.alias, one.sender, one.destination, one.said)]
    return _seal(names, name, _Finding(one.at, texts[0], texts[1], texts[2], one.kind, one.status, texts[3]))


def open_finding(names: Names, name: bytes, value: bytes) -> Finding | None:
    """None: unreadable."""
    content = _open(names, name, value)
    if content is None:
        return None
    try:
        one = _decode_finding(content)
        return Finding(
            one.at,
            _text(one.alias),
            _text(one.sender),
            _text(one.destination),
            one.kind,
            one.status,
            _text(one.said),
        )
    except UNREADABLE:
        return None
