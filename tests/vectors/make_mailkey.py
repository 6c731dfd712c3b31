"""Which messages does docs/mailkey.md section 12 try a verifier with? Writes mailkey/cases.json, the same each time.

What is expected stands in each case, by hand. Canonical forms and signatures are made here by the text of the
specification; nothing of ``forwarder`` is used.
"""

from __future__ import annotations

import json
import re
import sys
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_private_key

FOLDER = Path(__file__).parent / "mailkey"
KEYS: dict[str, dict[str, str]] = json.loads((FOLDER / "keys.json").read_text())

T = 1795430000
WEEK, DAY = 7 * 86400, 86400
D = "sender.example"
BOB, ALICE, CAROL = "bob@sender.example", "alice@fwd.example", "carol@fwd.example"
H = "from:from:to:to:cc:cc:subject:subject:date:date:message-id:mime-version:content-type"
HEADER = (
    b"From: Bob <bob@sender.example>\r\nTo: alice@fwd.example\r\nSubject: =?utf-8?q?h=C3=A9llo?=\r\n"
    b"Date: Mon, 23 Nov 2026 12:33:20 +0000\r\nMessage-ID: <1@sender.example>\r\n"
)
BODY = b"Hi Alice,\r\n\r\nhow are  you?\r\n"
PLAIN = HEADER + b"\r\n" + BODY


# --- sections 6 and 7 -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Signed:
    field: bytes
    header_input: bytes
    body_hash: bytes

    @property
    def canonical(self) -> dict[str, str]:
        return {
            "header_input": _b64(self.header_input),
            "header_digest": sha256(self.header_input).hexdigest(),
            "body_hash": self.body_hash.hex(),
        }


def _b64(data: bytes) -> str:
    return b64encode(data).decode()


def _relaxed_field(field: bytes) -> bytes:
    name, _, value = field.partition(b":")
    value = re.sub(rb"[ \t]+", b" ", value.replace(b"\r\n", b"")).strip(b" ")
    return name.lower() + b":" + value + b"\r\n"


def _relaxed_body(body: bytes) -> bytes:
    lines = [re.sub(rb"[ \t]+", b" ", line).rstrip(b" ") for line in body.split(b"\r\n")]
    while lines and not lines[-1]:
        lines.pop()
    return b"".join(line + b"\r\n" for line in lines)


def _fields(message: bytes) -> list[bytes]:
    header = message.partition(b"\r\n\r\n")[0] + b"\r\n"
    return re.findall(rb"[^ \t\r\n][^\n]*\n(?:[ \t][^\n]*\n)*", header)


def _select(message: bytes, names: str) -> bytes:
    left = _fields(message)
    out = b""
    for name in names.lower().split(":"):
        for at in range(len(left) - 1, -1, -1):
            if left[at].partition(b":")[0].lower().decode() == name.strip():
                out += _relaxed_field(left.pop(at))
                break
    return out


def item(recipient: str, bh: str, t: int | str = T) -> str:
    """One item of rt=."""
    return _b64(sha256(f"{t}:{bh}:{recipient}".encode()).digest()[:16])


def private_key(name: str) -> RSAPrivateKey | Ed25519PrivateKey:
    octets = b64decode(KEYS[name]["private"])
    if KEYS[name]["k"] == "ed25519":
        return Ed25519PrivateKey.from_private_bytes(octets)
    return cast("RSAPrivateKey", load_der_private_key(octets, None))


def sign(
    message: bytes = PLAIN,
    key: str = "ed25519-a",
    *,
    mf: str = f"<{BOB}>",
    rt: Sequence[str] = (),
    add: Mapping[str, str] | None = None,
    drop: str = "",
    before: str = "",
    name: str = "Mailkey-Signature",
    **tags: str,
) -> Signed:
    """A field that is right but for what the caller asks for. ``before`` stands in front of ``v=``."""
    body_hash = sha256(_relaxed_body(message.partition(b"\r\n\r\n")[2])).digest()
    values = {
        "v": "1",
        "a": f"{KEYS[key]['k']}-sha256",
        "d": D,
        "s": "",
        "t": str(T),
        "x": str(T + WEEK),
        "mf": _b64(mf.encode()),
        "h": H,
        "bh": _b64(body_hash),
    }
    values |= tags
    if rt:
        values["rt"] = ",".join(item(one, values["bh"], values["t"]) for one in rt)
    values |= add or {}
    listed = [f"{tag}={text}" for tag, text in values.items() if tag not in drop.split() and (tag != "s" or text)]
    unsigned = f"{name}: {before}{';'.join(f'{chr(13)}{chr(10)} {one}' for one in listed)};\r\n b=".encode()
    names = re.sub(r"\s", "", values["h"])
    header_input = _select(message, names) + _relaxed_field(unsigned + b"\r\n")[:-2]
    private = private_key(key)
    if isinstance(private, RSAPrivateKey):
        signature = private.sign(header_input, PKCS1v15(), SHA256())
    else:
        signature = private.sign(sha256(header_input).digest())
    text = _b64(signature)
    folded = "\r\n ".join(text[at : at + 72] for at in range(0, len(text), 72))
    end = b"" if "b" in drop.split() else folded.encode()
    field = unsigned + end + b"\r\n" if "b" not in drop.split() else unsigned[: -len("\r\n b=")] + b"\r\n"
    return Signed(field, header_input, body_hash)


