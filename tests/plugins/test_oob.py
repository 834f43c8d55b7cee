"""Large bytes that travel outside the payload."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from pyroplug.api import Kernel, Proxy, SerializedBlob, expose, oneway
from pyroplug.core.errors import CommunicationError, MessageTooLargeError, RemoteProtocolError, SerializeError
from pyroplug.core.wire import FLAG_SEGMENTS, IN_PLACE, INVOKE, RESULT, FrameReader, Segment, Segmented, encode
from pyroplug.plugins.oob import EXTENSION, MAX_SEGMENTS
from pyroplug.testing.kernels import LOOPS, Served, as_bytes, make_kernel

pytestmark = pytest.mark.needs("oob")

BIG = bytes(range(256)) * (IN_PLACE // 256)
"""Just large enough."""
LARGE = BIG * 20 + b"end"
NAMES = ("serpent", "msgpack")
SERIALIZERS = (pytest.param("serpent", marks=pytest.mark.needs("compact")), "msgpack")


class Thing:
    def __init__(self) -> None:
        self.kinds: list[type] = []
        self.buffer = bytearray(BIG)

    @expose
    def echo(self, *values: Any, **more: Any) -> Any:
        self.kinds += map(type, values)
        return [*values, more] if more else values[0] if len(values) == 1 else list(values)

    @expose
    @oneway
    def fire(self, value: Any) -> None:
        self.kinds.append(type(value))

    @expose
    def own_buffer(self) -> Any:
        return memoryview(self.buffer)

    @expose
    def fail(self, value: Any) -> None:
        raise ValueError(value)

    @expose
    def numbers(self) -> Iterator[Any]:
        yield from (BIG, LARGE, 1)

    @expose
    def inside(self, blob: SerializedBlob) -> Any:
        return blob.deserialized()


def _segments(proxy: Any, value: Any) -> int:
    """How many segments a request with that value has."""
    proxy._pyroBind()
    connection = proxy._pyroConnection
    payload = connection._dumps_call("thing", "echo", (value,), {})
    return len(payload.segments) if isinstance(payload, Segmented) else 0


@pytest.fixture(params=LOOPS)
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    with Served("tcp4", request.param) as served:
        served.publish(Thing())
        yield served


def _proxy(served: Served, serializer: str, kernel: Kernel | None = None) -> Any:
    proxy: Any = served.proxy(kernel=kernel)
    proxy._pyroSerializer = serializer
    return proxy


VALUES: list[tuple[Any, Any, int]] = [
    (BIG, BIG, 1),
    (BIG[1:], BIG[1:], 0),
    (LARGE, LARGE, 1),
    (bytearray(LARGE), LARGE, 1),
    (memoryview(LARGE), LARGE, 1),
    (memoryview(LARGE + b"x").cast("i"), LARGE + b"x", 1),
    ([LARGE, 1, [BIG, b"small"]], [LARGE, 1, [BIG, b"small"]], 2),
    ({"a": {"b": BIG}, "c": 1}, {"a": {"b": BIG}, "c": 1}, 1),
    ("x" * 100_000, "x" * 100_000, 0),
    ([BIG] * (MAX_SEGMENTS + 2), [BIG] * (MAX_SEGMENTS + 2), MAX_SEGMENTS),
]


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("off", ["", "types"])
def test_large_bytes_arrive_from_anywhere_in_a_value(served: Served, serializer: str, off: str) -> None:
    kernel = make_kernel(environ={"PYRO_DISABLE_PLUGINS": off})
    proxy = _proxy(served, serializer, kernel)
    for value, arrives, count in VALUES[:-1] if served.loop == "multiplex" else VALUES:
        assert _segments(proxy, value) == count
        assert proxy.echo(value) == arrives
    assert proxy.echo(LARGE, BIG, key=LARGE) == [LARGE, BIG, {"key": LARGE}]
    proxy._pyroRelease()
    kernel.close()


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_everything_else_that_calls_can_do(served: Served, serializer: str) -> None:
    proxy = _proxy(served, serializer)
    proxy.fire(LARGE)
    with pytest.raises(ValueError) as caught:
        proxy.fail(LARGE)
    assert caught.value.args == (LARGE,)
    assert list(proxy.numbers()) == [BIG, LARGE, 1]
    assert proxy.inside(SerializedBlob("info", [LARGE])) == [LARGE]
    batch = proxy._pyroBatch()
    batch.echo(LARGE)
    batch.echo(1)
    assert list(batch()) == [LARGE, 1]
    assert proxy.echo(1) == 1


@pytest.mark.needs("compact")
def test_values_that_need_another_form_travel_in_one_piece() -> None:
    with Served(environ={"PYRO_DISABLE_PLUGINS": "types"}) as plain:
        plain.publish(Thing())
        proxy = _proxy(plain, "serpent")
        value = [{1, 2}, frozenset({3}), LARGE]
        assert _segments(proxy, value) == 0
        assert proxy.echo(value) == [{1, 2}, {3}, LARGE]


@pytest.mark.needs("types")
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_arrays_travel_outside_the_payload(served: Served, serializer: str) -> None:
    numpy: Any = pytest.importorskip("numpy")
    proxy = _proxy(served, serializer)
    array = numpy.arange(IN_PLACE / 8).reshape(2, -1)
    assert _segments(proxy, array) == 1
    assert _segments(proxy, {"frames": [array, array]}) == 2
    result = proxy.echo({"frames": [array, array.T]})["frames"]
    assert (result[0] == array).all()
    assert (result[1] == array.T).all()
    result[0][0] = 5  # it can be written to


def test_json_carries_what_it_can_in_the_payload(served: Served) -> None:
    proxy = _proxy(served, "json")
    assert proxy.echo(["x" * 100_000]) == ["x" * 100_000]


@pytest.mark.needs("compact")
def test_a_result_is_what_it_was_when_the_method_returned(served: Served) -> None:
    thing = Thing()
    served.publish(thing, "own")
    proxy: Any = served.proxy("own")
    assert proxy.own_buffer() == BIG
    thing.buffer.append(1)  # nobody looks at it any more


@pytest.mark.needs("compression")
@pytest.mark.parametrize("off", ["client", "server", "setting", "compression"])
def test_whoever_does_not_want_it_gets_one_piece(off: str) -> None:
    none = {"PYRO_DISABLE_PLUGINS": "oob"}
    values: dict[str, Any] = {"setting": {"OOB": False}, "compression": {"COMPRESSION": True}}.get(off, {})
    kernel = make_kernel(environ=none if off == "client" else {}, **values)
    with Served("tcp4", environ=none if off == "server" else {}) as served:
        served.publish(Thing())
        for serializer in NAMES:
            proxy = _proxy(served, serializer, kernel)
            assert _segments(proxy, LARGE) == 0
            assert (EXTENSION in proxy._pyroConnection.extensions) == (off == "compression")
            assert proxy.echo(LARGE) == LARGE  # (with compression only the request is in one piece)
            proxy._pyroRelease()
    kernel.close()


@pytest.mark.needs("compact")
def test_both_ends_hold_the_bytes_once() -> None:
    size = 16 << 20
    value = bytes(size)
    with Served("tcp4") as served:
        served.publish(Thing())
        proxy: Any = served.proxy()
        proxy.echo(1)
        tracemalloc.start()
        try:
            assert len(proxy.echo(value)) == size
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 2.1 * size  # the argument at the server and the result at the client, both in this process


# --------------------------------------------------------------------------- limits
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_segments_count_for_the_limit(serializer: str) -> None:
    limit = 300_000
    small = make_kernel(MAX_MESSAGE_SIZE=limit)
    with Served("tcp4", settings={"MAX_MESSAGE_SIZE": limit}) as served:
        served.publish(Thing())
        proxy = _proxy(served, serializer, small)
        proxy._pyroBind()
        around = len(
            as_bytes(encode(INVOKE, 1, 0, 0, proxy._pyroConnection._dumps_call("thing", "echo", (LARGE,), {})))
        )
        room = limit - (around - 40 - len(LARGE))
        assert proxy.echo(bytes(room)) == bytes(room)
        with pytest.raises(MessageTooLargeError):
            proxy.echo(bytes(room + 1))
        assert proxy.echo(1) == 1
        big = _proxy(served, serializer)
        with pytest.raises(CommunicationError):
            _send_more_than_is_taken(big, room + 1)
        proxy._pyroRelease()
    small.close()


def _send_more_than_is_taken(proxy: Any, size: int) -> None:
    """Send more than the server takes, with a client that has no limit."""
    kernel = make_kernel()
    other: Any = Proxy(proxy._pyroUri, kernel=kernel)
    other._pyroSerializer = proxy._pyroSerializer
    try:
        other.echo(bytes(size))
    finally:
        other._pyroRelease()
        kernel.close()


# --------------------------------------------------------------------------- the wire
def _message(payload: bytes, *segments: bytes, annotations: dict[str, bytes] | None = None) -> bytes:
    return as_bytes(encode(RESULT, 4, 0x40, 7, Segmented.of(payload, segments), annotations, bytes(range(16))))


def _reader(limit: int = 1 << 20, segments: int = 5) -> FrameReader:
    reader = FrameReader(limit)
    reader.max_segments = segments
    return reader


@pytest.mark.parametrize("annotations", [None, {"ABCD": b"value"}])
@pytest.mark.parametrize("step", [*range(1, 60), 200, 10_000])
def test_messages_with_segments_can_be_cut_anywhere(step: int, annotations: dict[str, bytes] | None) -> None:
    data = _message(b"payload", b"one", b"2" * 300, annotations=annotations) + as_bytes(
        encode(RESULT, 4, 0, 8, b"next")
    )
    reader, frames = _reader(), []
    for start in range(0, len(data), step):
        piece = data[start : start + step]
        while piece:
            target = reader.writable() if start % 2 else None
            if target is None:
                reader.feed(piece)
                piece = b""
            else:
                count = min(len(target), len(piece))
                target[:count] = piece[:count]
                reader.wrote(count)
                piece = piece[count:]
            while (frame := reader.next_frame()) is not None:
                frames.append(frame)
    first, second = frames
    payload: Any = first.payload
    assert bytes.__len__(payload) == 7
    assert bytes(memoryview(payload)) == b"payload"
    assert list(payload.segments) == [b"one", b"2" * 300]
    assert (first.flags, first.annotations, first.corr_id) == (0x40, annotations or {}, bytes(range(16)))
    assert second.payload == b"next"
    assert not reader.partial


def _table(count: int, *sizes: int, rest: bytes = b"x" * 100) -> bytes:
    body = struct.pack(f"!I{len(sizes)}Q", count, *sizes) + rest
    return as_bytes(encode(RESULT, 4, FLAG_SEGMENTS, 1, body))


BAD = {
    "no segments": _table(0),
    "too many": _table(6, 1, 1, 1, 1, 1, 1),
    "an endless number": _table(0xFFFFFFFF, 1),
    "a table without end": _table(5, 1, 1, rest=b""),
    "larger than the message": _table(1, 100),
    "nothing is left for the payload": _table(2, 50, 50),
    "larger than memory": _table(1, 2**64 - 1),
    "together larger than anything": _table(2, 2**64 - 1, 2**64 - 1),
    "an empty one": _table(1, 0),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tables_are_refused(case: str) -> None:
    reader = _reader()
    reader.feed(BAD[case])
    with pytest.raises(RemoteProtocolError, match="segments"):
        reader.next_frame()


def test_the_numbers_just_allowed() -> None:
    reader = _reader(limit=1000, segments=2)
    reader.feed(_message(b"p", b"1", b"2"))
    assert reader.next_frame() is not None
    reader.feed(_message(b"p", b"1", b"2", b"3"))
    with pytest.raises(RemoteProtocolError, match="3 segments"):
        reader.next_frame()
    reader = _reader(limit=1000)
    reader.feed(_message(b"p", b"x" * (1000 - 13)))
    assert reader.next_frame() is not None
    reader.feed(_message(b"p", b"x" * (1000 - 12)))
    with pytest.raises(MessageTooLargeError):
        reader.next_frame()


def test_without_agreement_the_flag_means_nothing() -> None:
    reader = _reader(segments=0)
    reader.feed(_message(b"payload", b"one"))
    frame = reader.next_frame()
    assert frame is not None
    assert frame.flags & FLAG_SEGMENTS
    assert not isinstance(frame.payload, Segmented)


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_a_segment_that_is_not_there_is_refused(serializer: str) -> None:
    with Served() as served:
        served.publish(Thing())
        proxy = _proxy(served, serializer)
        proxy._pyroBind()
        codec = proxy._pyroConnection.codec
        data = codec.dumps([Segment(0), Segment(1)])
        assert codec.loads(Segmented.of(data, [b"x", b"y"])) == [b"x", b"y"]
        for payload in (data, Segmented.of(data, [b"x"])):
            with pytest.raises(SerializeError, match=r"not there|invalid ext code"):
                codec.loads(payload)


def test_serializers_without_segments_refuse_to_write_one() -> None:
    kernel = make_kernel()
    for name in ("serpent", "json"):
        with pytest.raises(SerializeError):
            kernel.codecs()[name].dumps([Segment(0)])
    kernel.close()
