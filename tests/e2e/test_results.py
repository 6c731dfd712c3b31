"""Each row of the table of results (docs/mailkey.md), over real SMTP: the reply, what was relayed, whether a report comes home.

Each row has a domain of its own, so one running service answers them all. SPF passes for each domain from its own host: what a
mailkey takes away from a message, it takes although SPF would have vouched for it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from forwarder.cli.demo_lab import SENDER, Received
from forwarder.keys import Key, mailkey_record
from tests.e2e.lab import Lab, lab
from tests.e2e.signing import signed

STRANGER = "127.0.0.66"
ED25519, RSA = Ed25519PrivateKey.generate(), generate_private_key(65537, 2048)
WEAK = Key("weak.test", "", generate_private_key(65537, 1024))


class Then(Enum):
    """What follows."""

    REVERSIBLE = "relayed, and a report goes back to the sender"
    ONE_WAY = "relayed, and a report ends here"
    REFUSED = "550"
    LATER = "451"


#: A message of bob's at this domain, made at this time.
Make = Callable[[str, datetime], bytes]


@dataclass(frozen=True)
class Row:
    id: str
    make: Make
    result: str
    then: Then
    #: TXT records by the name in front of the domain.
    records: dict[str, list[str]] = field(default_factory=dict)
    #: Beyond smtp.mailfrom, in Authentication-Results.
    properties: str = ""
    reason: str = ""
    #: By such a name the DNS misbehaves.
    faults: dict[str, str] = field(default_factory=dict)
    source: str = SENDER

    @property
    def domain(self) -> str:
        return self.id.replace("_", "-").replace("=", "-").replace(" ", "-").lower() + ".test"


# --- messages ---------------------------------------------------------------------------------------------------------


def plain(domain: str, _now: datetime) -> bytes:
    return (
        f"From: Bob <bob@{domain}>\r\nTo: alias@fwd.test\r\nSubject: hello\r\n"
        f"Date: Mon, 23 Nov 2026 12:30:00 +0000\r\nMessage-ID: <one@{domain}>\r\n\r\nHello.\r\n"
    ).encode()


def with_key(
    *,
    private: object = ED25519,
    selector: str = "",
    signer: str = "{}",
    mail_from: str = "bob@{}",
    recipients: tuple[str, ...] = ("alias@fwd.test",),
    age: timedelta = timedelta(),
    change: tuple[bytes, bytes] = (b"", b""),
) -> Make:
    """``{}`` stands for the row's domain; ``change`` is done to the signed message."""

    def make(domain: str, now: datetime) -> bytes:
        key = Key(signer.format(domain), selector, private)  # type: ignore[arg-type]
        made = signed(
            plain(domain, now), mail_from.format(domain), recipients, mailkey=key, now=now - age - timedelta(seconds=1)
        )
        return made.replace(*change, 1) if change[0] else made

    return make


def record(policy: str, private: object = ED25519) -> str:
    return mailkey_record(Key("any.test", "", private), policy)  # type: ignore[arg-type]


# --- rows -------------------------------------------------------------------------------------------------------------

D = " header.d={}"
BOUND = D + " policy.rcpt=bound"

PASS = [
    Row("pass ed25519", with_key(), "pass", Then.REVERSIBLE, {"mailkey": [record("all")]}, BOUND),
    Row(
        "pass rsa",
        with_key(private=RSA),
        "pass",
        Then.REVERSIBLE,
        {"mailkey": [record("all", RSA)]},
        BOUND,
    ),
    Row(
        "pass by a named key",
        with_key(private=RSA, selector="k2"),
        "pass",
        Then.REVERSIBLE,
        {"mailkey": [record("all")], "k2.mailkey": [record("all", RSA)]},
        " header.d={} header.s=k2 policy.rcpt=bound",
    ),
    Row("pass that binds nobody", with_key(recipients=()), "pass", Then.REVERSIBLE, {"mailkey": [record("all")]}, D),
    Row(
        "pass without SPF",
        with_key(),
        "pass",
        Then.REVERSIBLE,
        {"mailkey": [record("all")]},
        BOUND,
        source=STRANGER,
    ),
]

