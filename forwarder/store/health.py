"""Is this server fit to keep mail's state? What ``forwarder`` asks of it at start-up, and what ``doctor`` shows."""

from __future__ import annotations

import re
from dataclasses import dataclass

from forwarder.ports import StoreAway
from forwarder.store.client import StoreClient

__all__ = ["Finding", "examine_store", "mended_in"]

#: The floor of our scripts: SET with NX and GET together, INFO with several sections.
LEAST_VERSION = (7, 0)
#: CVE-2025-49844: who may run scripts can take over the server. The first release of each series without it; series that are not
#: named have it where they are older than the last one here. Redis, and Valkey, which tells a version of its own.
REDIS_MENDED = {(7, 2): 11, (7, 4): 6, (8, 0): 4, (8, 2): 2}
VALKEY_MENDED = {(7, 2): 11, (8, 0): 6, (8, 1): 4}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong with the store and its cure. ``fatal``: do not start on it."""

    fatal: bool
    text: str


async def examine_store(client: StoreClient, *, ours: bool = False) -> list[Finding]:
    """What is wrong with the server; empty when all is well. ``ours``: nobody else can reach it. Raises ``StoreAway``.

    INFO alone decides what is fatal: hosted servers forbid CONFIG.
    """
    facts = _parse_info(await client.command("INFO"))
    findings = []
    version = facts.get("redis_version", "0")
    if tuple(int(one) for one in re.findall(r"\d+", version)[:2]) < LEAST_VERSION:
        findings.append(Finding(True, f"the store is Redis {version}; Redis 7.0 or Valkey 7.2 is the least"))
    if not ours and (mended := mended_in(facts)):
        findings.append(
            Finding(
                False,
                f"the store's release lets whoever may run scripts take it over (CVE-2025-49844); {mended} or later does not,"
                " unless your distribution has mended yours",
            )
        )
    if facts.get("role") not in (None, "master"):
        findings.append(Finding(True, "the store is a replica and takes no writes; give the URL of its primary"))
    if int(facts.get("connected_slaves", "0")) < client.replicas:
        findings.append(
            Finding(
                False,
                f"the store has {facts['connected_slaves']} replicas and a write counts when {client.replicas} have it"
                " (store_replicas): until then nothing is kept there",
            )
        )
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        # Measured: a third of the tokens silently gone with allkeys-lru and with volatile-lru alike.
        findings.append(
            Finding(
                True,
                f"the store drops keys when memory is short (maxmemory-policy {policy}), and with them"
                " what bounces need; set maxmemory-policy noeviction",
            )
        )
    if facts.get("aof_enabled") == "0":
        findings.append(
            Finding(False, "the store keeps no append-only file: a restart loses mail's state; set appendonly yes")
        )
    elif facts.get("aof_last_write_status", "ok") != "ok":
        findings.append(Finding(False, "the store cannot write its append-only file: is its disk full?"))
    elif not ours and await _fsync_policy(client) in (b"everysec", b"no"):
        findings.append(
            Finding(False, "a power cut loses the store's last second, mail included; set appendfsync always")
        )
    return findings


def mended_in(facts: dict[str, str]) -> str | None:
    """The release to go to, by what INFO tells; ``None``: this one may stay."""
    name, first, told = "Redis", REDIS_MENDED, facts.get("redis_version", "0")
    if "valkey_version" in facts:
        name, first, told = "Valkey", VALKEY_MENDED, facts["valkey_version"]
    major, minor, patch, *_ = (*(int(one) for one in re.findall(r"\d+", told)[:3]), 0, 0, 0)
    series = (major, minor)
    if series > max(first) or patch >= first.get(series, 1 << 30):
        return None
    later = min((one for one in first if one >= series), default=max(first))
    return f"{name} {later[0]}.{later[1]}.{first[later]}"


async def _fsync_policy(client: StoreClient) -> bytes | None:
    """None where the server does not let us ask."""
    try:
        reply = await client.command("CONFIG", "GET", "appendfsync", quiet=True)
    except StoreAway:
        return None
    return reply[1] if reply else None


def _parse_info(text: bytes) -> dict[str, str]:
    lines = text.decode("utf-8", "replace").splitlines()
    return {name: value for name, colon, value in (line.partition(":") for line in lines) if colon}
