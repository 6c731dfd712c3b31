"""What waits here, and what is to become of it? The queue and the dead letters, by hand.

While the service runs its store is asked; while it does not, an embedded store is started for the command and stopped again.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from forwarder.app import StartError, State, SystemClock, open_state
from forwarder.cli.queuecarry import export_items, import_items
from forwarder.cli.queueselection import Chosen, SelectionError, add_selection, choose, selection
from forwarder.cli.queueview import COLUMNS, DEAD_COLUMNS, NextHop, Table, counted, facts, plain, row
from forwarder.config import ConfigError, load
from forwarder.store.queue import Did, Do
from forwarder.telemetry import SilentJournal

__all__ = ["add_arguments", "run"]

Action = Callable[[argparse.Namespace, State], Awaitable[int]]

#: Items that are moved at once: they share trips to the store, and its disk.
_AT_ONCE = 50
_WORDS = {
    Do.DROP: "dropped",
    Do.RETRY: "due now",
    Do.HOLD: "on hold",
    Do.RELEASE: "released",
    Do.RETURN: "given up: its sender gets a report",
}
_WHY_NOT = {
    Did.MISSING: "not here",
    Did.BUSY: "under way just now: try again in a moment",
    Did.LATER: "on hold as soon as the attempt that is under way ends without a result",
    Did.DEAD: "a dead letter waits for nothing: retry or drop it",
    Did.HELD: "on hold: release it first",
    Did.FREE: "not on hold",
}
#: It is as the operator wants it, whoever made it so.
_AS_WANTED = {(Do.HOLD, Did.LATER), (Do.HOLD, Did.HELD), (Do.RELEASE, Did.FREE)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(metavar="ACTION", required=True)

    def add(name: str, summary: str, action: Action) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        command.add_argument("--config", type=Path, default=Path("forwarder.toml"))
        command.add_argument("--json", action="store_true", help="one JSON object a line")
        command.set_defaults(action=action)
        return command

    add_selection(add("ls", "list what waits", _ls), ids=False)
    add_selection(add("summary", "count what waits by next hop and age", _summary), ids=False)
    show = add("show", "tell all about one, its header and why it waits", _show)
    show.add_argument("id")
    show.add_argument("--message", action="store_true", help="print the message as it would leave, and nothing else")
    add_selection(add("retry", "make it due now, a dead letter too", _retry))
    add_selection(add("hold", "keep it, and try it no more until it is released", _hold))
    add_selection(add("release", "end a hold: it is due now", _release))
    drop = add("drop", "take it out; nobody is told", _drop)
    add_selection(drop)
    drop.add_argument("--report", action="store_true", help="tell its verified sender, as if it had failed")
    exporting = add("export", "write it whole into a file, to be imported elsewhere", export_items)
    add_selection(exporting)
    exporting.add_argument(
        "--output", metavar="FILE", required=True, help="a new file, for our eyes only; - is standard output"
    )
    exporting.add_argument(
        "--remove", action="store_true", help="take out what is in the file, once that is on the disk"
    )
    importing = add(
        "import", "put in what was exported; what is here, or was delivered meanwhile, is left alone", import_items
    )
    importing.add_argument("file", metavar="FILE", help="- is standard input")


def run(args: argparse.Namespace) -> int:
    async def main() -> int:
        async with open_state(load(args.config), SilentJournal()) as state:
            action: Action = args.action
            return await action(args, state)

    try:
        return asyncio.run(main())
    except SelectionError as error:
        print(f"forwarder queue: {error}", file=sys.stderr)
        return 2
    except (ConfigError, StartError) as error:
        print(f"forwarder queue: {error}", file=sys.stderr)
        return 1


async def _ls(args: argparse.Namespace, state: State) -> int:
    count = octets = 0
    wanted, now = selection(args), SystemClock().now()
    with Table(DEAD_COLUMNS if args.dead else COLUMNS) as table:
        async for one in state.queue.list(dead=args.dead):
            if not wanted.takes(one, now):
                continue
            count, octets = count + 1, octets + one.octets
            if args.json:
                print(msgspec.json.encode(facts(one)).decode())
            else:
                table.add(row(one))
    if not args.json:
        print(f"{count} {'dead letters' if args.dead else 'waiting'}, {octets} octets")
    return 0


async def _summary(args: argparse.Namespace, state: State) -> int:
    hops: dict[str, NextHop] = {}
    wanted, now, total = selection(args), SystemClock().now(), NextHop()
    with counted(None, "counted") as progress:
        async for one in state.queue.list(dead=args.dead):
            progress.step()
            if wanted.takes(one, now):
                name = one.held.delivery.next_hop.lower() if one.held is not None else "(damaged)"
                hops.setdefault(name, NextHop()).add(one, now)
                total.add(one, now)
    ordered = sorted(hops.items(), key=lambda hop: (-hop[1].total, hop[0]))
    if args.json:
        for name, hop in ordered:
            print(msgspec.json.encode(hop.facts(name)).decode())
        return 0
    with Table(NextHop.COLUMNS) as table:
        table.add(total.row("all"))
        for name, hop in ordered:
            table.add(hop.row(name))
    return 0


async def _show(args: argparse.Namespace, state: State) -> int:
    held = await state.queue.read(args.id)
    if held is None:
        print(f"forwarder queue: nothing readable here is called {args.id}", file=sys.stderr)
        return 1
    if args.message:
        sys.stdout.buffer.write(b"".join(held.delivery.data))
        return 0
    listed = [one async for one in state.queue.list() if one.id == args.id]
    shown = facts(listed[0]) if listed else {}
    shown |= {"header": held.delivery.data[0].decode("utf-8", "replace")}
    if args.json:
        print(msgspec.json.encode(shown).decode())
        return 0
    for name, value in shown.items():
        print(f"{name}:\n{_indented(value)}" if name == "header" else f"{name + ':':<14}{plain(value)}")
    return 0


async def _retry(args: argparse.Namespace, state: State) -> int:
    return await _each(args, state, Do.RETRY)


async def _hold(args: argparse.Namespace, state: State) -> int:
    return await _each(args, state, Do.HOLD)


async def _release(args: argparse.Namespace, state: State) -> int:
    return await _each(args, state, Do.RELEASE)


async def _drop(args: argparse.Namespace, state: State) -> int:
    return await _each(args, state, Do.RETURN if args.report else Do.DROP)


async def _each(args: argparse.Namespace, state: State, what: Do) -> int:
    chosen = await choose(args, state.queue, SystemClock().now())
    operation, failed = secrets.token_hex(8), 0
    with counted(len(chosen), "looked at") as progress:
        for at in range(0, len(chosen), _AT_ONCE):
            some = chosen[at : at + _AT_ONCE]
            results = await asyncio.gather(*(_one(state, one, what, operation) for one in some))
            progress.step(len(some))
            for one, (word, is_well) in zip(some, results, strict=True):
                failed += not is_well
                print(
                    msgspec.json.encode({"id": one.id, "result": word}).decode() if args.json else f"{one.id}  {word}"
                )
    return 1 if failed else 0


async def _one(state: State, one: Chosen, what: Do, operation: str) -> tuple[str, bool]:
    """What came of it in words, and whether it is as it was wanted."""
    if what is Do.RETURN and one.held is not None and one.held.report_to is None:
        return "not dropped: no check vouched for its sender, so nobody may be told; drop it without --report", False
    if what is Do.RETURN and one.held is None:
        return _WHY_NOT[Did.MISSING], False
    did = await state.queue.do(one.id, what, operation)
    if did is Did.DONE:
        return _WORDS[what], True
    if (what, did) == (Do.HOLD, Did.HELD):
        return "on hold already", True
    return _WHY_NOT[did], (what, did) in _AS_WANTED


def _indented(text: str) -> str:
    return "\n".join(f"    {plain(line)}" for line in text.splitlines())
