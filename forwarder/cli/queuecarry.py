"""How does mail move to another machine? ``export`` and ``import`` of the queue: a file of lines, one item each.

What is removed is on the disk first; what is brought in is delivered by nobody twice. A crash between the two leaves an item in
both places: the import leaves alone what is still there.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from forwarder import srs
from forwarder.app import State, SystemClock
from forwarder.cli.queueselection import choose
from forwarder.cli.queueview import counted, plain
from forwarder.ports import QueueFull
from forwarder.store.queue import Brought, Carried, Did
from forwarder.store.queuefile import MAX_LINE, LineError, build_line, parse_line

__all__ = ["export_items", "import_items"]

#: Items that are written together, and then removed together; those that are read together, and octets of them, about.
_BATCH = 100
_BATCH_OCTETS = 16 * 1024 * 1024
#: Seconds that a batch may take until it is on the disk; then others may deliver what is in it, and it stays.
_LEASE = 120.0
_NOT_TAKEN = {Did.MISSING: "not here, or damaged", Did.BUSY: "under way just now: try again in a moment"}
_BROUGHT = {
    Brought.DONE: "imported",
    Brought.KNOWN: "here already",
    Brought.DELIVERED: "taken care of here meanwhile",
    Brought.BUSY: "its message is under way here just now: try again in a moment",
}


async def export_items(args: argparse.Namespace, state: State) -> int:
    """``forwarder queue export``."""
    if args.remove and args.output == "-":
        print("forwarder queue: --remove needs a file: nobody knows whether a pipe's reader has it", file=sys.stderr)
        return 2
    chosen = [one.id for one in await choose(args, state.queue, SystemClock().now(), both=True)]
    lease, done, failed = secrets.token_hex(8) if args.remove else "", 0, 0
    try:
        with _output(args.output) as file, counted(len(chosen), "looked at") as progress:
            while chosen:
                taken = await state.queue.take(chosen[:_BATCH], lease, _LEASE)
                chosen = chosen[len(taken) :]
                items = {name: one for name, one in taken.items() if isinstance(one, Carried)}
                file.writelines(build_line(one, SystemClock().now()) for one in items.values())
                stays = await _remove(state, file, list(items), lease) if args.remove else []
                problems = {name: _NOT_TAKEN[one] for name, one in taken.items() if isinstance(one, Did)}
                problems |= dict.fromkeys(stays, "exported, but it stays here too: the disk was too slow")
                for name, word in problems.items():
                    print(f"{name}  {word}", file=sys.stderr)
                done, failed = done + len(items), failed + len(problems)
                progress.step(len(taken))
            file.flush()
            if args.output != "-":
                os.fsync(file.fileno())
    except OSError as error:
        print(f"forwarder queue: {args.output}: {error.strerror or error}; {done} are in it", file=sys.stderr)
        return 1
    if args.output != "-":
        _tell(args, {"exported": done, "failed": failed, "file": args.output, "removed": args.remove})
    return 1 if failed else 0


async def _remove(state: State, file: BinaryIO, ids: list[str], lease: str) -> list[str]:
    """Take them out, now that they are on the disk. Returns those that stay."""
    file.flush()
    os.fsync(file.fileno())
    gone = await state.queue.carried_away(ids, lease) if ids else []
    return [one for one, is_gone in zip(ids, gone, strict=True) if not is_gone]


@contextmanager
def _output(name: str) -> Iterator[BinaryIO]:
    """A new file that nobody else may read: there is mail in it."""
    if name == "-":
        yield sys.stdout.buffer
        return
    path = Path(name)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # its name is on the disk too
        finally:
            os.close(folder)
        yield file


async def import_items(args: argparse.Namespace, state: State) -> int:
    """``forwarder queue import``."""
    counts = dict.fromkeys(("imported", "known", "failed"), 0)
    try:
        with _input(args.file) as file, counted(None, "looked at") as progress:
            for batch in _batches(file):
                for kind, name, word in await asyncio.gather(*(_bring(state, *line) for line in batch)):
                    counts[kind] += 1
                    if args.json:
                        print(msgspec.json.encode({"id": name, "result": word}).decode())
                    elif kind == "failed":
                        print(f"{plain(name)}  {word}", file=sys.stderr)
                progress.step(len(batch))
    except OSError as error:
        print(f"forwarder queue: {args.file}: {error.strerror or error}", file=sys.stderr)
        return 1
    _tell(args, counts)
    return 1 if counts["failed"] else 0


def _batches(file: BinaryIO) -> Iterator[list[tuple[int, bytes]]]:
    """Lines with their numbers, as many as go well together: they share trips to the store, and are all in memory."""
    batch: list[tuple[int, bytes]] = []
    octets = number = 0
    while text := file.readline(MAX_LINE + 1):
        number += 1
        batch.append((number, text))
        octets += len(text)
        if len(text) > MAX_LINE:
            break  # and what follows is the rest of it
        if len(batch) == _BATCH or octets > _BATCH_OCTETS:
            yield batch
            batch, octets = [], 0
    if batch:
        yield batch


async def _bring(state: State, number: int, text: bytes) -> tuple[str, str, str]:
    """What kind of result, of which item, in words."""
    line = f"line {number}"
    if len(text) > MAX_LINE:
        return "failed", line, f"longer than {MAX_LINE} octets: this is no export of a queue"
    try:
        one = parse_line(text, SystemClock().now())
    except LineError as error:
        return "failed", line, str(error)
    try:
        await _bring_tokens(state, one)
        brought = await state.queue.bring(one)
    except QueueFull as full:
        return "failed", one.held.id, f"no room: {full}"
    kind = {Brought.DONE: "imported", Brought.BUSY: "failed"}.get(brought, "known")
    return kind, one.held.id, _BROUGHT[brought]


async def _bring_tokens(state: State, one: Carried) -> None:
    """What opaque return addresses stand for lies in the store that it came from: its bounces must find home from here too."""
    for waiting in one.held.waiting:
        forwarded = waiting.forwarded
        token = srs.token_in(forwarded.reversible) if forwarded is not None else None
        # A sender that is an address of ours came to us as such: it is not what the token stands for.
        if forwarded is None or token is None or srs.is_srs(forwarded.sender.local):
            continue
        if await state.ledger.look_up_token(token) is None:
            await state.ledger.put_token(token, forwarded.sender)


@contextmanager
def _input(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdin.buffer
        return
    with Path(name).open("rb") as file:
        yield file


def _tell(args: argparse.Namespace, counts: dict[str, int | str | bool] | dict[str, int]) -> None:
    if args.json:
        print(msgspec.json.encode(counts).decode())
    elif "exported" in counts:
        removed = ", and no longer here" if counts["removed"] else ""
        print(f"{counts['exported']} exported to {counts['file']}{removed}; {counts['failed']} not")
    else:
        print(f"{counts['imported']} imported, {counts['known']} left alone, {counts['failed']} not")
