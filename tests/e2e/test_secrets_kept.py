"""Where do keys, secrets and the words of a message come to lie? In their files and in the mail, and nowhere else."""

from __future__ import annotations

import ast
import asyncio
import os
from pathlib import Path

from forwarder.cli.demo_lab import Received, Receiver, send
from forwarder.keys import load_secrets
from tests.e2e.lab import bounce_of
from tests.faults.service import LISTEN, SINK, SOURCE, Service, service
from tests.suites import ROOT
from tests.waiting import until

SUBJECT, BODY = b"canary-subject-5f1c", b"canary-body-9a27"
MESSAGE = (
    b"From: Bob <bob@sender.test>\r\nTo: alias@fwd.test\r\nSubject: %b\r\nMessage-ID: <one@sender.test>\r\n\r\n%b\r\n"
    % (SUBJECT, BODY)
)


def secrets_of(folder: Path) -> set[bytes]:
    """Every line of every key and secret of the service, as it would stand in a dump of text."""
    found = set(load_secrets(folder / "keys" / "srs.secret"))
    for file in [*(folder / "keys").glob("*.pem"), *(folder / "state" / "tls").glob("*.key")]:
        lines = [line for line in file.read_bytes().splitlines() if not line.startswith(b"-")]
        assert lines
        # The first line of a PKCS#8 key begins alike in all of them, and a short last one says little.
        found |= {line[-40:] for line in lines if len(line) >= 40}
    return found


def seen_from_outside(it: Service) -> dict[str, bytes]:
    """The log, what the processes show, and all that lies in the state directory but the certificate's own key."""
    seen = {str(log): log.read_bytes() for log in it.log}
    assert it.process is not None
    for pid in (it.process.pid, int(it.events("store_started")[0]["pid"])):
        for name in ("cmdline", "environ"):
            if os.access(f"/proc/{pid}/{name}", os.R_OK):
                seen[f"{pid} {name}"] = Path(f"/proc/{pid}/{name}").read_bytes()
    for file in (it.folder / "state").rglob("*"):
        if file.is_file() and file.suffix != ".key":
            seen[str(file)] = file.read_bytes()
    return seen


def hits(seen: dict[str, bytes], words: set[bytes]) -> list[tuple[str, bytes]]:
    return [(where, word) for where, content in seen.items() for word in words if word in content]


async def give(it: Service, source: str, sender: str, recipient: str, data: bytes) -> str:
    return await asyncio.to_thread(send, source, "mx.sender.test", (LISTEN, it.port), sender, recipient, data)


async def next_of(receiver: Receiver) -> Received:
    async with asyncio.timeout(20):
        return await receiver.waiting.get()


async def test_keys_secrets_and_words_lie_nowhere_but_where_they_belong(tmp_path: Path) -> None:
    async with service(tmp_path) as it:
        secrets = secrets_of(tmp_path)
        sink, sender = Receiver(SINK, it.port, "mx.sink.test"), Receiver(SOURCE, it.port, "mx.sender.test")
        await sender.start()
        try:
            # Nobody is there: what waits lies in the store, and so do its words; a key or secret does not.
            waiting = MESSAGE.replace(b"canary", b"patient").replace(b"<one@", b"<two@")
            assert (await give(it, SOURCE, "bob@sender.test", "alias@fwd.test", waiting)).startswith("250")
            await until(lambda: it.events("queue.put"))
            seen = seen_from_outside(it)
            assert hits(seen, secrets) == []
            patient = hits(seen, {b"patient-subject-5f1c", b"patient-body-9a27"})
            assert {Path(where).suffix for where, _ in patient} == {".aof"}
            # In session, and a bounce of it: they lie nowhere.
            await sink.start()
            assert b"patient" in (await next_of(sink)).data
            assert (await give(it, SOURCE, "bob@sender.test", "alias@fwd.test", MESSAGE)).startswith("250")
            arrived = await next_of(sink)
            assert BODY in arrived.data
            assert (await give(it, SINK, "", arrived.sender, bounce_of(arrived))).startswith("250")
            report = await next_of(sender)
            assert report.sender == ""
            assert hits({"report": report.data, "mail": arrived.data}, secrets) == []
            assert BODY not in report.data
            assert hits(seen_from_outside(it), {SUBJECT, BODY} | secrets) == []
        finally:
            sink.stop()
            sender.stop()
    for file in (tmp_path / "state").rglob("*"):
        assert file.is_dir() or file.is_socket() or file.stat().st_mode & 0o077 == 0, file


def test_nothing_starts_another_program_but_what_starts_the_store() -> None:
    """The supervisor makes children of itself, and nothing else does; none of them becomes another program."""
    starts, forks = set(), set()
    for path in (ROOT / "forwarder").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "name", None) or ""
            module = getattr(node, "module", None) or ""
            if name.startswith(("create_subprocess", "execv", "spawn", "popen", "posix_spawn")) or (
                name == "system" and isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "os"
            ):
                starts.add(path.relative_to(ROOT / "forwarder").as_posix())
            if name.startswith("fork") and isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "os":
                forks.add(path.relative_to(ROOT / "forwarder").as_posix())
            if isinstance(node, ast.alias | ast.ImportFrom) and "subprocess" in (
                name,
                module,
                module.rpartition(".")[2],
            ):
                starts.add(path.relative_to(ROOT / "forwarder").as_posix())
    assert starts == {"store/server.py", "store/aof.py"}
    assert forks == {"supervisor/children.py"}
