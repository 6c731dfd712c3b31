"""How does another mail program make and check mailkey signatures? The public face of ``forwarder.auth.mailkey``.

    key = load_key("mailkey.pem", domain="sender.example", selector="k2611")
    signed = sign(message, key=key, mail_from="bob@sender.example", rcpt_to=["ann@elsewhere.example"]) + message

    verify(signed, mail_from="bob@sender.example", rcpt_to=["ann@elsewhere.example"]).result  # "pass"

A message is ``bytes``: as on the wire, CRLF after each line and without dot-stuffing, or as in a file, LF after each
line, which is read as if it were CRLF. Both in one message are refused: two readers could hash it in two ways.
Addresses are ``local@domain``, with or without angle brackets, domains as U-labels or A-labels.

What is wrong with an argument raises ``MailkeyError``. What is wrong with a message that came from outside never
raises from ``verify``: it is a result. docs/mailkey.md specifies the scheme, docs/mailkey-for-senders.md is the way in.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

from forwarder.auth.canonical import body_hash
from forwarder.auth.dnsname import dns_name
from forwarder.auth.mailkey import build_mailkey_signature, verify_mailkey
from forwarder.auth.mailkey.sign import LIFETIME
from forwarder.auth.mailkey.signature import MAX_LIFETIME
from forwarder.auth.signed import sign_now
from forwarder.auth.suffix import is_public_suffix
from forwarder.https import HttpsSettings
from forwarder.keyhost import KeyHostClient
from forwarder.keys import LEAST_MAILKEY_BITS, Key, KeyFile, KeyFileError
from forwarder.keys import load_key as read_key
from forwarder.mail.address import AddressError, ascii_domain, parse_address
from forwarder.mail.header import MalformedMessage, parse_message
from forwarder.model import Address, MailkeyCheck, Message, Result
from forwarder.ports import Answer, DnsStatus, Resolver, SigningKey
from forwarder.resolver import DnsResolver, system_nameservers
from forwarder.resolver.zone import ZoneResolver

__all__ = ["LIFETIME", "Dns", "MailkeyError", "Txt", "Verification", "averify", "load_key", "sign", "verify"]

#: TXT records, the character-strings of each joined; empty: there are none; ``None``: the DNS did not say.
Txt: TypeAlias = "Iterable[str | bytes] | None"
#: Where records come from: a function of the name (it may be a coroutine's), a mapping, or a resolver that caches.
Dns: TypeAlias = "Callable[[str], Txt | Awaitable[Txt]] | Mapping[str, Txt] | Resolver"

_LABEL = re.compile(r"[a-zA-Z0-9_](?:[a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?\Z")


class MailkeyError(ValueError):
    """An argument cannot be used, or a message cannot be signed. The text says which and why, and holds no secret."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What became of a message. ``result`` is ``"pass"``, ``"none"``, ``"fail"``, ``"permerror"`` or ``"temperror"``.

    ``domain`` is the one that MAIL FROM (or, for the null sender, EHLO) names; ``signer`` and ``selector`` are d= and
    s= of the signature that decided; ``policy`` is o= of the domain's record (``"all"``, ``"some"``, ``"test"``;
    ``None`` without a record); ``bound`` tells whether rt= binds every recipient, ``None`` without rt= or where no
    recipient was given; ``reason`` is for people. docs/mailkey.md section 9 says what follows from each.
    """

    result: str
    domain: str | None = None
    signer: str | None = None
    selector: str | None = None
    policy: str | None = None
    bound: bool | None = None
    reason: str | None = None


def load_key(path: str | Path, *, domain: str, selector: str = "") -> Key:
    """The private key (PEM) at ``path``, which signs for ``domain`` and is published at ``<selector>.mailkey.<domain>``,
    or at ``mailkey.<domain>`` without a selector. Raises MailkeyError.
    """
    try:
        name = ascii_domain(parse_address(f"postmaster@{domain}").domain)
    except AddressError as error:
        raise MailkeyError(f"{domain[:80]!r} is no domain: {error}") from error
    # docs/mailkey.md section 5: s= is one label.
    if selector and not _LABEL.match(selector):
        raise MailkeyError(f"selector {selector[:80]!r} is not one DNS label")
    try:
        return read_key(KeyFile(name, selector, Path(path)), least_bits=LEAST_MAILKEY_BITS)
    except KeyFileError as error:
        raise MailkeyError(str(error)) from error


def sign(
    message: bytes,
    *,
    key: SigningKey,
    mail_from: str | None,
    rcpt_to: Sequence[str] = (),
    now: datetime | None = None,
    lifetime: timedelta = LIFETIME,
) -> bytes:
    """The new Mailkey-Signature field, line ends included: ``sign(message, ...) + message`` is the signed message.

    ``mail_from`` is what MAIL FROM will say (``None`` or ``""`` for the null sender), so a message that goes out under
    several senders is signed several times. ``rcpt_to`` are the recipients of one transaction, and only they can then
    be shown the message: leave it empty where the next server splits transactions or rewrites recipients.
    The field has the line ends of the message. ``now`` has a time zone, and is the clock's time without it.

    Raises MailkeyError: no signature is better than one that nobody can verify.
    """
    sender = _path("mail_from", mail_from)
    if sender is not None:
        _expect_cover(key.domain, sender)
    if not timedelta(seconds=1) <= lifetime <= timedelta(seconds=MAX_LIFETIME):
        raise MailkeyError("lifetime is between one second and 14 days")
    parsed = _parse(message)
    # docs/mailkey.md section 5: h= must name From.
    if len(parsed.all(b"from")) != 1:
        raise MailkeyError("the message must have one From field")
    field = sign_now(
        build_mailkey_signature(
            parsed.fields,
            body_hash(parsed, "relaxed"),
            key,
            sender=sender,
            recipients=_recipients(rcpt_to),
            now=_time(now),
            lifetime=lifetime,
        )
    )
    return field if b"\r\n" in message else field.replace(b"\r\n", b"\n")


def verify(
    message: bytes,
    *,
    mail_from: str | None,
    rcpt_to: Sequence[str] = (),
    helo: str = "",
    now: datetime | None = None,
    dns: Dns | None = None,
) -> Verification:
    """Does the domain of ``mail_from`` vouch for ``message``? Waits for the DNS; ``averify`` is for asyncio programs.

    ``mail_from``, ``rcpt_to`` and ``helo`` are those of the SMTP transaction; ``helo`` matters for the null sender.
    ``dns`` is asked for TXT records, the system's resolver without it. A function gives a list of records, empty where
    there are none, and ``None`` where it could not find out; an exception of its own is taken for the latter. A key host
    over HTTPS (u=https) is asked with the system's resolver or a ``DnsResolver``, not with a function or a mapping.

    Raises MailkeyError for arguments that cannot be used, never for what the message holds or the DNS answers.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(averify(message, mail_from=mail_from, rcpt_to=rcpt_to, helo=helo, now=now, dns=dns))
    raise MailkeyError("an event loop is running: await averify() instead")


