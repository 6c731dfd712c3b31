"""Is this configuration right? Every mistake with its line, or what the service would do."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from forwarder.config import ConfigError, Loaded, Mistake, Settings, read

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, nargs="?", default=Path("forwarder.toml"), help="default: %(default)s")


def run(args: argparse.Namespace) -> int:
    try:
        loaded = read(args.file)
        if mistakes := [
            *_unusable_keys(loaded),
            *_unusable_multibuffer(loaded),
            *_unusable_store(loaded),
            *_unusable_zone(loaded),
            *_unusable_certificate(loaded),
            *_unusable_roots(loaded),
            *_unusable_credentials(loaded),
            *_unusable_note(loaded),
            *_unusable_rules(loaded),
            *_unusable_letters(loaded),
            *_unusable_login(loaded),
            *_unusable_filters(loaded),
        ]:
            raise ConfigError(loaded.source, mistakes)
    except ConfigError as error:
        print(error, file=sys.stderr)
        count = len(error.mistakes)
        print(f"{count} mistake{'s' if count > 1 else ''}", file=sys.stderr)
        return 1
    print(f"{args.file}: ok")
    for line in _summary(loaded.settings):
        print(f"  {line}")
    return 0


def _unusable_keys(loaded: Loaded) -> Iterator[Mistake]:
    """Files that are there but hold no key, or that others can read."""
    from forwarder.keys import (
        LEAST_DKIM_BITS,
        LEAST_MAILKEY_BITS,
        KeyFile,
        KeyFileError,
        load_key,
        load_legacy_secrets,
        load_secrets,
    )

    keys = loaded.settings.keys
    files: list[tuple[tuple[str | int, ...], KeyFile, int]] = [
        (("keys", "mailkey", number, "key"), KeyFile(one.domain, one.selector, one.key), LEAST_MAILKEY_BITS)
        for number, one in enumerate(keys.mailkey)
    ]
    files += [
        (("keys", "dkim", number, "key"), KeyFile(one.domain, one.selector, one.key), LEAST_DKIM_BITS)
        for number, one in enumerate(keys.dkim)
    ]
    if (arc := keys.arc) is not None:
        files.append((("keys", "arc", "key"), KeyFile(arc.domain, arc.selector, arc.key), LEAST_DKIM_BITS))
    for path, file, least_bits in files:
        try:
            load_key(file, least_bits=least_bits)
        except KeyFileError as error:
            yield loaded.mistake(path, str(error))
    try:
        load_secrets(loaded.settings.srs.secret_file)
    except KeyFileError as error:
        yield loaded.mistake(("srs", "secret_file"), str(error))
    for number, legacy in enumerate(loaded.settings.srs.legacy):
        try:
            load_legacy_secrets(legacy.secret_file)
        except KeyFileError as error:
            yield loaded.mistake(("srs", "legacy", number, "secret_file"), str(error))


def _unusable_multibuffer(loaded: Loaded) -> Iterator[Mistake]:
    from forwarder.app import StartError, load_lanes_for

    try:
        load_lanes_for(loaded.settings)
    except StartError as error:
        yield loaded.mistake(("keys", "multibuffer"), str(error).removeprefix("keys.multibuffer: "))


def _unusable_store(loaded: Loaded) -> Iterator[Mistake]:
    """A URL that the store's client does not take. Nothing is connected to."""
    if loaded.settings.store != "embedded":
        from forwarder.app import StartError, store_url
        from forwarder.store.client import StoreUrlError
        from forwarder.store.cluster import make_client

        try:
            make_client(store_url(loaded.settings), journal=_NoJournal())
        except StartError as error:
            yield loaded.mistake(("store_password_file",), str(error).removeprefix("store_password_file: "))
        except StoreUrlError as error:
            yield loaded.mistake(("store",), str(error).removeprefix("store: "))


def _unusable_zone(loaded: Loaded) -> Iterator[Mistake]:
    file = loaded.settings.dns.zone_file
    if file is not None:
        from forwarder.resolver import ZoneError, ZoneResolver

        try:
            ZoneResolver.from_file(file)
        except (ZoneError, OSError) as error:
            yield loaded.mistake(("dns", "zone_file"), str(error))


def _unusable_certificate(loaded: Loaded) -> Iterator[Mistake]:
    from forwarder.edge.tls import server_context
    from forwarder.keys import KeyFileError, read_private

    for path, tls in ((("tls",), loaded.settings.tls), (("web", "tls"), loaded.settings.web.tls)):
        if tls.cert is not None and tls.key is not None:
            try:
                read_private(tls.key)
                server_context(tls.cert, tls.key)
            except KeyFileError as error:
                yield loaded.mistake((*path, "key"), str(error))
            except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
                yield loaded.mistake(path, f"{tls.cert} and {tls.key} cannot be used together: {error}")


