"""What time is it? Asked here, and told to everybody else."""

from __future__ import annotations

import time
from datetime import UTC, datetime

__all__ = ["SystemClock"]


class SystemClock:
    """ports.Clock on this machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def nanoseconds(self) -> int:
        """See ``ports.Clock``."""
        return time.time_ns()
