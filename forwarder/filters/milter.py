"""What does a milter say of a message? ``forwarder.milter`` over a socket, a connection for each message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from forwarder.filters import FilterFault, Told
from forwarder.mail.address import wire
from forwarder.milter import Broken, Finished, MilterClient, MilterMail, Phase
from forwarder.model import ContentCheck, Result

__all__ = ["Milter", "MilterTimes"]

#: Octets that are read at once.
_READ = 1 << 16


@dataclass(frozen=True, slots=True)
class MilterTimes:
    """Seconds: to connect, for one answer, for the answer to the end of the message (again after each sign of life), and for all
    of it."""

    connect: float = 5.0
    command: float = 10.0
    end: float = 30.0
    total: float = 60.0


class Milter:
    """``socket``: ``inet:host:port`` or ``unix:/path``."""

    def __init__(self, name: str, socket: str, times: MilterTimes, *, hostname: str) -> None:
        self.name = name
        self._socket = socket
        self._times = times
        self._hostname = hostname

    async def check(self, told: Told) -> ContentCheck:
        """See ``Filter``."""
        try:
            async with asyncio.timeout(self._times.total), self._connected() as (reader, writer):
                ended = await self._talk(MilterClient(self._mail(told)), reader, writer)
        except TimeoutError:
            raise FilterFault(f"not done within {self._times.total:g} s") from None
        except OSError:
            raise FilterFault("the connection failed") from None
        if isinstance(ended, Broken):
            raise FilterFault(ended.reason)
        return ContentCheck(self.name, ended.action, fields=ended.fields, undone=ended.undone, said=ended.said[:200])

    async def aclose(self) -> None:
        """See ``Filter``: nothing is open between two messages."""

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        kind, _, place = self._socket.partition(":")
        host, _, port = place.rpartition(":")
        opening = (
            asyncio.open_unix_connection(place)
            if kind == "unix"
            else asyncio.open_connection(host.strip("[]"), int(port))
        )
        try:
            reader, writer = await asyncio.wait_for(opening, self._times.connect)
        except TimeoutError:
            raise FilterFault(f"no connection within {self._times.connect:g} s") from None
        except OSError:
            raise FilterFault("cannot connect") from None
        try:
            yield reader, writer
        finally:
            # What was written last, QUIT, may still go; nobody waits for it.
            writer.close()

    async def _talk(
        self, client: MilterClient, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Finished | Broken:
        client.start()
        while True:
            limit = self._times.end if client.phase is Phase.END else self._times.command
            try:
                async with asyncio.timeout(limit):
                    await _write(client, writer)
                    data = await reader.read(_READ)
            except TimeoutError:
                raise FilterFault(f"no answer within {limit:g} s ({client.phase.value})") from None
            ended = client.receive_data(data)
            if ended is not None:
                with suppress(OSError):
                    writer.writelines(client.take_output())
                return ended

    def _mail(self, told: Told) -> MilterMail:
        envelope, message = told.envelope, told.message
        peer, sender = envelope.peer, envelope.sender
        iprev = envelope.caller.iprev if envelope.caller is not None else None
        known = iprev is not None and iprev.result is Result.PASS and iprev.name
        name = known or f"[{peer.ip}]"
        return MilterMail(
            ip=peer.ip,
            name=name,
            helo=peer.helo,
            sender=wire(sender),
            recipients=[wire(one) for one in told.recipients],
            # The name as it was spelled.
            fields=[(one.raw[: one.raw.index(b":")], one.value) for one in message.fields],
            body=message.body,
            macros={step: list(found) for step, found in self._macros(told, name)},
        )

    def _macros(self, told: Told, name: str) -> Iterator[tuple[str, Iterator[tuple[str, str]]]]:
        """Those that filters read, in braces where their names have more than one letter."""
        envelope, peer = told.envelope, told.envelope.peer
        ip = f"IPv6:{peer.ip}" if peer.ip.version == 6 else peer.ip_text
        shown = name if name.startswith("[") else f"{name} [{ip}]"
        yield "connect", iter((("j", self._hostname), ("{daemon_name}", "mailkey-forwarder"), ("_", shown)))
        if peer.tls is not None:
            yield "helo", iter((("{tls_version}", peer.tls.version), ("{cipher}", peer.tls.cipher)))
        about = [("i", envelope.id), ("{mail_addr}", str(envelope.sender or ""))]
        if envelope.identity is not None:
            about.append(("{auth_authen}", envelope.identity.name))
        yield "mail", iter(about)
        yield "end", iter((("i", envelope.id),))


async def _write(client: MilterClient, writer: asyncio.StreamWriter) -> None:
    """Until the filter's turn comes."""
    while chunks := client.take_output():
        writer.writelines(chunks)
        await writer.drain()
