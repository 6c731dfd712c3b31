"""Whose mail is signed and sent for them? ``[submission]``."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from forwarder.config import values
from forwarder.config.table import Table
from forwarder.config.values import Count, Location, LoginName, Network, Owner

__all__ = ["Submission"]


class Client(Table):
    """Somebody whose mail we sign and send."""

    owns: Annotated[tuple[Owner, ...], BeforeValidator(values.split), Field(min_length=1)]
    null_sender: bool = False


class TrustedNetwork(Client):
    """Everybody in it is this client, without a password."""

    network: Network


class Submission(Table):
    """Mail of our own users."""

    credentials: Annotated[Location | None, BeforeValidator(values.or_none)] = None
    logins: Annotated[dict[LoginName, Client], AfterValidator(values.frozen)] = Field(default_factory=dict)
    networks: tuple[TrustedNetwork, ...] = ()
    hide_client: bool = True
    recipients_per_hour: Count = 1000
