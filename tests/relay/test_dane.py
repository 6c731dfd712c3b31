"""forwarder/relay/dane.py and certificate.py: what TLSA records ask for, and which chains they are for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from forwarder.model import Deferred
from forwarder.ports import Tlsa
from forwarder.relay import Level, TlsRules
from forwarder.relay.certificate import dane_fault, public_key
from forwarder.relay.dane import DaneAnswer, Place, lookup_dane
from forwarder.relay.tls import Dane, Required
from forwarder.resolver import ZoneResolver
from tests.authority import Issued, chain_of, issue, server_with
from tests.peers.programs import needs, run
from tests.peers.smtp_sink import SmtpSink
from tests.relay.bench import bench, results, summary
from tests.relay.conftest import Certificates

HOST, DOMAIN = "mx.sink.test", "sink.test"
SHA256, SHA512 = "11" * 32, "22" * 64


# --- what the records ask for


def records(*texts: str) -> tuple[Tlsa, ...]:
    pieces = [text.split() for text in texts]
    return tuple(Tlsa(int(u), int(s), int(m), bytes.fromhex(data)) for u, s, m, data in pieces)


async def looked_up(zone: dict[str, dict[str, Any]], **place: Any) -> DaneAnswer:
    """What is published for port 25 of the host, in a zone that is signed from test down."""
    given = {"host": HOST, "port": 25, "canonical": "", "secure": True, "domains": (DOMAIN,)} | place
    return await lookup_dane(ZoneResolver({"test": {"DNSSEC": "secure"}} | zone), Place(**given))


def at(*texts: str, name: str = HOST) -> dict[str, dict[str, Any]]:
    return {f"_25._tcp.{name}": {"TLSA": list(texts)}}


@pytest.mark.parametrize(
    ("published", "used"),
    [
        pytest.param([f"3 1 1 {SHA256}"], [f"3 1 1 {SHA256}"], id="the key"),
        pytest.param([f"2 0 2 {SHA512}"], [f"2 0 2 {SHA512}"], id="an authority"),
        pytest.param(["3 0 0 30"], ["3 0 0 30"], id="all of it"),
        pytest.param([f"1 1 1 {SHA256}", f"3 1 1 {SHA256}"], [f"3 1 1 {SHA256}"], id="beside one of no use"),
        pytest.param(
            [f"3 1 1 {SHA256}", f"3 1 2 {SHA512}", f"3 0 1 {SHA256}", "3 1 0 30", f"2 1 1 {SHA256}"],
            [f"3 1 2 {SHA512}", f"3 0 1 {SHA256}", "3 1 0 30", f"2 1 1 {SHA256}"],
            id="the strongest digest of each thing",
        ),
    ],
)
async def test_usable_records_are_held_to(published: list[str], used: list[str]) -> None:
    answer = await looked_up(at(*published))
    assert answer.policy == Dane(records(*used), HOST, (HOST, DOMAIN))
    assert (answer.ttl, answer.trouble) == (300, None)


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(f"0 0 1 {SHA256}", id="PKIX-TA"),
        pytest.param(f"1 1 1 {SHA256}", id="PKIX-EE"),
        pytest.param(f"4 1 1 {SHA256}", id="an unknown usage"),
        pytest.param(f"255 1 1 {SHA256}", id="private use"),
        pytest.param(f"3 2 1 {SHA256}", id="an unknown selector"),
        pytest.param(f"3 1 3 {SHA256}", id="an unknown matching type"),
        pytest.param("3 1 1 1111", id="half a digest"),
        pytest.param(f"3 1 2 {SHA256}", id="the digest of another type"),
        pytest.param("3 1 0", id="nothing"),
    ],
)
async def test_records_that_nobody_can_use_ask_for_tls_all_the_same(record: str) -> None:
    assert (await looked_up(at(record))).policy == Required()


@pytest.mark.parametrize(
    ("zone", "place"),
    [
        pytest.param({HOST: {"A": ["127.0.0.1"]}}, {}, id="none there"),
        pytest.param(at(), {}, id="none of this type"),
        pytest.param(at(f"3 1 1 {SHA256}"), {"port": 26}, id="for another port"),
        pytest.param(at(f"3 1 1 {SHA256}"), {"secure": False}, id="the address is not vouched for"),
        pytest.param(at(f"3 1 1 {SHA256}") | {HOST: {"DNSSEC": "insecure"}}, {}, id="they are not vouched for"),
    ],
)
async def test_where_nothing_is_published_nothing_is_asked_for(zone: dict[str, Any], place: dict[str, Any]) -> None:
    answer = await looked_up(zone, **place)
    assert (answer.policy, answer.trouble) == (None, None)


@pytest.mark.parametrize("fault", ["SERVFAIL", "TIMEOUT"])
async def test_an_answer_that_cannot_be_had_is_not_the_absence_of_records(fault: str) -> None:
    answer = await looked_up({f"_25._tcp.{HOST}": {"TLSA": fault}})
    assert answer == DaneAnswer(None, 0, f"TLSA look-up failed: {fault}")


# RFC 7672 section 2.2.2.
async def test_records_under_the_name_behind_an_alias_come_first() -> None:
    zone = at(f"3 1 1 {SHA256}", name="host.else.test") | at(f"3 1 2 {SHA512}")
    answer = await looked_up(zone, canonical="host.else.test")
    assert answer.policy == Dane(records(f"3 1 1 {SHA256}"), "host.else.test", ("host.else.test", DOMAIN))


async def test_records_under_the_alias_count_where_there_are_none_behind_it() -> None:
    answer = await looked_up(at(f"3 1 1 {SHA256}"), canonical="host.else.test")
    assert answer.policy == Dane(records(f"3 1 1 {SHA256}"), HOST, (HOST, DOMAIN))


async def test_a_failure_behind_an_alias_is_not_got_around() -> None:
    zone = at(f"3 1 1 {SHA256}") | {"_25._tcp.host.else.test": {"TLSA": "SERVFAIL"}}
    assert (await looked_up(zone, canonical="host.else.test")).trouble == "TLSA look-up failed: SERVFAIL"


@pytest.mark.parametrize(
    ("alias", "policy", "trouble"),
    [
        ({"CNAME": ["host.unsigned.test"]}, Dane(records(f"3 1 1 {SHA256}"), HOST, (HOST, DOMAIN)), None),
        ({"CNAME": ["host.unsigned.test"], "DNSSEC": "insecure"}, None, None),
        ({"CNAME": "SERVFAIL"}, None, "TLSA look-up failed: SERVFAIL"),
    ],
    ids=["signed", "unsigned", "no answer"],
)
async def test_an_alias_out_of_what_is_signed_counts_if_it_is_signed_itself(
    alias: dict[str, Any], policy: Dane | None, trouble: str | None
) -> None:
    zone = (
        {HOST: alias} | at(f"3 1 1 {SHA256}") | {f"_25._tcp.{HOST}": {"TLSA": [f"3 1 1 {SHA256}"], "DNSSEC": "secure"}}
    )
    answer = await looked_up(zone, canonical="host.unsigned.test", secure=False)
    assert (answer.policy, answer.trouble) == (policy, trouble)


# --- which chains they are for


def digest(kind: int, data: bytes) -> bytes:
    return {0: lambda: data, 1: lambda: hashlib.sha256(data).digest(), 2: lambda: hashlib.sha512(data).digest()}[kind]()


def record(usage: int, selector: int, matching: int, of: Issued) -> Tlsa:
    return Tlsa(usage, selector, matching, digest(matching, of.spki if selector else of.der))


def fault(record: Tlsa, chain: list[bytes], *names: str) -> str | None:
    return dane_fault(Dane((record,), HOST, names or (HOST, DOMAIN)), chain)


ROOT = issue("root", authority=True)
MIDDLE = issue("middle", ROOT, authority=True)
LEAF = issue("leaf", MIDDLE, names=(HOST,))
EVERY_FORM = pytest.mark.parametrize(("selector", "matching"), [(s, m) for s in (0, 1) for m in (0, 1, 2)])


@EVERY_FORM
def test_a_record_for_the_certificate_itself(selector: int, matching: int) -> None:
    assert fault(record(3, selector, matching, LEAF), chain_of(LEAF)) is None
    assert fault(record(3, selector, matching, MIDDLE), chain_of(LEAF)) == "no record is for it"


@pytest.mark.parametrize("leaf", [issue("x", names=("else.test",), expired=True), issue("x", MIDDLE)])
def test_neither_names_nor_dates_count_for_the_certificate_itself(leaf: Issued) -> None:
    assert fault(record(3, 1, 1, leaf), [leaf.der]) is None


@EVERY_FORM
@pytest.mark.parametrize("anchor", [ROOT, MIDDLE], ids=["root", "middle"])
def test_a_record_for_an_authority(anchor: Issued, selector: int, matching: int) -> None:
    assert fault(record(2, selector, matching, anchor), chain_of(LEAF)) is None


def test_an_authority_whose_whole_certificate_is_the_record_need_not_be_sent() -> None:
    assert fault(record(2, 0, 0, ROOT), chain_of(LEAF, root=False)) is None
    assert fault(record(2, 0, 1, ROOT), chain_of(LEAF, root=False)) == "no record is for it or its authorities"


@pytest.mark.parametrize("names", [(DOMAIN,), ("*.sink.test",), ("else.test", HOST)])
def test_the_certificate_may_be_for_the_host_or_for_the_domain(names: tuple[str, ...]) -> None:
    leaf = issue("leaf", ROOT, names=names)
    assert fault(record(2, 1, 1, ROOT), chain_of(leaf)) is None


_CLIENT = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
_SIGNS_DATA = x509.KeyUsage(True, *[False] * 8)  # digitalSignature and nothing else


@pytest.mark.parametrize(
    ("leaf", "reason"),
    [
        pytest.param(
            lambda: issue("leaf", ROOT, names=("mx.else.test",)),
            "leaf certificate has no matching subjectAltName",
            id="another name",
        ),
        pytest.param(
            lambda: issue(HOST, ROOT),
            "missing required extension: leaf server certificate has no subjectAltName",
            id="no name",
        ),
        pytest.param(
            lambda: issue("leaf", ROOT, names=(HOST,), expired=True),
            "cert is not valid at validation time",
            id="expired",
        ),
        pytest.param(
            lambda: issue("leaf", ROOT, names=(HOST,), extensions=(_CLIENT,)),
            "it is not for a server",
            id="for clients",
        ),
        pytest.param(
            lambda: issue("leaf", issue("middle", ROOT, authority=True, expired=True), names=(HOST,)),
            "cert is not valid at validation time",
            id="an expired authority between",
        ),
        pytest.param(
            lambda: issue("leaf", issue("middle", ROOT, authority=False), names=(HOST,)),
            "",
            id="issued by no authority",
        ),
        pytest.param(
            lambda: issue("leaf", issue("middle", ROOT, names=(HOST,)), names=(HOST,)), "", id="issued by a server"
        ),
        pytest.param(
            lambda: issue("leaf", issue("middle", ROOT, authority=True, extensions=(_SIGNS_DATA,)), names=(HOST,)),
            "an issuer may not sign certificates",
            id="issued with a key for other things",
        ),
    ],
)
def test_below_an_authority_it_is_x509_as_usual(leaf: Callable[[], Issued], reason: str) -> None:
    said = fault(record(2, 1, 1, ROOT), chain_of(leaf()))
    assert said
    assert reason in said


def test_an_authority_of_the_same_name_is_another() -> None:
    forged = issue("leaf", issue("root", authority=True), names=(HOST,))
    said = fault(record(2, 0, 1, ROOT), [forged.der, ROOT.der])
    assert said
    assert "signature does not match" in said


def test_a_certificate_is_not_its_own_authority() -> None:
    own = issue("leaf", authority=True, names=(HOST,))
    assert fault(record(2, 0, 1, own), [own.der]) == "no record is for it or its authorities"


@pytest.mark.parametrize("chain", [[], [b""], [b"\x30\x80"], [b"\xff" * 99, b"\x30\x03\x30\x01\x00"], [LEAF.der, b"x"]])
def test_octets_that_are_no_certificate_are_a_fault_and_no_more(chain: list[bytes]) -> None:
    assert fault(record(2, 0, 0, ROOT), chain)
    assert fault(record(3, 1, 1, ROOT), chain)
    assert fault(Tlsa(2, 0, 0, b"x"), chain_of(LEAF))


def test_no_change_to_a_chain_is_more_than_a_fault() -> None:
    """A version that does not exist, an extension that stands twice: the library has an exception for each."""
    rng, chain, escaped = Random(1), chain_of(LEAF), []
    for _ in range(1500):
        place = rng.randrange(2)
        octets = bytearray(chain[place])
        for _ in range(rng.choice((1, 1, 3))):
            octets[rng.randrange(len(octets))] = rng.randrange(256)
        changed = [*chain[:place], bytes(octets), *chain[place + 1 :]]
        if changed != chain and fault(record(2, 0, 1, ROOT), changed) is None:
            escaped.append(changed)
    assert escaped == [], "and none of them is taken"


def test_a_version_that_does_not_exist_is_a_fault() -> None:
    version = LEAF.der.index(b"\xa0\x03\x02\x01\x02") + 4
    changed = LEAF.der[:version] + b"\x0d" + LEAF.der[version + 1 :]
    assert fault(record(2, 0, 1, ROOT), [changed, *chain_of(LEAF)[1:]]) == "it is malformed"


# --- the public key in a certificate


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP521R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["rsa", "p-521", "ed25519"],
)
def test_the_key_is_cut_out_as_it_stands(key: Any) -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x" * 60)])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    dates = LEAF.certificate.not_valid_before_utc, LEAF.certificate.not_valid_after_utc
    builder = builder.serial_number(1).not_valid_before(dates[0]).not_valid_after(dates[1])
    ed = isinstance(key, ed25519.Ed25519PrivateKey)
    der = builder.sign(key, None if ed else hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    assert public_key(der) == key.public_key().public_bytes(serialization.Encoding.DER, form)
    for end in range(len(der)):
        assert public_key(der[:end]) is None


@needs("openssl")
async def test_the_key_of_a_kind_that_libraries_write_anew_is_cut_out_as_it_stands(tmp_path: Path) -> None:
    key, cert, want = tmp_path / "key.pem", tmp_path / "cert.der", tmp_path / "spki.der"
    options = ("-newkey", "rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048", "-nodes", "-subj", "/CN=x")
    code, said = await run(
        "openssl", "req", "-x509", *options, "-keyout", str(key), "-outform", "DER", "-out", str(cert)
    )
    assert code == 0, said
    code, said = await run("openssl", "pkey", "-in", str(key), "-pubout", "-outform", "DER", "-out", str(want))
    assert code == 0, said
    assert public_key(cert.read_bytes()) == want.read_bytes()


# --- on the wire


def zone(*tlsa: str, secure: str = "secure") -> dict[str, dict[str, Any]]:
    return {
        DOMAIN: {"MX": [f"10 {HOST}"], "DNSSEC": secure},
        HOST: {"A": ["127.0.0.1"]},
        "_PORT._tcp.mx.sink.test": {"TLSA": list(tlsa)},
    }


def on_port(zone: dict[str, dict[str, Any]], port: int) -> dict[str, dict[str, Any]]:
    return {name.replace("_PORT", f"_{port}"): types for name, types in zone.items()}


def presented(one: Tlsa) -> str:
    return f"{one.usage} {one.selector} {one.matching} {one.data.hex()}"


@pytest.mark.parametrize("usage", [2, 3])
async def test_the_certificate_that_was_published_is_delivered_to(tmp_path: Path, usage: int) -> None:
    text = presented(record(usage, 1, 1, LEAF if usage == 3 else ROOT))
    async with (
        SmtpSink(tls=server_with(LEAF, tmp_path)) as sink,
        bench(on_port(zone(text), sink.port), sink.port, signed=True) as it,
    ):
        assert summary(await it.deliver()) == [("Delivered", 250)]
        assert summary(await it.deliver()) == [("Delivered", 250)]
    assert [(one.tls, one.connection) for one in sink.messages] == [("TLSv1.3", 1)] * 2


@pytest.mark.parametrize("usage", [2, 3])
async def test_another_certificate_gets_nothing_and_nothing_goes_in_clear(tmp_path: Path, usage: int) -> None:
    text = presented(record(usage, 1, 1, issue("other", authority=True)))
    async with (
        SmtpSink(tls=server_with(LEAF, tmp_path)) as sink,
        bench(on_port(zone(text), sink.port), sink.port, signed=True) as it,
    ):
        (result,) = results(await it.deliver())
    assert isinstance(result, Deferred)
    assert result.reason.startswith("TLS certificate is not what DANE asks for: no record is for it")
    assert (sink.messages, sink.connections) == ([], 1)


@pytest.mark.parametrize(
    ("record_text", "secure", "delivered"),
    [
        pytest.param(f"3 1 1 {SHA256}", "secure", False, id="usable"),
        pytest.param(f"1 1 1 {SHA256}", "secure", False, id="of no use"),
        pytest.param(f"3 1 1 {SHA256}", "insecure", True, id="not vouched for"),
    ],
)
async def test_a_host_without_tls_gets_nothing_where_records_are_published(
    record_text: str, secure: str, *, delivered: bool
) -> None:
    async with (
        SmtpSink() as sink,
        bench(on_port(zone(record_text, secure=secure), sink.port), sink.port, signed=True) as it,
    ):
        (result,) = results(await it.deliver())
    assert bool(sink.messages) is delivered
    if not delivered:
        assert isinstance(result, Deferred)
        assert result.reason == "TLS is required and not offered"


async def test_a_host_whose_records_cannot_be_had_is_passed_over(certificates: Certificates) -> None:
    both = zone() | {DOMAIN: {"MX": [f"10 {HOST}", "20 second.sink.test"], "DNSSEC": "secure"}}
    both |= {"second.sink.test": {"A": ["127.0.0.2"]}, "_PORT._tcp.mx.sink.test": {"TLSA": "SERVFAIL"}}
    async with (
        SmtpSink(tls=certificates.server) as first,
        SmtpSink(tls=certificates.server, host="127.0.0.2", port=first.port) as second,
        bench(on_port(both, first.port), first.port, signed=True) as it,
    ):
        assert summary(await it.deliver()) == [("Delivered", 250)]
    assert (first.connections, len(second.messages)) == (0, 1)


async def test_where_no_records_can_be_had_the_mail_waits(certificates: Certificates) -> None:
    broken = zone() | {"_PORT._tcp.mx.sink.test": {"TLSA": "SERVFAIL"}}
    async with (
        SmtpSink(tls=certificates.server) as sink,
        bench(on_port(broken, sink.port), sink.port, signed=True) as it,
    ):
        assert results(await it.deliver()) == [Deferred("TLSA look-up failed: SERVFAIL")]
    assert sink.connections == 0


async def test_an_excepted_domain_is_not_asked_for_records(certificates: Certificates) -> None:
    broken = zone() | {"_PORT._tcp.mx.sink.test": {"TLSA": "SERVFAIL"}}
    rules = TlsRules(domains={DOMAIN: Level.OPPORTUNISTIC})
    async with (
        SmtpSink(tls=certificates.server) as sink,
        bench(on_port(broken, sink.port), sink.port, signed=True, tls=rules) as it,
    ):
        assert summary(await it.deliver()) == [("Delivered", 250)]


async def test_the_server_is_asked_for_by_the_name_that_the_records_are_under(tmp_path: Path) -> None:
    asked: list[str | None] = []
    context = server_with(LEAF, tmp_path)
    context.sni_callback = lambda _, name, __: asked.append(name)
    aliased = {
        DOMAIN: {"MX": [f"10 {HOST}"], "DNSSEC": "secure"},
        HOST: {"CNAME": ["host.sink.test"]},
        "host.sink.test": {"A": ["127.0.0.1"]},
        "_PORT._tcp.host.sink.test": {"TLSA": [presented(record(3, 1, 1, LEAF))]},
    }
    async with SmtpSink(tls=context) as sink, bench(on_port(aliased, sink.port), sink.port, signed=True) as it:
        assert summary(await it.deliver()) == [("Delivered", 250)]
    assert asked == ["host.sink.test"]


async def test_a_smarthost_is_held_to_its_records_too(tmp_path: Path) -> None:
    async with SmtpSink(tls=server_with(LEAF, tmp_path)) as sink:
        good = on_port(zone(presented(record(3, 1, 1, LEAF))), sink.port)
        bad = on_port(zone(presented(record(3, 1, 1, ROOT))), sink.port)
        async with bench(good, 25, signed=True, smarthost=f"{HOST}:{sink.port}") as it:
            assert summary(await it.deliver("r@other.test")) == [("Delivered", 250)]
        async with bench(bad, 25, signed=True, smarthost=f"{HOST}:{sink.port}") as it:
            assert summary(await it.deliver("r@other.test")) == [("Deferred", None)]


async def test_without_dnssec_nothing_more_is_asked(certificates: Certificates) -> None:
    async with SmtpSink(tls=certificates.server) as sink, bench(zone(), sink.port) as it:
        assert summary(await it.deliver()) == [("Delivered", 250)]
    assert it.resolver.queries == [(DOMAIN, "MX"), (HOST, "A"), (HOST, "AAAA")]
