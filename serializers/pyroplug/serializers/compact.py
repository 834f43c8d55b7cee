"""serpent's values in a binary form, between two ends that both have this plugin: the default, as fast as msgpack.

What arrives is what serpent would have delivered, and what serpent refuses is refused: the format carries only the values
that mean the same in both, and any message with something else in it (an object, a text with lone surrogates, a key that
serpent does not take) is serpent's text as ever.  A reader tells the two by the first byte.  Old peers never see this form.

The carrier is msgpack with these additions:

=======================  ==========================================================================
value                    in msgpack
=======================  ==========================================================================
tuple, set               an array whose first item is an extension without content, of type 1 or 2
integer beyond 64 bit    extension 0x31: decimal digits
complex                  extension 0x30: two little-endian doubles
=======================  ==========================================================================
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgpack

from pyroplug.core.errors import PyroError, SerializeError
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Schema, Setting
from pyroplug.core.types import too_deep
from pyroplug.core.wire import Segment, Segmented

from ._shared import LARGE, SEGMENT_CODE, check_call, check_depth, failed, max_depth, plain, segment_of
from .serpent import SerpentSerializer

if TYPE_CHECKING:
    from pyroplug.core.interfaces import Buffer, Codec
    from pyroplug.core.kernel import Kernel
    from pyroplug.core.settings import Settings
    from pyroplug.core.types import TypeTable

__all__ = ["PLUGIN", "CompactSerializer", "pyro_configure", "pyro_extensions", "pyro_settings"]

PLUGIN = PluginInfo("compact", "serpent's values in a fast binary form, where both ends have it", requires=("serpent",))

EXTENSION = "compact"

_TUPLE_CODE, _SET_CODE, _COMPLEX_CODE, _INT_CODE = 0x01, 0x02, 0x30, 0x31
_TUPLE = msgpack.ExtType(_TUPLE_CODE, b"")
_SET = msgpack.ExtType(_SET_CODE, b"")
_MARK = b"\xc7\x00"
"""How both of these begin."""
_TEXT = 0x23
"""Serpent's texts begin with "#"; in msgpack this byte is a whole message (the number 35)."""
_OPENERS = bytes([*range(0x80, 0xA0), *range(0xDC, 0xE0)])
"""First bytes of maps and arrays; inside texts and numbers they mean something else."""

_CONTAINERS = frozenset({dict, list, tuple})
_STR = frozenset({str})
_KEYS: frozenset[type] = frozenset({str, int, bool})
_ATOMS: frozenset[type] = frozenset({*_KEYS, float, type(None)})


class _Unusual(Exception):
    """There is something in a value that serpent has to decide about."""


# --------------------------------------------------------------------------- what may take this form
def _fits(value: Any, limit: int, any_keys: bool) -> bool:
    """Whether a value has at most ``limit`` containers inside each other, and no dicts that serpent reads differently."""
    level = [value] if type(value) in _CONTAINERS else []
    for _ in range(limit):
        # one level of the tree after the other: only containers are kept
        inner: list[Any] = []
        for box in level:
            if type(box) is dict:
                if not (any_keys or _STR.issuperset(map(type, box)) or all(map(_fitting_key, box))):
                    return False
                if len(box) == 2 and box.get("encoding") == "base64":
                    return False  # would arrive as bytes
                inner += [item for item in box.values() if type(item) in _CONTAINERS]
            else:
                inner += [item for item in box if type(item) in _CONTAINERS]
        if not inner:
            return True
        level = inner
    return False


def _fitting_key(key: Any) -> bool:
    kind = type(key)
    if kind is tuple:
        return all(map(_fitting_key, key))
    return kind in _KEYS or (kind is float and not math.isnan(key))


def _instead(members: frozenset[type], value: Any) -> Any:
    """What the library writes for a value that it has no form for; ``members`` are types that sets may have in them."""
    kind = type(value)
    if kind is tuple:
        return [_TUPLE, *value]
    if kind is int:
        return msgpack.ExtType(_INT_CODE, str(value).encode("ascii"))
    if kind is set and value and members.issuperset(map(type, value)):
        return [_SET, *value]
    if kind is Segment:
        return msgpack.ExtType(SEGMENT_CODE, value.index.to_bytes(4, "big"))
    if kind is complex and not (math.isnan(value.real) or math.isnan(value.imag)):
        return msgpack.ExtType(_COMPLEX_CODE, struct.pack("<dd", value.real, value.imag))
    raise _Unusual


# --------------------------------------------------------------------------- reading
def _read_extension(code: int, body: bytes) -> Any:
    try:
        if code == _COMPLEX_CODE:
            return complex(*struct.unpack("<dd", body))
        if code == _INT_CODE:
            return int(body)
    except (ValueError, struct.error) as err:
        raise SerializeError(f"invalid compact extension 0x{code:02x}: {err}") from err
    raise SerializeError(f"invalid ext code in compact data: {code}")


class _MarkReader:
    """The hooks for one message with tuples, sets or segments in it."""

    __slots__ = ("_data", "_open")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._open = 0

    def read(self) -> Any:
        data = self._data
        value = msgpack.unpackb(data, strict_map_key=False, ext_hook=self._extension, list_hook=self._list)
        if self._open:
            raise SerializeError("invalid compact data: the mark of a tuple is not the first in an array")
        return value

    def _extension(self, code: int, body: bytes) -> Any:
        if code == SEGMENT_CODE:
            return segment_of(self._data, body)
        if body or code not in (_TUPLE_CODE, _SET_CODE):
            return _read_extension(code, body)
        self._open += 1
        return _TUPLE if code == _TUPLE_CODE else _SET

    def _list(self, items: list[Any]) -> Any:
        if items:
            first = items[0]
            if first is _TUPLE:
                self._open -= 1
                return tuple(items[1:])
            if first is _SET:
                self._open -= 1
                return set(items[1:])
        return items


