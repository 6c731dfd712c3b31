"""Which doors lead outside? Protocols for everything the core may ask of the world; adapters stand behind them.

The core awaits these and nothing else: no socket, clock, store or random number enters by another way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import Enum, StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from forwarder.model import (
    Address,
    Caller,
    ContentCheck,
    Delivery,
    Envelope,
    Finding,
    HeloCheck,
    Message,
    Outcome,
    Peer,
    TlsSession,
)

T = TypeVar("T")

# --- DNS ---------------------------------------------------------------------------------------------------------------


class DnsStatus(Enum):
    """How a look-up ended. ``TEMPERROR`` covers SERVFAIL, REFUSED, time-outs and lies: it is never "no record"."""

    OK = "ok"
    NODATA = "nodata"
    NXDOMAIN = "nxdomain"
    TEMPERROR = "temperror"


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """One DNS answer. ``records`` is empty unless ``status`` is OK. ``ttl`` in seconds. ``authentic`` is the AD bit of a
    resolver that is trusted to set it. ``age`` is how many seconds it has lain in the cache. ``detail`` explains a
    TEMPERROR in words. ``canonical`` is the name at the end of a CNAME chain, ``""`` where there was none."""

    status: DnsStatus
    records: tuple[T, ...] = ()
    ttl: int = 0
    authentic: bool = False
    age: int = 0
    detail: str = ""
    canonical: str = ""


@dataclass(frozen=True, slots=True)
class Tlsa:
    """RFC 6698 section 2.1: which certificates a server may have. The numbers are not judged yet."""

    usage: int
    selector: int
    matching: int
    data: bytes


class Resolver(Protocol):
    """DNS. Names are presentation format, any case, final dot optional, U-labels or A-labels. A name that is no legal DNS
    name answers NXDOMAIN without a query. No method raises for what the network or the name does."""

    async def txt(self, name: str, *, fresh: bool = False) -> Answer[bytes]:
        """TXT records, the character-strings of each joined (RFC 7208 section 3.3). ``fresh`` goes past the cache."""

    async def a(self, name: str) -> Answer[IPv4Address]:
        """IPv4 addresses."""

    async def aaaa(self, name: str) -> Answer[IPv6Address]:
        """IPv6 addresses."""

    async def mx(self, name: str) -> Answer[tuple[int, str]]:
        """(preference, exchange) pairs; the exchange without its final dot, ``""`` for the root (null MX, RFC 7505)."""

    async def tlsa(self, name: str) -> Answer[Tlsa]:
        """TLSA records; the name begins with port and transport (``_25._tcp.mx.example.org``)."""

    async def cname(self, name: str) -> Answer[str]:
        """What this name is an alias of, without its final dot: the first step, and not the end of the chain."""

    def prefetch_txt(self, names: Iterable[str]) -> None:
        """Begin to look these TXT records up, those that are not cached, all at once and in the background: what the
        checks will ask one after the other is then on its way already."""

    async def ptr(self, ip: IPv4Address | IPv6Address) -> Answer[str]:
        """Host names of an address, without their final dot."""


# --- clients -----------------------------------------------------------------------------------------------------------


class Callers(Protocol):
    """What others say of a client."""

    def look_up(self, ip: IPv4Address | IPv6Address) -> Awaitable[Caller]:
        """Begin to ask, in the background; what comes can be awaited any number of times, behind ``asyncio.shield``. It has a
        time limit, and never raises."""

    def look_up_helo(self, peer: Peer) -> Awaitable[HeloCheck | None]:
        """The same about what it calls itself, as soon as it has; ``None``: that is not asked."""


class ContentFilters(Protocol):
    """Programs that know content: spam filters, virus scanners."""

    async def check(
        self, envelope: Envelope, message: Message, recipients: Sequence[Address]
    ) -> Sequence[ContentCheck]:
        """What each of them says, in the order of the configuration; all are asked at once. Each has a time limit. Never raises:
        one that cannot be asked is a check that says so."""


@dataclass(frozen=True, slots=True)
class ComeBack:
    """Seconds: that a new client waits, in which it must come back, and for which its network is known from then on."""

    delay: float = 300.0
    window: float = 86400.0
    keep: float = 3110400.0


class Greylist(Protocol):
    """Who has come back. Every method raises ``StoreAway`` when the store is away."""

    async def wait(self, network: str, sender: Address | None, aliases: Sequence[Address], rule: ComeBack) -> float:
        """One trip: seconds until mail from this network, of this sender and for all of these aliases is taken; 0: now."""


# --- mailkeys over HTTPS -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KeyText:
    """What a key host serves, not yet read. ``age`` is how many seconds it has lain in the cache."""

    text: bytes
    age: int = 0


@dataclass(frozen=True, slots=True)
class NoKeyText:
    """Why there is nothing to read; ``temporary``: later there may be, so the sender should come back."""

    reason: str
    temporary: bool


class KeyHost(Protocol):
    """Key hosts of other domains (docs/mailkey.md section 4). To be asked only where a TXT record says ``u=https``."""

    async def fetch(self, domain: str, selector: str | None, *, fresh: bool = False) -> KeyText | NoKeyText:
        """``domain`` in A-labels; ``None`` is the unnamed key. ``fresh`` goes past the cache. Never raises."""


# --- TLS policies of other domains -------------------------------------------------------------------------------------


class StsMode(Enum):
    """RFC 8461 section 3.2."""

    ENFORCE = "enforce"
    TESTING = "testing"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class StsPolicy:
    """What a domain says of its mail hosts (MTA-STS). ``id`` is that of the TXT record under which it was fetched, ``hosts`` are
    names in lower-case A-labels, ``*.`` before a name stands for one label. ``max_age``: seconds that it holds from its fetch
    on."""

    id: str
    mode: StsMode
    hosts: tuple[str, ...]
    max_age: int


class StsPolicies(Protocol):
    """MTA-STS policies of other domains."""

    async def policy(self, domain: str) -> StsPolicy | None:
        """That of a next-hop domain, which may be of mode none; ``None``: it has none that is known. Never raises, and never
        waits for a policy while another one still holds."""

    def may_have_one(self, domain: str) -> bool:
        """Was none found because it could not be looked up or fetched just now?"""


class PolicyStore(Protocol):
    """MTA-STS policies that hold longer than we run. Every method raises ``StoreAway`` when the store is away."""

    async def look_up_policy(self, domain: str) -> tuple[StsPolicy, int] | None:
        """And for how many seconds more it holds."""

    async def put_policy(self, domain: str, policy: StsPolicy) -> None:
        """For its ``max_age`` from now."""


class TlsLog(Protocol):
    """How connections to next hops went."""

    def note(self, session: TlsSession) -> None:
        """Count it. Never raises, never waits."""


class TlsCounts(Protocol):
    """Those counts, of all processes, by day (UTC). Every method raises ``StoreAway`` when the store is away."""

    async def add_sessions(self, day: date, domain: str, counts: Mapping[TlsSession, int]) -> None:
        """Beyond some number of domains a day, and of kinds of sessions for each, what is new is left out."""

    async def session_domains(self, day: date) -> Sequence[str]:
        """Domains that something was counted for."""

    async def sessions(self, day: date, domain: str) -> Mapping[TlsSession, int]:
        """What was counted."""

    async def is_reported(self, day: date, domain: str) -> bool:
        """Was ``mark_reported`` called?"""

    async def mark_reported(self, day: date, domain: str) -> None:
        """The domain has its report."""


class ReportHosts(Protocol):
    """Hosts that take reports over HTTPS."""

    async def post_report(self, host: str, path: str, packed: bytes) -> str | None:
        """``None``: it was taken; else why not. One try. Never raises."""


# --- aliases -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AliasFound:
    """``alias`` is the address as the directory spells it; ``targets`` is never empty."""

    alias: Address
    targets: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class MailboxFound:
    """postmaster or abuse, kept on this host in the mailbox of this name."""

    alias: Address
    mailbox: str


@dataclass(frozen=True, slots=True)
class NoSuchAlias:
    """Our domain, but no such (or a disabled) address: the two are not told apart outside."""


@dataclass(frozen=True, slots=True)
class NotOurDomain:
    """A domain that we do not serve."""


DirectoryAnswer = AliasFound | MailboxFound | NoSuchAlias | NotOurDomain


class Directory(Protocol):
    """Which addresses do we serve?"""

    async def look_up(self, address: Address) -> DirectoryAnswer:
        """Never raises for an unknown address; raises ``StoreAway`` if the answer cannot be had now."""

    def is_ours(self, domain: str) -> bool:
        """True for a domain that we accept mail for."""

    def srs_domain(self, domain: str) -> str:
        """The domain under which reversible addresses for mail to ``domain`` are minted."""

    def is_srs_domain(self, domain: str) -> bool:
        """True for a domain under which we mint reversible addresses."""


# --- state -------------------------------------------------------------------------------------------------------------


class StoreAway(Exception):
    """The store did not answer in time or refused: the caller says 451, or goes on without where nothing rests on it."""


class StoreUntouched(StoreAway):
    """And nothing was done: it is known to be away and was not asked, or it said no before it began."""


class Claim(Enum):
    """What the ledger knows of a fingerprint: never seen (now claimed for us), under way elsewhere, or done."""

    FRESH = "fresh"
    BUSY = "busy"
    DELIVERED = "delivered"


@dataclass(frozen=True, slots=True)
class Forwarded:
    """One message that we delivered to one destination: what a bounce is matched against, and a complaint. ``notify``, ``orcpt``
    and ``envid`` are what its sender said of reports (RFC 3461), as it came. ``client`` is the IP address that it came from.
    ``verified``: a check vouched for ``sender``; if not, the reversible address is one-way."""

    reversible: Address
    sender: Address
    alias: Address
    destination: Address
    message_id: str | None
    envelope_id: str
    at: datetime
    notify: str | None = None
    orcpt: str | None = None
    envid: str | None = None
    client: str | None = None
    verified: bool = True


class RateKind(StrEnum):
    """What mail is counted by: the network of the client, the envelope sender's domain (that a check vouched for, or that was
    only claimed), an alias of ours, a destination, the domain that it leaves under, the message itself."""

    NETWORK = "network"
    DOMAIN = "domain"
    CLAIMED = "claimed"
    ALIAS = "alias"
    DESTINATION = "destination"
    SRS_DOMAIN = "srs_domain"
    REPLAY = "replay"


@dataclass(frozen=True, slots=True)
class Charge:
    """What a message takes from one rate, in seconds. What was taken comes back with time, a second each second, and no more than
    ``most`` may be out at once; ``takes`` is never more. ``least`` is what the smallest message takes."""

    kind: RateKind
    subject: Address | str
    takes: float
    most: float
    least: float


class RateOver(Exception):
    """There is too much of it now. Nothing was claimed and nothing taken; in ``wait`` seconds this message would pass."""

    def __init__(self, charge: Charge, wait: float) -> None:
        super().__init__(f"{charge.kind} {charge.subject}: {wait:.0f} s")
        self.charge = charge
        self.wait = wait


#: What a report can be about before it is on record: a reversible address and a Message-ID.
Begun = tuple[Address, str | None]


class Ledger(Protocol):
    """What was delivered, and what it was. Every method raises ``StoreAway`` when the store is away."""

    async def claim(
        self,
        fingerprints: Sequence[bytes],
        attempt: str,
        charges: Sequence[Charge] = (),
        begun: Sequence[Begun] = (),
    ) -> Sequence[Claim]:
        """One trip: claim each 32-octet fingerprint for ``attempt`` (a unique id), or say who has it. Where one of them becomes
        ours that was not, ``charges`` are taken too, all of them; or RateOver is raised. The same attempt is charged once.
        ``begun``: what ``is_begun`` tells other hosts for as long as the lease, if one of them is ours."""

    async def is_begun(self, one: Begun) -> bool:
        """Has anybody such a message under way, or had within the last lease? No is no answer where the store is our own host's
        alone, whose workers have a shorter way to know."""

    async def settle(
        self, attempt: str, delivered: Sequence[bytes], released: Sequence[bytes], forwards: Sequence[Forwarded]
    ) -> None:
        """One trip: mark ``delivered`` for 48 h, give ``released`` back if still ours, remember ``forwards``."""

    async def put_token(self, token: str, sender: Address) -> None:
        """Keep what an opaque reversible address stands for; idempotent. Durable when it returns."""

    async def look_up_token(self, token: str) -> Address | None:
        """The sender behind an opaque token; ``None``: unknown or expired."""

    async def find_forward(
        self, reversible: Address, message_id: str | None, destinations: Sequence[Address]
    ) -> Forwarded | None:
        """The forward a report is about: by (reversible address, Message-ID) and the destination, else by (reversible
        address, destination), else by Message-ID and the alias, else by Message-ID alone where only one destination had it."""

    async def remembers_since(self) -> date:
        """The day (UTC) on which the store began to remember, as it was new or had been wiped. What was forwarded on it or
        before may be unknown to it."""

    async def spend_bounce(self, reversible: Address, message_id: str | None) -> bool:
        """Count one report against the budget of its message and of its reversible address; False: used up."""

    async def refund_bounce(self, reversible: Address, message_id: str | None) -> None:
        """Give back what ``spend_bounce`` took: the report could not be passed on now and will come again."""

    async def note_secret(self, name: bytes, day: date) -> None:
        """A report came to an address that the SRS secret of this name (``srs.secret_name``) made: remember the day. At most
        one trip a day for each secret and process."""

    async def count_recipients(
        self, signature: bytes, recipients: Sequence[Address], *, most: int, seconds: int
    ) -> bool:
        """One trip: add these to the recipients that a signature (32 octets) was seen for; who was counted before is not
        counted again. False, and none is added, where there would be more than ``most``. Forgotten ``seconds`` after the
        last that was added."""

    async def take_note(self, domain: str) -> bool:
        """True once in a day for each domain: the note for it may go out now."""


class Digests(Protocol):
    """What owners of aliases read once a day, by day (UTC). Every method raises ``StoreAway`` when the store is away."""

    async def add_finding(self, day: date, owner: Address, id: str, finding: Finding) -> None:  # noqa: A002 - of the finding
        """The same ``id`` again is the same. Beyond some number it is counted only."""

    async def owners(self, day: date) -> Sequence[Address]:
        """Who has something to read of this day and has not had it."""

    async def findings(self, day: date, owner: Address) -> tuple[Sequence[Finding], int]:
        """What there is, and how many there were."""

    async def mark_read(self, day: date, owner: Address) -> None:
        """The owner has its digest."""


# --- how somebody stands -----------------------------------------------------------------------------------------------


class SubjectKind(StrEnum):
    """Of whom something is remembered: a sender's domain that a check vouched for, the network of a client that nothing vouched
    for, an alias of ours, a destination behind one, a provider (the domain of mail hosts) that says what it thinks of us."""

    DOMAIN = "domain"
    NETWORK = "network"
    ALIAS = "alias"
    DESTINATION = "destination"
    PROVIDER = "provider"


@dataclass(frozen=True, slots=True, order=True)
class Subject:
    """``name`` in lower case: a domain in A-labels, a network with its prefix, an address."""

    kind: SubjectKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


class Measure(StrEnum):
    """What is done about a subject. ``slow`` to ``refuse``: with mail from a sender; ``pause`` and ``disable``: with mail to a
    destination."""

    SLOW = "slow"
    ONE_WAY = "one-way"
    REFUSE = "refuse"
    PAUSE = "pause"
    DISABLE = "disable"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One thing that was held against a subject: what it was, how much it counted, who or what it came by, which message."""

    at: datetime
    what: str
    weight: float
    source: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """``score`` and ``mail`` (messages since the first evidence) are those of ``at``; they fade by half in each ``half_life``
    seconds. ``evidence`` holds the latest, oldest first. ``measure`` is one that was set (``by_hand`` by the operator), at
    ``since``, until ``until`` (``None``: for good); of a pause, that is when the destination is probed next. At ``over_at``
    nothing of it counts any more."""

    subject: Subject
    score: float
    at: datetime
    half_life: float
    over_at: datetime
    mail: float = 0
    evidence: tuple[Evidence, ...] = ()
    measure: Measure | None = None
    until: datetime | None = None
    by_hand: bool = False
    since: datetime | None = None


