"""The codec of protocol 502: what is encoded is decoded, whatever the cuts; limits hold; memory follows the bytes."""

from __future__ import annotations

import itertools
import marshal
import struct
import tracemalloc
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyroplug.core.errors import LocalProtocolError, MessageTooLargeError, RemoteProtocolError
from pyroplug.core.wire import (
    CONNECT,
    FLAG_CORR_ID,
    HEADER_SIZE,
    INVOKE,
    MARSHAL_ID,
    NO_CORRELATION,
    PROTOCOL_VERSION,
    RESULT,
    Frame,
    FrameReader,
    Message,
    decode_annotations,
    encode,
    encode_annotations,
    marshalled_text,
    message_size,
    read_marshalled_text,
    send_all,
    sniff_version,
)

HEADER = struct.Struct("!4sHBBHHII16sHH")
LIMIT = 1 << 24
IN_PLACE = 64 * 1024

u8 = st.integers(0, 0xFF)
u16 = st.integers(0, 0xFFFF)
keys = st.text(st.characters(max_codepoint=127), min_size=4, max_size=4)
note_dicts = st.dictionaries(keys, st.binary(max_size=50), max_size=5)
sizes = st.sampled_from([0, 1, 39, 40, 41, 1000, IN_PLACE - 1, IN_PLACE, IN_PLACE + 1, 3 * IN_PLACE, 1_100_000])


def joined(message: Message) -> bytes:
    """A message as one piece."""
    return message if isinstance(message, bytes) else b"".join(message)


def header(
    size: int = 0,
    chunks: int = 0,
    *,
    tag: bytes = b"PYRO",
    version: int = PROTOCOL_VERSION,
    kind: int = INVOKE,
    reserved: int = 0,
    magic: int = 0x4DC5,
) -> bytes:
    """A header made by hand."""
    return HEADER.pack(tag, version, kind, 1, 0, 0, size, chunks, bytes(16), reserved, magic)


def frames_of(reader: FrameReader, pieces: Sequence[bytes], in_place: bool = False) -> list[Frame]:
    """All frames in these pieces, received as a server (feed) or as a client (in place) does."""
    found = []
    for piece in pieces:
        offset = 0
        while offset < len(piece):
            target = reader.writable() if in_place else None
            if target is None:
                end = len(piece)
                if in_place and not reader.partial:
                    end = min(end, offset + 16 * 1024)
                reader.feed(piece[offset:end])
                offset = end
            else:
                taken = min(len(target), len(piece) - offset)
                target[:taken] = piece[offset : offset + taken]
                reader.wrote(taken)
                offset += taken
            while (frame := reader.next_frame()) is not None:
                found.append(frame)
    return found


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """The data cut at these places."""
    marks = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in itertools.pairwise(marks)]


# ------------------------------------------------------------------------------------------------ round trips
@pytest.mark.feature("F238", "F320")
@given(u8, u8, u16, u16, st.binary(max_size=300), note_dicts, st.binary(min_size=16, max_size=16))
def test_every_header_field_comes_through(
    kind: int, serializer: int, flags: int, seq: int, payload: bytes, notes: dict[str, bytes], correlation: bytes
) -> None:
    raw = joined(encode(kind, serializer, flags, seq, payload, notes, correlation))
    assert raw[:HEADER_SIZE] == HEADER.pack(
        b"PYRO", 502, kind, serializer, flags, seq, len(payload), len(encode_annotations(notes)), correlation, 0, 0x4DC5
    )
    (frame,) = frames_of(FrameReader(LIMIT), [raw])
    assert frame == Frame(kind, serializer, flags, seq, payload, notes, correlation)
    assert frame.data == payload
    assert frame.corr_id == (correlation if flags & FLAG_CORR_ID else NO_CORRELATION)


@settings(deadline=None)
@given(
    st.lists(st.tuples(sizes, note_dicts), min_size=1, max_size=4),
    st.lists(st.integers(0, 10_000_000), max_size=8),
    st.booleans(),
)
def test_messages_of_all_sizes_cut_anywhere(
    contents: list[tuple[int, dict[str, bytes]]], places: list[int], in_place: bool
) -> None:
    expected = [
        Frame(RESULT, 1, 0, number, (b"%d," % number * size)[:size], notes, NO_CORRELATION)
        for number, (size, notes) in enumerate(contents)
    ]
    stream = b"".join(joined(encode(RESULT, 1, 0, f.seq, f.payload, dict(f.annotations))) for f in expected)
    reader = FrameReader(LIMIT)
    assert frames_of(reader, cut(stream, places), in_place) == expected
    assert not reader.partial


