"""A real Postfix as the next hop, on its bad days: it is stopped, greylists, and refuses some of the recipients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.e2e.lab import lab
from tests.peers.policy import policy_server
from tests.peers.postfix import needs_postfix, needs_root, postfix
from tests.peers.smtp_sink import SmtpSink
from tests.waiting import until

pytestmark = [needs_postfix, needs_root]

POST, BEHIND = "127.0.0.51", "127.0.0.52"
ZONE = {"post.test": {"MX": ["10 mx.post.test."]}, "mx.post.test": {"A": [POST]}}
ALIASES = 'three = ["now@post.test", "later@post.test", "gone@post.test"]'
SOON = "[queue]\nfirst_retry = 0.2\nmax_retry = 0.5\n"


def greylisting() -> Callable[[dict[str, str]], str]:
    """Not now to everybody who is new; and one of them does not exist."""
    seen: set[str] = set()

    def decide(asked: dict[str, str]) -> str:
        recipient = asked["recipient"]
        if recipient == "gone@post.test":
            return "550 5.1.1 no such user here"
        if recipient != "now@post.test" and recipient not in seen:
            seen.add(recipient)
            return "450 4.2.0 greylisted, come back later"
        return "DUNNO"

    return decide


async def test_it_is_away_then_greylists_and_refuses_and_each_recipient_has_its_own_fate(tmp_path: Path) -> None:
    async with (
        SmtpSink(host=BEHIND) as behind,
        policy_server(greylisting()) as policy,
        lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=SOON) as it,
    ):
        sent = it.signed(recipients=("three@fwd.test",))
        # Nobody is there.
        assert (await it.send(sent, recipient="three@fwd.test")).startswith("250 2.0.0 accepted")
        settings = {
            "relay_domains": "post.test",
            "relay_recipient_maps": "",
            "transport_maps": f"inline:{{ {{ post.test = smtp:[{BEHIND}]:{behind.port} }} }}",
            "smtp_tls_security_level": "none",
            "smtpd_recipient_restrictions": f"check_policy_service {policy}",
        }
        async with postfix(POST, it.port, "mx.post.test", settings):
            report = await it.next(it.sender)
            await until(lambda: sum(len(one.rcpts) for one in behind.messages) == 2)
        assert b"Status: 5.1.1" in report.data
        assert report.data.count(b"Final-Recipient: rfc822; three@fwd.test") == 1
        assert not any(one in report.data for one in (b"gone@", b"later@", b"post.test"))
        reached = sorted(rcpt.partition(b">")[0] for one in behind.messages for rcpt in one.rcpts)
        assert reached == [b"TO:<later@post.test", b"TO:<now@post.test"]
        assert all(one.data.endswith(sent) for one in behind.messages)
        assert not any(one["maybe_dup"] for one in it.journal.named("queue.outcome"))
        assert it.sender.waiting.empty()