class Standings(Protocol):
    """How subjects stand. The answers are those of a table in memory, some seconds old; only a change asks the store."""

    def __len__(self) -> int:
        """Of how many something is remembered."""

    def look_up(self, subject: Subject) -> Standing | None:
        """``None``: nothing is held against it."""

    def count_mail(self, subject: Subject) -> None:
        """A message of a subject that has a standing: counted soon. Never waits."""

    def take_turn(self, subject: Subject, every: float) -> bool:
        """True at most once in ``every`` seconds for each subject, of this process."""

    async def change(
        self, subject: Subject, change: Callable[[Standing | None], Standing | None]
    ) -> tuple[Standing | None, Standing | None]:
        """Put what ``change`` makes of the standing in its place, in one step; it may be asked several times. ``None``: nothing
        is remembered any more. The standing before and after. Raises StoreAway."""


class Refusals(Protocol):
    """Which providers refuse whose mail for its authentication. Both raise ``StoreAway`` when the store is away."""

    async def was_refused(self, author_domain: str, provider: str) -> bool:
        """Did ``note_refusal`` tell of these two in the last weeks?"""

    async def note_refusal(self, author_domain: str, provider: str) -> None:
        """This provider refused mail from this domain as it was, and took it with another From."""


# --- mail that has to wait ---------------------------------------------------------------------------------------------


