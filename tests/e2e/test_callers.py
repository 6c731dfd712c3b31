"""Who is calling? Proxies and mail servers of ours in front of the service say so, and then the sender's own address counts."""

from __future__ import annotations

import asyncio
import smtplib
from pathlib import Path

from forwarder.cli.demo_lab import FORWARDER, SENDER, free_port
from tests.e2e.lab import MESSAGE, lab
from tests.peers.postfix import needs_postfix, needs_root, postfix

#: Where a mail server of ours stands in front of the service.
FRONT = "127.0.0.51"


async def test_a_message_through_a_proxy_is_checked_by_the_senders_address(tmp_path: Path) -> None:
    port = free_port(FORWARDER)
    listener = f'{{ address = "{FORWARDER}:{port}", proxy = ["127.0.0.0/8"] }}'

    def talk() -> None:
        with smtplib.SMTP(timeout=20) as client:
            client.sock = client._get_socket(FORWARDER, port, 20)  # type: ignore[attr-defined]
            client.file = None
            client.sock.sendall(f"PROXY TCP4 {SENDER} {FORWARDER} 40000 25\r\n".encode())
            assert client.getreply()[0] == 220
            client.sendmail("bob@sender.test", ["alias@fwd.test"], MESSAGE)

    # The sender signs nothing: SPF alone tells, and it names the sender's address.
    async with lab(tmp_path, listeners=listener, zone={"mailkey.sender.test": {}}) as it:
        await asyncio.to_thread(talk)
        arrived = await it.next(it.sink)
        [verified] = it.events("message.verified")
        assert verified["spf"] == "pass"
        assert f"[{SENDER}]".encode() in arrived.data


@needs_postfix
@needs_root
async def test_postfix_in_front_says_by_xforward_where_a_message_came_from(tmp_path: Path) -> None:
    port = free_port(FORWARDER)
    listener = f'{{ address = "{FORWARDER}:{port}", xforward = ["{FRONT}/32"] }}'

    def talk(host: str, to: int) -> None:
        with smtplib.SMTP(host, to, "mx.sender.test", timeout=20, source_address=(SENDER, 0)) as client:
            client.sendmail("bob@sender.test", ["alias@fwd.test"], MESSAGE)

    async with lab(tmp_path, listeners=listener, zone={"mailkey.sender.test": {}}) as it:
        settings = {
            "relay_domains": "fwd.test",
            "relayhost": f"[{FORWARDER}]:{port}",
            "smtp_send_xforward_command": "yes",
        }
        async with postfix(FRONT, it.port, "front.fwd.test", settings):
            await asyncio.to_thread(talk, FRONT, it.port)
            arrived = await it.next(it.sink)
        [received] = it.events("message.received")
        assert (received["ip"], received["helo"]) == (SENDER, "mx.sender.test")
        assert it.events("message.verified")[0]["spf"] == "pass"
        assert arrived.data.count(b"\r\nReceived:") >= 1
