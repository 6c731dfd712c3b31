"""How much may a client take? ``[limits]`` and ``[[limits.networks]]``."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from forwarder.config import values
from forwarder.config.table import Table
from forwarder.config.values import Count, Network, Seconds

__all__ = ["Limits"]

MessageSize = Annotated[int, BeforeValidator(values.not_bool), Field(ge=65536)]
# RFC 5321 section 4.5.3.1.8: a server must take 100 recipients.
Recipients = Annotated[int, BeforeValidator(values.not_bool), Field(ge=1, le=10000)]
# Less than mail.header takes (MAX_HEADER, MAX_FIELDS): a message is read again with our own fields on it.
HeaderSize = Annotated[int, BeforeValidator(values.not_bool), Field(ge=16384, le=917504)]
HeaderFields = Annotated[int, BeforeValidator(values.not_bool), Field(ge=100, le=4900)]
Rate = Annotated[float, BeforeValidator(values.not_bool), Field(ge=0, allow_inf_nan=False)]


class NetworkLimits(Table):
    """What differs for the clients of one network; ``None``: nothing."""

    network: Network
    message_size: MessageSize | None = None
    header_size: HeaderSize | None = None
    header_fields: HeaderFields | None = None
    recipients: Recipients | None = None
    sessions_per_address: Count | None = None
    sessions_per_network: Count | None = None
    errors: Count | None = None
    junk_commands: Count | None = None
    unknown_recipients: Count | None = None
    unknown_per_hour: Count | None = None
    command_timeout: Seconds | None = None
    data_timeout: Seconds | None = None
    session_timeout: Seconds | None = None
    min_data_rate: Rate | None = None
    data_grace: Rate | None = None
    greet_delay: Annotated[float, BeforeValidator(values.not_bool), Field(ge=0, le=30)] | None = None


class Limits(Table):
    """How much one client, and all of them, may take."""

    message_size: MessageSize = 36700160
    header_size: HeaderSize = 262144
    header_fields: HeaderFields = 1000
    recipients: Recipients = 100
    sessions: Count = 4000
    sessions_per_address: Count = 50
    sessions_per_network: Count = 500
    in_flight: MessageSize = 100663296
    alias_at_once: Annotated[int, BeforeValidator(values.not_bool), Field(ge=0)] = 4
    errors: Count = 10
    junk_commands: Count = 100
    unknown_recipients: Count = 10
    unknown_per_hour: Count = 100
    forged_reversible: Count = 10
    command_timeout: Seconds = 300.0
    data_timeout: Seconds = 1800.0
    session_timeout: Seconds = 7200.0
    min_data_rate: Rate = 500.0
    data_grace: Rate = 60.0
    handshake_timeout: Seconds = 15.0
    handshakes: Count = 200
    greet_delay: Annotated[float, BeforeValidator(values.not_bool), Field(ge=0, le=30)] = 0.0
    networks: tuple[NetworkLimits, ...] = ()

    @model_validator(mode="after")
    def _a_message_fits(self) -> Limits:
        largest = max([self.message_size, *(one.message_size or 0 for one in self.networks)])
        if self.in_flight < largest:
            raise ValueError(
                "in_flight must not be less than message_size: no message of that size would ever be taken"
            )
        return self
