"""How does a Delivery get to its next hop? The Relay door: route, connect, send, and tell what became of each recipient.

One attempt asks the addresses of the route in order until every recipient has a final answer. What counts is who said no:

    no connection, time out, 421, rubbish      that host is of no use now: the next one
    greeting or HELO refused (4xx, 5xx)        likewise; 5xx is the domain's answer only when every host says so
    4xx to MAIL, RCPT, DATA or the message     not now, says this host: the next one may take it, else Deferred
    5xx to MAIL, RCPT, DATA or the message     final for the recipients it is about: Failed
    silence after the final dot                nobody knows (RFC 1047): Deferred, its reason begins with MAYBE_DELIVERED,
                                               and no other host is asked, as that could make a second copy
    a used-again connection dies before that   not the host's doing: once more on a fresh connection

A fault of ours is never Failed.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from dataclasses import replace

from forwarder.model import Deferred, Delivered, Delivery, Failed, Outcome, RecipientOutcome, Reply, TlsResult, TlsWish
from forwarder.ports import Journal, Resolver, StsPolicies, TlsLog
from forwarder.relay.attempt import OUT_OF_TIME, Attempt
from forwarder.relay.connection import BeforeDot, Connection, NoSession, open_connection
from forwarder.relay.mx import Route, Target, lookup_route, order_targets, parse_smarthost
from forwarder.relay.pool import Pool, key_of
from forwarder.relay.session import describe_session
from forwarder.relay.settings import RelaySettings
from forwarder.relay.tls import NoTls, Opportunistic, Required, Tested, TlsPolicy, Unlisted, Verified
from forwarder.smtp.client import NO_CHUNKS, Finished, SmtpClient
from forwarder.timelimit import TimeLimit

__all__ = ["SmtpRelay"]

#: Seconds for which a route is kept, at most, and how many are. The resolver's cache stands behind this one; this saves the
#: ten questions to it that a domain with five hosts needs for each message.
_MAX_ROUTE_AGE = 60
_MAX_ROUTES = 2048
#: Transactions on one connection for the recipients that the next hop called too many (RFC 5321 section 4.5.3.1.10).
_MAX_ROUNDS = 20
#: Connections for one attempt at one address: one from the pool that proves dead, one to a server that takes no chunks, and one.
_MAX_CONNECTIONS = 3
# RFC 8461 section 4.1: not final, as the next policy may name it.
_UNLISTED = NoSession("the domain's MTA-STS policy does not name this host", reached=False, tls=TlsResult.FAILURE)
# RFC 8689 section 4.2.1: final, when every host is one of these.
_UNPROTECTED = NoSession(
    "REQUIRETLS: no policy verifies the host",
    Reply(550, "5.7.10", "the message requires TLS and nothing vouches for the next hop's certificate"),
    reached=False,
)
_POLICY_MISSED = NoSession("REQUIRETLS: the domain's MTA-STS policy cannot be had now", reached=False)
_NO_LOGIN = NoSession("the login failed a moment ago")
_NO_REQUIRETLS = NoSession(
    "REQUIRETLS not offered",
    Reply(550, "5.7.30", "the message requires TLS and the next hop does not offer REQUIRETLS"),
)


class SmtpRelay:
    """The Relay of ``forwarder.ports``. Belongs to one event loop."""

    def __init__(
        self,
        resolver: Resolver,
        settings: RelaySettings,
        journal: Journal,
        rng: random.Random | None = None,
        *,
        sts: StsPolicies | None = None,
        tls_log: TlsLog | None = None,
    ) -> None:
        """``sts=None``: MTA-STS policies do not count; ``tls_log=None``: no sessions are counted. Raises
        ValueError for a host name or a smarthost that is none."""
        SmtpClient(settings.hostname)
        if settings.smarthost:
            parse_smarthost(settings.smarthost)
        elif settings.smarthost_login is not None or settings.smarthost_implicit:
            raise ValueError("a login and implicit TLS are for a smarthost")
        self._resolver = resolver
        self._settings = settings
        self._journal = journal
        self._sts = sts
        self._tls_log = tls_log
        self._rng = rng or random.Random()
        self.pool = self._pool = Pool(settings)
        #: What attempts may take in all.
        self._limit = TimeLimit[Attempt](settings.timeouts.attempt, Attempt.stop)
        self._no_login_until = 0.0
        self._routes: OrderedDict[str, tuple[float, Route]] = OrderedDict()

    async def deliver(self, delivery: Delivery, *, before_dot: BeforeDot | None = None) -> Outcome:
        """One attempt. ``before_dot`` is awaited each time a next hop is ready for the message: what must be on record before
        a second copy becomes possible. If it raises, the message is not sent and the exception passes; so does the
        cancellation of an attempt that takes too long, and then the message may have been delivered if ``before_dot`` was
        awaited."""
        attempt = Attempt(delivery, by_smarthost=bool(self._settings.smarthost))
        loop = asyncio.get_running_loop()
        began = loop.time()
        if attempt.pending:
            await self._attempt_in_time(attempt, before_dot, loop)
        outcome = attempt.outcome()
        self._tell(attempt, outcome, loop.time() - began)
        return outcome

    async def close(self) -> None:
        """Say goodbye to all idle connections. Deliveries under way are their callers' to end."""
        await self._pool.close()

    # --- one attempt

    async def _attempt_in_time(
        self, attempt: Attempt, before_dot: BeforeDot | None, loop: asyncio.AbstractEventLoop
    ) -> None:
        attempt.task = task = asyncio.current_task(loop)
        assert task is not None
        cancelled = task.cancelling()
        self._limit.begin(attempt, loop)
        try:
            await self._attempt(attempt, before_dot)
        except asyncio.CancelledError:
            # Others may have ended it in the same moment.
            if self._limit.end(attempt) or task.uncancel() > cancelled:
                raise
            attempt.out_of_time()
        finally:
            self._limit.end(attempt)

    async def _attempt(self, attempt: Attempt, before_dot: BeforeDot | None) -> None:
        route = await self._route(attempt.delivery.next_hop)
        if not isinstance(route, Route):
            attempt.settle_all(route)
            return
        if route.trouble is not None:
            attempt.not_all_known(route.trouble)
        for target, policy in self._order(route, attempt.delivery.tls)[: self._settings.max_addresses]:
            if isinstance(policy, Unlisted):
                self._count(route, target, _UNLISTED)
                attempt.no_session(target, _UNLISTED)
                continue
            if attempt.delivery.tls is TlsWish.REQUIRED and not policy.verified:
                # What would vouch for it may be there in a moment: that is no verdict.
                attempt.no_session(target, _POLICY_MISSED if route.sts_missed else _UNPROTECTED)
                continue
            await self._try(route, target, policy, attempt, before_dot)
            if not attempt.pending or attempt.sessions >= self._settings.max_sessions:
                return

    async def _route(self, domain: str) -> Route | Deferred | Failed:
        now = asyncio.get_running_loop().time()
        if (known := self._routes.get(domain)) is not None and known[0] > now:
            return known[1]
        route = await self._look_up(domain)
        if isinstance(route, Route) and route.ttl > 0:
            self._routes[domain] = (now + min(route.ttl, _MAX_ROUTE_AGE), route)
            self._routes.move_to_end(domain)
            if len(self._routes) > _MAX_ROUTES:
                self._routes.popitem(last=False)
        return route

    async def _look_up(self, domain: str) -> Route | Deferred | Failed:
        way = lookup_route(self._resolver, domain, self._settings, self._rng)
        # RFC 8461 section 2: what a domain promises is of its MX hosts.
        settings = self._settings
        if self._sts is None or settings.smarthost or domain.startswith("[") or settings.tls.excepts(domain):
            return await way
        route, sts = await asyncio.gather(way, self._sts.policy(domain))
        if not isinstance(route, Route):
            return route
        missed = sts is None and self._sts.may_have_one(domain)
        return replace(route, sts=sts, sts_missed=missed) if sts is not None or missed else route

    def _order(self, route: Route, wish: TlsWish) -> list[tuple[Target, TlsPolicy]]:
        """As the RFC has it, but what could not be reached a moment ago comes last, and of equals one with an open connection
        first (connections are closed after a while, so this keeps nobody from its share)."""
        pool, policies = self._pool, route.policies.get(wish)
        if policies is None:
            rules = self._settings.tls
            policies = route.policies[wish] = {
                one: self._as_wished(rules.policy(route.domain, one.host, one.dane, route.sts), wish, route, one)
                for host in route.hosts
                for one in host.targets
            }
        if len(policies) == 1:
            return [*policies.items()]
        targets = [(one, policies[one]) for one in order_targets(route, self._rng)]
        targets.sort(key=lambda one: (pool.is_unreachable(one[0]), one[0].preference, not pool.has_idle(key_of(*one))))
        return targets

    def _as_wished(self, policy: TlsPolicy, wish: TlsWish, route: Route, target: Target) -> TlsPolicy:
        """RFC 8689. Who requires TLS is content with an authority's certificate where the DNS vouches for the host's name
        (section 2). Who wrote "TLS-Required: No" wants the message delivered whatever a policy says, with TLS where it works
        (section 4.2.2); but what protects our login at a smarthost is nobody's to give up."""
        if wish is TlsWish.REQUIRED and route.authentic and isinstance(policy, Opportunistic | Required | Tested):
            return Verified((target.host,), self._settings.tls.roots)
        if wish is TlsWish.INDIFFERENT and policy.required and not self._settings.smarthost:
            return Opportunistic()
        return policy

    async def _try(
        self, route: Route, target: Target, policy: TlsPolicy, attempt: Attempt, before_dot: BeforeDot | None
    ) -> None:
        key = key_of(target, policy)
        try:
            connection = await self._pool.acquire(key)
        except TimeoutError:
            attempt.no_session(target, NoSession("all connections to this host are busy", reached=False))
            return
        try:
            used_again = connection is not None
            for _ in range(_MAX_CONNECTIONS):
                if connection is None:
                    connection = await self._open(route, target, policy, attempt)
                if connection is None or await _transact(connection, attempt, before_dot, used_again):
                    break
                connection, used_again = None, False
        finally:
            self._pool.release(key, connection)

    async def _open(self, route: Route, target: Target, policy: TlsPolicy, attempt: Attempt) -> Connection | None:
        if asyncio.get_running_loop().time() < self._no_login_until:
            attempt.no_session(target, _NO_LOGIN)
            return None
        opened = await open_connection(target, policy, self._settings)
        self._count(route, target, opened)
        while isinstance(opened, NoSession) and opened.tls_failed:
            self._journal.event("relay.tls", id=attempt.delivery.id, peer=target.peer, error=opened.reason)
            if policy.required or self._settings.smarthost_implicit:
                break
            # RFC 7435: no worse off than without an offer of TLS, or, where a policy is tried out, without the policy.
            policy = Opportunistic() if isinstance(policy, Tested) else NoTls()
            opened = await open_connection(target, policy, self._settings)
        if isinstance(opened, NoSession):
            if not opened.reached and not opened.ours:
                self._pool.note_unreachable(target)
            attempt.no_session(target, opened)
            event = "relay.connect"
            if opened.login_failed:
                # A queue that tries each message for itself would look like somebody who guesses.
                event = "relay.login"
                self._no_login_until = asyncio.get_running_loop().time() + self._settings.unreachable
            self._journal.event(event, id=attempt.delivery.id, peer=target.peer, error=opened.reason)
            return None
        self._journal.event("relay.connect", id=attempt.delivery.id, peer=target.peer)
        if opened.tls is not None:
            version, cipher = opened.tls.version, opened.tls.cipher
            self._journal.event("relay.tls", id=attempt.delivery.id, peer=target.peer, version=version, cipher=cipher)
        return opened

    def _count(self, route: Route, target: Target, opened: Connection | NoSession) -> None:
        """For the reports of RFC 8460: how it went under the policy that holds, whatever was tried afterwards."""
        if self._tls_log is None or self._settings.smarthost or route.domain.startswith("["):
            return
        match opened:
            case NoSession(reason=reason, tls=TlsResult() as result):
                pass
            case Connection(policy=policy, tls=tls) if not isinstance(policy, NoTls):
                result, reason = TlsResult.NOT_SUPPORTED if tls is None else TlsResult.SUCCESS, ""
            case _:
                return
        self._tls_log.note(describe_session(route.domain, target, route.sts, result, reason))

    # --- what the log gets

    def _tell(self, attempt: Attempt, outcome: Outcome, took: float) -> None:
        """One event for each kind of answer: a list's recipients are counted, not named."""
        if len(outcome.results) == 1:
            self._tell_one(attempt, outcome.results[0][1], 1, took)
            return
        kinds: dict[tuple[type, str | None, int], list[RecipientOutcome]] = {}
        for _, result in outcome.results:
            kinds.setdefault((type(result), result.peer, result.reply.code if result.reply else 0), []).append(result)
        for same in kinds.values():
            self._tell_one(attempt, same[0], len(same), took)

    def _tell_one(self, attempt: Attempt, result: RecipientOutcome, count: int, took: float) -> None:
        name, reason = "relay.sent", None
        if not isinstance(result, Delivered):
            name = "relay.deferred" if isinstance(result, Deferred) else "relay.failed"
            reason = result.reason
        reply = result.reply
        tls = attempt.tls.get(result.peer or "")
        self._journal.event(
            name,
            id=attempt.delivery.id,
            peer=result.peer,
            code=reply.code if reply else None,
            enhanced=reply.enhanced if reply else None,
            text=reply.text[:200] if reply else None,
            tls=tls.version if tls else None,
            recipients=count,
            took=round(took, 4),
            reason=reason,
        )