@pytest.mark.parametrize("size", [IN_PLACE - 1, IN_PLACE, IN_PLACE + 1])
@pytest.mark.parametrize("rest", [b"", b"P", b"PYRO\x01\xf6", header()])
def test_a_large_body_received_in_place_leaves_what_follows_alone(size: int, rest: bytes) -> None:
    payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
    raw = joined(encode(RESULT, 1, 0, 7, payload))
    reader = FrameReader(LIMIT)
    reader.feed(raw[:1000])
    assert reader.next_frame() is None
    reader.feed(raw[1000:] + rest)
    frame = reader.next_frame()
    assert frame is not None
    assert frame.payload == payload
    assert reader.partial is bool(rest)
    follower = reader.next_frame()
    assert (follower is not None) is (len(rest) == HEADER_SIZE)


@pytest.mark.parametrize("second", [0, 70_000, 300_000])
def test_what_follows_a_large_body_is_never_taken_for_it(second: int) -> None:
    raw = [joined(encode(RESULT, 1, 0, seq, bytes([65 + seq]) * size)) for seq, size in enumerate((IN_PLACE, second))]
    reader = FrameReader(LIMIT)
    reader.feed(raw[0][:HEADER_SIZE])
    assert reader.next_frame() is None
    reader.feed(raw[0][HEADER_SIZE:] + raw[1][:100])  # all of the first, and more than its length of what follows
    reader.feed(raw[1][100:])
    first, then = reader.next_frame(), reader.next_frame()
    assert first is not None
    assert then is not None
    assert (first.seq, first.payload) == (0, b"A" * IN_PLACE)
    assert (then.seq, then.payload) == (1, b"B" * second)
    assert not reader.partial


def test_small_bodies_are_not_received_in_place() -> None:
    reader = FrameReader(LIMIT)
    reader.feed(header(IN_PLACE - 1))
    assert reader.next_frame() is None
    assert reader.writable() is None
    reader = FrameReader(LIMIT)
    reader.feed(header(IN_PLACE))
    assert reader.next_frame() is None
    target = reader.writable()
    assert target is not None
    assert len(target) == IN_PLACE
    target[:] = b"x" * IN_PLACE
    reader.wrote(IN_PLACE)
    assert reader.writable() is None
    frame = reader.next_frame()
    assert frame is not None
    assert frame.payload == b"x" * IN_PLACE


def test_a_large_message_is_sent_without_joining_it() -> None:
    payload = bytes(IN_PLACE)
    small = encode(INVOKE, 1, 0, 0, payload[:-1])
    assert isinstance(small, bytes)
    large = encode(INVOKE, 1, 0, 0, payload)
    assert isinstance(large, tuple)
    assert large[1] is payload
    assert message_size(small) + 1 == message_size(large) == HEADER_SIZE + IN_PLACE


def test_a_partial_send_is_continued() -> None:
    sent = bytearray()

    def send(data: Any) -> int:
        taken = min(1000, len(data))
        sent.extend(data[:taken])
        return taken

    message = encode(INVOKE, 1, 0, 0, bytes(range(256)) * 400, {"TEST": b"x"})
    send_all(send, message)
    assert sent == joined(message)
    sent.clear()
    send_all(send, joined(message))
    assert sent == joined(message)


# ------------------------------------------------------------------------------------------------ refusals
@pytest.mark.feature("F115")
@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"G", "invalid data"),
        (b"GET / HTTP/1.1\r\n", "invalid data"),
        (b"PYR!", "invalid data"),
        (header(tag=b"pyro"), "invalid data"),
        (b"PYRO\x00\x30", "invalid protocol version: 48"),
        (header(version=501), "invalid protocol version: 501"),
        (header(version=503), "invalid protocol version: 503"),
        (header(magic=0x4DC4), "invalid message or protocol version"),
    ],
)
def test_what_is_no_header_is_refused_with_the_text_of_pyro(raw: bytes, text: str) -> None:
    reader = FrameReader(LIMIT)
    reader.feed(raw)
    with pytest.raises(RemoteProtocolError) as caught:
        reader.next_frame()
    assert str(caught.value) == text


@pytest.mark.parametrize("length", range(6))
def test_a_good_beginning_is_waited_for(length: int) -> None:
    reader = FrameReader(LIMIT)
    reader.feed(header()[:length])
    assert reader.next_frame() is None
    assert reader.partial is bool(length)


def test_the_reserved_field_and_unknown_flags_and_types_are_let_through() -> None:
    reader = FrameReader(LIMIT)
    reader.feed(header(reserved=0xFFFF, kind=200))
    frame = reader.next_frame()
    assert frame is not None
    assert frame.type == 200
    reader.feed(joined(encode(INVOKE, 1, 0x8000, 0, b"")))
    frame = reader.next_frame()
    assert frame is not None
    assert frame.flags == 0x8000


