"""What do honest senders notice while others misbehave? A benchmark, no test.

    ./scripts/hostile flood      2,000 sessions that drip, 5,000 connections a minute, messages made to cost: times of honest mail
    ./scripts/hostile memory     20 messages of 30 MB at once, none of them ended: memory, and who is told to come back
    ./scripts/hostile late       20 messages of 29 MB at once, to their end: how long is the event loop held up?
    ./scripts/hostile bomb       200 messages a second to one alias: times of mail to another, without rates and with one
    ./scripts/hostile guesses    10,000 recipients are tried: when is it cut off, and do the answers' times tell anything?

Everything is real and on loopback: the service as a process, those who misbehave in a process of their own. Limits for each
address do not count on loopback, so that what is shown here is what is left when very many addresses attack.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable
from contextlib import suppress
from statistics import median

from bench.backlog import LISTEN, ROOT, Lab, _figures, _peak, lab, message, send

#: Seconds between two octets of one that drips.
DRIP = 5.0
#: Where those who misbehave come from: the honest one has an address of its own.
_NETWORK = "127.66"
#: Honest messages that are not counted.
WARM = 50

BOMBED = 'bombed = ["dest@h1.test"]'
#: Aliases that are not, and times that the bomb comes and goes.
OTHERS, TURNS = 10, 10
ALIAS_RATE = "[rates]\nalias = 600\n"

#: Unknown recipients that a session may name, and sessions of them that a source has in an hour, by the defaults of [limits].
A_SESSION, SESSIONS_OF_ONE = 10, 10


def bombs() -> list[bytes]:
    """Messages that are cheap to send and were made to be dear to read."""
    head = b"From: <bob@sender.test>\r\nTo: <list@fwd.test>\r\n"
    tags = b"DKIM-Signature: v=1; a=rsa-sha256; d=sender.test; s=s; h=from; bh=x; b=x; "
    nested = b"".join(b'Content-Type: multipart/mixed; boundary="b%d"\r\n\r\n--b%d\r\n' % (n, n) for n in range(5000))
    return [
        b"From: " + b'"' * 50_000 + b"\r\n\r\nx\r\n",
        b"From: " + b"(" * 50_000 + b"\r\n\r\nx\r\n",
        b"From: " + b"<a@b.test>, " * 4000 + b"\r\n\r\nx\r\n",
        head + (tags + b"\r\n") * 500 + b"\r\nx\r\n",
        head + tags + b"".join(b"t%d=1; " % n for n in range(5000)) + b"\r\n\r\nx\r\n",
        head
        + b"".join(b"ARC-Seal: i=%d; cv=none; a=rsa-sha256; d=a.test; s=s; b=x\r\n" % n for n in range(500))
        + b"\r\nx",
        head + b"X: y\r\n" * 10_000 + b"\r\nx\r\n",
        head + b"Received: from a by b\r\n" * 90 + b"\r\nx\r\n",
        head + b"MIME-Version: 1.0\r\n" + nested + b"x\r\n",
        head + b"To: " + b"someone@sender.test,\r\n " * 10_000 + b"\r\n\r\nx\r\n",
    ]


# --- those who misbehave ----------------------------------------------------------------------------------------------


async def attack(port: int, drips: int, a_minute: int, bombers: int) -> None:
    """Until it is ended. Tells in one line when all who drip are connected."""
    sources = itertools.cycle(f"{_NETWORK}.{n // 250}.{n % 250 + 1}" for n in range(4000))
    connected = 0
    dripping = []
    for number in range(drips):
        dripping.append(asyncio.create_task(drip(port, next(sources), in_message=number % 2 == 0)))
        if number % 20 == 0:
            await asyncio.sleep(0.02)
    async with asyncio.TaskGroup() as group:
        for number in range(bombers):
            group.create_task(throw(port, next(sources), bombs()[number % len(bombs())]))
        if a_minute:
            group.create_task(come_and_go(port, sources, a_minute))
        await asyncio.sleep(2)
        connected = sum(not one.done() for one in dripping)
        print(f"{connected} sessions that drip", flush=True)


async def drip(port: int, source: str, *, in_message: bool) -> None:
    """One octet now and then, of a command or of a message."""
    reader, writer = await asyncio.open_connection(LISTEN, port, local_addr=(source, 0))
    await reader.readline()
    if in_message:
        for line in (b"HELO drip.test", b"MAIL FROM:<bob@sender.test>", b"RCPT TO:<now@fwd.test>", b"DATA"):
            writer.write(line + b"\r\n")
            await reader.readline()
    while not reader.at_eof():
        await asyncio.sleep(DRIP * random.uniform(0.5, 1.5))
        writer.write(b"x")


async def come_and_go(port: int, sources: itertools.cycle[str], a_minute: int) -> None:
    """Connections that come to nothing."""
    running: set[asyncio.Task[None]] = set()
    begun = time.monotonic()
    for number in itertools.count():
        await asyncio.sleep(begun + number * 60 / a_minute - time.monotonic())
        task = asyncio.create_task(_visit(port, next(sources), number % 3))
        running.add(task)
        task.add_done_callback(running.discard)


async def _visit(port: int, source: str, kind: int) -> None:
    with suppress(OSError):
        reader, writer = await asyncio.open_connection(LISTEN, port, local_addr=(source, 0))
        lines = ((), (b"GET / HTTP/1.1",), (b"HELO a.test", b"MAIL FROM:<>", b"RCPT TO:<nobody@fwd.test>", b"QUIT"))[
            kind
        ]
        await reader.readline()
        for line in lines:
            writer.write(line + b"\r\n")
            await reader.readline()
        writer.close()


async def throw(port: int, source: str, bomb: bytes) -> None:
    """The same message, again and again, twice a second."""
    while True:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection(LISTEN, port, local_addr=(source, 0))
            await reader.readline()
            for line in (b"HELO bomb.test", b"MAIL FROM:<bob@sender.test>", b"RCPT TO:<now@fwd.test>", b"DATA"):
                writer.write(line + b"\r\n")
                await reader.readline()
            writer.write(bomb + b"\r\n.\r\n")
            await reader.readline()
            writer.close()
        await asyncio.sleep(0.5)


async def bombard(port: int, senders: int, a_second: int) -> None:
    """Until it is ended: so many messages a second in all, no two the same, each sender on one connection."""
    async with asyncio.TaskGroup() as group:
        for number in range(senders):
            source = f"{_NETWORK}.{number // 250}.{number % 250 + 1}"
            group.create_task(_bombard(port, source, number, senders / a_second))
        print("bombs away", flush=True)


async def _bombard(port: int, source: str, number: int, pause: float) -> None:
    """Comes back whenever the service ends its session, as it does after a hundred RSET."""
    count = itertools.count()
    while True:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection(LISTEN, port, local_addr=(source, 0))
            await reader.readline()
            await _told(reader, writer, b"HELO bomb.test")
            while await _throw_one(reader, writer, f"bomb{number}.{next(count)}", pause):
                pass
            writer.close()
        await asyncio.sleep(pause)


async def _throw_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str, pause: float) -> bool:
    """False: the session is over."""
    begun = time.monotonic()
    await _told(reader, writer, b"MAIL FROM:<bob@sender.test>")
    answer = await _told(reader, writer, b"RCPT TO:<bombed@fwd.test>")
    if answer.startswith(b"250"):
        await _told(reader, writer, b"DATA")
        answer = await _told(reader, writer, message(name) + b".")
    elif not answer.startswith(b"421"):
        answer = await _told(reader, writer, b"RSET")
    await asyncio.sleep(begun + pause - time.monotonic())
    return answer != b"" and not answer.startswith(b"421")


async def _told(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: bytes) -> bytes:
    writer.write(line + b"\r\n")
    return await reader.readline()


# --- the runs ---------------------------------------------------------------------------------------------------------


async def run_flood(drips: int, a_minute: int, bombers: int, probes: int) -> None:
    async with lab() as it:
        await it.start()
        print(f"nobody else:  {await honest(it, 'a', probes)}")
        begun, cpu = time.monotonic(), _cpu(it)
        attacker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.hostile", "attack", str(it.port)),
            *(str(drips), str(a_minute), str(bombers)),
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert attacker.stdout is not None
            print((await attacker.stdout.readline()).decode().strip())
            print(f"under attack: {await honest(it, 'b', probes)}")
        finally:
            attacker.terminate()
            await attacker.wait()
        share = (_cpu(it) - cpu) / (time.monotonic() - begun)
        service, store = it.memory()
        print(f"memory at the most: service {service} MiB, store {store} MiB; {share:.0%} of a core meanwhile")


async def run_bomb(senders: int, a_second: int, probes: int) -> None:
    """With the bomb and without it in turns, so that whatever else the machine does meets both."""
    for label, rates in (("without rates", ""), ("alias = 600", ALIAS_RATE)):
        async with lab() as it:
            text = it.config.read_text().replace("[domains.", rates + "[domains.", 1)
            # While the store is taken for away the rate is counted in memory, and has its room once more: a disk that stalls
            # shall not do that.
            it.config.write_text(
                "store_timeout = 5\n"
                + text.replace('["dest@h0.test"]', f'["dest@h0.test"]\n{BOMBED}\n{_others_aliases()}', 1)
            )
            await it.start()
            await _probe(it, "w", WARM)
            bomber = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bench.hostile", "bombard", str(it.port), str(senders), str(a_second)),
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdout=asyncio.subprocess.PIPE,
            )
            quiet: list[float] = []
            bombed: list[float] = []
            spent, lasted = 0.0, 0.0
            try:
                assert bomber.stdout is not None
                await bomber.stdout.readline()
                # The first are within the rate, and are delivered.
                while rates and b"rates.over" not in (it.folder / "log").read_bytes():
                    await asyncio.sleep(0.05)
                for turn in range(TURNS):
                    cpu, begun = _cpu(it), time.monotonic()
                    bombed += await _probe(it, f"b{turn}.", probes // TURNS)
                    spent, lasted = spent + _cpu(it) - cpu, lasted + time.monotonic() - begun
                    bomber.send_signal(signal.SIGSTOP)
                    # What is under way comes to its end.
                    await _probe(it, f"p{turn}.", WARM // 5)
                    quiet += await _probe(it, f"q{turn}.", probes // TURNS)
                    bomber.send_signal(signal.SIGCONT)
            finally:
                bomber.kill()
                await bomber.wait()
            print(f"nobody else:  {_told_of(quiet)}")
            print(f"bombed, {label}: {_told_of(bombed)}; {spent / lasted:.0%} of a core")
            ratios = [b / q for b, q in zip(_figures(bombed), _figures(quiet), strict=True)]
            print(f"times as long: p50 {ratios[0]:.1f}, p99 {ratios[1]:.1f}")
            print(f"{sum(one.startswith(b'bomb') for one in it.arrived)} of the bomb delivered")


def _others_aliases() -> str:
    """Of those who are not bombed: so many that none of them comes upon its own rate."""
    return "\n".join(f'other{number} = ["dest@h0.test"]' for number in range(OTHERS))


async def _probe(it: Lab, kind: str, probes: int) -> list[float]:
    return [await send(it.port, f"other{number % OTHERS}@fwd.test", f"{kind}{number}") for number in range(probes)]


def _told_of(took: list[float]) -> str:
    p50, p99 = _figures(took)
    return f"{len(took)} messages, p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {max(took) * 1000:.1f} ms"


async def honest(it: Lab, kind: str, probes: int) -> str:
    """Messages one after the other, each on a connection of its own."""
    took = [await send(it.port, "now@fwd.test", f"{kind}{number}") for number in range(probes + WARM)]
    p50, p99 = _figures(took[WARM:])
    return f"{probes} messages, p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {max(took[WARM:]) * 1000:.1f} ms"


def _cpu(it: Lab) -> float:
    """Seconds of the service's own process so far."""
    assert it.process is not None
    with open(f"/proc/{it.process.pid}/stat") as file:  # noqa: PTH123 - one line of a file in memory
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def run_memory(messages: int, megabytes: int) -> None:
    async with lab() as it:
        await it.start()
        begun = it.memory()[0]
        # The honest one after some of them, so that it is asked for a place while there is none for large ones.
        open_ones = [await _open_message(it.port, number, megabytes) for number in range(messages)]
        took = await honest(it, "m", 50)
        answers = await asyncio.gather(*(_end_message(*one) for one in open_ones))
        print(f"{messages} messages of {megabytes} MB begun: honest mail meanwhile: {took}")
        print(f"{sum(one.startswith(b'250') for one in answers)} of them taken, the others: {_others(answers)}")
        assert it.process is not None
        print(f"memory at the most: service {_peak(it.process.pid)} MiB, {begun} MiB before")


