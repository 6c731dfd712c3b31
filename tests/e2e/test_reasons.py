"""Why a bounce came back: on record with every report, by our rules and the operator's. Through the running service."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.lab import bounce_of, lab

RULES = """
[[rule]]
reason = "policy"
text = "unknown in these parts"
"""


@pytest.mark.parametrize(
    ("rules", "words", "expected"),
    [
        ("", "no such user", ("failed", "5.1.1", "unknown-user", True)),
        ("", "mailbox full", ("failed", "5.2.2", "mailbox-full", False)),
        (RULES, "unknown in these parts", ("failed", "5.1.1", "policy", False)),
    ],
)
async def test_the_reason_of_a_bounce_is_on_record(
    tmp_path: Path, rules: str, words: str, expected: tuple[str, str, str, bool]
) -> None:
    (tmp_path / "rules.toml").write_text(rules)
    async with lab(tmp_path, extra='[bounces]\nrules_file = "rules.toml"' if rules else "") as it:
        assert (await it.send(it.signed())).startswith("250")
        arrived = await it.next(it.sink)
        data = bounce_of(arrived, words).replace(b"5.1.1", expected[1].encode())
        assert (await it.bounce(arrived, data=data)).startswith("250")
        await it.next(it.sender)
        (event,) = it.events("route.return_bounce")
        assert (event["action"], event["status"], event["cause"], event["hard"]) == expected
