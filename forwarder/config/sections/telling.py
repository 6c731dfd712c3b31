"""What does the program tell of itself? ``[metrics]``, ``[log]``, ``[trace]``, ``[otel]``."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from forwarder.config import values
from forwarder.config.table import Table
from forwarder.config.values import DomainName, Endpoint, Network

__all__ = ["Log", "Metrics", "Otel", "Trace"]


class Metrics(Table):
    """Numbers for Prometheus, and whether we are alive and ready. Nothing is served without ``listen``."""

    listen: Annotated[tuple[Endpoint, ...], BeforeValidator(values.split)] = ()
    allow: Annotated[tuple[Network, ...], BeforeValidator(values.split)] = ()
    providers: Annotated[tuple[DomainName, ...], BeforeValidator(values.split), Field(max_length=100)] = ()

    @model_validator(mode="after")
    def _for_somebody(self) -> Metrics:
        for one in self.listen:
            if not self.allow and not ip_address(one.rpartition(":")[0].strip("[]")).is_loopback:
                raise ValueError(f"{one} needs metrics.allow: the networks that may ask there")
        return self


class Log(Table):
    """What is told, and how."""

    format: Literal["json", "pretty"] = "json"
    full_addresses: bool = False


class Trace(Table):
    """What is kept of the lives of messages, for `forwarder trace`."""

    keep: Annotated[float, BeforeValidator(values.not_bool), Field(ge=0, le=366)] = 7.0


class Otel(Table):
    """Who gets traces of OpenTelemetry. Nobody, without ``endpoint``."""

    endpoint: Annotated[str, AfterValidator(values.collector)] = ""
    insecure: bool = False
    share: Annotated[float, BeforeValidator(values.not_bool), Field(gt=0, le=1)] = 1.0

    @model_validator(mode="after")
    def _clear_text_at_home(self) -> Otel:
        if not self.insecure and values.is_in_clear(self.endpoint):
            raise ValueError(
                "endpoint needs https: spans tell who writes to whom; insecure = true if nobody is in between"
            )
        return self
