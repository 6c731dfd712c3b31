"""bench/instructions.py: what callgrind wrote, by library."""

from __future__ import annotations

from bench.instructions import by_library

WROTE = """\
events: Ir
ob=(1) /usr/lib/libpython3.11.so
fn=(1) first
0 10
+2 5
cob=(2) /usr/lib/libc.so.6
cfn=(2) malloc
calls=3 0
0 900
fn=(3) second
* 1
ob=(2)
fn=(2)
0 300

totals: 316
"""


def test_what_a_function_called_took_is_not_its_own() -> None:
    assert by_library(WROTE.splitlines()) == {"libpython3.11.so": 16, "libc.so.6": 300}