class QueueFull(Exception):
    """This cannot be held: its body is too large, or the queue is at its high-water mark. The sender hears 4xx and keeps it."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One recipient that a held Delivery still has to reach, in the place of its Delivery's recipient. ``alias`` is the
    address the mail was for, ``fingerprint`` its mark in the ledger (``b""``: none, a report of ours), ``forwarded`` what a
    bounce will be matched against once it is delivered."""

    alias: Address
    fingerprint: bytes
    forwarded: Forwarded | None


@dataclass(frozen=True, slots=True)
class Held:
    """A Delivery in the queue. ``id`` is unique and the same each time the same thing is put: putting twice does no harm.

    ``delivery.attempts`` counts those that ended without a result. ``envelope`` is that of the message as it came (for a
    report: of the transaction that caused it); ``report_to`` is the verified sender that hears of a failure, ``None``: nobody
    does, and a failure ends in a dead letter. ``header_at`` is where the sender's own header begins in ``delivery.data[0]``.
    ``maybe_dup``: an earlier final dot was never answered, so that a further attempt may make a second copy. ``delay_told``:
    its sender knows that the message waits.
    """

    id: str
    delivery: Delivery
    waiting: tuple[Waiting, ...]
    envelope: Envelope
    report_to: Address | None
    srs_domain: str
    header_at: int
    queued_at: datetime
    maybe_dup: bool = False
    delay_told: bool = False


