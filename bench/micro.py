"""The kernels of ``bench.kernels`` under pytest-benchmark: percentiles, and comparisons with runs that were saved.

./scripts/bench micro
./scripts/bench micro --benchmark-autosave
./scripts/bench micro --benchmark-compare --benchmark-compare-fail=median:10%
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.kernels import Bench, kernels

NAMES = (
    "RSA-2048 signature",
    "take the dots out, 4k",
    "split the header, 4k",
    "all checks, 4k, one RSA signature, warm",
    "all checks, 1m of base64, warm",
    "all checks, 1m of text, warm",
    "seal, 4k (3 RSA + 1 ed25519)",
    "reversible address",
    "back from a reversible address",
)

Kernels = dict[str, tuple[Callable[[], object], int]]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernels]:
    """Made once: keys take a while."""
    with asyncio.Runner() as runner:
        yield kernels(Bench(tmp_path_factory.mktemp("bench")), runner)


@pytest.mark.parametrize("name", NAMES)
def test_kernel(benchmark: BenchmarkFixture, table: Kernels, name: str) -> None:
    """The time is that of one call, which runs some kernels several times."""
    work, times = table[name]
    benchmark.extra_info["kernels in one call"] = times
    benchmark(work)


def test_every_kernel_is_in_the_list(table: Kernels) -> None:
    assert set(table) == set(NAMES)