async def averify(
    message: bytes,
    *,
    mail_from: str | None,
    rcpt_to: Sequence[str] = (),
    helo: str = "",
    now: datetime | None = None,
    dns: Dns | None = None,
) -> Verification:
    """``verify`` for programs that run an event loop. A ``dns`` function that blocks, blocks the loop."""
    sender, recipients, time = _path("mail_from", mail_from), _recipients(rcpt_to), _time(now)
    resolver = _resolver(dns)
    key_host = _key_host(resolver)
    try:
        parsed = _parse(message)
    except MailkeyError as error:
        return Verification(Result.PERMERROR.value, reason=str(error))
    try:
        check = await verify_mailkey(
            resolver,
            parsed,
            sender=sender,
            helo=helo,
            recipients=recipients,
            now=time,
            is_public_suffix=is_public_suffix,
            key_host=key_host,
        )
    finally:
        if key_host is not None:
            await key_host.aclose()
        if dns is None and isinstance(resolver, DnsResolver):
            await resolver.aclose()
    return _verification(check, resolver, compared=bool(recipients))


def _verification(check: MailkeyCheck, resolver: Resolver, *, compared: bool) -> Verification:
    reason, bound = check.reason, check.bound if compared else None
    if check.result is Result.TEMPERROR and isinstance(resolver, _Given) and resolver.failure:
        reason = f"{reason} ({resolver.failure})"
    return Verification(check.result.value, check.domain, check.signer, check.selector, check.policy, bound, reason)