@dataclass(frozen=True, slots=True)
class Claimed:
    """``held`` is ours until the lease ends. ``dots``: under how many leases since it was settled last a final dot was on its
    way, and the lease ended without a word (a crash). ``given_up``: the operator wants it tried no more, and its sender told."""

    held: Held
    dots: int
    given_up: bool = False


@dataclass(frozen=True, slots=True)
class QueueSize:
    """How much is in the queue: deliveries that wait and those under lease, octets of them all, seconds since the oldest was put,
    dead letters."""

    waiting: int
    under_way: int
    octets: int
    oldest: float
    dead: int


class Queue(Protocol):
    """Durable mail (docs/decisions/0011). Every method raises ``StoreAway`` when the store is away; times that matter are the
    store's own clock."""

    def is_paced(self, next_hop: str) -> bool:
        """True: it gets only so many messages a minute, and only the queue counts them."""

    async def put(
        self,
        held: Sequence[Held],
        *,
        lease: str | None = None,
        seconds: float = 0,
        delay: float = 0,
        dead: str | None = None,
    ) -> None:
        """All of them or none, durable when it returns; the fingerprints become delivered marks in the same step, so that a
        retry of the sender's makes no second copy. With ``lease`` they belong to that attempt, which is under way, for
        ``seconds``; without one they are due in ``delay`` seconds. With ``dead``, a reason, they are dead letters from the first
        moment on. Raises ``QueueFull``."""

    async def claim(self, lease: str, *, seconds: float, limit: int, per_destination: int) -> Sequence[Claimed]:
        """Up to ``limit`` due ones for this lease, destinations taken in turn, never more than ``per_destination`` of one next
        hop under lease at a time, nor more a minute than it may have. Leases that ran out are taken back first. The same
        ``lease`` again is given the same: its answer was lost."""

    async def next_due(self) -> float | None:
        """Seconds until something can be claimed (0: now); ``None``: the queue is empty or all of it is under lease."""

    async def renew(self, ids: Sequence[str], lease: str, seconds: float, begun: Sequence[Begun] = ()) -> None:
        """The attempts that hold ``lease`` go on: those of ``ids`` that it still has keep it for ``seconds`` from now. ``begun``:
        as of ``Ledger.claim``."""

    async def mark_dot(self, id: str, lease: str, begun: Sequence[Begun] = ()) -> bool:  # noqa: A002 - what Held calls it
        """The final dot is about to leave: durable when it returns. False: the lease is not ours any more, do not send.
        ``begun``: as of ``Ledger.claim``."""

    async def settle(
        self,
        held: Held,
        lease: str,
        *,
        left: Held | None,
        delay: float,
        reports: Sequence[Held] = (),
        dead: Sequence[tuple[Held, str]] = (),
        forwards: Sequence[Forwarded] = (),
    ) -> bool:
        """One step: remember ``forwards`` like ``Ledger.settle``, replace ``held`` by ``left`` (``None``: it is done), due in
        ``delay`` seconds, put ``reports`` in, and the dead letters with their reasons, however full it is. False: the lease is
        not ours any more, and nothing was changed but what is remembered."""

    async def bury(self, held: Held, lease: str, reason: str) -> bool:
        """It becomes a dead letter that the operator sees, with ``reason``. False as for ``settle``."""

    async def back_off(self, next_hop: str, seconds: float) -> None:
        """Nothing for this next hop is due before ``seconds`` from now: it could not be reached. 0 lifts it."""


