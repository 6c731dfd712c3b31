"""Who is calling? Proxies and mail servers of ours in front of the service say so, and then the sender's own address counts."""

from __future__ import annotations

import asyncio
import smtplib
from pathlib import Path

from forwarder.cli.demo_lab import FORWARDER, SENDER, free_port
from tests.e2e.lab import MESSAGE, lab
from tests.e2e.test_smuggling import Wire
from tests.e2e.test_store_away import store_stopped, until_250
from tests.peers.postfix import needs_postfix, needs_root, postfix
from tests.waiting import HASTY, until

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


async def test_nothing_waits_for_the_lists_but_rcpt(tmp_path: Path) -> None:
    async with lab(tmp_path, top=DNSBL, zone=LISTED) as it:
        it.dns.gate.clear()
        reader, writer = await asyncio.open_connection(FORWARDER, it.port, local_addr=(SENDER, 0))
        async with asyncio.timeout(30):
            assert (await reader.readline()).startswith(b"220 ")
            await until(lambda: ("10.0.0.127.bl.test", "A", "udp") in it.dns.queries)
            writer.write(b"EHLO mx.sender.test\r\n")
            while (await reader.readline())[3:4] == b"-":
                pass
            writer.write(b"MAIL FROM:<bob@sender.test>\r\n")
            assert (await reader.readline()).startswith(b"250 ")
            writer.write(b"RCPT TO:<nobody@fwd.test>\r\n")
            assert (await reader.readline()).startswith(b"550 5.1.1")
            writer.write(b"RCPT TO:<alias@fwd.test>\r\nRCPT TO:<team@fwd.test>\r\n")
            it.dns.gate.set()
            for _ in range(2):
                assert b"is listed by bl.test" in await reader.readline()
        assert len(it.events("caller.listed")) == 1
        writer.close()


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


