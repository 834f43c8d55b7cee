"""How the types of the standard library travel where both sides keep types.

A :class:`Form` turns objects of one type into a dict of plain data, and such a dict back.  Nothing that a peer
sends is believed: a wrong part is an error, which :class:`~pyroplug.core.types.TypeTable` reports as one of the value.
"""

from __future__ import annotations

import array
import binascii
import collections
import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    import datetime
    import pathlib

__all__ = ["BYTES", "DICT", "LATER", "STANDARD", "TUPLE", "Form", "Pack", "bytes_of", "forms_of"]


class Pack(Protocol):
    """What a form needs to make data of the parts of an object."""

    def value(self, part: Any, /) -> Any:
        """A part of any type."""
        ...

    def key(self, part: Any, /) -> Any:
        """A part that must be hashable where it arrives."""
        ...

    def data(self, data: bytes | bytearray | memoryview, /) -> Any:
        """Bytes; :func:`bytes_of` undoes it."""
        ...


class Form(NamedTuple):
    """How objects of one type travel.

    ``sample`` is an object that tells whether a serializer can do without the form.
    """

    tag: str
    pack: Callable[[Any, Pack], dict[str, Any]]
    unpack: Callable[[dict[str, Any]], Any]
    sample: Any = None


def bytes_of(part: Any) -> bytes:
    """The bytes that :meth:`Pack.data` was given, whatever the serializer made of them."""
    if isinstance(part, dict) and part.get("encoding") == "base64":
        part = part.get("data")  # serpent, with SERPENT_BYTES_DECODE off
    if isinstance(part, str):
        return binascii.a2b_base64(part)
    if isinstance(part, (bytes, bytearray, memoryview)):
        return bytes(part)
    raise TypeError(f"expected bytes, not {type(part).__name__}")


def _list(part: Any) -> list[Any]:
    if not isinstance(part, (list, tuple)):
        raise TypeError(f"expected a list, not {type(part).__name__}")
    return list(part)


def _text(part: Any) -> str:
    if not isinstance(part, str):
        raise TypeError(f"expected a text, not {type(part).__name__}")
    return part


def _whole(part: Any) -> int:
    if type(part) is not int:
        raise TypeError(f"expected a whole number, not {type(part).__name__}")
    return part


# --------------------------------------------------------------------------- containers
def _items_form(tag: str, cls: Callable[[list[Any]], Any], sample: Any) -> Form:
    def pack(value: Iterable[Any], pack: Pack) -> dict[str, Any]:
        return {"items": [pack.key(item) for item in value]}

    return Form(tag, pack, lambda data: cls(_list(data["items"])), sample)


def _pack_pairs(value: Mapping[Any, Any], pack: Pack) -> dict[str, Any]:
    return {"items": [[pack.key(key), pack.value(item)] for key, item in value.items()]}


def _pairs(data: dict[str, Any]) -> list[tuple[Any, Any]]:
    return [(key, value) for key, value in map(_list, _list(data["items"]))]


def _pack_deque(value: collections.deque[Any], pack: Pack) -> dict[str, Any]:
    return {"items": [pack.value(item) for item in value], "maxlen": value.maxlen}


def _unpack_deque(data: dict[str, Any]) -> collections.deque[Any]:
    maxlen = data["maxlen"]
    return collections.deque(_list(data["items"]), None if maxlen is None else _whole(maxlen))


# --------------------------------------------------------------------------- dates and times
def _zone(tzinfo: datetime.tzinfo | None) -> str | None:
    # whoever has such a zone has imported the module
    zoneinfo: Any = sys.modules.get("zoneinfo")
    if zoneinfo is None or not isinstance(tzinfo, zoneinfo.ZoneInfo):
        return None
    key: str | None = getattr(tzinfo, "key", None)
    return key


def _pack_time(value: datetime.datetime | datetime.time, pack: Pack) -> dict[str, Any]:
    data: dict[str, Any] = {"iso": value.isoformat()}
    zone = _zone(value.tzinfo)
    if zone is not None:
        data["zone"] = zone
    if value.fold:
        data["fold"] = 1
    return data


def _unpack_time(cls: Any) -> Callable[[dict[str, Any]], Any]:
    def unpack(data: dict[str, Any]) -> Any:
        value = cls.fromisoformat(_text(data["iso"]))
        if data.get("fold"):
            value = value.replace(fold=1)
        if "zone" in data:
            import zoneinfo

            try:
                value = value.replace(tzinfo=zoneinfo.ZoneInfo(_text(data["zone"])))
            except (KeyError, ValueError, OSError):
                return value  # no such zone is known here: the offset that it had then
        return value

    return unpack


def _pack_span(value: datetime.timedelta, pack: Pack) -> dict[str, Any]:
    return {"days": value.days, "seconds": value.seconds, "microseconds": value.microseconds}


def _unpack_span(cls: type[datetime.timedelta]) -> Callable[[dict[str, Any]], Any]:
    return lambda data: cls(_whole(data["days"]), _whole(data["seconds"]), _whole(data["microseconds"]))


def _of_datetime(module: Any) -> dict[type, Form]:
    return {
        module.datetime: Form("+datetime", _pack_time, _unpack_time(module.datetime), module.datetime(2000, 1, 1)),
        module.date: Form(
            "+date",
            lambda value, pack: {"iso": value.isoformat()},
            lambda data: module.date.fromisoformat(_text(data["iso"])),
            module.date(2000, 1, 1),
        ),
        module.time: Form("+time", _pack_time, _unpack_time(module.time), module.time(1)),
        module.timedelta: Form("+timedelta", _pack_span, _unpack_span(module.timedelta), module.timedelta(1)),
    }


