"""How many messages an hour may there be? ``[rates]``."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from forwarder.config import values
from forwarder.config.table import Table
from forwarder.config.values import Network

__all__ = ["Rates"]


# Beyond this a rate is none: no machine forwards ten thousand a second.
PerHour = Annotated[int, BeforeValidator(values.not_bool), Field(ge=0, le=36000000)]


class Rates(Table):
    """How many messages an hour there may be of one network, sender, alias, destination; 0: any number."""

    network: PerHour = 0
    domain: PerHour = 0
    claimed: PerHour = 0
    alias: PerHour = 0
    destination: PerHour = 0
    srs_domain: PerHour = 0
    replay: PerHour = 0
    burst: Annotated[float, BeforeValidator(values.not_bool), Field(ge=1, le=86400)] = 3600.0
    size_unit: Annotated[int, BeforeValidator(values.not_bool), Field(ge=1024)] = 1048576
    exempt: Annotated[tuple[Network, ...], BeforeValidator(values.split)] = ()