# --- cases ------------------------------------------------------------------------------------------------------------


def record(key: str = "ed25519-a", policy: str = "all", **tags: str) -> str:
    values = {"k": KEYS[key]["k"], "p": KEYS[key]["p"]} | tags
    return "; ".join(["v=mailkey1", *(f"{tag}={text}" for tag, text in values.items()), f"o={policy}"])


def zone(*records: str, **names: str | Sequence[str]) -> dict[str, Any]:
    """The records of D, and by label (``k1``: k1.mailkey.D) those of its named keys."""
    found: dict[str, Any] = {f"mailkey.{D}": {"TXT": list(records)}} if records else {}
    for label, text in names.items():
        found[f"{label}.mailkey.{D}"] = {"TXT": text if text in ("SERVFAIL", "TIMEOUT") else [text]}
    return found


CASES: list[dict[str, Any]] = []


def case(
    id_: str,
    why: str,
    *fields: Signed | bytes,
    result: str,
    reason: str | None = None,
    policy: str | None = "all",
    bound: bool | None = None,
    signer: str | None = D,
    selector: str | None = None,
    message: bytes = PLAIN,
    dns: Mapping[str, Any] | None = None,
    mail_from: str = BOB,
    helo: str = "mx.sender.example",
    rcpt_to: Sequence[str] = (ALICE,),
    time: int = T + 100,
) -> None:
    if reason in ("unsigned", "no-domain"):
        signer = None
    above = b"".join(one.field if isinstance(one, Signed) else one for one in fields)
    CASES.append(
        {
            "id": id_,
            "why": why,
            "dns": zone(record()) if dns is None else dns,
            "message": _b64(above + message),
            "mail_from": mail_from,
            "helo": helo,
            "rcpt_to": list(rcpt_to),
            "time": time,
            "canonical": [one.canonical for one in fields if isinstance(one, Signed)],
            "expect": {
                "result": result,
                "reason": reason,
                "policy": policy,
                "bound": bound,
                "signer": signer,
                "selector": selector,
            },
        }
    )


