"""Does systemd hear from the service what it wants to hear? The program as a process, and a socket like systemd's."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from forwarder.servicemanager import ServiceManager
from tests.faults.service import service
from tests.suites import ROOT

UNIT = ROOT / "packaging" / "systemd" / "mailkey-forwarder.service"


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(address)
        told.setblocking(False)
        yield told


async def hear(told: socket.socket, word: str) -> str:
    """The next that begins with this; signs of life in between do not count."""
    async with asyncio.timeout(20):
        while True:
            said = (await asyncio.get_running_loop().sock_recv(told, 4096)).decode()
            if said.startswith(word):
                return said
            assert said == "WATCHDOG=1", said


@asynccontextmanager
async def told_of(folder: Path) -> AsyncIterator[socket.socket]:
    with listening(str(folder / "notify")) as told:
        async with service(folder, start=False) as it:
            await it.spawn(NOTIFY_SOCKET=str(folder / "notify"), WATCHDOG_USEC="100000")
            await hear(told, "READY=1")
            assert it.events("service.ready")
            assert it.process is not None
            it.process.send_signal(signal.SIGHUP)
            yield told
            it.process.terminate()
            await hear(told, "STOPPING=1")
            assert await it.process.wait() == 0


async def test_it_hears_of_the_start_the_loop_a_reload_and_the_stop(tmp_path: Path) -> None:
    async with told_of(tmp_path) as told:
        assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", await hear(told, "RELOADING=1"))
        await hear(told, "READY=1")
        await hear(told, "WATCHDOG=1")


def test_a_name_that_is_no_file_is_understood() -> None:
    name = f"forwarder-test-{os.getpid()}"
    with listening(f"\0{name}") as told:
        ServiceManager({"NOTIFY_SOCKET": f"@{name}"}).ready()
        assert told.recv(100) == b"READY=1"


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": "/nowhere/notify"}, {"NOTIFY_SOCKET": ""}])
def test_without_one_who_listens_nothing_happens(environ: dict[str, str]) -> None:
    ServiceManager(environ).ready()


@pytest.mark.parametrize(
    ("environ", "want"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_signs_of_life_come_twice_as_often_as_they_must(environ: dict[str, str], want: float | None) -> None:
    assert ServiceManager(environ).every == want


# --- the unit ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_the_unit_leaves_the_service_little_to_do_harm_with() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", str(UNIT)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"LANG": "C.UTF-8"},
    )
    level = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert level is not None, done.stderr
    assert float(level[1]) <= 2.0
    assert done.returncode == 0


def test_the_unit_waits_as_long_as_the_program_takes() -> None:
    unit = UNIT.read_text()
    assert "Type=notify" in unit
    assert "TimeoutStopSec=45" in unit  # app.service.DRAIN and a margin
    assert "ExecReload=/bin/kill -HUP $MAINPID" in unit
