"""What can be configured about content filters? ``[[content.rspamd]]``, ``[[content.milter]]``; docs/config.md explains them."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from forwarder.config import values
from forwarder.config.table import Table
from forwarder.config.values import Location
from forwarder.content import PLACEHOLDERS, RESERVED, unknown_placeholders
from forwarder.model import ContentAction

__all__ = ["Content", "Milter", "Rspamd"]

#: RFC 5322 section 3.6.8.
_FIELD_NAME = re.compile(r"[!-9;-~]{1,76}\Z")
#: Most words, and milters that answer them, at once: each is asked about every message.
_MOST = 8


def field_name(text: str) -> str:
    if not _FIELD_NAME.match(text):
        raise ValueError("must be the name of a header field, like X-Spam-Status, without the colon")
    if text.lower() in RESERVED:
        raise ValueError(f"{text} is not a filter's to write")
    return text


def template(text: str) -> str:
    if not text.isascii() or not text.isprintable() or not text.strip():
        raise ValueError("must be printable ASCII on one line")
    if unknown := unknown_placeholders(text):
        known = ", ".join(f"{{{one}}}" for one in PLACEHOLDERS)
        raise ValueError(f"{{{unknown[0]}}} is none of {known}")
    return text


def filter_url(text: str) -> str:
    if text.startswith("unix:/"):
        return text
    try:
        url = urlsplit(text)
        fits = url.scheme == "http" and url.hostname and url.port and url.path in ("", "/") and "@" not in url.netloc
    except ValueError:
        fits = False
    if not fits or url.query or url.fragment:
        raise ValueError("must be http://host:port or unix:/path, like http://127.0.0.1:11333")
    return text


def milter_socket(text: str) -> str:
    kind, _, place = text.partition(":")
    host, _, port = place.rpartition(":")
    if kind == "unix" and place.startswith("/"):
        return text
    if kind != "inet" or not host or not port.isdecimal() or not 0 < int(port) <= 65535:
        raise ValueError("must be inet:host:port or unix:/path, like inet:127.0.0.1:8891")
    return text


FieldName = Annotated[str, AfterValidator(field_name)]
Template = Annotated[str, Field(max_length=500), AfterValidator(template)]
Fields = Annotated[dict[FieldName, Template], AfterValidator(values.frozen)]
Limit = Annotated[float, BeforeValidator(values.not_bool), Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Wait = Annotated[float, BeforeValidator(values.not_bool), Field(gt=0, le=300)]
Octets = Annotated[int, BeforeValidator(values.not_bool), Field(ge=0)]
#: It stands in replies and in the log.
FilterName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$")]
FilterUrl = Annotated[str, AfterValidator(filter_url)]
MilterSocket = Annotated[str, AfterValidator(milter_socket)]

#: rspamd's own words (its documentation, "Metrics and actions"), and what is done where nothing else was chosen.
RspamdWord = Literal[
    "no action", "greylist", "add header", "rewrite subject", "soft reject", "quarantine", "discard", "reject"
]
RSPAMD_ACTIONS: dict[RspamdWord, ContentAction] = {
    "no action": ContentAction.ACCEPT,
    # Who comes back is greylisting's to know, and rspamd has not seen who came before.
    "greylist": ContentAction.ACCEPT,
    "add header": ContentAction.TAG,
    "rewrite subject": ContentAction.TAG,
    "soft reject": ContentAction.TEMPFAIL,
    "quarantine": ContentAction.QUARANTINE,
    # Nothing is lost in silence unless the operator says so.
    "discard": ContentAction.QUARANTINE,
    "reject": ContentAction.REJECT,
}
MilterWord = Literal["accept", "quarantine", "discard", "tempfail", "reject"]
MILTER_ACTIONS: dict[MilterWord, ContentAction] = {
    "accept": ContentAction.ACCEPT,
    "quarantine": ContentAction.QUARANTINE,
    "discard": ContentAction.QUARANTINE,
    "tempfail": ContentAction.TEMPFAIL,
    "reject": ContentAction.REJECT,
}


def _over(defaults: dict[Any, ContentAction]) -> BeforeValidator:
    """What is given is put over the defaults."""
    return BeforeValidator(lambda given: {**defaults, **given} if isinstance(given, dict) else given)


class Rspamd(Table):
    """One rspamd. Scores: ``None``, nothing follows from it."""

    url: FilterUrl
    name: FilterName = "rspamd"
    password_file: Annotated[Location | None, BeforeValidator(values.or_none)] = None
    timeout: Wait = 10.0
    on_failure: Literal["tempfail", "accept"] = "tempfail"
    max_size: Octets = 0
    reject_above: Limit | None = None
    quarantine_above: Limit | None = None
    one_way_above: Limit | None = None
    tag_above: Limit | None = None
    actions: Annotated[dict[RspamdWord, ContentAction], _over(RSPAMD_ACTIONS), AfterValidator(values.frozen)] = Field(
        default_factory=dict
    )
    fields: Fields = Field(default_factory=lambda: {"X-Spam-Status": "{result}, score={score} required={required}"})
    tag_fields: Fields = Field(default_factory=lambda: {"X-Spam-Flag": "YES"})
    accept_fields: Annotated[tuple[FieldName, ...], BeforeValidator(values.split)] = ()
    replace_fields: bool = False

    @model_validator(mode="after")
    def _in_order(self) -> Rspamd:
        names = ("tag_above", "one_way_above", "quarantine_above", "reject_above")
        given = [(name, value) for name in names if (value := getattr(self, name)) is not None]
        for (mild, lower), (stern, higher) in pairwise(given):
            if higher < lower:
                raise ValueError(f"{stern} is below {mild}: {mild} would never matter")
        return self


class Milter(Table):
    """One milter."""

    socket: MilterSocket
    name: FilterName = "milter"
    connect_timeout: Wait = 5.0
    command_timeout: Wait = 10.0
    end_timeout: Wait = 30.0
    timeout: Wait = 60.0
    on_failure: Literal["tempfail", "accept"] = "tempfail"
    max_size: Octets = 0
    actions: Annotated[dict[MilterWord, ContentAction], _over(MILTER_ACTIONS), AfterValidator(values.frozen)] = Field(
        default_factory=dict
    )
    accept_fields: Annotated[tuple[FieldName, ...], BeforeValidator(values.split)] = ()
    replace_fields: bool = False


class Content(Table):
    """Who is asked about content, and about what."""

    rspamd: Annotated[tuple[Rspamd, ...], Field(max_length=_MOST)] = ()
    milter: Annotated[tuple[Milter, ...], Field(max_length=_MOST)] = ()
    postmaster: bool = False
    submission: bool = False