@pytest.mark.parametrize(
    ("area", "text"),
    [
        (b"TES", "truncated chunk header"),
        (b"TEST\0\0\0", "truncated chunk header"),
        (b"TEST\0\0\0\5abcd", "chunk longer than the annotations area"),
        (b"TEST\xff\xff\xff\xffabcd", "chunk longer than the annotations area"),
        (b"TEST\0\0\0\1aX", "truncated chunk header"),
        (b"T\xe9ST\0\0\0\0", "identifier is not ascii"),
    ],
)
def test_annotations_that_do_not_fill_their_area_exactly_are_refused(area: bytes, text: str) -> None:
    with pytest.raises(RemoteProtocolError, match=text):
        decode_annotations(area, 100)
    reader = FrameReader(LIMIT)
    reader.feed(header(3, len(area)) + area + b"abc")
    with pytest.raises(RemoteProtocolError, match=text):
        reader.next_frame()


@pytest.mark.feature("F238")
def test_a_later_annotation_of_the_same_id_wins() -> None:
    area = b"TEST\0\0\0\1aTEST\0\0\0\2bb"
    assert decode_annotations(area, 1) == {"TEST": b"bb"}


@pytest.mark.parametrize("count", [1, 5, 100])
def test_the_limit_on_the_number_of_annotations(count: int) -> None:
    notes = {f"{number:04}": b"" for number in range(count + 1)}
    area = encode_annotations(notes)
    assert decode_annotations(area, count + 1) == notes
    with pytest.raises(RemoteProtocolError, match=rf"^too many annotations \(max={count}\)$"):
        decode_annotations(area, count)
    reader = FrameReader(LIMIT, max_annotations=count)
    reader.feed(joined(encode(INVOKE, 1, 0, 0, b"", notes)))
    with pytest.raises(RemoteProtocolError, match="too many annotations"):
        reader.next_frame()


@pytest.mark.feature("F238")
@pytest.mark.parametrize("key", ["", "ABC", "ABCDE", "\u00e4BCD", "\u20acABC"])
def test_an_annotation_needs_an_id_of_four_ascii_characters(key: str) -> None:
    with pytest.raises(LocalProtocolError, match="annotation identifier must be 4 ascii characters"):
        encode(INVOKE, 1, 0, 0, b"", {key: b""})


@pytest.mark.parametrize("value", ["text", 1, None, [b"x"]])
def test_the_value_of_an_annotation_is_bytes(value: Any) -> None:
    with pytest.raises(LocalProtocolError, match="annotation 'TEST' must be bytes, not"):
        encode(INVOKE, 1, 0, 0, b"", {"TEST": value})


@pytest.mark.parametrize("value", [b"abc", bytearray(b"abc"), memoryview(b"abc")])
def test_all_kinds_of_bytes_can_be_annotations_and_payloads(value: Any) -> None:
    raw = joined(encode(INVOKE, 1, 0, 0, value, {"TEST": value}))
    (frame,) = frames_of(FrameReader(LIMIT), [raw])
    assert frame.payload == b"abc"
    assert frame.annotations == {"TEST": b"abc"}
    assert type(frame.annotations["TEST"]) is bytes


# ------------------------------------------------------------------------------------------------ limits
@pytest.mark.feature("F286")
@pytest.mark.parametrize("limit", [1024, IN_PLACE, 100_000])
@pytest.mark.parametrize("notes", [{}, {"TEST": b"12345678"}])
def test_the_limit_of_a_message_counts_annotations_and_payload(limit: int, notes: dict[str, bytes]) -> None:
    room = limit - len(encode_annotations(notes))
    just = encode(INVOKE, 1, 0, 0, bytes(room), notes, max_size=limit)
    assert message_size(just) == HEADER_SIZE + limit
    with pytest.raises(MessageTooLargeError, match=rf"^message too large \({limit + 1}, max={limit}\)$") as caught:
        encode(INVOKE, 1, 0, 0, bytes(room + 1), notes, max_size=limit)
    assert (caught.value.size, caught.value.limit) == (limit + 1, limit)
    assert len(frames_of(FrameReader(limit), [joined(just)])) == 1
    reader = FrameReader(limit)
    reader.feed(joined(encode(INVOKE, 1, 0, 0, bytes(room + 1), notes))[:HEADER_SIZE])
    with pytest.raises(MessageTooLargeError, match=rf"^message too large \({limit + 1}, max={limit}\)$") as caught:
        reader.next_frame()  # the header is enough
    assert (caught.value.size, caught.value.limit) == (limit + 1, limit)


