"""Does the process give its memory to nobody, and does a secret stay in its file?"""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from forwarder.app import StartError
from forwarder.app.parts import make_tls, make_web_tls
from forwarder.cli.main import main
from forwarder.config import load
from forwarder.keys import KeyFileError, read_private
from tests.suites import ROOT

DUMPABLE = """
import ctypes, resource
from forwarder.secrecy import hide_memory
hide_memory()
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), *resource.getrlimit(resource.RLIMIT_CORE))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_no_core_file_and_no_tracing() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", DUMPABLE],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["0", "0", "0"]


@pytest.mark.parametrize("table", ["tls", "web.tls"])
def test_the_key_of_a_certificate_that_others_can_read_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], table: str
) -> None:
    answered = main(
        ["init", "--hostname", "mx.fwd.test", "--domain", "fwd.test", "--to", "me@sink.test", "--dir", str(tmp_path)]
    )
    assert answered == 0
    config = tmp_path / "forwarder.toml"
    key = tmp_path / "keys" / "mailkey.pem"
    key.chmod(0o640)
    with config.open("a") as file:
        file.write(f'\n[{table}]\ncert = "{key}"\nkey = "{key}"\n')
    capsys.readouterr()
    assert main(["check-config", str(config)]) == 1
    told = f"{table}.key: {key}: others can use it (mode 0640); chmod 600 {key}"
    assert told in capsys.readouterr().err
    with pytest.raises(StartError) as refused:
        _ = make_tls(load(config), datetime.now(UTC)) if table == "tls" else make_web_tls(load(config))
    assert str(refused.value) == told


def test_what_systemd_hands_over_may_show_the_mask_of_its_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handed = tmp_path / "srs.secret"
    handed.write_bytes(b"secret")
    handed.chmod(0o440)
    with pytest.raises(KeyFileError):
        read_private(handed)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read_private(handed) == b"secret"
    handed.chmod(0o444)
    with pytest.raises(KeyFileError):
        read_private(handed)