NONE = [
    Row("none by no record", plain, "none", Then.REVERSIBLE, reason="no mailkey record"),
    Row("none by no record nor SPF", plain, "none", Then.ONE_WAY, reason="no mailkey record", source=STRANGER),
    Row(
        "none by a wildcard record",
        plain,
        "none",
        Then.REVERSIBLE,
        {"mailkey": ["v=spf1 -all"]},
        reason="no mailkey record",
    ),
    Row("none by o=some", plain, "none", Then.REVERSIBLE, {"mailkey": [record("some")]}, reason="not signed"),
    Row(
        "none by o=some nor SPF",
        plain,
        "none",
        Then.ONE_WAY,
        {"mailkey": [record("some")]},
        reason="not signed",
        source=STRANGER,
    ),
    Row("none by o=test", plain, "none", Then.REVERSIBLE, {"mailkey": [record("test")]}, reason="not signed"),
]

#: Under o=all refused, under o=some one-way although SPF passes, under o=test as if nothing were.
FAIL = {
    "changed body": (with_key(change=(b"Hello.", b"Adieu.")), "body hash does not match", D),
    "changed header": (with_key(change=(b"Subject: hello", b"Subject: adieu")), "signature does not match", D),
    "added From": (with_key(change=(b"To: alias", b"Cc: eve@evil.test\r\nTo: alias")), "signature does not match", D),
    "other MAIL FROM": (with_key(mail_from="eve@{}"), "signed for another MAIL FROM", D),
    "expired": (with_key(age=timedelta(days=8)), "mailkey signature expired", D),
    "from the future": (with_key(age=timedelta(days=-2)), "mailkey signature from the future", D),
    "other key": (with_key(private=Ed25519PrivateKey.generate()), "signature does not match", D),
}
PERMERROR = {
    "forbidden tag": (with_key(change=(b" v=1;", b" v=1; l=9;")), "l= does not exist in a mailkey", D),
    "unknown version": (with_key(change=(b" v=1;", b" v=2;")), "v= is not 1", D),
    "duplicate tag": (with_key(change=(b" v=1;", b" v=1; v=1;")), "v= twice", ""),
    "unknown key": (with_key(selector="gone"), "unknown key", D + " header.s=gone"),
    "wrong algorithm": (with_key(private=RSA), "the key is not for this algorithm", D),
    "revoked": (with_key(), "mailkey revoked", D),
    "weak key": (with_key(private=RSA), "RSA key of 1024 bits, 2048 to 4096 are taken", D),
    "several records": (with_key(), "several mailkey records", ""),
    "malformed record": (with_key(), "mailkey record: p= is no base64", ""),
}
THEN = {"all": Then.REFUSED, "some": Then.ONE_WAY, "test": Then.REVERSIBLE}


def records_of(cause: str, policy: str) -> list[str]:
    match cause:
        case "revoked":
            return [f"v=mailkey1; p=; o={policy}"]
        case "weak key":
            return [mailkey_record(WEAK, policy)]
        case "several records":
            # The strictest policy of them counts.
            return [record(policy), record("test", RSA)]
        case "malformed record":
            return [f"v=mailkey1; k=ed25519; p=%%%; o={policy}"]
        case _:
            return [record(policy)]


def bad(result: str, cause: str, policy: str) -> Row:
    make, reason, properties = (FAIL | PERMERROR)[cause]
    records = {"mailkey": records_of(cause, policy)}
    return Row(f"{result[:4]} {cause} o={policy}", make, result, THEN[policy], records, properties, reason=reason)