async def _transact(
    connection: Connection, attempt: Attempt, before_dot: BeforeDot | None, used_again: bool = False
) -> bool:
    """Offer the message to this host. False: the connection is dead, and a fresh one may do better: it was closed by the peer
    while it lay idle, which shows only now, if ``used_again``; or the peer cannot take chunks, although it says so."""
    target = connection.target
    if attempt.delivery.tls is TlsWish.REQUIRED and not connection.extensions.requiretls:
        # RFC 8689 section 4.2.1: the next host may do better.
        attempt.no_session(target, _NO_REQUIRETLS)
        return True
    attempt.settle_misfits(connection.extensions)
    asked = list(attempt.pending)
    for number in range(_MAX_ROUNDS):
        if not asked:
            break
        mail = attempt.mail(asked, connection.extensions)
        may_be_dead = used_again and number == 0
        try:
            ended = await connection.send(mail, attempt.delivery.data, before_dot, may_be_dead=may_be_dead)
        except asyncio.CancelledError:
            if (broken := connection.cut(OUT_OF_TIME)) is not None:
                attempt.broken(target, asked, broken)
            raise
        if isinstance(ended, Finished):
            asked = attempt.finished(target, asked, ended)
        elif ended.reason == NO_CHUNKS or (used_again and not ended.dot_sent):
            if ended.reason == NO_CHUNKS:
                attempt.avoid_chunks()
            attempt.answered(target, asked, ended.answers)
            return not attempt.pending
        else:
            attempt.broken(target, asked, ended)
            break
    attempt.sessions += 1
    attempt.tls[target.peer] = connection.tls
    return True
