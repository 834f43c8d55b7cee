"""The serializer ``marshal``: Python's own format for built-in types.

Fast, keeps tuples, sets, bytes and complex numbers.  Python's documentation declares it unsafe for data
that others made (it can crash the interpreter), so it is opt-in here although Pyro5 always accepts it.
Both sides need Pythons that understand format version 4, which every Python 3 does.

Objects of classes, UUIDs, decimals, dates, enums and arrays are converted wherever they lie (Pyro5: only
at the top).  There is no autoproxy with it: a registered object travels as the dict of its attributes.
"""

from __future__ import annotations

import enum
import marshal
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyroplug.core.errors import PyroError, SerializeError
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.types import NOT_REPLACED, too_deep

from ._shared import LARGE, check_call, check_depth, failed, has_tags, max_depth, plain, plain_form

if TYPE_CHECKING:
    from pyroplug.core.interfaces import Buffer, Serializer
    from pyroplug.core.settings import Settings
    from pyroplug.core.types import TypeTable

__all__ = ["PLUGIN", "MarshalSerializer", "pyro_serializers"]

PLUGIN = PluginInfo("marshal", "serializer marshal: built-in types only", opt_in=True, unsafe=True)

VERSION = 4
"""The marshal format we write: the newest that every Python 3 reads, with its short form for texts."""

_ATOMS = frozenset({str, bytes, bytearray, memoryview, int, float, bool, complex, type(None)})
# since Python 3.13 code objects can be refused
_OPTIONS: dict[str, Any] = {"allow_code": False} if sys.version_info >= (3, 13) else {}


class _MarshalCodec:
    def __init__(self, types: TypeTable, limit: int) -> None:
        self._types = types
        self._limit = limit

    def dumps(self, value: Any) -> bytes:
        try:
            return marshal.dumps(self._convert(value, self._limit), VERSION)
        except PyroError:
            raise
        except RecursionError as err:
            raise too_deep(self._limit) from err
        except Exception as err:  # converters are the user's
            raise failed("encode", "marshal", err) from err

    def dumps_call(self, object_id: str, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        # Pyro5 cannot write null keyword arguments with marshal, and its servers accept an empty dict
        return self.dumps((object_id, method, list(args), dict(kwargs) if kwargs else {}))

    def loads(self, data: Buffer) -> Any:
        value = self._read(data)
        if self._tagged(data, value):
            return self._types.recreate(value, self._limit)
        return value

    def loads_call(self, data: Buffer) -> tuple[str, str, Sequence[Any], Mapping[str, Any]]:
        value = self._read(data)
        if type(value) not in (tuple, list) or len(value) != 4:
            raise SerializeError("invalid marshal request: expected a tuple of 4")
        object_id, method, args, kwargs = value
        if self._tagged(data, args, kwargs):
            args = self._types.recreate(args, self._limit)
            kwargs = self._types.recreate(kwargs, self._limit)
        return check_call("marshal", object_id, method, args, kwargs)

    def _tagged(self, data: Buffer, *values: Any) -> bool:
        return not (len(data) > LARGE and all(map(plain, values))) and has_tags(data)

    def _read(self, data: Buffer) -> Any:
        try:
            value = marshal.loads(data, **_OPTIONS)
        except Exception as err:  # anything can come out for invalid data
            raise failed("decode", "marshal", err) from err
        if self._limit < len(data) <= LARGE:
            check_depth(value, self._limit)
        return value

    def _convert(self, value: Any, left: int) -> Any:
        """``value`` with everything in it that marshal cannot write, or would write as something else, replaced."""
        kind = type(value)
        if kind in _ATOMS:
            return value
        if left <= 0:
            raise too_deep(self._limit)
        if kind in (list, tuple, set, frozenset):
            # (a set cannot say to marshal what it contains, but neither can what it contains be a container)
            return value if _ATOMS.issuperset(map(type, value)) else kind([self._convert(v, left - 1) for v in value])
        if kind is dict:
            return {
                key if type(key) in _ATOMS else self._convert(key, left - 1): self._convert(item, left - 1)
                for key, item in value.items()
            }
        return self._convert(self._form(value), left - 1)

    def _form(self, value: Any) -> Any:
        form = self._types.registered(value)
        if form is not NOT_REPLACED:
            return form
        if not isinstance(value, enum.Enum):
            bases: tuple[Any, ...] = (dict, tuple, list, set, frozenset, str, bytes, int, float)
            for base in bases:
                if isinstance(value, base):
                    return base(value)  # subclasses go as what they are built on
        return plain_form(value, self._types, "marshal")


class MarshalSerializer:
    """The format with wire id 2; made by the plugin, bound by the kernel."""

    name = "marshal"
    wire_id = 2
    safe = False

    def bind(self, types: TypeTable, settings: Settings) -> _MarshalCodec:
        """A codec."""
        return _MarshalCodec(types, max_depth(settings))


@hookimpl
def pyro_serializers() -> Iterable[Serializer]:
    """The serializer marshal."""
    return [MarshalSerializer()]
