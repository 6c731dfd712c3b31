"""cli/tls: how mail to a domain would be protected."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from forwarder.cli import demo_lab
from tests.suites import ROOT

CONFIG = """\
hostname = "mx.fwd.test"
[srs]
domain = "fwd.test"
secret_file = "keys/srs.secret"
[dns]
zone_file = "zone.json"
[relay]
allow_private = true
[relay.tls.domains]
"strict.test" = "verify"
"""
HOST = {"A": ["127.0.0.1"]}
ZONE: dict[str, Any] = {
    "plain.test": {"MX": ["10 mx.plain.test", "20 mx2.plain.test"]},
    "mx.plain.test": HOST,
    "mx2.plain.test": HOST,
    "strict.test": {"MX": ["10 mx.plain.test"]},
    "signed.test": {"MX": ["10 mx.signed.test"], "DNSSEC": "secure"},
    "mx.signed.test": HOST | {"DNSSEC": "secure"},
    "_25._tcp.mx.signed.test": {"TLSA": ["3 1 1 " + "ab" * 32]},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls")
    demo_lab.make_keys(path / "keys")
    (path / "zone.json").write_text(json.dumps(ZONE))
    (path / "forwarder.toml").write_text(CONFIG)
    return path


def tls(folder: Path, domain: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "forwarder", "tls", domain, "--config", str(folder / "forwarder.toml")]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("domain", "want"),
    [
        (
            "plain.test",
            [
                "plain.test: MX not signed, or the resolver is not trusted to say so",
                "  [relay.tls]  opportunistic (the default)",
                "  MTA-STS      no policy",
                "   10 mx.plain.test[127.0.0.1]:25: TLS where it works, else in clear",
                "   20 mx2.plain.test[127.0.0.1]:25: TLS where it works, else in clear",
            ],
        ),
        (
            "strict.test",
            [
                "strict.test: MX not signed, or the resolver is not trusted to say so",
                "  [relay.tls]  verify",
                "  MTA-STS      no policy",
                "   10 mx.plain.test[127.0.0.1]:25: TLS with a valid certificate for mx.plain.test, or the mail waits",
            ],
        ),
        (
            "signed.test",
            [
                "signed.test: MX signed",
                "  [relay.tls]  opportunistic (the default)",
                "  MTA-STS      no policy",
                (
                    "   10 mx.signed.test[127.0.0.1]:25: TLS with a certificate that TLSA records of mx.signed.test name "
                    "(3 1 1 abababababababab)"
                ),
            ],
        ),
    ],
)
def test_the_hosts_and_what_is_asked_of_them(folder: Path, domain: str, want: list[str]) -> None:
    done = tls(folder, domain)
    assert done.stdout.splitlines() == want
    assert done.returncode == 0


def test_a_domain_without_a_way_to_it(folder: Path) -> None:
    done = tls(folder, "nowhere.test")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "forwarder tls: nowhere.test: no such domain: 550 5.1.2 the domain does not exist\n"
