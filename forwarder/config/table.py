"""What all tables of the configuration have in common: they are read once, and hold nothing that nobody knows."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["Table"]


class Table(BaseModel):
    """Frozen; an unknown name is a mistake, and so is a default that would be one in a file."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
