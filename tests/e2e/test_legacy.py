"""After a migration: do reports to addresses that the program before us minted come home, and do guesses not?"""

from __future__ import annotations

import asyncio
import bisect
import math
import os
import random
import statistics
from datetime import date, timedelta
from pathlib import Path

import pytest

from forwarder import srs
from forwarder.cli.demo_lab import FORWARDER, SINK, Received
from forwarder.edge.session import BAD_REVERSIBLE_AFTER
from forwarder.mail.address import parse_address
from forwarder.model import Address
from tests.e2e.lab import bounce_of, lab
from tests.peers.postsrsd import needs_postsrsd, run_postsrsd
from tests.peers.programs import needs

#: ``FORGED=1000000 ./scripts/test tests/e2e/test_legacy.py`` for the figure of docs/conformance.md.
FORGED = int(os.environ.get("FORGED", "20000"))
PROBES = int(os.environ.get("PROBES", "40"))
#: ``TIMINGS=1000 ./scripts/test -s tests/e2e/test_legacy.py`` prints the medians and the Kolmogorov-Smirnov p of each pair.
TIMINGS = int(os.environ.get("TIMINGS", "10"))
LEGACY = """\
[[srs.legacy]]
dialect = "postsrsd"
secret_file = "../postsrsd.secret"
until = 2099-12-31
"""


def reported(reversible: str) -> Received:
    """What the destination had got from the program before us."""
    header = b"Received: from old.fwd.test\r\nFrom: bob@sender.test\r\nMessage-ID: <long-ago@sender.test>\r\n\r\nx\r\n"
    return Received(SINK, "mx.fwd.test", reversible, ("hidden.destination@sink.test",), header)


def secret_of_old(folder: Path) -> Path:
    secret = folder / "postsrsd.secret"
    secret.write_text("a secret of old\n")
    secret.chmod(0o600)
    return secret


@needs_postsrsd
@needs("faketime")
@pytest.mark.parametrize("days_ago", [0, 1])
async def test_what_postsrsd_minted_yesterday_we_return_today(tmp_path: Path, days_ago: int) -> None:
    secret = secret_of_old(tmp_path)
    async with run_postsrsd(secret, "fwd.test", days_ago=days_ago) as postsrsd:
        minted = await postsrsd.mint("bob@sender.test")
    async with lab(tmp_path / "new", extra=LEGACY) as it:
        assert minted.startswith("SRS0=")
        assert (await it.bounce(reported(minted))).startswith("250")
        returned = await it.next(it.sender)
        assert returned.recipients == ("bob@sender.test",)
        assert returned.sender == ""
        assert b"hidden.destination" not in returned.data
        assert b"sink.test" not in returned.data
        (matched,) = it.journal.named("route.return_bounce")
        assert matched["unmatched"] == "another program minted the address"


@needs_postsrsd
async def test_without_the_secret_it_is_refused_and_with_a_sender_too(tmp_path: Path) -> None:
    secret = secret_of_old(tmp_path)
    async with run_postsrsd(secret, "fwd.test") as postsrsd:
        minted = await postsrsd.mint("bob@sender.test")
    async with lab(tmp_path / "without") as it:
        assert (await it.bounce(reported(minted))).startswith("550 5.1.1")
    async with lab(tmp_path / "new", extra=LEGACY) as it:
        answer = await it.send(bounce_of(reported(minted)), "eve@sink.test", minted, SINK, "mx.sink.test")
        assert answer.startswith("550")


class Prober:
    """A client that names one address after the other, and connects anew when it is hung up on."""

    def __init__(self, port: int, source: str) -> None:
        self._port = port
        self._source = source
        self._open: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, address: str) -> tuple[str, float]:
        """What RCPT says, and after how many seconds."""
        loop = asyncio.get_running_loop()
        if self._open is None:
            self._open = await asyncio.open_connection(FORWARDER, self._port, local_addr=(self._source, 0))
            for line in (b"EHLO probe.test\r\n", b"MAIL FROM:<>\r\n"):
                await self._answer()
                self._open[1].write(line)
            await self._answer()
        began = loop.time()
        self._open[1].write(f"RCPT TO:<{address}>\r\n".encode())
        answer, took = await self._answer(), loop.time() - began
        if answer.startswith("421"):
            self.close()
        return answer, took

    async def _answer(self) -> str:
        assert self._open is not None
        async with asyncio.timeout(30):
            while line := (await self._open[0].readline()).decode():
                if line[3:4] != "-":
                    return line.strip()
        raise ConnectionError("hung up without a word")

    def close(self) -> None:
        if self._open is not None:
            self._open[1].close()
        self._open = None


