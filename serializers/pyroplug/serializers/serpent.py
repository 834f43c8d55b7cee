r"""The serializer ``serpent``: values as a Python literal, readable by eye; the default.

What is written is what the library ``serpent`` writes (the tests compare every byte), by code that is made
for messages: one table of types instead of a search for each value, nothing global, and the garbage
collector is left alone.  What is read is the same literals, with a reader of our own: it never builds a
syntax tree, its work is proportional to the length of the text, and depth is a number it counts.

=====================================  ================================================================
value                                  arrives as
=====================================  ================================================================
str, int, float, complex, bool, None   itself, NaN and infinities too; subclasses as their base
tuple, list, dict, set                 itself; an empty set as ``()``, a frozenset as a set
bytes, bytearray, memoryview           bytes (SERPENT_BYTES_DECODE), as ``{'data':.., 'encoding':..}`` at Pyro's
UUID, Decimal, datetime, date, time    text; timedelta as seconds
array, deque, UserList, dict views     list (array of ``u``: text)
Enum                                   its value
OrderedDict                            itself (Pyro's receivers refuse it)
=====================================  ================================================================

Keys of dicts and members of sets have to be texts, numbers, booleans, enums, or tuples of these.
"""

from __future__ import annotations

import array
import ast
import binascii
import collections
import datetime
import enum
import math
import numbers
import re
from collections.abc import Callable, ItemsView, Iterable, KeysView, Mapping, Sequence, ValuesView
from typing import TYPE_CHECKING, Any

from pyroplug.core.errors import PyroError, SerializeError
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Schema, Setting
from pyroplug.core.types import NOT_REPLACED, too_deep

from ._shared import LARGE, check_call, failed, max_depth

if TYPE_CHECKING:
    from pyroplug.core.interfaces import Buffer, Serializer
    from pyroplug.core.settings import Settings
    from pyroplug.core.types import TypeTable

__all__ = ["PLUGIN", "SerpentSerializer", "pyro_serializers", "pyro_settings"]

PLUGIN = PluginInfo("serpent", "serializer serpent: Python literals, the default")

HEADER = "# serpent utf-8 python3.2\n"


# --------------------------------------------------------------------------- writing
def _float(value: float) -> str:
    text = float.__repr__(value)
    if text[-1] in "fn":  # inf, -inf, nan: there are no such literals
        if math.isnan(value):
            return "{'__class__':'float','value':'nan'}"
        return "1e30000" if value > 0 else "-1e30000"
    return text


def _complex(value: complex) -> str:
    real, imag = _float(value.real), _float(value.imag)
    if math.isnan(value.real) or math.isnan(value.imag):
        return f"{{'__class__':'complex','real':{real},'imag':{imag}}}"
    return f"({real}{'' if imag[0] == '-' else '+'}{imag}j)"


def _base64(value: bytes | bytearray | memoryview) -> str:
    # with blanks, which the library has from printing a dict here
    return f"{{'data': '{binascii.b2a_base64(value, newline=False).decode('ascii')}', 'encoding': 'base64'}}"


_REPR: Mapping[type, Callable[[Any], str]] = {str: repr, int: repr, bool: repr, type(None): repr, float: _float}

# How the standard library's classes are written, by inheritance order.
_BASES: Mapping[type, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    complex: complex,
    bytes: bytes,
    bytearray: bytes,
    tuple: tuple,
    list: list,
    dict: dict,
    set: set,
    frozenset: set,
    datetime.datetime: datetime.datetime.isoformat,
    datetime.date: datetime.date.isoformat,
    datetime.timedelta: datetime.timedelta.total_seconds,
    datetime.time: str,
    array.array: lambda value: value.tounicode() if value.typecode in "uw" else value.tolist(),
}
# The same by name, for modules that are slow to import.
_NAMED: Mapping[tuple[str, str], Callable[[Any], Any]] = {("decimal", "Decimal"): str, ("uuid", "UUID"): str}
_EXACT: Mapping[type, Callable[[Any], Any]] = {
    collections.deque: list,
    collections.UserList: list,
    collections.UserDict: dict,
    collections.UserString: str,
}