# --- out ---------------------------------------------------------------------------------------------------------------


class Relay(Protocol):
    """Hands a Delivery to its next hop."""

    async def deliver(self, delivery: Delivery, *, before_dot: Callable[[], Awaitable[None]] | None = None) -> Outcome:
        """One attempt over every MX that may be asked. Never raises for what a network or a peer does. Time-outs are the
        relay's own (RFC 5321 section 4.5.3.2). ``before_dot`` is awaited each time a next hop is ready for the message; what
        it raises passes, and the message is not sent there."""


class Mailboxes(Protocol):
    """Local mailbox files for postmaster and abuse."""

    async def append(self, mailbox: str, sender: Address | None, data: Sequence[bytes]) -> None:
        """Durable when it returns; raises ``OSError`` when it could not be written."""


# --- keys, time, log ---------------------------------------------------------------------------------------------------


class SigningKey(Protocol):
    """A private key that was loaded once. ``selector`` is ``""`` for the unnamed mailkey."""

    @property
    def domain(self) -> str: ...

    @property
    def selector(self) -> str: ...

    @property
    def algorithm(self) -> str:
        """``"rsa-sha256"`` or ``"ed25519-sha256"``."""

    def sign(self, data: bytes) -> bytes:
        """RSA: PKCS#1 v1.5 over SHA-256 of ``data``. Ed25519: over the SHA-256 digest of ``data`` (RFC 8463 section 3)."""


