"""What do the settings make of each part? Files are read here, nothing is started."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path

from forwarder.app.activation import endpoint_of
from forwarder.app.content import content_policy, load_filter_passwords
from forwarder.app.errors import StartError
from forwarder.app.shares import limits_of_one
from forwarder.auth.suffix import is_public_suffix
from forwarder.bounce import Kind, Letter, Letters, Matching, Routing, Target, Way, note, standard_letters
from forwarder.bounce.letter import MAX_TEMPLATE, parse_letter
from forwarder.callers import DnsCallers
from forwarder.config import Settings
from forwarder.config.sections.bounces import Routes, SomeRoutes
from forwarder.credentials import Credentials, CredentialsError
from forwarder.directory import StaticDirectory
from forwarder.dispatch import Hold
from forwarder.dnslist import DnsList
from forwarder.edge.auth import Authenticator
from forwarder.edge.limits import Limits
from forwarder.edge.submission import Clients
from forwarder.edge.tls import make_self_signed, server_context
from forwarder.https import HttpsSettings
from forwarder.keyhost import KeyHostClient
from forwarder.keys import KeyFile, KeyFileError, Keys, LegacyFile, mailkey_record, read_private
from forwarder.keys.multibuffer import Lanes, LanesMissing, LanesUnfit, LanesUnusable, load_lanes
from forwarder.mail.address import ascii_domain
from forwarder.mail.reasons import MAX_FILE, Rules, parse_rules, standard_rules
from forwarder.model import HeloFact, Identity
from forwarder.mtasts import StsClient
from forwarder.pipeline import Settings as PipelineSettings
from forwarder.pipeline.doors import Greylisting
from forwarder.pipeline.submission import SubmissionSettings
from forwarder.ports import ComeBack, Dialect, Journal, PolicyStore, RateKind, TlsLog
from forwarder.rates import Rates
from forwarder.relay import Level, RelaySettings, TlsRules
from forwarder.resolver import DnsResolver, ZoneError, ZoneResolver, system_nameservers
from forwarder.route import Action, FromWish, Policy
from forwarder.screen import Door
from forwarder.seal import Names
from forwarder.smtp.lenient import Lenient
from forwarder.smtp.login import Login
from forwarder.standing import Patience, Scale

__all__ = [
    "Material",
    "door_of",
    "greylisting_of",
    "key_state",
    "lenient_of",
    "limits_of",
    "listening_at",
    "load_keys",
    "load_lanes_for",
    "load_letters",
    "load_login",
    "load_note",
    "load_rules",
    "make_callers",
    "make_clients",
    "make_key_host",
    "make_resolver",
    "make_resolvers",
    "make_sts",
    "make_tls",
    "make_web_tls",
    "names_of",
    "network_limits_of",
    "patience_of",
    "pipeline_settings",
    "policy_hosts",
    "policy_of",
    "published",
    "rates_of",
    "read_material",
    "relay_settings",
    "routing_of",
    "scale_of",
    "submission_settings",
    "usable_roots",
]


@dataclass(frozen=True, slots=True)
class Material:
    """All that is read for one configuration: from then on nothing can be missing, broken or unfit."""

    settings: Settings
    keys: Keys
    clients: Clients
    pipeline: PipelineSettings
    tls: ssl.SSLContext
    web_tls: ssl.SSLContext | None
    relaying: RelaySettings
    directory: StaticDirectory
    #: Of each rspamd, in the order of the settings.
    filter_passwords: Sequence[str | None] = field(default=(), repr=False)
    #: What makes several signatures at once; why nothing does here; ``None``: it is not wanted, or not installed.
    lanes: Lanes | LanesUnfit | None = None


def read_material(settings: Settings, now: datetime) -> Material:
    """May take seconds and wants no loop: on a thread while the service runs. Raises StartError."""
    try:
        keys = load_keys(settings)
        clients = make_clients(settings)
    except KeyFileError as error:
        raise StartError(str(error)) from error
    # The suffix list takes a tenth of a second to read: not while the first sender waits.
    is_public_suffix("example")
    return Material(
        settings=settings,
        keys=keys,
        clients=clients,
        pipeline=pipeline_settings(settings, load_note(settings), load_rules(settings), load_letters(settings)),
        tls=make_tls(settings, now),
        web_tls=make_web_tls(settings),
        relaying=relay_settings(settings),
        directory=StaticDirectory.from_settings(settings),
        filter_passwords=load_filter_passwords(settings),
        lanes=load_lanes_for(settings),
    )


# --- files --------------------------------------------------------------------------------------------------------------


def load_keys(settings: Settings) -> Keys:
    """Every key and secret of the configuration. Raises KeyFileError."""
    arc = settings.keys.arc
    return Keys.load(
        mailkey=[KeyFile(one.domain, one.selector, one.key) for one in settings.keys.mailkey],
        dkim=[KeyFile(one.domain, one.selector, one.key) for one in settings.keys.dkim],
        arc=KeyFile(arc.domain, arc.selector, arc.key) if arc is not None else None,
        srs_secret_file=settings.srs.secret_file,
        srs_legacies=[
            LegacyFile(
                Dialect(one.dialect),
                one.domain or settings.srs.domain,
                one.secret_file,
                one.until,
                one.hash_length,
                one.max_age,
            )
            for one in settings.srs.legacy
        ],
    )


def load_lanes_for(settings: Settings) -> Lanes | LanesUnfit | None:
    """See ``Material``. Raises StartError."""
    wanted = settings.keys.multibuffer
    if wanted == "never":
        return None
    try:
        return load_lanes()
    except LanesUnusable as error:
        if wanted == "always":
            raise StartError(f"keys.multibuffer: {error}") from error
        return None if isinstance(error, LanesMissing) else LanesUnfit(str(error))
    except LanesUnfit as unfit:
        # One configuration serves hosts of several kinds; the journal tells which is which.
        return unfit


def load_note(settings: Settings) -> str | None:
    """The text that ends reports to domains without a mailkey; ``None``: it is switched off. Raises StartError."""
    file = settings.mailkey.note_file
    if not settings.mailkey.note:
        return None
    if file is None:
        return note.DEFAULT
    try:
        with file.open("rb") as opened:
            text = opened.read(note.MAX_NOTE + 1).decode("ascii", "surrogateescape")
        note.check_template(text)
    except (OSError, ValueError) as error:
        raise StartError(f"mailkey.note_file: {file}: {getattr(error, 'strerror', None) or error}") from error
    return text


def load_rules(settings: Settings) -> Rules:
    """Why deliveries fail: the operator's rules, if there are any, before ours. Raises StartError."""
    file = settings.bounces.rules_file
    if file is None:
        return standard_rules()
    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_FILE + 1).decode()
        return parse_rules(text).before(standard_rules())
    except (OSError, ValueError) as error:
        raise StartError(f"bounces.rules_file: {file}: {getattr(error, 'strerror', None) or error}") from error


