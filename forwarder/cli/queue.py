"""What waits here, and what is to become of it? The queue and the dead letters, by hand.

While the service runs its store is asked; while it does not, an embedded store is started for the command and stopped again.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from forwarder.app import StartError, open_state
from forwarder.config import ConfigError, load
from forwarder.ports import Held
from forwarder.store.queue import Listed, RedisQueue
from forwarder.telemetry import SilentJournal

__all__ = ["add_arguments", "run"]

Action = Callable[[argparse.Namespace, RedisQueue], Awaitable[int]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(metavar="ACTION", required=True)

    def add(name: str, summary: str, action: Action) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        command.add_argument("--config", type=Path, default=Path("forwarder.toml"))
        command.add_argument("--json", action="store_true", help="one JSON object a line")
        command.set_defaults(action=action)
        return command

    def chosen(command: argparse.ArgumentParser) -> None:
        command.add_argument("id", nargs="*", help="as `ls` shows it")
        command.add_argument("--to", metavar="DOMAIN", help="all for this domain or address")
        command.add_argument("--dead", action="store_true", help="with --to: of the dead letters")

    listing = add("ls", "list what waits", _ls)
    listing.add_argument(
        "--dead", action="store_true", help="the dead letters: what could be neither delivered nor returned"
    )
    listing.add_argument("--to", metavar="DOMAIN", help="only for this domain or address")
    show = add("show", "tell all about one, its header and why it waits", _show)
    show.add_argument("id")
    show.add_argument("--message", action="store_true", help="print the message as it would leave, and nothing else")
    chosen(add("retry", "make it due now, a dead letter too", _retry))
    chosen(add("drop", "take it out; nobody is told", _drop))


def run(args: argparse.Namespace) -> int:
    async def main() -> int:
        async with open_state(load(args.config), SilentJournal()) as state:
            action: Action = args.action
            return await action(args, state.queue)

    try:
        return asyncio.run(main())
    except (ConfigError, StartError) as error:
        print(f"forwarder queue: {error}", file=sys.stderr)
        return 1


async def _ls(args: argparse.Namespace, queue: RedisQueue) -> int:
    count = octets = 0
    async for one in queue.list(dead=args.dead):
        # A dead letter is an item too: without --dead only what still has its turn is shown.
        if (one.dead is not None) is not args.dead or not _is_for(one, args.to):
            continue
        count, octets = count + 1, octets + one.octets
        print(msgspec.json.encode(_facts(one)).decode() if args.json else _line(one))
    if not args.json:
        print(f"{count} {'dead letters' if args.dead else 'waiting'}, {octets} octets")
    return 0


async def _show(args: argparse.Namespace, queue: RedisQueue) -> int:
    held = await queue.read(args.id)
    if held is None:
        print(f"forwarder queue: nothing readable here is called {args.id}", file=sys.stderr)
        return 1
    if args.message:
        sys.stdout.buffer.write(b"".join(held.delivery.data))
        return 0
    listed = [one async for one in queue.list() if one.id == args.id]
    facts = _facts(listed[0]) if listed else {}
    facts |= {"header": held.delivery.data[0].decode("utf-8", "replace")}
    if args.json:
        print(msgspec.json.encode(facts).decode())
        return 0
    for name, value in facts.items():
        print(f"{name}:\n{_indented(value)}" if name == "header" else f"{name + ':':<14}{_plain(value)}")
    return 0


async def _retry(args: argparse.Namespace, queue: RedisQueue) -> int:
    return await _each(args, queue, queue.retry, "due now")


async def _drop(args: argparse.Namespace, queue: RedisQueue) -> int:
    return await _each(args, queue, queue.drop, "dropped")


async def _each(
    args: argparse.Namespace, queue: RedisQueue, do: Callable[[str], Awaitable[bool | None]], done: str
) -> int:
    ids = list(args.id)
    if args.to is not None:
        ids += [
            one.id
            async for one in queue.list(dead=args.dead)
            if (one.dead is not None) is args.dead and _is_for(one, args.to)
        ]
    elif not ids:
        print("forwarder queue: name an id, or --to a domain", file=sys.stderr)
        return 2
    failed = 0
    for id_ in ids:
        result = await do(id_)
        word = done if result else "not here" if result is False else "under way just now: try again in a moment"
        failed += result is not True
        print(msgspec.json.encode({"id": id_, "result": word}).decode() if args.json else f"{id_}  {word}")
    return 1 if failed else 0


# --- what is shown ----------------------------------------------------------------------------------------------------


def _is_for(one: Listed, to: str | None) -> bool:
    if to is None:
        return True
    wanted = to.lower()
    return one.held is not None and (
        one.held.delivery.next_hop.lower() == wanted
        or any(str(address).lower() == wanted for address in one.held.delivery.recipients)
    )


def _facts(one: Listed) -> dict[str, Any]:
    state = "dead" if one.dead is not None else "under way" if one.leased else "waiting"
    facts: dict[str, Any] = {"id": one.id, "state": state, "due_in": one.due_in, "octets": one.octets}
    return facts | _of(one.held) | ({"reason": one.dead} if one.dead is not None else {})


def _of(held: Held | None) -> dict[str, Any]:
    if held is None:
        return {"damaged": True}
    return {
        "message": held.envelope.id,
        "next_hop": held.delivery.next_hop,
        "sender": str(held.delivery.sender or "<>"),
        "recipients": [str(one) for one in held.delivery.recipients],
        "for": sorted({str(one.alias) for one in held.waiting}),
        "attempts": held.delivery.attempts,
        "maybe_dup": held.maybe_dup,
        "queued_at": held.queued_at,
        "expires_at": held.delivery.expires_at,
        "report_to": str(held.report_to) if held.report_to is not None else None,
    }


def _line(one: Listed) -> str:
    if one.held is None:
        return f"{one.id}  damaged in the store"
    held = one.held
    when = one.dead or ("under way" if one.leased else f"in {_seconds(one.due_in or 0)}")
    recipients = str(held.delivery.recipients[0])
    if len(held.delivery.recipients) > 1:
        recipients += f" and {len(held.delivery.recipients) - 1} more"
    return f"{one.id}  {held.queued_at:%Y-%m-%d %H:%M}  {held.delivery.attempts} tries  {_plain(recipients)}  {_plain(when)}"


def _seconds(count: float) -> str:
    if count <= 0:
        return "0 s"
    return f"{count:.0f} s" if count < 120 else f"{count / 60:.0f} min" if count < 7200 else f"{count / 3600:.1f} h"


def _indented(text: str) -> str:
    return "\n".join(f"    {_plain(line)}" for line in text.splitlines())


def _plain(value: object) -> str:
    """What strangers wrote does not reach the terminal as they wrote it."""
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if text.isprintable() else ascii(text)