class Dialect(StrEnum):
    """Which program minted a reversible address before this one took its place (``srslegacy`` knows their shapes)."""

    POSTSRSD = "postsrsd"
    EXIM = "exim"
    OPENSMTPD = "opensmtpd"


@dataclass(frozen=True, slots=True)
class Legacy:
    """Its addresses under ``domain`` are honoured through the day ``until``, and no longer than ``max_age`` days after they were
    minted. ``hash_length``: letters that a MAC of the dialect postsrsd has at least."""

    dialect: Dialect
    domain: str
    secrets: tuple[bytes, ...] = field(repr=False)
    until: date
    hash_length: int = 4
    max_age: int = 21


class KeyRing(Protocol):
    """Which keys do we sign with, and which secrets mint reversible addresses?"""

    def mailkey(self, domain: str) -> SigningKey | None:
        """The key of ``domain`` or of the nearest parent of it that has one."""

    def dkim(self, domain: str) -> Sequence[SigningKey]:
        """The keys to sign with for mail whose reversible addresses are under ``domain``; RSA first."""

    def arc(self) -> SigningKey | None:
        """The sealing key; ``None``: sealing is off."""

    def srs_secrets(self) -> Sequence[bytes]:
        """The first mints, all verify. Never empty."""

    def srs_legacies(self) -> Sequence[Legacy]:
        """Reversible addresses of another program that are honoured still."""


