"""Compression beyond zlib: only between ends that both have it, never in the handshake, always bounded."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyroplug.api import ConfigError, MessageTooLargeError, expose
from pyroplug.core.errors import RemoteProtocolError
from pyroplug.core.wire import CONNECT, CONNECTFAIL, CONNECTOK, EXTENSIONS, FLAG_COMPRESSED, encode
from pyroplug.plugins import compression
from pyroplug.plugins.compression import ALGORITHMS, FLAG_LZ4, FLAG_ZSTD
from pyroplug.testing.kernels import Serve, Served, make_kernel

FLAGS = {"zlib": FLAG_COMPRESSED, "zstd": FLAG_ZSTD, "lz4": FLAG_LZ4}
TEXT = "abc" * 20_000

pytestmark = [
    pytest.mark.needs("compression"),
    pytest.mark.skipif(
        not all(algorithm.there for algorithm in ALGORITHMS.values()), reason="zstandard and lz4 are not installed"
    ),
]


class Thing:
    def __init__(self) -> None:
        self.seen: list[int] = []

    @expose
    def echo(self, value: Any) -> Any:
        return value

    @expose
    def fail(self, text: str) -> None:
        raise ValueError(text)


def compressor(name: str) -> Callable[[bytes], bytes]:
    return ALGORITHMS[name].compressor()


def hello_with(served: Served, extensions: str) -> Any:
    """A client that says hello and offers these extensions."""
    peer = served.peer()
    payload = served.kernel.codecs()["serpent"].dumps({"handshake": "hello", "object": "thing"})
    offered = {EXTENSIONS: extensions.encode()} if extensions else None
    peer.send(encode(CONNECT, 1, 0, 0, payload, offered))
    frame = peer.message()
    assert frame.type == CONNECTOK
    return peer


# --------------------------------------------------------------------------- between ends
@pytest.mark.feature("F287")
@pytest.mark.parametrize("name", ["zlib", "zstd", "lz4", "auto"])
def test_both_ends_have_it(serve: Serve, name: str) -> None:
    served = serve(Thing(), COMPRESSION=True, COMPRESSION_ALGORITHM=name)
    proxy = served.proxy()
    assert proxy.echo(TEXT) == TEXT
    assert proxy.echo("small") == "small"
    with pytest.raises(ValueError, match="abc"):
        proxy.fail(TEXT)
    connection = proxy._pyroConnection
    assert connection is not None
    (chosen,) = connection.plan.payload
    assert chosen.flag == FLAGS.get(name, FLAG_ZSTD)
    packed = chosen.encode(TEXT.encode())
    assert packed is not None
    assert len(packed) < 1000


@pytest.mark.parametrize("name", ["zstd", "lz4"])
@pytest.mark.parametrize("theirs", ["", "typed", "zstd", "lz4", "zstd,lz4,other"])
def test_only_what_the_peer_has(name: str, theirs: str) -> None:
    with Served(settings={"COMPRESSION": True, "COMPRESSION_ALGORITHM": name}) as served:
        served.publish(Thing())
        peer = hello_with(served, theirs)
        frame = peer.call("thing", "echo", TEXT)
        assert frame.flags == (FLAGS[name] if name in theirs.split(",") else FLAG_COMPRESSED)
        inflate = next(a.inflate for a in ALGORITHMS.values() if a.flag == frame.flags)
        assert TEXT.encode() in bytes(inflate(frame.payload, 10**6))


@pytest.mark.parametrize("name", ["zstd", "lz4"])
def test_what_was_not_agreed_on_is_not_read(name: str) -> None:
    with Served() as served:
        served.publish(Thing())
        message = served.kernel.codecs()["serpent"].dumps_call("thing", "echo", (TEXT,), {})
        packed = compressor(name)(message)
        for extensions, works in ((name, True), ("", False)):
            peer = hello_with(served, extensions)
            peer.send(encode(4, 1, FLAGS[name], 1, packed))
            frame = peer.message()
            assert (frame.flags & 1 == 0) is works
            if works:
                assert peer.value(frame) == TEXT


@pytest.mark.parametrize("name", ["zstd", "lz4"])
def test_never_in_the_handshake(name: str) -> None:
    with Served() as served:
        served.publish(Thing())
        peer = served.peer()
        payload = served.kernel.codecs()["serpent"].dumps({"handshake": "hello" * 100, "object": "thing"})
        packed = compressor(name)(payload)
        peer.send(encode(CONNECT, 1, FLAGS[name], 0, packed, {EXTENSIONS: name.encode()}))
        assert peer.message().type == CONNECTFAIL


def test_each_side_decides_for_itself() -> None:
    for here, there in (("zstd", "lz4"), ("lz4", "zlib"), ("zlib", "zstd")):
        with Served(settings={"COMPRESSION": True, "COMPRESSION_ALGORITHM": here}) as served:
            served.publish(Thing())
            kernel = make_kernel(COMPRESSION=True, COMPRESSION_ALGORITHM=there)
            assert served.proxy(kernel=kernel).echo(TEXT) == TEXT
            kernel.close()


# --------------------------------------------------------------------------- settings
def test_the_minimum() -> None:
    for minimum in (0, 100, 5000):
        with Served(settings={"COMPRESSION": True, "COMPRESSION_MINIMUM": minimum, "SERIALIZER": "msgpack"}) as served:
            served.publish(Thing())
            proxy = served.proxy()
            proxy._pyroBind()
            connection = proxy._pyroConnection
            assert connection is not None
            (chosen,) = connection.plan.payload
            assert chosen.encode(b"a" * minimum) is None
            assert chosen.encode(b"a" * (minimum + 100)) is not None
            assert chosen.encode(os.urandom(minimum + 1)) is None


def test_a_library_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "_there", lambda module: False)
    for name in ("zstd", "lz4"):
        with pytest.raises(ConfigError, match=rf"needs a library: pip install pyroplug\[{name}\]"):
            make_kernel(COMPRESSION=True, COMPRESSION_ALGORITHM=name)
        make_kernel(COMPRESSION_ALGORITHM=name).close()  # it is not used
    kernel = make_kernel(COMPRESSION=True, COMPRESSION_ALGORITHM="auto")
    assert not kernel.extensions & {"zstd", "lz4"}
    with Served(kernel=kernel) as served:
        served.publish(Thing())
        frame = hello_with(served, "zstd,lz4").call("thing", "echo", TEXT)
        assert frame.flags == FLAG_COMPRESSED
    kernel.close()
    with pytest.raises(ConfigError, match="COMPRESSION_ALGORITHM cannot be 'brotli'"):
        make_kernel(COMPRESSION_ALGORITHM="brotli")


# --------------------------------------------------------------------------- limits
@pytest.mark.parametrize("name", ["zlib", "zstd", "lz4"])
@settings(max_examples=40, deadline=None)
@given(start=st.binary(max_size=300), zeros=st.sampled_from([0, 1, 500, 200_000, 3_000_000]))
def test_round_trip(name: str, start: bytes, zeros: int) -> None:
    data = start + bytes(zeros)
    packed = compressor(name)(data)
    inflate = ALGORITHMS[name].inflate
    assert inflate(packed, len(data)) == data
    assert inflate(memoryview(packed), len(data) + 1) == data
    if data:
        with pytest.raises(MessageTooLargeError):
            inflate(packed, len(data) - 1)


@pytest.mark.feature("F286")
@pytest.mark.parametrize("name", ["zlib", "zstd", "lz4"])
def test_a_bomb(name: str) -> None:
    """No more than the limit is inflated, whatever the message says."""
    packed = compressor(name)(bytes(64 * 1024 * 1024))
    assert len(packed) < 600_000
    tracemalloc.start()
    try:
        with pytest.raises(MessageTooLargeError):
            ALGORITHMS[name].inflate(packed, 1024 * 1024)
        assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.feature("F286")
@pytest.mark.parametrize("name", ["zlib", "zstd", "lz4"])
def test_a_bomb_over_a_connection(name: str) -> None:
    with Served(settings={"MAX_MESSAGE_SIZE": 1024 * 1024}) as served:
        served.publish(Thing())
        peer = hello_with(served, "zstd,lz4")
        peer.send(encode(4, 1, FLAGS[name], 1, compressor(name)(bytes(8 * 1024 * 1024))))
        frame = peer.message()
        assert frame.flags & 1
        assert isinstance(peer.value(frame), MessageTooLargeError)
        assert peer.value(peer.call("thing", "echo", 1)) == 1


@pytest.mark.parametrize("name", ["zlib", "zstd", "lz4"])
@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 10**6), noise=st.binary(max_size=40))
def test_broken_data(name: str, cut: int, noise: bytes) -> None:
    data = os.urandom(50) + b"x" * 3000
    packed = compressor(name)(data)
    inflate = ALGORITHMS[name].inflate
    for broken in (packed[: cut % len(packed)], noise, noise + packed):
        try:
            result = inflate(broken, 10_000)
        except (RemoteProtocolError, MessageTooLargeError):
            continue
        assert result in (data, b"")  # what is left may be a whole stream


def test_a_zstd_frame_that_hides_its_size() -> None:
    import zstandard

    options: Any
    for options in ({"write_content_size": False}, {}):
        engine = zstandard.ZstdCompressor(**options).compressobj()
        packed = engine.compress(bytes(1000)) + engine.flush()
        with pytest.raises((MessageTooLargeError, RemoteProtocolError)):
            compression.inflate_zstd(packed, 10_000)