def load_letters(settings: Settings) -> Letters:
    """What owners of aliases read: the operator's templates where there are some, else ours. Raises StartError."""
    folder = settings.bounces.template_dir
    letters = dict(standard_letters())
    if folder is None:
        return letters
    if not folder.is_dir():
        raise StartError(f"bounces.template_dir: {folder}: there is no such folder")
    for one, file in ((one, folder / f"{one}.txt") for one in Letter):
        if not file.exists():
            continue
        try:
            with file.open("rb") as opened:
                letters[one] = parse_letter(one, opened.read(MAX_TEMPLATE + 1).decode())
        except (OSError, ValueError) as error:
            raise StartError(f"bounces.template_dir: {file}: {getattr(error, 'strerror', None) or error}") from error
    return letters


def load_login(settings: Settings) -> Login | None:
    """What the smarthost knows us by; ``None``: it asks for nothing. Raises StartError, which tells no secret."""
    relay = settings.relay
    file = relay.smarthost_password_file
    if file is None:
        return None
    try:
        return Login(relay.smarthost_user, read_private(file).decode().removesuffix("\n").removesuffix("\r"))
    except KeyFileError as error:
        raise StartError(f"relay.smarthost_password_file: {error}") from None
    except ValueError as error:
        # A UnicodeDecodeError holds what it could not decode.
        why = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise StartError(f"relay.smarthost_password_file: {file}: {why}") from None


def make_resolver(settings: Settings) -> DnsResolver | ZoneResolver:
    """The DNS as configured; needs a running loop. Raises StartError."""
    dns = settings.dns
    if dns.zone_file is not None:
        try:
            return ZoneResolver.from_file(dns.zone_file)
        except (OSError, ZoneError) as error:
            raise StartError(f"dns.zone_file: {error}") from error
    return _ask(settings, dns.nameservers or system_nameservers())