class _Writer:
    """Makes the text for one codec; keeps nothing between values, so threads may share it."""

    __slots__ = ("_bytes", "_bytes_repr", "_limit", "_types")

    def __init__(self, types: TypeTable, limit: int, bytes_repr: bool) -> None:
        self._types = types
        self._limit = limit
        self._bytes_repr = bytes_repr
        self._bytes: Callable[[Any], str] = (lambda value: repr(bytes(value))) if bytes_repr else _base64

    def text(self, value: Any, left: int) -> str:
        """The literal for a value inside which ``left`` more levels may be opened."""
        kind = type(value)
        simple = _REPR.get(kind)
        if simple is not None:
            return simple(value)
        if kind is bytes or kind is bytearray or kind is memoryview:
            return self._bytes(value)
        if kind is complex:
            return _complex(value)
        if left <= 0:
            raise too_deep(self._limit)
        if kind is dict:
            return self._dict(value, left - 1)
        if kind is list:
            return f"[{self._items(value, left - 1)}]"
        if kind is tuple:
            return f"({self._items(value, left - 1)}{',' if len(value) == 1 else ''})"
        if kind is set or kind is frozenset:
            if (kind is frozenset or not value) and self._types.has_replacements:  # these would not arrive as they are
                other = self._types.replace(value)
                if other is not NOT_REPLACED:
                    return self._replaced(other, left)
            return self._set(value, left - 1)
        return self._other(value, left)

    def _items(self, items: Iterable[Any], left: int) -> str:
        parts: list[str] = []
        append = parts.append
        for item in items:
            simple = _REPR.get(type(item))
            append(simple(item) if simple is not None else self.text(item, left))
        return ",".join(parts)

    def _dict(self, value: Mapping[Any, Any], left: int) -> str:
        parts: list[str] = []
        append = parts.append
        for key, item in value.items():
            name = repr(key) if type(key) is str else self._key(key, left)
            simple = _REPR.get(type(item))
            append(f"{name}:{simple(item) if simple is not None else self.text(item, left)}")
        return f"{{{','.join(parts)}}}"

    def _set(self, value: Iterable[Any], left: int) -> str:
        # there is no literal for an empty set
        return f"{{{','.join([self._key(item, left) for item in value])}}}" if value else "()"

    def _key(self, key: Any, left: int) -> str:
        kind = type(key)
        if kind is bytes and not self._bytes_repr:
            raise SerializeError(
                "serpent cannot have bytes as a key of a dict or in a set, unless SERPENT_BYTES_REPR is on"
            )
        if kind in (bool, bytes, str, tuple) or issubclass(kind, (numbers.Number, enum.Enum, str)):
            return self.text(key, left)
        raise SerializeError(
            f"one of the keys in a dict or set is not of a primitive hashable type: {kind};"
            " use simple types there, or a list or tuple as container"
        )

    def _other(self, value: Any, left: int) -> str:
        types = self._types
        if types.has_replacements:
            other = types.replace(value)
            if other is not NOT_REPLACED and other is not value:
                return self._replaced(other, left)
        kind = type(value)
        exact = _EXACT.get(kind)
        if exact is not None:
            return self.text(exact(value), left)
        if isinstance(value, (KeysView, ValuesView, ItemsView)):
            return f"[{self._items(value, left - 1)}]"
        if isinstance(value, collections.OrderedDict):
            items = self._items(list(value.items()), left - 2)
            return f"{{'__class__':'collections.OrderedDict','items':[{items}]}}"
        if isinstance(value, enum.Enum):
            return self.text(value.value, left)
        form = types.registered(value)
        if form is not NOT_REPLACED:
            return self._form(form, left)
        for base in kind.__mro__:
            write = _BASES.get(base) or _NAMED.get((base.__module__, base.__qualname__))
            if write is not None:
                return self.text(write(value), left)
        return self._form(types.default_form(value, "serpent"), left)

    def _replaced(self, other: Any, left: int) -> str:
        kind = type(other)
        if kind in _REPR or kind in _BASES or (kind.__module__, kind.__qualname__) in _NAMED:
            return self.text(other, left)
        form = self._types.registered(other)
        return self._form(self._types.default_form(other, "serpent") if form is NOT_REPLACED else form, left)

    def _form(self, form: Any, left: int) -> str:
        # a form that is no dict counts as a level of its own: it may be what the converter was given
        return self._dict(form, left - 1) if isinstance(form, dict) else self.text(form, left - 1)


