"""A second verifier, written from docs/mailkey.md alone: no line and no library of ``forwarder`` but the arithmetic of keys.

``verify(case)`` takes a case of section 12 and gives what its ``expect`` holds. It is meant to be read beside the
document: the order is that of section 8.
"""

from __future__ import annotations

import binascii
import re
import unicodedata
from base64 import b64decode
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import idna
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key
from publicsuffixlist import PublicSuffixList

SUFFIXES = PublicSuffixList()
SMALL = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
]
STRENGTH = {"pass": 3, "temperror": 2, "fail": 1, "permerror": 1, "none": 0}
NUMBER = re.compile(r"[0-9]{1,12}")
HOST = re.compile(r"(?!-)[a-z0-9_-]+(?<!-)(\.(?!-)[a-z0-9_-]+(?<!-))*")
POLICY = re.compile(rb";[ \t]*o[ \t]*=[ \t]*(all|some|test)[ \t]*(?=;|$)")


class Malformed(Exception):
    """Section 2, or a rule of sections 3 and 5."""


@dataclass
class Record:
    policy: str
    kind: str = ""
    key: Any = None
    error: str | None = None  # the reason of section 9
    unreadable: bool = False  # malformed or several: an error for the policy too


# Sections 1 and 2


def name_of(text: str) -> str | None:
    labels = text.removesuffix(".").split(".")
    try:
        made = [
            x.lower() if x.isascii() else idna.alabel(unicodedata.normalize("NFC", x.lower())).decode() for x in labels
        ]
    except (idna.IDNAError, UnicodeError):
        return None
    name = ".".join(made)
    fits = all(1 <= len(x) <= 63 and not re.search(r"[\x00-\x1f\x7f]", x) for x in made) and len(name) <= 253
    return name if fits else None


def tag_list(octets: bytes) -> dict[str, bytes]:
    if re.search(rb"[^ \t\r\n!-~\x80-\xff]", octets):
        raise Malformed
    pairs = octets.split(b";")
    if not pairs[-1].strip(b" \t\r\n"):
        pairs.pop()
    tags: dict[str, bytes] = {}
    for pair in pairs:
        found = re.fullmatch(rb"[ \t\r\n]*([A-Za-z][A-Za-z0-9_]*)[ \t\r\n]*=(.*)", pair, re.DOTALL)
        if not found or found[1].decode() in tags:
            raise Malformed
        tags[found[1].decode()] = found[2].strip(b" \t\r\n")
    return tags


def unspaced(value: bytes) -> bytes:
    return re.sub(rb"[ \t\r\n]", b"", value)


def base64(value: bytes) -> bytes:
    try:
        if not unspaced(value):
            raise Malformed
        return binascii.a2b_base64(unspaced(value), strict_mode=True)
    except binascii.Error as error:
        raise Malformed from error


# Section 3


def read_record(text: bytes) -> Record | None:
    if not re.match(rb"[ \t]*v[ \t]*=[ \t]*mailkey1[ \t]*(;|$)", text) or text.endswith(b"\n"):
        return None
    if len(text) > 8192:
        return Record("all", error="bad-record", unreadable=True)
    try:
        tags = tag_list(text)
        policy = tags.get("o", b"all").decode("latin-1")
        if policy not in ("all", "some", "test") or ("p" not in tags and tags.get("u") != b"https"):
            raise Malformed
        key = base64(tags["p"]) if tags.get("p") else b""
    except Malformed:
        return Record(strictest([x.decode() for x in POLICY.findall(text)]), error="bad-record", unreadable=True)
    if not key:
        return Record(policy, error="revoked" if "p" in tags else "key-host")
    kind = tags.get("k", b"ed25519").decode("latin-1")
    usable = {"ed25519": load_ed25519, "rsa": load_rsa}.get(kind, lambda _: None)(key)
    return Record(policy, kind, usable, None if usable else "bad-key")


def strictest(policies: list[str]) -> str:
    return next((x for x in ("all", "some", "test") if x in policies), "all")


def load_ed25519(octets: bytes) -> Ed25519PublicKey | None:
    if len(octets) != 32:
        return None
    point = octets[:31] + bytes([octets[31] & 0x7F])
    if point.hex() in SMALL or int.from_bytes(point, "little") >= 2**255 - 19:
        return None
    return Ed25519PublicKey.from_public_bytes(octets)


