"""What do the settings make of content filters: who is asked, and what follows?"""

from __future__ import annotations

from collections.abc import Sequence

from forwarder.app.errors import StartError
from forwarder.config import Settings
from forwarder.content import ContentRule
from forwarder.filters import Filter, Filters
from forwarder.filters.milter import Milter, MilterTimes
from forwarder.keys import KeyFileError, read_private
from forwarder.model import ContentAction
from forwarder.pipeline.doors import ContentPolicy

__all__ = ["content_policy", "content_rules", "load_filter_passwords", "make_filters"]


def load_filter_passwords(settings: Settings) -> list[str | None]:
    """What each rspamd is told to let us in. Raises StartError, which tells no secret."""
    found: list[str | None] = []
    if settings.content.rspamd:
        # aiohttp takes long to import: not while the first sender waits.
        import forwarder.filters.rspamd  # noqa: F401, PLC0415

    for number, one in enumerate(settings.content.rspamd):
        try:
            password = read_private(one.password_file).decode().rstrip("\r\n") if one.password_file else None
        except KeyFileError as error:
            raise StartError(f"content.rspamd[{number}].password_file: {error}") from None
        except UnicodeDecodeError:
            raise StartError(f"content.rspamd[{number}].password_file: {one.password_file}: it is not UTF-8") from None
        if password is not None and not (password.isprintable() and password):
            # It goes into a header field.
            raise StartError(f"content.rspamd[{number}].password_file: {one.password_file}: it is not one line of text")
        found.append(password)
    return found


def make_filters(settings: Settings, passwords: Sequence[str | None]) -> Filters | None:
    """Who is asked about content, in the order of ``content_rules``; ``None``: nobody. Needs a running loop."""
    told, filters = settings.content, list[tuple[Filter, int]]()
    if told.rspamd:
        from forwarder.filters.rspamd import Rspamd  # noqa: PLC0415

        filters += [
            (
                Rspamd(one.name, one.url, hostname=settings.hostname, timeout=one.timeout, password=password),
                one.max_size,
            )
            for one, password in zip(told.rspamd, passwords, strict=True)
        ]
    for one in told.milter:
        times = MilterTimes(one.connect_timeout, one.command_timeout, one.end_timeout, one.timeout)
        filters.append((Milter(one.name, one.socket, times, hostname=settings.hostname), one.max_size))
    return Filters(filters) if filters else None


def content_policy(settings: Settings) -> ContentPolicy | None:
    """What follows from what content filters say; ``None``: nobody is asked."""
    told = settings.content
    if not (told.rspamd or told.milter):
        return None
    skip = [one.network for one in settings.networks if "content" in one.skip]
    return ContentPolicy(content_rules(settings), told.postmaster, told.submission, skip)


def content_rules(settings: Settings) -> list[ContentRule]:
    """One for each filter, in the order in which ``make_filters`` makes them."""
    rules = [
        ContentRule(
            one.name,
            {str(word): action for word, action in one.actions.items()},
            [
                (limit, action)
                for limit, action in (
                    (one.tag_above, ContentAction.TAG),
                    (one.one_way_above, ContentAction.ONE_WAY),
                    (one.quarantine_above, ContentAction.QUARANTINE),
                    (one.reject_above, ContentAction.REJECT),
                )
                if limit is not None
            ],
            ContentAction(one.on_failure),
            one.fields,
            one.tag_fields,
            frozenset(map(str.lower, one.accept_fields)),
            one.replace_fields,
        )
        for one in settings.content.rspamd
    ]
    return rules + [
        ContentRule(
            one.name,
            {str(word): action for word, action in one.actions.items()},
            on_failure=ContentAction(one.on_failure),
            accepted=frozenset(map(str.lower, one.accept_fields)),
            replace=one.replace_fields,
        )
        for one in settings.content.milter
    ]
