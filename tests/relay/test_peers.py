"""The relay against SMTP servers that others wrote: aiosmtpd, and Postfix's smtp-sink where it is installed."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from forwarder.cli.freeport import free_port
from tests.relay.bench import MESSAGE, ONE, bench, short, summary
from tests.relay.conftest import Certificates

SENT = b"".join(MESSAGE)
SINK = shutil.which("smtp-sink", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

needs_sink = pytest.mark.skipif(SINK is None, reason="Postfix's smtp-sink is not installed")


# --- aiosmtpd


class _Handler:
    def __init__(self) -> None:
        self.taken: list[Envelope] = []
        self.over_tls: list[bool] = []

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("no@"):
            return "550 5.1.1 nobody"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 fine"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.taken.append(envelope)
        self.over_tls.append(session.ssl is not None)
        return "250 2.0.0 taken"


@asynccontextmanager
async def aiosmtpd(handler: _Handler, certificates: Certificates | None = None) -> AsyncIterator[int]:
    context = certificates.server if certificates else None
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(handler, enable_SMTPUTF8=True, tls_context=context, loop=loop), "127.0.0.1"
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.mark.parametrize("tls", [False, True], ids=["clear", "tls"])
async def test_aiosmtpd_takes_messages(tls: bool, certificates: Certificates) -> None:
    handler = _Handler()
    async with aiosmtpd(handler, certificates if tls else None) as port, bench(ONE, port) as it:
        first = await it.deliver("a@sink.test", "no@sink.test")
        second = await it.deliver("b@sink.test", sender=None)
        assert len(it.journal.named("relay.connect")) == 1
    assert summary(first) == [("Delivered", 250), ("Failed", 550)]
    assert summary(second) == [("Delivered", 250)]
    assert [one.original_content for one in handler.taken] == [SENT] * 2
    assert [one.mail_from for one in handler.taken] == ["s@us.test", "<>"]
    assert handler.over_tls == [tls] * 2


async def test_aiosmtpd_takes_smtputf8() -> None:
    handler = _Handler()
    data = ("Subject: h\u00e9\r\n".encode(), b"\r\n", "\u00e9\r\n".encode())
    async with aiosmtpd(handler) as port, bench(ONE, port) as it:
        assert summary(await it.deliver("h\u00e9@sink.test", data=data, smtputf8=True)) == [("Delivered", 250)]
    (taken,) = handler.taken
    assert (taken.rcpt_tos, taken.original_content, taken.smtp_utf8) == (["h\u00e9@sink.test"], b"".join(data), True)


# --- Postfix


@pytest.fixture
def folder() -> Iterator[Path]:
    """smtp-sink gives up root before it writes, and could not enter pytest's own folders then."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


@asynccontextmanager
async def smtp_sink(folder: Path, *options: str) -> AsyncIterator[int]:
    """smtp-sink with one dump file per message in ``folder``."""
    assert SINK is not None
    port = free_port("127.0.0.1")
    user = ["-u", "nobody"] if os.getuid() == 0 else []
    process = await asyncio.create_subprocess_exec(
        SINK,
        *user,
        "-d",
        str(folder / "mail."),
        *options,
        f"127.0.0.1:{port}",
        "100",
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(30):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                except OSError:
                    await asyncio.sleep(0.01)
        yield port
    finally:
        process.kill()
        await process.wait()


def dumped(folder: Path) -> list[bytes]:
    """What was taken; smtp-sink writes its own header fields above, an empty line below, and LF line ends."""
    texts = [path.read_bytes().replace(b"\n", b"\r\n") for path in sorted(folder.iterdir())]
    return [text[text.index(b"From: ") :].removesuffix(b"\r\n") for text in texts if b"From: a@a.test" in text]


@needs_sink
@pytest.mark.parametrize(
    "options", [[], ["-p"], ["-e"], ["-8"]], ids=["all", "no pipelining", "no ESMTP", "no 8BITMIME"]
)
async def test_smtp_sink_takes_messages(folder: Path, options: list[str]) -> None:
    async with smtp_sink(folder, *options) as port, bench(ONE, port) as it:
        for _ in range(3):
            assert summary(await it.deliver("a@sink.test", "b@sink.test")) == [("Delivered", 250)] * 2
        assert len(it.journal.named("relay.connect")) == 1
    assert dumped(folder) == [SENT] * 3


@needs_sink
@pytest.mark.parametrize("verb", ["CONNECT", "MAIL", "RCPT", "DATA", "."])
@pytest.mark.parametrize(
    ("option", "expected"),
    [("-f", ("Failed", 500)), ("-r", ("Deferred", 450)), ("-Q", ("Deferred", 421)), ("-q", ("Deferred", None))],
)
async def test_smtp_sink_refuses(folder: Path, verb: str, option: str, expected: tuple[str, int | None]) -> None:
    async with smtp_sink(folder, option, verb) as port, bench(ONE, port) as it:
        assert summary(await it.deliver()) == [expected]


@needs_sink
async def test_smtp_sink_refuses_in_the_middle_of_a_message(folder: Path) -> None:
    async with smtp_sink(folder, "-A", "0") as port, bench(ONE, port, short(block=2)) as it:
        outcome = await it.deliver(data=(*MESSAGE[:2], (b"x" * 78 + b"\r\n") * 200_000))
    assert summary(outcome) == [("Failed", 550)]


@needs_sink
async def test_many_at_once_reach_smtp_sink(folder: Path) -> None:
    async with smtp_sink(folder) as port, bench(ONE, port, connections=5) as it:
        outcomes = await asyncio.gather(*(it.deliver() for _ in range(100)))
    assert [summary(one) for one in outcomes] == [[("Delivered", 250)]] * 100
    assert dumped(folder) == [SENT] * 100
