"""What flows through the program? The values every room shares; no behaviour beyond what the value itself knows.

All values are frozen. "Absent" is ``None``, "empty" is ``()`` or ``b""``, and both mean what the field says. A change makes
a new value (``dataclasses.replace``). Text is ``str`` once decoded at the border; message bytes stay ``bytes``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from datetime import datetime
from enum import Enum, StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from forwarder.values import value

# --- who ---------------------------------------------------------------------------------------------------------------


@value(order=True)
class Address:
    """A mailbox as it stands in an SMTP path (RFC 5321 section 4.1.2), without the angle brackets.

    ``local`` is the wire form: a quoted string keeps its quotes and its case. ``domain`` is lower-cased; it is A-labels,
    U-labels (SMTPUTF8) or an address literal with its brackets. The null sender is ``None`` where an ``Address | None``
    is asked for, never an ``Address`` with empty parts.
    """

    local: str
    domain: str

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}"


@value
class Tls:
    """The TLS session of a peer: protocol and cipher as OpenSSL names them (``TLSv1.3``, ``TLS_AES_256_GCM_SHA384``)."""

    version: str
    cipher: str


@value
class Peer:
    """The client at the other end. ``helo`` is what it called itself: syntactically checked, never believed. ``named``: it was
    one; else this is the client's address. ``ip_text`` is ``str(ip)``, which each of its messages wants three times."""

    ip: IPv4Address | IPv6Address
    helo: str
    esmtp: bool = True
    tls: Tls | None = None
    named: bool = True
    ip_text: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ip_text", str(self.ip))


@value
class Identity:
    """A client of a submission listener whom we know: by ``login``, or by its network (``authenticated`` is false then, and
    ``name`` the network). ``owns`` are the senders it may use: ``example.org``, ``*.example.org`` (every subdomain, not the
    domain itself) or ``bob@example.org``, in the form of ``ownership.canonical_owner``."""

    name: str
    owns: frozenset[str]
    null_sender: bool = False
    authenticated: bool = True


class BodyKind(StrEnum):
    """RFC 6152 / RFC 3030 BODY= parameter."""

    SEVEN_BIT = "7BIT"
    EIGHT_BIT_MIME = "8BITMIME"


class TlsWish(StrEnum):
    """RFC 8689: what the sender asks of every hop. ``REQUIRED``: protection against whoever is in between, or no delivery;
    ``INDIFFERENT``: delivery, whatever protection the destination or the operator asks for."""

    NONE = ""
    REQUIRED = "required"
    INDIFFERENT = "indifferent"


@value
class Recipient:
    """One RCPT TO with its RFC 3461 parameters, case and xtext kept as received; ``None`` when the client gave none."""

    address: Address
    notify: str | None = None
    orcpt: str | None = None


@value
class Listed:
    """A DNS list (RFC 5782) has the client. ``codes`` are its answers, ``weight`` what they count; below 0: it is a list of the
    good."""

    zone: str
    codes: tuple[IPv4Address, ...]
    weight: float


@value
class IprevCheck:
    """RFC 8601 section 2.7.3. ``name`` is the client's, where it leads back to its address."""

    result: Result
    name: str | None = None
    reason: str | None = None


class HeloFact(StrEnum):
    """What is found out about the name behind EHLO or HELO."""

    #: It leads to the client's address.
    RESOLVES = "resolves"
    #: It is a name, and does not.
    ELSEWHERE = "elsewhere"
    #: The look-up failed.
    UNKNOWN = "unknown"
    #: An address literal, which RFC 5321 section 4.1.3 leaves to those who have no name.
    LITERAL = "literal"
    #: A name of ours, and the client has not our address.
    OURS = "ours"
    #: Of one label.
    SHORT = "short"
    #: No name and no literal.
    NAMELESS = "nameless"


@value
class HeloCheck:
    """``weight`` is what the operator has the fact count, as that of ``Listed``."""

    fact: HeloFact
    result: Result
    reason: str | None = None
    weight: float = 0.0


@value
class Caller:
    """What others say of the client: facts, no advice. ``iprev`` and ``helo`` are ``None`` where it was not asked."""

    listed: tuple[Listed, ...] = ()
    iprev: IprevCheck | None = None
    helo: HeloCheck | None = None

    @property
    def score(self) -> float:
        """What the lists say, and its name, together."""
        return sum(one.weight for one in self.listed) + (self.helo.weight if self.helo is not None else 0)


