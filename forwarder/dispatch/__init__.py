"""Who has the message at the end of the session?

plans       what is to go where, and what became of it
underway    what is under way in this process
dispatcher  claims, delivers while the sender waits, holds what could not go yet
"""

from forwarder.dispatch.dispatcher import ATTEMPT, CATCH_UP, LEASE, RENEWALS, Dispatcher, Settler
from forwarder.dispatch.plans import BUSY, STILL_UNDER_WAY, Fate, Hold, Plan, Ticket, fingerprint, pick, split
from forwarder.dispatch.underway import Marks, UnderWay, begun_of

__all__ = [
    "ATTEMPT",
    "BUSY",
    "CATCH_UP",
    "LEASE",
    "RENEWALS",
    "STILL_UNDER_WAY",
    "Dispatcher",
    "Fate",
    "Hold",
    "Marks",
    "Plan",
    "Settler",
    "Ticket",
    "UnderWay",
    "begun_of",
    "fingerprint",
    "pick",
    "split",
]
