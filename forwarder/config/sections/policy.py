"""What happens to mail that no check vouches for? ``[policy]``, for all and for one domain."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from forwarder.config import values
from forwarder.config.table import Table
from forwarder.config.values import DomainName

__all__ = ["DomainPolicy", "Policy"]

Action = Literal["reject", "tag", "accept", "one-way"]
FromWish = Literal["never", "auto", "always"]


class Policy(Table):
    """What happens to mail that no check vouches for."""

    unauthenticated: Action = "tag"
    dmarc_reject: Action = "reject"
    dmarc_quarantine: Action = "tag"
    spf_fail: Action = "tag"
    temperror: Action = "reject"
    from_rewrite: FromWish = "auto"
    trusted_sealers: Annotated[tuple[DomainName, ...], BeforeValidator(values.split)] = ()
    help_url: Annotated[str, Field(max_length=200, pattern=r"^[!-~]*$")] = ""


class DomainPolicy(Table):
    """The same for the aliases of one domain; what is not given here is as in ``[policy]``."""

    unauthenticated: Action | None = None
    dmarc_reject: Action | None = None
    dmarc_quarantine: Action | None = None
    spf_fail: Action | None = None
    temperror: Action | None = None
    from_rewrite: FromWish | None = None
