"""The life of one message: life (top to bottom), forwarding, reporting, answer, and the doors they all share."""

from __future__ import annotations

from forwarder.pipeline.doors import Doors, Settings
from forwarder.pipeline.life import Pipeline

__all__ = ["Doors", "Pipeline", "Settings"]
