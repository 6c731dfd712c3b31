"""Whose mail is taken, and where does it go? ``[domains]`` and ``[admin]``."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from forwarder.config import values
from forwarder.config.sections.bounces import SomeRoutes
from forwarder.config.sections.callers import RejectAt
from forwarder.config.sections.policy import DomainPolicy
from forwarder.config.sections.relay import Hold
from forwarder.config.table import Table
from forwarder.config.values import AliasName, DomainName, Mailbox

__all__ = ["Admin", "Domain"]


class Admin(Table):
    """Who gets postmaster's and abuse's mail; nobody: it is kept in a file in ``state_dir``."""

    address: Annotated[Mailbox | None, BeforeValidator(values.or_none)] = None


class Alias(Table):
    """Where one address leads. Written short: a target, a list of targets, or ``false``."""

    targets: tuple[Mailbox, ...] = ()
    enabled: bool = True
    owner: Annotated[Mailbox | None, BeforeValidator(values.or_none)] = None
    bounces: SomeRoutes = SomeRoutes()

    @model_validator(mode="after")
    def _leads_somewhere(self) -> Alias:
        if self.enabled and not self.targets:
            raise ValueError("leads nowhere: list a target, or write false to disable it")
        return self


class Domain(Table):
    """One domain whose mail we take."""

    aliases: Annotated[
        dict[AliasName, Annotated[Alias, BeforeValidator(values.alias)]],
        BeforeValidator(values.distinct_aliases),
        AfterValidator(values.frozen),
    ] = Field(default_factory=dict)
    srs_domain: Annotated[DomainName | None, BeforeValidator(values.or_none)] = None
    plus_addressing: bool = True
    hold: Hold | None = None
    policy: DomainPolicy = DomainPolicy()
    reject_at: RejectAt | None = None
    owner: Annotated[Mailbox | None, BeforeValidator(values.or_none)] = None
    bounces: SomeRoutes = SomeRoutes()
