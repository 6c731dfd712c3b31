"""Which mailkey records do we publish over HTTPS? Our own, at their RFC 8615 place (docs/mailkey.md section 4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aiohttp import web

__all__ = ["MAX_AGE", "mailkey_routes"]

#: Seconds that readers may keep a record; a rotation waits longer than this before it signs with a new key.
MAX_AGE = 3600


def mailkey_routes(current: Callable[[], Mapping[tuple[str, str], str]]) -> list[web.RouteDef]:
    """``current``, asked anew each time as keys come and go: (domain in A-labels, selector or ``""``) → record."""

    async def serve(request: web.Request) -> web.Response:
        host, records = _host_name(request.headers.get("Host", "")), current()
        if not any(host == f"mailkey.{domain}" for domain, _ in records):
            # RFC 9110 section 15.5.1; said of every name that is not ours, the address of this host included.
            return web.Response(status=400, text="no mailkey host of this name is here\n")
        record = records.get((host.removeprefix("mailkey."), request.match_info.get("selector", "").lower()))
        if record is None:
            return web.Response(status=404, text="no such key\n", headers={"Cache-Control": "max-age=60"})
        return web.Response(text=f"{record}\n", headers={"Cache-Control": f"max-age={MAX_AGE}"})

    # add_get answers HEAD too (RFC 9110 section 9.3.2); any other method is 405.
    return [web.get("/.well-known/mailkey", serve), web.get("/.well-known/mailkey/{selector}", serve)]


def _host_name(host: str) -> str:
    """RFC 9110 section 7.2: without the port, in lower case."""
    return host.partition(":")[0].rstrip(".").lower()
