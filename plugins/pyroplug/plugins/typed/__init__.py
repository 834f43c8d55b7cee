"""Typed values: what is sent arrives as the type that it had, between ends that both have this plugin.

Dates and times, ``Decimal``, ``Fraction``, ``UUID``, ``complex``, sets, ``deque``, ``OrderedDict``, ``array``, paths, dicts with
any keys, numpy's arrays and scalars, and the classes that a program registers with :func:`remote_type`: over
serpent, json, msgpack and marshal alike.  Old peers, and ends without the plugin, get the forms of Pyro as ever.

What a format writes by itself keeps its way: with json and msgpack tuples arrive as lists, and instances of classes
that derive from ``int``, ``float``, ``str``, ``list``, ``tuple`` or ``dict`` as those; json makes texts of the keys of dicts.
"""

from __future__ import annotations

import enum
import functools
import threading
from collections.abc import Callable, Iterable, Set
from typing import TYPE_CHECKING, Any, TypeVar, overload

from pyroplug.core.errors import PluginError, SerializeError
from pyroplug.core.hookspecs import hookimpl, steady
from pyroplug.core.kernel import Kernel, default_kernel
from pyroplug.core.plan import Steps
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Schema, Setting
from pyroplug.core.stash import StashKey

if TYPE_CHECKING:
    from pyroplug.core.interfaces import Serializer

    from .codec import TypedTable
    from .forms import Form, Pack

__all__ = ["PLUGIN", "remote_type"]

PLUGIN = PluginInfo("types", "values keep their types: dates, numpy arrays, dataclasses, enums and more")

EXTENSION = "typed"
OWN = "@"
"""Begins the tags of classes that programs registered; those of ours begin with ``+``."""
C = TypeVar("C", bound=type)
_WRITTEN_AS_BASE = (int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset)


