"""Blobs: an argument that stays serialized until somebody wants it.

``SerializedBlob(info, data)`` as the only argument of a call reaches the method as a blob again: ``info`` can
be read at once, the data after ``deserialized()``.  Passed on in another call the bytes go on unchanged.  A
dispatcher so routes messages without the classes in them, and without paying for their serialization.

Who is called, and the info, stand in the annotation BLBI, which the originals write and read with Python's
marshal module.  That module is not safe for bytes from the network; here a small writer and a small reader know
the part of its format that is needed: None, booleans, numbers, texts, bytes, and containers of these.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, final

from pyroplug.core.call import Call
from pyroplug.core.errors import PluginError, RemoteProtocolError, SerializeError
from pyroplug.core.hookspecs import hookimpl, steady
from pyroplug.core.kernel import WireRegister
from pyroplug.core.plan import Steps
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.types import TypeTable
from pyroplug.core.wire import FLAG_KEEPSERIALIZED

if TYPE_CHECKING:
    from pyroplug.core.interfaces import Buffer, Codec

__all__ = ["PLUGIN", "Kept", "SerializedBlob", "read_marshal", "write_marshal"]

PLUGIN = PluginInfo("blob", "arguments that stay serialized until they are wanted")

ANNOTATION = "BLBI"
"""The id of the annotation (wire.md 16)."""

_ALONE = "if SerializedBlob is used, it must be the only argument"


class Kept(NamedTuple):
    """A request as it came: nothing in it was decoded."""

    payload: Buffer
    serializer_id: int
    codec: Codec

    def data(self) -> Any:
        """What stands in the place of the arguments."""
        value = self.codec.loads(self.payload)
        if isinstance(value, dict) and "params" in value:  # (the originals take the text "params" for json)
            return value["params"]
        if isinstance(value, (list, tuple)) and len(value) == 4:
            return value[2]
        raise SerializeError("invalid blob: its message is no request")


@final
class SerializedBlob:
    """Data that is passed along unread.  It must be the only argument of the call.

    :param info: a small description for whoever passes it along: None, a number, a text, bytes, or tuples,
        lists and dicts of these
    :param data: the data; on arrival a :class:`Kept` message, with ``is_blob``
    """

    def __init__(self, info: Any, data: Any, is_blob: bool = False) -> None:
        if is_blob and not isinstance(data, Kept):
            raise TypeError("data should be a kept message if is_blob is true")
        self.info = info
        self._data = data
        self._contains_blob = is_blob

    def deserialized(self) -> Any:
        """The data, decoded if it came in a message; decoded anew each time.

        :raises SerializeError: it cannot be decoded here
        """
        return self._data.data() if self._contains_blob else self._data

    def __reduce__(self) -> NoReturn:
        raise SerializeError(_ALONE)

    def __getstate__(self) -> NoReturn:
        # asked for by a type table that this plugin has taught nothing
        raise PluginError("a SerializedBlob needs the plugin 'blob', which is off in this kernel", PLUGIN.name)

    def __repr__(self) -> str:
        return f"<SerializedBlob {self.info!r}, {'received' if self._contains_blob else 'local'}>"


# ============================================================================= marshal, without marshal
_MAX_NODES = 10_000
_MAX_DEPTH = 20
_MAX_DIGITS = 1_000
"""Limits for one value: parts counting what is repeated by reference, nesting, and 15-bit digits of a number."""

_INT = struct.Struct("<i")
_DOUBLE = struct.Struct("<d")
_OPENERS: Mapping[type, bytes] = {tuple: b"(", list: b"[", set: b"<", frozenset: b">"}


def write_marshal(value: Any) -> bytes:
    """A value in marshal format version 2, which every Python reads.

    :raises SerializeError: it is no simple value
    """
    parts: list[bytes] = []
    _write(value, parts.append, _MAX_DEPTH)
    return b"".join(parts)


def _write(value: Any, put: Callable[[bytes], None], left: int) -> None:
    kind = type(value)
    if value is None:
        put(b"N")
    elif kind is bool:
        put(b"T" if value else b"F")
    elif kind is int:
        put(b"i" + _INT.pack(value) if -(1 << 31) <= value < 1 << 31 else _long(value))
    elif kind is float:
        put(b"g" + _DOUBLE.pack(value))
    elif kind is complex:
        put(b"y" + _DOUBLE.pack(value.real) + _DOUBLE.pack(value.imag))
    elif kind is str:
        raw = value.encode("utf-8", "surrogatepass")
        put(b"u" + _INT.pack(len(raw)) + raw)
    elif kind is bytes:
        put(b"s" + _INT.pack(len(value)) + value)
    elif left <= 0:
        raise SerializeError(f"the info of a blob is nested too deeply (limit {_MAX_DEPTH})")
    elif kind in _OPENERS:
        put(_OPENERS[kind] + _INT.pack(len(value)))
        for item in value:
            _write(item, put, left - 1)
    elif kind is dict:
        put(b"{")
        for key, item in value.items():
            _write(key, put, left - 1)
            _write(item, put, left - 1)
        put(b"0")
    else:
        raise SerializeError(f"the info of a blob must be a simple value, not {kind.__name__}")


def _long(value: int) -> bytes:
    digits: list[int] = []
    rest = abs(value)
    while rest:
        digits.append(rest & 0x7FFF)
        rest >>= 15
        if len(digits) > _MAX_DIGITS:
            raise SerializeError("a number in the info of a blob is too large")
    return b"l" + _INT.pack(len(digits) if value > 0 else -len(digits)) + struct.pack(f"<{len(digits)}H", *digits)


def read_marshal(data: Buffer) -> Any:
    """The simple value in bytes that Python's marshal module, or :func:`write_marshal`, has made.

    Understands all versions of the format up to 4, with references to what came before.

    :raises RemoteProtocolError: they are anything else, or pass a limit
    """
    reader = _Reader(bytes(data))
    try:
        value = reader.value(_MAX_DEPTH)
    except (IndexError, ValueError, TypeError, struct.error, OverflowError) as exc:
        raise RemoteProtocolError(f"invalid marshal data: {type(exc).__name__}: {exc}") from None
    if reader.pos != len(reader.data):
        raise RemoteProtocolError("invalid marshal data: something follows the value")
    return value


class _Unfinished:
    """A container that is still being read."""


_UNFINISHED = _Unfinished()
_NULL = _Unfinished()
"""The end of a dict."""


class _Reader:
    __slots__ = ("data", "nodes", "pos", "refs")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.pos = 0
        self.nodes = 0
        self.refs: list[tuple[Any, int]] = []  # values that may be referred to, and how many nodes each has

    def value(self, left: int) -> Any:
        """The next value."""
        value = self._next(left)
        if value is _NULL:
            raise ValueError("unexpected end of a dict")
        return value

    def _next(self, left: int) -> Any:
        code = self._take(1)[0]
        if left < 0:
            raise ValueError(f"nested too deeply (limit {_MAX_DEPTH})")
        if code == 0x72:  # r
            return self._reference()
        start = self.nodes
        self._count(1)
        if code & 0x80 == 0:
            return self._read(code, left)
        place = len(self.refs)
        self.refs.append((_UNFINISHED, 0))
        value = self._read(code & 0x7F, left)
        self.refs[place] = (value, self.nodes - start)
        return value

    def _reference(self) -> Any:
        number = self._size()
        value, nodes = self.refs[number]
        if value is _UNFINISHED:
            raise ValueError("a value that contains itself")
        self._count(nodes)  # as if it stood here: few bytes must not become a huge structure
        return value

    def _count(self, nodes: int) -> None:
        self.nodes += nodes
        if self.nodes > _MAX_NODES:
            raise ValueError(f"too many parts (limit {_MAX_NODES})")

    def _read(self, code: int, left: int) -> Any:
        read = _READERS.get(code)
        if read is None:
            raise ValueError(f"unsupported type code 0x{code:02x}")
        return read(self, left)

    # ----------------------------------------------------------------- pieces
    def _take(self, count: int) -> bytes:
        end = self.pos + count
        if end > len(self.data):
            raise ValueError("it is cut off")
        taken = self.data[self.pos : end]
        self.pos = end
        return taken

    def _int(self) -> int:
        value: int = _INT.unpack(self._take(4))[0]
        return value

    def _size(self) -> int:
        size = self._int()
        if size < 0:
            raise ValueError("negative size")
        return size

    def long(self) -> int:
        """A number in 15-bit digits."""
        size = self._int()
        if abs(size) > _MAX_DIGITS:
            raise ValueError("number too large")
        digits = struct.unpack(f"<{abs(size)}H", self._take(2 * abs(size)))
        value: int = sum((digit & 0x7FFF) << (15 * place) for place, digit in enumerate(digits))
        return value if size >= 0 else -value

    def text(self, encoding: str, short: bool = False) -> str:
        """A text."""
        size = self._take(1)[0] if short else self._size()
        return self._take(size).decode(encoding, "surrogatepass" if encoding == "utf-8" else "strict")

    def double(self) -> float:
        """A binary float."""
        value: float = _DOUBLE.unpack(self._take(8))[0]
        return value

    def decimal(self) -> float:
        """A float in digits."""
        return float(self._take(self._take(1)[0]).decode("ascii"))

    def raw(self) -> bytes:
        """Bytes."""
        return self._take(self._size())

    def items(self, left: int, short: bool = False) -> list[Any]:
        """The items of a sequence or set."""
        size = self._take(1)[0] if short else self._size()
        if size > len(self.data) - self.pos:  # each takes a byte at least
            raise ValueError("it is cut off")
        return [self.value(left - 1) for _ in range(size)]

    def mapping(self, left: int) -> dict[Any, Any]:
        """Keys and values, up to a null."""
        found = {}
        while (key := self._next(left - 1)) is not _NULL:
            found[key] = self.value(left - 1)
        return found


_READERS: Mapping[int, Callable[[_Reader, int], Any]] = {
    ord("0"): lambda reader, left: _NULL,
    ord("N"): lambda reader, left: None,
    ord("T"): lambda reader, left: True,
    ord("F"): lambda reader, left: False,
    ord("i"): lambda reader, left: reader._int(),
    ord("l"): lambda reader, left: reader.long(),
    ord("f"): lambda reader, left: reader.decimal(),
    ord("g"): lambda reader, left: reader.double(),
    ord("x"): lambda reader, left: complex(reader.decimal(), reader.decimal()),
    ord("y"): lambda reader, left: complex(reader.double(), reader.double()),
    ord("s"): lambda reader, left: reader.raw(),
    ord("u"): lambda reader, left: reader.text("utf-8"),
    ord("t"): lambda reader, left: reader.text("utf-8"),
    ord("a"): lambda reader, left: reader.text("ascii"),
    ord("A"): lambda reader, left: reader.text("ascii"),
    ord("z"): lambda reader, left: reader.text("ascii", short=True),
    ord("Z"): lambda reader, left: reader.text("ascii", short=True),
    ord("("): lambda reader, left: tuple(reader.items(left)),
    ord(")"): lambda reader, left: tuple(reader.items(left, short=True)),
    ord("["): lambda reader, left: reader.items(left),
    ord("<"): lambda reader, left: set(reader.items(left)),
    ord(">"): lambda reader, left: frozenset(reader.items(left)),
    ord("{"): lambda reader, left: reader.mapping(left),
}


# ============================================================================= the plugin
@hookimpl
def pyro_reserve(wire: WireRegister) -> None:
    """The flag and the annotation."""
    wire.flag(FLAG_KEEPSERIALIZED, "KEEPSERIALIZED")
    wire.annotation(ANNOTATION)


@hookimpl
def pyro_types(types: TypeTable) -> None:
    """A blob anywhere else than as the only argument is a mistake."""
    types.register_class_to_dict(SerializedBlob, _refuse)


def _refuse(blob: SerializedBlob) -> NoReturn:
    raise SerializeError(_ALONE)


def _send(call: Call) -> None:
    """Client: put the data, or the message that was kept, in place of the arguments."""
    if call.kwargs:
        raise SerializeError(_ALONE)
    blob: SerializedBlob = call.args[0]
    routing = write_marshal((blob.info, call.object_id, call.method))
    call.annotations = {**call.annotations, ANNOTATION: routing}
    call.flags |= FLAG_KEEPSERIALIZED
    if not blob._contains_blob:
        codec = call.plan.codecs[call.serializer_id]
        call.payload = _request(getattr(codec, "portable", codec), call, blob._data)  # it may be passed on
        return
    kept: Kept = blob._data
    if kept.serializer_id not in call.plan.codecs:
        raise SerializeError(
            f"the serializer {kept.serializer_id} of this blob is not loaded: its reply could not be read"
        )
    call.payload, call.serializer_id = kept.payload, kept.serializer_id


def _request(codec: Codec, call: Call, data: Any) -> bytes:
    """A request in which the data stands in the place of the arguments, whatever type it has."""
    if type(data) in (list, tuple):
        return codec.dumps_call(call.object_id, call.method, data, {})
    shape = codec.loads(codec.dumps_call(call.object_id, call.method, (), {}))
    if isinstance(shape, dict):
        return codec.dumps({**shape, "params": data})
    return codec.dumps((call.object_id, call.method, data, {}))


def _keep(call: Call) -> None:
    call.decode = _decode


def _decode(call: Call) -> tuple[str, str, tuple[SerializedBlob], Mapping[str, Any]]:
    """Server: the routing from the annotation; the payload stays as it is."""
    routing = call.annotations.get(ANNOTATION)
    if routing is None:
        raise RemoteProtocolError(f"a message with a blob has to have the annotation {ANNOTATION}")
    value = read_marshal(routing)
    if not (isinstance(value, tuple) and len(value) == 3 and isinstance(value[1], str) and isinstance(value[2], str)):
        raise RemoteProtocolError(f"invalid annotation {ANNOTATION}: expected info, object id and method")
    info, object_id, method = value
    kept = Kept(call.payload, call.serializer_id, call.plan.codecs[call.serializer_id])
    return object_id, method, (SerializedBlob(info, kept, is_blob=True),), {}


_CLIENT = Steps(arguments={SerializedBlob: _send})
_SERVER = Steps(flags={FLAG_KEEPSERIALIZED: _keep})


@hookimpl
@steady
def pyro_bind(connection: Any) -> Steps:
    """Both sides."""
    return _SERVER if connection.side == "server" else _CLIENT
