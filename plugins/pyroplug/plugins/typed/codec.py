"""Serializers that keep types: any serializer that carries tagged dicts, with a table that knows more of them.

A value of plain data costs nothing: it is encoded as ever.  The first object in it that would arrive as something else
stops that; then the value is turned into plain data and tagged dicts here, as a whole, and encoded again.  So nothing
depends on where in a value a serializer asks for help, and typed objects can be keys of dicts and members of sets.
"""

from __future__ import annotations

import binascii
import collections
import enum
import sys
from collections.abc import Callable, ItemsView, Iterable, KeysView, Mapping, Sequence, ValuesView
from typing import TYPE_CHECKING, Any

from pyroplug.core.errors import PyroError, SerializeError
from pyroplug.core.settings import nearest
from pyroplug.core.types import DEFAULT_DEPTH, NOT_REPLACED, TypeTable, too_deep

from . import OWN
from .forms import BYTES, DICT, LATER, STANDARD, TUPLE, Form, forms_of

if TYPE_CHECKING:
    from pyroplug.core.interfaces import Codec, Serializer
    from pyroplug.core.settings import Settings

__all__ = ["TypedCodec", "TypedTable", "typed_codec"]

_ATOMS = frozenset({str, int, float, bool, type(None)})
_LEFT = (collections.UserList, collections.UserDict, collections.UserString)


class _NotPlain(SerializeError):
    """There is an object in the value that has a form of ours."""


class _Int(int):
    pass


class _Float(float):
    pass


class _Str(str):
    __slots__ = ()


class _Bytes(bytes):
    pass


class _Dict(dict[str, int]):
    pass


class _List(list[int]):
    pass


class _Tuple(tuple[int, ...]):
    __slots__ = ()


_SUBCLASSES = (_Int(1), _Float(1.5), _Str("x"), _Bytes(b"x"), _Dict(a=1), _List([1]), _Tuple([1]))


def _of_numpy(tag: str, data: dict[str, Any]) -> Any:
    from .arrays import ARRAY, SCALAR

    return (ARRAY if tag == ARRAY.tag else SCALAR).unpack(data)


class TypedTable(TypeTable):
    """The table of a kernel and the forms of ours; what is registered with the kernel comes first."""

    keeps_keys = True

    def __init__(self, base: TypeTable) -> None:
        super().__init__(base)
        self.base = base
        self._exact: dict[type, Form] = {type(sample): BYTES for sample in _SUBCLASSES}
        self.standard: Mapping[type, Form] = STANDARD
        """Forms of the standard library, as far as anything of it can have come along."""
        self._numpy: Mapping[type, Form] = {}
        self._unknown: tuple[str, ...] = (*LATER, "numpy")
        for form in (*STANDARD.values(), BYTES, DICT, TUPLE):
            self._add(form)
        for module, (_, tags) in LATER.items():
            for tag in tags:
                self.register_dict_to_class(tag, self._later(module), inner_first=True)
        for tag in ("+ndarray", "+numpy"):
            self.register_dict_to_class(tag, _of_numpy, inner_first=True)

    def _add(self, form: Form) -> None:
        self.register_dict_to_class(form.tag, lambda name, data: form.unpack(data), inner_first=True)

    def _later(self, module: str) -> Callable[[str, dict[str, Any]], Any]:
        def first(tag: str, data: dict[str, Any]) -> Any:
            return next(form for form in self.know(module).values() if form.tag == tag).unpack(data)

        return first

    def know(self, module: str) -> Mapping[type, Form]:
        """Use the forms of a module from now on."""
        forms = forms_of(module)
        with self._lock:
            self.standard = {**self.standard, **forms}
        for form in forms.values():
            self._add(form)
        return forms

    def add(self, cls: type, form: Form) -> None:
        """Use a form for objects of exactly this class."""
        with self._lock:
            self._exact = {**self._exact, cls: form}
        self._add(form)

    def form_of(self, obj: Any) -> Form | None:
        """The form for an object, if it has one."""
        kind = type(obj)
        form = self._exact.get(kind)
        if form is not None:
            return form
        if self._unknown:
            self._look_around()
        standard, numpy = self.standard, self._numpy
        for cls in kind.__mro__:
            form = standard.get(cls) or numpy.get(cls)
            if form is not None:
                return form
        return None

    def _look_around(self) -> None:
        # whoever has an object of a module has imported that module: we need not
        for name in self._unknown:
            module = sys.modules.get(name)
            if module is None:
                continue
            try:
                if name == "numpy":
                    from .arrays import ARRAY, SCALAR

                    self._numpy = {module.ndarray: ARRAY, module.generic: SCALAR}
                else:
                    self.know(name)
            except AttributeError:
                continue  # another thread is importing it just now
            self._unknown = tuple(unknown for unknown in self._unknown if unknown != name)

    def replace(self, obj: Any) -> Any:
        other = self.base.replace(obj)
        if other is NOT_REPLACED:
            self._check(obj)
        return other

    def registered(self, obj: Any) -> Any:
        form = self.base.registered(obj)
        if form is NOT_REPLACED:
            self._check(obj)
        return form

    @property
    def has_replacements(self) -> bool:
        return True

    def _check(self, obj: Any) -> None:
        if not self.base.is_registered(obj) and self.form_of(obj) is not None:
            raise _NotPlain(f"an object of {type(obj)} lies where it cannot be converted")

    def refusal(self, name: str) -> SerializeError:
        if not name.startswith(OWN):
            return super().refusal(name)
        known = [tag[1:] for tag in self.converters if tag.startswith(OWN)]
        return SerializeError(
            f"the remote type {name[1:]!r} is not registered here{nearest(name[1:], known)}: both ends need the class,"
            f" with @remote_type (registered are: {', '.join(sorted(known)) or 'none'})"
        )


