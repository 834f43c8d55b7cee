"""Plugin compression (its limits: tests/security)."""

from __future__ import annotations

import os
import zlib
from typing import Any

import pytest

from pyroplug.api import MessageTooLargeError, expose
from pyroplug.core.errors import RemoteProtocolError
from pyroplug.core.wire import FLAG_COMPRESSED
from pyroplug.plugins.compression import inflate
from pyroplug.testing.kernels import Served

pytestmark = pytest.mark.needs("compression")


class Thing:
    @expose
    def echo(self, value: Any) -> Any:
        return value


@pytest.mark.feature("F287")
def test_only_what_gets_smaller() -> None:
    with Served(settings={"COMPRESSION": True}) as served:
        served.publish(Thing())
        peer = served.peer()
        peer.hello(serializer="msgpack")
        for value, packed in ((b"a" * 50, False), (b"a" * 1000, True), (os.urandom(1000), False)):
            frame = peer.call("thing", "echo", value, serializer="msgpack")
            assert bool(frame.flags & FLAG_COMPRESSED) is packed
            if packed:
                assert bytes(frame.payload[:2]) == b"\x78\x5e"
                assert zlib.decompress(frame.payload).endswith(value)


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