class TypeRegister:
    """The types of one kernel, and its codecs that know them."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._names: dict[str, type] = {}
        self._lock = threading.Lock()
        self._steps: dict[frozenset[Serializer], tuple[int, Steps]] = {}

    @functools.cached_property
    def table(self) -> TypedTable:
        """What knows the types; made for the first peer, or the first class, that needs it."""
        from .codec import TypedTable

        return TypedTable(self._kernel.types)

    def steps(self, extensions: Set[str]) -> Steps:
        """The codecs that keep types, by wire id; made anew when a setting was changed or a serializer added."""
        kernel = self._kernel
        serializers = frozenset(kernel.serializers_with(extensions))
        version = kernel.settings.version
        known = self._steps.get(serializers)
        if known is None or known[0] != version:
            from .codec import typed_codec

            with self._lock:
                made = {
                    serializer.wire_id: typed_codec(serializer, self.table, kernel.settings)
                    for serializer in serializers
                }
                codecs = {wire_id: codec for wire_id, codec in made.items() if codec is not None}
                self._steps[serializers] = known = (version, Steps(codecs=codecs))
        return known[1]

    def add(self, cls: type, name: str, fields: Iterable[str] | None) -> None:
        """Register a class; doing it again is fine.

        :raises ValueError: the name stands for another class already
        """
        with self._lock:
            other = self._names.get(name)
            if other is not None and other is not cls and not _same(other, cls):
                raise ValueError(
                    f"the remote type {name!r} is {other.__module__}.{other.__qualname__} already: give"
                    f" {cls.__module__}.{cls.__qualname__} a name of its own"
                )
            if issubclass(cls, Exception):
                self._kernel.types.register_exception(cls, name)
            else:
                self.table.add(cls, _form(cls, OWN + name, fields))
            self._names[name] = cls


_REGISTER = StashKey[TypeRegister]()


def _same(one: type, other: type) -> bool:
    # a module that is loaded anew defines its classes again
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)


# --------------------------------------------------------------------------- registering classes
@overload
def remote_type(cls: C, /, *, kernel: Kernel | None = None) -> C: ...
@overload
def remote_type(
    cls: C, /, *, name: str | None = None, fields: Iterable[str] | None = None, kernel: Kernel | None = None
) -> C: ...
@overload
def remote_type(
    *, name: str | None = None, fields: Iterable[str] | None = None, kernel: Kernel | None = None
) -> Callable[[C], C]: ...
def remote_type(
    cls: C | None = None,
    /,
    *,
    name: str | None = None,
    fields: Iterable[str] | None = None,
    kernel: Kernel | None = None,
) -> C | Callable[[C], C]:
    """Class decorator: objects of the class arrive as objects of the class that the receiver registered so.

    Use it on both ends, for dataclasses, enums, exceptions, and other classes whose fields you name (or which have
    ``__slots__`` or annotations).  Only fields travel.  A dataclass is made by calling it, so its ``__post_init__`` can check
    what came; other classes are made without ``__init__``.  Objects of subclasses are not meant.

    :param name: what it is called on the wire (default: the name of the class, without its module)
    :param fields: the attributes that travel, for classes that do not say so themselves
    :param kernel: where to register (default: the default kernel)
    :raises TypeError: nothing says which fields there are, or the class derives from a type that formats write
        by themselves
    :raises ValueError: the name stands for another class already
    :raises PluginError: the plugin ``types`` is off
    """

    def register(cls: C) -> C:
        if not isinstance(cls, type):
            raise TypeError(f"remote_type is for classes, not for {cls!r}")
        home = kernel or default_kernel()
        types = home.stash.get(_REGISTER, None)
        if types is None:
            raise PluginError(f"remote_type needs the plugin 'types'{home.off()}", "types")
        types.add(cls, cls.__name__ if name is None else name, fields)
        return cls

    return register if cls is None else register(cls)


def _form(cls: type, tag: str, fields: Iterable[str] | None) -> Form:
    import dataclasses

    from .forms import Form

    if issubclass(cls, enum.Flag):
        return Form(tag, lambda value, pack: {"value": value.value}, lambda data: cls(data["value"]))
    if issubclass(cls, enum.Enum):
        return Form(tag, lambda value, pack: {"member": value.name}, lambda data: _member(cls, data["member"]))
    if issubclass(cls, _WRITTEN_AS_BASE):
        raise TypeError(
            f"{cls.__qualname__} derives from a built-in type, which formats write as that; make it a dataclass"
        )
    if dataclasses.is_dataclass(cls) and fields is None:
        return _dataclass_form(cls, tag)
    return _fields_form(cls, tag, _fields_of(cls) if fields is None else tuple(fields))


def _member(cls: Any, name: Any) -> Any:
    member = cls.__members__.get(name) if isinstance(name, str) else None
    if member is None:
        raise SerializeError(f"the enum {cls.__qualname__} has no member {str(name)[:40]!r} here")
    return member


def _taken(cls: type, data: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    values = {key: value for key, value in data.items() if key != "__class__"}
    unknown = sorted(str(key)[:40] for key in values.keys() - set(names))
    if unknown:
        raise SerializeError(f"the remote type {cls.__qualname__} has no fields {', '.join(unknown)} here")
    return values


def _dataclass_form(cls: Any, tag: str) -> Form:
    import dataclasses

    from .forms import Form

    names = tuple(field.name for field in dataclasses.fields(cls))
    given = frozenset(field.name for field in dataclasses.fields(cls) if field.init)

    def pack(value: Any, pack: Pack) -> dict[str, Any]:
        return {name: pack.value(getattr(value, name)) for name in names}

    def unpack(data: dict[str, Any]) -> Any:
        values = _taken(cls, data, names)
        made = cls(**{name: value for name, value in values.items() if name in given})
        for name, value in values.items():
            if name not in given:
                object.__setattr__(made, name, value)  # also where it is frozen
        return made

    return Form(tag, pack, unpack)


def _fields_of(cls: type) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for base in reversed(cls.__mro__):
        slots = vars(base).get("__slots__", ())
        names.update(dict.fromkeys((slots,) if isinstance(slots, str) else slots))
        names.update(dict.fromkeys(vars(base).get("__annotations__", ())))
    found = tuple(name for name in names if not name.startswith("__"))
    if not found:
        raise TypeError(f"remote_type cannot tell which fields {cls.__qualname__} has: say fields=(...)")
    return found


def _fields_form(cls: Any, tag: str, names: tuple[str, ...]) -> Form:
    from .forms import Form

    if not all(name.isidentifier() and not name.startswith("__") for name in names):
        raise TypeError(f"fields must be names of attributes: {names!r}")

    def pack(value: Any, pack: Pack) -> dict[str, Any]:
        return {name: pack.value(getattr(value, name)) for name in names if hasattr(value, name)}

    def unpack(data: dict[str, Any]) -> Any:
        values = _taken(cls, data, names)
        made = cls.__new__(cls)
        for name, value in values.items():
            object.__setattr__(made, name, value)
        return made

    return Form(tag, pack, unpack)


# --------------------------------------------------------------------------- hooks
@hookimpl
def pyro_settings(schema: Schema) -> None:
    """TYPED_VALUES."""
    schema.add(
        Setting("TYPED_VALUES", bool, True, "values keep their types where both ends can do that", owner="types")
    )


@hookimpl
def pyro_configure(kernel: Kernel) -> None:
    """The kernel's register."""
    kernel.stash[_REGISTER] = TypeRegister(kernel)


@hookimpl
def pyro_extensions(kernel: Kernel) -> Iterable[str]:
    """What old peers do not have."""
    return [EXTENSION] if kernel.settings.TYPED_VALUES else []


@hookimpl
@steady
def pyro_bind(connection: Any) -> Steps | None:
    """Other codecs, for peers that have them too."""
    if EXTENSION not in connection.extensions:
        return None
    kernel = connection.owner()._pyroKernel if connection.side == "client" else connection.endpoint.daemon.kernel
    steps: Steps = kernel.stash[_REGISTER].steps(connection.extensions)
    return steps