# --- traces ------------------------------------------------------------------------------------------------------------


class TraceEvent(NamedTuple):
    """What the journal was told at ``at`` (Unix time); ``fields`` are addresses, text, numbers, ``None``, or lists of these."""

    at: float
    name: str
    fields: dict[str, Any]


#: Addresses named among many that lead to a message, about.
MAX_AMONG = 100


@dataclass(slots=True)
class Traced:
    """Part of a message's life, or all of it. ``dropped`` says how many events are missing."""

    id: str
    events: list[TraceEvent] = field(default_factory=list)
    dropped: int = 0

    def found_by(self) -> list[str]:
        """The addresses (lower case), Message-IDs and queue items that lead to it, each once; what is named among many, as the
        destinations of a list are, comes last, and of it only the first MAX_AMONG."""
        alone: dict[str, None] = {}
        among: dict[str, None] = {}
        for event in self.events:
            for name, value in event.fields.items():
                if isinstance(value, Address):
                    alone[str(value).lower()] = None
                elif isinstance(value, list | tuple) and len(among) < MAX_AMONG:
                    among |= dict.fromkeys(str(one).lower() for one in value if isinstance(one, Address))
                elif name in _FOUND_BY and value is not None:
                    alone[str(value)] = None
        return list(alone | among)


_FOUND_BY = frozenset({"message_id", "item", "about"})


class Traces(Protocol):
    """The lives of messages. Every method raises StoreAway."""

    async def append(self, lives: Sequence[Traced]) -> None:
        """These events come behind those that are kept already."""

    async def find(self, name: str) -> Sequence[str]:
        """Ids of the messages that an address (lower case), a Message-ID or a queue item leads to, the latest first."""

    async def read(self, id: str) -> Traced | None:  # noqa: A002 - what the envelope calls it
        """``None``: nothing is kept of it, or no more."""


class Clock(Protocol):
    """What time is it?"""

    def now(self) -> datetime:
        """Aware, UTC."""


class Journal(Protocol):
    """Where events go: one name and fields; the message id in every one that is about a message."""

    def event(self, name: str, /, **fields: Any) -> None:
        """Never raises, never blocks. Bytes and hostile text are escaped by the journal, secrets are not passed."""
