"""Protocol 502, the wire of Pyro5: bytes in, frames out, and the reverse.  No sockets here.

A message is ``header (40 bytes) | annotations | payload``; all integers are big-endian.  The layout and
the texts of errors that reach a peer are those of Pyro5 5.17, checked against recorded traffic
(``tests/data/wire_captures.json``).
"""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, NoReturn, Union

from .errors import LocalProtocolError, MessageTooLargeError, RemoteProtocolError, SerializeError
from .interfaces import Buffer

__all__ = [
    "CONNECT",
    "CONNECTFAIL",
    "CONNECTOK",
    "EXTENSIONS",
    "FLAG_BATCH",
    "FLAG_COMPRESSED",
    "FLAG_CORR_ID",
    "FLAG_EXCEPTION",
    "FLAG_ITEMSTREAM",
    "FLAG_KEEPSERIALIZED",
    "FLAG_ONEWAY",
    "FLAG_SEGMENTS",
    "HEADER_SIZE",
    "INVOKE",
    "IN_PLACE",
    "MAGIC",
    "MARSHAL_ID",
    "NO_CORRELATION",
    "PING",
    "PING_SERIALIZER",
    "PROTOCOL_VERSION",
    "RESULT",
    "Frame",
    "FrameReader",
    "Message",
    "Segment",
    "Segmented",
    "agreed",
    "decode_annotations",
    "encode",
    "encode_annotations",
    "head",
    "in_parts",
    "marshalled_text",
    "message_size",
    "names_of",
    "pack_plain",
    "read_marshalled_text",
    "send_all",
    "sniff_version",
    "told",
    "unpack_plain",
]

PROTOCOL_VERSION = 502
HEADER_SIZE = 40

CONNECT, CONNECTOK, CONNECTFAIL, INVOKE, RESULT, PING = 1, 2, 3, 4, 5, 6

FLAG_EXCEPTION = 0x01
FLAG_COMPRESSED = 0x02
FLAG_ONEWAY = 0x04
FLAG_BATCH = 0x08
FLAG_ITEMSTREAM = 0x10
FLAG_KEEPSERIALIZED = 0x20
FLAG_CORR_ID = 0x40
FLAG_SEGMENTS = 0x200
"""Between ends that agreed on it: the body begins with a table of segments, which follow the payload (see Segmented)."""

MARSHAL_ID = 2
"""The serializer id of handshake failures that happen before a serializer is known."""
PING_SERIALIZER = 42
"""What pings carry in place of a serializer id; it is never looked up."""
NO_CORRELATION = bytes(16)
EXTENSIONS = "PLUG"
"""The annotation of CONNECT that offers protocol extensions, and of CONNECTOK that accepts some of them."""

_TAG = b"PYRO"
MAGIC = 0x4DC5
_HEADER = struct.Struct("!4sHBBHHII16sHH")
_CHUNK = struct.Struct("!4sI")
# the header of a message that has no flags, annotations or correlation id; the first 8 bytes are one value,
# because tag, version, type and serializer of such messages never change on a connection
_PLAIN = struct.Struct("!8sxxHI22xH")
_PLAIN_READ = struct.Struct("!8sHHII18xH")
pack_plain = _PLAIN.pack
"""``pack_plain(head, seq, payload_length, MAGIC)``: the header of a plain message."""
unpack_plain = _PLAIN_READ.unpack_from
"""``head, flags, seq, payload_length, annotations_length, magic`` from the first 40 bytes of a buffer."""
_pack_header = _HEADER.pack
_unpack_header = _HEADER.unpack_from
_new_tuple = tuple.__new__

IN_PLACE = 64 * 1024
"""From this size on (bytes) a body is received into a buffer of its own, and sent without joining."""
PART_SIZE = 64 * 1024
"""What a part of a large message carries at most (bytes)."""
_FIRST_STEP = 1024 * 1024
"""A body's buffer starts with at most this (bytes) and doubles: memory follows what came, not what was announced."""

Message = Union[bytes, "tuple[Buffer, ...]"]
"""What is to be sent: one piece, or several for messages with a large payload."""