def good() -> None:
    ok = "pass"
    case("pass-ed25519", "the ordinary case", sign(), result=ok)
    case("pass-rsa", "RSA of 2048 bits", sign(key="rsa-2048"), result=ok, dns=zone(record("rsa-2048")))
    case(
        "pass-rsa-pkcs1",
        "a bare RSAPublicKey is taken",
        sign(key="rsa-2048"),
        result=ok,
        dns=zone(record("rsa-2048", p=KEYS["rsa-2048"]["pkcs1"])),
    )
    for policy in ("some", "test"):
        case(
            f"pass-{policy}",
            "pass under every policy",
            sign(),
            result=ok,
            policy=policy,
            dns=zone(record(policy=policy)),
        )
    case(
        "pass-default-k",
        "k= and o= have defaults",
        sign(),
        result=ok,
        dns=zone(f"v=mailkey1;p={KEYS['ed25519-a']['p']}"),
    )
    case(
        "pass-named",
        "s= names a key; the policy is that of mailkey.D",
        sign(key="ed25519-b", s="k1"),
        result=ok,
        policy="some",
        selector="k1",
        dns=zone(record(policy="some"), k1=record("ed25519-b", "test")),
    )
    case(
        "pass-named-unnamed-revoked",
        "a revoked unnamed key carries the policy still",
        sign(key="ed25519-b", s="k1"),
        result=ok,
        selector="k1",
        dns=zone("v=mailkey1; p=; o=all", k1=record("ed25519-b")),
    )
    case(
        "pass-cname",
        "a name may be delegated",
        sign(),
        result=ok,
        dns={f"mailkey.{D}": {"CNAME": ["mk.host.example"]}, "mk.host.example": {"TXT": [record()]}},
    )
    case(
        "pass-wildcard-junk",
        "other TXT records at the name are ignored, other versions too",
        sign(),
        result=ok,
        dns=zone("v=spf1 -all", "v=mailkey2; p=x", "v=mailkey10; p=x", record(), "junk"),
    )
    case("pass-record-twice", "equal records count once", sign(), result=ok, dns=zone(record(), record()))
    case(
        "pass-record-space",
        "white space in a record",
        sign(),
        result=ok,
        dns=zone(" v = mailkey1 ;p= " + KEYS["ed25519-a"]["p"] + "; "),
    )
    case(
        "pass-record-note",
        "n= and unknown tags are ignored",
        sign(),
        result=ok,
        dns=zone(record(n="hello world", zz="")),
    )
    case("pass-unknown-tag", "unknown tags of a field are ignored", sign(add={"zz": "1"}), result=ok)
    case("pass-bound", "rt= with the one recipient", sign(rt=[ALICE]), result=ok, bound=True)
    case("pass-bound-more", "rt= may have more items", sign(rt=[CAROL, ALICE, BOB]), result=ok, bound=True)
    case(
        "pass-bound-several",
        "every recipient is bound",
        sign(rt=[CAROL, ALICE]),
        result=ok,
        bound=True,
        rcpt_to=[ALICE, CAROL],
    )
    case(
        "pass-bound-domain-case",
        "a recipient's domain in lower case",
        sign(rt=[ALICE]),
        result=ok,
        bound=True,
        rcpt_to=["alice@FWD.Example"],
    )
    case(
        "pass-bound-a-label",
        "a recipient's domain in A-labels",
        sign(rt=["zo\u00eb@xn--bcher-kva.example"]),
        result=ok,
        bound=True,
        rcpt_to=["zo\u00eb@b\u00fccher.example"],
    )
    case(
        "pass-bound-zeros",
        "t= goes into rt= as it stands",
        sign(t=f"00{T}", rt=[ALICE]),
        result=ok,
        bound=True,
    )
    case(
        "pass-null-sender",
        "the null sender is answered for by the EHLO domain",
        sign(d="mx.sender.example", mf="<>"),
        result=ok,
        signer="mx.sender.example",
        mail_from="",
        dns={"mailkey.mx.sender.example": {"TXT": [record()]}},
    )
    case("pass-null-sender-parent", "or by a parent of it", sign(mf="<>"), result=ok, policy=None, mail_from="")
    case(
        "pass-parent",
        "a parent covers D; the policy is D's",
        sign(mf="<bob@news.sender.example>"),
        result=ok,
        policy="some",
        mail_from="bob@news.sender.example",
        dns=zone(record()) | {"mailkey.news.sender.example": {"TXT": [record("ed25519-b", "some")]}},
    )
    case(
        "pass-parent-no-record",
        "a parent covers a D without a record",
        sign(mf="<bob@news.sender.example>"),
        result=ok,
        policy=None,
        mail_from="bob@news.sender.example",
    )
    case("pass-domain-case", "the domain of MAIL FROM in any case", sign(), result=ok, mail_from="bob@SENDER.Example")
    case("pass-d-case", "d= in any case", sign(d="Sender.EXAMPLE"), result=ok)
    eai = {"mailkey.xn--bcher-kva.example": {"TXT": [record()]}}
    case(
        "pass-smtputf8",
        "the local part in UTF-8, the domain in A-labels",
        sign(mf="<zo\u00eb@xn--bcher-kva.example>", d="xn--bcher-kva.example"),
        result=ok,
        signer="xn--bcher-kva.example",
        mail_from="zo\u00eb@b\u00fccher.example",
        dns=eai,
    )
    case(
        "pass-d-u-label",
        "d= in U-labels",
        sign(mf="<zoe@xn--bcher-kva.example>", d="B\u00fccher.example"),
        result=ok,
        signer="xn--bcher-kva.example",
        mail_from="zoe@xn--bcher-kva.example",
        dns=eai,
    )
    case(
        "pass-quoted-local",
        "a quoted local part as it is",
        sign(mf='<"bob smith"@sender.example>'),
        result=ok,
        mail_from='"bob smith"@sender.example',
    )
    case("pass-grace", "300 seconds past x=", sign(), result=ok, time=T + WEEK + 300)
    case("pass-ahead", "t= a day ahead", sign(), result=ok, time=T - DAY)
    case("pass-14-days", "a life of 14 days", sign(x=str(T + 2 * WEEK)), result=ok, time=T + 2 * WEEK)
    history = sign(key="ed25519-c", d="earlier.example", mf="<x@earlier.example>")
    case("pass-history", "the field of an earlier hop is skipped", sign(), history, result=ok)
    case("pass-history-above", "wherever it stands", history, sign(), result=ok)
    case(
        "pass-history-malformed",
        "malformed history is skipped too",
        sign(d="earlier.example", drop="a"),
        sign(),
        result=ok,
    )
    case(
        "pass-one-good",
        "one good signature is enough",
        sign(mf="<eve@sender.example>"),
        sign(drop="t"),
        sign(),
        result=ok,
    )
    case(
        "pass-over-temperror",
        "and stronger than a silent DNS",
        sign(key="ed25519-b", s="k1"),
        sign(),
        result=ok,
        dns=zone(record(), k1="SERVFAIL"),
    )
    case("pass-fifth", "the fifth field counts", history, history, history, history, sign(), result=ok)
    signed = sign(HEADER + b"X-Extra: 1\r\n\r\n" + BODY)
    case(
        "pass-unsigned-field-changed",
        "what h= does not name may change",
        signed,
        result=ok,
        message=HEADER + b"X-Extra: 2\r\n\r\n" + BODY,
    )
    case(
        "pass-relaxed",
        "white space, folds, case of names, empty lines at the end",
        sign(),
        result=ok,
        message=PLAIN.replace(b"To: alice", b"TO:\t alice")
        .replace(b"Bob <", b"Bob\r\n\t<")
        .replace(b"are  you?\r\n", b"are\tyou? \r\n\r\n\r\n"),
    )
    case(
        "pass-empty-body",
        "an empty body is hashed as nothing",
        sign(HEADER + b"\r\n"),
        result=ok,
        message=HEADER + b"\r\n",
    )
    case(
        "pass-8bit",
        "octets beyond ASCII are octets",
        sign(PLAIN.replace(b"Alice,", b"Zo\xc3\xab \xff,")),
        result=ok,
        message=PLAIN.replace(b"Alice,", b"Zo\xc3\xab \xff,"),
    )
    case("pass-h-folded", "white space and case in h= do not count", sign(h="From:\r\n To : SUBJECT"), result=ok)
    case("pass-field-name-case", "the name of the field in any case", sign(name="MAILKEY-signature"), result=ok)
    below = sign(HEADER + b"\r\n" + BODY, d="earlier.example")
    case(
        "pass-signs-other-field",
        "h= may name Mailkey-Signature: the others, not itself",
        sign(below.field + PLAIN, h="from:mailkey-signature:mailkey-signature"),
        below,
        result=ok,
    )
    two = b"From: eve@evil.example\r\n" + PLAIN
    case(
        "pass-from-twice-unprotected",
        "h= with From once: the lowest From is signed; mailkey says nothing of From",
        sign(h="from:to"),
        result=ok,
        message=two,
    )