def _unusable_roots(loaded: Loaded) -> Iterator[Mistake]:
    from forwarder.app import StartError, usable_roots

    try:
        usable_roots(loaded.settings)
    except StartError as error:
        yield loaded.mistake(("relay", "tls", "ca_file"), str(error).removeprefix("relay.tls.ca_file: "))


def _unusable_credentials(loaded: Loaded) -> Iterator[Mistake]:
    """A file that others can read, or that lacks a login; a sender that nobody's key signs for is told in the summary."""
    submission = loaded.settings.submission
    if submission.credentials is not None:
        from forwarder.credentials import Credentials, CredentialsError
        from forwarder.keys import KeyFileError, read_private

        try:
            credentials = Credentials.parse(read_private(submission.credentials))
        except (KeyFileError, CredentialsError) as error:
            yield loaded.mistake(("submission", "credentials"), str(error))
            return
        for login in submission.logins:
            if login not in credentials:
                cure = f"make one with: forwarder passwd {login}"
                yield loaded.mistake(
                    ("submission", "logins", login), f"{submission.credentials} has no line for it; {cure}"
                )


def _unusable_note(loaded: Loaded) -> Iterator[Mistake]:
    if loaded.settings.mailkey.note_file is not None:
        from forwarder.app import StartError, load_note

        try:
            load_note(loaded.settings)
        except StartError as error:
            yield loaded.mistake(("mailkey", "note_file"), str(error).removeprefix("mailkey.note_file: "))


def _unusable_rules(loaded: Loaded) -> Iterator[Mistake]:
    if loaded.settings.bounces.rules_file is not None:
        from forwarder.app import StartError, load_rules

        try:
            load_rules(loaded.settings)
        except StartError as error:
            yield loaded.mistake(("bounces", "rules_file"), str(error).removeprefix("bounces.rules_file: "))


def _unusable_letters(loaded: Loaded) -> Iterator[Mistake]:
    if loaded.settings.bounces.template_dir is not None:
        from forwarder.app import StartError, load_letters

        try:
            load_letters(loaded.settings)
        except StartError as error:
            yield loaded.mistake(("bounces", "template_dir"), str(error).removeprefix("bounces.template_dir: "))


def _unusable_login(loaded: Loaded) -> Iterator[Mistake]:
    if loaded.settings.relay.smarthost_password_file is not None:
        from forwarder.app import StartError, load_login

        try:
            load_login(loaded.settings)
        except StartError as error:
            path = ("relay", "smarthost_password_file")
            yield loaded.mistake(path, str(error).removeprefix("relay.smarthost_password_file: "))


def _unusable_filters(loaded: Loaded) -> Iterator[Mistake]:
    if any(one.password_file is not None for one in loaded.settings.content.rspamd):
        from forwarder.app import StartError, load_filter_passwords

        try:
            load_filter_passwords(loaded.settings)
        except StartError as error:
            where, _, why = str(error).partition(": ")
            number = int(where.partition("[")[2].partition("]")[0])
            yield loaded.mistake(("content", "rspamd", number, "password_file"), why)


class _NoJournal:
    """Nothing happens here that a log should hear of."""

    def event(self, name: str, /, **fields: Any) -> None:
        pass


def _together(settings: Settings) -> Iterator[str]:
    from forwarder.app import load_lanes_for
    from forwarder.keys.multibuffer import LanesUnfit

    lanes = load_lanes_for(settings)
    if isinstance(lanes, LanesUnfit):
        yield f"makes each RSA signature by itself, on this host: {lanes}"
    elif lanes is not None:
        yield "makes RSA signatures of several messages together"


