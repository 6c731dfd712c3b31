"""What do we take that the RFCs do not allow, because real senders write it? ``[smtp]`` of the configuration.

Only what every reader reads in one way can be here. Line ends, NUL, whoever speaks out of turn and several From fields have
no switch: with one, this service would smuggle for others.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["STANDARD", "Lenient"]


@dataclass(frozen=True, slots=True)
class Lenient:
    """Each is one sloppiness that is taken."""

    #: RFC 5321 section 4.5.3.1.6: lines of a message that are longer than 998 octets.
    long_lines: bool = True
    #: RFC 5322 section 3.6: a message without Date.
    missing_date: bool = True
    #: RFC 5321 section 3.3: a space behind ``MAIL FROM:`` and ``RCPT TO:``.
    space: bool = True
    #: RFC 5321 section 4.1.2: an address without angle brackets.
    brackets: bool = False
    #: RFC 5321 section 4.1.2, RFC 5322 section 3.2.3: dots at either end of a sender's local part, or several in a row.
    dots: bool = False
    #: RFC 5321 section 4.1.1.1: EHLO with what is neither a name nor a literal.
    helo: bool = False


STANDARD = Lenient()