def refused() -> None:
    no = "fail"
    case("fail-unsigned", "o=all, not signed", result=no, reason="unsigned")
    case("fail-only-history", "o=all and history only", sign(d="earlier.example"), result=no, reason="unsigned")
    case("fail-child", "a child does not cover its parent", sign(d="news.sender.example"), result=no, reason="unsigned")
    case("fail-neighbour", "nor a name that ends alike", sign(d="ender.example"), result=no, reason="unsigned")
    case(
        "fail-public-suffix",
        "a public suffix covers nothing",
        sign(d="example"),
        result=no,
        reason="unsigned",
        dns=zone(record()) | {"mailkey.example": {"TXT": [record()]}},
    )
    case(
        "fail-public-suffix-listed",
        "nor does one of two labels",
        sign(d="co.uk", mf="<bob@sender.co.uk>"),
        result=no,
        reason="unsigned",
        mail_from="bob@sender.co.uk",
        dns={"mailkey.co.uk": {"TXT": [record()]}, "mailkey.sender.co.uk": {"TXT": [record("ed25519-b")]}},
    )
    case(
        "fail-sixth",
        "the sixth field is not looked at",
        *[sign(d="earlier.example")] * 5,
        sign(),
        result=no,
        reason="unsigned",
    )
    case("fail-other-sender", "mf= of somebody else", sign(mf="<eve@sender.example>"), result=no, reason="other-sender")
    case(
        "fail-local-case",
        "the case of a local part counts",
        sign(mf="<Bob@sender.example>"),
        result=no,
        reason="other-sender",
    )
    case("fail-mf-no-brackets", "mf= without brackets", sign(mf=BOB), result=no, reason="other-sender")
    case(
        "fail-mf-domain-case",
        "mf= with a domain in upper case",
        sign(mf="<bob@SENDER.example>"),
        result=no,
        reason="other-sender",
    )
    case("fail-null-mf", "mf= of the null sender", sign(mf="<>"), result=no, reason="other-sender")
    case(
        "fail-mf-u-label",
        "mf= with a domain in U-labels",
        sign(mf="<zoe@b\u00fccher.example>", d="xn--bcher-kva.example"),
        result=no,
        reason="other-sender",
        signer="xn--bcher-kva.example",
        mail_from="zoe@b\u00fccher.example",
        dns={"mailkey.xn--bcher-kva.example": {"TXT": [record()]}},
    )
    case("fail-expired", "301 seconds past x=", sign(), result=no, reason="expired", time=T + WEEK + 301)
    case("fail-future", "t= a day and a second ahead", sign(), result=no, reason="future", time=T - DAY - 1)
    case(
        "fail-body",
        "a body with one octet changed",
        sign(),
        result=no,
        reason="body",
        message=PLAIN.replace(b"how", b"who"),
    )
    case("fail-body-appended", "a line more", sign(), result=no, reason="body", message=PLAIN + b"Buy!\r\n")
    case(
        "fail-header-changed",
        "a signed field changed",
        sign(),
        result=no,
        reason="signature",
        message=PLAIN.replace(b"<1@", b"<2@"),
    )
    case(
        "fail-header-added",
        "one more of a field named once more",
        sign(),
        result=no,
        reason="signature",
        message=b"Subject: other\r\n" + PLAIN,
    )
    case(
        "fail-header-new",
        "one of a field that was absent and named",
        sign(),
        result=no,
        reason="signature",
        message=b"Cc: eve@evil.example\r\n" + PLAIN,
    )
    case(
        "fail-header-removed",
        "a signed field removed",
        sign(),
        result=no,
        reason="signature",
        message=PLAIN.replace(b"To: alice@fwd.example\r\n", b""),
    )
    case(
        "fail-from-twice",
        "a second From",
        sign(),
        result=no,
        reason="signature",
        message=b"From: eve@evil.example\r\n" + PLAIN,
    )
    case("fail-other-key", "signed with another key", sign(key="ed25519-b"), result=no, reason="signature")
    field = sign().field
    case(
        "fail-field-changed",
        "a tag of the field changed",
        field.replace(f"x={T + WEEK}".encode(), f"x={T + WEEK + 1}".encode()),
        result=no,
        reason="signature",
    )
    case(
        "fail-tag-added", "an unknown tag added", field.replace(b" b=", b" zz=;\r\n b="), result=no, reason="signature"
    )
    case(
        "fail-b-short",
        "a signature of the wrong length",
        re.sub(rb"\sb=.*", b" b=AAAA\r\n", field, flags=re.DOTALL),
        result=no,
        reason="signature",
    )
    case(
        "fail-some",
        "a bad signature under o=some",
        sign(key="ed25519-b"),
        result=no,
        reason="signature",
        policy="some",
        dns=zone(record(policy="some")),
    )
    case(
        "fail-test",
        "and under o=test",
        sign(key="ed25519-b"),
        result=no,
        reason="signature",
        policy="test",
        dns=zone(record(policy="test")),
    )
    case("fail-unbound", "rt= without the recipient, o=all", sign(rt=[CAROL]), result=no, reason="unbound", bound=False)
    case(
        "fail-unbound-one-of-two",
        "every RCPT has to be bound",
        sign(rt=[ALICE]),
        result=no,
        reason="unbound",
        bound=False,
        rcpt_to=[ALICE, CAROL],
    )
    case(
        "fail-unbound-case",
        "the case of a recipient's local part counts",
        sign(rt=["Alice@fwd.example"]),
        result=no,
        reason="unbound",
        bound=False,
    )
    case(
        "fail-unbound-brackets",
        "a recipient hashed with brackets",
        sign(rt=[f"<{ALICE}>"]),
        result=no,
        reason="unbound",
        bound=False,
    )
    case(
        "fail-strongest",
        "the first of the strongest findings is told",
        sign(mf="<eve@sender.example>"),
        sign(drop="a"),
        result=no,
        reason="other-sender",
    )