def _summary(settings: Settings) -> Iterator[str]:
    """What the service would do, and what it would lack."""
    inbound = [one.address for one in settings.listen if not one.submission]
    yield f"listens on {', '.join(inbound) or 'no port for other mail servers'} as {settings.hostname}"
    if settings.web.listen:
        yield f"serves its mailkeys over HTTP{'S' if settings.web.tls.cert else ''} on {', '.join(settings.web.listen)}"
    taken = [name.removeprefix("lenient_").replace("_", " ") for name, is_taken in settings.smtp if is_taken]
    yield f"is lenient about {', '.join(taken) or 'nothing'}"
    yield from _submission(settings)
    yield from _callers(settings)
    yield from _filters(settings)
    for name, domain in settings.domains.items():
        disabled = sum(1 for one in domain.aliases.values() if not one.enabled)
        some = [f"{len(domain.aliases)} alias{'es' if len(domain.aliases) != 1 else ''}"]
        some += [f"{disabled} of them disabled"] if disabled else []
        some += ["with catch-all"] if "*" in domain.aliases else []
        yield f"takes mail for {name} ({', '.join(some)})"
    if not settings.domains:
        yield 'takes no mail: there is no [domains."..."] table'
    for name in sorted({settings.srs.domain} | {one.srs_domain for one in settings.domains.values() if one.srs_domain}):
        yield f"mints reversible addresses under {name}, {_signatures(settings, name)}"
    covered = any(_covers(one.domain, settings.hostname) for one in settings.keys.mailkey)
    yield f"{'signs' if covered else 'has no key to sign'} its own reports under the mailkey of {settings.hostname}"
    yield "seals ARC as " + settings.keys.arc.domain if settings.keys.arc else "does not seal ARC: no [keys.arc]"
    yield from _together(settings)
    yield f"keeps state in {'its own embedded store' if settings.store == 'embedded' else 'the store of that URL'}"
    yield f"delivers to {_next_hop(settings)}"
    others = [f"{domain} {level}" for domain, level in settings.relay.tls.domains.items()]
    yield f"TLS to other mail servers: {', '.join([settings.relay.tls.default, *others])}"
    yield f"postmaster and abuse: {settings.admin.address or f'a file in {settings.state_dir}'}"


def _callers(settings: Settings) -> Iterator[str]:
    for one in settings.listen:
        for how, networks in (("PROXY", one.proxy), ("XCLIENT", one.xclient), ("XFORWARD", one.xforward)):
            if networks:
                yield f"believes {how} on {one.address} from {', '.join(map(str, networks))}"
    if settings.dnsbl:
        lists = ", ".join(
            f"{one.zone} (by code)" if one.codes else f"{one.zone} {one.weight:g}" for one in settings.dnsbl
        )
        limit = settings.callers.reject_at
        yield f"asks {lists} about clients, and refuses {f'from {limit:g} on' if limit else 'nobody for it'}"
    if settings.callers.helo:
        counts = ", ".join(f"{fact} {weight:g}" for fact, weight in settings.callers.helo_weights.items())
        yield f"looks whether names given with EHLO lead back to their clients: {counts or 'which counts nothing'}"
    if settings.greylist.enabled:
        score = settings.greylist.from_score
        who = f"whom DNS lists give {score:g}" if score else "whom no check vouches for"
        yield f"has {who} come back after {settings.greylist.delay:g} seconds"


def _filters(settings: Settings) -> Iterator[str]:
    told = settings.content
    if not (told.rspamd or told.milter):
        return
    from forwarder.app import content_rules

    places = [*(one.url for one in told.rspamd), *(one.socket for one in told.milter)]
    for rule, place in zip(content_rules(settings), places, strict=True):
        follows = [f"{action} above {limit:g}" for limit, action in rule.above]
        follows += [f"{action} where it says {word}" for word, action in rule.actions.items() if action != "accept"]
        yield f"asks {rule.name} at {place} about content: {', '.join(follows)}; {rule.on_failure} where it fails"
    also = [what for what, asked in (("postmaster's", told.postmaster), ("users'", told.submission)) if asked]
    if also:
        yield f"  about {' and '.join(also)} mail, too"


def _next_hop(settings: Settings) -> str:
    relay = settings.relay
    if not relay.smarthost:
        return "the MX of each destination"
    how = [f"as {relay.smarthost_user}"] if relay.smarthost_user else []
    how += [f"TLS: {relay.smarthost_tls}"] if relay.smarthost_tls else []
    return f"{relay.smarthost} ({', '.join(how)})" if how else relay.smarthost


def _submission(settings: Settings) -> Iterator[str]:
    places = [f"{one.address} ({one.tls})" for one in settings.listen if one.submission]
    if not places:
        return
    clients = {**settings.submission.logins, **{str(one.network): one for one in settings.submission.networks}}
    yield f"takes mail of its own users on {', '.join(places)}"
    for name, client in clients.items():
        for owner in client.owns:
            domain = owner.rpartition("@")[2].removeprefix("*.")
            yield f"  {name} may send as {owner}, {_signatures(settings, domain)}"


def _covers(signer: str, domain: str) -> bool:
    return f".{domain}".endswith(f".{signer}")


def _signatures(settings: Settings, domain: str) -> str:
    """A key of a parent domain signs too."""
    having = [
        kind
        for kind, keys in (("mailkey", settings.keys.mailkey), ("DKIM", settings.keys.dkim))
        if any(_covers(one.domain, domain) for one in keys)
    ]
    lacking = [kind for kind in ("mailkey", "DKIM") if kind not in having]
    text = f"signed with {' and '.join(having)}" if having else "not signed"
    return text + (f" (no key for {' and '.join(lacking)})" if lacking else "")
