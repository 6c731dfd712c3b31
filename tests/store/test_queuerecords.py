"""store/queuerecords.py: is every record read that any release has written, and none that somebody changed?"""

from __future__ import annotations

from base64 import b64decode
from dataclasses import replace

from forwarder.model import TlsWish
from forwarder.store.queuerecords import open_held, seal_held
from forwarder.store.records import Names
from tests.store.queue.items import BODY, ENVELOPE, asking, held, rewritable

#: Never changed: a release reads what an older one has put.
VERSION_1 = b64decode(
    """
    AaeGiVXoiUpf3AARpGUxLjCiZTGSxAZTUlMwPXjEC2Z3ZC5leGFtcGxlrGRlc3QuZXhhbXBsZdb/awrJSMKoOEJJVE1JTUUAkpaSxAJkMMQM
    ZGVzdC5leGFtcGxlksQFYWxpYXPEC2Z3ZC5leGFtcGxlxCAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAJLEBlNSUzA9eMQLZndk
    LmV4YW1wbGWSxANib2LEDnNlbmRlci5leGFtcGxlxAU8MUB4PpaSxAJkMcQMZGVzdC5leGFtcGxlksQFYWxpYXPEC2Z3ZC5leGFtcGxlxCAB
    AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAZLEBlNSUzA9eMQLZndkLmV4YW1wbGWSxANib2LEDnNlbmRlci5leGFtcGxlxAU8MUB4
    PpmiZTGUqTE5Mi4wLjIuMbFteC5zZW5kZXIuZXhhbXBsZcOSp1RMU3YxLjO2VExTX0FFU18yNTZfR0NNX1NIQTM4NJLEA2JvYsQOc2VuZGVy
    LmV4YW1wbGWRk5LEBWFsaWFzxAtmd2QuZXhhbXBsZadGQUlMVVJFuHJmYzgyMjthbGlhc0Bmd2QuZXhhbXBsZdb/awQxyMOoOEJJVE1JTUWo
    UVEzMTQxNTmkSERSU5LEA2JvYsQOc2VuZGVyLmV4YW1wbGWrZndkLmV4YW1wbGUA1v9rBDHIw8QQJ5ienlhn4fh4mq0ADwk27cQQvz3lKuBT
    yH6Ek7syISOS0g==
    """
)


#: With what REQUIRETLS made of it.
VERSION_2 = b64decode(
    """
    AUovfAjoOWxr3AASpGUxLjCiZTGSxAZTUlMwPXjEC2Z3ZC5leGFtcGxlrGRlc3QuZXhhbXBsZdb/awrJSMKoOEJJVE1JTUUAkpaSxAJkMMQM
    ZGVzdC5leGFtcGxlksQFYWxpYXPEC2Z3ZC5leGFtcGxlxCAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAJLEBlNSUzA9eMQLZndk
    LmV4YW1wbGWSxANib2LEDnNlbmRlci5leGFtcGxlxAU8MUB4PpaSxAJkMcQMZGVzdC5leGFtcGxlksQFYWxpYXPEC2Z3ZC5leGFtcGxlxCAB
    AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAZLEBlNSUzA9eMQLZndkLmV4YW1wbGWSxANib2LEDnNlbmRlci5leGFtcGxlxAU8MUB4
    PpqiZTGUqTE5Mi4wLjIuMbFteC5zZW5kZXIuZXhhbXBsZcOSp1RMU3YxLjO2VExTX0FFU18yNTZfR0NNX1NIQTM4NJLEA2JvYsQOc2VuZGVy
    LmV4YW1wbGWRk5LEBWFsaWFzxAtmd2QuZXhhbXBsZadGQUlMVVJFuHJmYzgyMjthbGlhc0Bmd2QuZXhhbXBsZdb/awQxyMOoOEJJVE1JTUWo
    UVEzMTQxNTmkSERSU8OSxANib2LEDnNlbmRlci5leGFtcGxlq2Z3ZC5leGFtcGxlANb/awQxyMPEECeYnp5YZ+H4eJqtAA8JNu3EEL895Srg
    U8h+hJO7MiEjktKocmVxdWlyZWQ=
    """
)


def test_a_record_of_version_1_is_read() -> None:
    expected = replace(held(recipients=2), maybe_dup=True)
    assert open_held(Names(b"s" * 32), b"name", VERSION_1, (b"Subject: x\r\n\r\n", BODY)) == expected


def test_a_record_of_version_2_is_read() -> None:
    first = replace(held(recipients=2), maybe_dup=True)
    asked, wished = replace(ENVELOPE, require_tls=True), replace(first.delivery, tls=TlsWish.REQUIRED)
    expected = replace(first, envelope=asked, delivery=wished)
    assert open_held(Names(b"s" * 32), b"name", VERSION_2, (b"Subject: x\r\n\r\n", BODY)) == expected


