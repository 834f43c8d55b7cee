"""Plugin compression (its limits: tests/security)."""

from __future__ import annotations

import os
import zlib

import pytest

from pyroplug.api import MessageTooLargeError
from pyroplug.core.errors import RemoteProtocolError
from pyroplug.plugins.compression import MINIMUM, Deflate, inflate


@pytest.mark.feature("F287")
def test_only_what_gets_smaller() -> None:
    deflate = Deflate()
    assert deflate.encode(b"a" * MINIMUM) is None
    packed = deflate.encode(b"a" * (MINIMUM + 1))
    assert packed is not None
    assert packed[:2] == b"\x78\x5e"
    assert zlib.decompress(packed) == b"a" * (MINIMUM + 1)
    assert deflate.encode(os.urandom(1000)) is None


@pytest.mark.feature("F287", "F286")
def test_inflating_stops_at_the_limit() -> None:
    data = zlib.compress(b"x" * 1000)
    assert inflate(data, 1000) == b"x" * 1000
    with pytest.raises(MessageTooLargeError) as caught:
        inflate(data, 999)
    assert (caught.value.size, caught.value.limit) == (1000, 999)


@pytest.mark.parametrize("data", [b"", b"nonsense", zlib.compress(b"x" * 50)[:-1], zlib.compress(b"")[:1]])
def test_what_is_no_stream(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="invalid compressed payload"):
        inflate(data, 1000)


def test_any_buffer() -> None:
    packed = zlib.compress(b"hello")
    for buffer in (bytearray(packed), memoryview(packed)):
        assert inflate(buffer, 100) == b"hello"
