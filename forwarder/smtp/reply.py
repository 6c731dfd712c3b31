"""What do we say? Every reply of ours, named once, with its RFC 5321 code and its RFC 3463 enhanced code.

What a peer reads here names the cause and, where there is one, the cure; it never holds an exception's text, a hidden
destination, or bytes that the peer sent. What goes wrong on our side is 4xx, always (architecture section 6, rule 2).
"""

from __future__ import annotations

import math

from forwarder.model import Reply

# --- session -----------------------------------------------------------------------------------------------------------

BYE = Reply(221, "2.0.0", "bye")
OK = Reply(250, "2.0.0", "OK")
SENDER_OK = Reply(250, "2.1.0", "sender OK")
RECIPIENT_OK = Reply(250, "2.1.5", "recipient OK")
GO_AHEAD = Reply(354, None, "send the message, end with CRLF.CRLF")
START_TLS = Reply(220, "2.0.0", "ready to start TLS")
# RFC 5321 section 3.5.3 and 7.3: one answer for every address, so that VRFY tells nothing.
VRFY = Reply(252, "2.0.0", "cannot verify; send some mail and see")
HELP = Reply(214, "2.0.0", "see RFC 5321")

SHUTTING_DOWN = Reply(421, "4.3.2", "shutting down, come back soon")
TIMED_OUT = Reply(421, "4.4.2", "waited too long")
TOO_SLOW = Reply(421, "4.4.2", "the message comes too slowly")
TOO_MANY_GUESSES = Reply(421, "4.7.0", "too many return addresses that are not valid, come back in an hour")
TOO_MANY_UNKNOWN = Reply(421, "4.7.0", "too many recipients that do not exist, come back in an hour")
TOO_MANY_ERRORS = Reply(421, "4.7.0", "too many errors")
NOT_SMTP = Reply(421, "4.7.0", "this is not an HTTP server")
TOO_MANY_SESSIONS = Reply(421, "4.3.2", "too many connections, come back later")

#: 4xx: it is a mistake in our own network, and the mail behind it is not to be lost.
NOT_A_PROXY = Reply(421, "4.7.0", "this port is for a proxy of ours, and you are none")
NO_PROXY_HEADER = Reply(421, "4.7.0", "this port wants a PROXY header before all else")

UNKNOWN_COMMAND = Reply(500, "5.5.1", "command not recognized")
BAD_LINE = Reply(500, "5.5.2", "lines end with CRLF")
LINE_TOO_LONG = Reply(500, "5.5.2", "line too long")
NO_ARGUMENT = Reply(501, "5.5.4", "no argument allowed")
BAD_ARGUMENT = Reply(501, "5.5.4", "syntax error in the argument")
NOT_IMPLEMENTED = Reply(502, "5.5.1", "command not implemented")
BAD_SEQUENCE = Reply(503, "5.5.1", "bad sequence of commands")
NESTED_MAIL = Reply(503, "5.5.1", "a transaction is already open; RSET first")
HELO_FIRST = Reply(503, "5.5.1", "say EHLO first")
MAIL_FIRST = Reply(503, "5.5.1", "MAIL first")
RCPT_FIRST = Reply(503, "5.5.1", "RCPT first")
NO_AUTH = Reply(503, "5.5.1", "AUTH is not available")
# RFC 2920 section 3.1: EHLO ends a group; RFC 5321 section 3.1: the server speaks first.
EARLY_TALKER = Reply(554, "5.5.0", "you spoke before it was your turn")
NO_VALID_RECIPIENTS = Reply(554, "5.5.1", "no valid recipients")
# RFC 3207 section 4.
TLS_BUSY = Reply(454, "4.7.0", "TLS is not available at the moment; try again later")
TLS_ALREADY = Reply(503, "5.5.1", "TLS is already on")
PIPELINED_TLS = Reply(501, "5.5.1", "STARTTLS must be the last command of its group")

# --- submission: RFC 4954 section 4 and 6, RFC 6409 section 6.1 ---------------------------------------------------------