def undecided() -> None:
    none = "none"
    bare: dict[str, Any] = {}
    case("none-no-record", "no such name", result=none, reason="no-record", policy=None, signer=None, dns=bare)
    case(
        "none-no-record-signed",
        "D without a record: its own field is skipped",
        sign(),
        result=none,
        reason="no-record",
        policy=None,
        signer=None,
        dns=bare,
    )
    case(
        "none-nodata",
        "the name exists without TXT",
        result=none,
        reason="no-record",
        policy=None,
        signer=None,
        dns={f"mailkey.{D}": {"A": ["192.0.2.1"]}},
    )
    case(
        "none-wildcard",
        "TXT of another kind only",
        result=none,
        reason="no-record",
        policy=None,
        signer=None,
        dns=zone("v=spf1 -all", "hello"),
    )
    case(
        "none-version-2",
        "an unknown v=",
        sign(),
        result=none,
        reason="no-record",
        policy=None,
        signer=None,
        dns=zone(record().replace("mailkey1", "mailkey2")),
    )
    case(
        "none-version-case",
        "v= is case-sensitive",
        result=none,
        reason="no-record",
        policy=None,
        signer=None,
        dns=zone(record().replace("mailkey1", "Mailkey1")),
    )
    case(
        "none-version-not-first",
        "v= not first",
        result=none,
        reason="no-record",
        policy=None,
        signer=None,
        dns=zone(f"p={KEYS['ed25519-a']['p']}; v=mailkey1"),
    )
    case(
        "none-version-quoted",
        "v= with more behind it",
        result=none,
        reason="no-record",
        policy=None,
        signer=None,
        dns=zone("v=mailkey1 p=AAAA"),
    )
    case(
        "none-parent-record",
        "no walk to the parent's policy",
        result=none,
        reason="no-record",
        policy=None,
        signer=None,
        mail_from="bob@news.sender.example",
    )
    case(
        "none-bad-parent",
        "a bad signature of a parent, D without a record",
        sign(key="ed25519-b", mf="<bob@news.sender.example>"),
        result=none,
        reason="no-record",
        policy=None,
        mail_from="bob@news.sender.example",
    )
    case(
        "none-malformed-no-record",
        "a field without a readable d=, D without a record",
        b"Mailkey-Signature: x\r\n",
        result=none,
        reason="no-record",
        policy=None,
        signer=None,
        dns=bare,
    )
    for policy in ("some", "test"):
        case(
            f"none-{policy}",
            f"o={policy}, not signed",
            result=none,
            reason="unsigned",
            policy=policy,
            dns=zone(record(policy=policy)),
        )
    case(
        "none-unbound",
        "rt= without the recipient, o=some",
        sign(rt=[CAROL]),
        result=none,
        reason="unbound",
        policy="some",
        bound=False,
        dns=zone(record(policy="some")),
    )
    case(
        "none-literal", "an address literal", result=none, reason="no-domain", policy=None, mail_from="bob@[192.0.2.9]"
    )
    case(
        "none-helo-literal",
        "the null sender and a literal in EHLO",
        sign(mf="<>"),
        result=none,
        reason="no-domain",
        policy=None,
        mail_from="",
        helo="[192.0.2.9]",
    )


