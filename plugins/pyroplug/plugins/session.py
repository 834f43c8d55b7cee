"""Session storage: a place where methods keep what belongs to one client, for as long as it is connected.

``current_context.session`` takes any attributes.  It is made when it is first asked for, in a method or already in
the validation of the handshake, and goes with the connection.  What has to be closed then is better given to
``current_context.track_resource`` as well.

It is what Pyro3's ``getLocalStorage`` was meant for; there the storage belonged to a worker thread, which served
one client as long as that was connected.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from pyroplug.core.connection import ServerConnection
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.kernel import Kernel
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.stash import StashKey

from .callcontext import SESSION_MAKER

__all__ = ["PLUGIN", "SessionStorage", "init_session", "session_of"]

PLUGIN = PluginInfo("session", "storage for what belongs to one client", requires=("callcontext",))


class SessionStorage(SimpleNamespace):
    """What methods keep for one client, as attributes; ``caller`` is its connection."""

    def __init__(self, connection: ServerConnection) -> None:
        super().__init__()
        self.__dict__["_connection"] = weakref.ref(connection)  # the connection has the storage: no circle

    @property
    def caller(self) -> ServerConnection | None:
        """The client's connection; it may be closed."""
        connection: ServerConnection | None = self.__dict__["_connection"]()
        return connection

    def __repr__(self) -> str:
        names = ", ".join(name for name in vars(self) if not name.startswith("_"))
        return f"<session storage of {self.caller!r}: {names or 'empty'}>"


_STORAGE = StashKey[SessionStorage]()
_INITIALIZER = StashKey["Callable[[SessionStorage], object]"]()
_LOCK = StashKey[Any]()


def init_session(daemon: Any, function: Callable[[SessionStorage], object]) -> None:
    """Have ``function(storage)`` called for each new storage of a daemon's clients, to give it what it begins with.

    What it raises is raised where the storage was asked for; the next time it is tried again.
    """
    daemon.stash[_INITIALIZER] = function


def session_of(connection: ServerConnection) -> SessionStorage:
    """The storage of a client, by its connection; made if there is none yet."""
    storage = connection.stash.get(_STORAGE, None)
    if storage is None:
        daemon: Any = connection.endpoint.daemon  # type: ignore[attr-defined]
        with connection.stash.setdefault(_LOCK, threading.RLock()):  # one connection may have several calls running
            storage = connection.stash.get(_STORAGE, None)
            if storage is None:
                storage = SessionStorage(connection)
                initialize = daemon.stash.get(_INITIALIZER, None)
                if initialize is not None:
                    initialize(storage)
                connection.stash[_STORAGE] = storage
    return storage


@hookimpl
def pyro_configure(kernel: Kernel) -> None:
    """Tell the context how storage is made."""
    kernel.stash[SESSION_MAKER] = session_of


@hookimpl
def pyro_closed(connection: ServerConnection) -> None:
    """The storage goes with the connection."""
    connection.stash.pop(_STORAGE, None)