@value
class Envelope:
    """One SMTP transaction as the client stated it. ``sender`` is ``None`` for the null reverse-path ``<>``. ``identity`` is
    who submits it; ``None``: nobody we know (port 25). ``require_tls`` is MAIL's REQUIRETLS (RFC 8689). ``caller`` is what was
    found out about the client; ``None``: nobody was asked."""

    id: str
    peer: Peer
    sender: Address | None
    recipients: tuple[Recipient, ...]
    received_at: datetime
    smtputf8: bool = False
    body: BodyKind = BodyKind.SEVEN_BIT
    envid: str | None = None
    ret: str | None = None
    identity: Identity | None = None
    require_tls: bool = False
    caller: Caller | None = None

    def recipient(self, address: Address) -> Recipient | None:
        """The RCPT TO that named this address, letter for letter."""
        for one in self.recipients:
            if one.address == address:
                return one
        return None


# --- the message -------------------------------------------------------------------------------------------------------


class Field(NamedTuple):
    """One header field: ``name`` lower-cased without the colon, ``raw`` every byte of it with folds and final CRLF."""

    name: bytes
    raw: bytes

    @property
    def value(self) -> bytes:
        """The bytes behind the colon, folds and final CRLF included."""
        return self.raw[self.raw.index(b":") + 1 :]


@value(eq=False)
class Content:
    """What came behind DATA, not looked at yet: the octets up to the first empty line, that line (CRLF; ``b""`` where there is
    none), and the octets behind it. ``body_hashes`` as in ``Message``: what was hashed while it came."""

    header: bytes
    separator: bytes
    body: bytes
    body_hashes: dict[tuple[str, int | None], bytes] = field(default_factory=dict, repr=False)

    @property
    def size(self) -> int:
        """Octets in all."""
        return len(self.header) + len(self.separator) + len(self.body)


@value(eq=False)
class Message:
    """A message as received, never printed again: ``header + separator + body`` is byte for byte what came.

    ``header`` ends with the CRLF of its last field; ``separator`` is the empty line (CRLF), or ``b""`` where the message
    ended with its header; ``fields`` are the fields of ``header`` from the top. ``body_hashes`` is filled by
    ``auth.canonical`` so that every check and every signature of this message shares one pass over the body.
    """

    header: bytes
    separator: bytes
    body: bytes
    fields: tuple[Field, ...]
    body_hashes: dict[tuple[str, int | None], bytes] = field(default_factory=dict, repr=False)
    _named: dict[bytes, list[Field]] = field(default_factory=dict, init=False, repr=False)

    def all(self, name: bytes) -> Sequence[Field]:
        """Fields of this lower-cased name, from the top."""
        return (self._named or self._index()).get(name, ())

    def first(self, name: bytes) -> Field | None:
        """The topmost field of this lower-cased name."""
        found = (self._named or self._index()).get(name)
        return found[0] if found else None

    def _index(self) -> dict[bytes, list[Field]]:
        # Every check asks for a few names, of a message that is the same for all of them.
        for one in self.fields:
            self._named.setdefault(one.name, []).append(one)
        return self._named

    @property
    def size(self) -> int:
        """Octets of the whole message."""
        return len(self.header) + len(self.separator) + len(self.body)


# --- what the checks found ---------------------------------------------------------------------------------------------


class Result(StrEnum):
    """Result words of RFC 8601 section 2.7, shared by every method."""

    NONE = "none"
    PASS = "pass"
    FAIL = "fail"
    SOFTFAIL = "softfail"
    NEUTRAL = "neutral"
    POLICY = "policy"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


@value
class SpfCheck:
    """RFC 7208. ``domain`` is the <domain> that was checked; ``explanation`` only on ``fail`` (section 6.2)."""

    result: Result
    domain: str | None = None
    reason: str | None = None
    explanation: str | None = None


@value
class DkimCheck:
    """One DKIM-Signature (RFC 6376). ``signature`` is the start of ``b=`` for ``header.b``; ``testing`` is the key's t=y."""

    result: Result
    domain: str | None = None
    selector: str | None = None
    reason: str | None = None
    identity: str | None = None
    algorithm: str | None = None
    signature: str | None = None
    testing: bool = False


@value
class ArcCheck:
    """The ARC chain as received (RFC 8617 section 5.2). ``sealers`` are the d= of the seals, i=1 first."""

    result: Result
    sets: int = 0
    oldest_pass: int | None = None
    reason: str | None = None
    sealers: tuple[str, ...] = ()


@value
class DmarcCheck:
    """RFC 9989. ``domain`` is the Author Domain; ``policy`` what its record asks for; ``applied`` what is left of it after
    the ``t`` flag; ``aligned_by`` names the identifier that aligned (``"dkim:d.example"``, ``"spf:m.example"``);
    ``signed_by`` is the d= of an aligned signature that passed and so outlives forwarding, looked for where the policy
    makes it matter."""

    result: Result
    domain: str | None = None
    policy_domain: str | None = None
    policy: str | None = None
    applied: str | None = None
    aligned_by: str | None = None
    reason: str | None = None
    signed_by: str | None = None


