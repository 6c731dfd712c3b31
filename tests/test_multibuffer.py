"""Are signatures that are made together those that each key makes by itself, and does nobody wait for others in vain?

What Intel's library makes is tried where the processor has what it needs. The queue in front of it is tried everywhere, with a
library that counts in Python.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPrivateNumbers, rsa_crt_iqmp

from forwarder.app import StartError, load_lanes_for
from forwarder.auth.arc import verify_arc
from forwarder.auth.dkim import build_dkim_signature, verify_dkim
from forwarder.auth.signed import Signing, sign_together
from forwarder.config import Settings
from forwarder.keys import Key, Keys
from forwarder.keys.multibuffer import Lanes, LanesUnfit, LanesUnusable, MultibufferKeys, library, load_lanes
from forwarder.keys.multibuffer import waiting as module
from forwarder.keys.multibuffer.library import LANES, SIZES, Job, LaneKey
from forwarder.keys.multibuffer.waiting import Waiting, agree, find_least, pad
from forwarder.mail.header import parse_message
from forwarder.model import Result
from tests.auth.signers import NOW, ed25519_key, rsa_key, run
from tests.e2e.lab import MESSAGE, lab
from tests.fakes import FakeResolver, MemoryJournal


def plainly(private: RSAPrivateKey, data: bytes) -> bytes:
    return private.sign(data, padding.PKCS1v15(), hashes.SHA256())


class SlowLanes(Lanes):
    """The library's door, with Python behind it. ``fault``: what it does in place of signing."""

    def __init__(self, fault: Callable[[], None] | None = None) -> None:
        self.failed = False
        self.sizes: dict[int, int] = {}
        self.batches: list[int] = []
        self._fault = fault

    def sign(self, jobs: Sequence[Job]) -> list[bytes] | None:
        self.batches.append(len(jobs))
        if self._fault is not None:
            return self._fault()
        made = []
        for one in jobs:
            numbers = KEYS[one.key].private_numbers()
            number = pow(int.from_bytes(one.padded, "big"), numbers.d, numbers.public_numbers.n)
            made.append(number.to_bytes(len(one.padded), "big"))
        return made


def nothing() -> None:
    """What does not verify is shown to nobody."""


def no_memory() -> None:
    raise MemoryError


KEYS: dict[LaneKey, RSAPrivateKey] = {}


def lane_key(number: int = 0, bits: int = 2048) -> LaneKey:
    private = rsa_key(bits, number)
    key = LaneKey(private)
    KEYS[key] = private
    return key


async def ask(waiting: Waiting, key: LaneKey, data: bytes) -> bytes:
    return await waiting.signature(key, lambda octets: plainly(KEYS[key], octets), data)


# --- the queue ----------------------------------------------------------------------------------------------------------


async def test_eight_that_are_asked_for_in_one_round_are_made_at_once() -> None:
    lanes, one, other = SlowLanes(), lane_key(), lane_key(1)
    waiting = Waiting(lanes, 2048, 3, MemoryJournal())
    asked = [(key, b"message %d" % number) for number in range(10) for key in (one, other)]

    made = await asyncio.gather(*(ask(waiting, key, data) for key, data in asked))

    assert made == [plainly(KEYS[key], data) for key, data in asked]
    assert lanes.batches == [8, 8, 4]
    assert lanes.sizes == {8: 2, 4: 1}


async def test_who_comes_while_something_goes_on_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    lanes, key = SlowLanes(), lane_key()
    waiting = Waiting(lanes, 2048, 2, MemoryJournal())

    async def later(rounds: int) -> bytes:
        for _ in range(rounds):
            await asyncio.sleep(0)
        return await ask(waiting, key, b"x")

    # No round is an empty one: whoever comes within twelve rounds of the one before is waited for.
    monkeypatch.setattr(module, "EMPTY", 0.0)
    await asyncio.gather(later(0), later(10), later(20))
    await asyncio.gather(later(0), later(15))
    # Each is: three of them.
    monkeypatch.setattr(module, "EMPTY", 1000.0)
    await asyncio.gather(later(0), later(2), later(4))
    await asyncio.gather(later(0), later(6))

    assert lanes.batches == [3, 3]


