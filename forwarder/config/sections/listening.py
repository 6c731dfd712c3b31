"""Where do clients connect, and with which certificate? ``listen`` and ``[tls]``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, model_validator

from forwarder.config import values
from forwarder.config.table import Table
from forwarder.config.values import Endpoint, Location, Network

__all__ = ["Listener", "Tls"]


class Listener(Table):
    """One address that clients connect to."""

    address: Endpoint
    submission: bool = False
    tls: Literal["starttls", "implicit"] = "starttls"
    proxy: Annotated[tuple[Network, ...], BeforeValidator(values.split)] = ()
    xclient: Annotated[tuple[Network, ...], BeforeValidator(values.split)] = ()
    xforward: Annotated[tuple[Network, ...], BeforeValidator(values.split)] = ()

    @model_validator(mode="after")
    def _mail_servers_start_in_clear(self) -> Listener:
        if self.tls == "implicit" and not self.submission:
            raise ValueError('tls = "implicit" is for submission: other mail servers begin in clear text')
        if self.tls == "implicit" and (self.proxy or self.xclient or self.xforward):
            raise ValueError('proxy, xclient and xforward are for tls = "starttls"')
        return self


class Tls(Table):
    """The certificate for STARTTLS; without one, a self-signed one is made."""

    cert: Annotated[Location | None, BeforeValidator(values.or_none)] = None
    key: Annotated[Location | None, BeforeValidator(values.or_none)] = None

    @model_validator(mode="after")
    def _both(self) -> Tls:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key belong together: give both or none")
        return self
