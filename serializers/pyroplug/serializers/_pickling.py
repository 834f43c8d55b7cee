"""The codec that pickle, dill and cloudpickle share; not a plugin itself."""

from __future__ import annotations

import io
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from pyroplug.core.errors import PluginError, PyroError, SerializeError
from pyroplug.core.types import NOT_REPLACED

from ._shared import check_call, failed

if TYPE_CHECKING:
    from pyroplug.core.interfaces import Buffer
    from pyroplug.core.types import TypeTable

__all__ = ["PickleCodec", "PickleModule", "missing"]


class PickleModule(Protocol):
    """What a module must have to be used here."""

    Pickler: Any
    dumps: Callable[..., bytes]
    loads: Callable[..., Any]


def missing(name: str, err: ImportError) -> PluginError:
    """The error for a library that is not installed."""
    return PluginError(f"serializer {name} needs the library {name}: pip install pyroplug[{name}] ({err})", name)


class PickleCodec:
    """Values and requests through one of the pickling libraries.

    Classes travel by themselves: the table of types is only asked for replacements (autoproxy).
    ``protocol`` is the pickle protocol to write, -1 for the highest.
    """

    def __init__(self, name: str, module: PickleModule, protocol: int, types: TypeTable) -> None:
        self._name = name
        self._dumps = module.dumps
        self._loads = module.loads
        self._protocol = protocol
        self._types = types
        self._replacing = _replacing_pickler(module.Pickler, types)

    def dumps(self, value: Any) -> bytes:
        try:
            if not self._types.has_replacements:
                return self._dumps(value, protocol=self._protocol)
            out = io.BytesIO()
            self._replacing(out, protocol=self._protocol).dump(value)
            return out.getvalue()
        except PyroError:
            raise
        except Exception as err:  # __reduce__ and the like are the user's
            raise failed("encode", self._name, err) from err

    def loads(self, data: Buffer) -> Any:
        try:
            return self._loads(data)
        except PyroError:
            raise
        except Exception as err:  # classes that are made here are the user's
            raise failed("decode", self._name, err) from err

    def dumps_call(self, object_id: str, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        return self.dumps((object_id, method, args, kwargs))

    def loads_call(self, data: Buffer) -> tuple[str, str, Sequence[Any], Mapping[str, Any]]:
        value = self.loads(data)
        if not isinstance(value, (tuple, list)) or len(value) != 4:
            raise SerializeError(f"invalid {self._name} request: expected a tuple of 4")
        return check_call(self._name, *value)


# what a replaced object is unpickled with: any Python has it, so that the receiver needs nothing of ours
_FIRST = operator.itemgetter(0)


def _replacing_pickler(base: Any, types: TypeTable) -> Any:
    inherited = getattr(base, "reducer_override", None)

    class ReplacingPickler(base):  # type: ignore[misc]  # the base is chosen at run time
        def reducer_override(self, obj: Any) -> Any:
            other = types.replace(obj)
            if other is not NOT_REPLACED and other is not obj:
                return _FIRST, ((other,),)
            return inherited(self, obj) if inherited is not None else NotImplemented

    return ReplacingPickler
