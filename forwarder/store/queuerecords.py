"""What does a held delivery look like in the store? One sealed record; its head and its body lie beside it.

The record holds a digest of both, so that a damaged body is noticed like a damaged record: neither is delivered. A record is
read by the next release too: a new field goes to the end, with a default, and ``tests/store/test_queuerecords.py`` keeps a
record of each version.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from datetime import datetime
from hashlib import blake2b
from ipaddress import ip_address
from itertools import repeat

import msgspec

from forwarder.model import Address, BodyKind, Delivery, Envelope, Notice, Peer, Recipient, SecondForm, Tls, TlsWish
from forwarder.ports import Forwarded, Held, Waiting
from forwarder.store.records import UNREADABLE, VERSION, Names

__all__ = ["digest", "open_held", "pack_held", "seal_held", "unpack_held"]

_TAG = 8
_NOTHING = Notice()

_Path = tuple[bytes, bytes]


class _Peer(msgspec.Struct, array_like=True, frozen=True):
    ip: str
    helo: str
    esmtp: bool
    tls: tuple[str, str] | None


class _Recipient(msgspec.Struct, array_like=True, frozen=True):
    path: _Path
    notify: str | None
    orcpt: str | None


class _Envelope(msgspec.Struct, array_like=True, frozen=True):
    id: str
    peer: _Peer
    sender: _Path | None
    recipients: list[_Recipient]
    received_at: datetime
    smtputf8: bool
    body: str
    envid: str | None
    ret: str | None
    require_tls: bool = False


class _Waiting(msgspec.Struct, array_like=True, frozen=True):
    destination: _Path
    alias: _Path
    fingerprint: bytes
    reversible: _Path | None
    sender: _Path | None
    message_id: bytes | None
    notify: str | None = None
    orcpt: str | None = None


class _Held(msgspec.Struct, array_like=True, frozen=True):
    id: str
    delivery_id: str
    sender: _Path | None
    next_hop: str
    expires_at: datetime
    smtputf8: bool
    body: str
    attempts: int
    waiting: list[_Waiting]
    envelope: _Envelope
    report_to: _Path | None
    srs_domain: str
    header_at: int
    queued_at: datetime
    maybe_dup: bool
    head_digest: bytes
    body_digest: bytes
    tls: str = ""
    envid: str | None = None
    ret: str | None = None
    delay_told: bool = False
    #: SecondForm, as far as the rest does not tell it: the author's domain, and whether to ask.
    second: tuple[bytes, bool] | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Held).decode


def digest(octets: bytes) -> bytes:
    """16 octets that stand for these."""
    return blake2b(octets, digest_size=16).digest()


def seal_held(names: Names, name: bytes, held: Held, body_digest: bytes | None = None) -> bytes:
    """The record under ``name``. ``body_digest``: of its body, where that is known."""
    content = pack_held(held, body_digest)
    return VERSION + names.tag(name, content) + content


def pack_held(held: Held, body_digest: bytes | None = None) -> bytes:
    """The record's content: no store's, and so without its seal."""
    delivery = held.delivery
    record = _Held(
        held.id,
        delivery.id,
        _path(delivery.sender),
        delivery.next_hop,
        delivery.expires_at,
        delivery.smtputf8,
        delivery.body.value,
        delivery.attempts,
        [
            _waiting(to, one, notice)
            for to, one, notice in zip(
                delivery.recipients, held.waiting, delivery.notices or repeat(_NOTHING, len(held.waiting)), strict=True
            )
        ],
        _envelope(held.envelope),
        _path(held.report_to),
        held.srs_domain,
        held.header_at,
        held.queued_at,
        held.maybe_dup,
        digest(delivery.data[0]),
        body_digest or digest(delivery.data[1]),
        delivery.tls.value,
        delivery.envid,
        delivery.ret,
        held.delay_told,
        (_octets(delivery.second.author_domain), delivery.second.ask) if delivery.second is not None else None,
    )
    return _encode(record)


def open_held(names: Names, name: bytes, record: bytes, data: tuple[bytes, bytes] | None) -> Held | None:
    """``None``: damaged, by whatever hand. Without ``data`` (a listing) the delivery has none."""
    content = record[1 + _TAG :]
    if record[:1] != VERSION or not hmac.compare_digest(record[1 : 1 + _TAG], names.tag(name, content)):
        return None
    return unpack_held(content, data)


def unpack_held(content: bytes, data: tuple[bytes, bytes] | None) -> Held | None:
    """``None``: damaged, or no record."""
    try:
        found = _decode(content)
        if data is not None and (digest(data[0]), digest(data[1])) != (found.head_digest, found.body_digest):
            return None
        return _held(found, data or ())
    except (*UNREADABLE, ValueError):
        return None


def _held(found: _Held, data: tuple[bytes, ...]) -> Held:
    envelope = _open_envelope(found.envelope)
    delivery = Delivery(
        id=found.delivery_id,
        sender=_address(found.sender),
        recipients=tuple([_needed(one.destination) for one in found.waiting]),
        next_hop=found.next_hop,
        data=data,
        expires_at=found.expires_at,
        smtputf8=found.smtputf8,
        body=BodyKind(found.body),
        attempts=found.attempts,
        tls=TlsWish(found.tls),
        notices=_notices(found),
        envid=found.envid,
        ret=found.ret,
        second=_second(found),
    )
    return Held(
        id=found.id,
        delivery=delivery,
        waiting=_open_waiting(found, envelope, delivery.recipients),
        envelope=envelope,
        report_to=_address(found.report_to),
        srs_domain=found.srs_domain,
        header_at=found.header_at,
        queued_at=found.queued_at,
        maybe_dup=found.maybe_dup,
        delay_told=found.delay_told,
    )


def _notices(found: _Held) -> tuple[Notice, ...]:
    if all(one.notify is None and one.orcpt is None for one in found.waiting):
        return ()
    return tuple([Notice(one.notify, one.orcpt) for one in found.waiting])


def _second(found: _Held) -> SecondForm | None:
    """A delivery is of one alias."""
    if found.second is None or not found.waiting:
        return None
    author_domain, ask = found.second
    return SecondForm(_needed(found.waiting[0].alias), found.srs_domain, _text(author_domain), found.header_at, ask)


def _waiting(destination: Address, one: Waiting, notice: Notice) -> _Waiting:
    known = one.forwarded
    return _Waiting(
        _pack(destination),
        _pack(one.alias),
        one.fingerprint,
        _path(known.reversible) if known is not None else None,
        _path(known.sender) if known is not None else None,
        _octets(known.message_id) if known is not None and known.message_id is not None else None,
        notice.notify,
        notice.orcpt,
    )


def _open_waiting(found: _Held, envelope: Envelope, destinations: Sequence[Address]) -> tuple[Waiting, ...]:
    # Nearly all of it is the same for each recipient, and there are many: each thing is made once.
    addresses: dict[_Path, Address] = {}
    asked: dict[Address, Recipient | None] = {}
    client, verified, waiting = envelope.peer.ip_text, found.report_to is not None, []

    def known(path: _Path) -> Address:
        address = addresses.get(path)
        if address is None:
            address = addresses[path] = _needed(path)
        return address

    for one, destination in zip(found.waiting, destinations, strict=True):
        alias, forwarded = known(one.alias), None
        if one.reversible is not None and one.sender is not None:
            if alias not in asked:
                asked[alias] = envelope.recipient(alias)
            named = asked[alias]
            forwarded = Forwarded(
                known(one.reversible),
                known(one.sender),
                alias,
                destination,
                _text(one.message_id) if one.message_id is not None else None,
                envelope.id,
                found.queued_at,
                named.notify if named is not None else None,
                named.orcpt if named is not None else None,
                envelope.envid,
                client,
                verified,
            )
        waiting.append(Waiting(alias, one.fingerprint, forwarded))
    return tuple(waiting)


def _envelope(envelope: Envelope) -> _Envelope:
    peer = envelope.peer
    return _Envelope(
        envelope.id,
        _Peer(
            peer.ip_text, peer.helo, peer.esmtp, (peer.tls.version, peer.tls.cipher) if peer.tls is not None else None
        ),
        _path(envelope.sender),
        [_Recipient(_pack(one.address), one.notify, one.orcpt) for one in envelope.recipients],
        envelope.received_at,
        envelope.smtputf8,
        envelope.body.value,
        envelope.envid,
        envelope.ret,
        envelope.require_tls,
    )


def _open_envelope(found: _Envelope) -> Envelope:
    peer = found.peer
    return Envelope(
        id=found.id,
        peer=Peer(ip_address(peer.ip), peer.helo, peer.esmtp, Tls(*peer.tls) if peer.tls is not None else None),
        sender=_address(found.sender),
        recipients=tuple(Recipient(_needed(one.path), one.notify, one.orcpt) for one in found.recipients),
        received_at=found.received_at,
        smtputf8=found.smtputf8,
        body=BodyKind(found.body),
        envid=found.envid,
        ret=found.ret,
        require_tls=found.require_tls,
    )


# Text of SMTP need not be UTF-8, so addresses are kept as octets.


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogatepass")


def _pack(address: Address) -> _Path:
    return _octets(address.local), _octets(address.domain)


def _path(address: Address | None) -> _Path | None:
    return _pack(address) if address is not None else None


def _needed(path: _Path) -> Address:
    return Address(_text(path[0]), _text(path[1]))


def _address(path: _Path | None) -> Address | None:
    return _needed(path) if path is not None else None
