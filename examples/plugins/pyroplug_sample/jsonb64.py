"""The serializer ``jsonb64``: JSON that keeps bytes.

Bytes travel as ``{"__class__": "jsonb64.bytes", "data": "<base64>"}``.  The key ``__class__`` is taken by pyroplug
anyway, so no ordinary dict can be mistaken for that.  Everything else is as in JSON: tuples and sets arrive as
lists, keys of dicts as text.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pyroplug.core.errors import PyroError, SerializeError
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.interfaces import Buffer, Serializer
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Settings
from pyroplug.core.types import TypeTable, too_deep

__all__ = ["PLUGIN", "JsonB64"]

PLUGIN = PluginInfo("jsonb64", "serializer jsonb64: JSON that keeps bytes")

_BYTES = "jsonb64.bytes"


class _Codec:
    """The serializer bound to one kernel; used by many threads at once, so it keeps no state."""

    def __init__(self, types: TypeTable, limit: int) -> None:
        self._types = types
        self._limit = limit
        self._encode = json.JSONEncoder(default=self._default).encode
        self._decode = json.JSONDecoder(object_hook=_from_json).decode

    def dumps(self, value: Any) -> bytes:
        try:
            text = self._encode(value)
        except PyroError:
            raise
        except RecursionError as error:
            raise too_deep(self._limit) from error
        except Exception as error:  # converters are code of the program
            raise SerializeError(f"cannot encode with jsonb64: {error}") from error
        self._check_depth(text)
        return text.encode("ascii")

    def loads(self, data: Buffer) -> Any:
        try:
            text = bytes(data).decode("utf-8")
            self._check_depth(text)
            value = self._decode(text)
        except RecursionError as error:
            raise too_deep(self._limit) from error
        except (ValueError, KeyError, TypeError) as error:
            raise SerializeError(f"cannot decode with jsonb64: {error}") from error
        # exceptions, URIs, proxies and the program's own classes: the kernel knows what may be made of them
        return self._types.recreate(value, self._limit)

    def dumps_call(self, object_id: str, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        return self.dumps([object_id, method, args, kwargs])

    def loads_call(self, data: Buffer) -> tuple[str, str, Sequence[Any], Mapping[str, Any]]:
        request = self.loads(data)
        # whatever the peer has sent: each part is what it must be, or the request is refused
        if isinstance(request, list) and len(request) == 4:
            object_id, method, args, kwargs = request
            kwargs = {} if kwargs is None else kwargs
            if (
                isinstance(object_id, str)
                and isinstance(method, str)
                and isinstance(args, list)
                and isinstance(kwargs, dict)
            ):
                return object_id, method, args, kwargs
        raise SerializeError("invalid jsonb64 request: expected [object id, method, arguments, keyword arguments]")

    def _default(self, value: Any) -> Any:
        """What JSON has no form for."""
        if isinstance(value, (bytes, bytearray, memoryview)):
            return {"__class__": _BYTES, "data": base64.b64encode(value).decode("ascii")}
        if isinstance(value, (set, frozenset)):
            return list(value)
        return self._types.to_dict(value, "jsonb64")

    def _check_depth(self, text: str) -> None:
        if text.count("[") + text.count("{") <= self._limit:
            return
        depth = 0
        in_text = escaped = False
        for character in text:
            if in_text:
                in_text = escaped or character != '"'
                escaped = character == "\\" and not escaped
            elif character == '"':
                in_text = True
            elif character in "[{":
                depth += 1
                if depth > self._limit:
                    raise too_deep(self._limit)
            elif character in "]}":
                depth -= 1


def _from_json(data: dict[str, Any]) -> Any:
    if data.get("__class__") == _BYTES:
        return base64.b64decode(data["data"], validate=True)
    return data


class JsonB64:
    """What the kernel asks the plugin for."""

    name = "jsonb64"
    wire_id = 130
    """128 and above are for third parties; both sides must agree, and no two plugins of one kernel may share it."""
    safe = True
    """Decoding hostile bytes runs no code: a daemon may accept it from anybody."""

    def bind(self, types: TypeTable, settings: Settings) -> _Codec:
        """Look everything up here, once; the codec is on the path of every call."""
        return _Codec(types, settings.MAX_NESTING_DEPTH)


@hookimpl
def pyro_serializers() -> Iterable[Serializer]:
    """The serializer."""
    return [JsonB64()]
