"""How is it fuzzed for longer than a test may take? ``scripts/fuzz`` calls this.

Findings are written to ``fuzz-findings/`` and told; the status is 1 where there is one. ``--guided`` lets atheris (libFuzzer)
choose the inputs by the code that they reach, for one target; it must be installed.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
import warnings
from pathlib import Path

from tests.fuzz.everything import TARGETS, close_targets
from tests.fuzz.inputs import make_inputs
from tests.fuzz.measure import Finding, Measure, examine
from tests.fuzz.target import Target

#: Where ``--guided`` keeps what it found to be of use, and where findings go.
CORPUS = Path("fuzz-corpus")
FINDINGS = Path("fuzz-findings")
#: A target with so many findings, each from another place, has told what it has to tell.
_ENOUGH = 20


def main() -> int:
    options = _options()
    # As in the tests: what warns would be told on a terminal, or be an exception under another setting.
    warnings.simplefilter("error")
    chosen = [one for one in TARGETS if options.target in ("all", one.name)]
    if not chosen:
        print(f"no target {options.target}; there are: all {' '.join(one.name for one in TARGETS)}")
        return 2
    if options.guided:
        return _guide(chosen[0], options.seconds)
    print(f"{'target':<12} {'inputs':>9} {'a second':>9} {'slowest':>9}  findings")
    try:
        return max([_fuzz(one, options, options.seconds / len(chosen)) for one in chosen])
    finally:
        close_targets()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fuzz")
    parser.add_argument("target", nargs="?", default="all")
    parser.add_argument("seconds", nargs="?", type=float, default=3600.0)
    parser.add_argument("--inputs", type=int, default=sys.maxsize, help="end after so many for each target")
    parser.add_argument("--number", type=int, default=time.time_ns(), help="the same number gives the same inputs")
    parser.add_argument("--guided", action="store_true", help="by coverage (atheris); one target")
    return parser.parse_args()


def _fuzz(target: Target, options: argparse.Namespace, seconds: float) -> int:
    measure, found = Measure(), set[str]()
    began = time.monotonic()
    for data in make_inputs(target, options.number):
        if measure.inputs >= options.inputs or time.monotonic() - began > seconds or len(found) >= _ENOUGH:
            break
        finding = examine(target, data, measure)
        if finding is not None:
            measure.inputs += 1
            if finding.place not in found:
                found.add(finding.place)
                _tell(finding)
    rate = measure.inputs / (time.monotonic() - began)
    print(
        f"{target.name:<12} {measure.inputs:>9,} {rate:>9,.0f} {measure.slowest * 1000:>6.1f} ms  {len(found)}"
        f"   (number {options.number})",
        flush=True,
    )
    return 1 if found else 0


def _tell(finding: Finding) -> None:
    FINDINGS.mkdir(exist_ok=True)
    file = FINDINGS / f"{finding.target}-{hashlib.sha256(finding.data).hexdigest()[:12]}"
    file.write_bytes(finding.data)
    print(f"--- {file}\n{finding.what}", flush=True)


def _guide(target: Target, seconds: float) -> int:
    import atheris

    corpus = CORPUS / target.name
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds:
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    measure = Measure()

    def one(data: bytes) -> None:
        finding = examine(target, data, measure)
        if finding is not None:
            _tell(finding)
            raise AssertionError(finding.what)

    # The modules are loaded already: their functions are instrumented where they are.
    atheris.instrument_all()
    arguments = [f"-max_total_time={seconds:.0f}", f"-max_len={target.max_size}", f"-artifact_prefix={FINDINGS}/"]
    atheris.Setup([sys.argv[0], str(corpus), *arguments], one)
    FINDINGS.mkdir(exist_ok=True)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
