"""Instance modes: a registered class gets its instances from the daemon.

``single``: one for the daemon.  ``session`` (the default): one for each connection.  ``percall``: one for
each call.  ``@behavior`` says which, and how instances are made.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from pyroplug.core.connection import ServerConnection
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.interfaces import InstanceProvider
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.stash import StashKey

__all__ = ["PLUGIN", "behavior"]

PLUGIN = PluginInfo("instances", "registered classes: one instance per daemon, connection or call")

C = TypeVar("C", bound=type)
Creator = Callable[[Any], Any]

MODES = ("single", "session", "percall")
_MARK = "_pyroInstancing"  # Pyro5's own, so that classes marked by it work here too
_SESSIONS = StashKey[dict[type, Any]]()


def behavior(instance_mode: str = "session", instance_creator: Creator | None = None) -> Callable[[C], C]:
    """Class decorator: how the daemon makes instances of the class once it is registered.

    :param instance_mode: ``single``, ``session`` or ``percall``
    :param instance_creator: called with the class, returns an instance of it
    :raises SyntaxError: used without parentheses
    :raises ValueError: unknown mode
    """
    if not isinstance(instance_mode, str):
        raise SyntaxError("behavior decorator is missing argument(s)")
    if instance_mode not in MODES:
        raise ValueError(f"invalid instance mode: {instance_mode!r}, expected one of {', '.join(MODES)}")
    if instance_creator is not None and not callable(instance_creator):
        raise TypeError("instance_creator must be a callable")

    def mark(cls: C) -> C:
        if not isinstance(cls, type):
            raise TypeError("behavior decorator can only be used on a class")
        setattr(cls, _MARK, (instance_mode, instance_creator))
        return cls

    return mark


def _create(cls: type, creator: Creator | None) -> Any:
    instance = creator(cls) if creator is not None else cls()
    if not isinstance(instance, cls):
        raise TypeError(f"instance creator returned an instance of a different class: {type(instance).__qualname__}")
    return instance


class _Single:
    """One instance, made by the first call; the others wait for it."""

    def __init__(self, cls: type, creator: Creator | None) -> None:
        self._cls, self._creator = cls, creator
        self._lock = threading.Lock()
        self._instance: Any = None

    def __call__(self, connection: ServerConnection, /) -> Any:
        if self._instance is None:
            with self._lock:
                if self._instance is None:
                    self._instance = _create(self._cls, self._creator)
        return self._instance


class _Session:
    """One instance for each connection; it goes with the connection."""

    def __init__(self, cls: type, creator: Creator | None) -> None:
        self._cls, self._creator = cls, creator
        self._lock = threading.RLock()

    def __call__(self, connection: ServerConnection, /) -> Any:
        instances = connection.stash.get(_SESSIONS, None)
        if instances is None:
            instances = connection.stash.setdefault(_SESSIONS, {})
        instance = instances.get(self._cls)
        if instance is None:
            with self._lock:  # one connection may have several calls running
                instance = instances.get(self._cls)
                if instance is None:
                    instance = instances[self._cls] = _create(self._cls, self._creator)
        return instance


class _PerCall:
    """A new instance each time."""

    def __init__(self, cls: type, creator: Creator | None) -> None:
        self._cls, self._creator = cls, creator

    def __call__(self, connection: ServerConnection, /) -> Any:
        return _create(self._cls, self._creator)


@hookimpl
def pyro_instances(cls: type) -> InstanceProvider:
    """The provider for the mode that ``@behavior`` put on the class."""
    mode, creator = getattr(cls, _MARK, ("session", None))
    providers: dict[str, Callable[[type, Creator | None], InstanceProvider]] = {
        "single": _Single,
        "session": _Session,
        "percall": _PerCall,
    }
    return providers[mode](cls, creator)


@hookimpl
def pyro_closed(connection: ServerConnection) -> None:
    """Let the session's instances go with their connection."""
    connection.stash.pop(_SESSIONS, None)