def forge(dice: random.Random, good: Address) -> str:
    mac = "".join(dice.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", k=14))
    head, _, tail = good.local.partition("=")[2].partition("=")
    return f"SRS0={head[0] + mac[1:]}={tail}@{good.domain}"


async def test_who_forges_over_smtp_is_cut_off_within_ten(tmp_path: Path) -> None:
    """``PROBES=20000 ./scripts/test tests/e2e/test_legacy.py`` for the figure of docs/security.md."""
    dice = random.Random(2026)
    async with lab(tmp_path) as it:
        good = srs.encode(
            parse_address("bob@sender.test"), "fwd.test", it.keys.srs_secrets(), it.app.clock.now().date()
        ).address
        prober, elsewhere = Prober(it.port, "127.0.0.66"), Prober(it.port, "127.0.0.67")
        answers = [(await prober.ask(forge(dice, good)))[0][:9] for _ in range(PROBES)]
        # The right one too, from there; from elsewhere it is as good as ever.
        assert (await prober.ask(str(good)))[0].startswith("421 4.7.0")
        assert (await elsewhere.ask(str(good)))[0].startswith("250")
        prober.close()
        elsewhere.close()
    assert answers[:10] == ["550 5.1.1"] * 10
    assert set(answers[10:]) == {"421 4.7.0"}


async def test_neither_words_nor_time_tell_why_an_address_is_refused(tmp_path: Path) -> None:
    """A bad MAC, a good MAC that is too old, and a token that the store does not know."""
    dice = random.Random(2026)
    async with lab(tmp_path, extra="[limits]\nforged_reversible = 1000\nunknown_recipients = 1000\n") as it:
        secrets, today = it.keys.srs_secrets(), it.app.clock.now().date()
        bob, long = parse_address("bob@sender.test"), parse_address(f"{'x' * 64}@sender.test")
        old = srs.encode(bob, "fwd.test", secrets, today - timedelta(days=40)).address
        unknown = srs.encode(long, "fwd.test", secrets, today)
        assert unknown.token is not None
        kinds = {"forged": forge(dice, old), "old": str(old), "unknown": str(unknown.address)}
        took: dict[str, list[float]] = {kind: [] for kind in kinds}
        said: dict[str, set[str]] = {kind: set() for kind in kinds}
        prober = Prober(it.port, "127.0.0.66")
        for _ in range(TIMINGS):
            # In any order: the first command on a connection takes longer.
            for kind in dice.sample(sorted(kinds), len(kinds)):
                answer, seconds = await prober.ask(kinds[kind])
                said[kind].add(answer)
                took[kind].append(seconds)
            prober.close()  # before it is too many errors for one session
    assert (
        said["forged"] == said["old"] == said["unknown"] == {"550 5.1.1 this return address is not valid, or no longer"}
    )
    middle = {kind: statistics.median(each) for kind, each in took.items()}
    assert min(middle.values()) >= BAD_REVERSIBLE_AFTER
    assert TIMINGS < 100 or min(kolmogorov(took[one], took[other]) for one, other in PAIRS) > 0.01
    print(middle, {f"{one} and {other}": round(kolmogorov(took[one], took[other]), 3) for one, other in PAIRS})


PAIRS = (("forged", "old"), ("forged", "unknown"), ("old", "unknown"))


def kolmogorov(one: list[float], other: list[float]) -> float:
    """The p of the two-sample Kolmogorov-Smirnov test: how likely two samples of the same thing differ as much."""
    points = sorted((*one, *other))
    a, b = sorted(one), sorted(other)
    most = max(abs(bisect.bisect_right(a, at) / len(a) - bisect.bisect_right(b, at) / len(b)) for at in points)
    scaled = most * math.sqrt(len(a) * len(b) / (len(a) + len(b)))
    return min(1.0, 2 * sum((-1) ** (k - 1) * math.exp(-2 * (k * scaled) ** 2) for k in range(1, 101)))


def test_forged_addresses_are_never_accepted() -> None:
    """Ours only: the shapes of other programs have MACs that a search this long does find, which is what the edge is for."""
    dice = random.Random(2026)
    today = date(2026, 11, 27)
    secrets = (b"0123456789abcdef0123456789abcdef",)
    good = srs.encode(parse_address("bob@sender.test"), "fwd.test", secrets, today).address
    assert isinstance(srs.decode(good, secrets, today), srs.Reversed)
    for _ in range(FORGED):
        assert srs.decode(parse_address(forge(dice, good)), secrets, today) is srs.WhyNot.BAD_MAC