def load_rsa(octets: bytes) -> RSAPublicKey | None:
    try:
        key = load_der_public_key(octets) if len(octets) <= 1200 else None
    except (ValueError, UnsupportedAlgorithm):
        return None
    if not isinstance(key, RSAPublicKey) or not 2048 <= key.key_size <= 4096:
        return None
    return key if key.public_numbers().e.bit_length() <= 64 else None


def look_up(dns: dict[str, Any], name: str) -> Record | str:
    """A record, or "no record", or "no answer"."""
    zone = {owner.lower(): types for owner, types in dns.items()}
    types = zone.get(name, {})
    if "CNAME" in types:
        types = zone.get(types["CNAME"][0], {})
    texts = types.get("TXT", [])
    if isinstance(texts, str):
        return "no answer"
    records = [record for text in sorted(set(texts)) if (record := read_record(text.encode()))]
    if len(records) > 1:
        return Record(strictest([x.policy for x in records]), error="several-records", unreadable=True)
    return records[0] if records else "no record"


# Sections 5 to 7


def host(tags: dict[str, bytes], tag: str) -> str:
    try:
        name = name_of(tags.get(tag, b"").decode())
    except UnicodeDecodeError as error:
        raise Malformed from error
    if name is None or not HOST.fullmatch(name):
        raise Malformed
    return name


def read_field(raw: bytes) -> tuple[str | None, dict[str, Any] | None]:
    """d= if it can be read, and what the field claims, or None if it is malformed."""
    domain = None
    try:
        tags = tag_list(raw.partition(b":")[2])
        domain = host(tags, "d")
        text = {tag: value.decode("latin-1") for tag, value in tags.items()}
        if text.get("v") != "1" or text.get("a") not in ("rsa-sha256", "ed25519-sha256") or set("cliq") & set(tags):
            raise Malformed
        selector = host(tags, "s") if "s" in tags else None
        if (
            not NUMBER.fullmatch(text.get("t", ""))
            or not NUMBER.fullmatch(text.get("x", ""))
            or "." in (selector or "")
        ):
            raise Malformed
        t, x = int(text["t"]), int(text["x"])
        names = unspaced(tags.get("h", b"")).lower().split(b":")
        if not t < x <= t + 1209600 or b"from" not in names or not all(re.fullmatch(rb"[!-9<-~]+", n) for n in names):
            raise Malformed
        rt = [base64(one) for one in tags["rt"].split(b",")] if "rt" in tags else None
        if rt is not None and any(len(one) != 16 for one in rt):
            raise Malformed
        claim = {"a": text["a"], "s": selector, "t": t, "x": x, "h": names, "rt": rt, "d": domain}
        claim |= {tag: base64(tags.get(tag, b"")) for tag in ("mf", "bh", "b")}
        return domain, claim | {"salt": tags["t"] + b":" + unspaced(tags["bh"]) + b":"}
    except Malformed:
        return domain, None


def path(address: str) -> bytes:
    local, _, domain = address.rpartition("@")
    return f"{local}@{domain if domain.startswith('[') else name_of(domain)}".encode() if address else b""


def relaxed(field: bytes) -> bytes:
    name, _, value = field.partition(b":")
    value = re.sub(rb"[ \t]+", b" ", value.replace(b"\r\n", b"")).strip(b" ")
    return name.strip(b" \t").lower() + b":" + value + b"\r\n"


def split(message: bytes) -> tuple[list[bytes], bytes]:
    header, _, body = (b"\r\n" + message).partition(b"\r\n\r\n")
    lines = re.split(rb"\r\n(?![ \t])", header[2:].removesuffix(b"\r\n"))
    return [line + b"\r\n" for line in lines if line], body


def body_hash(body: bytes) -> bytes:
    text = b"\r\n".join(re.sub(rb"[ \t]+", b" ", line).rstrip(b" ") for line in body.split(b"\r\n"))
    text = re.sub(rb"(\r\n)+\Z", b"", text)
    return sha256(text + b"\r\n" if text else b"").digest()


