"""What was delivered, what was it, and who sent it? ``ports.Ledger`` on Redis, for RFC 1047 and RFC 3464.

Kinds of keys (names: ``forwarder.store.records``), each with an expiry, each touched by one script or command a call:

    c  claim     mark: ours while an attempt runs (lease), delivered (both kept 48 h)      claim, settle
    m  message   hash: destination -> Forwarded, at most 64 (10 days)            settle, find_forward
    f  forward   the latest Forwarded of (reversible address, destination)       settle, find_forward
    t  token     the sender behind an opaque reversible address (40 days)        put_token, look_up_token
    e  begun     mark: a message is under way, its next hop has not answered (lease)      claim, queue_mark, queue_renew
    b  budget    reports of (reversible, Message-ID), and of reversible (1 day)  spend_bounce, refund_bounce
    r  replay    set: the recipients that a signature was seen for (its life)    count_recipients
    n  note      mark: the domain has had its note (1 day)                       take_note
    w  rate      see forwarder.store.rates (until all of it has come back)       claim
    s  secrets   hash: name of an SRS secret -> day of the last report to it (90 days)   note_secret, secrets_seen
    salt         see forwarder.store.records (400 days from the last use)
    birth        the day since which the store remembers (as the salt)            remembers_since
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import Any

from forwarder.model import Address
from forwarder.ports import Begun, Charge, Claim, Forwarded, Journal, RateOver
from forwarder.slices import let_others, slices
from forwarder.store.client import Commands, load_script
from forwarder.store.rates import SECOND, rate_keys, to_take
from forwarder.store.records import (
    HASH_TAG,
    VERSION,
    Names,
    new_salt,
    open_address,
    open_forwarded,
    open_salt,
    seal_address,
    seal_forwarded,
    seal_salt,
)

__all__ = ["DELIVERED_FOR", "RedisLedger", "claim_key"]

DAY = 86400
#: RFC 5321 section 4.5.4.1: a sender gives up after 4 to 5 days, but retries a lost reply within minutes to hours.
DELIVERED_FOR = 2 * DAY
#: A report comes within 5 days (RFC 5321 section 4.5.4.1); an "expired" one after as long again.
FORWARD_FOR = 10 * DAY
#: Longer than a reversible address lives.
TOKEN_FOR = 40 * DAY
BUDGET_FOR = DAY
NOTE_EVERY = DAY
SALT_FOR = 400 * DAY
SECRETS_FOR = 90 * DAY
#: Seconds between two looks at the salt. After a FLUSHALL all hosts agree again within this time.
SALT_CHECK = 60.0
#: Destinations remembered of one message: a report of any further one is matched by its address alone.
MAX_DESTINATIONS = 64
#: Destinations of one report that are looked up.
MAX_ASKED = 50
#: RFC 5322 section 2.1.1: no line, and so no Message-ID of a sane sender, is longer.
MAX_MESSAGE_ID = 998

_SALT_KEY = HASH_TAG + b":salt"
_BIRTH_KEY = HASH_TAG + b":birth"
_EPOCH = date(1970, 1, 1)
#: Octets of a day as it lies there: version and five digits, until the year 2243.
_MAX_DAY = 6
_FIND, _SPEND, _REFUND, _REPLAY, _SALT = map(load_script, ("find", "spend", "refund", "replay", "salt"))
_CLAIM = load_script("claim", behind=("rates",))
_SETTLE = load_script("settle", behind=("remember",))
_UNDER_WAY = VERSION + b"P"
_OVER, _UNREADABLE, _LEFT_BEHIND = -1, 3, 4
_CLAIMS = {0: Claim.FRESH, 1: Claim.BUSY, 2: Claim.DELIVERED, _UNREADABLE: Claim.FRESH, _LEFT_BEHIND: Claim.FRESH}


class RedisLedger:
    """``lease``: seconds after which an attempt that neither settled nor claimed again loses its claims. ``shared``: other hosts
    have the same store, and are told what is under way."""

    def __init__(
        self,
        client: Commands,
        *,
        journal: Journal,
        lease: int = 120,
        forward_for: int = FORWARD_FOR,
        per_message: int = 10,
        per_day: int = 200,
        shared: bool = False,
    ) -> None:
        self._client = client
        self._journal = journal
        self.lease = lease
        self._shared = shared
        self._forward_for = forward_for
        self._per_message = per_message
        self._per_day = per_day
        self._names: Names | None = None
        self._check_at = 0.0
        self._secrets_noted: dict[bytes, date] = {}

    # --- what was delivered ---

    async def claim(
        self,
        fingerprints: Sequence[bytes],
        attempt: str,
        charges: Sequence[Charge] = (),
        begun: Sequence[Begun] = (),
    ) -> Sequence[Claim]:
        """See ``ports.Ledger``. An unreadable mark is a fresh one: a second copy is better than none."""
        if not fingerprints:
            return []
        names = await self.names()
        marks, keys = self.begun_keys(names, begun), await _claim_keys(names, fingerprints)
        answers = await self._client.run(
            _CLAIM,
            [*marks, *keys, *rate_keys(names, charges)],
            (
                *(_UNDER_WAY, _octets(attempt), self.lease, DELIVERED_FOR, len(fingerprints), len(marks)),
                *to_take(charges),
            ),
        )
        if answers[0] == _OVER:
            raise RateOver(charges[answers[1] - 1], answers[2] / SECOND)
        for _ in range(answers.count(_UNREADABLE)):
            self._unreadable("claim")
        if left_behind := answers.count(_LEFT_BEHIND):
            # An attempt began and nobody recorded its end (a crash): what goes out now may be a second copy, on record.
            self._journal.event("claim.taken_over", id=attempt, destinations=left_behind, maybe_dup=True)
        return [_CLAIMS[one] for one in answers]

    async def is_begun(self, one: Begun) -> bool:
        """See ``ports.Ledger``."""
        marks = self.begun_keys(await self.names(), [one])
        return bool(marks and await self._client.command("EXISTS", *marks))

    def begun_keys(self, names: Names, begun: Sequence[Begun]) -> list[bytes]:
        """Where the marks of these lie, for a script that sets them; none where nobody would look."""
        if not self._shared:
            return []
        # Mail without a Message-ID would share one mark, which a busy sender keeps alive.
        named = ((_fold(reversible), _sane(message_id)) for reversible, message_id in begun)
        each = [(reversible, message_id) for reversible, message_id in named if message_id is not None]
        return [names.key(b"e", *one) for one in dict.fromkeys(each)]

    async def settle(
        self, attempt: str, delivered: Sequence[bytes], released: Sequence[bytes], forwards: Sequence[Forwarded]
    ) -> None:
        """See ``ports.Ledger``."""
        if not (delivered or released or forwards):
            return
        names = await self.names()
        keys = await _claim_keys(names, [*delivered, *released])
        arguments: list[bytes | str | int] = [
            _octets(attempt),
            len(delivered),
            DELIVERED_FOR,
            len(released),
            len(forwards),
            self._forward_for,
            MAX_DESTINATIONS,
        ]
        for message, latest, field, record in _to_remember(names, forwards):
            keys += (message, latest)
            arguments += (field, record)
        await self._client.run(_SETTLE, keys, arguments, at_once=bool(delivered))

    def remembering(self, names: Names, forwards: Sequence[Forwarded]) -> list[bytes | int]:
        """For a script that remembers these in its own step: how many, how long, the most of one message, and each of them."""
        each = [part for one in _to_remember(names, forwards) for part in one]
        return [len(forwards), self._forward_for, MAX_DESTINATIONS, *each]

    # --- what it was ---

    async def find_forward(
        self, reversible: Address, message_id: str | None, destinations: Sequence[Address]
    ) -> Forwarded | None:
        """See ``ports.Ledger``. "Message-ID alone" is still the Message-ID under this reversible address."""
        message_id = _sane(message_id)
        asked = [_fold(one) for one in destinations[:MAX_ASKED]]
        if message_id is None and not asked:
            return None
        names = await self.names()
        folded = _fold(reversible)
        keys = [_message_key(names, folded, message_id), *(names.key(b"f", folded, one) for one in asked)]
        of_message, latest, rest = await self._client.run(_FIND, keys, [names.field(one) for one in asked])
        for value in (*of_message, *latest, *rest):
            if value is None:
                continue
            found = open_forwarded(names, _of(names, folded), value, reversible)
            if found is None:
                self._unreadable("forward")
            elif len(rest) < 2 or _fold(found.alias) in asked:
                # Where the destination sent it on, its report names the alias (RFC 3461 section 5.2.7.2) and nobody we know.
                return found
        return None

    async def remembers_since(self) -> date:
        """See ``ports.Ledger``. Looks at the salt anew, whose loss is the loss of all that lay under it."""
        self._check_at = 0.0
        await self.names()
        value = await self._client.command("GET", _BIRTH_KEY)
        digits = value[1:] if value is not None and value[:1] == VERSION and len(value) <= _MAX_DAY else b""
        if not digits.isdigit():
            self._unreadable("birth")
            await self._client.command("DEL", _BIRTH_KEY)
            return date.max
        return _EPOCH + timedelta(days=int(digits))

    # --- who sent it ---

    async def put_token(self, token: str, sender: Address) -> None:
        """See ``ports.Ledger``. Tokens are matched in any case: relays fold the local part."""
        names = await self.names()
        key = names.key(b"t", token.lower())
        await self._client.command("SET", key, seal_address(names, key, sender), "EX", TOKEN_FOR)

    async def look_up_token(self, token: str) -> Address | None:
        """See ``ports.Ledger``. A token in use does not expire."""
        names = await self.names()
        key = names.key(b"t", token.lower())
        value = await self._client.command("GETEX", key, "EX", TOKEN_FOR)
        if value is None:
            return None
        sender = open_address(names, key, value)
        if sender is None:
            self._unreadable("token")
        return sender

    # --- how many reports ---

    async def spend_bounce(self, reversible: Address, message_id: str | None) -> bool:
        """See ``ports.Ledger``. A lost connection may count a report twice, never let one through uncounted."""
        keys = _budgets(await self.names(), reversible, message_id)
        limits = [self._per_day, self._per_message][: len(keys)]
        spent, damaged = await self._client.run(_SPEND, keys, [*limits, BUDGET_FOR], again=False)
        if damaged:
            self._unreadable("budget")
        return bool(spent)

    async def refund_bounce(self, reversible: Address, message_id: str | None) -> None:
        """See ``ports.Ledger``."""
        await self._client.run(_REFUND, _budgets(await self.names(), reversible, message_id), again=False)

    # --- how many recipients, how many notes ---

    async def note_secret(self, name: bytes, day: date) -> None:
        """See ``ports.Ledger``."""
        if self._secrets_noted.get(name) == day:
            return
        names = await self.names()
        key = names.key(b"s")
        await self._client.command("HSET", key, name, day.isoformat())
        await self._client.command("EXPIRE", key, SECRETS_FOR)
        self._secrets_noted[name] = day

    async def secrets_seen(self) -> dict[bytes, date]:
        """The latest day on which a report came to an address of each secret, by its name; those of the last months."""
        names = await self.names()
        found = await self._client.command("HGETALL", names.key(b"s"))
        seen = {}
        for name, day in zip(found[::2], found[1::2], strict=True):
            try:
                seen[name] = date.fromisoformat(day.decode("ascii", "replace"))
            except ValueError:
                self._unreadable("secret")
        return seen

    async def count_recipients(
        self, signature: bytes, recipients: Sequence[Address], *, most: int, seconds: int
    ) -> bool:
        """See ``ports.Ledger``."""
        names = await self.names()
        members = dict.fromkeys(names.field(_fold(one)) for one in recipients)
        within, damaged = await self._client.run(
            _REPLAY, [names.key(b"r", signature)], (most, max(1, seconds), *members)
        )
        if damaged:
            self._unreadable("replay")
        return bool(within)

    async def take_note(self, domain: str) -> bool:
        """See ``ports.Ledger``. A lost connection may cost a note, and never makes two of one."""
        names = await self.names()
        key = names.key(b"n", domain.lower())
        return await self._client.command("SET", key, VERSION, "EX", NOTE_EVERY, "NX") is not None

    # --- helpers ---

    async def names(self) -> Names:
        """The maker of names, for all that is kept here. The store's salt is read once, and again now and then: it may have
        been wiped."""
        now = asyncio.get_running_loop().time()
        if self._names is not None and now < self._check_at:
            return self._names
        self._check_at = now + SALT_CHECK
        ours = self._names.salt if self._names is not None else new_salt()
        value: Any = await self._client.run(_SALT, [_SALT_KEY, _BIRTH_KEY], (seal_salt(ours), SALT_FOR))
        salt = open_salt(value)
        if salt is None:
            self._unreadable("salt")
            salt = ours
            await self._client.command("SET", _SALT_KEY, seal_salt(ours), "EX", SALT_FOR)
            # What lay under the old one is found no more.
            await self._client.command("DEL", _BIRTH_KEY)
        if self._names is None or self._names.salt != salt:
            self._names = Names(salt)
        return self._names

    def _unreadable(self, kind: str) -> None:
        self._journal.event("store_value_unreadable", kind=kind)


def claim_key(names: Names, fingerprint: bytes) -> bytes:
    """Where the mark of a fingerprint lies: the queue sets it too."""
    return names.key(b"c", fingerprint)


async def _claim_keys(names: Names, fingerprints: Sequence[bytes]) -> list[bytes]:
    """A list has ten thousand."""
    keys: list[bytes] = []
    for at, some in slices(fingerprints):
        if at:
            await let_others()
        keys += [claim_key(names, one) for one in some]
    return keys


def _octets(attempt: str) -> bytes:
    return attempt.encode("utf-8", "surrogatepass")


def _fold(address: Address) -> str:
    """Reports spell addresses as they like."""
    return str(address).lower()


def _sane(message_id: str | None) -> str | None:
    """An empty or an endless Message-ID is none."""
    return message_id if message_id and len(message_id) <= MAX_MESSAGE_ID else None


def _message_key(names: Names, reversible: str, message_id: str | None) -> bytes:
    """Without a Message-ID: a name under which nothing lies."""
    return names.key(b"m", reversible) if message_id is None else names.key(b"m", reversible, message_id)


def _to_remember(names: Names, forwards: Sequence[Forwarded]) -> Iterator[tuple[bytes, bytes, bytes, bytes]]:
    """Of each two names, a field and a record: see ``scripts/remember.lua``. What is the same for all recipients of a message is
    made once."""
    message: tuple[Address, str | None] | None = None
    folded, message_id, name, of = "", None, b"", b""
    for one in forwards:
        if (one.reversible, one.message_id) != message:
            message = one.reversible, one.message_id
            folded, message_id = _fold(one.reversible), _sane(one.message_id)
            name, of = _message_key(names, folded, message_id), _of(names, folded)
        destination = _fold(one.destination)
        yield (
            name,
            names.key(b"f", folded, destination),
            names.field(destination) if message_id is not None else b"",
            seal_forwarded(names, of, one, message_id),
        )


def _of(names: Names, reversible: str) -> bytes:
    """What ties a Forwarded to its reversible address, in the hash and as the latest alike."""
    return names.field(reversible)


def _budgets(names: Names, reversible: Address, message_id: str | None) -> list[bytes]:
    folded, message_id = _fold(reversible), _sane(message_id)
    day = names.key(b"b", folded)
    return [day] if message_id is None else [day, names.key(b"b", folded, message_id)]