def silent() -> None:
    temp = "temperror"
    fault = {f"mailkey.{D}": {"TXT": "SERVFAIL"}}
    case(
        "temperror-unsigned",
        "no answer is never no record",
        result=temp,
        reason="dns",
        policy=None,
        signer=None,
        dns=fault,
    )
    case("temperror-signed", "signed or not", sign(), result=temp, reason="dns", policy=None, signer=None, dns=fault)
    case(
        "temperror-timeout",
        "a time-out",
        result=temp,
        reason="dns",
        policy=None,
        signer=None,
        dns={f"mailkey.{D}": {"TXT": "TIMEOUT"}},
    )
    case(
        "temperror-named",
        "no answer for a named key",
        sign(s="k1"),
        result=temp,
        reason="dns",
        selector="k1",
        dns=zone(record(), k1="SERVFAIL"),
    )
    case(
        "temperror-over-fail",
        "stronger than a failure",
        sign(mf="<eve@sender.example>"),
        sign(s="k1"),
        result=temp,
        reason="dns",
        selector="k1",
        dns=zone(record(), k1="TIMEOUT"),
    )
    case(
        "temperror-parent",
        "no answer for a parent's key, D without a record",
        sign(mf="<bob@news.sender.example>"),
        result=temp,
        reason="dns",
        policy=None,
        mail_from="bob@news.sender.example",
        dns=fault,
    )
    case(
        "fail-over-silent-key",
        "a field that fails without its key asks for none",
        sign(s="k1"),
        result="fail",
        reason="expired",
        selector="k1",
        time=T + 2 * WEEK,
        dns=zone(record(), k1="SERVFAIL"),
    )


