"""forwarder check-config: what it finds beyond what loading finds, and how it says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from forwarder.cli.main import main

INIT = ("--hostname", "mx.example.org", "--domain", "example.org", "--to", "me@mail.example")


@pytest.fixture
def config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A good one, as init writes it."""
    assert main(["init", "--dir", str(tmp_path), *INIT]) == 0
    capsys.readouterr()
    return tmp_path / "forwarder.toml"


def line_of(config: Path, text: str) -> int:
    return config.read_text().splitlines().index(text) + 1


def test_a_good_configuration_is_summed_up(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # By itself it depends on the host.
    monkeypatch.setenv("FORWARDER_KEYS__MULTIBUFFER", "never")

    assert main(["check-config", str(config)]) == 0

    assert capsys.readouterr().out == (
        f"{config}: ok\n"
        "  listens on 0.0.0.0:25 as mx.example.org\n"
        "  is lenient about long lines, missing date, space\n"
        "  takes mail for example.org (1 alias)\n"
        "  mints reversible addresses under example.org, signed with mailkey and DKIM\n"
        "  signs its own reports under the mailkey of mx.example.org\n"
        "  seals ARC as example.org\n"
        "  keeps state in its own embedded store\n"
        "  delivers to the MX of each destination\n"
        "  TLS to other mail servers: opportunistic\n"
        "  postmaster and abuse: me@mail.example\n"
    )


def test_who_is_believed_asked_and_told_to_come_back_is_said(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "LISTEN": '[{"address": "10.0.0.25:25", "proxy": ["10.0.0.0/24"], "xforward": ["10.1.0.0/24"]}]',
        "DNSBL": '[{"zone": "bl.test"}, {"zone": "wl.test", "codes": {"127.0.0.1": -2}}]',
        "GREYLIST__ENABLED": "true",
        "GREYLIST__FROM_SCORE": "0.5",
    }.items():
        monkeypatch.setenv(f"FORWARDER_{name}", value)

    assert main(["check-config", str(config)]) == 0

    out = capsys.readouterr().out
    assert "  believes PROXY on 10.0.0.25:25 from 10.0.0.0/24\n" in out
    assert "  believes XFORWARD on 10.0.0.25:25 from 10.1.0.0/24\n" in out
    assert "  asks bl.test 1, wl.test (by code) about clients, and refuses from 1 on\n" in out
    assert "  has whom DNS lists give 0.5 come back after 300 seconds\n" in out


def test_who_is_asked_about_content_is_said(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "CONTENT__RSPAMD": '[{"url": "http://127.0.0.1:11333", "reject_above": 20, "actions": {"reject": "quarantine"}}]',
        "CONTENT__MILTER": '[{"socket": "unix:/run/clamav.ctl", "name": "clamav", "on_failure": "accept"}]',
        "CONTENT__SUBMISSION": "true",
    }.items():
        monkeypatch.setenv(f"FORWARDER_{name}", value)

    assert main(["check-config", str(config)]) == 0

    out = capsys.readouterr().out
    assert (
        "  asks rspamd at http://127.0.0.1:11333 about content: reject above 20, tag where it says add header, " in out
    )
    assert ", quarantine where it says reject; tempfail where it fails\n" in out
    assert "  asks clamav at unix:/run/clamav.ctl about content: quarantine where it says quarantine, " in out
    assert "; accept where it fails\n    about users' mail, too\n" in out


def test_a_filters_password_that_others_can_read(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    password = config.parent / "rspamd.password"
    password.write_text("let me in\n")
    password.chmod(0o644)
    monkeypatch.setenv("FORWARDER_CONTENT__RSPAMD", '[{"url": "unix:/r", "password_file": "rspamd.password"}]')

    assert main(["check-config", str(config)]) == 1

    err = capsys.readouterr().err
    assert "content.rspamd[0].password_file: " in err or "FORWARDER_CONTENT__RSPAMD: " in err
    assert "others can use it" in err
    assert "let me in" not in err


def test_what_is_missing_without_being_wrong_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "srs.secret").write_text("x" * 32)
    (tmp_path / "srs.secret").chmod(0o600)
    config = tmp_path / "forwarder.toml"
    config.write_text(
        'hostname = "h.test"\n[srs]\ndomain = "fwd.test"\nsecret_file = "srs.secret"\n[domains."fwd.test".aliases]\n'
        '"*" = "a@x.test"\noff = false\n'
    )

    assert main(["check-config", str(config)]) == 0

    out = capsys.readouterr().out
    assert "fwd.test (2 aliases, 1 of them disabled, with catch-all)" in out
    assert "under fwd.test, not signed (no key for mailkey and DKIM)" in out
    assert "does not seal ARC: no [keys.arc]" in out
    assert f"postmaster and abuse: a file in {tmp_path}/state" in out


def test_every_mistake_has_its_line_and_they_are_counted(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(config.read_text().replace("[admin]", '[admin]\nspam = "x"\nadress = "x"'))

    assert main(["check-config", str(config)]) == 1

    out, err = capsys.readouterr()
    first = line_of(config, 'spam = "x"')
    assert out == ""
    assert err.splitlines() == [
        f"{config}: admin.spam: there is no such setting; here are: address (line {first})",
        f"{config}: admin.adress: there is no such setting; did you mean 'address'? (line {first + 1})",
        "2 mistakes",
    ]


def test_a_key_that_is_none_and_one_that_others_can_read(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = config.parent / "keys"
    (keys / "mailkey.pem").write_text("no key")
    (keys / "srs.secret").chmod(0o644)

    assert main(["check-config", str(config)]) == 1

    err = capsys.readouterr().err.splitlines()
    assert len(err) == 3
    assert f"srs.secret_file: {keys}/srs.secret: others can use it" in err[0]
    assert f"(line {line_of(config, '[srs]') + 2})" in err[0]
    assert f"keys.mailkey[0].key: {keys}/mailkey.pem: " in err[1]
    assert f"(line {line_of(config, '[[keys.mailkey]]') + 2})" in err[1]


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("FORWARDER_STORE", "redis+sentinel://127.0.0.1", "with the service's name there"),
        ("FORWARDER_STORE", "redis+cluster://127.0.0.1/4", "a cluster has no databases"),
        ("FORWARDER_STORE", "redis://a:b/c@d/0", "the URL cannot be read"),
        ("FORWARDER_DNS__ZONE_FILE", "keys/srs.secret", "srs.secret"),
    ],
)
def test_what_the_parts_would_not_take_is_found(
    config: Path,
    variable: str,
    value: str,
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(variable, value)

    assert main(["check-config", str(config)]) == 1

    err = capsys.readouterr().err.splitlines()
    assert err[0].startswith(f"{config}: {variable}: ")
    assert complaint in err[0]


def test_a_certificate_and_a_key_that_do_not_fit(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(
        config.read_text().replace("[srs]", '[tls]\ncert = "keys/mailkey.pem"\nkey = "keys/mailkey.pem"\n[srs]')
    )

    assert main(["check-config", str(config)]) == 1

    assert f"(line {line_of(config, '[tls]')})" in capsys.readouterr().err


def test_the_file_in_the_current_folder_is_meant_where_none_is_named(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(config.parent)

    assert main(["check-config"]) == 0

    assert capsys.readouterr().out.startswith("forwarder.toml: ok\n")


SUBMISSION = """
[submission]
credentials = "passwd"
networks = [{ network = "10.0.0.0/7", owns = ["example.org"] }]
[submission.logins.alice]
owns = ["*"]
"""


def test_submission_that_would_let_anybody_forge_is_a_mistake(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(config.read_text() + SUBMISSION)

    assert main(["check-config", str(config)]) == 1

    told = capsys.readouterr().err
    assert "would let this client use every sender" in told
    assert "is too wide to be trusted" in told


def test_a_login_without_a_password_is_a_mistake(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config.parent / "passwd").write_text("")
    (config.parent / "passwd").chmod(0o600)
    config.write_text(config.read_text() + SUBMISSION.replace("/7", "/8").replace('"*"', '"example.org"'))

    assert main(["check-config", str(config)]) == 1

    assert "forwarder passwd alice" in capsys.readouterr().err


def test_a_submission_port_that_nobody_may_use_is_a_mistake(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = config.read_text()
    listen = next(one for one in text.splitlines() if one.startswith("listen"))
    config.write_text(text.replace(listen, 'listen = [{ address = "127.0.0.1:587", submission = true }]'))

    assert main(["check-config", str(config)]) == 1

    assert "nobody may use it" in capsys.readouterr().err


def test_a_text_that_cannot_be_a_note_is_a_mistake(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config.parent / "note.txt").write_text("Grüße an {domain}\n", encoding="utf-8")
    config.write_text(config.read_text() + '\n[mailkey]\nnote_file = "note.txt"\n')
    assert main(["check-config", str(config)]) == 1
    assert "note.txt: must be ASCII" in capsys.readouterr().err


def test_a_rule_file_that_cannot_be_used_is_a_mistake(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config.parent / "rules.toml").write_text('[[rule]]\nreason = "nonsense"\ntext = "x"\n')
    config.write_text(config.read_text() + '\n[bounces]\nrules_file = "rules.toml"\n')
    assert main(["check-config", str(config)]) == 1
    assert "rules.toml: rule 1: reason: must be one of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "mode", "told"),
    [
        (b"secret\nsecond line\n", 0o600, "in one line"),
        (b"", 0o600, "1 to 255 octets"),
        (b"\xff\xfe\n", 0o600, "not UTF-8"),
        (b"secret\n", 0o644, "others can use it"),
    ],
)
def test_a_password_file_that_cannot_be_used_is_a_mistake(
    config: Path, capsys: pytest.CaptureFixture[str], content: bytes, mode: int, told: str
) -> None:
    file = config.parent / "password"
    file.write_bytes(content)
    file.chmod(mode)
    relay = 'smarthost = "localhost:2525"\nsmarthost_user = "us"\nsmarthost_password_file = "password"\n'
    config.write_text(f"{config.read_text()}\n[relay]\n{relay}")
    assert main(["check-config", str(config)]) == 1
    said = capsys.readouterr().err
    assert told in said
    assert "secret" not in said.replace("srs.secret", "")


def test_it_says_how_mail_leaves(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config.parent / "password").write_text("secret\n")
    (config.parent / "password").chmod(0o600)
    relay = 'smarthost = "mail.test:465"\nsmarthost_tls = "implicit"\n'
    login = 'smarthost_user = "us@mail.test"\nsmarthost_password_file = "password"\n'
    config.write_text(f"{config.read_text()}\n[relay]\n{relay}{login}")
    assert main(["check-config", str(config)]) == 0
    assert "delivers to mail.test:465 (as us@mail.test, TLS: implicit)\n" in capsys.readouterr().out


def test_a_letter_that_cannot_be_used_is_named(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(config.read_text() + '\n[bounces]\ntemplate_dir = "letters"\n')
    assert main(["check-config", str(config)]) == 1
    assert "there is no such folder" in capsys.readouterr().err
    (config.parent / "letters").mkdir()
    assert main(["check-config", str(config)]) == 0
    (config.parent / "letters" / "digest.txt").write_text("Subject: x\n\n$alias\n")
    capsys.readouterr()
    assert main(["check-config", str(config)]) == 1
    error = capsys.readouterr().err
    assert "bounces.template_dir: " in error
    assert "digest.txt: $alias is nothing that is known here; those are $day" in error
