"""Who hears of what comes back? ``[bounces]`` and its routes, for all and for one domain or alias."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator

from forwarder.config import values
from forwarder.config.table import Table
from forwarder.config.values import Count, Location, Mailbox

__all__ = ["Bounces", "Routes", "SomeRoutes"]

RouteTo = Literal["sender", "owner", "both", "digest", "suppress"]


class Routes(Table):
    """Who hears of what."""

    hard: RouteTo = "sender"
    soft: RouteTo = "sender"
    delayed: RouteTo = "suppress"
    auto_reply: RouteTo = "suppress"
    other: RouteTo = "sender"


class SomeRoutes(Table):
    """The same for one domain or alias; what is not given here is as further up."""

    hard: RouteTo | None = None
    soft: RouteTo | None = None
    delayed: RouteTo | None = None
    auto_reply: RouteTo | None = None
    other: RouteTo | None = None


class Bounces(Table):
    """Reports that come back."""

    routes: Routes = Routes()
    owner: Annotated[Mailbox | None, BeforeValidator(values.or_none)] = None
    template_dir: Annotated[Location | None, BeforeValidator(values.or_none)] = None

    matching: Literal["strict", "known", "lenient"] = "known"
    per_message: Count = 10
    per_day: Count = 200
    rules_file: Annotated[Location | None, BeforeValidator(values.or_none)] = None