class _Abilities:
    """What a serializer writes without asking for help; found out by trying."""

    def __init__(self, codec: Codec, forms: Iterable[Form]) -> None:
        def alone(value: Any) -> bool:
            try:
                codec.dumps(value)
            except SerializeError:
                return False
            return True

        self.needed = {form.tag for form in (*forms, BYTES) if not alone(form.sample)}
        """Tags of the standard forms that it cannot do without."""
        self.has_bytes = BYTES.tag not in self.needed
        self.has_empty_sets = alone(set())
        self.has_tuples = codec.loads(codec.dumps((1,))) == (1,)
        self.keys = _ATOMS if alone({None: 1}) else _ATOMS - {type(None)}
        """Types of keys."""
        self.bases = tuple(type(sample).__mro__[1] for sample in _SUBCLASSES if alone(sample))
        """Built-in types whose subclasses it writes as if they were these."""


class _Packer:
    """Turns values into plain data and tagged dicts, for one serializer."""

    def __init__(self, table: TypedTable, abilities: _Abilities, serializer: str) -> None:
        self._table = table
        self._base = table.base
        self._serializer = serializer
        self._needed = abilities.needed
        self._has_bytes = abilities.has_bytes
        self._has_empty_sets = abilities.has_empty_sets
        self._has_tuples = abilities.has_tuples
        self._keys = abilities.keys
        self._left = abilities.bases

    def value(self, value: Any, left: int) -> Any:
        """Plain data for a value; containers with nothing to convert are the same objects."""
        kind = type(value)
        if kind in _ATOMS:
            return value
        if kind is bytes or kind is bytearray or kind is memoryview:
            return value if self._has_bytes else self._tagged(BYTES, value, left)
        if left <= 0:
            raise too_deep(DEFAULT_DEPTH)
        if kind is list:
            return value if _ATOMS.issuperset(map(type, value)) else [self.value(item, left - 1) for item in value]
        if kind is tuple:
            return tuple([self.value(item, left - 1) for item in value])
        if kind is dict:
            return self._dict(value, left)
        if kind is set or kind is frozenset:
            return self._set(value, STANDARD[kind], left)
        return self._object(value, left)

    def key(self, value: Any, left: int) -> Any:
        """The same for what must be hashable where it arrives."""
        if type(value) is not tuple:
            return self.value(value, left)
        if left <= 0:
            raise too_deep(DEFAULT_DEPTH)
        if self._has_tuples:
            return tuple([self.key(item, left - 1) for item in value])
        return self._tagged(TUPLE, value, left)

    def _tagged(self, form: Form, value: Any, left: int) -> dict[str, Any]:
        return {"__class__": form.tag, **form.pack(value, _Level(self, left - 1))}

    def _dict(self, value: Mapping[Any, Any], left: int) -> Any:
        if self._keys.issuperset(map(type, value)):
            return {key: self.value(item, left - 1) for key, item in value.items()}
        return self._tagged(DICT, value, left)

    def _set(self, value: Any, form: Form, left: int) -> Any:
        if form.tag not in self._needed and (
            self._keys.issuperset(map(type, value)) if value else self._has_empty_sets
        ):
            return value
        return self._tagged(form, value, left)

    def _object(self, value: Any, left: int) -> Any:
        base = self._base
        if self._serializer != "marshal":
            other = base.replace(value)
            if other is not NOT_REPLACED:
                form = base.registered(other)
                return self.value(base.default_form(other, self._serializer) if form is NOT_REPLACED else form, left)
        data = base.registered(value)
        if data is not NOT_REPLACED:
            return self.value(data, left)
        form = self._table.form_of(value)
        if form is not None and not isinstance(value, self._left):
            standard = type(value) in self._table.standard
            if not standard or form.tag in self._needed:
                return self._tagged(form, value, left)
        return self._plain(value, left)

    def _plain(self, value: Any, left: int) -> Any:
        """What the serializer is left to write its own way; only the contents are looked at."""
        if isinstance(value, dict):
            return self._dict(dict(value), left)
        if isinstance(value, (list, KeysView, ValuesView, ItemsView)):
            return self.value(list(value), left)
        if isinstance(value, tuple):
            return self.value(tuple(value), left)
        if isinstance(value, enum.Enum) and not isinstance(value, self._left):
            return self.value(value.value, left)
        if isinstance(value, (str, int, float, complex, bytes, *_LEFT)) or type(value) in self._table.standard:
            return value
        return self.value(self._base.default_form(value, self._serializer), left)