class Segmented(bytes):
    """A payload, parts of which travel behind it, so that neither end copies them.

    Its bytes are the payload without them, its length is that of everything.  In the message the annotations and the
    payload have a table before them, the number of segments (4 bytes) and their sizes (8 bytes each), and the segments
    behind them, in that order; all of it but the annotations is counted as payload.
    """

    segments: Sequence[Buffer] = ()

    @classmethod
    def of(cls, payload: Buffer, segments: Sequence[Buffer]) -> Segmented:
        """A payload and what goes with it: flat views of bytes."""
        made = cls(payload)
        made.segments = segments
        return made

    def __len__(self) -> int:
        return super().__len__() + sum(map(len, self.segments))

    def table(self) -> bytes:
        """What goes before everything else."""
        return struct.pack(f"!I{len(self.segments)}Q", len(self.segments), *map(len, self.segments))


class Segment:
    """Stands for a segment in a value that is encoded; codecs that read segments know it."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index

    def __getstate__(self) -> NoReturn:
        raise SerializeError("a segment cannot be written by this serializer")


@functools.lru_cache(maxsize=64)
def head(kind: int, serializer_id: int) -> bytes:
    """The first 8 bytes of messages of that type and serializer."""
    return _HEADER.pack(_TAG, PROTOCOL_VERSION, kind, serializer_id, 0, 0, 0, 0, NO_CORRELATION, 0, MAGIC)[:8]


class Frame(NamedTuple):
    """One message as it came.  ``annotations`` is empty when there are none."""

    type: int
    serializer_id: int
    flags: int
    seq: int
    payload: Buffer
    annotations: Mapping[str, bytes]
    correlation: bytes

    @property
    def data(self) -> Buffer:
        """The payload, by Pyro's name."""
        return self.payload

    @property
    def corr_id(self) -> bytes:
        """The correlation id when the message has one, else 16 zero bytes."""
        return self.correlation if self.flags & FLAG_CORR_ID else NO_CORRELATION


_NOTHING: Mapping[str, bytes] = {}
_USUAL = 1024
"""Annotations up to this size (bytes) are worth to be remembered."""


def encode(
    kind: int,
    serializer_id: int,
    flags: int,
    seq: int,
    payload: Buffer,
    annotations: Mapping[str, Buffer] | None = None,
    correlation: bytes = NO_CORRELATION,
    max_size: int = 0,
) -> Message:
    """A message, ready to be sent.

    :param max_size: the limit in bytes for annotations and payload together; 0 means none
    :raises MessageTooLargeError: the limit is passed; nothing was sent
    :raises LocalProtocolError: an annotation has a bad id or value
    """
    chunks = encode_annotations(annotations) if annotations else b""
    if type(payload) is Segmented:
        return _encode_segmented(kind, serializer_id, flags, seq, payload, chunks, correlation, max_size)
    size = len(chunks) + len(payload)
    if max_size and size > max_size:
        raise MessageTooLargeError(f"message too large ({size}, max={max_size})", size, max_size)
    header = _pack_header(
        _TAG, PROTOCOL_VERSION, kind, serializer_id, flags, seq, len(payload), len(chunks), correlation, 0, MAGIC
    )
    if size < IN_PLACE:
        return header + chunks + payload
    return (header + chunks, payload)


def _encode_segmented(
    kind: int,
    serializer_id: int,
    flags: int,
    seq: int,
    payload: Segmented,
    chunks: bytes,
    correlation: bytes,
    max_size: int,
) -> Message:
    table = payload.table()
    length = len(table) + len(payload)
    size = length + len(chunks)
    if max_size and size > max_size:
        raise MessageTooLargeError(f"message too large ({size}, max={max_size})", size, max_size)
    header = _pack_header(
        _TAG,
        PROTOCOL_VERSION,
        kind,
        serializer_id,
        flags | FLAG_SEGMENTS,
        seq,
        length,
        len(chunks),
        correlation,
        0,
        MAGIC,
    )
    return (b"".join((header, table, chunks, payload)), *payload.segments)


