"""What flows through the program? The values every room shares; no behaviour beyond what the value itself knows.

All values are frozen. "Absent" is ``None``, "empty" is ``()`` or ``b""``, and both mean what the field says. A change makes
a new value (``dataclasses.replace``). Text is ``str`` once decoded at the border; message bytes stay ``bytes``.

envelope      who sends what to whom: one transaction
callers       what others say of the client
message       what came behind DATA
verdict       what the checks found
filters       what content filters found
reply         what a server says
route         what is to be done for a recipient
delivery      what goes to one next hop
outcome       what became of it
tlssessions   how next hops were connected to
"""

from __future__ import annotations

from forwarder.model.callers import Caller, HeloCheck, HeloFact, IprevCheck, Listed
from forwarder.model.delivery import Delivery, Notice, SecondForm
from forwarder.model.envelope import Address, BodyKind, Envelope, Identity, Peer, Recipient, Tls, TlsWish
from forwarder.model.filters import ContentAction, ContentCheck
from forwarder.model.message import Content, Field, Message
from forwarder.model.outcome import Deferred, Delivered, Failed, Finding, Outcome, Queued, RecipientOutcome
from forwarder.model.reply import Reply
from forwarder.model.route import Discard, Forward, FromRewrite, Keep, Refuse, ReturnBounce, Route, SenderForm
from forwarder.model.tlssessions import TlsResult, TlsSession
from forwarder.model.verdict import (
    ArcCheck,
    DkimCheck,
    DmarcCheck,
    MailkeyCheck,
    OpenSignature,
    Result,
    SpfCheck,
    Verdict,
)

__all__ = [
    "Address",
    "ArcCheck",
    "BodyKind",
    "Caller",
    "Content",
    "ContentAction",
    "ContentCheck",
    "Deferred",
    "Delivered",
    "Delivery",
    "Discard",
    "DkimCheck",
    "DmarcCheck",
    "Envelope",
    "Failed",
    "Field",
    "Finding",
    "Forward",
    "FromRewrite",
    "HeloCheck",
    "HeloFact",
    "Identity",
    "IprevCheck",
    "Keep",
    "Listed",
    "MailkeyCheck",
    "Message",
    "Notice",
    "OpenSignature",
    "Outcome",
    "Peer",
    "Queued",
    "Recipient",
    "RecipientOutcome",
    "Refuse",
    "Reply",
    "Result",
    "ReturnBounce",
    "Route",
    "SecondForm",
    "SenderForm",
    "SpfCheck",
    "Tls",
    "TlsResult",
    "TlsSession",
    "TlsWish",
    "Verdict",
]