# --------------------------------------------------------------------------- reading
# Everything but white space belongs to a token, so that findall() cannot skip anything.  The last two
# alternatives swallow what has no end up to the end of the text: without them a text of opened strings would
# be searched again from each.
_TOKEN = re.compile(
    r"""[,:()\[\]{}]|'[^'\\]*'|b?'[^'\\]*(?:\\.[^'\\]*)*'|b?"[^"\\]*(?:\\.[^"\\]*)*"|[^\s'",:()\[\]{}#]+|['"#].*""",
    re.DOTALL,
)
_QUOTE = re.compile("['\"]")
_STRING = re.compile(r"""'[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*\"""", re.DOTALL)
# (each part can match in one way only, or long rows of digits would be tried again and again)
_PART = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_COMPLEX = re.compile(rf"(?:(?P<real>[+-]?{_PART})(?=[+-]))?(?P<imag>[+-]?{_PART})[jJ]")
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_ESCAPES: Mapping[str, str] = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"'}
_NAMES: Mapping[str, Any] = {"None": None, "True": True, "False": False}
_QUOTES = frozenset("'\"")
_STARTS = frozenset("([{")
_CLOSERS: Mapping[str, str] = {")": "(", "]": "[", "}": "{"}
_DIGITS = frozenset("0123456789")
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_COMMENT = re.compile(r"\s*#[^\n]*\n?")


def _bad(token: str) -> SerializeError:
    shown = token if len(token) <= 40 else token[:40] + "..."
    return SerializeError(f"invalid serpent data at {shown!r}")


def _unescape(match: re.Match[str]) -> str:
    code = match[1]
    plain = _ESCAPES.get(code)
    if plain is not None:
        return plain
    if len(code) == 1:
        raise ValueError(code)  # octal, named and unknown escapes, which nobody writes: the slow way
    return chr(int(code[1:], 16))


def _string(token: str) -> str:
    if "\\" not in token:
        if len(token) < 2 or token[-1] != token[0]:
            raise _bad(token)
        return token[1:-1]
    if not _STRING.fullmatch(token):
        raise _bad(token)
    try:
        return _ESCAPE.sub(_unescape, token[1:-1])
    except ValueError:
        return str(_literal(token))


def _literal(token: str) -> Any:
    # one string or bytes literal: no depth, no names
    try:
        return ast.literal_eval(token)
    except (ValueError, SyntaxError) as err:
        raise _bad(token) from err


def _atom(token: str) -> Any:
    """The value of a token that is neither punctuation nor a string without prefix."""
    last = token[-1]
    if last in _DIGITS:
        # int() and float() take more than Python's literals: other scripts' digits, underscores
        if not token.isascii() or "_" in token or token[0] in _LETTERS:
            raise _bad(token)
        try:
            # (a ValueError for too many digits, see sys.set_int_max_str_digits, is reported by the caller)
            return float(token) if "." in token or "e" in token or "E" in token else int(token)
        except ValueError as err:
            if token.lstrip("+-").isdecimal():
                raise
            raise _bad(token) from err
    if token in _NAMES:
        return _NAMES[token]
    if token[0] == "b" and last in "'\"":
        return _literal(token)
    match = _COMPLEX.fullmatch(token)
    if match is not None:
        # (not added up as Python's literals are, which loses the sign of zeros)
        return complex(float(match["real"] or 0), float(match["imag"]))
    if last == "." and token[:-1].lstrip("+-").isdecimal() and token.isascii():
        return float(token)
    raise _bad(token)


