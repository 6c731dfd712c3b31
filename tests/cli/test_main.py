"""forwarder.cli.main: one command is chosen, and only that one is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from forwarder import __version__
from forwarder.cli.main import COMMANDS, main

ROOT = Path(__file__).resolve().parent.parent.parent


def forwarder(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "forwarder", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_names_every_command_that_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])

    out = capsys.readouterr().out
    assert ended.value.code == 0
    there = [name for name in COMMANDS if (ROOT / "forwarder/cli" / f"{name.replace('-', '_')}.py").exists()]
    assert there
    assert [name for name in COMMANDS if f"\n    {name} " in out or f"\n    {name}\n" in out] == there


@pytest.mark.parametrize(
    "name", [one for one in COMMANDS if (ROOT / f"forwarder/cli/{one.replace('-', '_')}.py").exists()]
)
def test_every_command_has_its_own_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])

    assert ended.value.code == 0
    assert f"usage: forwarder {name}" in capsys.readouterr().out


def test_help_imports_no_command_and_no_library() -> None:
    code = (
        "import sys; from forwarder.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([one for one in sys.modules if one.partition('.')[0] in ('pydantic', 'redis', 'dns', 'cryptography', 'asyncio')])"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout.splitlines()[-1] == "[]"


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0

    assert capsys.readouterr().out.splitlines()[0] == f"forwarder {__version__}"


def test_a_command_that_does_not_exist_is_a_usage_error() -> None:
    done = forwarder("nope")

    assert done.returncode == 2
    assert "invalid choice: 'nope'" in done.stderr


def test_a_reader_that_goes_away_is_no_crash() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as nobody:
        done = subprocess.run(
            [sys.executable, "-u", "-m", "forwarder", "version"],
            cwd=ROOT,
            stdout=nobody,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )

    assert (done.returncode, done.stderr) == (1, "")
