"""How much may one client, and all of them, take? Limits of RFC 5321 section 4.5.3 and of self-defence."""

from __future__ import annotations

import resource
from dataclasses import dataclass

__all__ = ["Limits", "uses_others_files"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Octets, counts and seconds. Over a limit is 421 or 452, never a stall."""

    message_size: int = 36_700_160
    #: Octets of the header. RFC 5322 sets no limit; Postfix takes 100 KiB, Exim 1 MiB.
    header_size: int = 262_144
    #: 50 ARC sets are 150 fields and 100 hops another 100; real mail stays below 200.
    header_fields: int = 1000
    recipients: int = 100
    #: Sessions of this process; of them those of one IPv4 address or IPv6 /64, and of one IPv4 /24 or IPv6 /48.
    sessions: int = 4000
    sessions_per_address: int = 50
    sessions_per_network: int = 500
    #: Octets of unfinished and undelivered messages, over all sessions.
    in_flight: int = 100_663_296
    #: Messages of one alias that are worked on while there is mail for others; 0: any number.
    alias_at_once: int = 4
    #: Errors (unknown commands, bad syntax, wrong order) before a session is ended.
    errors: int = 10
    #: Recipients that do not exist, before a session is ended: address harvesting.
    unknown_recipients: int = 10
    #: Recipients that do not exist, from one network within an hour, before it hears 421 to any recipient.
    unknown_per_hour: int = 100
    #: Reversible addresses that did not verify, from one network within an hour, before it hears 421 to any more of them.
    forged_reversible: int = 10
    #: Commands between two transactions that do nothing (NOOP, RSET, VRFY, EHLO again).
    junk_commands: int = 100
    #: RFC 5321 section 4.5.3.2.7: a server waits at least 5 minutes for the next command.
    command_timeout: float = 300.0
    #: Seconds for one whole message to arrive.
    data_timeout: float = 1800.0
    #: Octets a second that a message must bring, after the first ``data_grace`` seconds of it; 0: any.
    min_data_rate: float = 500.0
    data_grace: float = 60.0
    #: Seconds in which a client that speaks before our greeting is caught; 0: only one that has spoken when we look.
    greet_delay: float = 0.0
    #: Seconds a session may last in all.
    session_timeout: float = 7200.0
    #: Seconds for a TLS handshake.
    handshake_timeout: float = 15.0
    #: TLS handshakes under way, of which one address has an eighth.
    handshakes: int = 200


def uses_others_files(descriptor: int) -> bool:
    """Has this connection come so late that those before it may lack a file for their next hop? The kernel gives out the
    lowest number that is free, so a number tells how many files are open: connections to us may have half of them."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most != resource.RLIM_INFINITY and descriptor >= most // 2
