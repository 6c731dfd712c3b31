"""What may stand as a value? A domain, an address, a path, a port: each checked, and brought into the one form we work with.

Each function takes what tomllib or the environment gave and returns the value; a ValueError's text is the sentence that the
operator reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, ValidationInfo

from forwarder.mail.address import AddressError, ascii_domain, parse_address
from forwarder.model import Address
from forwarder.ownership import canonical_owner

__all__ = [
    "AliasName",
    "Count",
    "DomainName",
    "DomainOrBelow",
    "Endpoint",
    "Location",
    "LoginName",
    "Mailbox",
    "Nameserver",
    "NeededSelector",
    "Network",
    "Owner",
    "Port",
    "Score",
    "Seconds",
    "Selector",
    "Weight",
    "alias",
    "collector",
    "distinct_aliases",
    "distinct_domains",
    "frozen",
    "is_in_clear",
    "listener",
    "not_bool",
    "or_none",
    "read_store_url",
    "smarthost",
    "split",
    "store",
]


def domain(text: str) -> str:
    """Lower case, A-labels."""
    if text.startswith("["):
        raise ValueError("must be a domain name, not an address")
    try:
        return ascii_domain(parse_address(f"postmaster@{text}").domain)
    except AddressError:
        raise ValueError("must be a domain name, like mail.example.org") from None


def domain_or_below(text: str) -> str:
    """``.example.org`` for every name below example.org."""
    return f".{domain(text[1:])}" if text.startswith(".") else domain(text)


def not_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


def or_none(value: Any) -> Any:
    return None if value == "" else value


def split(value: Any) -> Any:
    """One value, or several between commas, for a list: what a person writes into an environment variable."""
    return [one.strip() for one in value.split(",") if one.strip()] if isinstance(value, str) else value


def resolved(path: Path, info: ValidationInfo) -> Path:
    """Relative to the folder of the file that names it."""
    if path == Path():
        raise ValueError("must name a file")
    folder: Path = (info.context or {}).get("folder", Path())
    return folder / path


def mailbox(value: Any) -> Address:
    if not isinstance(value, str):
        raise ValueError("must be an address in quotes")
    return parse_address(value)


def endpoint(text: str, port: int | None = None) -> str:
    """``192.0.2.1:25``, ``[2001:db8::1]:25``; without a port only where ``port`` is its default."""
    match = re.fullmatch(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<v4>[0-9.]+))(?::(?P<port>[0-9]{1,5}))?", text)
    try:
        # An IPv6 address alone needs no brackets where no port follows.
        host = ip_address(text if match is None else match["v6"] or match["v4"])
    except ValueError:
        match = host = None
    if host is None or (match is not None and match["v6"] and host.version != 6):
        raise ValueError("must be an IP address and a port, like 127.0.0.1:25 or [::1]:25")
    number = int(match["port"]) if match is not None and match["port"] else port
    if number is None or number > 65535:
        raise ValueError("must end with a port, like 127.0.0.1:25 or [::1]:25")
    return f"[{host}]:{number}" if host.version == 6 else f"{host}:{number}"


def nameserver(text: str) -> str:
    return endpoint(text, 53)


def smarthost(text: str) -> str:
    if not text:
        return text
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) <= 65535:
        raise ValueError("must be host:port, like smtp.example.org:25")
    if host.startswith("[") or re.fullmatch(r"[0-9.]+", host):
        return endpoint(text)
    return f"{domain(host)}:{port}"


def is_loopback(smarthost: str) -> bool:
    host = smarthost.rpartition(":")[0].strip("[]")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def collector(text: str) -> str:
    if not text:
        return text
    try:
        url = urlsplit(text)
        fits = url.scheme in ("http", "https") and url.hostname and url.port != 0 and "@" not in url.netloc
    except ValueError:
        fits = False
    if not fits or url.query or url.fragment:
        raise ValueError("must be http://host:port or https://host, like http://127.0.0.1:4318")
    return text.rstrip("/")


def is_in_clear(url: str) -> bool:
    """And leaves this host, as far as its name tells."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_loopback(f"{parts.hostname}:0")