# --------------------------------------------------------------------------- arrays of the standard library
_SAME_KIND: Mapping[str, str] = {"b": "bhilq", "B": "BHILQ", "f": "fd"}


def _pack_array(value: array.array[Any], pack: Pack) -> dict[str, Any]:
    if value.typecode in "uw":
        return {"typecode": "u", "text": value.tounicode()}
    if sys.byteorder == "big":
        value = array.array(value.typecode, value)
        value.byteswap()
    kind = next(kind for kind, codes in _SAME_KIND.items() if value.typecode in codes)
    data = pack.data(memoryview(value).cast("B")) if value else pack.data(b"")
    return {"typecode": value.typecode, "kind": kind, "itemsize": value.itemsize, "data": data}


def _unpack_array(data: dict[str, Any]) -> array.array[Any]:
    code = _text(data["typecode"])
    if code == "u":
        return array.array("w" if sys.version_info >= (3, 13) else "u", _text(data["text"]))
    itemsize, codes = _whole(data["itemsize"]), _SAME_KIND[_text(data["kind"])]
    if len(code) != 1 or code not in codes:
        raise ValueError(f"invalid typecode {code!r}")
    # a long has 4 bytes on some systems and 8 on others
    fitting = [known for known in (code, *codes) if array.array(known).itemsize == itemsize]
    made: array.array[Any] = array.array(fitting[0])
    made.frombytes(bytes_of(data["data"]))
    if sys.byteorder == "big":
        made.byteswap()
    return made


# --------------------------------------------------------------------------- paths
def _of_pathlib(module: Any) -> dict[type, Form]:
    def pack(value: pathlib.PurePath, pack: Pack) -> dict[str, Any]:
        windows = isinstance(value, module.PureWindowsPath)
        return {"path": str(value), "windows": windows, "pure": not isinstance(value, module.Path)}

    def unpack(data: dict[str, Any]) -> Any:
        path, windows = _text(data["path"]), bool(data["windows"])
        if not data["pure"] and windows == (sys.platform == "win32"):
            return module.Path(path)
        return module.PureWindowsPath(path) if windows else module.PurePosixPath(path)

    return {module.PurePath: Form("+path", pack, unpack, module.PurePosixPath("x"))}


# --------------------------------------------------------------------------- the list
def _by_text(tag: str, cls: Callable[[str], Any], sample: Any) -> Form:
    return Form(tag, lambda value, pack: {"text": str(value)}, lambda data: cls(_text(data["text"])), sample)


def _of_decimal(module: Any) -> dict[type, Form]:
    return {module.Decimal: _by_text("+decimal", module.Decimal, module.Decimal(1))}


def _of_fractions(module: Any) -> dict[type, Form]:
    def unpack(data: dict[str, Any]) -> Any:
        return module.Fraction(_whole(data["over"]), _whole(data["under"]))

    form = Form(
        "+fraction",
        lambda value, pack: {"over": value.numerator, "under": value.denominator},
        unpack,
        module.Fraction(1, 2),
    )
    return {module.Fraction: form}


def _of_uuid(module: Any) -> dict[type, Form]:
    return {module.UUID: _by_text("+uuid", module.UUID, module.UUID(int=1))}


BYTES = Form("+bytes", lambda value, pack: {"data": pack.data(value)}, lambda data: bytes_of(data["data"]), b"x")
DICT = Form("+dict", _pack_pairs, lambda data: dict(_pairs(data)))
TUPLE = _items_form("+tuple", tuple, (1,))

STANDARD: Mapping[type, Form] = {
    set: _items_form("+set", set, {1}),
    frozenset: _items_form("+frozenset", frozenset, frozenset({1})),
    collections.deque: Form("+deque", _pack_deque, _unpack_deque, collections.deque([1])),
    collections.OrderedDict: Form(
        "+odict",
        _pack_pairs,
        lambda data: collections.OrderedDict(_pairs(data)),
        collections.OrderedDict(a=1),
    ),
    complex: Form(
        "+complex",
        lambda value, pack: {"real": value.real, "imag": value.imag},
        lambda data: complex(float(data["real"]), float(data["imag"])),
        1j,
    ),
    array.array: Form("+array", _pack_array, _unpack_array, array.array("b", [1])),
}
"""By type; subclasses travel as the nearest of these, or of those in :data:`LATER`."""

LATER: Mapping[str, tuple[Callable[[Any], dict[type, Form]], tuple[str, ...]]] = {
    "datetime": (_of_datetime, ("+datetime", "+date", "+time", "+timedelta")),
    "decimal": (_of_decimal, ("+decimal",)),
    "fractions": (_of_fractions, ("+fraction",)),
    "pathlib": (_of_pathlib, ("+path",)),
    "uuid": (_of_uuid, ("+uuid",)),
}
"""By module, how forms are made and what their tags are: these modules take long to import.  Whoever sends something of
them has imported them, and for whoever gets something it is early enough then."""


def forms_of(name: str) -> dict[type, Form]:
    """The forms of a module of :data:`LATER`, by type."""
    return LATER[name][0](importlib.import_module(name))
