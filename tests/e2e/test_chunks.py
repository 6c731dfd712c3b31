"""A forwarder hands a large message to a forwarder, in chunks (RFC 3030): our client against our own edge."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from forwarder.cli.demo_lab import FORWARDER, SENDER
from tests.e2e.lab import MESSAGE, lab
from tests.relay.bench import bench, mx, summary

BODY = b".one\r\n..two\r\n.\r\n" * 9000


async def test_our_edge_takes_what_our_client_sends_in_chunks(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        zone = mx(f"10 mx.fwd.test {FORWARDER}") | {"fwd.test": {"MX": ["10 mx.fwd.test"]}}
        async with bench(zone, it.port, sources=(ip_address(SENDER),)) as client:
            sent = it.signed(MESSAGE + BODY, recipients=("alias@fwd.test",))
            head, _, body = sent.partition(b"\r\n\r\n")
            data = (head + b"\r\n\r\n", body)
            nobody = await client.deliver("nobody@fwd.test", data=data, sender="bob@sender.test")
            outcome = await client.deliver("alias@fwd.test", "nobody@fwd.test", data=data, sender="bob@sender.test")
            assert len(client.journal.named("relay.connect")) == 1
        arrived = await it.next(it.sink)
    assert summary(nobody) == [("Failed", 550)]
    assert summary(outcome) == [("Delivered", 250), ("Failed", 550)]
    assert arrived.data.endswith(data[1])
