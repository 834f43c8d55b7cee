"""What the serializer plugins have in common; not a plugin itself."""

from __future__ import annotations

import array
import datetime
import enum
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from pyroplug.core.errors import SerializeError
from pyroplug.core.types import DEFAULT_DEPTH, NOT_REPLACED, too_deep
from pyroplug.core.wire import Segmented

if TYPE_CHECKING:
    from pyroplug.core.interfaces import Buffer
    from pyroplug.core.settings import Settings
    from pyroplug.core.types import TypeTable

__all__ = [
    "SEGMENT_CODE",
    "check_call",
    "check_depth",
    "failed",
    "has_tags",
    "max_depth",
    "plain",
    "plain_form",
    "segment_of",
]

LARGE = 65536
"""Payloads above this many bytes are treated differently where looking at each byte would be noticed."""

SEGMENT_CODE = 0x7E
"""The type of msgpack's extensions that stand for a segment."""

_CHUNK = 65536
_TAG = b"__class__"
_ATOMS = frozenset({str, bytes, bytearray, int, float, bool, complex, type(None)})
_CONTAINERS = frozenset({dict, list, tuple, set, frozenset})
_AS_TEXT = frozenset({("uuid", "UUID"), ("decimal", "Decimal")})
"""By name: these modules are slow to import, and most programs never need them."""

Request = tuple[str, str, "Sequence[Any]", "Mapping[str, Any]"]


def segment_of(data: Buffer, body: bytes) -> Buffer:
    """The segment that an extension of type :data:`SEGMENT_CODE` stands for: its body is the number of it."""
    if isinstance(data, Segmented):
        number = int.from_bytes(body, "big")
        if number < len(data.segments):
            return data.segments[number]
    raise SerializeError("a segment that is not there")


def max_depth(settings: Settings) -> int:
    """How many containers may be open at once: the kernel's setting MAX_NESTING_DEPTH."""
    return cast(int, getattr(settings, "MAX_NESTING_DEPTH", DEFAULT_DEPTH))


def failed(doing: str, serializer: str, err: BaseException) -> SerializeError:
    """The error to raise for one of a library (or of a user's converter)."""
    try:
        text = str(err)
    except Exception:
        text = ""
    return SerializeError(f"cannot {doing} with {serializer}: {type(err).__name__}: {text}")


def check_call(serializer: str, object_id: object, method: object, args: object, kwargs: object) -> Request:
    """The four parts of a request, when each is what it must be; null keyword arguments become empty ones."""
    if kwargs is None:
        kwargs = {}
    if (
        isinstance(object_id, str)
        and isinstance(method, str)
        and isinstance(args, (list, tuple))
        and isinstance(kwargs, dict)
    ):
        return object_id, method, cast("Sequence[Any]", args), cast("Mapping[str, Any]", kwargs)
    raise SerializeError(
        f"invalid {serializer} request: expected object id, method name, list of arguments and dict of keyword"
        f" arguments, got {', '.join(type(part).__name__ for part in (object_id, method, args, kwargs))}"
    )


def has_tags(data: Buffer) -> bool:
    """Whether the bytes contain a class tag, so that the decoded value has to be walked."""
    if not isinstance(data, memoryview):
        # a single byte is found much faster than "in" finds several
        return 0x5F in data and data.find(_TAG) >= 0
    # a memoryview cannot be searched; in pieces, so that no second copy of everything exists
    data = data.cast("B")
    step = _CHUNK - len(_TAG)
    return any(bytes(data[start : start + _CHUNK]).find(_TAG) >= 0 for start in range(0, len(data), step))


def plain(value: Any) -> bool:
    """Whether a decoded value is small in structure and has nothing in it that needs converting."""
    kind = type(value)
    if kind in _ATOMS:
        return True
    if kind is dict:
        return len(value) <= 64 and "__class__" not in value and _ATOMS.issuperset(map(type, value.values()))
    return kind in (list, tuple) and len(value) <= 64 and _ATOMS.issuperset(map(type, value))


def check_depth(value: Any, limit: int) -> None:
    """Raise SerializeError when more than ``limit`` containers lie inside each other; does not recurse."""
    if type(value) not in _CONTAINERS:
        return
    level: list[Any] = [value]
    for _ in range(limit):
        # one level of the tree after the other: only containers are kept
        level = [
            item
            for box in level
            for item in (box.values() if type(box) is dict else box)
            if type(item) in _CONTAINERS and item
        ]
        if not level:
            return
    raise too_deep(limit)


def plain_form(obj: Any, types: TypeTable, serializer: str) -> Any:
    """What is written for an object that the format has no way for: for json, msgpack and marshal alike.

    After replacements and registered converters come the few classes of the standard library that every
    serializer of Pyro turns into text or lists; the rest is up to the table of types.
    """
    if serializer != "marshal" and types.has_replacements:
        other = types.replace(obj)
        if other is not NOT_REPLACED:
            if type(other) in _ATOMS or type(other) in _CONTAINERS:
                return other
            obj = other
    form = types.registered(obj)
    if form is not NOT_REPLACED:
        return form
    if isinstance(obj, (set, frozenset)):
        return tuple(obj)
    if any((base.__module__, base.__qualname__) in _AS_TEXT for base in type(obj).__mro__):
        return str(obj)
    if isinstance(obj, (datetime.datetime, datetime.date)):
        return obj.isoformat()
    if isinstance(obj, array.array):
        return obj.tounicode() if obj.typecode in "uw" else obj.tolist()
    if isinstance(obj, enum.Enum):
        return obj.value
    return types.default_form(obj, serializer)
