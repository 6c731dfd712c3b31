"""Which doors lead outside? Protocols for everything the core may ask of the world; adapters stand behind them.

The core awaits these and nothing else: no socket, clock, store or random number enters by another way.
"""

from __future__ import annotations

from forwarder.ports.aliases import AliasFound, Directory, DirectoryAnswer, MailboxFound, NoSuchAlias, NotOurDomain
from forwarder.ports.clients import Callers, ComeBack, ContentFilters, Greylist
from forwarder.ports.dns import Answer, DnsStatus, Resolver, Tlsa
from forwarder.ports.ours import Dialect, KeyRing, Legacy, SigningKey
from forwarder.ports.outward import Mailboxes, Relay
from forwarder.ports.policies import (
    KeyHost,
    KeyText,
    NoKeyText,
    PolicyStore,
    ReportHosts,
    StsMode,
    StsPolicies,
    StsPolicy,
    TlsCounts,
    TlsLog,
)
from forwarder.ports.standings import Evidence, Measure, Refusals, Standing, Standings, Subject, SubjectKind
from forwarder.ports.state import (
    Begun,
    Charge,
    Claim,
    Digests,
    Forwarded,
    Ledger,
    RateKind,
    RateOver,
    StoreAway,
    StoreUntouched,
)
from forwarder.ports.telling import MAX_AMONG, Clock, Journal, Traced, TraceEvent, Traces
from forwarder.ports.waiting import Claimed, Held, Queue, QueueFull, QueueSize, Waiting

__all__ = [
    "MAX_AMONG",
    "AliasFound",
    "Answer",
    "Begun",
    "Callers",
    "Charge",
    "Claim",
    "Claimed",
    "Clock",
    "ComeBack",
    "ContentFilters",
    "Dialect",
    "Digests",
    "Directory",
    "DirectoryAnswer",
    "DnsStatus",
    "Evidence",
    "Forwarded",
    "Greylist",
    "Held",
    "Journal",
    "KeyHost",
    "KeyRing",
    "KeyText",
    "Ledger",
    "Legacy",
    "MailboxFound",
    "Mailboxes",
    "Measure",
    "NoKeyText",
    "NoSuchAlias",
    "NotOurDomain",
    "PolicyStore",
    "Queue",
    "QueueFull",
    "QueueSize",
    "RateKind",
    "RateOver",
    "Refusals",
    "Relay",
    "ReportHosts",
    "Resolver",
    "SigningKey",
    "Standing",
    "Standings",
    "StoreAway",
    "StoreUntouched",
    "StsMode",
    "StsPolicies",
    "StsPolicy",
    "Subject",
    "SubjectKind",
    "TlsCounts",
    "TlsLog",
    "Tlsa",
    "TraceEvent",
    "Traced",
    "Traces",
    "Waiting",
]