async def test_one_alone_is_made_alone_and_soon() -> None:
    lanes, key, rounds = SlowLanes(), lane_key(), 0
    task = asyncio.create_task(ask(Waiting(lanes, 2048, 3, MemoryJournal()), key, b"x"))

    while not task.done():
        rounds += 1
        await asyncio.sleep(0)

    assert task.result() == plainly(KEYS[key], b"x")
    assert lanes.batches == []
    assert lanes.sizes == {1: 1}
    assert rounds < 20


async def test_who_goes_away_holds_up_nobody() -> None:
    lanes, key = SlowLanes(), lane_key()
    waiting = Waiting(lanes, 2048, 3, MemoryJournal())
    gone = [asyncio.create_task(ask(waiting, key, b"gone")) for _ in range(5)]
    staying = [asyncio.create_task(ask(waiting, key, b"staying")) for _ in range(2)]
    await asyncio.sleep(0)
    for one in gone:
        one.cancel()

    assert await asyncio.gather(*staying) == [plainly(KEYS[key], b"staying")] * 2
    assert all(one.cancelled() for one in gone)
    assert lanes.batches == []
    assert lanes.sizes == {2: 1}


@pytest.mark.parametrize("fault", [nothing, no_memory])
async def test_a_library_that_fails_is_not_asked_again_and_nothing_is_lost(fault: Callable[[], None]) -> None:
    lanes, key, journal = SlowLanes(fault), lane_key(), MemoryJournal()

    # The second is what serves after a reload.
    for waiting in (Waiting(lanes, 2048, 3, journal), Waiting(lanes, 2048, 3, journal)):
        for count in (LANES, 5):
            made = await asyncio.gather(*(ask(waiting, key, b"%d" % number) for number in range(count)))
            assert made == [plainly(KEYS[key], b"%d" % number) for number in range(count)]

    assert lanes.batches == [8]
    assert journal.named("multibuffer.failed") == [{"bits": 2048}] * 2


async def test_what_must_not_wait_is_signed_at_once() -> None:
    class Key:
        domain, selector, algorithm = "fwd.test", "s", "rsa-sha256"

        def sign(self, data: bytes) -> bytes:
            return b"alone"

        async def signature(self, data: bytes) -> bytes:
            await asyncio.sleep(0)
            return b"together"

    def steps() -> Signing[bytes]:
        return (yield Key(), b"x")

    assert run(sign_together(steps(), wait=False)) == b"alone"
    assert await sign_together(steps()) == b"together"


async def test_a_key_that_fails_fails_for_who_asked_only() -> None:
    key = lane_key()

    def fail(data: bytes) -> bytes:
        raise ValueError(data.decode())

    waiting = Waiting(SlowLanes(), 2048, 9, MemoryJournal())
    made = await asyncio.gather(waiting.signature(key, fail, b"mine"), ask(waiting, key, b"x"), return_exceptions=True)

    assert repr(made[0]) == "ValueError('mine')"
    assert made[1] == plainly(KEYS[key], b"x")


def test_together_begins_where_it_takes_less_time() -> None:
    key = lane_key()
    # Python takes a hundred times as long as OpenSSL.
    assert find_least(SlowLanes(), key, lambda data: plainly(KEYS[key], data)) is None


# --- the keys -----------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _loaded_anew() -> Iterator[None]:
    yield
    load_lanes.cache_clear()


def ring(*keys: Key) -> Keys:
    return Keys([], keys, None, [b"a secret of this test"])


def test_keys_that_the_library_does_not_know_sign_by_themselves() -> None:
    lanes, journal = SlowLanes(), MemoryJournal()
    unusual = Key("fwd.test", "three", rsa_key(2048, 0, 3))
    keys = ring(Key("fwd.test", "ed", ed25519_key()), unusual)

    found = MultibufferKeys(keys, lanes, journal).dkim("fwd.test")

    assert list(found) == keys.dkim("fwd.test")
    assert journal.named("multibuffer.not_for") == [
        {"domain": "fwd.test", "selector": "three", "reason": "RSA of 2048 bits with the exponent 3"}
    ]


