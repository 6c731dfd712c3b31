"""What does the store's URL say? One server, sentinels that know which one, or the nodes of a cluster.

    unix:///path, redis://[user:password@]host[:port][/db], rediss://...        one server
    redis+sentinel://[user:password@]host[:port],host2.../service[/db]          sentinels
    redis+cluster://[user:password@]host[:port],host2...                        some nodes of a cluster

``rediss+sentinel://`` and ``rediss+cluster://`` are the same with TLS, to sentinels too. User and password are the servers'.
Sentinels have their own, where they ask for any: ``?sentinel_username=`` and ``&sentinel_password=``. Of redis-py's options only
those of TLS are taken: the rest would undo what ``store.client`` settles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from redis.asyncio import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

__all__ = ["Address", "AnyConnection", "ParsedUrl", "StoreUrlError", "describe_url", "parse_store_url", "show"]

AnyConnection = Connection | UnixDomainSocketConnection
#: Host and port.
Address = tuple[str, int]

_TLS_OPTIONS = {"ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_check_hostname", "ssl_cert_reqs", "ssl_keyfile"}
_URL_PARTS = {"connection_class", "host", "port", "db", "path", "username", "password"}
_SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")
_SERVER_PORT, _SENTINEL_PORT = 6379, 26379
#: Sentinels or nodes that a URL names: a few are enough to find the rest.
MAX_HOSTS = 20


class StoreUrlError(ValueError):
    """The store's URL cannot be used. The text says why and never repeats a password."""


# A password with a bare "/" or "@" moves the borders between host, port and path, and would end up in a log as one of them. The
# library's own text quotes what it could not read, hence "from None" wherever this is raised.
_UNREADABLE = "store: the URL cannot be read; percent-encode special characters in the password"


@dataclass(frozen=True, slots=True, repr=False)
class ParsedUrl:
    """``hosts``: of sentinels or nodes, empty for one server. ``service``: what sentinels call it. The texts are URLs of one
    server, with ``{place}`` for its host and port where there are several, and hold passwords."""

    kind: str
    server: str
    hosts: tuple[Address, ...] = ()
    service: str = ""
    sentinel: str = ""

    def connection(self, address: Address | None, timeout: float) -> AnyConnection:
        """To this server, not yet opened; ``None``: to the one that there is."""
        return _connection(self.server if address is None else _at(self.server, address), timeout)

    def sentinel_connection(self, address: Address, timeout: float) -> AnyConnection:
        """To this sentinel, not yet opened."""
        return _connection(_at(self.sentinel, address), timeout)


