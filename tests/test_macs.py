"""macs.py: the same as the library's HMAC and base32."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from forwarder.macs import mac_text


@pytest.mark.parametrize("length", [0, 1, 32, 63, 64, 65, 200])
@pytest.mark.parametrize("data", [b"", b"x", b"y" * 1000])
def test_it_is_the_hmac_of_the_rfc(length: int, data: bytes) -> None:
    secret = bytes(range(256))[:length]
    expected = base64.b32encode(hmac.digest(secret, data, hashlib.sha256)[:10]).decode()
    assert mac_text(secret, data) == expected
    # What is kept of the secret is not changed by what was made of it.
    assert mac_text(secret, data) == expected