async def run_late(messages: int, megabytes: int) -> None:
    async with lab() as it:
        it.looks = it.folder / "looks"
        await it.start()
        print(f"no large message: {await _lateness(it, honest(it, 'n', 200))}")
        for number in (1, 2, 3):
            answers: list[bytes] = []

            async def large(number: int = number, answers: list[bytes] = answers) -> None:
                sessions = (_large(it.port, number * messages + one, megabytes) for one in range(messages))
                answers += await asyncio.gather(*sessions)

            print(f"{messages} of {megabytes} MB at once: {await _lateness(it, large())}", end="; ")
            print(f"{sum(one.startswith(b'250') for one in answers)} taken, the others: {_others(answers)}")
        assert it.process is not None
        print(f"memory at the most: service {_peak(it.process.pid)} MiB")


async def _lateness(it: Lab, what: Awaitable[object]) -> str:
    await it.looked()
    await what
    looks = await it.looked()
    cpu, late = sorted(looks["cpu"]), sorted(looks["late"])
    by = f"CPU in one go at most {cpu[-1]:.1f} ms, 99 of 100 looks {cpu[len(cpu) * 99 // 100]:.1f}"
    return f"{by}; late by {late[-1]:.1f} and {late[len(late) * 99 // 100]:.1f} ms"


