"""What waits in the queues of these tests, and what they ask a store."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address

from forwarder.model import Address, BodyKind, Delivery, Envelope, Notice, Peer, Recipient, SecondForm, Tls
from forwarder.ports import Claimed, Forwarded, Held, Waiting
from forwarder.store.client import StoreClient
from forwarder.store.queue import RedisQueue

NOW = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
BOB, ALIAS = Address("bob", "sender.example"), Address("alias", "fwd.example")
BODY = b"body\r\n"
#: NOTIFY, ORCPT and ENVID.
ASKED = ("FAILURE", "rfc822;alias@fwd.example", "QQ314159")
CLIENT = "192.0.2.1"
ENVELOPE = Envelope(
    "e1",
    Peer(IPv4Address(CLIENT), "mx.sender.example", tls=Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384")),
    BOB,
    (Recipient(ALIAS, "FAILURE", "rfc822;alias@fwd.example"),),
    NOW,
    smtputf8=True,
    body=BodyKind.EIGHT_BIT_MIME,
    envid="QQ314159",
    ret="HDRS",
)


def held(
    id: str = "e1.0",  # noqa: A002 - what Held calls it
    next_hop: str = "dest.example",
    *,
    body: bytes = BODY,
    head: bytes = b"Subject: x\r\n\r\n",
    recipients: int = 1,
) -> Held:
    destinations = tuple(Address(f"d{number}", next_hop) for number in range(recipients))
    reversible = Address("SRS0=x", "fwd.example")
    return Held(
        id=id,
        delivery=Delivery("e1", reversible, destinations, next_hop, (head, body), NOW + timedelta(days=5)),
        waiting=tuple(
            Waiting(
                ALIAS, bytes([number]) * 32, Forwarded(reversible, BOB, ALIAS, one, "<1@x>", "e1", NOW, *ASKED, CLIENT)
            )
            for number, one in enumerate(destinations)
        ),
        envelope=ENVELOPE,
        report_to=BOB,
        srs_domain="fwd.example",
        header_at=0,
        queued_at=NOW,
    )


def asking() -> Held:
    one = held(recipients=2)
    notices = (Notice("SUCCESS", "rfc822;alias@fwd.example"), Notice())
    delivery = replace(one.delivery, notices=notices, envid="QQ314159", ret="HDRS")
    return replace(one, delivery=delivery, maybe_dup=True, delay_told=True)


def rewritable() -> Held:
    one = asking()
    second = SecondForm(one.waiting[0].alias, one.srs_domain, "author.example", one.header_at, ask=True)
    return replace(one, delivery=replace(one.delivery, second=second))


async def claim(
    queue: RedisQueue, lease: str = "one", *, seconds: float = 60, limit: int = 10, each: int = 5
) -> list[Claimed]:
    return list(await queue.claim(lease, seconds=seconds, limit=limit, per_destination=each))


async def pass_time(client: StoreClient, seconds: float) -> None:
    """On the store's own clock: it answers when that time is over."""
    await client.command("BLPOP", "{fwd0}:nothing", str(seconds))


async def store_time(client: StoreClient) -> float:
    seconds, micros = await client.command("TIME")
    return int(seconds) + int(micros) / 1e6


async def end_leases(client: StoreClient) -> None:
    """As if their time had passed."""
    for item in await client.command("ZRANGE", "{fwd0}:ql", 0, -1):
        await client.command("ZADD", "{fwd0}:ql", 0, item)


async def keys(client: StoreClient, kind: bytes) -> list[bytes]:
    return [one for one in await client.command("KEYS", "*") if b":%b:" % kind in one]


async def commands_run(client: StoreClient) -> int:
    """By clients and by scripts, since CONFIG RESETSTAT."""
    stats = (await client.command("INFO", "commandstats")).decode()
    return sum(int(line.split("calls=")[1].split(",")[0]) for line in stats.splitlines() if "calls=" in line)


async def octets_in_store(client: StoreClient) -> int:
    heads = [await client.command("HSTRLEN", one, "h") for one in await keys(client, b"qi")]
    bodies = [await client.command("HSTRLEN", one, "o") for one in await keys(client, b"qb")]
    return sum(heads) + sum(bodies)
