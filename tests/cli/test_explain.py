"""cli/explain: what would happen to a message, told without sending it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from forwarder.app import open_state
from forwarder.cli import demo_lab
from forwarder.config import load
from tests.fakes import MemoryJournal
from tests.suites import ROOT

CONFIG = """\
hostname = "mx.fwd.test"
[srs]
domain = "fwd.test"
secret_file = "keys/srs.secret"
[dns]
zone_file = "zone.json"
[[keys.mailkey]]
domain = "fwd.test"
key = "keys/fwd.mailkey.pem"
[[keys.dkim]]
domain = "fwd.test"
selector = "rsa"
key = "keys/fwd.rsa.pem"
[keys.arc]
domain = "fwd.test"
selector = "rsa"
key = "keys/fwd.rsa.pem"
[domains."fwd.test".aliases]
alias = ["dest@sink.test"]
[domains."strict.test".aliases]
alias = ["dest@sink.test"]
[domains."strict.test".policy]
unauthenticated = "reject"
"""
MESSAGE = b"From: bob@sender.test\nSubject: x\n\nbody\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("explain")
    demo_lab.make_keys(path / "keys")
    zone = demo_lab.zone({})
    del zone["_dmarc.sender.test"]
    (path / "zone.json").write_text(json.dumps(zone))
    (path / "forwarder.toml").write_text(CONFIG)
    (path / "m.eml").write_bytes(MESSAGE)
    return path


def explain(folder: Path, *options: str, file: str = "m.eml") -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-P",
        "-m",
        "forwarder",
        "explain",
        str(folder / file),
        "--config",
        str(folder / "forwarder.toml"),
    ]
    return subprocess.run([*command, *options], capture_output=True, text=True, cwd=ROOT, check=False, timeout=60)


def told(folder: Path, *options: str) -> dict[str, object]:
    done = explain(folder, "--json", *options)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_a_verified_sender_is_forwarded_reversibly_and_every_byte_added_is_shown(folder: Path) -> None:
    out = told(folder, "--mail-from", "bob@sender.test", "--rcpt-to", "alias@fwd.test", "--ip", "127.0.0.10")
    assert out["route"] == "forward"
    assert out["sender_form"] == "reversible"
    assert str(out["rewritten_sender"]).endswith("=sender.test=bob@fwd.test")
    fields = out["fields_added"]
    assert isinstance(fields, list)
    assert sum(len(one.encode()) for one in fields) == out["octets_added"]
    assert [one.split(":")[0] for one in fields][-1] == "Received"


def test_an_unverified_sender_gets_no_way_back_and_a_strict_domain_refuses(folder: Path) -> None:
    options = ("--mail-from", "bob@sender.test", "--ip", "192.0.2.99", "--rcpt-to")
    assert told(folder, *options, "alias@fwd.test")["sender_form"] == "one-way"
    refused = told(folder, *options, "alias@strict.test")
    assert refused["route"] == "refuse"
    assert str(refused["reply"]).startswith("550 5.7.26")


def test_people_read_the_reason(folder: Path) -> None:
    done = explain(folder, "--mail-from", "bob@sender.test", "--rcpt-to", "alias@fwd.test", "--ip", "127.0.0.10")
    assert "forward: sender verified by spf" in done.stdout
    assert "+ Received:" in done.stdout


def test_an_unknown_alias_and_a_missing_file_are_said(folder: Path) -> None:
    assert told(folder, "--rcpt-to", "nobody@fwd.test")["route"] == "refuse"
    done = explain(folder, "--rcpt-to", "alias@fwd.test", file="absent.eml")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1


def test_the_demo_tells_its_story_and_it_holds() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "forwarder", "demo", "--once"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The story holds." in done.stdout
    assert "FAIL" not in done.stdout


# --- From ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strict(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, where the sender's domain asks for rejection."""
    path = tmp_path_factory.mktemp("strict")
    demo_lab.make_keys(path / "keys")
    (path / "zone.json").write_text(json.dumps(demo_lab.zone({})))
    (path / "forwarder.toml").write_text((folder / "forwarder.toml").read_text())
    (path / "m.eml").write_bytes(MESSAGE)
    return path


BY_SPF = ("--mail-from", "bob@sender.test", "--rcpt-to", "alias@fwd.test", "--ip", "127.0.0.10")


def test_it_is_told_why_from_stays(folder: Path) -> None:
    out = told(folder, *BY_SPF)
    assert (out["from"], out["from_rewrite"], out["from_at"]) == ("bob@sender.test", "never", [])
    assert "asks nobody to refuse" in str(out["from_reason"])


def test_it_is_told_what_would_happen_to_from_if_it_were_refused(strict: Path) -> None:
    out = told(strict, *BY_SPF)
    assert (out["from"], out["from_rewrite"]) == ("bob@sender.test", "if-known")
    assert out["from_at"] == [
        {
            "next_hop": "sink.test",
            "provider": "sink.test",
            "from": "kept",
            "because": "rewritten if that is refused, as it has not been yet",
        }
    ]
    assert not (strict / "state").exists()
    assert "from at              sink.test (sink.test): kept, rewritten if" in explain(strict, *BY_SPF).stdout


async def test_what_was_refused_before_is_read_from_the_store(strict: Path) -> None:
    settings = load(strict / "forwarder.toml")
    settings.state_dir.mkdir()
    async with open_state(settings, MemoryJournal()) as state:
        await state.refusals.note_refusal("sender.test", "sink.test")
    out = await asyncio.to_thread(told, strict, *BY_SPF)
    assert str(out["from"]).startswith('"bob at sender.test via alias"')
    (at,) = out["from_at"]  # type: ignore[misc]
    assert (at["from"], at["because"]) == ("rewritten", "this provider has refused such mail")


def test_a_policy_of_always_is_shown_with_the_from_that_leaves(strict: Path) -> None:
    config = strict / "forwarder.toml"
    kept = config.read_text()
    config.write_text(kept + '[policy]\nfrom_rewrite = "always"\n')
    try:
        out = told(strict, *BY_SPF)
    finally:
        config.write_text(kept)
    assert (out["from_rewrite"], out["from_reason"]) == ("at-once", "policy.from_rewrite is always")
    assert "via alias" in str(out["from"])
    fields = out["fields_added"]
    assert isinstance(fields, list)
    assert sum(len(one.encode()) for one in fields) == out["octets_added"]
