"""What must the DNS say so that others believe us? The records of a forwarder, in zone-file form (RFC 1035 section 5)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from forwarder.keys import Key, dkim_record, mailkey_record

__all__ = ["Identity", "Record", "records", "render"]

#: RFC 1035 section 3.3.14: octets of one character-string; a TXT record may have several, which are joined.
_MAX_STRING = 255


@dataclass(frozen=True, slots=True)
class Identity:
    """Who we are. ``srs_domain`` is the one that mail leaves under, and that the keys sign for."""

    hostname: str
    ip: str | None
    domains: tuple[str, ...]
    srs_domain: str
    mailkey: Key
    dkim: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """One record; ``why`` is for the person who publishes it."""

    name: str
    kind: str
    data: str
    why: str = ""


def records(identity: Identity) -> Iterator[Record]:
    """In the order in which one would explain them."""
    host, srs = identity.hostname, identity.srs_domain
    # A domain that people write from has other senders than us: what binds them all must be said with care.
    is_shared = srs in identity.domains
    if identity.ip is None:
        yield Record(host, "A", "192.0.2.1", "put this host's public address here; AAAA too where it has one")
    else:
        yield Record(host, "A" if ip_address(identity.ip).version == 4 else "AAAA", identity.ip)
    for name in dict.fromkeys((*identity.domains, srs)):
        yield Record(name, "MX", f"10 {host}.")
    yield Record(srs, "TXT", f"v=spf1 a:{host} -all", "is there one already? add a:… to it" if is_shared else "")
    if host != srs:
        # RFC 7208 section 2.3: bounces have no sender, and are checked by the EHLO name.
        yield Record(host, "TXT", "v=spf1 a -all")
    for key in identity.dkim:
        yield Record(f"{key.selector}._domainkey.{srs}", "TXT", dkim_record(key))
    yield Record(
        f"mailkey.{srs}",
        "TXT",
        mailkey_record(identity.mailkey, "some" if is_shared else "all"),
        "o=all once nothing else sends as this domain" if is_shared else "",
    )
    if not f".{host}".endswith(f".{srs}"):
        # docs/mailkey.md section 11: a report has no sender, and is checked by the EHLO name, which no key of srs covers.
        yield Record(f"mailkey.{host}", "TXT", mailkey_record(identity.mailkey), "for our own reports")
    yield Record(
        f"_dmarc.{srs}",
        "TXT",
        f"v=DMARC1; p={'none' if is_shared else 'reject'}",
        "is there one already? keep it" if is_shared else "",
    )


def render(all_of_them: Iterable[Record]) -> str:
    """A piece of a zone file."""
    return "\n".join(_line(one) for one in all_of_them)


def _line(record: Record) -> str:
    data = _text(record.data) if record.kind == "TXT" else record.data
    why = f"  ; {record.why}" if record.why else ""
    return f"{record.name + '.':<32} IN {record.kind:<4} {data}{why}"


def _text(data: str) -> str:
    quoted = (data[at : at + _MAX_STRING] for at in range(0, len(data), _MAX_STRING))
    return " ".join('"' + one.replace("\\", "\\\\").replace('"', '\\"') + '"' for one in quoted)
