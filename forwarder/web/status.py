"""How are we? Numbers for Prometheus, and the two questions that load balancers and service managers ask.

/metrics    numbers of all workers
/healthz    200: the event loop turns
/readyz     200: send mail here; 503 and a reason in one line: not now
            ?degraded=ok: 200 also for what takes part of the mail only
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from aiohttp import web
from aiohttp.typedefs import Handler

__all__ = ["LOOPBACK", "status_routes"]

Network = IPv4Network | IPv6Network

LOOPBACK: tuple[Network, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
_FRESH = {"Cache-Control": "no-store"}


def status_routes(
    page: Callable[[], Awaitable[bytes]],
    page_type: str,
    state: Callable[[], Awaitable[tuple[str | None, str | None]]],
    allow: Sequence[Network],
) -> list[web.RouteDef]:
    """``state``: why no mail can be taken, and what keeps part of it out; ``None``: nothing. ``allow``: who may ask, besides
    this host."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=await page(), headers={"Content-Type": page_type, **_FRESH})

    async def health(_: web.Request) -> web.Response:
        return web.Response(text="alive\n", headers=_FRESH)

    async def ready(request: web.Request) -> web.Response:
        why_not, degraded = await state()
        if why_not is not None:
            return web.Response(status=503, text=f"{why_not}\n", headers=_FRESH)
        if degraded is not None:
            status = 200 if request.query.get("degraded") == "ok" else 503
            return web.Response(status=status, text=f"degraded: {degraded}\n", headers=_FRESH)
        return web.Response(text="ready\n", headers=_FRESH)

    networks = (*LOOPBACK, *allow)

    def guarded(handler: Handler) -> Handler:
        async def serve(request: web.Request) -> web.StreamResponse:
            if not _is_within(request.remote, networks):
                return web.Response(status=403, text="metrics.allow does not name your network\n")
            return await handler(request)

        return serve

    paths = {"/metrics": metrics, "/healthz": health, "/readyz": ready}
    return [web.get(path, guarded(handler)) for path, handler in paths.items()]


def _is_within(remote: str | None, networks: Sequence[Network]) -> bool:
    try:
        ip = ip_address((remote or "").partition("%")[0])
    except ValueError:
        return False
    return any(ip in network for network in networks)