def _bytes_or(value: dict[Any, Any]) -> Any:
    """The bytes that a dict of two items stands for, or the dict."""
    if value.get("encoding") == "base64" and isinstance(value.get("data"), str):
        try:
            return binascii.a2b_base64(value["data"])
        except ValueError:
            pass
    return value


def _is_leaf(value: Any) -> bool:
    """Whether the brackets around a value are only the way that serpent writes something simple."""
    if isinstance(value, dict):
        return value.get("__class__") in ("float", "complex") or value.get("encoding") == "base64"
    return not isinstance(value, (list, tuple, set))


def _close(token: str, kind: str, box: list[Any], commas: int) -> Any:
    """The container of the given kind that ends at ``token``."""
    if _CLOSERS[token] != kind[:1] and not (kind == ":" and token == "}"):
        raise _bad(token)
    if commas and not box:
        raise _bad(token)
    if kind == "[":
        return box
    if kind == "(":
        # parentheses around one value without a comma mean nothing (complex numbers have them)
        return tuple(box) if commas or not box else box[0]
    if kind == "{":
        return set(box) if box else {}
    if len(box) & 1:
        raise _bad(token)
    return dict(zip(box[::2], box[1::2], strict=True))


def _tokens(text: str, start: int) -> list[str]:
    """The tokens of a text from ``start`` on."""
    # few and long strings (bytes are such): their ends are found ten times as fast without the pattern
    if len(text) < LARGE or (text.count("'") + text.count('"')) * LARGE // 64 > len(text) or "\\" in text:
        return _TOKEN.findall(text, start)
    tokens: list[str] = []
    position = start
    while (quote := _QUOTE.search(text, position)) is not None:
        begin = quote.start()
        end = text.find(quote[0], begin + 1) + 1
        if not end or text[begin - 1 : begin] == "b":  # it has no end, or is a literal of bytes
            return _TOKEN.findall(text, start)
        tokens += _TOKEN.findall(text, position, begin)
        tokens.append(text[begin:end])
        position = end
    return tokens + _TOKEN.findall(text, position)


def read(text: str, limit: int, bytes_decode: bool) -> Any:
    """The value of a literal; containers may be ``limit`` deep.

    One pass without recursion.  ``box`` collects the items of the innermost open container (keys and values of
    a dict in turn) and ``stack`` those around it.  ``done`` says that an item is complete, so that a separator
    or the end has to follow; ``kind`` is the opening bracket, with ``:`` for a brace once it is known to be a
    dict, and ``commas`` whether there was a comma, which makes a parenthesis a tuple.

    :raises SerializeError: anything that is no literal of the kinds that serpent writes
    """
    start = _COMMENT.match(text)
    stack: list[tuple[str, list[Any], int]] = []
    box: list[Any] = []
    kind, commas, done = "", 0, False
    for token in _tokens(text, start.end() if start else 0):
        if token == ",":
            if not done or (kind == ":" and len(box) & 1) or not kind:
                raise _bad(token)
            commas += 1
            done = False
            continue
        if token == ":":
            if not done or not len(box) & 1 or (kind != ":" and (kind != "{" or commas)):
                raise _bad(token)
            kind, done = ":", False
            continue
        first = token[0]
        if first in _CLOSERS:
            value = _close(first, kind, box, commas)
            if len(stack) > limit and not _is_leaf(value):
                raise too_deep(limit)
            if bytes_decode and kind == ":" and len(value) == 2 and "encoding" in value:
                value = _bytes_or(value)
            kind, box, commas = stack.pop()
            box.append(value)
            done = True
        elif done:
            raise _bad(token)
        elif first in _STARTS:
            stack.append((kind, box, commas))
            if len(stack) > limit + 1:
                raise too_deep(limit)
            kind, box, commas = first, [], 0
        else:
            if first not in _QUOTES:
                box.append(_atom(token))
            elif "\\" not in token and len(token) > 1 and token[-1] == first:
                box.append(token[1:-1])
            else:
                box.append(_string(token))
            done = True
    if stack or len(box) != 1:
        raise SerializeError("invalid serpent data: it ends too early" if text else "invalid serpent data: it is empty")
    return box[0]