def encode_annotations(annotations: Mapping[str, Buffer]) -> bytes:
    """The annotation area: per chunk a 4 character id, the length, and the value."""
    parts: list[Buffer] = []
    for key, value in annotations.items():
        if len(key) != 4 or not key.isascii():
            raise LocalProtocolError(f"annotation identifier must be 4 ascii characters, not {key!r}")
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise LocalProtocolError(f"annotation {key!r} must be bytes, not {type(value).__name__}")
        parts += (_CHUNK.pack(key.encode("ascii"), len(value)), value)
    return b"".join(parts)


def decode_annotations(area: Buffer, max_count: int) -> dict[str, bytes]:
    """The annotations in an annotation area; a later duplicate wins.

    :raises RemoteProtocolError: a chunk runs past the area, an id is not ASCII, or there are too many
    """
    annotations: dict[str, bytes] = {}
    view = memoryview(area)
    offset = 0
    while offset < len(view):
        if offset + _CHUNK.size > len(view):
            raise RemoteProtocolError("invalid annotations: truncated chunk header")
        key, length = _CHUNK.unpack_from(view, offset)
        offset += _CHUNK.size
        if offset + length > len(view):
            raise RemoteProtocolError("invalid annotations: chunk longer than the annotations area")
        try:
            annotations[key.decode("ascii")] = bytes(view[offset : offset + length])
        except UnicodeDecodeError:
            raise RemoteProtocolError("invalid annotations: identifier is not ascii") from None
        offset += length
        if len(annotations) > max_count:
            raise RemoteProtocolError(f"too many annotations (max={max_count})")
    return annotations


def names_of(annotation: Buffer) -> frozenset[str]:
    """The names in an EXTENSIONS annotation: ASCII words with commas between."""
    return frozenset(bytes(annotation).decode("ascii", "replace").split(",")) - {""}


@functools.lru_cache(maxsize=64)
def told(names: frozenset[str]) -> bytes:
    """The EXTENSIONS annotation with these names."""
    return ",".join(sorted(names)).encode("ascii")


def agreed(own: frozenset[str], text: Buffer) -> frozenset[str]:
    """The names of ``own`` that are in an EXTENSIONS annotation too."""
    return _agreed(own, bytes(text)) if len(text) <= _USUAL else own & names_of(text)


@functools.lru_cache(maxsize=64)
def _agreed(own: frozenset[str], text: bytes) -> frozenset[str]:
    # nearly all connections agree on the same: thousands of them shall have one set, not each its own
    return own & names_of(text)


def message_size(message: Message) -> int:
    """The number of bytes of a message."""
    return len(message) if isinstance(message, bytes) else sum(len(part) for part in message)


def in_parts(message: tuple[Buffer, ...], kind: int) -> Iterator[tuple[bytes, memoryview]]:
    """A message cut into messages of type ``kind``, each as header and payload.

    They have the number of the whole, which is what their payloads (of PART_SIZE bytes at most) make one after the other.
    """
    seq = _unpack_header(message[0])[5]
    for piece in message:
        view = memoryview(piece)
        for begin in range(0, len(view), PART_SIZE):
            payload = view[begin : begin + PART_SIZE]
            yield (
                _pack_header(_TAG, PROTOCOL_VERSION, kind, 0, 0, seq, len(payload), 0, NO_CORRELATION, 0, MAGIC),
                payload,
            )