def broken() -> None:
    bad = "permerror"

    def field(id_: str, why: str, one: Signed | bytes, signer: str | None = D, selector: str | None = None) -> None:
        case(f"permerror-{id_}", why, one, result=bad, reason="bad-field", signer=signer, selector=selector)

    for tag in ("c=relaxed/relaxed", "l=10", "i=@sender.example", "q=dns/txt"):
        name, _, value = tag.partition("=")
        field(f"tag-{name}", f"{name}= does not exist", sign(add={name: value}))
    for name in ("v", "a", "t", "x", "mf", "h", "bh", "b"):
        field(f"no-{name}", f"{name}= is required", sign(drop=name))
    field("no-d", "d= is required", sign(drop="d"), None)
    field("duplicate-d", "a tag twice", sign(before="d=sender.example;"), None)
    field("duplicate-unknown", "an unknown tag twice", sign(before="zz=1; zz=2;"), None)
    field("version", "an unknown v=", sign(v="2"))
    field("algorithm", "an unknown a=", sign(a="rsa-sha1"))
    field("algorithm-case", "a= is case-sensitive", sign(a="Ed25519-SHA256"))
    field("d-malformed", "d= is no domain name", sign(d="sender..example"), None)
    field("d-letters", "a letter in d= that it may not have", sign(d="sender.exa!mple"), None)
    field("d-hyphen", "a label of d= that begins with a hyphen", sign(d="-sender.example"), None)
    field("s-labels", "s= of two labels", sign(s="a.b"))
    field("s-empty", "s= is empty", sign(add={"s2": ""}).field.replace(b" s2=", b" s="))
    field("x-before-t", "x= before t=", sign(x=str(T - 1)))
    field("x-equals-t", "x= equal to t=", sign(x=str(T)))
    field("x-15-days", "a life of 14 days and a second", sign(x=str(T + 2 * WEEK + 1)))
    field("t-no-number", "t= is no number", sign(t="-1"))
    field("t-13-digits", "t= of 13 digits", sign(t="1795430000000", x="1795430000001"))
    field("h-no-from", "h= without From", sign(h="to:subject"))
    field("h-empty-name", "h= with an empty name", sign(h="from::to"))
    field("mf-no-base64", "mf= is no base64", sign(add={"mf": "PGJv*"}))
    field("mf-padding", "mf= without padding", sign(add={"mf": _b64(f"<{BOB}>".encode()).rstrip("=")}))
    field("mf-excess-padding", "mf= padded beyond its last letter", sign(add={"mf": _b64(f"<{BOB}>x".encode()) + "="}))
    field("bh-no-base64", "bh= is no base64", sign(add={"bh": "="}))
    field("rt-empty", "rt= is empty", sign(add={"rt": ""}))
    field("rt-short", "an item of 15 octets", sign(add={"rt": _b64(b"x" * 15)}))
    field(
        "rt-comma", "an empty item", sign(rt=[ALICE]).field.replace(b"h=from", b"zz=;h=from").replace(b"rt=", b"rt=,")
    )
    field("empty-pair", "an empty pair", sign(before="; "), None)
    field("no-list", "no tag list", b"Mailkey-Signature: hello\r\n", None)
    field("empty", "an empty field", b"Mailkey-Signature:\r\n", None)
    field("control", "a control character", b"Mailkey-Signature: v=1; d=sender.example; zz=\x01; b=AAAA\r\n", None)

    def key(id_: str, why: str, text: str, reason: str, one: Signed | None = None, policy: str = "all") -> None:
        case(f"permerror-{id_}", why, one or sign(), result=bad, reason=reason, policy=policy, dns=zone(text))

    key("revoked", "p= is empty", "v=mailkey1; p=", "revoked")
    key("revoked-some", "p= is empty under o=some", "v=mailkey1; p=; o=some", "revoked", policy="some")
    key("rsa-1024", "RSA of 1024 bits", record("rsa-1024"), "bad-key", sign(key="rsa-1024"))
    key("rsa-4224", "RSA of 4224 bits", record("rsa-4224"), "bad-key", sign(key="rsa-4224"))
    key("rsa-junk", "an RSA key that is none", record("rsa-2048", p="AAAA"), "bad-key", sign(key="rsa-2048"))
    key("k-unknown", "an unknown k=", record(k="mldsa44"), "bad-key")
    key("k-mismatch-rsa", "an ed25519 key for rsa-sha256", record(), "wrong-algorithm", sign(key="rsa-2048"))
    key("k-mismatch-ed25519", "an RSA key for ed25519-sha256", record("rsa-2048"), "wrong-algorithm")
    key("ed25519-short", "31 octets", record(p=_b64(b"x" * 31)), "bad-key")
    key("ed25519-small-order", "a point of small order", record(p=_b64(bytes([1]) + bytes(31))), "bad-key")
    key(
        "ed25519-not-canonical",
        "2^255-19 is no canonical point",
        record(p=_b64(bytes([0xED]) + b"\xff" * 30 + b"\x7f")),
        "bad-key",
    )

    def text(id_: str, why: str, *records: str, policy: str = "all", reason: str = "bad-record") -> None:
        case(
            f"permerror-record-{id_}",
            why,
            sign(),
            result=bad,
            reason=reason,
            policy=policy,
            signer=None,
            dns=zone(*records),
        )

    text("several", "two records", record(), record("ed25519-b"), reason="several-records")
    text(
        "several-some",
        "the strictest policy of several",
        record(policy="test"),
        record("ed25519-b", "some"),
        policy="some",
        reason="several-records",
    )
    text("no-p", "p= is missing", "v=mailkey1; o=test", policy="test")
    text("duplicate", "a tag twice", record(policy="some") + "; n=1; n=2", policy="some")
    text("policies", "o= twice: the strictest", record(policy="test") + "; o=some", policy="some")
    text("o-unknown", "an unknown o=", record(policy="none"))
    text("p-no-base64", "p= is no base64", record(p="!!!!"))
    text("p-excess-padding", "p= padded beyond its last letter", record(p=f"{KEYS['ed25519-a']['p'].rstrip('=')}A="))
    text("empty-pair", "an empty pair", "v=mailkey1;; p=" + KEYS["ed25519-a"]["p"])
    text("too-large", "more than 8192 octets", record(policy="test") + "; n=" + "x" * 8192)
    case(
        "permerror-record-unsigned",
        "a malformed record is one for unsigned mail too",
        result=bad,
        reason="bad-record",
        signer=None,
        dns=zone("v=mailkey1"),
    )
    case("permerror-no-key", "no record for the named key", sign(s="k1"), result=bad, reason="no-key", selector="k1")
    case(
        "permerror-named-revoked",
        "a revoked named key",
        sign(s="k1"),
        result=bad,
        reason="revoked",
        selector="k1",
        dns=zone(record(), k1="v=mailkey1; p="),
    )
    case(
        "permerror-named-malformed",
        "a malformed record of a named key; the policy is D's",
        sign(s="k1"),
        result=bad,
        reason="bad-record",
        policy="some",
        selector="k1",
        dns=zone(record(policy="some"), k1="v=mailkey1"),
    )
    case(
        "permerror-third-key",
        "two keys are fetched, the third is not",
        sign(s="k1"),
        sign(s="k2"),
        sign(s="k3"),
        result=bad,
        reason="no-key",
        selector="k1",
        dns=zone(record("ed25519-b"), k3=record()),
    )
    case(
        "pass-third-field-known-key",
        "a name that was asked for already costs nothing",
        sign(s="k1"),
        sign(s="k2"),
        sign(),
        result="pass",
    )


