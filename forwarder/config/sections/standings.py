"""What follows from complaints, and from destinations that take no mail? ``[complaints]`` and ``[learning]``."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from forwarder.config import values
from forwarder.config.table import Table
from forwarder.config.values import Mailbox, Score, Seconds, Weight
from forwarder.mail.reasons import Reason
from forwarder.pipeline.doors import DEFAULT_WEIGHTS

__all__ = ["Complaints", "Learning"]


class Complaints(Table):
    """What follows from complaints about mail that we forwarded."""

    addresses: Annotated[tuple[Mailbox, ...], BeforeValidator(values.split)] = ()
    half_life: Seconds = 604800
    slow_at: Score = 5
    one_way_at: Score = 10
    refuse_at: Score = 20
    share: Annotated[float, BeforeValidator(values.not_bool), Field(ge=0, le=1)] = 0.003
    slow_per_hour: Annotated[float, BeforeValidator(values.not_bool), Field(gt=0, le=3600)] = 20

    @model_validator(mode="after")
    def _in_order(self) -> Complaints:
        if not self.slow_at <= self.one_way_at <= self.refuse_at:
            raise ValueError("slow_at, one_way_at and refuse_at must not fall: each is at least the one before")
        return self


class Learning(Table):
    """What follows from destinations that do not take their mail."""

    half_life: Seconds = 604800
    pause_at: Score = 5
    disable_at: Score = 10
    spacing: Annotated[float, BeforeValidator(values.not_bool), Field(ge=0, le=86400)] = 600
    first_probe: Seconds = 3600
    max_probe: Seconds = 86400
    hard: Weight = 1
    weights: Annotated[dict[Reason, Weight], AfterValidator(values.frozen)] = Field(
        default_factory=lambda: dict(DEFAULT_WEIGHTS), validate_default=True
    )

    @model_validator(mode="after")
    def _in_order(self) -> Learning:
        if self.disable_at < self.pause_at:
            raise ValueError("disable_at must not be less than pause_at")
        if self.max_probe < self.first_probe:
            raise ValueError("max_probe must not be less than first_probe")
        return self
