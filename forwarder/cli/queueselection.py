"""Which items does the operator mean? By id, or all that have something in common."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from forwarder.model import Address
from forwarder.ports import Held
from forwarder.store.queue import Listed, RedisQueue

__all__ = ["Chosen", "Selection", "SelectionError", "add_selection", "choose", "selection"]

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class SelectionError(ValueError):
    """Nobody can tell which items are meant; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Every part that is not ``None`` must fit. ``dead``: dead letters only; ``both``: those too."""

    to: str | None = None
    sender: str | None = None
    alias: str | None = None
    older: timedelta | None = None
    dead: bool = False
    both: bool = False

    def takes(self, one: Listed, now: datetime) -> bool:
        """Is it meant? What is damaged has nothing in common with anything."""
        if not self.both and (one.dead is not None) is not self.dead:
            return False
        if one.held is None:
            return (self.to, self.sender, self.alias, self.older) == (None, None, None, None)
        delivery = one.held.delivery
        return (
            (self.to is None or self.to == delivery.next_hop.lower() or _any(self.to, delivery.recipients))
            and (self.sender is None or _any(self.sender, [one.held.envelope.sender]))
            and (self.alias is None or _any(self.alias, [waiting.alias for waiting in one.held.waiting]))
            and (self.older is None or now - one.held.queued_at > self.older)
        )


@dataclass(frozen=True, slots=True)
class Chosen:
    """``held`` is ``None`` for what is not here or damaged; it has its data only where it was asked for by id."""

    id: str
    held: Held | None


def add_selection(command: argparse.ArgumentParser, *, ids: bool = True) -> None:
    """The arguments; ``ids``: and ids, or ``--all``."""
    if ids:
        command.add_argument("id", nargs="*", help="as `ls` shows it")
        command.add_argument("--all", action="store_true", help="every one")
    command.add_argument("--to", metavar="WHO", type=str.lower, help="for this destination: a domain or an address")
    command.add_argument("--sender", metavar="WHO", type=str.lower, help="from this address or domain; <> for reports")
    command.add_argument(
        "--for", metavar="WHO", type=str.lower, dest="alias", help="for this alias, or any of a domain"
    )
    command.add_argument("--older", metavar="AGE", type=_age, help="queued longer ago than this: 90s, 15m, 6h, 2d")
    command.add_argument("--dead", action="store_true", help="of the dead letters: neither deliverable nor returnable")


def selection(args: argparse.Namespace, *, both: bool = False) -> Selection:
    """What the arguments say. ``both``: ``--all`` means dead letters too."""
    everything = both and args.all and not args.dead
    return Selection(args.to, args.sender, args.alias, args.older, args.dead, everything)


async def choose(args: argparse.Namespace, queue: RedisQueue, now: datetime, *, both: bool = False) -> list[Chosen]:
    """Those that are meant. Raises SelectionError."""
    wanted = selection(args, both=both)
    has_parts = any(one is not None for one in (wanted.to, wanted.sender, wanted.alias, wanted.older))
    if args.id:
        if has_parts or args.all:
            raise SelectionError("name ids, or say what they have in common, not both")
        return [Chosen(one, await queue.read(one)) for one in args.id]
    if not has_parts and not args.all:
        raise SelectionError("name an id, or choose with --to, --sender, --for, --older or --all")
    return [Chosen(one.id, one.held) async for one in queue.list(dead=wanted.dead) if wanted.takes(one, now)]


def _any(wanted: str, addresses: list[Address] | list[Address | None] | tuple[Address, ...]) -> bool:
    """Is it one of them, or the domain of one?"""
    return any(wanted == "<>" if one is None else wanted in (str(one).lower(), one.domain.lower()) for one in addresses)


def _age(text: str) -> timedelta:
    match = re.fullmatch(r"([0-9]{1,9})([smhd]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a number and s, m, h or d, like 15m")
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])