def show(address: Address) -> str:
    """As in a URL."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def describe_url(url: str) -> str:
    """The URL without user, password and options: fit for a log."""
    try:
        parts = urlsplit(url)
        if parts.scheme == "unix":
            return f"unix://{parts.path}"
        sentinels, cluster = parts.scheme.endswith("+sentinel"), parts.scheme.endswith("+cluster")
        if sentinels or cluster:
            hosts = _hosts(parts.netloc, _SENTINEL_PORT if sentinels else _SERVER_PORT)
            return f"{parts.scheme}://{','.join(map(show, hosts))}{parts.path if sentinels else ''}"
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or "localhost"
        return f"{parts.scheme}://{host}:{parts.port or _SERVER_PORT}"
    except ValueError:
        return "a malformed URL"


def parse_store_url(url: str) -> ParsedUrl:
    """Raises StoreUrlError."""
    scheme = url.partition("://")[0].lower()
    base, _, kind = scheme.partition("+")
    known = base in ("redis", "rediss") and kind in ("", "sentinel", "cluster")
    if not known and scheme != "unix":
        raise StoreUrlError(
            "store: the URL must begin with unix://, redis:// or rediss://, or redis+sentinel:// or redis+cluster://"
            " (rediss+ with TLS)"
        )
    try:
        parts = urlsplit(url)
        parsed = (
            ParsedUrl("server", url)
            if not kind
            else _several(base, kind, parts.netloc, parts.path, parse_qsl(parts.query, keep_blank_values=True))
        )
    except StoreUrlError:
        raise
    except ValueError:
        raise StoreUrlError(_UNREADABLE) from None
    # What the library does not take shows now, and not at the first message.
    parsed.connection(parsed.hosts[0] if parsed.hosts else None, 1)
    if parsed.kind == "sentinel":
        parsed.sentinel_connection(parsed.hosts[0], 1)
    return parsed


def _several(base: str, kind: str, netloc: str, path: str, options: list[tuple[str, str]]) -> ParsedUrl:
    login, at, _ = netloc.rpartition("@")
    hosts = _hosts(netloc, _SENTINEL_PORT if kind == "sentinel" else _SERVER_PORT)
    own = dict(one for one in options if one[0] in _SENTINEL_OPTIONS)
    rest = urlencode([one for one in options if one[0] not in _SENTINEL_OPTIONS])
    query = f"?{rest}" if rest else ""
    words = [unquote(one) for one in path.strip("/").split("/")] if path.strip("/") else []
    if kind == "cluster":
        if words not in ([], ["0"]):
            raise StoreUrlError("store: a cluster has no databases; the URL must end behind the hosts")
        if own:
            raise StoreUrlError(f"store: unknown option in the URL: {', '.join(sorted(own))}")
        return ParsedUrl(kind, f"{base}://{login}{at}{{place}}{query}", hosts)
    if not words or len(words) > 2 or not (len(words) == 1 or words[1].isdigit()):
        raise StoreUrlError("store: write redis+sentinel://host:port,host:port/SERVICE, with the service's name there")
    user, password = (quote(own.get(one, ""), safe="") for one in _SENTINEL_OPTIONS)
    to_sentinels = f"{user}:{password}@" if user or password else ""
    database = f"/{words[1]}" if len(words) > 1 else ""
    return ParsedUrl(
        kind,
        f"{base}://{login}{at}{{place}}{database}{query}",
        hosts,
        words[0],
        f"{base}://{to_sentinels}{{place}}{query}",
    )


def _hosts(netloc: str, port: int) -> tuple[Address, ...]:
    """Raises ValueError."""
    each = [urlsplit(f"//{one}") for one in netloc.rpartition("@")[2].split(",")]
    if not 0 < len(each) <= MAX_HOSTS or not all(one.hostname for one in each):
        raise StoreUrlError(f"store: the URL must name 1 to {MAX_HOSTS} hosts, with commas between them")
    return tuple((str(one.hostname), one.port or port) for one in each)


def _at(url: str, address: Address) -> str:
    return url.replace("{place}", show(address), 1)


def _connection(url: str, timeout: float) -> AnyConnection:
    scheme = url.partition("://")[0].lower()
    unreadable = StoreUrlError(_UNREADABLE)
    try:
        path = urlsplit(url).path
        settings: dict[str, Any] = dict(parse_url(url))
    except ValueError:
        raise unreadable from None
    if "@" in path if scheme == "unix" else path.strip("/") and not path.strip("/").isdigit():
        raise unreadable
    if unknown := settings.keys() - _URL_PARTS - (_TLS_OPTIONS if scheme == "rediss" else set()):
        raise StoreUrlError(f"store: unknown option in the URL: {', '.join(sorted(unknown))}")
    if scheme == "unix" and not settings.get("path"):
        raise StoreUrlError("store: the unix:// URL names no socket; write unix:///path/to/socket")
    kind = settings.pop("connection_class", Connection)
    connection = kind(
        **settings,
        # RESP2: no HELLO, no pushed messages, no "maintenance notifications" handshake.
        protocol=2,
        driver_info=None,
        # One limit over everything is set by StoreClient; a time limit here would cost a task for every write.
        socket_timeout=None,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 0),
    )
    assert isinstance(connection, Connection | SSLConnection | UnixDomainSocketConnection)
    return connection