def elsewhere() -> None:
    """Records of section 4, for a verifier that asks no key host."""
    away = "v=mailkey1; u=https; o=all"
    case(
        "fail-https-unsigned", "the policy counts wherever the key is", result="fail", reason="unsigned", dns=zone(away)
    )
    case(
        "pass-https-named",
        "a named key in the DNS needs no key host",
        sign(key="ed25519-b", s="k1"),
        result="pass",
        selector="k1",
        dns=zone(away, k1=record("ed25519-b")),
    )
    case("pass-https-with-p", "nor does a record with p=", sign(), result="pass", dns=zone(record(u="https")))
    case("none-https", "the key is at the key host alone", sign(), result="none", reason="key-host", dns=zone(away))
    case(
        "fail-https-body",
        "what fails without a key fails",
        sign(),
        result="fail",
        reason="body",
        message=PLAIN + b"x\r\n",
        dns=zone(away),
    )
    case(
        "permerror-https-other",
        "u= of another value is no key host",
        sign(),
        result="permerror",
        reason="bad-record",
        signer=None,
        dns=zone("v=mailkey1; u=http"),
    )


def main() -> int:
    for part in (good, refused, undecided, silent, broken, elsewhere):
        part()
    ids = [one["id"] for one in CASES]
    if len(ids) != len(set(ids)):
        print("two cases have one name", file=sys.stderr)
        return 1
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER / "cases.json"
    target.write_text(json.dumps(CASES, indent=1, ensure_ascii=True) + "\n")
    print(f"{len(CASES)} cases in {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
