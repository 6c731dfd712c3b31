"""auth/arc/trust.py: a trusted forwarder's finding restores what forwarding broke; nobody else's does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from forwarder.auth.arc import restoring_sealer
from forwarder.model import ArcCheck, Message, Result
from tests.fakes import message

AAR = "ARC-Authentication-Results: i={i}; mx.hop.example; dkim=pass header.d=author.example; dmarc={dmarc} header.from={who}\n"
REST = (
    "ARC-Seal: i={i}; a=rsa-sha256; cv={cv}; d=hop{i}.example; s=s; b=AAAA\n"
    "ARC-Message-Signature: i={i}; a=rsa-sha256; d=hop{i}.example; s=s; h=from; bh=AAAA; b=AAAA\n"
)
PASS = ArcCheck(Result.PASS, 1, sealers=("hop1.example",))
TRUSTED = frozenset({"hop1.example", "hop2.example"})


def sealed(dmarc: str = "pass", who: str = "author.example", sets: int = 1) -> Message:
    header = ""
    for i in range(sets, 0, -1):
        header += REST.format(i=i, cv="none" if i == 1 else "pass")
        header += AAR.format(i=i, dmarc=dmarc if i == 1 else "fail", who=who)
    return message(header + "From: a@author.example\n\nx\n")


def test_the_first_of_trusted_sealers_restores() -> None:
    assert restoring_sealer(sealed(), PASS, "author.example", TRUSTED) == "hop1.example"
    both = replace(PASS, sets=2, sealers=("hop1.example", "hop2.example"))
    assert restoring_sealer(sealed(sets=2), both, "author.example", TRUSTED) == "hop1.example"


@pytest.mark.parametrize(
    ("arc", "dmarc", "who", "trusted"),
    [
        pytest.param(PASS, "pass", "author.example", frozenset(), id="nobody is trusted"),
        pytest.param(PASS, "pass", "author.example", frozenset({"example"}), id="a parent is another domain"),
        pytest.param(replace(PASS, result=Result.FAIL), "pass", "author.example", TRUSTED, id="the chain fails"),
        pytest.param(
            replace(PASS, sealers=("hop1.example", "evil.example")),
            "pass",
            "author.example",
            TRUSTED,
            id="one stranger",
        ),
        pytest.param(PASS, "fail", "author.example", TRUSTED, id="it failed there too"),
        pytest.param(PASS, "pass", "other.example", TRUSTED, id="another author"),
        pytest.param(PASS, "pass", "", TRUSTED, id="no author named"),
    ],
)
def test_nothing_else_restores(arc: ArcCheck, dmarc: str, who: str, trusted: frozenset[str]) -> None:
    assert restoring_sealer(sealed(dmarc, who), arc, "author.example", trusted) is None
