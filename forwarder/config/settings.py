"""What can be configured? Every section under its name; each is read in a file of ``forwarder.config.sections``.

The names are those of the design's example and stay. A setting exists only when the program heeds it; the few that wait for a
later part are marked so in docs/config.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path as FilePath
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from forwarder.config import values
from forwarder.config.locate import Path
from forwarder.config.sections.bounces import Bounces
from forwarder.config.sections.callers import CallerNetwork, Callers, DnsBl, Greylist
from forwarder.config.sections.content import Content
from forwarder.config.sections.dns import Dns
from forwarder.config.sections.domains import Admin, Domain
from forwarder.config.sections.keys import Keys, Mailkey
from forwarder.config.sections.limits import Limits
from forwarder.config.sections.listening import Listener, Tls
from forwarder.config.sections.policy import Policy
from forwarder.config.sections.queue import Queue
from forwarder.config.sections.rates import Rates
from forwarder.config.sections.relay import Relay
from forwarder.config.sections.smtp import Smtp
from forwarder.config.sections.srs import Srs
from forwarder.config.sections.standings import Complaints, Learning
from forwarder.config.sections.submission import Submission
from forwarder.config.sections.telling import Log, Metrics, Otel, Trace
from forwarder.config.sections.web import Web
from forwarder.config.table import Table
from forwarder.config.values import DomainName, Location

__all__ = ["Settings", "fields_at"]


class Settings(Table):
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