def test_no_limit_when_sending_means_none() -> None:
    assert message_size(encode(INVOKE, 1, 0, 0, bytes(1_000_000), max_size=0)) == HEADER_SIZE + 1_000_000


def test_the_limit_may_be_raised_between_messages() -> None:
    reader = FrameReader(256)
    reader.feed(joined(encode(CONNECT, 1, 0, 0, bytes(256))) + joined(encode(INVOKE, 1, 0, 1, bytes(257))))
    assert reader.next_frame() is not None
    reader.max_size = 257
    frame = reader.next_frame()
    assert frame is not None
    assert len(frame.payload) == 257


# ------------------------------------------------------------------------------------------------ memory
def _allocated(action: Any) -> int:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        action()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("came", [0, 1, 100_000])
def test_memory_follows_what_came_not_what_was_announced(came: int) -> None:
    reader = FrameReader(1 << 30)

    def receive() -> None:
        reader.feed(header(900_000_000))
        assert reader.next_frame() is None
        target = reader.writable()
        assert target is not None
        target[:came] = bytes(came)
        reader.wrote(came)
        assert reader.next_frame() is None
        assert reader.writable() is not None

    assert _allocated(receive) < 2_000_000


def test_memory_of_a_slow_body_stays_within_twice_what_came() -> None:
    reader = FrameReader(1 << 30)
    piece = bytes(IN_PLACE)

    def receive() -> None:
        reader.feed(header(900_000_000))
        for _ in range(128):  # 8 MiB
            assert reader.next_frame() is None
            reader.feed(piece)

    assert _allocated(receive) < 3 * 128 * IN_PLACE


def test_the_memory_of_a_message_goes_with_it() -> None:
    reader = FrameReader(1 << 30)
    raw = joined(encode(RESULT, 1, 0, 0, bytes(4_000_000)))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        assert len(frames_of(reader, cut(raw, [50_000, 3_000_000]))) == 1
        assert tracemalloc.get_traced_memory()[0] - before < 100_000
    finally:
        tracemalloc.stop()


# ------------------------------------------------------------------------------------------------ the version
@pytest.mark.feature("F116")
@pytest.mark.parametrize(
    ("start", "version"),
    [(b"PYRO\x01\xf6", 502), (b"PYRO\x00\x30 and more", 48), (b"PYRO\x01", None), (b"", None), (b"HTTP/1.1", None)],
)
def test_the_version_is_sniffed_from_six_bytes(start: bytes, version: int | None) -> None:
    assert sniff_version(start) == version


# ------------------------------------------------------------------------------------------------ marshalled texts
@given(st.text(st.characters(max_codepoint=127), max_size=255))
def test_marshal_reads_the_texts_that_we_write(text: str) -> None:
    assert marshal.loads(marshalled_text(text)) == text
    assert read_marshalled_text(marshalled_text(text)) == text


@given(st.text(min_size=1, max_size=400))
def test_other_texts_are_escaped_and_shortened(text: str) -> None:
    written = marshal.loads(marshalled_text(text))
    assert written == text.encode("ascii", "backslashreplace").decode("ascii")[:255]


@pytest.mark.parametrize("version", range(marshal.version + 1))
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=400))
def test_we_read_the_texts_that_marshal_writes(version: int, text: str) -> None:
    assert read_marshalled_text(marshal.dumps(text, version)) == text
    fresh = "".join([text, "x"])  # with a single reference, which newer formats write without a mark
    assert read_marshalled_text(memoryview(marshal.dumps(fresh, version))) == fresh


@pytest.mark.parametrize(
    "value", [None, 1, b"bytes", ["list"], ("tuple",), {"a": 1}, 1.5, True], ids=lambda value: type(value).__name__
)
def test_whatever_else_marshal_writes_is_refused(value: Any) -> None:
    with pytest.raises(RemoteProtocolError, match="the reason of the refusal cannot be read"):
        read_marshalled_text(marshal.dumps(value))


@given(st.binary(max_size=60))
def test_reading_a_text_never_fails_otherwise(data: bytes) -> None:
    try:
        assert isinstance(read_marshalled_text(data), str)
    except RemoteProtocolError:
        pass


@pytest.mark.parametrize("data", [b"", b"z", b"z\x05abc", b"z\x02abc", b"a\x03\0\0", b"u\xff\xff\xff\xffabc"])
def test_texts_with_wrong_lengths_are_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read_marshalled_text(data)


def test_marshal_has_the_id_of_pyro5() -> None:
    assert MARSHAL_ID == 2
