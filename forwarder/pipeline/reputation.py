"""May this sender's mail pass as it stands, and what do complaints make of how it stands? docs/decisions/0022

Against a domain counts only what it sent itself: a check vouched for it when the message was forwarded. What nothing vouched
for counts against the network of the client. A complaint counts where its message is known: by the reversible address that only
we can have made, together with the Message-ID or the destination that we sent it with; or, against the alias alone, by our mark.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address, ip_address

from forwarder import srs
from forwarder.loopmark import bears_mark
from forwarder.mail.address import AddressError, ascii_domain, parse_address
from forwarder.mail.arf import Complaint, ComplaintKind, parse_complaint
from forwarder.mail.header import MalformedMessage, parse_message, unfold
from forwarder.model import Address, Envelope, Message, Refuse, Verdict
from forwarder.pipeline.doors import Doors, Settings
from forwarder.ports import Claim, Evidence, Forwarded, Measure, StoreAway, Subject, SubjectKind
from forwarder.smtp import reply
from forwarder.standing import faded, judge, with_evidence

__all__ = ["Reputation", "alias_subject", "sender_subject"]

#: What a complaint counts. Of the others nothing follows: a machine's word about authentication, and a word of praise.
WEIGHTS = {
    ComplaintKind.ABUSE: 1.0,
    ComplaintKind.FRAUD: 2.0,
    ComplaintKind.VIRUS: 2.0,
    ComplaintKind.OPT_OUT: 1.0,
    ComplaintKind.OTHER: 1.0,
}
#: RFC 5321 section 4.5.1, RFC 2142: whoever is refused can still write to these.
_ALWAYS_OPEN = frozenset({"postmaster", "abuse"})
_HOUR = 3600.0


def sender_subject(sender: Address | None, verified: bool, ip: IPv4Address | IPv6Address) -> Subject:
    """Whom a message counts for."""
    if sender is not None and verified:
        return Subject(SubjectKind.DOMAIN, ascii_domain(sender.domain).lower())
    bits = 24 if ip.version == 4 else 64
    network = type(ip)(int(ip) >> ip.max_prefixlen - bits << ip.max_prefixlen - bits)
    return Subject(SubjectKind.NETWORK, f"{network}/{bits}")


def alias_subject(alias: Address) -> Subject:
    """An alias, however it is spelled."""
    return Subject(SubjectKind.ALIAS, str(alias).lower())


class Reputation:
    """Without standings (``Doors``) everybody stands well."""

    def __init__(self, settings: Settings, doors: Doors) -> None:
        self._settings = settings
        self._doors = doors

    # --- whose mail passes

    def admit(self, envelope: Envelope, verdict: Verdict, aliases: Sequence[Address], now: datetime) -> Refuse | str:
        """Words: it passes one-way, and why; ``""``: it passes. Asks memory only."""
        standings = self._doors.standings
        if not standings or all(one.local.lower() in _ALWAYS_OPEN for one in aliases):
            return ""
        subject = sender_subject(envelope.sender, verdict.sender_verified_by is not None, envelope.peer.ip)
        standing = standings.look_up(subject)
        if standing is None:
            return ""
        standings.count_mail(subject)
        found = judge(standing, self._settings.reputation, now)
        if found is None:
            return ""
        match found.measure:
            case Measure.REFUSE:
                return Refuse(reply.reputation_refused(subject.name), f"reputation of {subject}: refuse")
            case Measure.SLOW:
                if standings.take_turn(subject, _HOUR / self._settings.slow_per_hour):
                    return ""
                return Refuse(reply.reputation_slowed(subject.name), f"reputation of {subject}: slow")
            case Measure.ONE_WAY:
                return f"reputation of {subject}: one-way"
            case _:
                return ""

    # --- what is complained of

    async def note_complaint(self, envelope: Envelope, message: Message, aliases: Sequence[Address]) -> None:
        """If this message is a complaint, count it. Never raises: the message goes on in any case."""
        if self._doors.standings is None or not self._may_be_complaint(message, aliases):
            return
        complaint = parse_complaint(message)
        if complaint is None:
            return
        weight = WEIGHTS.get(complaint.kind, 0.0)
        try:
            known = await self._find(complaint)
            alias = known.alias if known is not None else self._marked(complaint)
            told = {"id": envelope.id, "kind": str(complaint.kind), "message": known.envelope_id if known else None}
            if alias is None or not weight:
                reason = "nothing of ours is in it" if alias is None else "it counts for nothing"
                self._doors.journal.event("complaint.not_counted", **told, alias=alias, reason=reason)
                return
            if not await self._is_first(envelope, complaint, alias):
                self._doors.journal.event("complaint.not_counted", **told, alias=alias, reason="it came before")
                return
            what = f"complaint: {complaint.kind}"
            source = str(known.destination).lower() if known is not None else ""
            now = self._doors.clock.now()
            evidence = Evidence(now, what, weight, source, known.envelope_id if known is not None else "")
            subjects = [alias_subject(alias)]
            if known is not None:
                subjects += _senders(known)
            for subject in subjects:
                await self._hold_against(subject, evidence, envelope)
        except StoreAway as away:
            self._doors.journal.event("standings.away", id=envelope.id, step="complaint", reason=str(away))

    def _may_be_complaint(self, message: Message, aliases: Sequence[Address]) -> bool:
        """By where it came to, and by what it says it is: the rest of our mail is not searched."""
        wanted = self._settings.complaint_addresses
        if any(one.local.lower() == "abuse" or str(one).lower() in wanted for one in aliases):
            return True
        found = message.first(b"content-type")
        return found is not None and b"feedback-report" in found.raw.lower()

    async def _find(self, complaint: Complaint) -> Forwarded | None:
        """The message that we forwarded, by a reversible address of ours and what else tells it from others."""
        keys, today = self._doors.keys, self._doors.clock.now().date()
        destinations = [one for one in map(_address, complaint.recipients) if one is not None]
        for text in dict.fromkeys((complaint.mail_from, complaint.return_path)):
            reversible = _address(text)
            if reversible is None or not self._doors.directory.is_srs_domain(reversible.domain):
                continue
            if isinstance(srs.decode(reversible, keys.srs_secrets(), today), srs.WhyNot):
                continue
            known = await self._doors.ledger.find_forward(reversible, complaint.message_id, destinations)
            if known is not None:
                return known
        return None

    def _marked(self, complaint: Complaint) -> Address | None:
        """The alias that our mark in the returned header names. Who sent it is not in the mark, so nobody else is counted."""
        try:
            message = parse_message(complaint.returned_header + b"\r\n")
        except MalformedMessage:
            return None
        named = [unfold(one.value).decode("utf-8", "replace").strip() for one in message.all(b"delivered-to")]
        for text in (*named, *complaint.recipients):
            alias = _address(text.strip("<>"))
            if alias is not None and bears_mark(message, alias, self._doors.keys.srs_secrets()):
                return alias
        return None

    async def _is_first(self, envelope: Envelope, complaint: Complaint, alias: Address) -> bool:
        """Of one message one recipient complains once, by however many ways the complaint comes."""
        who = (str(alias).lower(), complaint.message_id or complaint.return_path or "", *sorted(complaint.recipients))
        mark = hashlib.sha256(b"complaint\0" + "\0".join(who).encode("utf-8", "surrogatepass")).digest()
        if (await self._doors.ledger.claim([mark], envelope.id))[0] is not Claim.FRESH:
            return False
        await self._doors.ledger.settle(envelope.id, [mark], [], [])
        return True

    async def _hold_against(self, subject: Subject, evidence: Evidence, envelope: Envelope) -> None:
        standings, scale = self._doors.standings, self._settings.reputation
        assert standings is not None
        before, after = await standings.change(subject, with_evidence(subject, evidence, scale.half_life))
        assert after is not None
        self._doors.journal.event(
            "complaint.counted",
            id=envelope.id,
            subject=str(subject),
            what=evidence.what,
            weight=after.evidence[-1].weight,
            score=round(faded(after, evidence.at)[0], 2),
        )
        had, has = judge(before, scale, evidence.at), judge(after, scale, evidence.at)
        if subject.kind is not SubjectKind.ALIAS and has is not None and (had is None or had.measure != has.measure):
            self._doors.journal.event(
                "reputation.changed", id=envelope.id, subject=str(subject), measure=str(has.measure), until=has.until
            )


def _senders(known: Forwarded) -> list[Subject]:
    """Nobody, where a record of an older release does not know the client of what nobody vouched for."""
    if known.verified:
        return [sender_subject(known.sender, True, IPv4Address(0))]
    return [sender_subject(None, False, ip_address(known.client))] if known.client else []


def _address(text: str | None) -> Address | None:
    try:
        return parse_address(text) if text else None
    except AddressError:
        return None
