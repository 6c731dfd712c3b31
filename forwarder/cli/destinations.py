"""Which destinations do not take their mail, and what does the operator think of it?"""

from __future__ import annotations

import argparse
from typing import Any

import msgspec

from forwarder.app import State
from forwarder.cli.queueview import Table
from forwarder.cli.standings import add_command, facts, find_subject, now, run_command, show_facts, when
from forwarder.config import Settings
from forwarder.ports import Measure, Standing, SubjectKind
from forwarder.standing import faded, set_by_hand

__all__ = ["add_arguments", "run"]

KINDS = (SubjectKind.DESTINATION,)
COLUMNS = ("DESTINATION", "SCORE", "STATE", "SINCE", "NEXT PROBE", "LAST", "WHAT")
_STATES = {Measure.PAUSE: "paused", Measure.DISABLE: "disabled"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(metavar="ACTION", required=True)
    listing = add_command(commands, "ls", "list destinations that failed, the worst first", _ls, subject=False)
    listing.add_argument("--paused", action="store_true", help="those only that are paused or disabled")
    add_command(commands, "show", "tell all that is known of a destination", _show)
    add_command(commands, "resume", "let mail go there again, and forget its failures", _resume)
    for name, summary, command in (
        ("pause", "let its mail wait until it is resumed, without probes", _pause),
        ("disable", "send it nothing until it is resumed", _disable),
    ):
        add_command(commands, name, summary, command).add_argument("--reason", default="by hand")


def run(args: argparse.Namespace) -> int:
    return run_command(args, "forwarder destinations")


async def _ls(args: argparse.Namespace, state: State, settings: Settings) -> int:
    moment = now()
    found = [one for one in await state.standings.all() if one.subject.kind is SubjectKind.DESTINATION]
    found = [one for one in found if one.measure is not None or not args.paused]
    found.sort(key=lambda one: (-faded(one, moment)[0], one.subject))
    with Table(COLUMNS) as table:
        for one in found:
            shown = _facts(one)
            if args.json:
                print(msgspec.json.encode(shown).decode())
                continue
            last = one.evidence[-1] if one.evidence else None
            table.add(
                (
                    one.subject.name,
                    f"{shown['score']:.2f}",
                    shown["state"],
                    when(one.since),
                    when(shown["next_probe"]),
                    when(last.at) if last is not None else "",
                    last.what if last is not None else "",
                )
            )
    return 0


async def _show(args: argparse.Namespace, state: State, settings: Settings) -> int:
    subject = find_subject(args.subject, KINDS)
    standing = next((one for one in await state.standings.all() if one.subject == subject), None)
    if standing is None:
        print(f"nothing is held against {subject.name}")
        return 1
    if args.json:
        print(msgspec.json.encode(_facts(standing)).decode())
    else:
        show_facts(_facts(standing))
    return 0


async def _resume(args: argparse.Namespace, state: State, settings: Settings) -> int:
    subject = find_subject(args.subject, KINDS)
    before, _ = await state.standings.change(subject, set_by_hand(subject, None, "", now(), 1.0))
    print(f"{subject.name}: {'mail goes there again' if before is not None else 'nothing was held against it'}")
    return 0 if before is not None else 1


async def _pause(args: argparse.Namespace, state: State, settings: Settings) -> int:
    return await _set(args, state, settings, Measure.PAUSE)


async def _disable(args: argparse.Namespace, state: State, settings: Settings) -> int:
    return await _set(args, state, settings, Measure.DISABLE)


async def _set(args: argparse.Namespace, state: State, settings: Settings, measure: Measure) -> int:
    subject = find_subject(args.subject, KINDS)
    change = set_by_hand(subject, measure, args.reason[:200], now(), settings.learning.half_life)
    _, after = await state.standings.change(subject, change)
    if after is None or after.measure is not measure:
        print(f"{subject.name}: there is no room for more")
        return 1
    print(f"{subject.name}: {_STATES[measure]} until it is resumed")
    return 0


def _facts(standing: Standing) -> dict[str, Any]:
    shown = facts(standing, now())
    del shown["mail"]
    state = {
        "state": _STATES[standing.measure] if standing.measure is not None else "active",
        "since": standing.since,
        "next_probe": standing.until if standing.measure is Measure.PAUSE else None,
        "by_hand": standing.by_hand,
    }
    return {"subject": shown["subject"], "score": shown["score"]} | state | shown
