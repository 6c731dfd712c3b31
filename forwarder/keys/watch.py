"""Which keys may be used now? Looks at the DNS again and again: staged keys come in, keys without their record go out.

A key signs only while the DNS shows its record. A server's definite "no such record", or another key there, said twice,
suspends it; a DNS fault changes nothing. A staged key is used once every server shows it. What is suspended or switched
goes on with the newest older key that is published, or without this signature: mail flows either way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from forwarder.keys.files import Key
from forwarder.keys.published import Finding, Seen, agree, look_up_everywhere
from forwarder.keys.records import record_name
from forwarder.keys.ring import Keys, Slot
from forwarder.keys.usage import Usage
from forwarder.ports import Clock, Journal, Resolver

__all__ = ["KeyWatch"]

#: Seconds between two looks while a key waits for its record, if the usual interval is longer.
SOON = 30.0

_Candidate = tuple[str, Key]


class KeyWatch:
    """``resolvers``: every one is asked, and all have to show a new key. ``usage`` may be shared with other watches."""

    def __init__(
        self, keys: Keys, resolvers: Sequence[Resolver], journal: Journal, clock: Clock, *, usage: Usage, every: float
    ) -> None:
        self._keys = keys
        self._resolvers = tuple(resolvers)
        self._journal = journal
        self._clock = clock
        self._every = every
        self._usage = usage
        self._suspended: set[Key] = set()
        self._told: set[str] = set()
        self._one_at_a_time = asyncio.Lock()
        #: Set once the DNS was asked for the first time.
        self.looked = asyncio.Event()
        self.take_up()

    async def run(self) -> None:
        """Until cancelled. The first look is now."""
        while True:
            try:
                await self.check()
            except Exception as fault:  # noqa: BLE001 - a fault of ours must not end the looking in silence
                self._journal.event("fault", where="keys", kind=type(fault).__name__, detail=str(fault))
                self.looked.set()
            await asyncio.sleep(min(self._every, SOON) if self._somebody_waits() else self._every)

    async def check(self) -> None:
        """Look once, and act on it. Never raises for what files or the DNS hold."""
        async with self._one_at_a_time:
            self.take_up()
            before = self._keys.unusable
            findings = await self._ask([(slot.kind, key) for slot in self._keys.slots for key in slot.keys])
            # One fresh look-up before a key is put away: a server may have been in the middle of a change.
            doubted = [one for one, finding in findings.items() if one[1] not in before and _is_no(finding)]
            findings |= await self._ask(doubted)
            gone = {key for (_, key), finding in findings.items() if _is_no(finding)}
            here = {key for (_, key), finding in findings.items() if finding.seen is Seen.HERE}
            self._apply(frozenset((before | gone) - here), findings)
            self.looked.set()

    def take_up(self) -> None:
        """Keys that were staged since. Until the DNS shows them they are not used, but for those that were in use before
        a restart."""
        slots: list[Slot] = []
        for slot in self._keys.slots:
            changed, new, faults = slot.take_up()
            slots.append(changed)
            for key in new:
                if self._usage.last(slot.kind, key) is None:
                    self._keys.unusable |= {key}
                    self._journal.event("key.staged", record=record_name(slot.kind, key))
            for fault in faults:
                self._tell_once(str(fault))
        self._keys.replace_slots(slots)

    async def _ask(self, candidates: Sequence[_Candidate]) -> dict[_Candidate, Finding]:
        answers = await asyncio.gather(*(look_up_everywhere(self._resolvers, kind, key) for kind, key in candidates))
        return {one: agree(found) for one, found in zip(candidates, answers, strict=True)}

    def _apply(self, unusable: frozenset[Key], findings: dict[_Candidate, Finding]) -> None:
        now = self._clock.now()
        before = [slot.signer(self._keys.unusable) for slot in self._keys.slots]
        after = [slot.signer(unusable) for slot in self._keys.slots]
        # What signed until now is on the disk before another takes over: a crash here leaves the old one a little longer.
        for signers in (before, after):
            for slot, signer in zip(self._keys.slots, signers, strict=True):
                if signer is not None:
                    self._usage.note(slot.kind, signer, now)
        try:
            self._usage.save()
        except OSError as error:
            self._tell_once(f"when keys were last used cannot be written: {error}")
        self._keys.unusable = unusable
        for slot, old, new in zip(self._keys.slots, before, after, strict=True):
            self._tell(slot, old, new, findings)

    def _tell(self, slot: Slot, old: Key | None, new: Key | None, findings: dict[_Candidate, Finding]) -> None:
        if old is new:
            return
        instead = None if new is None else record_name(slot.kind, new)
        if old is not None and old in self._keys.unusable:
            self._suspended.add(old)
            self._journal.event(
                "key.suspended",
                record=record_name(slot.kind, old),
                reason=findings[slot.kind, old].reason,
                instead=instead,
                cure=f"publish the record that `forwarder {slot.kind} status` shows",
            )
        elif new is not None and new in self._suspended:
            self._suspended.discard(new)
            self._journal.event("key.restored", record=instead)
        else:
            self._journal.event(
                "key.switched", record=instead, retired=None if old is None else record_name(slot.kind, old)
            )

    def _somebody_waits(self) -> bool:
        """Is there a slot whose newest key is not the one that signs?"""
        return any(slot.keys[0] in self._keys.unusable for slot in self._keys.slots)

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._journal.event("key.fault", reason=text)


def _is_no(finding: Finding) -> bool:
    return finding.seen in (Seen.MISSING, Seen.DIFFERENT)
