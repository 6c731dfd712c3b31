"""bench/hostile.py in short: honest mail goes on, memory stays bounded, guesses are cut off. The long runs: docs/security.md."""

from __future__ import annotations

import asyncio
import os
import re
import sys

from tests.suites import ROOT

#: Runs of which one must show what is asked of the clock: the machine has other work at times, and the program has not.
TRIES = 3


async def hostile(*arguments: str) -> str:
    """What it prints."""
    run = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.hostile", *arguments),
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await run.communicate()
    assert run.returncode == 0
    return out.decode()


def number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    assert found is not None, text
    return float(found[1])


async def quick(pattern: str, *arguments: str) -> str:
    """What it prints, of the first run in which this figure is under 500 ms. The aim is 50, and what holds everybody up does so
    in each run."""
    text = ""
    for _ in range(TRIES):
        text = await hostile(*arguments)
        if number(pattern, text) < 500:
            return text
    raise AssertionError(text)


async def test_honest_mail_goes_on_under_attack() -> None:
    text = await quick(
        r"under attack: .* p99 ([\d.]+) ms",
        *("flood", "--drips", "200", "--a-minute", "3000", "--bombers", "10", "--probes", "50"),
    )
    assert number(r"(\d+) sessions that drip", text) == 200
    assert number(r"service (\d+) MiB", text) < 150


async def test_many_large_messages_at_once_are_told_to_come_back() -> None:
    text = await hostile("memory", "--messages", "5")
    assert number(r"(\d+) of them taken", text) == 3
    assert "others: 452 4.3.1" in text
    assert number(r"service (\d+) MiB", text) < 290


async def test_a_mail_bomb_to_one_alias_gets_its_rate_and_mail_to_others_goes_on() -> None:
    text = await quick(r"alias = 600: .* p99 ([\d.]+) ms", "bomb", "--a-second", "400", "--probes", "100")
    delivered = int(text.rpartition(" of the bomb")[0].split()[-1])
    assert 600 <= delivered <= 620
    assert text.count("100 messages") == 4, text


async def test_guesses_are_cut_off_and_learn_nothing_from_text_or_time() -> None:
    text = await hostile("guesses", "--recipients", "150")
    # The eleventh in each session ends it, and the hundredth in an hour all of them.
    assert number(r"(\d+) answered", text) <= 100
    assert number(r"p = ([\d.]+)", text) > 0.001
    assert "texts: [b'550 5.1.1 no such address here\\r\\n']" in text