UNBOUND = with_key(recipients=("other@fwd.test",))
REST = [
    *(bad("fail", cause, policy) for cause in FAIL for policy in THEN),
    *(bad("permerror", cause, policy) for cause in PERMERROR for policy in THEN),
    Row("fail unsigned o=all", plain, "fail", Then.REFUSED, {"mailkey": [record("all")]}, reason="not signed"),
    Row("fail unbound o=all", UNBOUND, "fail", Then.REFUSED, {"mailkey": [record("all")]}),
    Row(
        "none unbound o=some",
        UNBOUND,
        "none",
        Then.REVERSIBLE,
        {"mailkey": [record("some")]},
        D,
        "not signed for this recipient",
    ),
    Row(
        "none unbound o=some nor SPF",
        UNBOUND,
        "none",
        Then.ONE_WAY,
        {"mailkey": [record("some")]},
        D,
        "not signed for this recipient",
        source=STRANGER,
    ),
    *(
        Row(
            f"temperror {fault} of the {what}",
            with_key(private=RSA, selector="k2"),
            "temperror",
            Then.LATER,
            {"mailkey": [record("all")], "k2.mailkey": [record("all", RSA)]},
            faults={name: fault},
        )
        for what, name in (("policy", "mailkey"), ("key", "k2.mailkey"))
        for fault in ("SERVFAIL", "TIMEOUT", "REFUSED")
    ),
    Row("temperror unsigned", plain, "temperror", Then.LATER, faults={"mailkey": "SERVFAIL"}),
]
ROWS = [*PASS, *NONE, *REST]


# --- the test ---------------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    zone: dict[str, dict[str, list[str]]] = {}
    for row in ROWS:
        zone[row.domain] = {"MX": ["10 mx.sender.test."], "TXT": [f"v=spf1 ip4:{SENDER} -all"]}
        zone |= {f"{name}.{row.domain}": {"TXT": texts} for name, texts in row.records.items()}
    async with lab(tmp_path_factory.mktemp("results"), zone=zone, dns_timeout=0.5) as it:
        for row in ROWS:
            it.dns.faults |= {f"{name}.{row.domain}": fault for name, fault in row.faults.items()}
        yield it


def without_id(answer: str) -> str:
    """A reply without the transaction's number, which ends it."""
    return re.sub(r" \([0-9a-f]+\)$", "", answer)


def mailkey_clause(arrived: Received) -> str:
    """What our Authentication-Results, the topmost, says of the mailkey."""
    found = re.search(rb"^Authentication-Results:((?:[^\r]|\r\n[ \t])*)", arrived.data, re.MULTILINE)
    assert found is not None
    clauses = " ".join(found[1].decode().split()).split("; ")
    assert clauses[0] == "mx.fwd.test"
    return next(one for one in clauses if one.startswith("mailkey="))


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
async def test_each_result_has_its_reply_its_mark_and_its_way_back(service: Lab, row: Row) -> None:
    it, domain = service, row.domain
    for receiver in (it.sink, it.sender):
        # What a row that failed left behind is not the next one's.
        while not receiver.waiting.empty():
            receiver.waiting.get_nowait()
    message = row.make(domain, it.app.clock.now())
    answer = without_id(await it.send(message, f"bob@{domain}", source=row.source))
    assert it.journal.named("message.verified")[-1]["mailkey"] == row.result
    match row.then:
        case Then.REFUSED:
            cure = f"see the TXT record of mailkey.{domain}"
            assert answer == f"550 5.7.1 mailkey of {domain} does not cover this message; {cure}"
            assert row.reason in it.journal.named("route.refuse")[-1]["reason"]
        case Then.LATER:
            assert answer == f"451 4.7.5 the mailkey of {domain} cannot be looked up now; try again later"
        case Then.REVERSIBLE | Then.ONE_WAY:
            assert answer == "250 2.0.0 delivered"
            await relayed(it, row)
            return
    assert it.sink.waiting.empty()


async def relayed(it: Lab, row: Row) -> None:
    domain = row.domain
    arrived = await it.next(it.sink)
    clause = mailkey_clause(arrived)
    reason = f" ({row.reason})" if row.reason else ""
    assert clause == f"mailkey={row.result}{reason} smtp.mailfrom=bob@{domain}{row.properties.format(domain)}"
    reversible = row.then is Then.REVERSIBLE
    assert arrived.sender.endswith(f"={domain}=bob@fwd.test") is reversible
    assert ("=+=" in arrived.sender) is not reversible
    answer = without_id(await it.bounce(arrived))
    if reversible:
        assert answer == "250 2.0.0 report passed on to the original sender"
        home = await it.next(it.sender)
        assert (home.sender, home.recipients) == ("", (f"bob@{domain}",))
    else:
        assert answer == "250 2.0.0 accepted; it ends here"
    assert it.sender.waiting.empty()
