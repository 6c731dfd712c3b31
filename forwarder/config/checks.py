"""What is wrong although every value is right? What contradicts another setting, and files that are not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path as FilePath

from forwarder.config.locate import Path
from forwarder.config.settings import Settings
from forwarder.config.values import read_store_url
from forwarder.directory import StaticDirectory
from forwarder.model import Address

__all__ = ["examine"]

#: Characters of a path that is too long for one.
_SHOWN = 200


def examine(settings: Settings) -> Iterator[tuple[Path, str]]:
    """Where, and what."""
    yield from _missing_files(settings)
    yield from _store(settings)
    yield from _repeated_listeners(settings)
    yield from _repeated_keys(settings)
    yield from _submission(settings)
    yield from _dns_lists(settings)
    yield from _filters(settings)
    yield from _tls_reports(settings)
    directory = StaticDirectory.from_settings(settings)
    yield from _complaint_addresses(settings, directory)
    yield from _dead_ends(directory)
    yield from _lost_owners(settings)


def _missing_files(settings: Settings) -> Iterator[tuple[Path, str]]:
    for path, file in _files(settings):
        if file is not None and (trouble := _trouble_with(file)) is not None:
            yield path, trouble


def _trouble_with(file: FilePath) -> str | None:
    try:
        is_there = file.is_file()
    except OSError as error:
        # A folder on the way to it that this user may not enter, a name that no file can have.
        return f"{str(file)[:_SHOWN]} cannot be looked for: {error.strerror}"
    if not is_there:
        return f"there is no file {file}"
    return None if os.access(file, os.R_OK) else f"{file} cannot be read by this user"


def _files(settings: Settings) -> Iterator[tuple[Path, FilePath | None]]:
    yield ("store_password_file",), settings.store_password_file
    yield ("srs", "secret_file"), settings.srs.secret_file
    for number, legacy in enumerate(settings.srs.legacy):
        yield ("srs", "legacy", number, "secret_file"), legacy.secret_file
    yield ("dns", "zone_file"), settings.dns.zone_file
    yield ("tls", "cert"), settings.tls.cert
    yield ("tls", "key"), settings.tls.key
    yield ("submission", "credentials"), settings.submission.credentials
    yield ("web", "tls", "cert"), settings.web.tls.cert
    yield ("web", "tls", "key"), settings.web.tls.key
    yield ("relay", "smarthost_password_file"), settings.relay.smarthost_password_file
    yield ("mailkey", "fetch_ca_file"), settings.mailkey.fetch_ca_file
    yield ("relay", "tls", "ca_file"), settings.relay.tls.ca_file
    for number, rspamd in enumerate(settings.content.rspamd):
        yield ("content", "rspamd", number, "password_file"), rspamd.password_file
    for number, mailkey in enumerate(settings.keys.mailkey):
        yield ("keys", "mailkey", number, "key"), mailkey.key
    for number, dkim in enumerate(settings.keys.dkim):
        yield ("keys", "dkim", number, "key"), dkim.key
    if settings.keys.arc is not None:
        yield ("keys", "arc", "key"), settings.keys.arc.key


def _store(settings: Settings) -> Iterator[tuple[Path, str]]:
    """Who can read what goes to the store reads mail, and who can write to it writes any."""
    if settings.store == "embedded":
        if settings.store_password_file is not None:
            yield ("store_password_file",), "the embedded store takes no password: nobody else can reach it"
        return
    url = read_store_url(settings.store)
    if url is None:
        return  # the store's client says what is wrong with it
    if url.password and settings.store_password_file is not None:
        yield ("store_password_file",), "the URL in store has a password already"
    known = bool(url.password or settings.store_password_file or url.has_certificate)
    if url.is_elsewhere and not (url.verifies and known) and not settings.store_insecure:
        lacking = [word for word, there in (("TLS (rediss://)", url.verifies), ("a password", known)) if not there]
        why = f"a server elsewhere, without {' and without '.join(lacking)}: who is between can read and make mail"
        yield ("store",), f"{why}; store_insecure = true if nobody is"


def _repeated_listeners(settings: Settings) -> Iterator[tuple[Path, str]]:
    addresses = settings.listen_addresses
    for number, address in enumerate(addresses):
        # Port 0 is any free port, each time another.
        if address in addresses[:number] and not address.endswith(":0"):
            yield ("listen", number), f"{address} is listed twice"


def _repeated_keys(settings: Settings) -> Iterator[tuple[Path, str]]:
    seen = set()
    for number, key in enumerate(settings.keys.dkim):
        name = f"{key.selector}._domainkey.{key.domain}"
        if name in seen:
            yield ("keys", "dkim", number), f"{name} has a key already"
        seen.add(name)


def _submission(settings: Settings) -> Iterator[tuple[Path, str]]:
    submission = settings.submission
    for number, one in enumerate(settings.listen):
        if one.submission and not (submission.logins or submission.networks):
            yield ("listen", number), "nobody may use it: there are no [submission.logins] and no submission.networks"
    if submission.logins and submission.credentials is None:
        yield ("submission", "logins"), "nobody can log in: name the file of passwords with submission.credentials"


def _dns_lists(settings: Settings) -> Iterator[tuple[Path, str]]:
    zones = [one.zone for one in settings.dnsbl]
    for number, zone in enumerate(zones):
        if zone in zones[:number]:
            yield ("dnsbl", number, "zone"), f"{zone} is listed twice: it would count twice"
    if settings.greylist.enabled and settings.greylist.from_score and not zones:
        yield ("greylist", "from_score"), "nobody has a score: there is no [[dnsbl]]"


def _filters(settings: Settings) -> Iterator[tuple[Path, str]]:
    seen: set[str] = set()
    told = settings.content
    for kind, names in (("rspamd", [one.name for one in told.rspamd]), ("milter", [one.name for one in told.milter])):
        for number, name in enumerate(names):
            if name in seen:
                yield ("content", kind, number, "name"), f"two filters have the name {name}: give each its own"
            seen.add(name)
    if settings.content.submission and not seen:
        yield ("content", "submission"), "there is nobody to ask: no [[content.rspamd]], no [[content.milter]]"


def _tls_reports(settings: Settings) -> Iterator[tuple[Path, str]]:
    """RFC 8460 section 3: reports are signed, or count for nothing."""
    if settings.relay.tls_reports and all(one.domain != settings.srs.domain for one in settings.keys.dkim):
        yield ("relay", "tls_reports"), f"reports are signed as {settings.srs.domain}: it needs a key in [[keys.dkim]]"


def _complaint_addresses(settings: Settings, directory: StaticDirectory) -> Iterator[tuple[Path, str]]:
    for number, address in enumerate(settings.complaints.addresses):
        if not directory.is_ours(address.domain):
            yield ("complaints", "addresses", number), f"{address} is at no domain of ours: no complaint comes to it"


def _dead_ends(directory: StaticDirectory) -> Iterator[tuple[Path, str]]:
    """Aliases that lead to an address of ours that does not exist, or in a circle."""
    for end in directory.dead_ends:
        where = ("domains", end.domain, "aliases", end.alias)
        if end.target is None:
            yield where, "leads only in a circle"
        else:
            yield where, f"leads to {end.target}, an address of ours that leads nowhere"


def _lost_owners(settings: Settings) -> Iterator[tuple[Path, str]]:
    """Owners whose address is one of ours and leads nowhere would hear of nothing."""
    directory = StaticDirectory.from_settings(settings)
    for path, owner in _owners(settings):
        if owner is not None and directory.is_nowhere(owner):
            yield path, f"{owner} is an address of ours that leads nowhere"


def _owners(settings: Settings) -> Iterator[tuple[Path, Address | None]]:
    yield ("bounces", "owner"), settings.bounces.owner
    for name, domain in settings.domains.items():
        yield ("domains", name, "owner"), domain.owner
        for alias, one in domain.aliases.items():
            yield ("domains", name, "aliases", alias, "owner"), one.owner