async def test_the_name_of_the_relay_that_forwards_is_not_held_against_the_client(tmp_path: Path) -> None:
    port = free_port(FORWARDER)
    listener = f'{{ address = "{FORWARDER}:{port}", xforward = ["{SENDER}/32"] }}'
    top = "[callers]\nhelo = true\nhelo_weights = { ours = 0.6 }"
    async with lab(tmp_path, listeners=listener, zone={"mailkey.sender.test": {}}, top=top) as it:
        reader, writer = await asyncio.open_connection(FORWARDER, port, local_addr=(SENDER, 0))
        peer = Wire(reader, writer)
        await peer.line()
        for command in (
            b"EHLO mx.fwd.test",
            b"XFORWARD NAME=[UNAVAILABLE] ADDR=127.0.0.66 PORT=40000",
            b"XFORWARD PROTO=ESMTP HELO=[UNAVAILABLE] SOURCE=REMOTE",
            b"MAIL FROM:<bob@sender.test>",
            b"RCPT TO:<alias@fwd.test>",
        ):
            assert (await peer.ask(command)).startswith("250"), command
        assert (await peer.ask(b"DATA")).startswith("354")
        peer.say(MESSAGE.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        assert (await peer.line())[:1] in "25"
        writer.close()
        [verified] = it.events("message.verified")
        assert "helo_name" not in verified
        assert "127.0.0.66" not in {one["ip"] for one in it.events("caller.helo")}


async def test_what_a_client_calls_itself_is_told_and_nothing_follows(tmp_path: Path) -> None:
    async with lab(tmp_path, top="[callers]\nhelo = true") as it:
        assert (await it.send(it.signed())).startswith("250")
        results = b" ".join((await it.next(it.sink)).data.partition(b"Received:")[0].split())
        assert b"x-helo=pass smtp.helo=mx.sender.test policy.helo=resolves" in results
        assert (await it.send(it.signed(MESSAGE.replace(b"<one@", b"<two@")), helo="localhost")).startswith("250")
        results = b" ".join((await it.next(it.sink)).data.partition(b"Received:")[0].split())
        assert b"x-helo=fail" in results
        assert b"policy.helo=short" in results
        assert [one["helo_name"] for one in it.events("message.verified")] == ["resolves", "short"]
        assert not it.events("caller.helo")


async def test_what_it_calls_itself_counts_as_a_list_does_where_the_operator_says_so(tmp_path: Path) -> None:
    top = DNSBL.replace("[callers]", "[callers]\nhelo = true\nhelo_weights = { ours = 0.6, short = 0.4 }")
    top = top.replace('zone = "bl.test"', 'zone = "bl.test"\nweight = 0.5')
    async with lab(tmp_path, top=top, zone=LISTED) as it:
        assert (await it.send(it.signed(), helo="localhost")).startswith("250")
        answer = await it.send(it.signed(), helo="mx.fwd.test")
        assert answer.startswith("550 5.7.1 the name that you gave with EHLO is ours"), answer
        assert it.events("rcpt.refused")[0]["reason"] == "EHLO: ours, score 1.1"
        assert (await it.send(it.signed(recipients=(POSTMASTER,)), recipient=POSTMASTER, helo="fwd.test")).startswith(
            "250"
        )


GREYLIST = "[greylist]\nenabled = true\ndelay = 0.3\n"
#: Nothing vouches for bob.
UNKNOWN: dict[str, dict[str, list[str]]] = {
    "mailkey.sender.test": {},
    "_dmarc.sender.test": {},
    "sender.test": {"MX": ["10 mx.sender.test."]},
    "mx.sender.test": {"A": [SENDER]},
}


async def test_whom_nobody_vouches_for_comes_back_once(tmp_path: Path) -> None:
    async with lab(tmp_path, extra=GREYLIST, zone=UNKNOWN) as it:
        answer = await it.send(MESSAGE)
        assert answer.startswith("451 4.7.1 we do not know you yet; try again in 1 seconds"), answer
        assert it.sink.waiting.empty()
        await until_250(lambda: it.send(MESSAGE))
        assert (await it.next(it.sink)).data.endswith(MESSAGE.partition(b"\r\n\r\n")[2])
        # Its network has come back: it is a mail server.
        assert (await it.send(MESSAGE.replace(b"<one@", b"<two@"), sender="eve@sender.test")).startswith("250")


async def test_whom_a_check_vouches_for_never_waits(tmp_path: Path) -> None:
    async with lab(tmp_path, extra=GREYLIST.replace("0.3", "300")) as it:
        assert (await it.send(it.signed())).startswith("250")


async def test_only_whom_lists_know_may_have_to_come_back(tmp_path: Path) -> None:
    extra = GREYLIST.replace("0.3", "300\nfrom_score = 0.5")
    top = DNSBL.replace("[callers]", "[callers]\nreject_at = 2")
    for zone, want in (({}, "250"), (LISTED, "451 4.7.1")):
        (tmp_path / want[:3]).mkdir()
        async with lab(tmp_path / want[:3], top=top, extra=extra, zone=UNKNOWN | zone) as it:
            assert (await it.send(MESSAGE)).startswith(want)


async def test_networks_of_ours_and_postmaster_never_wait(tmp_path: Path) -> None:
    extra = GREYLIST.replace("0.3", "300")
    async with lab(tmp_path, extra=extra, zone=UNKNOWN) as it:
        assert (await it.send(MESSAGE, recipient=POSTMASTER)).startswith("250")
    (tmp_path / "ours").mkdir()
    top = '[[networks]]\nnetwork = "127.0.0.0/8"\nskip = ["greylist"]\n'
    async with lab(tmp_path / "ours", top=top, extra=extra, zone=UNKNOWN) as it:
        assert (await it.send(MESSAGE)).startswith("250")


async def test_with_the_store_away_nobody_waits(tmp_path: Path) -> None:
    async with lab(tmp_path, store_timeout=HASTY, extra=GREYLIST.replace("0.3", "300"), zone=UNKNOWN) as it:
        with store_stopped(it):
            assert (await it.send(MESSAGE)).startswith("250")
        assert it.events("ledger.away")[0]["step"] == "greylist"