def make_resolvers(settings: Settings, others: Sequence[str] = ()) -> dict[str, DnsResolver | ZoneResolver]:
    """Each name server by itself, by its address: those configured, and ``others``. Raises StartError, ValueError."""
    dns = settings.dns
    if dns.zone_file is not None:
        return {str(dns.zone_file): make_resolver(settings)}
    return {one: _ask(settings, (one,)) for one in (*(dns.nameservers or system_nameservers()), *others)}


def _ask(settings: Settings, nameservers: Sequence[str]) -> DnsResolver:
    return DnsResolver(
        nameservers,
        trust_ad=settings.dns.trust_ad,
        timeout=settings.dns.timeout,
        monotonic=asyncio.get_running_loop().time,
    )


def make_key_host(settings: Settings, resolver: DnsResolver | ZoneResolver, journal: Journal) -> KeyHostClient | None:
    """Others' mailkey hosts; ``None`` where the operator wants none asked. Needs a running loop."""
    mailkey = settings.mailkey
    if not mailkey.fetch_https:
        return None
    return KeyHostClient(
        resolver,
        HttpsSettings(mailkey.fetch_port, mailkey.fetch_private, mailkey.fetch_ca_file),
        journal,
        monotonic=asyncio.get_running_loop().time,
    )


def make_callers(settings: Settings, resolver: DnsResolver | ZoneResolver, journal: Journal) -> DnsCallers | None:
    """Who is asked about clients; ``None``: nobody."""
    told = settings.callers
    if not (settings.dnsbl or told.iprev or told.helo):
        return None
    return DnsCallers(
        resolver,
        [DnsList(one.zone, one.weight, one.codes or None) for one in settings.dnsbl],
        journal,
        timeout=told.timeout,
        iprev=told.iprev,
        helo={HeloFact(fact): weight for fact, weight in told.helo_weights.items()} if told.helo else None,
        ours=frozenset(map(ascii_domain, (settings.hostname, settings.srs.domain, *settings.domains))),
        skip=[(one.network, frozenset(one.skip)) for one in settings.networks],
    )


def make_clients(settings: Settings) -> Clients:
    """Who may send through a submission port. Raises StartError, KeyFileError."""
    submission = settings.submission
    authenticator = None
    if submission.credentials is not None:
        try:
            credentials = Credentials.parse(read_private(submission.credentials))
        except CredentialsError as error:
            raise StartError(f"{submission.credentials}: {error}") from error
        authenticator = Authenticator(credentials)
    return Clients(
        {name: Identity(name, frozenset(one.owns), one.null_sender) for name, one in submission.logins.items()},
        [
            (one.network, Identity(str(one.network), frozenset(one.owns), one.null_sender, authenticated=False))
            for one in submission.networks
        ],
        authenticator,
    )


def make_tls(settings: Settings, now: datetime) -> ssl.SSLContext:
    """For STARTTLS and implicit TLS, with a certificate of our own making where none is configured. Raises StartError."""
    if settings.tls.cert is not None and settings.tls.key is not None:
        pair = (settings.tls.cert, settings.tls.key)
    else:
        pair = make_self_signed(settings.state_dir / "tls", settings.hostname, now)
    return _server_context("tls", *pair)


def make_web_tls(settings: Settings) -> ssl.SSLContext | None:
    """``None``: HTTP in the clear, behind a proxy. Raises StartError."""
    cert, key = settings.web.tls.cert, settings.web.tls.key
    return _server_context("web.tls", cert, key) if cert is not None and key is not None else None


def _server_context(setting: str, cert: Path, key: Path) -> ssl.SSLContext:
    try:
        # OpenSSL opens the file by itself, and takes one that everybody reads.
        read_private(key)
        return server_context(cert, key)
    except KeyFileError as error:
        raise StartError(f"{setting}.key: {error}") from None
    except (OSError, ssl.SSLError) as error:
        raise StartError(f"{setting}: cannot use {cert} with {key}: {error}") from error


# --- what each part is told ---------------------------------------------------------------------------------------------


def make_sts(
    settings: Settings,
    resolver: DnsResolver | ZoneResolver,
    store: PolicyStore,
    journal: Journal,
    tls_log: TlsLog | None,
) -> StsClient | None:
    """Others' MTA-STS policies; ``None`` where none is to be asked for. Needs a running loop."""
    relay = settings.relay
    if not relay.mta_sts or relay.smarthost:
        return None
    return StsClient(
        resolver,
        policy_hosts(settings),
        store,
        journal,
        monotonic=asyncio.get_running_loop().time,
        tls_log=tls_log,
    )