async def _large(port: int, number: int, megabytes: int) -> bytes:
    return await _end_message(*await _open_message(port, number, megabytes))


async def _open_message(port: int, number: int, megabytes: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """All of it but the final dot."""
    reader, writer = await asyncio.open_connection(LISTEN, port, local_addr=(f"{_NETWORK}.0.{number + 1}", 0))
    await reader.readline()
    for line in (b"HELO big.test", b"MAIL FROM:<bob@sender.test>", b"RCPT TO:<now@fwd.test>", b"DATA"):
        writer.write(line + b"\r\n")
        answer = await reader.readline()
        if answer[:1] not in (b"2", b"3"):
            reader.feed_data(answer)
            return reader, writer
    writer.write(message(f"big{number}", megabytes * 1_000_000))
    await writer.drain()
    return reader, writer


async def _end_message(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    with suppress(OSError):
        writer.write(b".\r\n")
        await writer.drain()
    answer = await reader.readline()
    writer.close()
    return answer


def _others(answers: list[bytes]) -> str:
    texts = {one.partition(b" (")[0].decode().strip() for one in answers if not one.startswith(b"250")}
    return ", ".join(sorted(texts)) or "none"


async def run_guesses(recipients: int) -> None:
    async with lab() as it:
        await it.start()
        answered, sessions, cut = 0, 0, 0
        session: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        for number in range(recipients):
            if session is None:
                session = await _greeted(it.port)
                sessions += 1
            reader, writer = session
            writer.write(b"RCPT TO:<guess%d@fwd.test>\r\n" % number)
            answer = await reader.readline()
            answered += answer.startswith(b"550")
            if answer.startswith(b"421"):
                writer.close()
                cut, session = cut + 1, None
        if session is not None:
            session[1].close()
        print(f"{recipients} recipients tried by one in {sessions} sessions: {answered} answered, {cut} times cut off")
    async with lab() as it:
        text = it.config.read_text()
        it.config.write_text(text.replace('["dest@h0.test"]', '["dest@h0.test"]\noff = { enabled = false }', 1))
        await it.start()
        took: dict[bytes, list[float]] = {b"off": [], b"out": []}
        texts = set()
        sessions = -(-recipients // A_SESSION)
        for number in range(sessions):
            session = await _greeted(it.port, number // SESSIONS_OF_ONE)
            # In turn, and each as often the first: whatever else the machine does meets both.
            for name in (b"off", b"out") * (A_SESSION // 2) if number % 2 else (b"out", b"off") * (A_SESSION // 2):
                begun = time.perf_counter()
                texts.add(await _told(*session, b"RCPT TO:<" + name + b"@fwd.test>"))
                took[name].append(time.perf_counter() - begun)
            session[1].close()
        p = same_distribution(*took.values())
        off, out = (median(seen) * 1e6 for seen in took.values())
        answered = sum(map(len, took.values()))
        print(
            f"{answered} recipients tried by {-(-sessions // SESSIONS_OF_ONE)} sources in {sessions} sessions,"
            " under the usual limits"
        )
        print(
            f"disabled {off:.0f} us, unknown {out:.0f} us (medians of {answered // 2}), Kolmogorov-Smirnov p = {p:.3f}"
        )
        print(f"texts: {sorted(texts)}")


async def _greeted(port: int, source: int = 0) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    address = f"{_NETWORK}.{source // 250 + 1}.{source % 250 + 1}"
    reader, writer = await asyncio.open_connection(LISTEN, port, local_addr=(address, 0))
    await reader.readline()
    for line in (b"HELO guess.test", b"MAIL FROM:<bob@sender.test>"):
        writer.write(line + b"\r\n")
        await reader.readline()
    return reader, writer


def same_distribution(one: list[float], other: list[float]) -> float:
    """How likely so large a difference is between samples of one distribution (Kolmogorov and Smirnov, asymptotic)."""
    ordered = sorted([(value, 1 / len(one)) for value in one] + [(value, -1 / len(other)) for value in other])
    distance, at = 0.0, 0.0
    for index, (value, step) in enumerate(ordered):
        at += step
        if index + 1 == len(ordered) or ordered[index + 1][0] != value:
            distance = max(distance, abs(at))
    size = (len(one) * len(other) / (len(one) + len(other))) ** 0.5
    x = (size + 0.12 + 0.11 / size) * distance
    return min(1.0, max(0.0, 2 * sum((-1) ** (k - 1) * math.exp(-2 * k * k * x * x) for k in range(1, 101))))


def main() -> None:
    parser = argparse.ArgumentParser(prog="hostile")
    runs = parser.add_subparsers(dest="run", required=True)
    flood = runs.add_parser("flood")
    flood.add_argument("--drips", type=int, default=2000)
    flood.add_argument("--a-minute", type=int, default=5000)
    flood.add_argument("--bombers", type=int, default=10)
    flood.add_argument("--probes", type=int, default=1000)
    memory = runs.add_parser("memory")
    memory.add_argument("--messages", type=int, default=20)
    memory.add_argument("--megabytes", type=int, default=30)
    late = runs.add_parser("late")
    late.add_argument("--messages", type=int, default=20)
    late.add_argument("--megabytes", type=int, default=29)
    bomb = runs.add_parser("bomb")
    bomb.add_argument("--senders", type=int, default=20)
    bomb.add_argument("--a-second", type=int, default=200)
    bomb.add_argument("--probes", type=int, default=1000)
    thrown = runs.add_parser("bombard", help="what bomb starts in a process of its own")
    for name in ("port", "senders", "a_second"):
        thrown.add_argument(name, type=int)
    guesses = runs.add_parser("guesses")
    guesses.add_argument("--recipients", type=int, default=10_000)
    inner = runs.add_parser("attack", help="what flood starts in a process of its own")
    for name in ("port", "drips", "a_minute", "bombers"):
        inner.add_argument(name, type=int)
    args = vars(parser.parse_args())
    asyncio.run(
        {
            "flood": run_flood,
            "memory": run_memory,
            "late": run_late,
            "bomb": run_bomb,
            "guesses": run_guesses,
            "attack": attack,
            "bombard": bombard,
        }[args.pop("run")](**args)
    )


if __name__ == "__main__":
    main()
