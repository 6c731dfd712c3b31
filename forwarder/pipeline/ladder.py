"""Does the author's own From get through, or must it become ours? A Relay in front of the relay.

    kept, ARC-sealed    for most mail: the author's signature outlives forwarding, or nobody is asked to refuse it
    refused for that    once more in the same attempt, with From rewritten; where that is taken, it is remembered
    refused before      rewritten at once: one look into the store, for mail that a next hop may be asked to refuse only

What may be tried again is said by the Route (``Delivery.second``); docs/decisions/0023. The second form is made of the first
when it is needed, so that other mail costs no signature more, and a message in the queue no octet.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from forwarder import rewrite, seal
from forwarder.auth.signed import sign_now
from forwarder.auth.suffix import registrable_domain
from forwarder.mail.header import parse_message
from forwarder.mail.reasons import Reason
from forwarder.model import Delivered, Delivery, Failed, Outcome, RecipientOutcome, SecondForm
from forwarder.pipeline.doors import Doors, Settings
from forwarder.ports import Refusals, Relay, Resolver, StoreAway

__all__ = ["Ladder", "lookup_provider"]


class Ladder:
    """The Relay of ``forwarder.ports``. ``by_smarthost``: who refuses is not told by the destination's MX."""

    def __init__(
        self, relay: Relay, refusals: Refusals, settings: Settings, doors: Doors, *, by_smarthost: bool
    ) -> None:
        self._relay = relay
        self._refusals = refusals
        self._settings = settings
        self._doors = doors
        self._by_smarthost = by_smarthost

    async def deliver(self, delivery: Delivery, *, before_dot: Callable[[], Awaitable[None]] | None = None) -> Outcome:
        """See ``ports.Relay``."""
        second = delivery.second
        if second is None:
            return await self._relay.deliver(delivery, before_dot=before_dot)
        if second.ask and await self._was_refused(delivery, second):
            rewritten = await self._rewritten(delivery, second, "refused before")
            if rewritten is not None:
                return await self._relay.deliver(rewritten, before_dot=before_dot)
        outcome = await self._relay.deliver(delivery, before_dot=before_dot)
        refused = [index for index, (_, one) in enumerate(outcome.results) if self._is_refusal(one)]
        rewritten = await self._rewritten(_pick(delivery, refused), second, "refused now") if refused else None
        if rewritten is None:
            return outcome
        again = await self._relay.deliver(rewritten, before_dot=before_dot)
        if any(isinstance(one, Delivered) for _, one in again.results):
            await self._note(delivery, second, [outcome.results[one][1].peer for one in refused])
        results = dict(enumerate(outcome.results)) | dict(zip(refused, again.results, strict=True))
        return Outcome(tuple(results.values()))

    def _is_refusal(self, one: RecipientOutcome) -> bool:
        """For good, and for nothing but who vouches for it."""
        if not isinstance(one, Failed):
            return False
        cause = self._settings.reason_rules.classify(one.reply.enhanced, str(one.reply), one.peer)
        return cause.reason is Reason.AUTHENTICATION

    async def _rewritten(self, delivery: Delivery, second: SecondForm, reason: str) -> Delivery | None:
        """The second form; ``None``: there is none, and the message is what it is."""
        keys, now, (head, body) = self._doors.keys, self._doors.clock.now(), delivery.data
        if not keys.dkim(second.domain):
            # RFC 9989 section 4.4: an address of ours that no signature of ours vouches for is no better.
            return None
        original = replace(parse_message(head[second.header_at :]), body=body)
        found = rewrite.rewrite_author(original, second.alias, second.domain, keys.srs_secrets(), now.date())
        if found is None:
            return None
        if found.token is not None:
            try:
                await self._doors.ledger.put_token(found.token, found.author)
            except StoreAway:
                # An address that nobody could answer to.
                return None
        sealed = sign_now(
            seal.seal_edited(head[: second.header_at], found.message, srs_domain=second.domain, keys=keys, now=now)
        )
        data = sign_now(
            seal.address_to(
                sealed,
                delivery.sender,
                delivery.recipients,
                domain=second.domain if delivery.sender is not None else self._settings.names.hostname,
                keys=keys,
                now=now,
                bind=self._settings.bind_recipients,
            )
        )
        self._doors.journal.event(
            "from.rewritten", id=delivery.id, alias=second.alias, next_hop=delivery.next_hop, reason=reason
        )
        return replace(delivery, data=data, second=None)

    # --- what is remembered

    async def _was_refused(self, delivery: Delivery, second: SecondForm) -> bool:
        try:
            return await self._refusals.was_refused(second.author_domain, await self._provider(delivery))
        except StoreAway:
            # It is refused once more, then, and goes with another From.
            return False

    async def _note(self, delivery: Delivery, second: SecondForm, peers: Sequence[str | None]) -> None:
        provider = await self._provider(delivery)
        if not self._speak_for(provider, delivery.next_hop, peers):
            return
        try:
            await self._refusals.note_refusal(second.author_domain, provider)
        except StoreAway:
            return
        self._doors.journal.event("from.refused", id=delivery.id, author_domain=second.author_domain, provider=provider)

    def _speak_for(self, provider: str, next_hop: str, peers: Sequence[str | None]) -> bool:
        """Is it the provider's own host that refused? Anybody can name another's first among the hosts of a domain."""
        return provider == next_hop or any(_organization(_host_of(one)) == provider for one in peers if one)

    async def _provider(self, delivery: Delivery) -> str:
        return await lookup_provider(self._doors.resolver, delivery.next_hop, by_smarthost=self._by_smarthost)


async def lookup_provider(resolver: Resolver, next_hop: str, *, by_smarthost: bool) -> str:
    """Who takes mail for this domain: the organization of its first MX, so that what one customer of a large provider has met
    holds for the others; else the domain. The relay asks the same question, so it costs no look-up."""
    if by_smarthost or next_hop.startswith("["):
        return next_hop
    hosts = sorted(one for one in (await resolver.mx(next_hop)).records if one[1])
    return _organization(hosts[0][1] if hosts else next_hop)


def _host_of(peer: str) -> str:
    """The name in ``mx.example.org[192.0.2.1]:25``."""
    return peer.partition("[")[0].strip().rstrip(".")


def _organization(host: str) -> str:
    return registrable_domain(host) or host.lower()


def _pick(delivery: Delivery, indexes: Sequence[int]) -> Delivery:
    """The same for some of its recipients only."""
    return replace(
        delivery,
        recipients=tuple(delivery.recipients[one] for one in indexes),
        notices=tuple(delivery.notices[one] for one in indexes) if delivery.notices else (),
    )