def policy_hosts(settings: Settings) -> HttpsSettings:
    """How hosts are asked that serve policies, and take reports."""
    relay = settings.relay
    return HttpsSettings(relay.mta_sts_port, relay.allow_private, relay.tls.ca_file)


def published(keys: Keys) -> dict[tuple[str, str], str]:
    """(domain, selector) → the record that the key host serves. The first key of a name counts, as it is the one that signs."""
    return {(one.domain, one.selector): mailkey_record(one) for one in reversed(keys.mailkeys())}


def key_state(settings: Settings) -> Path:
    """Where the service keeps when its keys were last used."""
    return settings.state_dir / "keys.json"


def names_of(settings: Settings) -> Names:
    """Who we are, to next hops and in Authentication-Results."""
    return Names(settings.hostname, settings.authserv_id or settings.hostname)


def policy_of(settings: Settings, domain: str | None = None) -> Policy:
    """What the operator wants done about each finding: overall, or for the aliases of ``domain``."""
    chosen = settings.policy.model_dump(exclude={"trusted_sealers", "help_url"})
    if domain is not None and domain in settings.domains:
        chosen |= settings.domains[domain].policy.model_dump(exclude_none=True)
    wish = FromWish(chosen.pop("from_rewrite"))
    actions = {name: Action(value) for name, value in chosen.items()}
    return Policy(**actions, from_rewrite=wish, help_url=settings.policy.help_url)


def routing_of(settings: Settings) -> Routing:
    """Who hears of failures: what an alias does not say is as for its domain, and what that does not say as for all."""
    overall = Way(_targets(settings.bounces.routes), settings.bounces.owner or settings.admin.address)
    domains, aliases = {}, {}
    for name, domain in settings.domains.items():
        way = Way({**overall.targets, **_targets(domain.bounces)}, domain.owner or overall.owner)
        if way != overall:
            domains[name] = way
        for local, alias in domain.aliases.items():
            if alias.owner is not None or _targets(alias.bounces):
                own = Way({**way.targets, **_targets(alias.bounces)}, alias.owner or way.owner)
                aliases[local.lower(), name] = own
    return Routing(overall, domains, aliases)


def _targets(routes: Routes | SomeRoutes) -> dict[Kind, Target]:
    return {Kind(name): Target(value) for name, value in routes.model_dump(exclude_none=True).items()}


def pipeline_settings(settings: Settings, text: str | None, rules: Rules, letters: Letters) -> PipelineSettings:
    """``text``: the note that ends reports (``load_note``); ``rules``: why deliveries fail (``load_rules``); ``letters``: what
    owners of aliases read (``load_letters``)."""
    return PipelineSettings(
        names=names_of(settings),
        policy=policy_of(settings),
        domain_policies={domain: policy_of(settings, domain) for domain in settings.domains},
        trusted_sealers=frozenset(settings.policy.trusted_sealers),
        lenient=lenient_of(settings),
        lifetime=timedelta(seconds=settings.queue.lifetime),
        delay_report=settings.queue.delay_report,
        hold=Hold(settings.relay.hold),
        domain_holds={domain: Hold(one.hold) for domain, one in settings.domains.items() if one.hold is not None},
        matching=Matching(settings.bounces.matching),
        routing=routing_of(settings),
        letters=letters,
        reason_rules=rules,
        complaint_addresses=frozenset(str(one).lower() for one in settings.complaints.addresses),
        reputation=scale_of(settings),
        rates=rates_of(settings),
        slow_per_hour=settings.complaints.slow_per_hour,
        greylisting=greylisting_of(settings),
        content=content_policy(settings),
        patience=patience_of(settings),
        hard_weight=settings.learning.hard,
        weights=settings.learning.weights,
        replay_recipients=settings.mailkey.replay_recipients,
        bind_recipients=settings.mailkey.bind_recipients,
        note=text,
        note_url=settings.mailkey.note_url or "docs/mailkey-for-senders.md of mailkey-forwarder",
    )


def rates_of(settings: Settings) -> Rates:
    """How much mail there may be of whom."""
    told = settings.rates
    per_hour = {kind: float(number) for kind in RateKind if (number := getattr(told, kind))}
    return Rates(per_hour, told.burst, told.size_unit, told.exempt)


