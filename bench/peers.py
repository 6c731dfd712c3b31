"""What does a message cost here, and what in other mail systems? All of them in turns, in one run; a benchmark, no test.

    ./scripts/bench peers [--seconds 3] [--rounds 5] [--who service,postfix,stack] [--json]

    service         this program: verifies SPF, DKIM, DMARC, ARC and mailkey; SRS; signs DKIM and ARC (RSA-2048) and mailkey
    postfix         Postfix that only relays
    stack           Postfix with rspamd as its milter, which verifies SPF, DKIM, DMARC and ARC, and signs DKIM and ARC
                    (RSA-2048), and with PostSRSd

All of them run at once, and one at a time has work: the same signed mail on the same number of connections to the same alias,
for the same sink. CPU is that of all their processes: each daemon of Postfix, rspamd's workers, the embedded store. rspamd has no
rule beside these checks and no Redis; Postfix asks no DNS. Debian's packages (``./scripts/peers`` installs them); root only.

What arrived is counted by what it bears, and the first message of each round is verified by another maker's library.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import dkim

from bench.load import ROOT, Ground, Target, ground, measure, service, signature_ms
from forwarder.cli.demo_lab import FORWARDER, SINK
from tests.peers.postfix import postfix
from tests.peers.postsrsd import run_postsrsd
from tests.peers.programs import find
from tests.peers.rspamd import run_rspamd

WORKLOAD = "4k"
POSTFIX, STACK = "127.0.0.26", "127.0.0.27"
#: What each has to put on a message; ``results`` is a recorded dkim=pass.
MARKS: Mapping[str, tuple[str, ...]] = {
    "service": ("srs", "dkim", "arc", "mailkey", "results"),
    "postfix": (),
    "stack": ("srs", "dkim", "arc", "results"),
}

_RELAY = """\
smtp_tls_security_level = none
smtpd_tls_security_level = none
virtual_alias_domains = fwd.test
virtual_alias_maps = inline:{{ alias@fwd.test=dest@sink.test }}
transport_maps = inline:{{ sink.test=smtp:[{sink}]:{port} }}
"""
_STACK = """\
sender_canonical_maps = tcp:127.0.0.1:{forward}
sender_canonical_classes = envelope_sender
recipient_canonical_maps = tcp:127.0.0.1:{reverse}
recipient_canonical_classes = envelope_recipient, header_recipient
smtpd_milters = unix:{milter}
milter_default_action = tempfail
"""
# Its modules with their defaults but for whose domain is signed for, and that loopback is a network like any other.
_RSPAMD = """\
options {{
  pidfile = "{folder}/pid";
  tempdir = "{folder}";
  hs_cache_dir = "{folder}";
  url_tld = "{folder}/tld";
  control_socket = "{folder}/control mode=0600";
  dns {{ nameserver = ["{dns}"]; }}
  filters = "dkim";
  check_local = true;
  disable_monitoring = true;
}}
logging {{ type = "console"; level = "info"; }}
worker "rspamd_proxy" {{
  bind_socket = "{folder}/milter mode=0666";
  count = 1;
  milter = yes;
  timeout = 120s;
  upstream "local" {{ default = yes; self_scan = yes; }}
}}
modules {{
  path = "{plugins}/spf.lua";
  path = "{plugins}/dmarc.lua";
  path = "{plugins}/arc.lua";
  path = "{plugins}/dkim_signing.lua";
  path = "{plugins}/milter_headers.lua";
}}
spf {{}}
dkim {{}}
dmarc {{}}
milter_headers {{ use = ["authentication-results"]; skip_local = false; }}
dkim_signing {{
  sign_inbound = true;
  sign_local = true;
  use_domain = "recipient";
  use_esld = false;
  allow_hdrfrom_mismatch = true;
  domain {{ fwd.test {{ path = "{folder}/key.pem"; selector = "rsa"; }} }}
}}
arc {{
  sign_inbound = true;
  sign_local = true;
  use_domain = "recipient";
  use_esld = false;
  domain {{ fwd.test {{ path = "{folder}/key.pem"; selector = "rsa"; }} }}
}}
"""
_PLUGINS = "/usr/share/rspamd/plugins"


PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "service": (),
    "postfix": ("postfix",),
    "stack": ("postfix", "rspamd", "postsrsd"),
}


def _settings(text: str) -> dict[str, str]:
    return dict(line.split(" = ", 1) for line in text.splitlines())


@asynccontextmanager
async def contestants(at: Ground, who: Sequence[str]) -> AsyncIterator[dict[str, Target]]:
    """Those that are wanted, ready, by name."""
    start: Mapping[str, Callable[[Ground], AbstractAsyncContextManager[Target]]] = {
        "service": _service,
        "postfix": _postfix,
        "stack": _stack,
    }
    async with AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(start[name](at)) for name in who}


@asynccontextmanager
async def _service(at: Ground) -> AsyncIterator[Target]:
    async with service(ROOT, at) as process:
        yield Target(FORWARDER, (process.pid,))


@asynccontextmanager
async def _postfix(at: Ground) -> AsyncIterator[Target]:
    settings = _settings(_RELAY.format(sink=SINK, port=at.port))
    async with postfix(POSTFIX, at.port, "mx.fwd.test", settings, show_log=False) as alone:
        yield Target(POSTFIX, (alone.pid,))


@asynccontextmanager
async def _stack(at: Ground) -> AsyncIterator[Target]:
    with tempfile.TemporaryDirectory(prefix="rspamd", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        # It reads the key when it has given up root.
        shutil.copyfile(at.folder / "keys/fwd.rsa.pem", folder / "key.pem")
        config = _RSPAMD.format(folder=folder, dns=at.dns, plugins=_PLUGINS)
        with run_rspamd(folder, config) as rspamd:
            async with run_postsrsd(at.folder / "keys/srs.secret", "fwd.test") as srs:
                more = _STACK.format(forward=srs.forward, reverse=srs.reverse, milter=folder / "milter")
                settings = _settings(_RELAY.format(sink=SINK, port=at.port) + more)
                async with postfix(STACK, at.port, "mx.fwd.test", settings, show_log=False) as whole:
                    yield Target(STACK, (whole.pid, rspamd.pid, srs.pid))


def holds(file: Path, at: Ground) -> set[str]:
    """Which marks of a message that arrived hold by dkimpy: ``theirs`` and ``dkim``, signatures of sender.test and fwd.test;
    ``arc``, the chain; and ``srs``, which is a matter of looks."""
    sender, _, message = file.read_bytes().partition(b"\r\n")
    found = {"srs"} if b"<SRS0=" in sender and b"@fwd.test>" in sender else set()

    def lookup(name: bytes, timeout: int = 5) -> bytes | None:
        record = at.records.get(name.decode().rstrip("."))
        return record.encode() if record is not None else None

    signatures = dkim.DKIM(message)
    for number in range(sum(name.lower() == b"dkim-signature" for name, _ in signatures.headers)):
        if signatures.verify(number, dnsfunc=lookup):
            found.add({b"sender.test": "theirs", b"fwd.test": "dkim"}.get(signatures.domain, "else"))
    if dkim.arc_verify(message, dnsfunc=lookup)[0] == dkim.CV_Pass:
        found.add("arc")
    return found


def faults(who: str, row: Mapping[str, Any]) -> list[str]:
    """What is wrong with a round: a figure of mail that was lost or lacks its signatures is none."""
    wrong = [f"{row[what]} {what}" for what in ("lost", "refused") if row[what]]
    arrived = row["arrived"]
    wrong += [
        f"{arrived['arrived'] - arrived[mark]} without {mark}"
        for mark in MARKS[who]
        if arrived[mark] != arrived["arrived"]
    ]
    want = {"theirs"} | (set(MARKS[who]) & {"srs", "dkim", "arc"})
    return wrong + [f"{mark} does not hold" for mark in sorted(want - set(row["holds"]))]


async def run(args: argparse.Namespace) -> dict[str, Any]:
    """All rounds, by name, and what an RSA-2048 signature costs here (by ``cryptography``; rspamd has the system's OpenSSL)."""
    rows: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        kept, signatures = Path(folder) / "kept", []
        async with ground(Path(folder), [WORKLOAD]) as at, contestants(at, args.who) as targets:
            for target in targets.values():
                await measure(at, target, WORKLOAD, min(1, args.seconds))  # caches, connections, processes
            for _ in range(args.rounds):
                signatures.append(signature_ms())
                for who, target in targets.items():
                    row = await measure(at, target, WORKLOAD, args.seconds, keep=kept)
                    row["holds"] = sorted(holds(kept, at)) if kept.exists() else []
                    row["faults"] = faults(who, row)
                    kept.unlink(missing_ok=True)
                    rows.setdefault(who, []).append(row)
    return {"rounds": rows, "rsa_ms": statistics.median(signatures)}


def report(found: Mapping[str, Any]) -> None:
    """Medians, in brackets the lowest and the highest; ratios are those of the same round."""
    rounds = found["rounds"]
    print(
        f"{'':<10}{'CPU ms':>22}{'msg/s':>8}{'p50 ms':>9}{'p99 ms':>9}{'MB':>6}  arrived: of them SRS, DKIM, ARC, mailkey"
    )
    for who, rows in rounds.items():
        ms = [one["cpu_ms"] for one in rows]
        rate, p50, p99, memory = (
            statistics.median(one[key] for one in rows) for key in ("rate", "ms_p50", "ms_p99", "memory_mb")
        )
        counts = [sum(one["arrived"][key] for one in rows) for key in ("arrived", "srs", "dkim", "arc", "mailkey")]
        print(
            f"{who:<10}{_spread(ms):>22}{rate:>8.0f}{p50:>9.1f}{p99:>9.1f}{memory:>6.0f}"
            f"  {counts[0]}: {', '.join(map(str, counts[1:]))}"
        )
    for other in [one for one in rounds if one != "service"] if "service" in rounds else []:
        ratios = [
            here["cpu_ms"] / there["cpu_ms"] for here, there in zip(rounds["service"], rounds[other], strict=True)
        ]
        print(f"CPU, service / {other}: {_spread(ratios)}")
    print(f"CPU of an RSA-2048 signature: {found['rsa_ms']:.2f} ms; the service and the stack make three a message")
    for who, rows in rounds.items():
        for one in rows:
            if one["faults"]:
                print(f"{who}: {', '.join(one['faults'])} {one['why']}")


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


async def main(args: argparse.Namespace) -> int:
    """1 where anything was lost, or left without what it has to bear."""
    if absent := sorted({one for name in args.who for one in PROGRAMS[name] if find(one) is None}):
        print(f"peers: not here: {', '.join(absent)}; ./scripts/peers installs them", file=sys.stderr)
        return 2
    found = await run(args)
    if args.json:
        print(json.dumps(found))
    else:
        report(found)
    return 1 if any(one["faults"] for rows in found["rounds"].values() for one in rows) else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3, help="of sending, a round (default: 3)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--who", type=lambda names: names.split(","), default=list(MARKS))
    parser.add_argument("--json", action="store_true")
    sys.exit(asyncio.run(main(parser.parse_args())))
