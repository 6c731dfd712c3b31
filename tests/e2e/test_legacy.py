"""After a migration: do reports to addresses that the program before us minted come home, and do guesses not?"""

from __future__ import annotations

import os
import random
from datetime import date
from pathlib import Path

import pytest

from forwarder import srs
from forwarder.cli.demo_lab import SINK, Received
from forwarder.mail.address import parse_address
from tests.e2e.lab import bounce_of, lab
from tests.peers.postsrsd import needs_postsrsd, run_postsrsd
from tests.peers.programs import needs

#: ``FORGED=1000000 ./scripts/test tests/e2e/test_legacy.py`` for the figure of docs/conformance.md.
FORGED = int(os.environ.get("FORGED", "20000"))
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


def test_forged_addresses_are_never_accepted() -> None:
    """Ours only: the shapes of other programs have MACs that a search this long does find, which is what the edge is for."""
    dice = random.Random(2026)
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    today = date(2026, 11, 27)
    secrets = (b"0123456789abcdef0123456789abcdef",)
    good = srs.encode(parse_address("bob@sender.test"), "fwd.test", secrets, today).address
    assert isinstance(srs.decode(good, secrets, today), srs.Reversed)
    head, _, tail = good.local.partition("=")[2].partition("=")
    for _ in range(FORGED):
        mac = "".join(dice.choices(letters, k=14))
        forged = parse_address(f"SRS0={head[0] + mac[1:]}={tail}@fwd.test")
        assert srs.decode(forged, secrets, today) is srs.WhyNot.BAD_MAC
