"""docs/mailkey-for-senders.md, followed literally: every block is run as it stands, in order, in an empty folder.

What a ``text`` block shows is what the block before it must print; ``…`` stands for anything. The reader's part, a name
server that serves sender.example.zone, is a real one on loopback.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from forwarder.mailkey import averify
from tests.peers.dns_server import DnsServer, run_dns_server
from tests.suites import ROOT

DOCUMENT = ROOT / "docs/mailkey-for-senders.md"
#: Seconds for one block.
LIMIT = 60


@dataclass(frozen=True, slots=True)
class Block:
    """``line`` is where it begins; ``prints`` what is shown below it, ``None`` where nothing is."""

    line: int
    language: str
    text: str
    prints: str | None = None


def blocks(document: str) -> list[Block]:
    """The fenced blocks, each with what it prints."""
    found: list[Block] = []
    for match in re.finditer(r"^```(\w+)\n(.*?)^```$", document, re.MULTILINE | re.DOTALL):
        language, text = match[1], match[2]
        line = document.count("\n", 0, match.start()) + 1
        if language == "text":
            assert found, f"line {line}: output of nothing"
            assert found[-1].prints is None, f"line {line}: a second output of line {found[-1].line}"
            found[-1] = Block(found[-1].line, found[-1].language, found[-1].text, text)
        else:
            assert language in {"sh", "python"}, f"line {line}: nobody runs {language}"
            found.append(Block(line, language, text))
    return found


def is_as_shown(printed: str, shown: str) -> bool:
    return re.fullmatch(".*?".join(map(re.escape, shown.split("…"))), printed) is not None


def programs(folder: Path) -> dict[str, str]:
    """The reader's PATH, with this checkout's ``forwarder``, and a sendmail that keeps what it is given."""
    python = shlex.quote(sys.executable)
    folder.mkdir()
    for name, script in {
        "forwarder": f'exec {python} -P -m forwarder "$@"',
        "sendmail": f'echo "$*" > {shlex.quote(str(folder / "arguments"))}; cat > {shlex.quote(str(folder / "sent.eml"))}',
    }.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return {
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "SENDMAIL": str(folder / "sendmail"),
        "LC_ALL": "C.UTF-8",
    }


async def follow(block: Block, folder: Path, environment: dict[str, str]) -> str:
    command = ["sh", "-eu", "-c", block.text] if block.language == "sh" else [sys.executable, "-c", block.text]
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), LIMIT)
    except TimeoutError:
        process.kill()
        await process.wait()
        pytest.fail(f"line {block.line}: not done after {LIMIT} seconds")
    assert process.returncode == 0, f"line {block.line}: exit code {process.returncode}\n{err.decode()}"
    assert not err, f"line {block.line}: {err.decode()}"
    return out.decode()


async def follow_all(document: str, folder: Path, environment: dict[str, str], server: DnsServer) -> None:
    zone = folder / "sender.example.zone"
    for block in blocks(document):
        printed = await follow(block, folder, environment)
        if block.prints is not None:
            assert is_as_shown(printed, block.prints), f"line {block.line} prints\n{printed}and not\n{block.prints}"
        # A name server that is reloaded after each step.
        server.records = []
        if zone.exists():
            server.add(zone.read_text())


@pytest.mark.timeout(300)
async def test_who_follows_the_document_has_a_signed_message_that_verifies(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    environment = programs(tmp_path / "programs")

    async with run_dns_server() as server:
        environment["NS"] = server.address
        await follow_all(DOCUMENT.read_text(), folder, environment, server)

    [last] = [str(one.rdata) for one in server.records if str(one.rname) == "mailkey.sender.example."]
    assert "o=all" in last
    assert (tmp_path / "programs/arguments").read_text() == "-i -f bob@sender.example -- ann@elsewhere.example\n"
    sent = (tmp_path / "programs/sent.eml").read_bytes()
    assert sent.endswith((folder / "message.eml").read_bytes())
    first = (folder / "signed.eml").read_bytes()
    assert sent.startswith(b"Mailkey-Signature: v=1;") == first.startswith(b"Mailkey-Signature: v=1;") is True
    # The last thing that the document does is to take the key away that signed this.
    assert (await averify(sent, mail_from="bob@sender.example", dns={})).result == "none"
    asked = {name for name, _, _ in server.queries}
    assert asked == {"mailkey.sender.example", "k2.mailkey.sender.example"}


def test_the_document_shows_each_step() -> None:
    commands = "".join(block.text for block in blocks(DOCUMENT.read_text()) if block.language == "sh")

    for step in ("keygen", "record", "sign", "verify"):
        assert f"forwarder mailkey {step} " in commands
    assert re.findall(r"--policy (\w+)", commands)[:3] == ["test", "some", "all"]


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ("```sh\necho one\n```\n\n```text\ntwo\n```\n", "line 1 prints"),
        ("\n```sh\nfalse\n```\n", "line 2: exit code 1"),
        ("```sh\nforwarder mailkey nonsense\n```\n", "invalid choice"),
        ("```python\nprint(1)\n```\n```text\n2\n```\n", "line 1 prints"),
        ("```ruby\n```\n", "nobody runs ruby"),
        ("```sh\necho quiet >&2\n```\n", "quiet"),
    ],
)
async def test_a_document_that_drifts_is_noticed(tmp_path: Path, document: str, told: str) -> None:
    environment = programs(tmp_path / "programs")

    with pytest.raises(AssertionError, match=told):
        await follow_all(document, tmp_path, environment, DnsServer())
