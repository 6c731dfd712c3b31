"""Every test of the relay runs on both event loops that it is used with."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
import uvloop

from forwarder.edge.tls import make_self_signed


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


#: Long ago.
_PAST = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Certificates:
    """``servers`` has a context for each kind of certificate, ``server`` the good one; ``roots`` is the PEM file of the
    authority behind it."""

    servers: dict[str, ssl.SSLContext]
    roots: str

    @property
    def server(self) -> ssl.SSLContext:
        return self.servers["good"]


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """For mx.sink.test, good and not so good."""
    authority = trustme.CA()
    roots: Path = tmp_path_factory.mktemp("tls") / "roots.pem"
    authority.cert_pem.write_to_path(str(roots))
    leaves = {
        "good": authority.issue_cert("mx.sink.test"),
        "expired": authority.issue_cert("mx.sink.test", not_before=_PAST, not_after=_PAST + timedelta(days=1)),
        "wrong name": authority.issue_cert("mx.elsewhere.test"),
        "other authority": trustme.CA().issue_cert("mx.sink.test"),
    }
    servers = {kind: _server() for kind in (*leaves, "self-signed")}
    for kind, leaf in leaves.items():
        leaf.configure_cert(servers[kind])
    servers["self-signed"].load_cert_chain(*make_self_signed(roots.parent, "mx.sink.test", datetime.now(UTC)))
    return Certificates(servers, str(roots))


def _server() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
