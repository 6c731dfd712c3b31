"""Where do the inputs come from? Seeds, changed in the ways that parsers stumble over. The same number gives the same inputs."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from tests.fuzz.target import Target

__all__ = ["make_inputs"]

#: One input in so many is one piece again and again, as long as the target takes: what is not linear shows there.
_LONG = 100
_MAX_CHANGES = 6
#: Octets that end, quote, nest, escape or mean nothing.
_SIGNS = b"\0\r\n\t \"'\\()<>[]{}@.,;:=+-_%/?#*~!&$\x7f\x80\xc3\xe2\xff0129aAzZ"


def make_inputs(target: Target, number: int) -> Iterator[bytes]:
    """Endless. The seeds come first, as they are."""
    yield from target.seeds
    random = Random(f"{target.name} {number}")
    while True:
        data = _repeated(target, random) if random.randrange(_LONG) == 0 else _changed(target, random)
        yield data[: target.max_size]


def _changed(target: Target, random: Random) -> bytes:
    data = bytearray(random.choice(target.seeds))
    for _ in range(random.randint(1, _MAX_CHANGES)):
        random.choice(_CHANGES)(data, target, random)
    return bytes(data)


def _repeated(target: Target, random: Random) -> bytes:
    """A seed whose middle is one piece over and over."""
    seed = random.choice(target.seeds)
    start, end = _span(seed, random)
    piece = random.choice([*target.words, bytes([random.choice(_SIGNS)]), seed[start:end] or b"x"])
    if random.random() < 0.3:
        piece += random.choice(target.words)
    count = max(1, (target.max_size - len(seed)) // len(piece)) if piece else 1
    return seed[:start] + piece * random.choice([count, count, random.randint(1, count)]) + seed[start:]


def _span(data: bytes | bytearray, random: Random) -> tuple[int, int]:
    start = random.randint(0, len(data))
    return start, min(len(data), start + random.choice([0, 1, 1, 2, 4, 16, 64]))


def _replace_octet(data: bytearray, target: Target, random: Random) -> None:
    if data:
        data[random.randrange(len(data))] = random.choice(_SIGNS)


def _flip_bit(data: bytearray, target: Target, random: Random) -> None:
    if data:
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _insert_sign(data: bytearray, target: Target, random: Random) -> None:
    at = random.randint(0, len(data))
    data[at:at] = bytes([random.choice(_SIGNS)]) * random.choice([1, 1, 1, 2, 3, 70])


def _insert_word(data: bytearray, target: Target, random: Random) -> None:
    at = random.randint(0, len(data))
    data[at:at] = random.choice(target.words)


def _put_word(data: bytearray, target: Target, random: Random) -> None:
    start, end = _span(data, random)
    data[start:end] = random.choice(target.words)


def _delete(data: bytearray, target: Target, random: Random) -> None:
    start, end = _span(data, random)
    del data[start:end]


def _double(data: bytearray, target: Target, random: Random) -> None:
    start, end = _span(data, random)
    at = random.randint(0, len(data))
    data[at:at] = data[start:end] * random.choice([1, 2, 10])


def _splice(data: bytearray, target: Target, random: Random) -> None:
    """The beginning of this seed and the end of another."""
    other = random.choice(target.seeds)
    del data[random.randint(0, len(data)) :]
    data += other[random.randint(0, len(other)) :]


def _cut(data: bytearray, target: Target, random: Random) -> None:
    del data[random.randint(0, len(data)) :]


def _noise(data: bytearray, target: Target, random: Random) -> None:
    start, end = _span(data, random)
    data[start:end] = random.randbytes(end - start)


_CHANGES = (
    _replace_octet,
    _flip_bit,
    _insert_sign,
    _insert_word,
    _insert_word,
    _put_word,
    _put_word,
    _delete,
    _double,
    _splice,
    _cut,
    _noise,
)
