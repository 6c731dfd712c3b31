"""What does the owner of an alias hear? A letter about one message, or a line in the digest of the day.

Letters leave like reports: with the null sender, signed, so that nothing is ever written about one that fails.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from forwarder import bounce
from forwarder.bounce import Kind, Target
from forwarder.model import Address, Envelope, Failed, Finding
from forwarder.pipeline.doors import Doors, Settings
from forwarder.pipeline.report import seal_report
from forwarder.ports import AliasFound, Held, MailboxFound, NoSuchAlias

__all__ = ["Owners"]


class Owners:
    """Who owns an alias, what is to be told of it, and how."""

    def __init__(self, settings: Settings, doors: Doors) -> None:
        self._settings = settings
        self._doors = doors

    def target(self, alias: Address | None, kind: Kind) -> Target:
        """Who hears of it? ``None``: nobody knows which alias it was. A user's own mail has none of ours: its sender hears."""
        if alias is not None and not self._doors.directory.is_ours(alias.domain):
            return Target.SENDER
        return self._settings.routing.way(alias).targets[kind]

    def failure(self, alias: Address, failed: Failed) -> tuple[Kind, Target]:
        """The same for a refusal that we got ourselves."""
        cause = self._settings.reason_rules.classify(
            failed.reply.enhanced, failed.reply.text, failed.peer, given_up=True
        )
        kind = Kind.HARD if cause.hard else Kind.SOFT
        return kind, self.target(alias, kind)

    async def tell(
        self,
        alias: Address | None,
        target: Target,
        findings: Sequence[Finding],
        cause: Envelope,
        *,
        domain: str,
        message_id: str | None,
        id: str,  # noqa: A002 - what Held calls it
    ) -> list[Held] | None:
        """Letters to be sent, none where a digest or a mailbox has it; ``None``: the owner hears nothing of it. ``domain`` is
        that of the alias, or where it is not known of the reversible address; ``findings`` are of one message. The same ``id``
        again is the same. Raises StoreAway."""
        if not target.tells_owner and target is not Target.DIGEST:
            return None
        owner = self._settings.routing.way(alias).owner or Address("postmaster", domain)
        if target is Target.DIGEST and await self._note(owner, findings, id):
            return []
        raw = bounce.compose_owner(
            self._settings.letters,
            owner,
            findings,
            told=target.tells_sender,
            message_id=message_id,
            hostname=self._settings.names.hostname,
            id=id,
            now=self._doors.clock.now(),
        )
        letters = await self.address(raw, owner, cause, id=id, srs_domain=self._doors.directory.srs_domain(domain))
        if letters is not None:
            self._doors.journal.event("owner.told", id=cause.id, alias=alias, owner=owner, findings=len(findings))
        return letters

    async def _note(self, owner: Address, findings: Sequence[Finding], id: str) -> bool:  # noqa: A002 - of what it is about
        """Put them into the digest; the same ``id`` again does no harm. False: there is none to put them into. Raises
        StoreAway."""
        if self._doors.digests is None:
            return False
        today = self._doors.clock.now().date()
        for number, one in enumerate(findings):
            await self._doors.digests.add_finding(today, owner, f"{id}.{number}", one)
        return True

    async def address(
        self,
        raw: bytes,
        owner: Address,
        cause: Envelope,
        *,
        id: str,  # noqa: A002 - what Held calls it
        srs_domain: str,
    ) -> list[Held] | None:
        """A message of ours to wherever the owner's address leads; a mailbox of this host has it at once. ``None``: it leads
        nowhere. Raises StoreAway."""
        found = await self._doors.directory.look_up(owner)
        journal = self._doors.journal
        if isinstance(found, NoSuchAlias):
            journal.event("owner.nowhere", id=cause.id, owner=owner)
            return None
        if isinstance(found, MailboxFound):
            try:
                await self._doors.mailboxes.append(found.mailbox, None, (raw,))
            except OSError as error:
                journal.event("mailbox.failed", id=cause.id, mailbox=found.mailbox, reason=str(error))
                return None
            journal.event("mailbox.kept", id=cause.id, mailbox=found.mailbox)
            return []
        targets = found.targets if isinstance(found, AliasFound) else (owner,)
        return [
            seal_report(
                raw,
                target,
                cause,
                id=f"{id}.{hashlib.sha256(str(target).encode()).hexdigest()[:8]}",
                srs_domain=srs_domain,
                settings=self._settings,
                doors=self._doors,
            )
            for target in targets
        ]

    def finding(
        self, alias: Address | None, sender: Address | None, destination: str, kind: Kind, status: str, said: str
    ) -> Finding:
        """What is told of one destination, as of now."""
        now = self._doors.clock.now()
        return Finding(
            now, str(alias or "an alias that is not known"), str(sender or ""), destination, kind, status, said
        )