class FrameReader:
    """Turns bytes, cut anywhere, into frames.

    Give it what came with :meth:`feed` and take frames with :meth:`next_frame` until it returns None.
    While a large body is coming, :meth:`writable` is the place to receive it into without a copy; then
    report with :meth:`wrote` instead of feeding.

    ``max_size`` limits annotations and payload of one message together (bytes); at most header plus
    that much is ever kept.  Errors are :class:`RemoteProtocolError`; afterwards the reader is useless.
    """

    __slots__ = (
        "_body",
        "_body_size",
        "_done",
        "_filled",
        "_pos",
        "_rest",
        "_room",
        "_sizes",
        "_view",
        "data",
        "max_annotations",
        "max_segments",
        "max_size",
    )

    def __init__(self, max_size: int, max_annotations: int = 100) -> None:
        self.max_size = max_size
        self.max_annotations = max_annotations
        self.data: bytes = b""
        """What has come and was not taken; empty (and then nothing is pending) between messages."""
        self._pos = 0
        self._body: io.BytesIO | None = None
        self._body_size = 0
        self._filled = 0
        self._rest = b""
        self._room = 0
        self._view: memoryview | None = None
        self.max_segments = 0
        """How many segments a message may have; 0 where both ends did not agree on any."""
        self._sizes: tuple[int, ...] = ()
        self._done: tuple[bytes, ...] = ()

    @property
    def partial(self) -> bool:
        """Whether the beginning of a message is here and its end is not."""
        return self._body is not None or self._pos < len(self.data)

    def feed(self, data: bytes) -> None:
        """Take bytes that were received."""
        if self._body is not None:
            offset = 0
            while offset < len(data):
                target = self.writable()
                if target is None:  # the body is complete, the rest belongs to the next message
                    self._rest += data[offset:]
                    return
                taken = min(len(target), len(data) - offset)
                target[:taken] = data[offset : offset + taken]
                self.wrote(taken)
                offset += taken
        elif self._pos < len(self.data):
            self.data = self.data[self._pos :] + data
            self._pos = 0
        else:
            self.data = data
            self._pos = 0

    def writable(self) -> memoryview | None:
        """Where to receive the rest of a large body, or None when none is being received."""
        if self._body is None:
            return None
        if self._filled == self._body_size:
            if not self._sizes:
                return None
            self._done += (self._body.getvalue(),)
            size, self._sizes = self._sizes[0], self._sizes[1:]
            self._begin(size)
        if self._view is None:
            if self._filled == self._room:
                # BytesIO grows in place and gives its bytes away without a copy in the end
                self._room = min(self._body_size, max(_FIRST_STEP, 2 * self._filled))
                self._body.seek(self._room - 1)
                self._body.write(b"\0")
            with self._body.getbuffer() as whole:
                self._view = whole[self._filled :]
        return self._view

    def wrote(self, count: int) -> None:
        """``count`` bytes were received into :meth:`writable`, which must not be used any more."""
        self._filled += count
        if self._view is not None:
            self._view.release()  # a buffer that is looked at cannot grow
            self._view = None

    def next_frame(self) -> Frame | None:
        """The next complete message, or None when more bytes are needed."""
        data, pos = self.data, self._pos
        have = len(data) - pos
        if have < HEADER_SIZE:
            if have:
                _check_start(data, pos)
            return None
        tag, version, kind, serializer, flags, seq, length, chunks, correlation, _, magic = _unpack_header(data, pos)
        if tag != _TAG or version != PROTOCOL_VERSION or magic != MAGIC:
            _check_start(data, pos)
            raise RemoteProtocolError("invalid message or protocol version")
        size = chunks + length
        if size > self.max_size:
            raise MessageTooLargeError(f"message too large ({size}, max={self.max_size})", size, self.max_size)
        body: Buffer
        if flags & FLAG_SEGMENTS and self.max_segments:
            pieces = self._take_segments(size, chunks)
            if pieces is None:
                return None
            body, flags = pieces[0], flags & ~FLAG_SEGMENTS
            return Frame(
                kind,
                serializer,
                flags,
                seq,
                Segmented.of(body[chunks:], pieces[1:]),
                decode_annotations(memoryview(body)[:chunks], self.max_annotations) if chunks else _NOTHING,
                correlation,
            )
        if have >= HEADER_SIZE + size:
            begin = pos + HEADER_SIZE
            end = begin + size
            if end == len(data):
                self.data, self._pos = b"", 0  # (an idle connection keeps nothing)
            else:
                self._pos = end
            if not chunks:
                # by far the most frequent case: one plain message, alone in what was received
                return _new_tuple(Frame, (kind, serializer, flags, seq, data[begin:end], _NOTHING, correlation))
            body = data[begin:end]
        else:
            taken = self._take_body(size)
            if taken is None:
                return None
            body = taken
        return Frame(
            kind,
            serializer,
            flags,
            seq,
            memoryview(body)[chunks:] if chunks else body,
            decode_annotations(memoryview(body)[:chunks], self.max_annotations) if chunks else _NOTHING,
            correlation,
        )

    def _begin(self, size: int) -> None:
        self._body, self._body_size, self._filled, self._room = io.BytesIO(), size, 0, 0

    def _take_segments(self, size: int, chunks: int) -> Sequence[bytes] | None:
        """The annotations with the payload, and the segments, each in bytes of its own; None until all are there."""
        if self._body is None:
            start = self._pos + HEADER_SIZE
            if len(self.data) < start + 4:
                return None
            count = int.from_bytes(self.data[start : start + 4], "big")
            if not 0 < count <= self.max_segments:
                raise RemoteProtocolError(f"a message with {count} segments (allowed are 1 to {self.max_segments})")
            table = 4 + 8 * count
            if table + chunks >= size:
                raise RemoteProtocolError("invalid segments: the table is longer than the message")
            if len(self.data) < start + table:
                return None
            sizes: tuple[int, ...] = struct.unpack_from(f"!{count}Q", self.data, start + 4)
            first = size - table - sum(sizes)
            if first <= chunks or not all(sizes):
                raise RemoteProtocolError("invalid segments: their sizes do not fit the message")
            came = self.data[start + table :]
            self.data = self.data[self._pos : start]
            self._pos = 0
            self._sizes, self._done = sizes, ()
            self._begin(first)
            self.feed(came)
        body = self._complete()
        if body is None:
            return None
        pieces, self._done = (*self._done, body), ()
        return pieces

    def _take_body(self, size: int) -> bytes | None:
        if self._body is None:
            if size < IN_PLACE:
                return None
            # just the header stays in _data until the body is complete
            came = self.data[self._pos + HEADER_SIZE :]
            self.data = self.data[self._pos : self._pos + HEADER_SIZE]
            self._pos = 0
            self._begin(size)
            self.feed(came)
        return self._complete()

    def _complete(self) -> bytes | None:
        if self._body is None or self._filled < self._body_size or self._sizes:
            return None
        body = self._body.getvalue()
        self._body = None
        self.data, self._rest = self._rest, b""
        self._pos = 0
        return body


