"""What does an SMTP server say?"""

from __future__ import annotations

from forwarder.values import value


@value
class Reply:
    """An SMTP reply: code, enhanced status code of RFC 3463 (``None`` where RFC 2034 has none), text without CR or LF."""

    code: int
    enhanced: str | None
    text: str

    def __str__(self) -> str:
        return f"{self.code} {self.enhanced} {self.text}" if self.enhanced else f"{self.code} {self.text}"
