"""cli/freeport.py: is a port that was free still free when somebody listens there, whatever others do meanwhile?"""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from forwarder.cli.freeport import free_port

HOSTS = ("127.0.0.25", "127.0.0.50")
RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
#: What another process is given, as often as it asks; it lives until it is told.
ANOTHER = """
from forwarder.cli.freeport import free_port
print(*(free_port("127.0.0.25") for _ in range(300)), flush=True)
input()
"""


def ports(count: int = 300) -> set[int]:
    """More than one process has: each comes by."""
    return {free_port(*HOSTS) for _ in range(count)}


@pytest.mark.skipif(not RANGE.exists(), reason="this system does not say which ports it gives out")
def test_no_connection_and_no_port_0_is_ever_given_it() -> None:
    lowest = int(RANGE.read_text().split()[0])
    if lowest < 32768:
        pytest.skip("this system was told to give out low ports too")
    assert max(ports()) < lowest


def test_no_other_process_is_given_it() -> None:
    with subprocess.Popen([sys.executable, "-c", ANOTHER], stdin=-1, stdout=-1, text=True) as another:
        assert another.stdout is not None
        theirs = set(map(int, another.stdout.readline().split()))
        assert theirs
        assert not theirs & ports()
        another.communicate("\n", timeout=20)


def test_what_is_taken_on_one_of_the_addresses_is_passed_over() -> None:
    port = free_port(*HOSTS)
    with socket.create_server((HOSTS[1], port)):
        assert port not in ports()
    assert port in ports()