@value
class OpenSignature:
    """A mailkey signature that is good and has no rt=, so that it is as good for any other recipient. ``digest`` is what was
    signed (32 octets), ``expires_at`` when it ends (Unix time)."""

    digest: bytes
    expires_at: int


@value
class MailkeyCheck:
    """mailkey version 1 (docs/mailkey.md). ``domain`` is the one the MAIL FROM (or EHLO) names; ``signer`` the d= that
    covers it; ``policy`` is o= (``all``, ``some``, ``test``), ``None`` without a record; ``bound`` tells of rt=; ``open`` is
    what a pass without rt= rests on."""

    result: Result
    domain: str | None = None
    signer: str | None = None
    selector: str | None = None
    policy: str | None = None
    bound: bool | None = None
    reason: str | None = None
    open: OpenSignature | None = None


@value
class Verdict:
    """All that was found out about a message: facts, no advice."""

    mailkey: MailkeyCheck
    spf: SpfCheck
    spf_helo: SpfCheck
    dkim: tuple[DkimCheck, ...]
    arc: ArcCheck
    dmarc: DmarcCheck
    #: Which check vouches for the envelope sender's domain ("mailkey", "spf", "dkim"); None: nothing does.
    sender_verified_by: str | None = None


# --- what content filters found ----------------------------------------------------------------------------------------


class ContentAction(StrEnum):
    """What is done about a message because of what it contains. ``tag``: it is forwarded with fields that say so."""

    ACCEPT = "accept"
    TAG = "tag"
    ONE_WAY = "one-way"
    QUARANTINE = "quarantine"
    DISCARD = "discard"
    TEMPFAIL = "tempfail"
    REJECT = "reject"


@value
class ContentCheck:
    """What one content filter said: facts, no advice. ``action`` is its own word (``"add header"``, ``"reject"``), empty where it
    could not be asked: then ``failure`` says why. ``score`` and ``required`` are ``None`` where it has none. ``fields`` are
    header fields that it wants on it, value as it came; ``undone`` names what it wanted changed and is never changed here;
    ``said`` is its text, for the log only. ``milliseconds``: how long it took."""

    filter: str
    action: str = ""
    score: float | None = None
    required: float | None = None
    symbols: tuple[str, ...] = ()
    fields: tuple[tuple[str, bytes], ...] = ()
    undone: tuple[str, ...] = ()
    said: str = ""
    failure: str | None = None
    milliseconds: float = 0


# --- what is to be done ------------------------------------------------------------------------------------------------


@value
class Reply:
    """An SMTP reply: code, enhanced status code of RFC 3463 (``None`` where RFC 2034 has none), text without CR or LF."""

    code: int
    enhanced: str | None
    text: str

    def __str__(self) -> str:
        return f"{self.code} {self.enhanced} {self.text}" if self.enhanced else f"{self.code} {self.text}"


class SenderForm(Enum):
    """How the envelope sender is rewritten: so that it comes back, so that it ends here, or the null sender as it is."""

    REVERSIBLE = "reversible"
    ONE_WAY = "one-way"
    NULL = "null"


class FromRewrite(Enum):
    """When does From become an address of ours? ``IF_REFUSED``: for a next hop that refuses the message for its authentication,
    in the same attempt. ``IF_KNOWN``: likewise, and at once for one that has refused such mail before."""

    NEVER = "never"
    IF_REFUSED = "if-refused"
    IF_KNOWN = "if-known"
    AT_ONCE = "at-once"


@value
class Forward:
    """Send on: ``alias`` is the address the mail was for, ``targets`` where it goes, ``srs_domain`` whose sender it gets.
    ``from_reason`` is why From is rewritten when it is."""

    alias: Address
    targets: tuple[Address, ...]
    srs_domain: str
    sender_form: SenderForm
    reason: str
    from_rewrite: FromRewrite = FromRewrite.NEVER
    from_reason: str = ""


@value
class ReturnBounce:
    """A report for a reversible address: ``sender`` is the original sender it goes to, ``reversible`` the address it
    came to, ``alias`` and ``destination`` the forward it is about (``None``: the state does not know). ``orcpt`` and ``envid``
    are the sender's own; ``matched`` is what the report and that forward have in common (``bounce.Evidence``)."""

    reversible: Address
    sender: Address
    alias: Address | None
    destination: Address | None
    reason: str
    orcpt: str | None = None
    envid: str | None = None
    matched: tuple[str, ...] = ()
    #: The message's id of ours.
    about: str | None = None