# --- arguments --------------------------------------------------------------------------------------------------------


def _parse(message: bytes) -> Message:
    if b"\r\n" not in message:
        message = message.replace(b"\n", b"\r\n")
    lines = message.count(b"\r\n")
    if message.count(b"\n") != lines or message.count(b"\r") != lines:
        raise MailkeyError("the message has line ends of two kinds, CRLF and bare CR or LF")
    try:
        return parse_message(message)
    except MalformedMessage as error:
        raise MailkeyError(str(error)) from error


def _path(name: str, text: str | None) -> Address | None:
    bare = (text or "").removeprefix("<").removesuffix(">")
    try:
        return parse_address(bare) if bare else None
    except AddressError as error:
        raise MailkeyError(f"{name} {bare[:80]!r}: {error}") from error


def _recipients(texts: Sequence[str]) -> tuple[Address, ...]:
    if isinstance(texts, str):
        raise MailkeyError("rcpt_to is a list of addresses")
    found = tuple(_path("rcpt_to", one) for one in texts)
    if None in found:
        raise MailkeyError("rcpt_to: an address is empty")
    return tuple(one for one in found if one is not None)


def _time(now: datetime | None) -> datetime:
    if now is None:
        return datetime.now(UTC)
    if now.tzinfo is None:
        raise MailkeyError("now needs a time zone")
    return now


def _expect_cover(signer: str, sender: Address) -> None:
    """docs/mailkey.md section 5: d= is the MAIL FROM domain or a parent of it, never a public suffix."""
    try:
        domain = ascii_domain(sender.domain)
    except AddressError as error:
        raise MailkeyError(f"mail_from: {error}") from error
    if domain != signer and (not domain.endswith(f".{signer}") or is_public_suffix(signer)):
        raise MailkeyError(f"a key of {signer} cannot sign for a sender in {domain}")


# --- records ----------------------------------------------------------------------------------------------------------


def _resolver(dns: Dns | None) -> Resolver:
    if dns is None:
        servers = system_nameservers()
        if not servers:
            raise MailkeyError("the system names no name server (/etc/resolv.conf): give dns=")
        return DnsResolver(servers, monotonic=asyncio.get_running_loop().time)
    if isinstance(dns, Mapping):
        records = {dns_name(name): txt for name, txt in dns.items()}
        return _Given(lambda name: records.get(name, ()))
    return _Given(dns) if callable(dns) else dns


def _key_host(resolver: Resolver) -> KeyHostClient | None:
    """docs/mailkey.md section 4: who asks the real DNS also asks key hosts, where a record says u=https."""
    if not isinstance(resolver, DnsResolver):
        return None
    return KeyHostClient(resolver, HttpsSettings(), _Silent(), monotonic=asyncio.get_running_loop().time)


class _Silent:
    """``ports.Journal`` of a program that has a log of its own."""

    def event(self, name: str, /, **fields: Any) -> None:
        pass


class _Given(ZoneResolver):
    """``ports.Resolver`` over somebody else's function, and for all but TXT over an empty zone.

    ``failure`` is the function's last exception, for people.
    """

    def __init__(self, txt: Callable[[str], Txt | Awaitable[Txt]]) -> None:
        super().__init__({})
        self._txt = txt
        self.failure: str | None = None

    async def txt(self, name: str, *, fresh: bool = False) -> Answer[bytes]:
        canonical = dns_name(name)
        if canonical is None:
            return Answer(DnsStatus.NXDOMAIN)
        try:
            found = self._txt(canonical)
            texts = await found if inspect.isawaitable(found) else found
            records = None if texts is None else _records(texts)
        except Exception as error:  # noqa: BLE001 - which ones a stranger's function has cannot be known
            self.failure = f"{type(error).__name__}: {error}"[:200]
            records = None
        if records is None:
            return Answer(DnsStatus.TEMPERROR, detail=self.failure or "no answer")
        return Answer(DnsStatus.OK, records) if records else Answer(DnsStatus.NODATA)


def _records(texts: Iterable[str | bytes]) -> tuple[bytes, ...]:
    # A text is a sequence of texts too: taken for one it would be "no record", which nobody would notice.
    return tuple(map(_octets, (texts,) if isinstance(texts, str | bytes) else texts))


def _octets(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
