"""Hostile dialogues, played by their own runner against one running service, twice in a row.

The second time the messages have other Message-IDs: the same octets within two days are answered 250 and, rightly, not delivered
again (docs/decisions/0025-the-same-message-again.md). A third time shows that.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
from pathlib import Path

import pytest

from forwarder.app import App
from forwarder.config import load
from forwarder.keys import generate_secret
from tests.fakes import MemoryJournal
from tests.suites import badinputs

CONFIG = """\
hostname = "mx.fwd.example"
listen = ["127.0.0.1:{port}"]
[srs]
domain = "srs.fwd.example"
secret_file = "srs.secret"
[dns]
zone_file = "zone.json"
[relay]
smarthost = "127.0.0.1:{sink}"
[domains."fwd.example"]
srs_domain = "srs.fwd.example"
[domains."fwd.example".aliases]
alias = ["dest@sink.example"]
other = ["dest@sink.example"]
dup = ["dest@sink.example"]
list = ["dest@sink.example"]
postmaster = ["dest@sink.example"]
"""
#: A dialogue that only waits, 13 s each time, is left to the long run. Read here: no test sees a FORWARDER_ variable.
LEFT_OUT = set() if os.environ.get("FORWARDER_SLOW") else {"t145"}


#: Messages that are good.
ACCEPTED = ["t019", "t021", "t123", "t125"]


def renamed(folder: Path, to: Path) -> Path:
    """The same dialogues; each message has another Message-ID."""
    (to / "smtp").mkdir(parents=True)
    (to / "index.tsv").write_bytes((folder / "index.tsv").read_bytes())
    for one in (folder / "smtp").glob("t*.smtp"):
        (to / "smtp" / one.name).write_bytes(one.read_bytes().replace(b"Message-ID: <", b"Message-ID: <second."))
    return to


def free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]


@pytest.mark.timeout(180)
async def test_every_hostile_dialogue_gets_its_reply_twice_in_a_row(tmp_path: Path) -> None:
    folder = badinputs()
    names = [re.sub(r"\D*(t\d+).*", r"\1", one.name) for one in sorted((folder / "smtp").glob("t*.smtp"))]
    names = [one for one in names if one not in LEFT_OUT]
    port, sink = free_ports()
    generate_secret(tmp_path / "srs.secret")
    (tmp_path / "zone.json").write_text("{}")
    (tmp_path / "forwarder.toml").write_text(CONFIG.format(port=port, sink=sink))
    journal = MemoryJournal()
    app = App(load(tmp_path / "forwarder.toml"), journal)
    await app.start()
    try:
        for turn in ("first", "second", "again"):
            out = tmp_path / f"{turn}.tsv"
            played = renamed(folder, tmp_path / "renamed") if turn == "second" else folder
            command = ["--target", f"127.0.0.1:{port}", "--sink", f"127.0.0.1:{sink}", "--dir", str(played)]
            named = names if turn != "again" else ACCEPTED
            runner = await asyncio.create_subprocess_exec(
                sys.executable, str(folder / "run_dialogues.py"), *command, "--out", str(out), "--only", ",".join(named),
                stdout=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
            await runner.wait()
            rows = [line.split("\t") for line in out.read_text().splitlines()[1:]]
            if turn == "again":
                # Reply and copies.
                assert [row[1][:3] + row[3] for row in rows] == ["2500"] * len(ACCEPTED)
                continue
            assert [row for row in rows if "False" in row] == [], turn
            assert len(rows) == len(names) > 70
    finally:
        await app.stop(1)
    assert journal.named("fault") == []
