"""Who is asked for DNS data? ``[dns]``."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator

from forwarder.config import values
from forwarder.config.table import Table
from forwarder.config.values import Location, Nameserver, Seconds

__all__ = ["Dns"]


class Dns(Table):
    """Whom we ask."""

    nameservers: Annotated[tuple[Nameserver, ...], BeforeValidator(values.split)] = ()
    timeout: Seconds = 2.5
    trust_ad: bool = False
    zone_file: Annotated[Location | None, BeforeValidator(values.or_none)] = None
