"""What can be configured? Every setting with its default and the values it takes; docs/config.md explains them.

The names are those of the design's example and stay. A setting exists only when the program heeds it; the few that wait for a
later part are marked so in docs/config.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from ipaddress import IPv4Address, ip_address
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, IPvAnyAddress, model_validator

from forwarder.config import values
from forwarder.config.content import Content
from forwarder.config.locate import Path
from forwarder.config.table import Table as _Table
from forwarder.config.values import (
    AliasName,
    Count,
    DomainName,
    DomainOrBelow,
    Endpoint,
    Location,
    LoginName,
    Mailbox,
    Nameserver,
    NeededSelector,
    Network,
    Owner,
    Port,
    Score,
    Seconds,
    Selector,
    Weight,
)
from forwarder.mail.reasons import Reason
from forwarder.pipeline.doors import DEFAULT_WEIGHTS

__all__ = ["Settings", "fields_at"]


# --- tables ------------------------------------------------------------------------------------------------------------


class Listener(_Table):
    """One address that clients connect to."""

    address: Endpoint
    submission: bool = False
    tls: Literal["starttls", "implicit"] = "starttls"
    proxy: Annotated[tuple[Network, ...], BeforeValidator(values.split)] = ()
    xclient: Annotated[tuple[Network, ...], BeforeValidator(values.split)] = ()
    xforward: Annotated[tuple[Network, ...], BeforeValidator(values.split)] = ()

    @model_validator(mode="after")
    def _mail_servers_start_in_clear(self) -> Listener:
        if self.tls == "implicit" and not self.submission:
            raise ValueError('tls = "implicit" is for submission: other mail servers begin in clear text')
        if self.tls == "implicit" and (self.proxy or self.xclient or self.xforward):
            raise ValueError('proxy, xclient and xforward are for tls = "starttls"')
        return self


class Tls(_Table):
    """The certificate for STARTTLS; without one, a self-signed one is made."""

    cert: Annotated[Location | None, BeforeValidator(values.or_none)] = None
    key: Annotated[Location | None, BeforeValidator(values.or_none)] = None

    @model_validator(mode="after")
    def _both(self) -> Tls:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key belong together: give both or none")
        return self


class LegacySrs(_Table):
    """Reversible addresses that another program minted under ``domain`` (``None``: that of ``srs.domain``)."""

    dialect: Literal["postsrsd", "exim", "opensmtpd"]
    domain: Annotated[DomainName | None, BeforeValidator(values.or_none)] = None
    secret_file: Location
    until: date
    hash_length: Annotated[int, BeforeValidator(values.not_bool), Field(ge=4, le=27)] = 4
    max_age: Annotated[int, BeforeValidator(values.not_bool), Field(ge=1, le=366)] = 21


class Srs(_Table):
    """Reversible addresses."""

    domain: DomainName
    secret_file: Location = FilePath("keys/srs.secret")
    legacy: tuple[LegacySrs, ...] = ()


class Dns(_Table):
    """Whom we ask."""

    nameservers: Annotated[tuple[Nameserver, ...], BeforeValidator(values.split)] = ()
    timeout: Seconds = 2.5
    trust_ad: bool = False
    zone_file: Annotated[Location | None, BeforeValidator(values.or_none)] = None


class MailkeyKey(_Table):
    """A key that signs the envelope sender; the empty selector is the unnamed key."""

    domain: DomainName
    selector: Selector = ""
    key: Location


class Mailkey(_Table):
    """How mailkeys are looked up, what is signed and taken, and what reports say of them."""

    fetch_https: bool = True
    fetch_port: Port = 443
    fetch_private: bool = False
    fetch_ca_file: Annotated[Location | None, BeforeValidator(values.or_none)] = None
    # Each is 12 octets in the store for the life of a signature.
    replay_recipients: Annotated[int, BeforeValidator(values.not_bool), Field(ge=0, le=10000)] = 25
    bind_recipients: bool = True
    note: bool = True
    note_url: Annotated[str, Field(max_length=200, pattern=r"^[!-~]*$")] = ""
    note_file: Annotated[Location | None, BeforeValidator(values.or_none)] = None


class DkimKey(_Table):
    """A key for DKIM-Signature."""

    domain: DomainName
    selector: NeededSelector
    key: Location


class ArcKey(DkimKey):
    """The key for ARC; usually one of the DKIM keys."""


class Keys(_Table):
    """Private keys."""

    mailkey: tuple[MailkeyKey, ...] = ()
    dkim: tuple[DkimKey, ...] = ()
    arc: ArcKey | None = None
    require_record: bool = True
    check_every: Annotated[float, BeforeValidator(values.not_bool), Field(ge=1, le=3600)] = 300.0
    multibuffer: bool = False


Hold = Literal["auto", "never", "always"]


TlsLevel = Literal["none", "opportunistic", "require", "verify"]


class RelayTls(_Table):
    """How connections to next hops are protected."""

    default: TlsLevel = "opportunistic"
    domains: Annotated[
        dict[DomainOrBelow, TlsLevel], BeforeValidator(values.distinct_domains), AfterValidator(values.frozen)
    ] = Field(default_factory=dict)
    ca_file: Annotated[Location | None, BeforeValidator(values.or_none)] = None


class Relay(_Table):
    """How mail leaves."""

    port: Port = 25
    smarthost: Annotated[str, AfterValidator(values.smarthost)] = ""
    smarthost_tls: Annotated[TlsLevel | Literal["implicit"] | None, BeforeValidator(values.or_none)] = None
    smarthost_user: Annotated[str, Field(max_length=255)] = ""
    smarthost_password_file: Annotated[Location | None, BeforeValidator(values.or_none)] = None
    source: Annotated[tuple[IPvAnyAddress, ...], BeforeValidator(values.split)] = ()
    allow_private: bool = False
    in_session: Annotated[float, BeforeValidator(values.not_bool), Field(ge=0, le=600)] = 20.0
    hold: Hold = "auto"
    mta_sts: bool = True
    mta_sts_port: Port = 443
    tls_reports: bool = False
    tls: RelayTls = Field(default_factory=RelayTls)

    @model_validator(mode="after")
    def _login_is_safe(self) -> Relay:
        if bool(self.smarthost_user) != (self.smarthost_password_file is not None):
            raise ValueError("smarthost_user and smarthost_password_file belong together: give both or none")
        if not self.smarthost and (self.smarthost_user or self.smarthost_tls):
            raise ValueError("there is no smarthost that smarthost_user or smarthost_tls could be for")
        verified = self.smarthost_tls in ("verify", "implicit")
        if self.smarthost_user and not (verified or values.is_loopback(self.smarthost)):
            raise ValueError(
                'smarthost_user needs smarthost_tls = "verify" or "implicit": anybody could ask for it else'
            )
        return self


#: A rate beyond this is none: no machine delivers ten thousand a second.
PerMinute = Annotated[int, BeforeValidator(values.not_bool), Field(ge=0, le=600000)]


class Destination(_Table):
    """What one next hop is given; what is not said here is as for all."""

    deliveries: Count | None = None
    per_minute: PerMinute | None = None


class Queue(_Table):
    """Mail that has to wait."""

    first_retry: Seconds = 300.0
    max_retry: Seconds = 14400.0
    lifetime: Seconds = 432000.0
    delay_report: Annotated[float, BeforeValidator(values.not_bool), Field(ge=0)] = 0.0
    max_body: Count = 8388608
    high_water: Count = 1073741824
    min_free: Annotated[int, BeforeValidator(values.not_bool), Field(ge=0)] = 67108864
    deliveries: Count = 50
    per_destination: Count = 5
    per_minute: PerMinute = 0
    # Each is sent along with every claim.
    destinations: Annotated[
        dict[DomainName, Destination],
        BeforeValidator(values.distinct_domains),
        AfterValidator(values.frozen),
        Field(max_length=1000),
    ] = Field(default_factory=dict)
    lease: Annotated[float, BeforeValidator(values.not_bool), Field(ge=1, le=3600)] = 60.0

    @model_validator(mode="after")
    def _in_order(self) -> Queue:
        if self.max_retry < self.first_retry:
            raise ValueError("max_retry must not be less than first_retry")
        return self


MessageSize = Annotated[int, BeforeValidator(values.not_bool), Field(ge=65536)]
# RFC 5321 section 4.5.3.1.8: a server must take 100 recipients.
Recipients = Annotated[int, BeforeValidator(values.not_bool), Field(ge=1, le=10000)]
# Less than mail.header takes (MAX_HEADER, MAX_FIELDS): a message is read again with our own fields on it.
HeaderSize = Annotated[int, BeforeValidator(values.not_bool), Field(ge=16384, le=917504)]
HeaderFields = Annotated[int, BeforeValidator(values.not_bool), Field(ge=100, le=4900)]
Rate = Annotated[float, BeforeValidator(values.not_bool), Field(ge=0, allow_inf_nan=False)]


class NetworkLimits(_Table):
    """What differs for the clients of one network; ``None``: nothing."""

    network: Network
    message_size: MessageSize | None = None
    header_size: HeaderSize | None = None
    header_fields: HeaderFields | None = None
    recipients: Recipients | None = None
    sessions_per_address: Count | None = None
    sessions_per_network: Count | None = None
    errors: Count | None = None
    junk_commands: Count | None = None
    unknown_recipients: Count | None = None
    unknown_per_hour: Count | None = None
    command_timeout: Seconds | None = None
    data_timeout: Seconds | None = None
    session_timeout: Seconds | None = None
    min_data_rate: Rate | None = None
    data_grace: Rate | None = None
    greet_delay: Annotated[float, BeforeValidator(values.not_bool), Field(ge=0, le=30)] | None = None


class Limits(_Table):
    """How much one client, and all of them, may take."""

    message_size: MessageSize = 36700160
    header_size: HeaderSize = 262144
    header_fields: HeaderFields = 1000
    recipients: Recipients = 100
    sessions: Count = 4000
    sessions_per_address: Count = 50
    sessions_per_network: Count = 500
    in_flight: MessageSize = 100663296
    alias_at_once: Annotated[int, BeforeValidator(values.not_bool), Field(ge=0)] = 4
    errors: Count = 10
    junk_commands: Count = 100
    unknown_recipients: Count = 10
    unknown_per_hour: Count = 100
    forged_reversible: Count = 10
    command_timeout: Seconds = 300.0
    data_timeout: Seconds = 1800.0
    session_timeout: Seconds = 7200.0
    min_data_rate: Rate = 500.0
    data_grace: Rate = 60.0
    handshake_timeout: Seconds = 15.0
    handshakes: Count = 200
    greet_delay: Annotated[float, BeforeValidator(values.not_bool), Field(ge=0, le=30)] = 0.0
    networks: tuple[NetworkLimits, ...] = ()

    @model_validator(mode="after")
    def _a_message_fits(self) -> Limits:
        largest = max([self.message_size, *(one.message_size or 0 for one in self.networks)])
        if self.in_flight < largest:
            raise ValueError(
                "in_flight must not be less than message_size: no message of that size would ever be taken"
            )
        return self


class Smtp(_Table):
    """What is taken of real senders that the RFCs do not allow."""

    lenient_long_lines: bool = True
    lenient_missing_date: bool = True
    lenient_space: bool = True
    lenient_brackets: bool = False
    lenient_dots: bool = False
    lenient_helo: bool = False


RejectAt = Annotated[float, BeforeValidator(values.not_bool), Field(ge=0, le=1000)]
ListWeight = Annotated[float, BeforeValidator(values.not_bool), Field(ge=-1000, le=1000, allow_inf_nan=False)]

Action = Literal["reject", "tag", "accept", "one-way"]

FromWish = Literal["never", "auto", "always"]


class Policy(_Table):
    """What happens to mail that no check vouches for."""

    unauthenticated: Action = "tag"
    dmarc_reject: Action = "reject"
    dmarc_quarantine: Action = "tag"
    spf_fail: Action = "tag"
    temperror: Action = "reject"
    from_rewrite: FromWish = "auto"
    trusted_sealers: Annotated[tuple[DomainName, ...], BeforeValidator(values.split)] = ()
    help_url: Annotated[str, Field(max_length=200, pattern=r"^[!-~]*$")] = ""


class DomainPolicy(_Table):
    """The same for the aliases of one domain; what is not given here is as in ``[policy]``."""

    unauthenticated: Action | None = None
    dmarc_reject: Action | None = None
    dmarc_quarantine: Action | None = None
    spf_fail: Action | None = None
    temperror: Action | None = None
    from_rewrite: FromWish | None = None


RouteTo = Literal["sender", "owner", "both", "digest", "suppress"]


class Routes(_Table):
    """Who hears of what."""

    hard: RouteTo = "sender"
    soft: RouteTo = "sender"
    delayed: RouteTo = "suppress"
    auto_reply: RouteTo = "suppress"
    other: RouteTo = "sender"


class SomeRoutes(_Table):
    """The same for one domain or alias; what is not given here is as further up."""

    hard: RouteTo | None = None
    soft: RouteTo | None = None
    delayed: RouteTo | None = None
    auto_reply: RouteTo | None = None
    other: RouteTo | None = None


class DnsBl(_Table):
    """A DNS list of bad clients, or, with a weight below 0, of good ones."""

    zone: DomainName
    weight: ListWeight = 1.0
    codes: Annotated[dict[IPv4Address, ListWeight], AfterValidator(values.frozen)] = Field(default_factory=dict)


HeloWord = Literal["resolves", "elsewhere", "literal", "ours", "short", "nameless"]


class Callers(_Table):
    """What is found out about clients, and what follows."""

    reject_at: RejectAt = 1.0
    timeout: Annotated[float, BeforeValidator(values.not_bool), Field(gt=0, le=30)] = 5.0
    iprev: bool = False
    helo: bool = False
    helo_weights: Annotated[dict[HeloWord, ListWeight], AfterValidator(values.frozen)] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _somebody_asks(self) -> Callers:
        if self.helo_weights and not self.helo:
            raise ValueError("helo_weights count nothing without helo = true")
        return self


class Greylist(_Table):
    """Mail that no check vouches for comes from who comes back."""

    enabled: bool = False
    delay: Annotated[float, BeforeValidator(values.not_bool), Field(gt=0, le=3600)] = 300.0
    window: Annotated[float, BeforeValidator(values.not_bool), Field(ge=60, le=604800)] = 86400.0
    keep: Annotated[float, BeforeValidator(values.not_bool), Field(ge=60, le=31536000)] = 3110400.0
    from_score: RejectAt = 0.0

    @model_validator(mode="after")
    def _in_time(self) -> Greylist:
        if self.window <= self.delay:
            raise ValueError("window must be more than delay: nobody could come back in time")
        return self


class CallerNetwork(_Table):
    """What is not done to the clients of one network."""

    network: Network
    skip: Annotated[
        tuple[Literal["dnsbl", "greylist", "iprev", "helo", "content"], ...],
        BeforeValidator(values.split),
        Field(min_length=1),
    ]


class Bounces(_Table):
    """Reports that come back."""

    routes: Routes = Routes()
    owner: Annotated[Mailbox | None, BeforeValidator(values.or_none)] = None
    template_dir: Annotated[Location | None, BeforeValidator(values.or_none)] = None

    matching: Literal["strict", "known", "lenient"] = "known"
    per_message: Count = 10
    per_day: Count = 200
    rules_file: Annotated[Location | None, BeforeValidator(values.or_none)] = None


class Complaints(_Table):
    """What follows from complaints about mail that we forwarded."""

    addresses: Annotated[tuple[Mailbox, ...], BeforeValidator(values.split)] = ()
    half_life: Seconds = 604800
    slow_at: Score = 5
    one_way_at: Score = 10
    refuse_at: Score = 20
    share: Annotated[float, BeforeValidator(values.not_bool), Field(ge=0, le=1)] = 0.003
    slow_per_hour: Annotated[float, BeforeValidator(values.not_bool), Field(gt=0, le=3600)] = 20

    @model_validator(mode="after")
    def _in_order(self) -> Complaints:
        if not self.slow_at <= self.one_way_at <= self.refuse_at:
            raise ValueError("slow_at, one_way_at and refuse_at must not fall: each is at least the one before")
        return self


class Learning(_Table):
    """What follows from destinations that do not take their mail."""

    half_life: Seconds = 604800
    pause_at: Score = 5
    disable_at: Score = 10
    spacing: Annotated[float, BeforeValidator(values.not_bool), Field(ge=0, le=86400)] = 600
    first_probe: Seconds = 3600
    max_probe: Seconds = 86400
    hard: Weight = 1
    weights: Annotated[dict[Reason, Weight], AfterValidator(values.frozen)] = Field(
        default_factory=lambda: dict(DEFAULT_WEIGHTS), validate_default=True
    )

    @model_validator(mode="after")
    def _in_order(self) -> Learning:
        if self.disable_at < self.pause_at:
            raise ValueError("disable_at must not be less than pause_at")
        if self.max_probe < self.first_probe:
            raise ValueError("max_probe must not be less than first_probe")
        return self


# Beyond this a rate is none: no machine forwards ten thousand a second.
PerHour = Annotated[int, BeforeValidator(values.not_bool), Field(ge=0, le=36000000)]


class Rates(_Table):
    """How many messages an hour there may be of one network, sender, alias, destination; 0: any number."""

    network: PerHour = 0
    domain: PerHour = 0
    claimed: PerHour = 0
    alias: PerHour = 0
    destination: PerHour = 0
    srs_domain: PerHour = 0
    replay: PerHour = 0
    burst: Annotated[float, BeforeValidator(values.not_bool), Field(ge=1, le=86400)] = 3600.0
    size_unit: Annotated[int, BeforeValidator(values.not_bool), Field(ge=1024)] = 1048576
    exempt: Annotated[tuple[Network, ...], BeforeValidator(values.split)] = ()


class Client(_Table):
    """Somebody whose mail we sign and send."""

    owns: Annotated[tuple[Owner, ...], BeforeValidator(values.split), Field(min_length=1)]
    null_sender: bool = False


class TrustedNetwork(Client):
    """Everybody in it is this client, without a password."""

    network: Network


class Submission(_Table):
    """Mail of our own users."""

    credentials: Annotated[Location | None, BeforeValidator(values.or_none)] = None
    logins: Annotated[dict[LoginName, Client], AfterValidator(values.frozen)] = Field(default_factory=dict)
    networks: tuple[TrustedNetwork, ...] = ()
    hide_client: bool = True
    recipients_per_hour: Count = 1000


class Web(_Table):
    """What is served over HTTP: our own mailkey records. Nothing is, without ``listen``."""

    listen: Annotated[tuple[Endpoint, ...], BeforeValidator(values.split)] = ()
    tls: Tls = Tls()

    @model_validator(mode="after")
    def _clear_text_at_home(self) -> Web:
        for one in self.listen:
            if self.tls.cert is None and not ip_address(one.rpartition(":")[0].strip("[]")).is_loopback:
                raise ValueError(f"{one} needs web.tls.cert and web.tls.key; without them only loopback addresses")
        return self


class Metrics(_Table):
    """Numbers for Prometheus, and whether we are alive and ready. Nothing is served without ``listen``."""

    listen: Annotated[tuple[Endpoint, ...], BeforeValidator(values.split)] = ()
    allow: Annotated[tuple[Network, ...], BeforeValidator(values.split)] = ()
    providers: Annotated[tuple[DomainName, ...], BeforeValidator(values.split), Field(max_length=100)] = ()

    @model_validator(mode="after")
    def _for_somebody(self) -> Metrics:
        for one in self.listen:
            if not self.allow and not ip_address(one.rpartition(":")[0].strip("[]")).is_loopback:
                raise ValueError(f"{one} needs metrics.allow: the networks that may ask there")
        return self


class Admin(_Table):
    """Who gets postmaster's and abuse's mail; nobody: it is kept in a file in ``state_dir``."""

    address: Annotated[Mailbox | None, BeforeValidator(values.or_none)] = None


class Log(_Table):
    """What is told, and how."""

    format: Literal["json", "pretty"] = "json"
    full_addresses: bool = False


class Trace(_Table):
    """What is kept of the lives of messages, for `forwarder trace`."""

    keep: Annotated[float, BeforeValidator(values.not_bool), Field(ge=0, le=366)] = 7.0


class Otel(_Table):
    """Who gets traces of OpenTelemetry. Nobody, without ``endpoint``."""

    endpoint: Annotated[str, AfterValidator(values.collector)] = ""
    insecure: bool = False
    share: Annotated[float, BeforeValidator(values.not_bool), Field(gt=0, le=1)] = 1.0

    @model_validator(mode="after")
    def _clear_text_at_home(self) -> Otel:
        if not self.insecure and values.is_in_clear(self.endpoint):
            raise ValueError(
                "endpoint needs https: spans tell who writes to whom; insecure = true if nobody is in between"
            )
        return self


class Alias(_Table):
    """Where one address leads. Written short: a target, a list of targets, or ``false``."""

    targets: tuple[Mailbox, ...] = ()
    enabled: bool = True
    owner: Annotated[Mailbox | None, BeforeValidator(values.or_none)] = None
    bounces: SomeRoutes = SomeRoutes()

    @model_validator(mode="after")
    def _leads_somewhere(self) -> Alias:
        if self.enabled and not self.targets:
            raise ValueError("leads nowhere: list a target, or write false to disable it")
        return self


class Domain(_Table):
    """One domain whose mail we take."""

    aliases: Annotated[
        dict[AliasName, Annotated[Alias, BeforeValidator(values.alias)]],
        BeforeValidator(values.distinct_aliases),
        AfterValidator(values.frozen),
    ] = Field(default_factory=dict)
    srs_domain: Annotated[DomainName | None, BeforeValidator(values.or_none)] = None
    plus_addressing: bool = True
    hold: Hold | None = None
    policy: DomainPolicy = DomainPolicy()
    reject_at: RejectAt | None = None
    owner: Annotated[Mailbox | None, BeforeValidator(values.or_none)] = None
    bounces: SomeRoutes = SomeRoutes()


class Settings(_Table):
    """All of it. Made by ``forwarder.config.load``."""

    hostname: DomainName
    authserv_id: Annotated[DomainName | None, BeforeValidator(values.or_none)] = None
    listen: Annotated[
        tuple[Annotated[Listener, BeforeValidator(values.listener)], ...],
        BeforeValidator(values.split),
        Field(min_length=1),
    ] = (Listener(address="0.0.0.0:25"),)
    state_dir: Location = FilePath("state")
    # Its URL may hold a password.
    store: Annotated[str, AfterValidator(values.store)] = Field(default="embedded", repr=False)
    store_password_file: Annotated[Location | None, BeforeValidator(values.or_none)] = None
    store_insecure: bool = False
    #: ``None``: one with sentinels and clusters, none else.
    store_replicas: Annotated[int, BeforeValidator(values.not_bool), Field(ge=0, le=10)] | None = None
    #: Seconds for one answer. A command may wait for a group before it as long as that, and a session asks some of them.
    store_timeout: Annotated[float, BeforeValidator(values.not_bool), Field(ge=0.05, le=10)] = 0.25
    workers: Annotated[int, BeforeValidator(values.not_bool), Field(ge=0, le=1024)] = 1
    tls: Tls = Tls()
    srs: Srs
    dns: Dns = Dns()
    keys: Keys = Keys()
    mailkey: Mailkey = Mailkey()
    relay: Relay = Field(default_factory=Relay)
    queue: Queue = Field(default_factory=Queue)
    limits: Limits = Limits()
    smtp: Smtp = Smtp()
    policy: Policy = Policy()
    callers: Callers = Field(default_factory=Callers)
    # Each is a question for every client.
    dnsbl: Annotated[tuple[DnsBl, ...], Field(max_length=20)] = ()
    networks: tuple[CallerNetwork, ...] = ()
    greylist: Greylist = Field(default_factory=Greylist)
    content: Content = Field(default_factory=Content)
    bounces: Bounces = Bounces()
    complaints: Complaints = Complaints()
    rates: Rates = Rates()
    learning: Learning = Field(default_factory=Learning)
    submission: Submission = Field(default_factory=Submission)
    web: Web = Web()
    metrics: Metrics = Metrics()
    admin: Admin = Admin()
    log: Log = Log()
    trace: Trace = Trace()
    otel: Otel = Otel()
    domains: Annotated[
        dict[DomainName, Domain], BeforeValidator(values.distinct_domains), AfterValidator(values.frozen)
    ] = Field(default_factory=dict)

    @property
    def listen_addresses(self) -> tuple[str, ...]:
        """Where to listen, "ip:port"."""
        return tuple(one.address for one in self.listen)


def fields_at(path: Path) -> frozenset[str]:
    """The names of the settings in the table at ``path``."""
    table: Any = Settings
    for part in path:
        inner = _inside(table)
        if isinstance(inner, type) and issubclass(inner, BaseModel) and part in inner.model_fields:
            table = inner.model_fields[str(part)].annotation
        else:
            table = inner
    table = _inside(table)
    return frozenset(table.model_fields) if isinstance(table, type) and issubclass(table, BaseModel) else frozenset()


def _inside(annotation: Any) -> Any:
    """The table that an annotation speaks of: of itself, or of the elements of its list or dict."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found: Iterable[Any] = (_inside(one) for one in get_args(annotation))
    return next((one for one in found if one is not None), None)
