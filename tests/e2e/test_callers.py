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
DNSBL = """
[callers]
[[dnsbl]]
zone = "bl.test"
"""


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


POSTMASTER = "postmaster@fwd.test"
#: The sender's address in a list, which is sound.
LISTED = {
    "10.0.0.127.bl.test": {"A": ["127.0.0.2"]},
    "2.0.0.127.bl.test": {"A": ["127.0.0.2"]},
}


async def test_a_listed_client_is_refused_at_rcpt_by_the_name_of_the_list(tmp_path: Path) -> None:
    async with lab(tmp_path, top=DNSBL, zone=LISTED) as it:
        answer = await it.send(it.signed())
        assert answer.startswith(f"550 5.7.1 {SENDER} is listed by bl.test"), answer
        assert it.sink.waiting.empty()
        assert not it.events("message.received")
        assert (await it.send(it.signed(recipients=(POSTMASTER,)), recipient=POSTMASTER)).startswith("250")


async def test_what_is_not_refused_is_told_in_authentication_results(tmp_path: Path) -> None:
    reverse = {"10.0.0.127.in-addr.arpa": {"PTR": ["mx.sender.test."]}}
    top = DNSBL.replace("[callers]", "[callers]\nreject_at = 2\niprev = true")
    async with lab(tmp_path, top=top, zone=LISTED | reverse) as it:
        assert (await it.send(it.signed())).startswith("250")
        results = b" ".join((await it.next(it.sink)).data.partition(b"Received:")[0].split())
        assert b"x-dnsbl=fail dns.zone=bl.test policy.ip=127.0.0.2" in results
        assert f"iprev=pass policy.iprev={SENDER} policy.name=mx.sender.test".encode() in results


async def test_lists_that_do_not_answer_keep_no_mail_back(tmp_path: Path) -> None:
    async with lab(tmp_path, top=DNSBL.replace("[callers]", "[callers]\ntimeout = 0.2"), zone=LISTED) as it:
        it.dns.faults["10.0.0.127.bl.test"] = "TIMEOUT"
        assert (await it.send(it.signed())).startswith("250")


async def test_a_network_of_ours_is_not_asked_about(tmp_path: Path) -> None:
    top = DNSBL + '[[networks]]\nnetwork = "127.0.0.0/8"\nskip = ["dnsbl"]\n'
    async with lab(tmp_path, top=top, zone=LISTED) as it:
        assert (await it.send(it.signed())).startswith("250")
        assert not [one for one in it.dns.queries if one[0].endswith("bl.test")]


async def test_without_lists_nobody_is_asked(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        assert (await it.send(it.signed())).startswith("250")
        assert not [one for one in it.dns.queries if one[1] in ("PTR", "A") and "arpa" in one[0]]
        assert b"x-dnsbl" not in (await it.next(it.sink)).data
