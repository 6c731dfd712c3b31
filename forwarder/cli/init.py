"""How does one begin? Writes a configuration, makes keys, and prints the DNS records to publish. Never overwrites a file."""

from __future__ import annotations

import argparse
import sys
from ipaddress import ip_address
from pathlib import Path

from forwarder.cli.dnsrecords import Identity, records, render
from forwarder.cli.options import checked
from forwarder.config import ConfigError, load
from forwarder.config.values import domain, endpoint
from forwarder.keys import (
    KeyFile,
    KeyFileError,
    generate_ed25519,
    generate_rsa,
    generate_secret,
    load_key,
)
from forwarder.mail.address import AddressError, parse_address

__all__ = ["add_arguments", "run"]

#: Selectors say which key it is, so that the next one can stand beside it while mail is under way.
_RSA, _ED25519 = "rsa1", "ed1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--dir", type=Path, default=Path(), help="folder for forwarder.toml and keys/ (default: the current one)")
    add("--hostname", type=checked(domain), required=True, help="the name of this host, as it is in the MX record")
    add("--domain", type=checked(domain), action="append", required=True, help="a domain to take mail for; repeatable")
    add("--to", type=checked(_address), action="append", required=True, help="where the mail goes; repeatable")
    add("--alias", action="append", help="a name before the @, repeatable (default: that of the first --to)")
    add("--srs-domain", type=checked(domain), help="for reversible senders (default: the first --domain)")
    add("--listen", type=checked(endpoint), default="0.0.0.0:25", help="default: %(default)s")
    add("--ip", type=checked(_ip), help="this host's public address, for its A or AAAA record")


def _address(text: str) -> str:
    return str(parse_address(text))


def _ip(text: str) -> str:
    return str(ip_address(text))


def run(args: argparse.Namespace) -> int:
    folder: Path = args.dir
    config = folder / "forwarder.toml"
    srs_domain = args.srs_domain or args.domain[0]
    if config.exists():
        print(f"{config} exists already, and init never overwrites. Move it away to begin anew.", file=sys.stderr)
        return 1
    try:
        text = _config(args, srs_domain)
        made = _make_keys(folder / "keys")
        identity = _identity(folder / "keys", args, srs_domain)
        with config.open("x", encoding="utf-8") as file:
            file.write(text)
        load(config)
    except (KeyFileError, ConfigError, AddressError, OSError) as error:
        print(f"init: {error}", file=sys.stderr)
        return 1
    print(f"Wrote {config}" + "".join(f"\n  and {one}" for one in made))
    print("\nPublish these records:\n")
    print(render(records(identity)))
    print(_NEXT.format(config=config, hostname=args.hostname))
    return 0


def _make_keys(folder: Path) -> list[Path]:
    """What an earlier, interrupted start made is kept."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = []
    for name, generate in (
        ("mailkey.pem", generate_ed25519),
        ("dkim-rsa.pem", generate_rsa),
        ("dkim-ed25519.pem", generate_ed25519),
        ("srs.secret", generate_secret),
    ):
        file = folder / name
        if not file.exists():
            generate(file)
            made.append(file)
    return made


def _identity(folder: Path, args: argparse.Namespace, srs_domain: str) -> Identity:
    return Identity(
        hostname=args.hostname,
        ip=args.ip,
        domains=tuple(args.domain),
        srs_domain=srs_domain,
        mailkey=load_key(KeyFile(srs_domain, "", folder / "mailkey.pem")),
        dkim=(
            load_key(KeyFile(srs_domain, _RSA, folder / "dkim-rsa.pem")),
            load_key(KeyFile(srs_domain, _ED25519, folder / "dkim-ed25519.pem")),
        ),
    )


def _config(args: argparse.Namespace, srs_domain: str) -> str:
    names = args.alias or [parse_address(args.to[0]).local]
    for name in names:
        if name != "*":
            parse_address(f"{name}@{args.domain[0]}")
    targets = ", ".join(_quoted(one) for one in args.to)
    aliases = "\n".join(
        f"\n[domains.{_quoted(one)}.aliases]\n" + "\n".join(f"{_quoted(name)} = [{targets}]" for name in names)
        for one in args.domain
    )
    return _TEMPLATE.format(
        hostname=args.hostname,
        listen=args.listen,
        srs_domain=srs_domain,
        admin=_quoted(args.to[0]),
        rsa=_RSA,
        ed25519=_ED25519,
        aliases=aliases,
        host_mailkey="" if f".{args.hostname}".endswith(f".{srs_domain}") else _HOST_MAILKEY.format(name=args.hostname),
    )


def _quoted(text: str) -> str:
    """A TOML string: addresses hold no control characters, only quotes and backslashes need care."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


_TEMPLATE = """\
# Set-up of mailkey-forwarder. Every setting is explained in docs/config.md; `forwarder check-config` finds mistakes.
# Paths are relative to this file. FORWARDER_RELAY__PORT=2525 in the environment stands for "port = 2525" under [relay].

hostname = "{hostname}"  # our name in the greeting, in MX records and in trace fields
listen = ["{listen}"]  # several are fine: add "[::]:25" for IPv6
state_dir = "state"  # the embedded store, a generated certificate, postmaster's mail
store = "embedded"  # or the URL of a Redis or Valkey server: "redis://127.0.0.1:6379/0"

# A certificate that senders can verify. Without one, a self-signed one is made, which opportunistic TLS accepts.
# [tls]
# cert = "/etc/letsencrypt/live/{hostname}/fullchain.pem"
# key = "/etc/letsencrypt/live/{hostname}/privkey.pem"

# Forwarded mail leaves with senders like SRS0=...@{srs_domain}; bounces to them come back here.
[srs]
domain = "{srs_domain}"
secret_file = "keys/srs.secret"  # one secret a line: put a new one on top, keep the old for three weeks

# What we sign with. `forwarder init` printed the DNS records of these keys.
[[keys.mailkey]]
domain = "{srs_domain}"
key = "keys/mailkey.pem"
{host_mailkey}
[[keys.dkim]]
domain = "{srs_domain}"
selector = "{rsa}"
key = "keys/dkim-rsa.pem"

[[keys.dkim]]
domain = "{srs_domain}"
selector = "{ed25519}"
key = "keys/dkim-ed25519.pem"

[keys.arc]
domain = "{srs_domain}"
selector = "{rsa}"
key = "keys/dkim-rsa.pem"

# Mail that no check vouches for: "tag" (forward and say so), "one-way" (forward, return no bounces), "reject", "accept".
[policy]
unauthenticated = "tag"
dmarc_reject = "reject"  # mail whose author's domain asks for its rejection

# postmaster@ and abuse@ exist in every domain and go here.
[admin]
address = {admin}

# One table a domain. An alias leads to one address or a list of them; team+anything@ is team@; false disables it; "*" takes
# whatever is not listed (and much spam).{aliases}
"""

_HOST_MAILKEY = """
# Reports of ours have no sender and count as mail of this host's name, which the key's first domain does not cover.
[[keys.mailkey]]
domain = "{name}"
key = "keys/mailkey.pem"
"""

_NEXT = """
Then:
  forwarder check-config {config}
  forwarder serve --config {config}
(in a checkout, ./scripts/run stands for forwarder). Port 25 needs root, CAP_NET_BIND_SERVICE or a redirect from 25 to a
high port. The reverse DNS (PTR) of the address that mail leaves from must be {hostname}: ask whoever gave you the address.
"""