def header_input(fields: list[bytes], at: int, names: list[bytes]) -> bytes:
    left = fields[:at] + fields[at + 1 :]
    out = b""
    for name in names:
        found = [n for n, field in enumerate(left) if field.partition(b":")[0].lower() == name]
        out += relaxed(left.pop(found[-1])) if found else b""
    emptied = re.sub(rb"([:;][ \t\r\n]*b[ \t\r\n]*=)[^;]*", rb"\1", fields[at], count=1)
    return out + relaxed(emptied + b"\r\n")[:-2]


def fits(record: Record, claim: dict[str, Any], data: bytes) -> bool:
    try:
        if record.kind == "rsa":
            record.key.verify(claim["b"], data, PKCS1v15(), SHA256())
        else:
            record.key.verify(claim["b"], sha256(data).digest())
    except InvalidSignature:
        return False
    return True


# Section 8


def verify(case: dict[str, Any]) -> dict[str, Any]:
    def told(result: str, reason: str | None, policy: str | None = None, **more: Any) -> dict[str, Any]:
        return {
            "result": result,
            "reason": reason,
            "policy": policy,
            "bound": None,
            "signer": None,
            "selector": None,
        } | more

    sender, dns = case["mail_from"], case["dns"]
    text = sender.rpartition("@")[2] if sender else case["helo"]
    domain = None if text.startswith("[") else name_of(text)
    if domain is None:
        return told("none", "no-domain")
    own = look_up(dns, f"mailkey.{domain}")
    if own == "no answer":
        return told("temperror", "dns")
    if isinstance(own, Record) and own.unreadable:
        return told("permerror", own.error, own.policy)
    policy = own.policy if isinstance(own, Record) else None
    fields, body = split(b64decode(case["message"]))
    places = [n for n, field in enumerate(fields) if field.partition(b":")[0].lower() == b"mailkey-signature"][:5]
    kept = []
    for at in places:
        signer, claim = read_field(fields[at])
        parent = signer is not None and domain.endswith("." + signer) and SUFFIXES.privatesuffix(signer) is not None
        if signer is None or (signer == domain and policy) or parent:
            kept.append((at, signer, claim))
    if not kept:
        return told("fail" if policy == "all" else "none", "unsigned" if policy else "no-record", policy)
    asked = {f"mailkey.{domain}"}
    findings: list[dict[str, Any]] = []
    for at, signer, claim in kept:
        about = {"signer": signer, "selector": claim and claim["s"]}
        if claim is None:
            findings.append(told("permerror", "bad-field", policy, **about))
            continue
        result = judge(case, policy, fields, at, claim, body, asked)
        if result is not None:
            findings.append(told(result[0], result[1], policy, bound=result[2], **about))
            if result[0] == "pass":
                break
    best = max(findings, key=lambda finding: STRENGTH[finding["result"]])
    if policy is None and best["result"] not in ("pass", "temperror"):
        best |= {"result": "none", "reason": "no-record"}
    return best


def judge(
    case: dict[str, Any],
    policy: str | None,
    fields: list[bytes],
    at: int,
    claim: dict[str, Any],
    body: bytes,
    asked: set[str],
) -> tuple[str, str | None, bool | None] | None:
    """Step 6 for one well-formed field: result, reason, bound; None: left out."""
    if claim["mf"] != b"<" + path(case["mail_from"]) + b">":
        return "fail", "other-sender", None
    if case["time"] > claim["x"] + 300:
        return "fail", "expired", None
    if claim["t"] > case["time"] + 86400:
        return "fail", "future", None
    if claim["bh"] != body_hash(body):
        return "fail", "body", None
    name = (f"{claim['s']}." if claim["s"] else "") + f"mailkey.{claim['d']}"
    if name not in asked and len(asked) == 3:
        return None
    asked.add(name)
    record = look_up(case["dns"], name)
    if record == "no answer":
        return "temperror", "dns", None
    if not isinstance(record, Record) or record.error:
        error = record.error if isinstance(record, Record) else "no-key"
        # Section 4: this verifier asks no key host.
        return "none" if error == "key-host" else "permerror", error, None
    if claim["a"] != f"{record.kind}-sha256":
        return "permerror", "wrong-algorithm", None
    if not fits(record, claim, header_input(fields, at, claim["h"])):
        return "fail", "signature", None
    if claim["rt"] is None:
        return "pass", None, None
    if all(sha256(claim["salt"] + path(one)).digest()[:16] in claim["rt"] for one in case["rcpt_to"]):
        return "pass", None, True
    return "fail" if policy == "all" else "none", "unbound", False