AUTHENTICATED = Reply(235, "2.7.0", "authenticated")
AUTH_BUSY = Reply(454, "4.7.0", "too many log-ins at once; try again later")
AUTH_LINE_TOO_LONG = Reply(500, "5.5.6", "authentication exchange line is too long")
AUTH_CANCELLED = Reply(501, "5.7.0", "authentication cancelled")
AUTH_NOT_BASE64 = Reply(501, "5.5.2", "cannot decode the response")
AUTH_ALREADY = Reply(503, "5.5.1", "already authenticated")
AUTH_MECHANISM = Reply(504, "5.5.4", "mechanism not offered")
AUTH_REQUIRED = Reply(530, "5.7.0", "authentication required")
#: One text for an unknown login and a wrong password.
AUTH_WRONG = Reply(535, "5.7.8", "login or password is wrong")
TLS_REQUIRED = Reply(538, "5.7.11", "encryption required: STARTTLS first")
NOT_YOUR_SENDER = Reply(553, "5.7.1", "this sender does not belong to you")
NOT_YOUR_AUTHOR = Reply(550, "5.7.1", "the From address does not belong to you")
ENOUGH_SUBMITTED = Reply(451, "4.7.1", "too many recipients within an hour; try again later")

# --- envelope ----------------------------------------------------------------------------------------------------------

TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "too many recipients; send the rest in another transaction")
ONE_BOUNCE_AT_A_TIME = Reply(452, "4.5.3", "reports take one recipient a transaction")
NO_ROOM = Reply(452, "4.3.1", "too much mail is on its way at the moment, come back later")
UNKNOWN_ALIAS = Reply(550, "5.1.1", "no such address here")
PAUSED_ALIAS = Reply(451, "4.2.1", "this address cannot take mail now; try again later")
RELAYING_DENIED = Reply(550, "5.7.1", "relaying denied")
#: One text for a bad MAC, an expired and an unknown reversible address: whoever probes learns nothing (issue 6).
BAD_REVERSIBLE = Reply(550, "5.1.1", "this return address is not valid, or no longer")
REVERSIBLE_TAKES_REPORTS_ONLY = Reply(550, "5.7.1", "this return address takes delivery reports (null sender) only")
ANSWERS_ONLY = Reply(550, "5.7.1", "this address takes answers from people; reports go to the return path")
STATE_AWAY = Reply(451, "4.3.0", "temporarily unable to look that up; try again later")

# --- message -----------------------------------------------------------------------------------------------------------

BARE_NEWLINE = Reply(550, "5.5.2", "bare CR or LF in the message")
NUL_IN_MESSAGE = Reply(550, "5.6.0", "NUL in the message")
TOO_LARGE = Reply(552, "5.3.4", "message too large")
HEADER_TOO_LARGE = Reply(552, "5.3.4", "the header of the message is too large")
TOO_MANY_FIELDS = Reply(552, "5.3.4", "the message has too many header fields")
LINE_IN_MESSAGE_TOO_LONG = Reply(554, "5.6.0", "a line of the message is too long")
LOOP = Reply(554, "5.4.6", "mail loop: this message has been here before")
TOO_MANY_HOPS = Reply(554, "5.4.6", "too many hops")
FAULT = Reply(451, "4.3.0", "a fault on our side; try again later")
STILL_UNDER_WAY = Reply(451, "4.4.1", "the next hop has not answered yet; try again later")
BUSY = Reply(451, "4.2.1", "an earlier attempt to deliver this message is still under way; try again later")
DELIVERED = Reply(250, "2.0.0", "delivered")
QUEUED = Reply(250, "2.0.0", "accepted; it will be delivered as soon as it can be")
#: Put aside: the same to whoever sent it as any other acceptance.
SET_ASIDE = Reply(250, "2.0.0", "accepted")
DISCARDED = Reply(250, "2.0.0", "accepted; it ends here")
KEPT = Reply(250, "2.0.0", "kept for the postmaster")
BOUNCE_RETURNED = Reply(250, "2.0.0", "report passed on to the original sender")
NO_REPORT = Reply(550, "5.6.0", "this return address takes delivery reports only, and this is none")
UNKNOWN_REPORT = Reply(550, "5.1.1", "this return address is not valid, or no longer")
BOUNCE_BUDGET = Reply(550, "5.7.1", "enough reports about this message have come back")
#: RFC 7372 section 3.3 (X.7.26).
ANSWER_UNVERIFIED = Reply(
    550, "5.7.26", "an answer to this address must come from a sender that SPF, DKIM or a mailkey vouches for"
)
ENOUGH_ANSWERS = Reply(450, "4.7.1", "enough answers have come to this address today; try again tomorrow")


