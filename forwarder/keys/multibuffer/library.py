"""How are eight RSA signatures made at once? By Intel's Cryptography Primitives Library, which has a number of each in every lane
of a vector register: with AVX-512 IFMA eight signatures take as long as two or three that OpenSSL makes one by one.

The library is no dependency of the program, but of "mailkey-forwarder[multibuffer]". It knows of a key what is in a private key
file, and of nothing else; what it makes is verified before anybody gets it.
"""

from __future__ import annotations

import ctypes
import functools
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

__all__ = ["LANES", "SIZES", "Job", "LaneKey", "Lanes", "LanesMissing", "LanesUnfit", "LanesUnusable", "load_lanes"]

#: Signatures that are made at once.
LANES = 8
#: RSA keys that it knows, in bits.
SIZES = (1024, 2048, 3072, 4096)
#: The public exponent that it verifies with. All but a few keys have it.
_EXPONENT = 65537

_PACKAGE, _NAME = "ipp-crypto", "libcrypto_mb.so"
#: What it is linked to, in the order in which they need each other.
_RUNTIME_PACKAGE, _RUNTIME = "intel-cmplr-lib-rt", ("libintlc.so.5", "libirng.so", "libimf.so", "libsvml.so")

_Pointers = ctypes.c_void_p * LANES
_SIGN = ctypes.CFUNCTYPE(ctypes.c_uint32, *[ctypes.c_void_p] * 7, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_METHOD = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int)
_SIZE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
_VERIFY = ctypes.CFUNCTYPE(ctypes.c_uint32, *[ctypes.c_void_p] * 3, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


class LanesUnusable(Exception):
    """The library cannot be loaded. The text says why, and what to do."""


class LanesMissing(LanesUnusable):
    """It is not installed."""


class LanesUnfit(Exception):
    """Nothing can be done about it: there is no such library for this machine. The text says why."""


class LaneKey:
    """An RSA key as the library reads it: numbers of 64-bit words, the lowest first. Raises ValueError for a key that it cannot
    use."""

    def __init__(self, private: RSAPrivateKey) -> None:
        numbers = private.private_numbers()
        public = numbers.public_numbers
        self.bits = private.key_size
        if self.bits not in SIZES or public.e != _EXPONENT:
            raise ValueError(f"RSA of {self.bits} bits with the exponent {public.e}")
        half = self.bits // 2
        if numbers.p.bit_length() != half or numbers.q.bit_length() != half:
            raise ValueError("its primes are not of one size")
        secret = (numbers.p, numbers.q, numbers.dmp1, numbers.dmq1, numbers.iqmp)
        if max(one.bit_length() for one in secret) > half:
            raise ValueError("its parts are larger than its primes")
        # The library reads where these lie, so they live as long as the key.
        self._numbers = (*[_number(one, half) for one in secret], _number(public.n, self.bits))
        *self.secret, self.modulus = map(ctypes.addressof, self._numbers)


class Job(NamedTuple):
    """One signature: ``padded`` is what is raised to the private exponent, as long as the modulus (RFC 8017 section 9.2)."""

    key: LaneKey
    padded: bytes


class Lanes:
    """``load_lanes`` makes one. Not for several threads at once, as what goes in and comes out has its one place."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._sign = _SIGN(("mbx_rsa_private_crt_mb8", library))
        self._verify = _VERIFY(("mbx_rsa_public_mb8", library))
        self._places = {bits: _Places(library, bits) for bits in SIZES}
        #: It made something that does not verify: nobody asks it any more, until the program starts anew.
        self.failed = False
        #: How often so many RSA signatures were there to be made at once.
        self.sizes: dict[int, int] = {}

    def sign(self, jobs: Sequence[Job]) -> list[bytes] | None:
        """The signatures of 1 to ``LANES`` jobs whose keys have one size. ``None``: the library failed, or made what does not
        verify; nobody sees that, as a signature with a fault in it can give the key away."""
        bits = jobs[0].key.bits
        places = self._places[bits]
        # Lanes that nobody needs do what the first does.
        filled = [*jobs, *[jobs[0]] * (LANES - len(jobs))]
        padded = b"".join([one.padded for one in filled])
        places.put(padded)
        columns = zip(*[one.key.secret for one in filled], strict=True)
        moduli = _Pointers(*[one.key.modulus for one in filled])
        secret = [_Pointers(*column) for column in columns]
        failed = self._sign(places.padded, places.made, *secret, bits, places.method, places.scratch)
        places.wipe()
        failed = failed or self._verify(places.made, places.back, moduli, bits, None, None)
        if failed or places.read_back() != padded:
            return None
        return places.read_made(len(jobs))


class _Places:
    """Where the library reads and writes ``LANES`` numbers of so many bits, and what it works in."""

    def __init__(self, library: ctypes.CDLL, bits: int) -> None:
        octets = self._octets = bits // 8
        self.method = _METHOD(("mbx_RSA_private_crt_Method", library))(bits)
        # It aligns what it works in by itself. Its own would be freed with parts of keys in it.
        self.scratch = ctypes.create_string_buffer(_SIZE(("mbx_RSA_Method_BufSize", library))(self.method))
        self._padded, self._made, self._back = (ctypes.create_string_buffer(octets * LANES) for _ in range(3))
        self.padded, self.made, self.back = map(self._pointers, (self._padded, self._made, self._back))

    def _pointers(self, buffer: ctypes.Array[ctypes.c_char]) -> ctypes.Array[ctypes.c_void_p]:
        start = ctypes.addressof(buffer)
        return _Pointers(*range(start, start + LANES * self._octets, self._octets))

    def put(self, padded: bytes) -> None:
        ctypes.memset(self._back, 0, LANES * self._octets)
        ctypes.memmove(self._padded, padded, LANES * self._octets)

    def wipe(self) -> None:
        ctypes.memset(self.scratch, 0, len(self.scratch))

    def read_back(self) -> bytes:
        return self._back.raw

    def read_made(self, count: int) -> list[bytes]:
        made = self._made.raw
        return [made[at : at + self._octets] for at in range(0, count * self._octets, self._octets)]


def _number(number: int, bits: int) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(number.to_bytes(bits // 8, "little"), bits // 8)


@functools.cache
def load_lanes() -> Lanes:
    """Once for a process and those it forks: what is loaded stays. Raises LanesMissing, LanesUnusable, LanesUnfit."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise LanesUnfit(f"there is none for {sys.platform} on {platform.machine()}")
    files = [*[_file(_RUNTIME_PACKAGE, one) for one in _RUNTIME], _file(_PACKAGE, _NAME)]
    try:
        # The last finds the others by their names, as they are there already.
        library = [ctypes.CDLL(str(one)) for one in files][-1]
        library.mbx_get_cpu_features.restype = ctypes.c_uint64
        library.mbx_is_crypto_mb_applicable.argtypes = [ctypes.c_uint64]
        fits = library.mbx_is_crypto_mb_applicable(library.mbx_get_cpu_features())
        lanes = Lanes(library)
    except (OSError, AttributeError) as error:
        raise LanesUnusable(f"{_PACKAGE} cannot be loaded; it needs OpenSSL 3 of the system ({error})") from error
    if not fits:
        raise LanesUnfit("this processor has no AVX-512 IFMA")
    return lanes


def _file(package: str, name: str) -> Path:
    try:
        files = metadata.files(package) or ()
    except metadata.PackageNotFoundError:
        raise LanesMissing(f'{package} is not installed; pip install "mailkey-forwarder[multibuffer]"') from None
    for one in files:
        if one.name == name:
            return Path(str(one.locate()))
    raise LanesUnusable(f"{package} {metadata.version(package)} has no {name}")
