"""With what is signed, and how are mailkeys looked up? ``[keys]`` and ``[mailkey]``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from forwarder.config import values
from forwarder.config.table import Table
from forwarder.config.values import DomainName, Location, NeededSelector, Port, Selector

__all__ = ["Keys", "Mailkey"]


class MailkeyKey(Table):
    """A key that signs the envelope sender; the empty selector is the unnamed key."""

    domain: DomainName
    selector: Selector = ""
    key: Location


class Mailkey(Table):
    """How mailkeys are looked up, what is signed and taken, and what reports say of them."""

    fetch_https: bool = True
    fetch_port: Port = 443
    fetch_private: bool = False
    fetch_ca_file: Annotated[Location | None, BeforeValidator(values.or_none)] = None
    # Each is 12 octets in the store for the life of a signature.
    replay_recipients: Annotated[int, BeforeValidator(values.not_bool), Field(ge=0, le=10000)] = 25
    bind_recipients: bool = True
    note: bool = True
    note_url: Annotated[str, Field(max_length=200, pattern=r"^[!-~]*$")] = ""
    note_file: Annotated[Location | None, BeforeValidator(values.or_none)] = None


class DkimKey(Table):
    """A key for DKIM-Signature."""

    domain: DomainName
    selector: NeededSelector
    key: Location


class ArcKey(DkimKey):
    """The key for ARC; usually one of the DKIM keys."""


class Keys(Table):
    """Private keys."""

    mailkey: tuple[MailkeyKey, ...] = ()
    dkim: tuple[DkimKey, ...] = ()
    arc: ArcKey | None = None
    require_record: bool = True
    check_every: Annotated[float, BeforeValidator(values.not_bool), Field(ge=1, le=3600)] = 300.0
    multibuffer: Literal["auto", "never", "always"] = "auto"