def malformed(reason: str) -> Reply:
    """A message that two readers could read in two ways (RFC 5322 section 3.6): ``reason`` is a text of ours."""
    return Reply(550, "5.6.0", f"malformed message: {reason}")


def mailkey_refused(domain: str, url: str) -> Reply:
    """docs/mailkey.md section 9: the refusal names the cause and the cure."""
    cure = url or f"the TXT record of mailkey.{domain}"
    return Reply(550, "5.7.1", f"mailkey of {domain} does not cover this message; see {cure}")


def mailkey_replayed(domain: str, url: str) -> Reply:
    """docs/mailkey.md section 10: one signed message, without rt=, for more recipients than we take."""
    cure = url or "bind recipients with rt="
    return Reply(550, "5.7.1", f"this message signed by {domain} was sent to too many different recipients; {cure}")


def mailkey_unknown(domain: str) -> Reply:
    """The look-up failed: never taken for "no mailkey"."""
    return Reply(451, "4.7.5", f"the mailkey of {domain} cannot be looked up now; try again later")


def dmarc_refused(domain: str, policy: str) -> Reply:
    """RFC 9989 section 8, RFC 7372: the Author Domain asks for it, or the operator does, and nothing aligned passed."""
    return Reply(
        550, "5.7.1", f"DMARC: neither SPF nor DKIM vouches for this mail from {domain}, which asks to {policy} it"
    )


def dmarc_unknown(domain: str) -> Reply:
    """A DNS fault stands between us and the answer that would decide."""
    return Reply(451, "4.7.5", f"the authentication records of {domain} cannot be looked up now; try again later")


def spf_refused(domain: str) -> Reply:
    """RFC 7372 section 3.2 (X.7.23)."""
    return Reply(550, "5.7.23", f"SPF: {domain} does not allow this host to send its mail")


def unauthenticated_refused() -> Reply:
    """RFC 7372 section 3.3 (X.7.26): multiple authentication checks failed."""
    return Reply(550, "5.7.26", "no authentication check vouches for this message")


def unauthenticated_unknown() -> Reply:
    """The same, where a DNS fault kept a check from being made: the sender's retry may pass."""
    return Reply(451, "4.7.5", "the sender's authentication records cannot be looked up now; try again later")


def listed(ip: str, zone: str) -> Reply:
    """RFC 5782 section 2.3: the reply names the list, so that its owner can be asked."""
    return Reply(550, "5.7.1", f"{ip} is listed by {zone}: ask there to be taken off, or write to postmaster")


def helo_refused(what: str) -> Reply:
    """The operator has such names count so much. ``what``: a text of ours."""
    return Reply(550, "5.7.1", f"the name that you gave with EHLO {what}; write to postmaster if it is right")


def greylisted(seconds: float) -> Reply:
    """RFC 6647 section 5: temporary, and how long."""
    return Reply(451, "4.7.1", f"we do not know you yet; try again in {max(1, round(seconds))} seconds")


def reputation_refused(subject: str) -> Reply:
    """Too many of our users have complained of it."""
    return Reply(550, "5.7.1", f"mail from {subject} is not taken here: too many complaints; write to postmaster")


def reputation_slowed(subject: str) -> Reply:
    """The same, and not yet so many."""
    return Reply(451, "4.7.1", f"mail from {subject} is taken slowly: there were complaints; try again later")


def rate_over(whose: str, wait: float) -> Reply:
    """``whose``: a text of ours. ``wait`` in seconds; a sender that waits so long finds room for a message."""
    return Reply(451, "4.7.1", f"too much mail {whose} at the moment; try again in {max(1, math.ceil(wait))} seconds")


def content_refused(name: str) -> Reply:
    """``name``: what the operator calls the filter. What it found is nobody's to know: whoever writes spam would try until
    nothing is."""
    return Reply(
        550, "5.7.1", f"the content filter {name} does not want this message; write to postmaster if it is wrong"
    )


def content_later(name: str) -> Reply:
    """It wants so, or it cannot be asked."""
    return Reply(451, "4.7.1", f"the content filter {name} cannot take this message now; try again later")


def some_failed(delivered: int, failed: int, text: str) -> Reply:
    """A message that went to some and was refused by others, from a sender that no DSN may be sent to."""
    return Reply(550, "5.0.0", f"delivered to {delivered}, refused for {failed}: {text}"[:480])
