"""How are reversible addresses made? ``[srs]`` and ``[[srs.legacy]]``."""

from __future__ import annotations

from datetime import date
from pathlib import Path as FilePath
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from forwarder.config import values
from forwarder.config.table import Table
from forwarder.config.values import DomainName, Location

__all__ = ["Srs"]


class LegacySrs(Table):
    """Reversible addresses that another program minted under ``domain`` (``None``: that of ``srs.domain``)."""

    dialect: Literal["postsrsd", "exim", "opensmtpd"]
    domain: Annotated[DomainName | None, BeforeValidator(values.or_none)] = None
    secret_file: Location
    until: date
    hash_length: Annotated[int, BeforeValidator(values.not_bool), Field(ge=4, le=27)] = 4
    max_age: Annotated[int, BeforeValidator(values.not_bool), Field(ge=1, le=366)] = 21


class Srs(Table):
    """Reversible addresses."""

    domain: DomainName
    secret_file: Location = FilePath("keys/srs.secret")
    legacy: tuple[LegacySrs, ...] = ()