@value
class Finding:
    """What the owner of an alias reads of one destination that a message did not reach, or that answered. Text as it came, of
    any length: ``said`` is the reply. ``kind`` and ``status`` are ours."""

    at: datetime
    alias: str
    sender: str
    destination: str
    kind: str
    status: str
    said: str


@value
class Keep:
    """Put into a local mailbox file (postmaster and abuse without an ``[admin] address``)."""

    alias: Address
    mailbox: str
    reason: str


@value
class Refuse:
    """Say no in session. ``forged``: an address that looks like one of ours and is none. Who tries many is guessing."""

    reply: Reply
    reason: str
    forged: bool = False


@value
class Discard:
    """Take and end it here, on record (a bounce to a one-way address)."""

    reason: str


Route = Forward | ReturnBounce | Keep | Refuse | Discard


@value
class Notice:
    """What a next hop is asked for one recipient (RFC 3461 section 4.1, 4.2), in the form of a command; ``None``: nothing."""

    notify: str | None = None
    orcpt: str | None = None


@value
class SecondForm:
    """What a message may become where it is refused for its authentication: one from ``alias``, by an address under ``domain``.
    ``author_domain`` is whose policy it is, ``header_at`` where the sender's own header begins in ``Delivery.data[0]``.
    ``ask``: who refused such mail before is given the second form first."""

    alias: Address
    domain: str
    author_domain: str
    header_at: int
    ask: bool


@value
class Delivery:
    """One message for one next hop. ``recipients`` share the domain ``next_hop``; ``data`` are the chunks whose
    concatenation is the message (the body is one chunk, never copied). ``expires_at`` is when giving up is due.
    ``notices`` are in the order of ``recipients``, or empty where nothing is asked; with ``envid`` and ``ret`` they go to a
    next hop that offers DSN. ``second``: it may be tried in another form."""

    id: str
    sender: Address | None
    recipients: tuple[Address, ...]
    next_hop: str
    data: tuple[bytes, ...]
    expires_at: datetime
    smtputf8: bool = False
    body: BodyKind = BodyKind.EIGHT_BIT_MIME
    attempts: int = 0
    tls: TlsWish = TlsWish.NONE
    notices: tuple[Notice, ...] = ()
    envid: str | None = None
    ret: str | None = None
    second: SecondForm | None = None


# --- what became of it -------------------------------------------------------------------------------------------------


@value
class Delivered:
    """The next hop has it. ``peer`` is the host (``mx.example[192.0.2.1]:25``), ``reply`` what it said. ``dsn``: it offers DSN
    and was asked, so what there is to report is its to report (RFC 3461 section 5.2.1)."""

    peer: str
    reply: Reply
    dsn: bool = False


@value
class Deferred:
    """Not now: 4xx, unreachable, time out. ``peer`` and ``reply`` are ``None`` when nobody answered. ``maybe_delivered``: the
    final dot was sent and not answered, so that nobody knows (RFC 1047)."""

    reason: str
    peer: str | None = None
    reply: Reply | None = None
    maybe_delivered: bool = False


@value
class Failed:
    """Never: a 5xx of the next hop, or no way there (null MX, no such domain); ``reply`` always says which."""

    reason: str
    reply: Reply
    peer: str | None = None


RecipientOutcome = Delivered | Deferred | Failed


@value
class Queued:
    """Not delivered yet, and ours to deliver: it is durable. ``reason`` is why it did not go at once."""

    reason: str


@value
class Outcome:
    """What became of a Delivery, recipient by recipient, in the Delivery's order."""

    results: tuple[tuple[Address, RecipientOutcome], ...]


# --- how next hops were connected to -----------------------------------------------------------------------------------


class TlsResult(StrEnum):
    """How TLS with a mail host went: RFC 8460 section 4.3."""

    SUCCESS = "success"
    NOT_SUPPORTED = "starttls-not-supported"
    HOST_MISMATCH = "certificate-host-mismatch"
    EXPIRED = "certificate-expired"
    NOT_TRUSTED = "certificate-not-trusted"
    FAILURE = "validation-failure"
    POLICY_FETCH = "sts-policy-fetch-error"
    POLICY_INVALID = "sts-policy-invalid"
    POLICY_CERTIFICATE = "sts-webpki-invalid"


@value
class TlsSession:
    """One kind of connection to the mail hosts of ``domain``, to be counted. ``kind`` (``tlsa``, ``sts`` or ``no-policy-found``),
    ``policy`` and ``patterns`` are policy-type, policy-string and mx-host of RFC 8460 section 4.2. ``host``, ``address`` and
    ``reason`` are empty where all went well."""

    domain: str
    kind: str
    policy: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    result: TlsResult = TlsResult.SUCCESS
    host: str = ""
    address: str = ""
    reason: str = ""
