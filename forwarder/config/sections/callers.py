"""What is found out about clients, and what follows? ``[callers]``, ``[[dnsbl]]``, ``[greylist]``, ``[[networks]]``."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from forwarder.config import values
from forwarder.config.table import Table
from forwarder.config.values import DomainName, Network

__all__ = ["CallerNetwork", "Callers", "DnsBl", "Greylist", "RejectAt"]

RejectAt = Annotated[float, BeforeValidator(values.not_bool), Field(ge=0, le=1000)]
ListWeight = Annotated[float, BeforeValidator(values.not_bool), Field(ge=-1000, le=1000, allow_inf_nan=False)]


class DnsBl(Table):
    """A DNS list of bad clients, or, with a weight below 0, of good ones."""

    zone: DomainName
    weight: ListWeight = 1.0
    codes: Annotated[dict[IPv4Address, ListWeight], AfterValidator(values.frozen)] = Field(default_factory=dict)


HeloWord = Literal["resolves", "elsewhere", "literal", "ours", "short", "nameless"]


class Callers(Table):
    """What is found out about clients, and what follows."""

    reject_at: RejectAt = 1.0
    timeout: Annotated[float, BeforeValidator(values.not_bool), Field(gt=0, le=30)] = 5.0
    iprev: bool = False
    helo: bool = False
    helo_weights: Annotated[dict[HeloWord, ListWeight], AfterValidator(values.frozen)] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _somebody_asks(self) -> Callers:
        if self.helo_weights and not self.helo:
            raise ValueError("helo_weights count nothing without helo = true")
        return self


class Greylist(Table):
    """Mail that no check vouches for comes from who comes back."""

    enabled: bool = False
    delay: Annotated[float, BeforeValidator(values.not_bool), Field(gt=0, le=3600)] = 300.0
    window: Annotated[float, BeforeValidator(values.not_bool), Field(ge=60, le=604800)] = 86400.0
    keep: Annotated[float, BeforeValidator(values.not_bool), Field(ge=60, le=31536000)] = 3110400.0
    from_score: RejectAt = 0.0

    @model_validator(mode="after")
    def _in_time(self) -> Greylist:
        if self.window <= self.delay:
            raise ValueError("window must be more than delay: nobody could come back in time")
        return self


class CallerNetwork(Table):
    """What is not done to the clients of one network."""

    network: Network
    skip: Annotated[
        tuple[Literal["dnsbl", "greylist", "iprev", "helo", "content"], ...],
        BeforeValidator(values.split),
        Field(min_length=1),
    ]
