"""How does mail wait? ``[queue]``."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from forwarder.config import values
from forwarder.config.table import Table
from forwarder.config.values import Count, DomainName, Seconds

__all__ = ["Queue"]


#: A rate beyond this is none: no machine delivers ten thousand a second.
PerMinute = Annotated[int, BeforeValidator(values.not_bool), Field(ge=0, le=600000)]


class Destination(Table):
    """What one next hop is given; what is not said here is as for all."""

    deliveries: Count | None = None
    per_minute: PerMinute | None = None


class Queue(Table):
    """Mail that has to wait."""

    first_retry: Seconds = 300.0
    max_retry: Seconds = 14400.0
    lifetime: Seconds = 432000.0
    delay_report: Annotated[float, BeforeValidator(values.not_bool), Field(ge=0)] = 0.0
    max_body: Count = 8388608
    high_water: Count = 1073741824
    min_free: Annotated[int, BeforeValidator(values.not_bool), Field(ge=0)] = 67108864
    deliveries: Count = 50
    per_destination: Count = 5
    per_minute: PerMinute = 0
    # Each is sent along with every claim.
    destinations: Annotated[
        dict[DomainName, Destination],
        BeforeValidator(values.distinct_domains),
        AfterValidator(values.frozen),
        Field(max_length=1000),
    ] = Field(default_factory=dict)
    lease: Annotated[float, BeforeValidator(values.not_bool), Field(ge=1, le=3600)] = 60.0

    @model_validator(mode="after")
    def _in_order(self) -> Queue:
        if self.max_retry < self.first_retry:
            raise ValueError("max_retry must not be less than first_retry")
        return self
