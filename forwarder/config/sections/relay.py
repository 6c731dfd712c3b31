"""How does mail leave? ``[relay]`` and ``[relay.tls]``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, IPvAnyAddress, model_validator

from forwarder.config import values
from forwarder.config.table import Table
from forwarder.config.values import DomainOrBelow, Location, Port

__all__ = ["Hold", "Relay"]

Hold = Literal["auto", "never", "always"]
TlsLevel = Literal["none", "opportunistic", "require", "verify"]


class RelayTls(Table):
    """How connections to next hops are protected."""

    default: TlsLevel = "opportunistic"
    domains: Annotated[
        dict[DomainOrBelow, TlsLevel], BeforeValidator(values.distinct_domains), AfterValidator(values.frozen)
    ] = Field(default_factory=dict)
    ca_file: Annotated[Location | None, BeforeValidator(values.or_none)] = None


class Relay(Table):
    """How mail leaves."""

    port: Port = 25
    smarthost: Annotated[str, AfterValidator(values.smarthost)] = ""
    smarthost_tls: Annotated[TlsLevel | Literal["implicit"] | None, BeforeValidator(values.or_none)] = None
    smarthost_user: Annotated[str, Field(max_length=255)] = ""
    smarthost_password_file: Annotated[Location | None, BeforeValidator(values.or_none)] = None
    source: Annotated[tuple[IPvAnyAddress, ...], BeforeValidator(values.split)] = ()
    allow_private: bool = False
    in_session: Annotated[float, BeforeValidator(values.not_bool), Field(ge=0, le=600)] = 20.0
    hold: Hold = "auto"
    mta_sts: bool = True
    mta_sts_port: Port = 443
    tls_reports: bool = False
    tls: RelayTls = Field(default_factory=RelayTls)

    @model_validator(mode="after")
    def _login_is_safe(self) -> Relay:
        if bool(self.smarthost_user) != (self.smarthost_password_file is not None):
            raise ValueError("smarthost_user and smarthost_password_file belong together: give both or none")
        if not self.smarthost and (self.smarthost_user or self.smarthost_tls):
            raise ValueError("there is no smarthost that smarthost_user or smarthost_tls could be for")
        verified = self.smarthost_tls in ("verify", "implicit")
        if self.smarthost_user and not (verified or values.is_loopback(self.smarthost)):
            raise ValueError(
                'smarthost_user needs smarthost_tls = "verify" or "implicit": anybody could ask for it else'
            )
        return self
