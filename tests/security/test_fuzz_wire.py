"""Bytes of any kind, thrown at the reader and at a daemon's connection: refused, and nothing else happens."""

from __future__ import annotations

import json
import pathlib
import random
import struct
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pyroplug.core.connection import ServerConnection, State
from pyroplug.core.daemon import Daemon
from pyroplug.core.dispatch import LATER
from pyroplug.core.errors import MessageTooLargeError, RemoteProtocolError
from pyroplug.core.kernel import Kernel
from pyroplug.core.members import expose
from pyroplug.core.wire import (
    CONNECT,
    CONNECTFAIL,
    CONNECTOK,
    FLAG_COMPRESSED,
    FLAG_EXCEPTION,
    HEADER_SIZE,
    INVOKE,
    RESULT,
    Frame,
    FrameReader,
    read_marshalled_text,
)
from pyroplug.plugins.compression import Deflate
from pyroplug.transports.memory import memory_pair

FILE = pathlib.Path(__file__).parent.parent / "data" / "wire_captures.json"
REQUESTS = [
    bytes.fromhex(entry["hex"])
    for entry in json.loads(FILE.read_text("utf-8"))
    if entry["protocol"] == 502 and entry["direction"] == "c2s" and len(entry["hex"]) >= 2 * HEADER_SIZE
]
HEADER = struct.Struct("!4sHBBHHII16sHH")
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read_all(data: bytes, pieces: int = 1) -> list[Frame]:
    """What a reader makes of these bytes; only its own two errors may come out."""
    reader = FrameReader(1 << 20)
    found: list[Frame] = []
    step = max(1, len(data) // pieces)
    try:
        for offset in range(0, len(data), step):
            reader.feed(data[offset : offset + step])
            while (frame := reader.next_frame()) is not None:
                found.append(frame)
    except (RemoteProtocolError, MessageTooLargeError):
        pass
    return found


def headed(
    body: bytes, kind: int = INVOKE, chunks: int = 0, flags: int = 0, serializer: int = 1, seq: int = 0
) -> bytes:
    """Bytes behind a good header."""
    size = len(body) - chunks
    return HEADER.pack(b"PYRO", 502, kind, serializer, flags, seq, size, chunks, bytes(16), 0, 0x4DC5) + body


# ------------------------------------------------------------------------------------------------ the reader
@given(st.binary(max_size=300), st.integers(1, 20))
def test_any_bytes_give_frames_or_a_protocol_error(data: bytes, pieces: int) -> None:
    read_all(data, pieces)


@given(st.binary(max_size=300), st.integers(1, 20))
def test_any_bytes_after_the_tag_and_version(data: bytes, pieces: int) -> None:
    read_all(b"PYRO\x01\xf6" + data, pieces)


@given(st.binary(max_size=100), st.integers(0, 100))
@example(b"TEST\xff\xff\xff\xff", 8)
def test_any_annotation_area(body: bytes, chunks: int) -> None:
    chunks = min(chunks, len(body))
    for frame in read_all(headed(body, chunks=chunks)):
        assert frame.payload == body[chunks:]


@pytest.mark.parametrize("seed", range(20))
def test_recorded_requests_with_wrong_bytes(seed: int) -> None:
    dice = random.Random(seed)
    for raw in REQUESTS:
        changed = bytearray(raw)
        for _ in range(dice.randint(1, 4)):
            changed[dice.randrange(len(changed))] = dice.randrange(256)
        read_all(bytes(changed), dice.randint(1, 10))


@pytest.mark.parametrize("position", range(HEADER_SIZE))
def test_every_byte_of_the_header_with_every_value(position: int) -> None:
    raw = bytearray(REQUESTS[1])
    for value in range(256):
        raw[position] = value
        read_all(bytes(raw))


# ------------------------------------------------------------------------------------------------ a daemon's connection
@expose
class Thing:
    def echo(self, value: Any = None) -> Any:
        return value


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    made = Kernel(settings={"MAX_HANDSHAKE_SIZE": 4096, "MAX_MESSAGE_SIZE": 1 << 20}, environ={})
    yield made
    made.close()


@pytest.fixture
def endpoint(kernel: Kernel) -> Iterator[Any]:
    with Daemon(memory=True, kernel=kernel) as daemon:
        daemon.register(Thing(), "demo")
        yield daemon._endpoint


def conversation(endpoint: Any, *data: bytes) -> tuple[list[Frame], State]:
    """What a daemon answers to these bytes, and the state of its connection then: closed if it would hang up."""
    stream, _ = memory_pair()
    connection = ServerConnection(endpoint, stream)
    replies: list[Frame] = []
    try:
        for piece in data:
            if connection.closing:
                break
            connection.receive(piece)
            while (task := connection.next_task()) is not None:
                message = task.run()
                assert message is not LATER
                if message is not None:
                    reader = FrameReader(1 << 24)
                    reader.feed(message if isinstance(message, bytes) else b"".join(message))
                    frame = reader.next_frame()
                    assert frame is not None
                    assert not reader.partial
                    replies.append(frame)
        return replies, State.CLOSED if connection.closing else connection.state
    finally:
        connection.closed()


HELLO = headed(b"# serpent utf-8 python3.2\n{'handshake':'hello','object':'demo'}", CONNECT)
ECHO = headed(b"# serpent utf-8 python3.2\n('demo','echo',(5,),{})", seq=1)


@CALM
@given(data=st.binary(min_size=1, max_size=200))
def test_whatever_a_stranger_says_first_gets_a_refusal_or_silence(endpoint: Any, data: bytes) -> None:
    replies, state = conversation(endpoint, data)
    assert state is (State.CLOSED if replies else State.NEW)
    for reply in replies:
        assert reply.type == CONNECTFAIL
        assert read_marshalled_text(reply.payload)


@CALM
@given(body=st.binary(max_size=200), serializer=st.integers(0, 255), flags=st.integers(0, 0xFFFF))
def test_no_garbage_is_a_handshake(endpoint: Any, body: bytes, serializer: int, flags: int) -> None:
    replies, state = conversation(endpoint, headed(body, CONNECT, flags=flags, serializer=serializer))
    assert state is State.CLOSED
    assert [reply.type for reply in replies] == [CONNECTFAIL]


@CALM
@given(
    body=st.binary(max_size=200),
    kind=st.integers(0, 255),
    serializer=st.integers(0, 6),
    flags=st.integers(0, 0xFFFF).filter(lambda flags: not flags & 4),
)
def test_garbage_after_the_handshake_is_answered_with_an_error_or_ends_the_connection(
    endpoint: Any, body: bytes, kind: int, serializer: int, flags: int
) -> None:
    raw = headed(body, kind, flags=flags, serializer=serializer)
    replies, state = conversation(endpoint, HELLO, raw, ECHO)
    assert replies[0].type == CONNECTOK
    if state is State.CLOSED:
        assert len(replies) == 1
    elif kind == INVOKE:
        assert replies[1].type == RESULT
        assert replies[1].flags & FLAG_EXCEPTION
        assert replies[2].seq == 1
        assert not replies[2].flags & FLAG_EXCEPTION
    else:
        assert kind == 6  # ping


@CALM
@given(data=st.binary(max_size=200))
def test_bytes_that_follow_a_good_conversation(endpoint: Any, data: bytes) -> None:
    replies, _ = conversation(endpoint, HELLO + ECHO + data)
    assert [reply.type for reply in replies[:2]] == [CONNECTOK, RESULT]


@pytest.mark.parametrize("seed", range(5))
def test_recorded_requests_with_wrong_bytes_do_not_break_a_daemon(endpoint: Any, seed: int) -> None:
    dice = random.Random(1000 + seed)
    for raw in REQUESTS:
        if raw[9] & 4:  # oneway
            continue
        changed = bytearray(raw)
        for _ in range(dice.randint(1, 4)):
            changed[dice.randrange(len(changed))] = dice.randrange(256)
        if not changed[9] & 4:
            conversation(endpoint, HELLO, bytes(changed), ECHO)
    replies, _ = conversation(endpoint, HELLO, ECHO)
    assert [reply.type for reply in replies] == [CONNECTOK, RESULT]


# ------------------------------------------------------------------------------------------------ limits
@pytest.mark.feature("F286")
def test_before_the_handshake_only_a_small_message_is_taken(endpoint: Any) -> None:
    (just,), _ = conversation(endpoint, headed(bytes(4096), CONNECT))
    assert just.serializer_id == 1  # it was read: this is the serializer's error
    (over,), state = conversation(endpoint, headed(bytes(4097), CONNECT)[:HEADER_SIZE])
    assert read_marshalled_text(over.payload) == "message too large (4097, max=4096)"
    assert state is State.CLOSED


def test_after_the_handshake_the_limit_of_messages_holds(endpoint: Any) -> None:
    large = b"# serpent utf-8 python3.2\n('demo','echo',('" + b"x" * 10_000 + b"',),{})"
    replies, _ = conversation(endpoint, HELLO, headed(large))
    assert [reply.flags for reply in replies] == [0, 0]
    replies, state = conversation(endpoint, HELLO, headed(bytes((1 << 20) + 1))[:HEADER_SIZE])
    assert len(replies) == 1
    assert state is State.CLOSED


def test_a_stranger_cannot_make_us_inflate_a_bomb(endpoint: Any) -> None:
    bomb = Deflate().encode(bytes(2_000_000))
    assert bomb is not None
    assert len(bomb) < 4096
    raw = headed(bomb, CONNECT, flags=FLAG_COMPRESSED)
    tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        (refusal,), state = conversation(endpoint, raw)
        assert tracemalloc.get_traced_memory()[1] - before < 500_000
    finally:
        tracemalloc.stop()
    assert refusal.type == CONNECTFAIL
    assert b"too large after inflating (max=4096)" in bytes(refusal.payload)
    assert state is State.CLOSED


def test_a_client_cannot_make_us_inflate_a_bomb(endpoint: Any) -> None:
    bomb = Deflate().encode(bytes(50_000_000))
    assert bomb is not None
    (_, refusal, answer), state = conversation(endpoint, HELLO, headed(bomb, flags=FLAG_COMPRESSED), ECHO)
    assert refusal.flags & FLAG_EXCEPTION
    assert b"too large after inflating (max=1048576)" in bytes(refusal.payload)
    assert not answer.flags & FLAG_EXCEPTION
    assert state is State.OPEN


@pytest.mark.parametrize("payload", [b"", b"x\x5e", b"garbage"])
def test_what_is_no_zlib_stream_is_refused(endpoint: Any, payload: bytes) -> None:
    (_, refusal), _ = conversation(endpoint, HELLO, headed(payload, flags=FLAG_COMPRESSED))
    assert refusal.flags & FLAG_EXCEPTION
    assert b"invalid compressed payload" in bytes(refusal.payload)


def test_an_announced_gigabyte_costs_nothing() -> None:
    reader = FrameReader(1 << 30)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        reader.feed(HEADER.pack(b"PYRO", 502, 4, 1, 0, 0, 900_000_000, 0, bytes(16), 0, 0x4DC5) + b"x" * 1000)
        assert reader.next_frame() is None
        assert tracemalloc.get_traced_memory()[1] - before < 2_000_000
    finally:
        tracemalloc.stop()