#: With what the next hop is asked to report, and whether the sender knows of the delay.
VERSION_3 = b64decode(
    """
    AbTvKUuXtgqh3AAVpGUxLjCiZTGSxAZTUlMwPXjEC2Z3ZC5leGFtcGxlrGRlc3QuZXhhbXBsZdb/awrJSMKoOEJJVE1JTUUAkpiSxAJkMMQMZG
    VzdC5leGFtcGxlksQFYWxpYXPEC2Z3ZC5leGFtcGxlxCAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAJLEBlNSUzA9eMQLZndkLmV4
    YW1wbGWSxANib2LEDnNlbmRlci5leGFtcGxlxAU8MUB4PqdTVUNDRVNTuHJmYzgyMjthbGlhc0Bmd2QuZXhhbXBsZZiSxAJkMcQMZGVzdC5leG
    FtcGxlksQFYWxpYXPEC2Z3ZC5leGFtcGxlxCABAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAZLEBlNSUzA9eMQLZndkLmV4YW1wbGWS
    xANib2LEDnNlbmRlci5leGFtcGxlxAU8MUB4PsDAmqJlMZSpMTkyLjAuMi4xsW14LnNlbmRlci5leGFtcGxlw5KnVExTdjEuM7ZUTFNfQUVTXz
    I1Nl9HQ01fU0hBMzg0ksQDYm9ixA5zZW5kZXIuZXhhbXBsZZGTksQFYWxpYXPEC2Z3ZC5leGFtcGxlp0ZBSUxVUkW4cmZjODIyO2FsaWFzQGZ3
    ZC5leGFtcGxl1v9rBDHIw6g4QklUTUlNRahRUTMxNDE1OaRIRFJTwpLEA2JvYsQOc2VuZGVyLmV4YW1wbGWrZndkLmV4YW1wbGUA1v9rBDHIw8
    QQJ5ienlhn4fh4mq0ADwk27cQQvz3lKuBTyH6Ek7syISOS0qCoUVEzMTQxNTmkSERSU8M=
    """
)


def test_a_record_of_version_3_is_read() -> None:
    assert open_held(Names(b"s" * 32), b"name", VERSION_3, (b"Subject: x\r\n\r\n", BODY)) == asking()


#: With the other form that it may be tried in.
VERSION_4 = b64decode(
    """
    Ad0c6PkAjHW03AAWpGUxLjCiZTGSxAZTUlMwPXjEC2Z3ZC5leGFtcGxlrGRlc3QuZXhhbXBsZdb/awrJSMKoOEJJVE1JTUUAkpiSxAJkMMQMZGVz
    dC5leGFtcGxlksQFYWxpYXPEC2Z3ZC5leGFtcGxlxCAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAJLEBlNSUzA9eMQLZndkLmV4YW1w
    bGWSxANib2LEDnNlbmRlci5leGFtcGxlxAU8MUB4PqdTVUNDRVNTuHJmYzgyMjthbGlhc0Bmd2QuZXhhbXBsZZiSxAJkMcQMZGVzdC5leGFtcGxl
    ksQFYWxpYXPEC2Z3ZC5leGFtcGxlxCABAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAZLEBlNSUzA9eMQLZndkLmV4YW1wbGWSxANib2LE
    DnNlbmRlci5leGFtcGxlxAU8MUB4PsDAmqJlMZSpMTkyLjAuMi4xsW14LnNlbmRlci5leGFtcGxlw5KnVExTdjEuM7ZUTFNfQUVTXzI1Nl9HQ01f
    U0hBMzg0ksQDYm9ixA5zZW5kZXIuZXhhbXBsZZGTksQFYWxpYXPEC2Z3ZC5leGFtcGxlp0ZBSUxVUkW4cmZjODIyO2FsaWFzQGZ3ZC5leGFtcGxl
    1v9rBDHIw6g4QklUTUlNRahRUTMxNDE1OaRIRFJTwpLEA2JvYsQOc2VuZGVyLmV4YW1wbGWrZndkLmV4YW1wbGUA1v9rBDHIw8QQJ5ienlhn4fh4
    mq0ADwk27cQQvz3lKuBTyH6Ek7syISOS0qCoUVEzMTQxNTmkSERSU8OSxA5hdXRob3IuZXhhbXBsZcM=
    """
)


def test_a_record_of_version_4_is_read() -> None:
    assert open_held(Names(b"s" * 32), b"name", VERSION_4, (b"Subject: x\r\n\r\n", BODY)) == rewritable()
    assert seal_held(Names(b"s" * 32), b"name", rewritable()) == VERSION_4


def test_a_record_is_read_back_whole() -> None:
    names, one = Names(b"s" * 32), held(recipients=2)
    record = seal_held(names, b"name", one)
    assert open_held(names, b"name", record, (b"Subject: x\r\n\r\n", BODY)) == one
    assert open_held(names, b"another", record, (b"Subject: x\r\n\r\n", BODY)) is None
    assert open_held(names, b"name", record, (b"Subject: y\r\n\r\n", BODY)) is None
