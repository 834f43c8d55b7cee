"""The serializer ``msgpack``: fast, binary, keeps bytes.

Tuples and sets arrive as lists.  Extension types of Pyro5 carry what the format lacks:

====  ==========================  ==================================================================
code  value                       body (numbers little-endian)
====  ==========================  ==================================================================
0x30  complex                     two doubles
0x31  integer beyond 64 bit       decimal digits
0x32  datetime without time zone  a double: POSIX timestamp, understood in the local zone of each side
0x33  date                        the proleptic ordinal in 8 bytes; 4 are read as well
====  ==========================  ==================================================================

A datetime with a time zone is refused, as Pyro5 does: it would come out without.  Payloads above 64 KB are
held to the library's own nesting limit (1024 when reading, 511 when writing) instead of MAX_NESTING_DEPTH.
"""

from __future__ import annotations

import datetime
import enum
import functools
import numbers
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgpack

from pyroplug.core.errors import PyroError, SerializeError
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.types import NOT_REPLACED, too_deep
from pyroplug.core.wire import Segment, Segmented

from ._shared import (
    LARGE,
    SEGMENT_CODE,
    check_call,
    check_depth,
    failed,
    has_tags,
    max_depth,
    plain,
    plain_form,
    segment_of,
)

if TYPE_CHECKING:
    from pyroplug.core.interfaces import Buffer, Serializer
    from pyroplug.core.settings import Settings
    from pyroplug.core.types import TypeTable

__all__ = ["PLUGIN", "MsgpackSerializer", "pyro_serializers"]

PLUGIN = PluginInfo("msgpack", "serializer msgpack: fast and binary")

PACKED = frozenset({str, bytes, bytearray, int, float, bool, type(None), dict, list, tuple})
"""What the library packs without asking us."""

_TAG = b"__class__"
_UNDERSCORE = 0x5F
"""A single byte is found much faster than several; and never ask for those with "in", which makes an exception."""

_OPENERS = bytes([*range(0x80, 0xA0), *range(0xDC, 0xE0)])
"""First bytes of maps and arrays; inside texts and numbers they mean something else."""