def greylisting_of(settings: Settings) -> Greylisting | None:
    """Who is asked to come back; ``None``: nobody."""
    told = settings.greylist
    if not told.enabled:
        return None
    skip = [one.network for one in settings.networks if "greylist" in one.skip]
    return Greylisting(ComeBack(told.delay, told.window, told.keep), told.from_score, skip)


def scale_of(settings: Settings) -> Scale:
    """What follows from complaints."""
    told = settings.complaints
    return Scale(told.half_life, told.slow_at, told.one_way_at, told.refuse_at, told.share)


def patience_of(settings: Settings) -> Patience:
    """What follows from failures of a destination."""
    told = settings.learning
    return Patience(told.half_life, told.pause_at, told.disable_at, told.spacing, told.first_probe, told.max_probe)


def submission_settings(settings: Settings, addresses: Sequence[str]) -> SubmissionSettings:
    """``addresses``: where we listen."""
    submission, sources = settings.submission, settings.relay.source
    here = [ip for ip, _ in map(endpoint_of, addresses) if not ip.is_unspecified]
    return SubmissionSettings(
        source=next(iter([*sources, *here]), IPv4Address("127.0.0.1")),
        hide_client=submission.hide_client,
        recipients_per_hour=submission.recipients_per_hour,
    )


def relay_settings(settings: Settings) -> RelaySettings:
    """All but where we listen. Raises StartError."""
    relay = settings.relay
    return RelaySettings(
        hostname=settings.hostname,
        port=relay.port,
        smarthost=relay.smarthost,
        smarthost_implicit=relay.smarthost_tls == "implicit",
        smarthost_login=load_login(settings),
        allow_private=relay.allow_private,
        sources=relay.source,
        tls=_tls_rules(settings),
    )


def listening_at(relaying: RelaySettings, addresses: Sequence[str]) -> RelaySettings:
    """``addresses``: where we listen. Only a listener at the port that mail is relayed to can be the other end of a loop."""
    here = frozenset(ip for ip, port in map(endpoint_of, addresses) if port == relaying.port and not ip.is_unspecified)
    return replace(relaying, own_addresses=here)


def _tls_rules(settings: Settings) -> TlsRules:
    relay = settings.relay
    roots = usable_roots(settings)
    if relay.smarthost_tls is not None:
        # Everything goes there.
        return TlsRules(Level.VERIFY if relay.smarthost_tls == "implicit" else Level(relay.smarthost_tls), roots=roots)
    domains = {domain: Level(level) for domain, level in relay.tls.domains.items()}
    return TlsRules(Level(relay.tls.default), domains, roots, observe=relay.tls_reports)


def usable_roots(settings: Settings) -> str:
    """The file of those whose certificates count at next hops; ``""``: the system's. Raises StartError."""
    file = settings.relay.tls.ca_file
    if file is None:
        return ""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except (OSError, ssl.SSLError) as error:
        raise StartError(f"relay.tls.ca_file: cannot use {file}: {error}") from error
    return str(file)


_LOOPBACK = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))


def door_of(settings: Settings) -> Door:
    """Which clients are refused because of DNS lists."""
    domains = {name: one.reject_at for name, one in settings.domains.items() if one.reject_at is not None}
    return Door(settings.callers.reject_at, domains)


def lenient_of(settings: Settings) -> Lenient:
    """What real senders write that the RFCs do not allow, and is taken."""
    return Lenient(**{name.removeprefix("lenient_"): taken for name, taken in settings.smtp})


def limits_of(settings: Settings, workers: int) -> Limits:
    """How much a client, and all of them, may take of one worker."""
    return limits_of_one(_limits_of_all(settings), workers)


def _limits_of_all(settings: Settings) -> Limits:
    return Limits(**settings.limits.model_dump(exclude={"networks"}))


def network_limits_of(settings: Settings, workers: int) -> list[tuple[IPv4Network | IPv6Network, Limits]]:
    """The same for the networks that differ."""
    usual = _limits_of_all(settings)
    named = [
        (one.network, replace(usual, **one.model_dump(exclude={"network"}, exclude_none=True)))
        for one in settings.limits.networks
    ]
    # From this host everybody may come by one address: a proxy's, or a program's before us.
    near = replace(usual, sessions_per_address=usual.sessions, sessions_per_network=usual.sessions)
    each = [*named, *((network, near) for network in _LOOPBACK)]
    return [(network, limits_of_one(limits, workers)) for network, limits in each]
