"""A second verifier of Mailkey version 1, written from docs/mailkey.md alone: its author has seen that text
and its vectors, and no other implementation. It asks no key host (section 4). verify() takes a case of
section 12 and returns what has to stand there as `expect`."""

import base64
import re
from collections.abc import Iterator
from hashlib import sha256
from typing import Any
from unicodedata import normalize

import idna
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa, utils
from publicsuffixlist import PublicSuffixList

SUFFIXES = PublicSuffixList()
POLICIES = ("all", "some", "test")  # the strictest first
VERSION = re.compile(rb"[ \t]*v[ \t]*=[ \t]*mailkey1[ \t]*(?:;|\Z)")
READABLE_POLICY = re.compile(rb";[ \t]*o[ \t]*=[ \t]*(all|some|test)[ \t]*(?=;|\Z)")
PAIR = re.compile(rb"[ \t\r\n]*([A-Za-z][A-Za-z0-9_]*)[ \t\r\n]*=([ \t\r\n\x21-\x7e\x80-\xff]*)")
BASE64 = re.compile(rb"(?=.)(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
B_VALUE = re.compile(rb"((?:^|;)[ \t\r\n]*b[ \t\r\n]*=)[^;]*")
DOMAIN = re.compile(r"(?s)(?!\[.*\]\Z)(?!.{254})[^.]{1,63}(?:\.[^.]{1,63})*")  # no address literal
LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?")
WHITE = b" \t\r\n"
PRIME = 2**255 - 19
ORDER_8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
SMALL_ORDER = (0, 1, PRIME - 1, ORDER_8, PRIME - ORDER_8)  # section 13, as numbers
SCHEMES: Any = {b"ed25519-sha256": (), b"rsa-sha256": (padding.PKCS1v15(), utils.Prehashed(hashes.SHA256()))}
RESULTS = {None: "pass", "dns": "temperror", "no-domain": "none", "key-host": "none", "left-out": "none"}
RESULTS |= dict.fromkeys(("other-sender", "expired", "future", "body", "signature"), "fail")
STRENGTH = {"pass": 3, "temperror": 2, "fail": 1, "permerror": 1, "none": 0}
Tags = dict[str, bytes]


def domain_name(text: str) -> str | None:  # as section 1 writes it
    labels = text.lower().removesuffix(".").split(".")
    try:
        name = ".".join(s if s.isascii() else idna.alabel(normalize("NFC", s)).decode() for s in labels)
    except (ValueError, IndexError):
        return None
    return name if DOMAIN.fullmatch(name) else None


def split_address(address: str) -> tuple[bytes, str | None]:  # as section 6 writes it, its domain
    local, at, domain = re.sub(r"^@[^:]*:", "", address).rpartition("@")
    name = domain_name(domain) if at else None
    return (local + at + (name or domain)).encode("utf-8", "surrogateescape"), name


def tag_list(text: bytes) -> Tags | None:
    matches = [PAIR.fullmatch(pair) for pair in re.sub(rb";[ \t\r\n]*\Z", b"", text).split(b";")]
    tags = {match[1].decode(): match[2].strip(WHITE) for match in matches if match}
    return tags if len(tags) == len(matches) else None


def octets(value: bytes) -> bytes | None:
    return base64.b64decode(value) if BASE64.fullmatch(value.translate(None, WHITE)) else None


def read_record(text: bytes) -> tuple[str | None, str | None, Tags]:  # why it gives no key, policy, tags
    tags = tag_list(text) or {}
    key, policy = tags.get("p"), tags.get("o", b"all").decode("latin-1")
    key_fits = tags.get("u") == b"https" if key is None else key == b"" or octets(key) is not None
    if len(text) <= 8192 and policy in POLICIES and key_fits:
        return "key-host" if key is None else None if key else "revoked", policy, tags
    readable = [word.decode() for word in READABLE_POLICY.findall(text) if len(text) <= 8192]
    return "bad-record", min(readable or ["all"], key=POLICIES.index), {}


def look_up(dns: dict[str, Any], name: str, hops: int = 8) -> tuple[str | None, str | None, Tags]:
    node = dns.get(name, {})
    answer = node.get("TXT", node.get("CNAME", []))
    if isinstance(answer, str) or not hops:
        return "dns", None, {}
    if answer and "TXT" not in node:
        return look_up(dns, answer[0].lower().removesuffix("."), hops - 1)
    texts = {text.encode("utf-8", "surrogateescape") for text in answer}
    records = [read_record(text) for text in texts if VERSION.match(text)]
    if len(records) > 1:
        return "several-records", min((str(policy) for _, policy, _ in records), key=POLICIES.index), {}
    return records[0] if records else ("no-key", None, {})


def usable_key(tags: Tags) -> Any:
    data, kind = octets(tags["p"]) or b"", tags.get("k", b"ed25519")
    if kind == b"ed25519" and len(data) == 32:
        y = int.from_bytes(data, "little") % 2**255
        return None if y >= PRIME or y in SMALL_ORDER else ed25519.Ed25519PublicKey.from_public_bytes(data)
    try:
        key: Any = serialization.load_der_public_key(data if kind == b"rsa" and len(data) <= 1200 else b"")
    except (ValueError, UnsupportedAlgorithm):
        return None
    fits = isinstance(key, rsa.RSAPublicKey) and 2048 <= key.key_size <= 4096
    return key if fits and key.public_numbers().e < 2**64 else None


def canonical(message: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:  # section 7: fields, body hash
    head, _, body = (b"\r\n" + message).partition(b"\r\n\r\n")
    lines = re.sub(rb"\r\n(?=[ \t])", b"", head).split(b"\r\n")
    relaxed = [re.sub(rb"[ \t]+", b" ", line).partition(b":") for line in lines if b":" in line]
    fields = [(name.lower().rstrip(b" "), value.strip(b" ")) for name, _, value in relaxed]
    rows = [row.rstrip(b" ") for row in re.sub(rb"[ \t]+", b" ", body).split(b"\r\n")]
    end = max((number for number, row in enumerate(rows, 1) if row), default=0)
    return fields, sha256(b"".join(row + b"\r\n" for row in rows[:end])).digest()


def header_input(fields: list[tuple[bytes, bytes]], own: int, tags: Tags) -> bytes:
    left: dict[bytes, list[bytes]] = {}
    for name, value in fields[:own] + fields[own + 1 :]:
        left.setdefault(name, []).append(name + b":" + value)
    names = tags.get("h", b"").translate(None, WHITE).lower().split(b":")
    signed = [left[name].pop() for name in names if left.get(name)]
    return b"\r\n".join([*signed, b"mailkey-signature:" + B_VALUE.sub(rb"\1", fields[own][1])])


def judge(case: Any, tags: Tags, hosts: Any, asked: set[str], header: bytes, bh: bytes) -> Iterator[Any]:
    """Step 6 of section 8, in its order: the first that is true of these is the reason not to pass."""
    signer, selector = hosts
    names = tags.get("h", b"").translate(None, WHITE).lower().split(b":")
    times = [int(tags[tag]) for tag in "tx" if re.fullmatch(rb"[0-9]{1,12}", tags.get(tag, b""))]
    yield (tags.get("v") != b"1" or tags.get("a") not in SCHEMES) and "bad-field"
    yield signer is None and "bad-field"
    yield "s" in tags and not LABEL.fullmatch(selector or "") and "bad-field"
    yield (len(times) < 2 or not 0 < times[1] - times[0] <= 1209600) and "bad-field"
    yield any(octets(tags.get(tag, b"")) is None for tag in ("mf", "bh", "b")) and "bad-field"
    items = [octets(item) or b"" for item in tags["rt"].split(b",")] if "rt" in tags else []
    yield any(len(item) != 16 for item in items) and "bad-field"
    yield not all(re.fullmatch(rb"[\x21-\x39\x3c-\x7e]+", name) for name in names) and "bad-field"
    yield (b"from" not in names or tags.keys() & {"c", "l", "i", "q"}) and "bad-field"
    yield octets(tags["mf"]) != b"<" + split_address(case["mail_from"])[0] + b">" and "other-sender"
    yield case["time"] > times[1] + 300 and "expired"
    yield times[0] > case["time"] + 86400 and "future"
    yield octets(tags["bh"]) != bh and "body"
    name = f"{selector}.mailkey.{signer}" if selector else f"mailkey.{signer}"
    yield name not in asked and len(asked) > 2 and "left-out"
    asked.add(name)
    reason, _, record = look_up(case["dns"], name)
    yield reason
    yield (key := usable_key(record)) is None and "bad-key"
    yield tags["a"] != record.get("k", b"ed25519") + b"-sha256" and "wrong-algorithm"
    try:
        key.verify(octets(tags["b"]), sha256(header).digest(), *SCHEMES[tags["a"]])
    except InvalidSignature:
        yield "signature"
    salt = tags["t"] + b":" + tags["bh"].translate(None, WHITE) + b":"
    recipients = {sha256(salt + split_address(rcpt)[0]).digest()[:16] for rcpt in case["rcpt_to"]}
    yield "rt" in tags and not recipients <= set(items) and "unbound"


def verify(case: dict[str, Any]) -> dict[str, Any]:  # section 8
    domain = split_address(case["mail_from"])[1] if case["mail_from"] else domain_name(case["helo"])
    own, policy, _ = look_up(case["dns"], f"mailkey.{domain}") if domain else ("no-domain", None, {})
    ended = own in ("no-domain", "dns", "bad-record", "several-records")
    fields, bh = canonical(base64.b64decode(case["message"]))
    found, asked = [], {f"mailkey.{domain}"}
    for index in [i for i, field in enumerate(fields) if field[0] == b"mailkey-signature" and not ended][:5]:
        tags = tag_list(fields[index][1]) or {}
        signer, selector = (domain_name(tags.get(tag, b"").decode("utf-8", "replace")) for tag in "ds")
        signer = signer if all(LABEL.fullmatch(label) for label in f"{signer}".split(".")) else None
        parent = f"{domain}".endswith(f".{signer}") and not SUFFIXES.is_public(f"{signer}")
        if signer is None or parent or (signer == domain and own != "no-key"):
            faults = judge(case, tags, (signer, selector), asked, header_input(fields, index, tags), bh)
            reason = next((fault for fault in faults if fault), None)
            bound = {None: "rt" in tags or None, "unbound": False}.get(reason)
            found.append((reason, bound, signer, None if reason == "bad-field" else selector))
    found = found or [(own if ended else "unsigned", None, None, None)]
    results = RESULTS | dict.fromkeys(("unsigned", "unbound"), "fail" if policy == "all" else "none")
    told = max(found, key=lambda finding: STRENGTH[results.get(finding[0], "permerror")])
    result, (reason, bound, signer, selector) = results.get(told[0], "permerror"), told
    if own == "no-key" and result not in ("pass", "temperror"):
        result, reason = "none", "no-record"
    told_of = {"policy": policy, "bound": bound, "signer": signer, "selector": selector}
    return {"result": result, "reason": reason} | told_of