def test_a_key_whose_parts_are_not_its_own_signs_by_itself() -> None:
    # OpenSSL does without a part that is wrong, or longer than it has to be.
    good, other = rsa_key(2048, 0).private_numbers(), rsa_key(2048, 1).private_numbers()
    parts = (other.dmp1, good.dmp1 + (good.p - 1) * 2**64)
    keys = [
        Key("fwd.test", f"s{number}", RSAPrivateNumbers(
            good.p, good.q, good.d, part, good.dmq1, good.iqmp, good.public_numbers
        ).private_key(unsafe_skip_rsa_key_validation=True))
        for number, part in enumerate(parts)
    ]  # fmt: skip
    journal = MemoryJournal()

    found = MultibufferKeys(ring(*keys), SlowLanes(nothing), journal).dkim("fwd.test")

    assert list(found) == keys
    assert [one["reason"] for one in journal.named("multibuffer.not_for")] == [
        "the library's signatures with it are not valid",
        "its parts are larger than its primes",
    ]


def test_a_library_that_failed_is_not_asked_again_after_a_reload() -> None:
    lanes, journal = SlowLanes(), MemoryJournal()
    lanes.failed = True
    keys = ring(Key("fwd.test", "s", rsa_key()))

    assert list(MultibufferKeys(keys, lanes, journal).dkim("fwd.test")) == keys.dkim("fwd.test")
    assert lanes.batches == []
    assert not journal.events


def test_a_key_is_tried_once_until_it_is_gone() -> None:
    old, new = (Key("fwd.test", name, rsa_key(2048, 0, 3)) for name in ("old", "new"))
    keys, journal = ring(old), MemoryJournal()
    together = MultibufferKeys(keys, SlowLanes(), journal)

    def tried() -> list[str]:
        together.dkim("fwd.test")
        return [one["selector"] for one in journal.named("multibuffer.not_for")]

    assert tried() == ["old"]
    assert tried() == ["old"]
    keys.replace_slots([replace(keys.slots[0], configured=(new,), keys=(new,))])
    assert tried() == ["old", "new"]
    keys.replace_slots([replace(keys.slots[0], configured=(old,), keys=(old,))])
    assert tried() == ["old", "new", "old"]


# --- the library --------------------------------------------------------------------------------------------------------


@pytest.fixture
def lanes() -> Lanes:
    try:
        return load_lanes()
    except LanesUnfit as unfit:
        pytest.skip(str(unfit))
    except LanesUnusable as missing:
        pytest.skip(f"requirements-dev.txt has it where it can run: {missing}")


