"""forwarder reputation: an operator sees who is complained of, and decides otherwise."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from forwarder.cli.main import main
from forwarder.cli.standings import SubjectError, find_subject
from forwarder.ports import SubjectKind
from tests.e2e.lab import MESSAGE, Lab, lab
from tests.e2e.test_complaints import QUICK, complain, complaint_of, forwarded

KINDS = (SubjectKind.NETWORK, SubjectKind.DOMAIN, SubjectKind.ALIAS, SubjectKind.PROVIDER)


async def command(it: Lab, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    capsys.readouterr()
    code = await asyncio.to_thread(main, ["reputation", *words, "--config", str(it.folder / "forwarder.toml")])
    out = capsys.readouterr()
    return code, out.out + out.err


async def test_what_is_held_against_a_sender_is_listed_shown_and_forgiven(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with lab(tmp_path, extra=QUICK) as it:
        assert await command(it, capsys, "ls") == (0, "")
        await complain(it, complaint_of(await forwarded(it)))

        code, out = await command(it, capsys, "ls")
        assert code == 0
        head, *rows = out.splitlines()
        assert head.split()[:4] == ["SUBJECT", "SCORE", "MAIL", "MEASURE"]
        assert [one.split()[0] for one in rows] == ["alias:alias@fwd.test", "domain:sender.test"]
        assert " slow " in rows[1]
        assert " slow " not in rows[0]
        facts = [json.loads(one) for one in (await command(it, capsys, "ls", "--json"))[1].splitlines()]
        assert [(one["subject"], one["measure"]) for one in facts] == [
            ("alias:alias@fwd.test", None),
            ("domain:sender.test", "slow"),
        ]
        code, out = await command(it, capsys, "show", "sender.test")
        assert code == 0
        assert "measure:      slow" in out
        assert "complaint: abuse  hidden.destination@sink.test" in out

        assert await command(it, capsys, "forgive", "sender.test") == (0, "domain:sender.test: forgiven\n")
        code, out = await command(it, capsys, "show", "domain:sender.test")
        assert (code, out) == (1, "nothing is held against domain:sender.test\n")


async def test_a_block_holds_in_the_service_that_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with lab(tmp_path) as it:
        assert it.app.standings is not None
        code, out = await command(it, capsys, "block", "Sender.TEST", "--days", "1", "--reason", "a trap")
        assert (code, out[:44]) == (0, "domain:sender.test: refuse until 20" + out[35:44])
        await it.app.standings.refresh()
        assert (await it.send(it.signed())).startswith("550 5.7.1")
        assert "a trap" in (await command(it, capsys, "show", "sender.test"))[1]

        await command(it, capsys, "forgive", "sender.test")
        await it.app.standings.refresh()
        assert (await it.send(it.signed(MESSAGE))).startswith("250")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["show", "a b"], "'a b' is none of these: network, domain, alias, provider"),
        (["block", "alias@fwd.test"], "domains and networks are blocked here"),
        (["block", "x.test", "--days", "-1"], "--days: must be more than 0"),
    ],
)
async def test_what_cannot_be_done_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    async with lab(tmp_path) as it:
        code, out = await command(it, capsys, *words)

        assert code == 2
        assert said in out


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.7", "network:192.0.2.0/24"),
        ("network:192.0.2.0/24", "network:192.0.2.0/24"),
        ("2001:db8::1", "network:2001:db8::/64"),
        ("B\u00fccher.test", "domain:xn--bcher-kva.test"),
        ("domain:Sender.test", "domain:sender.test"),
        ("Team@fwd.test", "alias:team@fwd.test"),
        ("provider:Google.com", "provider:google.com"),
    ],
)
def test_a_subject_is_named_with_its_kind_or_without(text: str, expected: str) -> None:
    assert str(find_subject(text, KINDS)) == expected


@pytest.mark.parametrize("text", ["", "network:", "domain:a@b.test", "nonsense here", "alias:x"])
def test_what_names_nothing_is_refused(text: str) -> None:
    with pytest.raises(SubjectError):
        find_subject(text, KINDS)
