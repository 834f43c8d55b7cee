"""The serializer ``json``: few types, read by every language.

Tuples and sets arrive as lists, keys of dicts as text, UUIDs, decimals, dates and enums as their text or
value.  Bytes and complex numbers are refused where they are sent: the format has no way to tell them.
NaN and the infinities are written as Python does (``NaN``, ``Infinity``), which other languages may refuse.

JSON_MODULE may name another module with the standard one's ``dumps`` (with ``default``) and ``loads``.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from pyroplug.core.errors import ConfigError, PyroError, SerializeError
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.interfaces import Buffer, Serializer
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Schema, Setting, Settings
from pyroplug.core.types import TypeTable, too_deep

from ._shared import check_call, failed, has_tags, max_depth, plain_form

__all__ = ["PLUGIN", "JsonSerializer", "pyro_serializers", "pyro_settings"]

PLUGIN = PluginInfo("json", "serializer json: few types, understood everywhere")

_TO_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))

Encode = Callable[[Any], "str | bytes"]


def nesting(data: bytes) -> int:
    """How deep the arrays and objects of a JSON text lie inside each other; exact for valid texts."""
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside = b"".join(data.split(b'"')[::2])
    brackets = outside.translate(_TO_BRACKETS, _NOT_BRACKETS)
    depth = 0
    while brackets and depth < 8:  # most messages end here; each round removes the innermost level
        shorter = brackets.replace(b"[]", b"")
        if shorter == brackets:
            break
        brackets, depth = shorter, depth + 1
    level = highest = 0
    for bracket in brackets:
        level += 1 if bracket == 0x5B else -1
        highest = max(highest, level)
    return depth + highest


class _JsonCodec:
    def __init__(self, types: TypeTable, encode: Callable[[Callable[[Any], Any]], tuple[Encode, Encode]],
                 decode: Callable[[str], Any], limit: int) -> None:  # fmt: skip
        self._types = types
        self._encode, self._encode_ascii = encode(self._default)
        self._decode = decode
        self._limit = limit

    def dumps(self, value: Any) -> bytes:
        try:
            return self._bytes(value)
        except PyroError:
            raise
        except RecursionError as err:
            raise too_deep(self._limit) from err
        except Exception as err:  # converters are the user's
            raise failed("encode", "json", err) from err

    def dumps_call(self, object_id: str, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        return self.dumps({"object": object_id, "method": method, "params": args, "kwargs": kwargs})

    def loads(self, data: Buffer) -> Any:
        value, tagged = self._read(data)
        return self._types.recreate(value, self._limit) if tagged else value

    def loads_call(self, data: Buffer) -> tuple[str, str, Sequence[Any], Mapping[str, Any]]:
        value, tagged = self._read(data)
        try:
            args, kwargs = value["params"], value["kwargs"]
            object_id, method = value["object"], value["method"]
        except (TypeError, KeyError) as err:
            raise SerializeError("invalid json request: expected object, method, params and kwargs") from err
        if tagged:
            args = self._types.recreate(args, self._limit)
            kwargs = self._types.recreate(kwargs, self._limit)
        return check_call("json", object_id, method, args, kwargs)

    def _bytes(self, value: Any) -> bytes:
        text = self._encode(value)
        if isinstance(text, bytes):
            data = text
        else:
            try:
                data = text.encode("utf-8")
            except UnicodeEncodeError:  # lone surrogates travel as \\u escapes
                escaped = self._encode_ascii(value)
                data = escaped if isinstance(escaped, bytes) else escaped.encode("ascii")
        self._check(data)
        return data

    def _check(self, data: bytes) -> None:
        limit = self._limit
        if len(data) > limit and data.count(b"[") + data.count(b"{") > limit and nesting(data) > limit:
            raise too_deep(limit)

    def _read(self, data: Buffer) -> tuple[Any, bool]:
        raw = data if isinstance(data, bytes) else bytes(data)
        self._check(raw)
        try:
            return self._decode(raw.decode("utf-8")), has_tags(raw)
        except RecursionError as err:
            raise too_deep(self._limit) from err
        except Exception as err:  # the module is the user's choice
            raise failed("decode", "json", err) from err

    def _default(self, obj: Any) -> Any:
        if isinstance(obj, (bytes, bytearray, memoryview, complex)):
            raise SerializeError(
                f"don't know how to serialize class {type(obj)} using serializer json:"
                " the format has no such values; use serpent or msgpack, or send text"
            )
        return plain_form(obj, self._types, "json")


class JsonSerializer:
    """The format with wire id 3; made by the plugin, bound by the kernel."""

    name = "json"
    wire_id = 3
    safe = True

    def bind(self, types: TypeTable, settings: Settings) -> _JsonCodec:
        """A codec; raises ConfigError when JSON_MODULE cannot be used."""
        name = str(getattr(settings, "JSON_MODULE", "json"))
        if name == "json":
            return _JsonCodec(types, _standard, _standard_loads, max_depth(settings))
        encode, decode = _other_module(name)
        return _JsonCodec(types, encode, decode, max_depth(settings))


def _standard(default: Callable[[Any], Any]) -> tuple[Encode, Encode]:
    # made once: json.dumps() with arguments makes an encoder for each call
    return (
        _in_c(default) or json.JSONEncoder(ensure_ascii=False, default=default).encode,
        json.JSONEncoder(default=default).encode,
    )


def _in_c(default: Callable[[Any], Any]) -> Encode | None:
    """The encoder in C by itself, where there is one: JSONEncoder makes a new one for each value.

    Without markers for values that contain themselves: those end in a RecursionError, which is handled.
    """
    make = getattr(json.encoder, "c_make_encoder", None)
    quote = json.encoder.encode_basestring
    if make is None:
        return None
    encode = make(None, default, quote, None, ": ", ", ", False, False, True)

    def encoded(value: Any) -> str:
        return quote(value) if isinstance(value, str) else "".join(encode(value, 0))

    return encoded


_raw_decode = json.JSONDecoder().raw_decode


def _standard_loads(text: str) -> Any:
    # what json.loads() adds is for blanks before and after the value
    if text[:1] not in " \t\n\r":
        value, end = _raw_decode(text)
        if end == len(text):
            return value
    return json.loads(text)


def _other_module(
    name: str,
) -> tuple[Callable[[Callable[[Any], Any]], tuple[Encode, Encode]], Callable[[str], Any]]:
    try:
        module = importlib.import_module(name)
    except (ImportError, TypeError, ValueError) as err:  # (the last two for names that are none)
        raise ConfigError(f"setting JSON_MODULE: cannot import {name!r}: {err}") from err
    dumps, loads = getattr(module, "dumps", None), getattr(module, "loads", None)
    if not callable(dumps) or not callable(loads):
        raise ConfigError(f"setting JSON_MODULE: {name!r} has no functions dumps and loads")
    encode = cast("Callable[..., str | bytes]", dumps)
    extra: dict[str, Any] = {"ensure_ascii": False}
    try:
        encode("probe", default=str, **extra)
    except TypeError:
        extra = {}
    try:
        encode("probe", default=str, **extra)
    except Exception as err:  # a foreign module, of which nothing is known
        raise ConfigError(f"setting JSON_MODULE: {name!r} must support dumps(value, default=...): {err}") from err

    def make(default: Callable[[Any], Any]) -> tuple[Encode, Encode]:
        return (
            lambda value: encode(value, default=default, **extra),
            lambda value: encode(value, default=default),
        )

    return make, cast("Callable[[str], Any]", loads)


@hookimpl
def pyro_settings(schema: Schema) -> None:
    """JSON_MODULE."""
    schema.add(Setting("JSON_MODULE", str, "json", "module whose dumps and loads the json serializer uses", "json"))


@hookimpl
def pyro_serializers() -> Iterable[Serializer]:
    """The serializer json."""
    return [JsonSerializer()]