@pytest.mark.parametrize("bits", SIZES)
@pytest.mark.parametrize("count", [1, 3, LANES])
def test_the_library_signs_as_openssl_does(lanes: Lanes, bits: int, count: int) -> None:
    private = [rsa_key(bits, number % 2) for number in range(count)]
    keys = [LaneKey(one) for one in private]
    data = [b"message %d" % number for number in range(count)]

    made = lanes.sign([Job(key, pad(one, bits // 8)) for key, one in zip(keys, data, strict=True)])

    assert made == [plainly(key, one) for key, one in zip(private, data, strict=True)]


def test_it_takes_the_primes_in_either_order(lanes: Lanes) -> None:
    numbers = rsa_key().private_numbers()
    turned = RSAPrivateNumbers(
        numbers.q, numbers.p, numbers.d, numbers.dmq1, numbers.dmp1, rsa_crt_iqmp(numbers.q, numbers.p),
        numbers.public_numbers,
    )  # fmt: skip

    made = lanes.sign([Job(LaneKey(turned.private_key()), pad(b"x", 256))])

    assert made == [plainly(rsa_key(), b"x")]


@pytest.mark.parametrize("wrong", range(5))
def test_a_signature_with_a_fault_in_it_is_shown_to_nobody(lanes: Lanes, wrong: int) -> None:
    good, bad = LaneKey(rsa_key()), LaneKey(rsa_key())
    # As if a bit had turned over in memory.
    bad._numbers[wrong][7] = bytes([bad._numbers[wrong].raw[7] ^ 1])
    jobs = [Job(good, pad(b"x", 256)), Job(bad, pad(b"y", 256))]

    assert lanes.sign(jobs) is None
    assert lanes.sign(jobs[:1]) == [plainly(rsa_key(), b"x")]
    assert not agree(lanes, bad, lambda data: plainly(rsa_key(), data))


async def test_signatures_of_many_messages_hold(lanes: Lanes) -> None:
    journal = MemoryJournal()
    keys = MultibufferKeys(ring(Key("fwd.test", "s", rsa_key())), lanes, journal)
    if journal.named("multibuffer.ready")[0]["together_from"] is None:
        pytest.skip("OpenSSL is as fast here")
    message = parse_message(b"From: bob@sender.test\r\nSubject: x\r\n\r\n")
    plain = ring(Key("fwd.test", "s", rsa_key())).dkim("fwd.test")[0]

    made = await asyncio.gather(
        *(
            sign_together(build_dkim_signature(message.fields, bytes([number] * 32), key, now=NOW))
            for number in range(20)
            for key in (*keys.dkim("fwd.test"), plain)
        )
    )

    assert made[::2] == made[1::2]
    assert len(set(made)) == 20


async def test_a_service_signs_with_it(lanes: Lanes, tmp_path: Path) -> None:
    async with lab(tmp_path, top='keys.multibuffer = "always"') as it:
        messages = [MESSAGE.replace(b"<one@", b"<%d@" % number) for number in range(16)]

        answers = await asyncio.gather(*(it.send(it.signed(one)) for one in messages))

        assert {one[:3] for one in answers} == {"250"}
        resolver = FakeResolver(it.records)
        for _ in messages:
            arrived = parse_message((await it.next(it.sink)).data)
            now = it.app.clock.now()
            checks = await verify_dkim(resolver, arrived, author_domain=None, now=now)
            assert [one.result for one in checks if one.domain == "fwd.test"] == [Result.PASS] * 2
            assert (await verify_arc(resolver, arrived, now=now)).result is Result.PASS
        assert [one["bits"] for one in it.events("multibuffer.ready")] == [2048]
        assert not it.events("multibuffer.failed")


# --- what operators see -------------------------------------------------------------------------------------------------


def wanted(tmp_path: Path, how: str = "always") -> Settings:
    return Settings.model_validate(
        {
            "hostname": "mx.fwd.test",
            "srs": {"domain": "fwd.test", "secret_file": tmp_path / "srs.secret"},
            "keys": {"multibuffer": how},
        }
    )


def test_without_the_library_a_start_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_RUNTIME_PACKAGE", "no-such-package")
    load_lanes.cache_clear()

    with pytest.raises(StartError, match=r"no-such-package is not installed; pip install .mailkey-forwarder\[multibuf"):
        load_lanes_for(wanted(tmp_path))


def test_a_library_that_cannot_be_loaded_is_told_from_one_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "_file", lambda package, name: tmp_path / name)
    load_lanes.cache_clear()

    with pytest.raises(StartError, match=r"ipp-crypto cannot be loaded; it needs OpenSSL 3 of the system \(.*libintlc"):
        load_lanes_for(wanted(tmp_path))


def test_what_is_not_installed_is_missed_only_by_who_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "_PACKAGE", "no-such-package")
    monkeypatch.setattr(library, "_RUNTIME_PACKAGE", "no-such-package")
    load_lanes.cache_clear()

    assert load_lanes_for(wanted(tmp_path, "auto")) is None


def test_what_is_installed_and_cannot_be_loaded_is_told_and_stops_nobody_who_did_not_ask_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "_file", lambda package, name: tmp_path / name)
    load_lanes.cache_clear()

    told = load_lanes_for(wanted(tmp_path, "auto"))

    assert isinstance(told, LanesUnfit)
    assert "cannot be loaded; it needs OpenSSL 3 of the system" in str(told)


def test_what_is_installed_is_used_unless_the_operator_says_no(lanes: Lanes, tmp_path: Path) -> None:
    unsaid = Settings.model_validate(
        {"hostname": "mx.fwd.test", "srs": {"domain": "fwd.test", "secret_file": tmp_path / "srs.secret"}}
    )

    assert isinstance(load_lanes_for(unsaid), Lanes)
    assert load_lanes_for(wanted(tmp_path, "never")) is None


def test_where_there_is_no_such_library_the_service_runs_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    load_lanes.cache_clear()

    assert str(load_lanes_for(wanted(tmp_path))).startswith("there is none for darwin")
