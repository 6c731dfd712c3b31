"""What does an operator decide about relaying? Names follow ``[relay]`` in the configuration; all times are seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from forwarder.relay.rules import TlsRules
from forwarder.smtp.login import Login

__all__ = ["RelaySettings", "Timeouts"]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """RFC 5321 section 4.5.3.2: how long the next hop may take for each answer. Too short makes second copies, so these are
    the RFC's minimums, and whoever has less time cancels the attempt instead.

    ``connect`` and ``tls`` have no number in the RFC: an address that does not answer a SYN within half a minute will not.
    ``reused`` is for the first answer on a connection that lay idle: then a fresh one is tried, with all the time above, well
    before a sender has waited for ``relay.in_session``.
    ``block`` is for 256 KiB of the message to leave, ``dot`` for the verdict on it, ``quit`` for the answer to QUIT, which
    nobody waits for, and ``slot`` for a connection when all that may be open to this host are busy. ``attempt`` is for all hosts
    together, less than the callers' own limit (dispatch.ATTEMPT): who is cut off knows nothing of who has the message already.
    """

    connect: float = 30
    tls: float = 60
    greeting: float = 300
    ehlo: float = 300
    mail: float = 300
    rcpt: float = 300
    data: float = 120
    block: float = 180
    dot: float = 600
    quit: float = 5
    slot: float = 60
    reused: float = 8
    attempt: float = 830


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """``hostname`` is what we call ourselves. ``smarthost`` is ``host:port``, or ``""`` for the MX of each domain;
    ``smarthost_login`` is what it knows us by, and ``smarthost_implicit`` that TLS begins before its greeting (RFC 8314).

    ``own_hosts`` and ``own_addresses`` are what an MX record may call us, besides ``hostname``: the names, and the addresses
    on which we listen at ``port``. ``sources`` are the addresses to connect from; the first of a family is taken, and without
    one the system chooses.
    """

    hostname: str
    port: int = 25
    smarthost: str = ""
    smarthost_implicit: bool = False
    smarthost_login: Login | None = None
    allow_private: bool = False
    own_hosts: frozenset[str] = frozenset()
    own_addresses: frozenset[IPv4Address | IPv6Address] = frozenset()
    sources: tuple[IPv4Address | IPv6Address, ...] = ()
    tls: TlsRules = field(default_factory=TlsRules)
    timeouts: Timeouts = field(default_factory=Timeouts)

    #: MX hosts looked up for one delivery, and addresses tried. RFC 5321 section 5.1: at least two, and a limit is allowed.
    max_hosts: int = 5
    max_addresses: int = 8
    #: Hosts that may answer MAIL with "not now" before the attempt is over: a greylisting farm is not walked through.
    max_sessions: int = 3
    #: Open connections to one address, beyond which deliveries wait in turn.
    connections: int = 20
    #: Connections kept for the next message: how many in all, for how long, up to which age and how many messages.
    idle_connections: int = 200
    idle: float = 30
    connection_age: float = 300
    connection_messages: int = 100
    #: How long an address that could not be reached is asked last, and a smarthost that did not let us in not at all.
    unreachable: float = 60
