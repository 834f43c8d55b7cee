"""What of a class is remote: the ``expose`` decorator, and the members computed once per class.

Deny by default: only what was exposed is in the table, and a request is looked up in that table and
nowhere else, so no attribute is ever fetched by a name that a peer chose.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from .stash import Stash

__all__ = ["Members", "compute_members", "expose", "is_private"]

T = TypeVar("T")

EXPOSED = "_pyroExposed"
"""The mark on functions and classes (Pyro's own, so that classes marked by Pyro5 work here too)."""

# the dunder names that stay private in Pyro5 5.17; all other dunder names can be exposed
_PRIVATE_DUNDERS = frozenset(
    f"__{name}__"
    for name in (
        "init init_subclass class module weakref call new del repr str format nonzero bool coerce cmp eq ne hash "
        "ge gt le lt dir enter exit copy deepcopy sizeof getattr setattr hasattr getattribute delattr instancecheck "
        "subclasscheck getinitargs getnewargs getstate setstate reduce reduce_ex subclasshook"
    ).split()
)


def is_private(name: str) -> bool:
    """Whether a member of that name can never be remote."""
    if name in _PRIVATE_DUNDERS:
        return True
    if not name.startswith("_"):
        return False
    return not (len(name) > 4 and name.startswith("__") and name.endswith("__"))


def expose(target: T) -> T:
    """Decorator: make a method, a property, or everything public in a class remotely accessible.

    Members that a class inherits keep the marks of the class that defined them.

    :raises AttributeError: the name is private, or the decorator stands below ``@staticmethod`` or
        ``@classmethod`` instead of above the function
    """
    if isinstance(target, property):
        accessor = target.fget or target.fset or target.fdel
        if accessor is None:
            raise AttributeError("@expose: this property has no getter, setter or deleter")
        _refuse_private(accessor.__name__)
        _mark(accessor)
        return target
    if isinstance(target, (staticmethod, classmethod)):
        raise AttributeError(
            f"@expose must stand below @{type(target).__name__}, next to the function: {target.__func__.__name__}"
        )
    if inspect.isdatadescriptor(target) and not isinstance(target, type):
        raise AttributeError(f"@expose cannot expose {target!r}: only methods, properties and classes")
    name = getattr(target, "__name__", None)
    if not name:
        raise AttributeError(f"@expose cannot determine what this is: {target!r}")
    _refuse_private(name)
    if isinstance(target, type):
        for member_name, member in vars(target).items():
            if not is_private(member_name):
                _expose_member(member)
        setattr(target, EXPOSED, True)
    else:
        _mark(target)
    return target


def _refuse_private(name: str) -> None:
    if is_private(name):
        raise AttributeError(f"exposing private names (starting with _) is not allowed: {name}")


def _expose_member(member: Any) -> None:
    if isinstance(member, property):
        for accessor in (member.fget, member.fset, member.fdel):
            if accessor is not None:
                _mark(accessor)
    elif isinstance(member, (staticmethod, classmethod)):
        _mark(member.__func__)
    elif inspect.isroutine(member):
        _mark(member)


def _mark(function: Any) -> None:
    try:
        setattr(function, EXPOSED, True)
    except (AttributeError, TypeError):
        # a routine written in C takes no attributes; it stays unexposed, as in Pyro
        pass


class Members:
    """The remote members of one class: names to what has to be called.

    ``methods`` and ``properties`` hold the functions and property objects as the class defines them; plugins add to them, take
    from them and keep their own facts in ``stash`` (from ``pyro_describe``).  ``marked(name, mark)``
    tells whether a decorator left its mark on a method.
    """

    def __init__(self, cls: type) -> None:
        self.cls = cls
        self.methods: dict[str, Callable[..., Any]] = {}
        """name -> callable that takes the instance first"""
        self.properties: dict[str, property] = {}
        self.extra: dict[str, Callable[..., Any]] = {}
        """pseudo methods that plugins add; callable by peers, but not listed as methods"""
        self.coroutines: set[str] = set()
        """names of the methods that are ``async def``"""
        self.notes: dict[str, set[str]] = {}
        """further sets of method names, by what is noted about them; part of the metadata"""
        self.stash = Stash()

    def metadata(self) -> dict[str, set[str]]:
        """What clients are told: the names of methods and properties, and the notes."""
        # clients of Pyro5 look for all three, whatever plugins are there
        return {"methods": set(self.methods), "attrs": set(self.properties), "oneway": set(), **self.notes}

    def marked(self, name: str, mark: str) -> bool:
        """Whether the method ``name`` carries the attribute ``mark`` (set by a decorator)."""
        return bool(getattr(self.methods.get(name), mark, False))

    def table(self) -> Mapping[str, Callable[..., Any]]:
        """Everything a peer can call, by name."""
        return {**self.methods, **self.extra}

    def __iter__(self) -> Iterator[str]:
        return iter(self.methods)


def _unbound(member: Any) -> Callable[..., Any] | None:
    """A callable taking the instance first, whatever kind of method it is."""
    if isinstance(member, staticmethod):
        function = member.__func__
        return _ignoring_self(function)
    if isinstance(member, classmethod):
        return _with_class(member.__func__)
    return member if inspect.isroutine(member) else None


def _ignoring_self(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(_: object, /, *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return _like(call, function)


def _with_class(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(instance: object, /, *args: Any, **kwargs: Any) -> Any:
        return function(type(instance), *args, **kwargs)

    return _like(call, function)


def _like(call: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    call.__name__ = getattr(function, "__name__", "call")
    call.__doc__ = function.__doc__
    call.__dict__.update(getattr(function, "__dict__", {}))
    return call


def compute_members(cls: type, everything: bool = False) -> Members:
    """The members of ``cls`` that were exposed; ``everything`` takes all public ones regardless."""
    members = Members(cls)
    for base in reversed(cls.__mro__):
        if base is object:
            continue
        for name, member in vars(base).items():
            # whatever a subclass defines replaces what it inherits, exposed or not
            members.methods.pop(name, None)
            members.properties.pop(name, None)
            members.coroutines.discard(name)
            if is_private(name):
                continue
            if isinstance(member, property):
                accessors = (member.fget, member.fset, member.fdel)
                if everything or any(getattr(a, EXPOSED, False) for a in accessors):
                    members.properties[name] = member
                continue
            function = _unbound(member)
            if function is not None and (everything or getattr(function, EXPOSED, False)):
                members.methods[name] = function
                if inspect.iscoroutinefunction(getattr(member, "__func__", member)):
                    members.coroutines.add(name)
    return members