def _check_start(data: bytes, pos: int) -> None:
    """Refuse what cannot become a message as early as its first bytes show it."""
    start = data[pos : pos + 4]
    if start != _TAG[: len(start)]:
        raise RemoteProtocolError("invalid data")
    if len(data) - pos >= 6:
        version = int.from_bytes(data[pos + 4 : pos + 6], "big")
        if version != PROTOCOL_VERSION:
            raise RemoteProtocolError(f"invalid protocol version: {version}")


def sniff_version(start: bytes) -> int | None:
    """The protocol version in the first 6 bytes of a conversation, or None when it is not Pyro's."""
    return int.from_bytes(start[4:6], "big") if len(start) >= 6 and start[:4] == _TAG else None


# --------------------------------------------------------------------------- the marshalled texts of CONNECTFAIL
def marshalled_text(text: str) -> bytes:
    """A text in CPython's marshal format, as old peers expect in early handshake failures."""
    raw = text.encode("ascii", "backslashreplace")[:255]
    return b"z" + bytes([len(raw)]) + raw


_TEXT_CODES: Mapping[int, tuple[int, str]] = {
    ord("z"): (1, "ascii"),
    ord("Z"): (1, "ascii"),
    ord("a"): (4, "ascii"),
    ord("A"): (4, "ascii"),
    ord("u"): (4, "utf-8"),
    ord("t"): (4, "utf-8"),
}


def read_marshalled_text(data: Buffer) -> str:
    """The text in a marshalled str, read without the marshal module (which must not see network bytes).

    :raises RemoteProtocolError: it is anything else
    """
    raw = bytes(data)
    code = _TEXT_CODES.get(raw[0] & 0x7F) if raw else None  # the top bit marks a value that may be referred to
    if code is not None:
        width, encoding = code
        length = int.from_bytes(raw[1 : 1 + width], "little")
        text = raw[1 + width :]
        if len(raw) > width and len(text) == length:
            return text.decode(encoding, "replace")
    raise RemoteProtocolError("the reason of the refusal cannot be read")


def send_all(send: Callable[[Buffer], int], message: Message) -> None:
    """Send a whole message with a blocking ``send``."""
    parts: Iterable[Buffer] = (message,) if isinstance(message, bytes) else message
    for part in parts:
        sent = send(part)
        if sent < len(part):
            view = memoryview(part)
            while sent < len(view):
                sent += send(view[sent:])