# --------------------------------------------------------------------------- the codec
class _SerpentCodec:
    def __init__(self, types: TypeTable, limit: int, bytes_repr: bool, bytes_decode: bool) -> None:
        self._types = types
        self._limit = limit
        self._write = _Writer(types, limit, bytes_repr).text
        self._bytes_decode = bytes_decode

    def dumps(self, value: Any) -> bytes:
        try:
            return (HEADER + self._write(value, self._limit)).encode("utf-8")
        except PyroError:
            raise
        except RecursionError as err:
            raise too_deep(self._limit) from err
        except Exception as err:  # converters are the user's
            raise failed("encode", "serpent", err) from err

    def dumps_call(self, object_id: str, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        return self.dumps((object_id, method, args, kwargs))

    def loads(self, data: Buffer) -> Any:
        value, tagged = self._read(data)
        return self._types.recreate(value, self._limit + 1) if tagged else value

    def loads_call(self, data: Buffer) -> tuple[str, str, Sequence[Any], Mapping[str, Any]]:
        value, tagged = self._read(data)
        if type(value) not in (tuple, list) or len(value) != 4:
            raise SerializeError("invalid serpent request: expected a tuple of 4")
        object_id, method, args, kwargs = value
        if tagged:
            args = self._types.recreate(args, self._limit + 1)
            kwargs = self._types.recreate(kwargs, self._limit + 1)
        return check_call("serpent", object_id, method, args, kwargs)

    def _read(self, data: Buffer) -> tuple[Any, bool]:
        try:
            text = str(data, "utf-8")
            if "\x00" in text:
                raise SerializeError("invalid serpent data: it has NUL characters")
            return read(text, self._limit, self._bytes_decode), "__class__" in text
        except PyroError:
            raise
        except (ValueError, TypeError, OverflowError, MemoryError) as err:
            raise failed("decode", "serpent", err) from err


class SerpentSerializer:
    """The format with wire id 1; made by the plugin, bound by the kernel."""

    name = "serpent"
    wire_id = 1
    safe = True

    def bind(self, types: TypeTable, settings: Settings) -> _SerpentCodec:
        """A codec that follows SERPENT_BYTES_REPR and SERPENT_BYTES_DECODE."""
        return _SerpentCodec(
            types,
            max_depth(settings),
            bool(getattr(settings, "SERPENT_BYTES_REPR", False)),
            bool(getattr(settings, "SERPENT_BYTES_DECODE", True)),
        )


@hookimpl
def pyro_settings(schema: Schema) -> None:
    """SERPENT_BYTES_REPR and SERPENT_BYTES_DECODE."""
    schema.add(
        Setting(
            "SERPENT_BYTES_REPR",
            bool,
            False,
            "serpent writes bytes as a bytes literal instead of a dict with base64 text",
            "serpent",
        )
    )
    schema.add(
        Setting(
            "SERPENT_BYTES_DECODE",
            bool,
            True,
            "serpent turns dicts {'data': <base64>, 'encoding': 'base64'} into bytes on arrival (Pyro leaves them;"
            " serpent.tobytes() takes both)",
            "serpent",
        )
    )


@hookimpl
def pyro_serializers() -> Iterable[Serializer]:
    """The serializer serpent."""
    return [SerpentSerializer()]