def store(text: str) -> str:
    schemes = ("unix", "redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
    if text != "embedded" and text.partition("://")[0] not in schemes:
        raise ValueError('must be "embedded" or a URL that begins with ' + ", ".join(f"{one}://" for one in schemes))
    return text


@dataclass(frozen=True, slots=True, repr=False)
class StoreUrl:
    """What stands in one. ``is_elsewhere``: on another host, as far as its name tells. ``verifies``: TLS, and no stranger's.
    ``password``: the servers'; ``has_secret``: that, or the sentinels'."""

    is_elsewhere: bool
    verifies: bool
    password: str | None
    has_certificate: bool
    has_secret: bool


def read_store_url(text: str) -> StoreUrl | None:
    """None: it cannot be read."""
    try:
        url = urlsplit(text)
        login, _, places = url.netloc.rpartition("@")
        several = url.scheme.endswith(("+sentinel", "+cluster"))
        hosts = [urlsplit(f"//{one}") for one in (places.split(",") if several else [places])]
        _ = [one.port for one in hosts]  # may be what follows a ":" in a password
        options = parse_qs(url.query)
        elsewhere = any(not is_loopback(f"{one.hostname or 'localhost'}:0") for one in hosts)
    except ValueError:
        return None
    base = url.scheme.partition("+")[0]
    if base not in ("unix", "redis", "rediss"):
        return None
    checks = options.get("ssl_cert_reqs", ["required"])[-1] == "required"
    return StoreUrl(
        is_elsewhere=base != "unix" and elsewhere,
        verifies=base == "rediss" and checks,
        password=(password := unquote(login.partition(":")[2]) or None),
        has_certificate="ssl_certfile" in options,
        has_secret=password is not None or "sentinel_password" in options,
    )


def selector(text: str) -> str:
    if text and not re.fullmatch(
        r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*", text.lower()
    ):
        raise ValueError("must be a DNS label: letters, digits and hyphens")
    return text.lower()


def needed_selector(text: str) -> str:
    if not text:
        raise ValueError("must not be empty")
    return selector(text)


def alias_name(text: str) -> str:
    if text != "*":
        try:
            parse_address(f"{text}@alias.invalid")
        except AddressError:
            raise ValueError('must be what stands before the @ of an address, or "*" for all others') from None
    return text


def alias(value: Any) -> Any:
    """The short forms: one target, a list of them, ``false``."""
    match value:
        case False | "false":
            return {"enabled": False}
        case str():
            return {"targets": [value]}
        case list():
            return {"targets": value}
        case dict():
            return value
        case _:
            raise ValueError("must be the address or addresses it leads to, or false")


def _distinct(value: Any, what: str) -> Any:
    """Two spellings of one name would silently be one entry."""
    if isinstance(value, dict):
        seen: dict[str, str] = {}
        for name in value:
            same = seen.setdefault(_folded(name), name)
            if same != name:
                raise ValueError(f"{same!r} and {name!r} are the same {what}")
    return value


def _folded(name: str) -> str:
    dot = "." if name.startswith(".") else ""
    try:
        return dot + ascii_domain(name.removeprefix("."))
    except AddressError:
        return name.lower()


def distinct_domains(value: Any) -> Any:
    return _distinct(value, "domain")


def distinct_aliases(value: Any) -> Any:
    return _distinct(value, "alias")


def network(value: Any) -> IPv4Network | IPv6Network:
    """Half of the Internet is nobody's own network."""
    try:
        found = ip_network(value) if isinstance(value, str) else None
    except ValueError:
        found = None
    if found is None:
        raise ValueError("must be a network without host bits, like 192.0.2.0/24 or 2001:db8::/32")
    if found.prefixlen < (8 if found.version == 4 else 16):
        raise ValueError("is too wide to be trusted: name the networks of your own hosts")
    return found


DomainName = Annotated[str, AfterValidator(domain)]
DomainOrBelow = Annotated[str, AfterValidator(domain_or_below)]
#: ``example.org``, ``*.example.org``, ``bob@example.org``.
Owner = Annotated[str, AfterValidator(canonical_owner)]
Network = Annotated[IPv4Network | IPv6Network, PlainValidator(network)]
LoginName = Annotated[str, Field(pattern=r"^[!-9;-~]{1,255}$")]
Endpoint = Annotated[str, AfterValidator(endpoint)]
Nameserver = Annotated[str, AfterValidator(nameserver)]
Selector = Annotated[str, AfterValidator(selector)]
NeededSelector = Annotated[str, AfterValidator(needed_selector)]
Mailbox = Annotated[Address, PlainValidator(mailbox)]
AliasName = Annotated[str, AfterValidator(alias_name)]
#: A file or folder.
Location = Annotated[Path, AfterValidator(resolved)]
Port = Annotated[int, BeforeValidator(not_bool), Field(ge=1, le=65535)]
Count = Annotated[int, BeforeValidator(not_bool), Field(ge=1)]
Score = Annotated[float, BeforeValidator(not_bool), Field(gt=0, le=1e9, allow_inf_nan=False)]
Weight = Annotated[float, BeforeValidator(not_bool), Field(ge=0, le=1e6, allow_inf_nan=False)]
Seconds = Annotated[float, BeforeValidator(not_bool), Field(gt=0, allow_inf_nan=False)]


def listener(value: Any) -> Any:
    """The short form: its address."""
    return {"address": value} if isinstance(value, str) else value


def frozen(value: dict[Any, Any]) -> Mapping[Any, Any]:
    """The same, but nobody can change it."""
    return MappingProxyType(value)