def _read(data: bytes) -> Any:
    if type(data) is Segmented or (0xC7 in data and data.find(_MARK) >= 0):  # (a single byte is found much faster)
        return _MarkReader(data).read()
    return msgpack.unpackb(data, strict_map_key=False, ext_hook=_read_extension)


# --------------------------------------------------------------------------- the codec
class CompactCodec:
    """Writes what serpent would deliver unchanged; all else is left to ``portable``, serpent's codec.

    That one is also for bytes that may come into other hands than those of the connection's peer.
    """

    reads_segments = True

    def __init__(self, portable: Codec, types: TypeTable, limit: int) -> None:
        self.portable = portable
        self._types = types
        self._limit = limit
        self._any_keys = types.keeps_keys
        self._instead = functools.partial(_instead, _ATOMS if types.keeps_keys else _KEYS)
        self._packers: list[msgpack.Packer] = []  # for one thread at a time each, as in the serializer msgpack

    def dumps(self, value: Any) -> bytes:
        data = self._packed(value)
        return self.portable.dumps(value) if data is None else data

    def dumps_call(self, object_id: str, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        data = self._packed([object_id, method, [*args], kwargs])
        return self.portable.dumps_call(object_id, method, args, kwargs) if data is None else data

    def _packed(self, value: Any) -> bytes | None:
        """The value, or None if serpent has to decide about it."""
        try:
            packer = self._packers.pop()
        except IndexError:
            packer = msgpack.Packer(default=self._instead, use_bin_type=True, strict_types=True)
        try:
            data: bytes = packer.pack(value)
        except Exception:  # whatever the library raises for what it cannot write, serpent says it better
            return None
        size = len(data)
        if size <= LARGE:  # (a packer with a large buffer would keep it)
            self._packers.append(packer)
            if not (
                (size > self._limit and size - len(data.translate(None, _OPENERS)) > self._limit)
                or (0x36 in data and data.find(b"base64") >= 0)  # (the byte is the 6)
                # None, NaN and bytes can be keys here
                or (not self._any_keys and (0xC0 in data or 0xCB in data or 0xC4 in data or 0xC5 in data))
            ):
                return data
        return data if _fits(value, self._limit, self._any_keys) else None

    def loads(self, data: Buffer) -> Any:
        if len(data) > 1 and data[0] == _TEXT:
            return self.portable.loads(data)
        value, tagged = self._value(data)
        return self._types.recreate(value, self._limit + 1) if tagged else value

    def loads_call(self, data: Buffer) -> tuple[str, str, Sequence[Any], Mapping[str, Any]]:
        if len(data) > 1 and data[0] == _TEXT:
            return self.portable.loads_call(data)
        value, tagged = self._value(data)
        if type(value) is not list or len(value) != 4:
            raise SerializeError("invalid compact request: expected an array of 4")
        object_id, method, args, kwargs = value
        if tagged:
            args = self._types.recreate(args, self._limit + 1)
            kwargs = self._types.recreate(kwargs, self._limit + 1)
        if type(object_id) is str and type(method) is str and type(args) is list and type(kwargs) is dict:
            return object_id, method, args, kwargs
        return check_call("compact", object_id, method, args, kwargs)

    def _value(self, data: Buffer) -> tuple[Any, bool]:
        """The decoded value, and whether there are class tags in it."""
        if not isinstance(data, bytes):
            data = bytes(data)
        try:
            value = _read(data)
        except Exception as err:  # the library documents that anything can come out for invalid data
            if isinstance(err, PyroError):
                raise
            if isinstance(err, msgpack.StackError):
                raise too_deep(self._limit) from err
            raise failed("decode", "compact", err) from err
        size = len(data)
        if size > self._limit and size <= LARGE and size - len(data.translate(None, _OPENERS)) > self._limit:
            check_depth(value, self._limit)
        if size > LARGE and plain(value):  # searching megabytes takes longer than looking at what came out
            return value, False
        return value, 0x5F in data and data.find(b"__class__") >= 0


class CompactSerializer:
    """The form that takes serpent's place (and wire id) on a connection."""

    name = "serpent"
    wire_id = SerpentSerializer.wire_id
    safe = True
    portable = SerpentSerializer()

    def bind(self, types: TypeTable, settings: Settings) -> CompactCodec:
        """A codec, with serpent's for what does not fit."""
        return CompactCodec(self.portable.bind(types, settings), types, max_depth(settings))


# --------------------------------------------------------------------------- hooks
@hookimpl
def pyro_settings(schema: Schema) -> None:
    """COMPACT."""
    schema.add(
        Setting(
            "COMPACT",
            bool,
            True,
            "serpent's values travel in a fast binary form where both ends can do that (never with SERPENT_BYTES_REPR,"
            " or without SERPENT_BYTES_DECODE)",
            owner="compact",
        )
    )


@hookimpl
def pyro_configure(kernel: Kernel) -> None:
    """In place of serpent, where both ends have it."""
    kernel.successors[EXTENSION] = CompactSerializer()


@hookimpl
def pyro_extensions(kernel: Kernel) -> Iterable[str]:
    """What old peers do not have; not with settings under which serpent itself delivers something else."""
    settings = kernel.settings
    fitting = settings.COMPACT and settings.SERPENT_BYTES_DECODE and not settings.SERPENT_BYTES_REPR
    return [EXTENSION] if fitting else []
