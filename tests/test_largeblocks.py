"""largeblocks.py: a large message grows outside the heap, however many came before."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

#: Four messages of 29 MB, one after the other, and a small thing that lives on behind each of them. Octets of the heap.
_PROGRAM = """
import io
from forwarder.largeblocks import map_large_blocks
{prepare}
small = []
def grow():
    body = io.BytesIO()
    for _ in range(29 * 16):
        body.write(b"x" * 65536)
    small.append(bytearray(100_000))
for _ in range(4):
    grow()
with open("/proc/self/maps") as maps:
    heap = next(line.split()[0].split("-") for line in maps if "[heap]" in line)
    print(int(heap[1], 16) - int(heap[0], 16))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_a_large_message_never_grows_in_the_heap() -> None:
    def heap(prepare: str) -> int:
        program = _PROGRAM.format(prepare=prepare)
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
        return int(ran.stdout.split()[-1])

    assert heap("assert map_large_blocks()") < 16 << 20 < heap("pass")