class _MsgpackCodec:
    reads_segments = True

    def __init__(self, types: TypeTable, limit: int) -> None:
        self._types = types
        self._limit = limit
        # A packer serves one thread at a time, and making one costs more than packing a small call.
        # pop and append of a list are atomic; a packer that raised is not put back.
        self._packers: list[msgpack.Packer] = []

    def dumps(self, value: Any) -> bytes:
        try:
            packer = self._packers.pop()
        except IndexError:
            packer = msgpack.Packer(default=self._default, use_bin_type=True)
        try:
            data: bytes = packer.pack(value)
        except PyroError:
            raise
        except Exception as err:  # converters are the user's
            if isinstance(err, RecursionError) or "recursion" in str(err):
                raise too_deep(self._limit) from err
            raise failed("encode", "msgpack", err) from err
        size = len(data)
        if size <= LARGE:  # (a packer with a large buffer would keep it)
            self._packers.append(packer)
            # short data is not nested deeply, nor is what has few bytes that can open anything
            if size > self._limit and size - len(data.translate(None, _OPENERS)) > self._limit:
                check_depth(value, self._limit)  # (what converters add is held to the library's limit)
        return data

    def dumps_call(self, object_id: str, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        return self.dumps((object_id, method, args, kwargs))

    def loads(self, data: Buffer) -> Any:
        try:
            hook = _read_extension if type(data) is not Segmented else functools.partial(_read_segment, data)
            value = msgpack.unpackb(data, strict_map_key=False, ext_hook=hook)
        except Exception as err:  # the library documents that anything can come out for invalid data
            raise self._refused(err) from err
        size = len(data)
        if (  # most are: plain, and not large
            type(data) is bytes
            and (size <= self._limit or (size <= LARGE and size - len(data.translate(None, _OPENERS)) <= self._limit))
            and (_UNDERSCORE not in data or data.find(_TAG) < 0)
        ):
            return value
        return self._types.recreate(value, self._limit, inner_first=True) if self._tagged(data, value) else value

    def loads_call(self, data: Buffer) -> tuple[str, str, Sequence[Any], Mapping[str, Any]]:
        try:
            hook = _read_extension if type(data) is not Segmented else functools.partial(_read_segment, data)
            value = msgpack.unpackb(data, strict_map_key=False, ext_hook=hook)
        except Exception as err:  # as above
            raise self._refused(err) from err
        if type(value) is not list or len(value) != 4:
            raise SerializeError("invalid msgpack request: expected an array of 4")
        object_id, method, args, kwargs = value
        size = len(data)
        if not (
            type(data) is bytes
            and (size <= self._limit or (size <= LARGE and size - len(data.translate(None, _OPENERS)) <= self._limit))
            and (_UNDERSCORE not in data or data.find(_TAG) < 0)
        ) and self._tagged(data, args, kwargs):
            args = self._types.recreate(args, self._limit, inner_first=True)
            kwargs = self._types.recreate(kwargs, self._limit, inner_first=True)
        if type(object_id) is str and type(method) is str and type(args) is list and type(kwargs) is dict:
            return object_id, method, args, kwargs
        return check_call("msgpack", object_id, method, args, kwargs)

    def _tagged(self, data: Buffer, *values: Any) -> bool:
        """Whether there are class tags in what was decoded, whose depth is looked at, too."""
        size = len(data)
        if size > LARGE:
            # searching megabytes takes longer than looking at what came out
            return not all(map(plain, values)) and has_tags(data)
        if type(data) is not bytes:
            data = bytes(data)
        if size > self._limit and size - len(data.translate(None, _OPENERS)) > self._limit:
            check_depth(values, self._limit + (len(values) == 1))  # (arguments lie in one container more)
        return _UNDERSCORE in data and data.find(_TAG) >= 0

    def _refused(self, err: Exception) -> SerializeError:
        if isinstance(err, SerializeError):
            return err
        if isinstance(err, msgpack.StackError):
            return too_deep(self._limit)
        if isinstance(err, TypeError) and "unhashable" in str(err):
            return SerializeError(
                "cannot decode with msgpack: a dict has a tuple, list or dict as a key; a tuple arrives as a list, which"
                " cannot be one. Whoever sends it should use a text or number as the key, or the serializer serpent"
            )
        return failed("decode", "msgpack", err)

    def _default(self, obj: Any) -> Any:
        if type(obj) is int:
            return msgpack.ExtType(0x31, str(obj).encode("ascii"))
        if type(obj) is Segment:
            return msgpack.ExtType(SEGMENT_CODE, obj.index.to_bytes(4, "big"))
        if self._types.has_replacements:
            other = self._types.replace(obj)
            if other is not NOT_REPLACED:
                # a converter may have made something that the format knows: it packs that by itself
                return other if type(other) in PACKED else self._default_form(other)
        return self._default_form(obj)

    def _default_form(self, obj: Any) -> Any:
        form = self._types.registered(obj)
        if form is not NOT_REPLACED:
            return form
        if isinstance(obj, (set, frozenset)):  # (three of them are in each handshake)
            return tuple(obj)
        if isinstance(obj, complex):
            return msgpack.ExtType(0x30, struct.pack("<dd", obj.real, obj.imag))
        if isinstance(obj, datetime.datetime):
            if obj.tzinfo is not None:
                raise SerializeError("msgpack cannot serialize a datetime with time zone; send isoformat() or UTC")
            return msgpack.ExtType(0x32, struct.pack("<d", obj.timestamp()))
        if isinstance(obj, datetime.date):
            return msgpack.ExtType(0x33, struct.pack("<q", obj.toordinal()))
        if isinstance(obj, numbers.Integral) and not isinstance(obj, enum.Enum):
            return msgpack.ExtType(0x31, str(int(obj)).encode("ascii"))
        return plain_form(obj, self._types, "msgpack")


def _read_segment(data: Buffer, code: int, body: bytes) -> Any:
    return segment_of(data, body) if code == SEGMENT_CODE else _read_extension(code, body)


def _read_extension(code: int, body: bytes) -> Any:
    try:
        if code == 0x30:
            return complex(*struct.unpack("<dd", body))
        if code == 0x31:
            return int(body)
        if code == 0x32:
            return datetime.datetime.fromtimestamp(struct.unpack("<d", body)[0])
        if code == 0x33:
            return datetime.date.fromordinal(struct.unpack("<q" if len(body) == 8 else "<l", body)[0])
    except (ValueError, OverflowError, OSError, struct.error) as err:
        raise SerializeError(f"invalid msgpack extension 0x{code:02x}: {err}") from err
    raise SerializeError(f"invalid ext code for msgpack: {code}")


class MsgpackSerializer:
    """The format with wire id 4; made by the plugin, bound by the kernel."""

    name = "msgpack"
    wire_id = 4
    safe = True

    def bind(self, types: TypeTable, settings: Settings) -> _MsgpackCodec:
        """A codec."""
        return _MsgpackCodec(types, max_depth(settings))


@hookimpl
def pyro_serializers() -> Iterable[Serializer]:
    """The serializer msgpack."""
    return [MsgpackSerializer()]