class _Level:
    """A packer inside one object."""

    __slots__ = ("_left", "_packer")

    def __init__(self, packer: _Packer, left: int) -> None:
        self._packer = packer
        self._left = left

    def value(self, part: Any, /) -> Any:
        return self._packer.value(part, self._left)

    def key(self, part: Any, /) -> Any:
        return self._packer.key(part, self._left)

    def data(self, data: bytes | bytearray | memoryview, /) -> Any:
        return data if self._packer._has_bytes else binascii.b2a_base64(data, newline=False).decode("ascii")


class TypedCodec:
    """A serializer's codec that keeps types.

    What the serializer needs help with is found out when it first asks for some: most programs send plain data only.
    """

    def __init__(self, serializer: Serializer, table: TypedTable, settings: Settings) -> None:
        self._codec = codec = serializer.bind(table, settings)
        self._limit = int(getattr(settings, "MAX_NESTING_DEPTH", DEFAULT_DEPTH))
        self._packing: tuple[Codec, _Packer | None] | None = None
        self._serializer, self._table, self._settings = serializer, table, settings
        portable: Serializer | None = getattr(serializer, "portable", None)
        self.portable = self if portable is None else TypedCodec(portable, table, settings)
        self.reads_segments: bool = getattr(codec, "reads_segments", False)
        self.loads = codec.loads
        self.loads_call = codec.loads_call

    def dumps(self, value: Any) -> bytes:
        try:
            return self._codec.dumps(value)
        except SerializeError:
            pass  # (whatever is wrong, it is said below, without this one as its context)
        codec, packer = self._packing or self._find_out()
        try:
            return codec.dumps(self._packed(packer, value))
        except SerializeError:
            if self.portable is self:
                raise
        return self.portable.dumps(value)  # which needs help with more, and so gets it

    def dumps_call(self, object_id: str, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        try:
            return self._codec.dumps_call(object_id, method, args, kwargs)
        except SerializeError:
            pass
        codec, packer = self._packing or self._find_out()
        try:
            return codec.dumps_call(object_id, method, self._packed(packer, args), self._packed(packer, kwargs))
        except SerializeError:
            if self.portable is self:
                raise
        return self.portable.dumps_call(object_id, method, args, kwargs)

    def plain(self, value: Any) -> Any:
        """Plain data for a value, as it is written."""
        return self._packed((self._packing or self._find_out())[1], value)

    def _find_out(self) -> tuple[Codec, _Packer | None]:
        abilities = _abilities(self._serializer, self._settings)
        if abilities is None:  # it is used as ever
            self._packing = self._serializer.bind(self._table.base, self._settings), None
        else:
            self._packing = self._codec, _Packer(self._table, abilities, self._serializer.name)
        return self._packing

    def _packed(self, packer: _Packer | None, value: Any) -> Any:
        if packer is None:
            return value
        try:
            return packer.value(value, self._limit)
        except PyroError:
            raise
        except RecursionError as err:
            raise too_deep(self._limit) from err
        except Exception as err:  # attributes and converters are the program's
            raise SerializeError(f"cannot convert a value of {type(value)}: {type(err).__name__}: {err}") from err


def typed_codec(serializer: Serializer, table: TypedTable, settings: Settings) -> TypedCodec | None:
    """A codec that keeps types, or None where the serializer needs none: pickle."""
    if not serializer.safe and _abilities(serializer, settings) is None:
        return None
    return TypedCodec(serializer, table, settings)


def _abilities(serializer: Serializer, settings: Settings) -> _Abilities | None:
    """What a serializer can do by itself, or None where it cannot carry tagged dicts."""
    limit = int(getattr(settings, "MAX_NESTING_DEPTH", DEFAULT_DEPTH))
    alone = TypedTable(TypeTable())  # what the program registered must not have a say in what is tried
    for module in LATER:
        alone.know(module)
    samples = [form.sample for form in alone.standard.values()]
    try:
        codec = serializer.bind(alone, settings)
        abilities = _Abilities(codec, alone.standard.values())
        packer = _Packer(alone, abilities, serializer.name)
        sent = codec.dumps(packer.value(samples, limit))
        return abilities if codec.loads(sent) == samples else None
    except Exception:  # a serializer of others may fail in any way: it is used as ever
        return None
