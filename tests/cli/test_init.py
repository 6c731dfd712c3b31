"""forwarder init: what a newcomer gets."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import dns.zone
import pytest
from dns.rdatatype import TXT

from forwarder.app import load_keys
from forwarder.cli.main import main
from forwarder.config import load
from forwarder.keys import KeyFile, load_key, load_secrets, public_record
from forwarder.model import Address

LEAST = ("--hostname", "mx.example.org", "--domain", "example.org", "--to", "me@mail.example")


def init(folder: Path, *arguments: str) -> int:
    return main(["init", "--dir", str(folder), *(arguments or LEAST)])


def published(output: str) -> dns.zone.Zone:
    """The records that were printed, read as a zone file."""
    lines = [line for line in output.splitlines() if re.search(r" IN [A-Z]+ ", line)]
    return dns.zone.from_text(
        "\n".join(["@ 60 IN SOA a. b. 1 1 1 1 1", "@ 60 IN NS a.", "$TTL 60", *lines]), ".", relativize=False
    )


def text_of(zone: dns.zone.Zone, name: str) -> str:
    (record,) = zone.find_rdataset(name, TXT)
    return b"".join(record.strings).decode()


def test_what_is_written_is_a_configuration_without_mistakes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init(tmp_path / "new") == 0

    settings = load(tmp_path / "new" / "forwarder.toml", {})
    assert settings.hostname == "mx.example.org"
    assert settings.srs.domain == "example.org"
    assert settings.listen_addresses == ("0.0.0.0:25",)
    assert settings.admin.address == Address("me", "mail.example")
    assert settings.domains["example.org"].aliases["me"].targets == (Address("me", "mail.example"),)
    assert main(["check-config", str(tmp_path / "new" / "forwarder.toml")]) == 0
    assert "signed with mailkey and DKIM" in capsys.readouterr().out


def test_keys_and_secrets_are_for_nobody_else(tmp_path: Path) -> None:
    init(tmp_path)

    files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "keys").iterdir()}
    assert files == {"dkim-ed25519.pem": 0o600, "dkim-rsa.pem": 0o600, "mailkey.pem": 0o600, "srs.secret": 0o600}
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert len(load_secrets(tmp_path / "keys/srs.secret")[0]) >= 32


def test_the_records_are_a_zone_file_and_fit_the_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init(tmp_path)

    zone = published(capsys.readouterr().out)
    assert str(zone.find_rdataset("example.org.", "MX")[0]) == "10 mx.example.org."
    assert text_of(zone, "example.org.") == "v=spf1 a:mx.example.org -all"
    assert text_of(zone, "mx.example.org.") == "v=spf1 a -all"
    assert text_of(zone, "_dmarc.example.org.") == "v=DMARC1; p=none"
    settings = load(tmp_path / "forwarder.toml", {})
    for one in settings.keys.dkim:
        key = load_key(KeyFile(one.domain, one.selector, one.key))
        record = text_of(zone, f"{one.selector}._domainkey.example.org.")
        assert record.startswith(f"v=DKIM1; k={key.algorithm.partition('-')[0]}; p=")
    assert text_of(zone, "mailkey.example.org.").startswith("v=mailkey1; k=ed25519; p=")


def test_long_records_come_in_strings_of_255_octets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init(tmp_path)

    (record,) = published(capsys.readouterr().out).find_rdataset("rsa1._domainkey.example.org.", TXT)
    assert [len(one) for one in record.strings[:-1]] == [255]


def test_a_domain_of_its_own_for_reversible_addresses_is_locked_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init(tmp_path, *LEAST, "--srs-domain", "srs.example.org", "--ip", "2001:db8::1", "--domain", "bücher.example")

    zone = published(capsys.readouterr().out)
    assert str(zone.find_rdataset("mx.example.org.", "AAAA")[0]) == "2001:db8::1"
    assert {str(name) for name, _, _ in zone.iterate_rdatas("MX")} == {
        "example.org.",
        "srs.example.org.",
        "xn--bcher-kva.example.",
    }
    assert text_of(zone, "_dmarc.srs.example.org.") == "v=DMARC1; p=reject"
    assert text_of(zone, "mailkey.srs.example.org.").endswith("; o=all")


@pytest.mark.parametrize(
    ("hostname", "signer"), [("mx.example.org", "example.org"), ("out.host.example", "out.host.example")]
)
def test_reports_are_signed_by_a_key_that_covers_the_ehlo_name_and_is_published(
    tmp_path: Path, hostname: str, signer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    init(tmp_path, "--hostname", hostname, *LEAST[2:])

    key = load_keys(load(tmp_path / "forwarder.toml", {})).mailkey(hostname)
    assert key is not None
    assert key.domain == signer
    zone = published(capsys.readouterr().out)
    assert f"p={public_record(key)};" in text_of(zone, f"mailkey.{signer}.")
    main(["check-config", str(tmp_path / "forwarder.toml")])
    assert f"signs its own reports under the mailkey of {hostname}" in capsys.readouterr().out


def test_a_domain_that_people_write_from_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init(tmp_path)

    zone = published(capsys.readouterr().out)
    assert text_of(zone, "mailkey.example.org.").endswith("; o=some")


def test_several_aliases_and_targets(tmp_path: Path) -> None:
    assert init(tmp_path, *LEAST, "--to", '"a b"@mail.example', "--alias", "*", "--alias", "info") == 0

    aliases = load(tmp_path / "forwarder.toml", {}).domains["example.org"].aliases
    assert set(aliases) == {"*", "info"}
    assert aliases["info"].targets == (Address("me", "mail.example"), Address('"a b"', "mail.example"))


def test_a_configuration_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "forwarder.toml").write_text("mine")

    assert init(tmp_path) == 1
    assert (tmp_path / "forwarder.toml").read_text() == "mine"
    assert not (tmp_path / "keys").exists()
    assert "never overwrites" in capsys.readouterr().err


def test_keys_that_are_there_are_kept_and_published(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init(tmp_path)
    first = capsys.readouterr().out
    before = {file: file.read_bytes() for file in (tmp_path / "keys").iterdir()}
    (tmp_path / "forwarder.toml").unlink()

    assert init(tmp_path) == 0

    assert {file: file.read_bytes() for file in (tmp_path / "keys").iterdir()} == before
    assert published(capsys.readouterr().out) == published(first)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--hostname", "a b", *LEAST[2:]), "must be a domain name"),
        ((*LEAST[:4], "--to", "nobody"), "the domain is missing"),
        ((*LEAST, "--listen", "localhost"), "must be an IP address and a port"),
        ((*LEAST, "--ip", "1.2.3"), "does not appear to be an IPv4 or IPv6 address"),
    ],
)
def test_a_wrong_word_is_refused_before_anything_is_written(
    tmp_path: Path, arguments: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        init(tmp_path, *arguments)

    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_alias_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init(tmp_path, *LEAST, "--alias", "a b") == 1

    assert "the local part is malformed" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
