"""What is taken of real senders that the RFCs do not allow? ``[smtp]``."""

from __future__ import annotations

from forwarder.config.table import Table

__all__ = ["Smtp"]


class Smtp(Table):
    """What is taken of real senders that the RFCs do not allow."""

    lenient_long_lines: bool = True
    lenient_missing_date: bool = True
    lenient_space: bool = True
    lenient_brackets: bool = False
    lenient_dots: bool = False
    lenient_helo: bool = False
