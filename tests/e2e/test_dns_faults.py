"""The DNS is down, slow or lies: the sender hears 451 and comes back; no fault is ever taken for "this domain has no mailkey".

Each fault has a domain of its own that says o=all, and no time-out is longer than half a second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
import pytest_asyncio

from forwarder.keys import mailkey_record
from forwarder.resolver import caching
from tests.e2e.lab import MESSAGE, Lab, lab
from tests.peers.smtp_sink import SmtpSink
from tests.waiting import until

TIMEOUT = 0.5
#: Seconds for an answer to the sender, at the very most: a handful of look-ups that time out, each asked twice.
BOUND = 10.0
#: What the name server does (tests/peers/dns_server.py): it fails, is silent, or answers what was not asked.
FAULTS = (
    "SERVFAIL",
    "REFUSED",
    "NOTIMP",
    "TIMEOUT",
    "WRONG-QNAME",
    "WRONG-ID",
    "GARBAGE",
    "TRUNCATED-NOTCP",
    "CNAMELOOP",
    "REFERRAL",
)
#: Seconds for which the resolver remembers a failure, in place of its five (RFC 9520).
REMEMBERED = 0.1
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(autouse=True, scope="module")
def failures_are_soon_forgotten() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(caching, "FAILURE_TTL", REMEMBERED)
        yield


def domain_of(fault: str) -> str:
    return f"{fault.lower()}.test"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    async with lab(tmp_path_factory.mktemp("dns"), dns_timeout=TIMEOUT) as it:
        key = it.keys.mailkey("sender.test")
        assert key is not None
        for fault in (*FAULTS, "LIES-FIRST"):
            name = f"mailkey.{domain_of(fault)}"
            it.dns.add(f'{name}. 300 IN TXT "{mailkey_record(key)}"')
            it.dns.faults[name] = fault
        yield it


async def timed(it: Lab, data: bytes, sender: str) -> str:
    began = time.monotonic()
    answer = await it.send(data, sender)
    assert time.monotonic() - began < BOUND
    return answer


async def retried(attempt: Callable[[], Awaitable[str]]) -> str:
    """What a sender hears in the end that comes back as long as it is told to, in quick motion."""
    answer = ""
    for _ in range(50):
        answer = await attempt()
        if not answer.startswith("451"):
            break
        await asyncio.sleep(REMEMBERED)
    return answer


def of(domain: str) -> bytes:
    return MESSAGE.replace(b"sender.test", domain.encode())


def later(domain: str) -> str:
    return f"451 4.7.5 the mailkey of {domain} cannot be looked up now; try again later"


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_of_the_dns_is_451_and_the_retry_hears_the_truth(service: Lab, fault: str) -> None:
    it, domain = service, domain_of(fault)
    # Nobody signed it, so the truth is a refusal; "none" would let it pass.
    assert (await timed(it, of(domain), f"bob@{domain}")).startswith(later(domain))
    assert it.journal.named("message.verified")[-1]["mailkey"] == "temperror"
    assert it.sink.waiting.empty()
    del it.dns.faults[f"mailkey.{domain}"]
    answer = await retried(lambda: timed(it, of(domain), f"bob@{domain}"))
    assert answer.startswith(f"550 5.7.1 mailkey of {domain}")
    assert it.sink.waiting.empty()


async def test_lies_that_come_before_the_answer_are_not_believed(service: Lab) -> None:
    domain = domain_of("LIES-FIRST")
    assert (await timed(service, of(domain), f"bob@{domain}")).startswith(f"550 5.7.1 mailkey of {domain}")


async def test_the_whole_dns_is_down_and_comes_back(tmp_path_factory: pytest.TempPathFactory) -> None:
    async with lab(tmp_path_factory.mktemp("down"), dns_timeout=TIMEOUT) as it:
        good, forged = it.signed(), MESSAGE.replace(b"<one@", b"<forged@")
        it.dns.gate.clear()
        for data in (good, forged):
            assert (await timed(it, data, "bob@sender.test")).startswith(later("sender.test"))
        assert it.sink.waiting.empty()
        it.dns.gate.set()
        assert (await retried(lambda: timed(it, good, "bob@sender.test"))).startswith("250 2.0.0")
        assert (await it.next(it.sink)).sender.endswith("=sender.test=bob@fwd.test")
        assert (await timed(it, forged, "bob@sender.test")).startswith("550 5.7.1 mailkey of sender.test")
        # Known for as long as the record says, whatever becomes of the DNS.
        it.dns.gate.clear()
        answer = await timed(it, forged, "bob@sender.test")
        assert answer.startswith("550 5.7.1 mailkey of sender.test")
        it.dns.gate.set()


async def test_a_slow_dns_is_waited_for(tmp_path_factory: pytest.TempPathFactory) -> None:
    async with lab(tmp_path_factory.mktemp("slow"), dns_timeout=TIMEOUT) as it:
        it.dns.gate.clear()
        # The answers come within the time that a question has, but only just.
        asyncio.get_running_loop().call_later(TIMEOUT / 2, it.dns.gate.set)
        assert (await timed(it, it.signed(), "bob@sender.test")).startswith("250 2.0.0")
        assert b"mailkey=pass" in (await it.next(it.sink)).data


async def test_a_report_waits_for_the_mailkey_of_its_ehlo_name(tmp_path_factory: pytest.TempPathFactory) -> None:
    async with lab(tmp_path_factory.mktemp("report"), dns_timeout=TIMEOUT) as it:
        assert (await it.send(it.signed())).startswith("250")
        arrived = await it.next(it.sink)
        it.dns.faults["mailkey.mx.sink.test"] = "SERVFAIL"
        assert (await it.bounce(arrived)).startswith(later("mx.sink.test"))
        assert it.sender.waiting.empty()
        it.dns.faults.clear()
        assert (await retried(lambda: it.bounce(arrived))).startswith("250")
        assert (await it.next(it.sender)).recipients == ("bob@sender.test",)


# --- the way out

OTHER = "127.0.0.51"
#: What is wrong with a name on the way to a mail host: the domain's, whose MX is asked for, or the host's.
ASKED = [f"{fault.lower()}.{what}" for what in ("mx", "a") for fault in FAULTS]
SOON = "[queue]\nfirst_retry = 0.05\nmax_retry = 0.2\n"


async def test_a_fault_of_the_dns_on_the_way_out_makes_mail_wait_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    zone = {f"{one}.test": {"MX": [f"10 host.{one}.test."]} for one in ASKED}
    zone |= {f"host.{one}.test": {"A": [OTHER]} for one in ASKED}
    aliases = "\n".join(f'"{one}" = ["x@{one}.test"]' for one in ASKED)
    folder = tmp_path_factory.mktemp("out")
    async with (
        lab(folder, zone=zone, aliases=aliases, extra=SOON, dns_timeout=TIMEOUT) as it,
        SmtpSink(host=OTHER, port=it.port) as sink,
    ):
        for one in ASKED:
            fault, _, what = one.partition(".")
            it.dns.faults[f"{one}.test" if what == "mx" else f"host.{one}.test"] = fault.upper()

        async def send(one: str) -> str:
            alias = f"{one}@fwd.test"
            raw = MESSAGE.replace(b"<one@", b"<%b@" % one.encode())
            return await it.send(it.signed(raw, recipients=(alias,)), recipient=alias)

        answers = await asyncio.gather(*map(send, ASKED))
        assert [answer[:13] for answer in answers] == ["250 2.0.0 acc"] * len(ASKED)
        # It is tried again, and waits on.
        tried = {str(one["item"]) for one in it.journal.named("queue.put")}
        await until(lambda: tried == {str(one["item"]) for one in it.journal.named("queue.outcome")})
        assert not sink.messages
        it.dns.faults.clear()
        await until(lambda: len(sink.messages) == len(ASKED))
        assert it.sender.waiting.empty()
        assert not it.journal.named("queue.dead")


async def test_a_way_that_is_known_is_gone_while_the_dns_is_dead(tmp_path_factory: pytest.TempPathFactory) -> None:
    zone = {"other.test": {"MX": ["10 mx.other.test."]}, "mx.other.test": {"A": [OTHER]}}
    async with lab(
        tmp_path_factory.mktemp("dies"), zone=zone, aliases='held = ["x@other.test"]', extra=SOON, dns_timeout=TIMEOUT
    ) as it:
        alias = "held@fwd.test"
        # Nobody listens there yet.
        answer = await it.send(it.signed(recipients=(alias,)), recipient=alias)
        assert answer.startswith("250 2.0.0 accepted")
        it.dns.gate.clear()
        async with SmtpSink(host=OTHER, port=it.port) as sink:
            await until(lambda: sink.messages)
        it.dns.gate.set()
        assert it.sender.waiting.empty()
