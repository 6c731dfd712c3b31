"""Who is complained of, what follows, and what does the operator think of it?"""

from __future__ import annotations

import argparse
import math
from datetime import timedelta
from typing import Any

import msgspec

from forwarder.app import State
from forwarder.app.parts import scale_of
from forwarder.cli.queueview import Table
from forwarder.cli.standings import SubjectError, add_command, facts, find_subject, now, run_command, show_facts, when
from forwarder.config import Settings
from forwarder.ports import Measure, Standing, SubjectKind
from forwarder.standing import Scale, blocked, faded, judge

__all__ = ["add_arguments", "run"]

KINDS = (SubjectKind.NETWORK, SubjectKind.DOMAIN, SubjectKind.ALIAS, SubjectKind.PROVIDER)
COLUMNS = ("SUBJECT", "SCORE", "MAIL", "MEASURE", "UNTIL", "LAST", "WHAT")
_MEASURES = (Measure.SLOW, Measure.ONE_WAY, Measure.REFUSE)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(metavar="ACTION", required=True)
    add_command(commands, "ls", "list whom something is held against, the worst first", _ls, subject=False)
    add_command(
        commands,
        "show",
        "tell all that is held against a domain, network or alias, or what a provider holds against us",
        _show,
    )
    add_command(commands, "forgive", "forget it, measures too", _forgive)
    block = add_command(commands, "block", "set a measure for a domain or network, whatever its score", _block)
    block.add_argument("--measure", choices=[one.value for one in _MEASURES], default=Measure.REFUSE.value)
    block.add_argument("--days", type=float, help="how long it holds; without: until it is forgiven")
    block.add_argument("--reason", default="by hand", help="kept with it, for who looks later")


def run(args: argparse.Namespace) -> int:
    return run_command(args, "forwarder reputation")


async def _ls(args: argparse.Namespace, state: State, settings: Settings) -> int:
    moment, scale = now(), scale_of(settings)
    found = [one for one in await state.standings.all() if one.subject.kind in KINDS]
    found.sort(key=lambda one: (-faded(one, moment)[0], one.subject))
    with Table(COLUMNS) as table:
        for one in found:
            shown = _facts(one, scale)
            if args.json:
                print(msgspec.json.encode(shown).decode())
            else:
                last = one.evidence[-1] if one.evidence else None
                table.add(
                    (
                        str(one.subject),
                        f"{shown['score']:.2f}",
                        str(shown["mail"]),
                        shown["measure"] or "",
                        when(shown["until"]),
                        when(last.at) if last is not None else "",
                        last.what if last is not None else "",
                    )
                )
    return 0


async def _show(args: argparse.Namespace, state: State, settings: Settings) -> int:
    subject = find_subject(args.subject, KINDS)
    standing = next((one for one in await state.standings.all() if one.subject == subject), None)
    if standing is None:
        print(f"nothing is held against {subject}")
        return 1
    shown = _facts(standing, scale_of(settings))
    if args.json:
        print(msgspec.json.encode(shown).decode())
    else:
        show_facts(shown)
    return 0


async def _forgive(args: argparse.Namespace, state: State, settings: Settings) -> int:
    subject = find_subject(args.subject, KINDS)
    before, _ = await state.standings.change(subject, lambda _: None)
    print(f"{subject}: {'forgiven' if before is not None else 'nothing was held against it'}")
    return 0 if before is not None else 1


async def _block(args: argparse.Namespace, state: State, settings: Settings) -> int:
    subject = find_subject(args.subject, KINDS)
    if subject.kind not in (SubjectKind.DOMAIN, SubjectKind.NETWORK):
        raise SubjectError("domains and networks are blocked here; an alias is disabled in the configuration")
    if args.days is not None and not (0 < args.days <= 3650 and math.isfinite(args.days)):
        raise SubjectError("--days: must be more than 0, and at most 3650")
    moment, half_life = now(), settings.complaints.half_life
    until = moment + timedelta(days=args.days) if args.days is not None else None
    change = blocked(subject, Measure(args.measure), args.reason[:200], moment, until, half_life)
    _, after = await state.standings.change(subject, change)
    if after is None or after.measure is None:
        print(f"{subject}: there is no room for more")
        return 1
    print(f"{subject}: {args.measure} until {when(until) or 'it is forgiven'}")
    return 0


def _facts(standing: Standing, scale: Scale) -> dict[str, Any]:
    """With what follows, which of an alias is nothing."""
    moment = now()
    found = judge(standing, scale, moment) if standing.subject.kind is not SubjectKind.ALIAS else None
    shown = facts(standing, moment)
    measure = {
        "measure": str(found.measure) if found is not None else None,
        "until": found.until if found is not None else None,
        "by_hand": found.by_hand if found is not None else False,
    }
    return {name: shown[name] for name in ("subject", "score", "mail")} | measure | shown
