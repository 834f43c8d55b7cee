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
from collections.abc import ItemsView, KeysView, Mapping, Sequence, ValuesView
from typing import TYPE_CHECKING, Any

from pyroplug.core.errors import PyroError, SerializeError
from pyroplug.core.settings import nearest
from pyroplug.core.types import DEFAULT_DEPTH, NOT_REPLACED, TypeTable, too_deep

from .arrays import ARRAY, SCALAR
from .forms import BYTES, DICT, STANDARD, TUPLE, Form

if TYPE_CHECKING:
    from pyroplug.core.interfaces import Codec, Serializer
    from pyroplug.core.settings import Settings

__all__ = ["OWN", "TypedCodec", "TypedTable", "typed_codec"]

OWN = "@"
"""Begins the tags of classes that programs registered; those of ours begin with ``+``."""

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


class TypedTable(TypeTable):
    """The table of a kernel and the forms of ours; what is registered with the kernel comes first."""

    def __init__(self, base: TypeTable) -> None:
        super().__init__(base)
        self.base = base
        self._exact: dict[type, Form] = {type(sample): BYTES for sample in _SUBCLASSES}
        self._forms: dict[type, Form] = dict(STANDARD)
        self._numpy = False
        for form in (*STANDARD.values(), ARRAY, SCALAR, BYTES, DICT, TUPLE):
            self._add(form)

    def _add(self, form: Form) -> None:
        self.register_dict_to_class(form.tag, lambda name, data: form.unpack(data), inner_first=True)

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
        if not self._numpy and "numpy" in sys.modules:
            self._know_numpy()
        forms = self._forms
        for cls in kind.__mro__:
            if cls in forms:
                return forms[cls]
        return None

    def _know_numpy(self) -> None:
        # whoever has an array has imported numpy: we need not
        numpy = sys.modules["numpy"]
        try:
            self._forms = {**self._forms, numpy.ndarray: ARRAY, numpy.generic: SCALAR}
        except AttributeError:
            return  # another thread is importing it just now
        self._numpy = True

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
        if self.form_of(obj) is not None and not self.base.is_registered(obj):
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

    def __init__(self, codec: Codec) -> None:
        def alone(value: Any) -> bool:
            try:
                codec.dumps(value)
            except SerializeError:
                return False
            return True

        self.needed = {form.tag for form in (*STANDARD.values(), BYTES) if not alone(form.sample)}
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
            standard = type(value) in STANDARD
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
        if isinstance(value, (str, int, float, complex, bytes, *_LEFT)) or type(value) in STANDARD:
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
    """A serializer's codec that keeps types."""

    def __init__(self, codec: Codec, packer: _Packer, limit: int) -> None:
        self._codec = codec
        self._packer = packer
        self._limit = limit
        self.loads = codec.loads
        self.loads_call = codec.loads_call

    def dumps(self, value: Any) -> bytes:
        try:
            return self._codec.dumps(value)
        except SerializeError:
            pass  # (whatever is wrong, it is said below, without this one as its context)
        return self._codec.dumps(self._packed(value))

    def dumps_call(self, object_id: str, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        try:
            return self._codec.dumps_call(object_id, method, args, kwargs)
        except SerializeError:
            pass
        return self._codec.dumps_call(object_id, method, self._packed(args), self._packed(kwargs))

    def _packed(self, value: Any) -> Any:
        try:
            return self._packer.value(value, self._limit)
        except PyroError:
            raise
        except RecursionError as err:
            raise too_deep(self._limit) from err
        except Exception as err:  # attributes and converters are the program's
            raise SerializeError(f"cannot convert a value of {type(value)}: {type(err).__name__}: {err}") from err


def typed_codec(serializer: Serializer, table: TypedTable, settings: Settings) -> TypedCodec | None:
    """A codec that keeps types, or None where the serializer cannot carry tagged dicts (or needs none: pickle)."""
    limit = int(getattr(settings, "MAX_NESTING_DEPTH", DEFAULT_DEPTH))
    alone = TypedTable(TypeTable())  # what the program registered must not have a say in what is tried
    samples = [form.sample for form in STANDARD.values()]
    try:
        trial = serializer.bind(alone, settings)
        abilities = _Abilities(trial)
        typed = TypedCodec(trial, _Packer(alone, abilities, serializer.name), limit)
        if typed.loads(typed.dumps(samples)) != samples:
            return None
    except Exception:  # a serializer of others may fail in any way: it is used as ever
        return None
    return TypedCodec(serializer.bind(table, settings), _Packer(table, abilities, serializer.name), limit)
