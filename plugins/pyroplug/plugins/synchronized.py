"""``@synchronized``: the remote calls of an object run one at a time; other objects are not affected.

On a class it holds for all its methods and properties, on a method or a property's function for the marked ones of
that object.  Local calls do not take the lock.  A synchronized method that, by way of another server, calls its own
object again waits for itself, as with any lock.  The items of a generator are made outside of it.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.members import Members
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.stash import StashKey

__all__ = ["PLUGIN", "synchronized"]

PLUGIN = PluginInfo("synchronized", "one remote call of an object at a time")

T = TypeVar("T", bound=Callable[..., Any])
_MARK = "_pyroSynchronized"


def synchronized(target: T) -> T:
    """Decorator for a class or a method: remote calls of one object wait for each other."""
    setattr(target, _MARK, True)
    return target


class Locks:
    """A lock for each object, as long as the object lives."""

    def __init__(self) -> None:
        self._locks: dict[int, threading.RLock] = {}  # type: ignore[valid-type,unused-ignore]
        self._guard = threading.RLock()  # reentrant: a collection inside may run a finalizer

    def of(self, instance: Any) -> Any:
        """The lock of one object."""
        key = id(instance)
        lock = self._locks.get(key)
        if lock is None:
            with self._guard:
                lock = self._locks.get(key)
                if lock is None:
                    lock = self._locks[key] = threading.RLock()
                    try:
                        weakref.finalize(instance, self._locks.pop, key, None).atexit = False
                    except TypeError:
                        pass  # cannot be referred to weakly: it keeps its entry
        return lock


_LOCKS = StashKey[Locks]()


@hookimpl
def pyro_describe(cls: type, members: Members) -> None:
    """Put the lock around the properties."""
    everything = getattr(cls, _MARK, False)
    for name, member in list(members.properties.items()):
        functions = (member.fget, member.fset, member.fdel)
        if everything or any(getattr(function, _MARK, False) for function in functions):
            getter, setter, deleter = (None if f is None else _locked(members, f) for f in functions)
            members.properties[name] = property(getter, setter, deleter, member.__doc__)


@hookimpl
def pyro_bind_method(cls: type, name: str, members: Members) -> Callable[[Callable[..., Any]], Any] | None:
    """Put the lock around the methods."""
    if not (getattr(cls, _MARK, False) or members.marked(name, _MARK)):
        return None
    if name in members.coroutines:
        raise TypeError(
            f"{cls.__qualname__}.{name} is an async method and cannot be synchronized: waiting for a lock would stop "
            f"the event loop; use an asyncio.Lock in it"
        )
    return lambda method: _locked(members, method)


def _locked(members: Members, method: Callable[..., Any]) -> Callable[..., Any]:
    locks = members.stash.setdefault(_LOCKS, Locks())

    @functools.wraps(method)
    def call(instance: Any, /, *args: Any, **kwargs: Any) -> Any:
        with locks.of(instance):
            return method(instance, *args, **kwargs)

    return call
