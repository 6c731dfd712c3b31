"""What do a domain's MTA-STS record and policy say? RFC 8461 sections 3.1 and 3.2: octets in, values out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from forwarder.auth.dnsname import dns_name
from forwarder.ports import StsMode, StsPolicy

__all__ = ["MAX_AGE", "MAX_TEXT", "PolicyError", "is_host", "parse_policy", "parse_record"]

#: Octets of a policy. RFC 8461 section 3.3 suggests 64 KB.
MAX_TEXT = 65536
#: RFC 8461 section 3.2: a year.
MAX_AGE = 31557600
#: Host patterns of one policy: what is kept in memory of a stranger's text has a bound.
MAX_HOSTS = 100

_VERSION = re.compile(rb"v=STSv1[ \t]*;")
_FIELD = re.compile(rb"[ \t]*([A-Za-z0-9][A-Za-z0-9_.-]{0,31})=([\x21-\x3a\x3c\x3e-\x7e]+)[ \t]*")
_ID = re.compile(rb"[A-Za-z0-9]{1,32}\Z")
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}\Z")
_HOST = re.compile(r"(?:\*\.)?[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\Z")


class PolicyError(ValueError):
    """This is no policy; the text says why, without quoting it."""


def parse_record(texts: Sequence[bytes]) -> str | None:
    """The id of the one record; ``None``: there is none that counts."""
    # RFC 8461 section 3.1: others are not looked at, and of several none counts.
    ours = [one for one in texts if _VERSION.match(one)]
    return _id_of(ours[0]) if len(ours) == 1 else None


def _id_of(record: bytes) -> str | None:
    fields = record.split(b";")[1:]
    if not fields[-1].strip(b" \t"):
        fields.pop()
    found = [_FIELD.fullmatch(one) for one in fields]
    if None in found:
        return None
    ids = [one[2] for one in found if one is not None and one[1] == b"id"]
    return ids[0].decode("ascii") if ids and _ID.match(ids[0]) else None


def parse_policy(text: bytes, record_id: str) -> StsPolicy:
    """Raises PolicyError."""
    # RFC 8461 section 3.2: of a key that stands twice the first counts, but for mx; unknown keys are passed over.
    values: dict[str, str] = {}
    hosts: list[str] = []
    for key, value in _lines(text):
        if key == "mx":
            hosts.append(_host(value))
        else:
            values.setdefault(key, value)
    if values.get("version") != "STSv1":
        raise PolicyError("its version is not STSv1")
    try:
        mode = StsMode(values.get("mode"))
    except ValueError:
        raise PolicyError("its mode is none of enforce, testing and none") from None
    max_age = values.get("max_age", "")
    if not re.fullmatch(r"[0-9]{1,10}", max_age):
        raise PolicyError("its max_age is no number of seconds")
    if mode is not StsMode.NONE and not hosts:
        raise PolicyError("it names no mx")
    if len(hosts) > MAX_HOSTS:
        raise PolicyError(f"it names more than {MAX_HOSTS} mx")
    return StsPolicy(record_id, mode, tuple(dict.fromkeys(hosts)), min(int(max_age), MAX_AGE))


def _lines(text: bytes) -> Iterator[tuple[str, str]]:
    try:
        lines = text.decode("utf-8").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError:
        raise PolicyError("it is not UTF-8") from None
    for line in lines:
        if not line.strip(" \t"):
            continue
        key, colon, value = line.partition(":")
        if not colon or not _KEY.match(key):
            raise PolicyError("one of its lines is no key and value")
        yield key, value.strip(" \t")


def is_host(name: str) -> bool:
    """May this name (lower case, A-labels) stand in a URL? The DNS itself takes any octets."""
    return not name.startswith("*") and _HOST.match(name) is not None


def _host(text: str) -> str:
    wild = "*." if text.startswith("*.") else ""
    name = dns_name(text.removeprefix("*."))
    if name is None or not _HOST.match(wild + name):
        raise PolicyError("one of its mx is no host name")
    return wild + name
