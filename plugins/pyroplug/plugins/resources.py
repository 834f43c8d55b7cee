"""Resource tracking: what a method acquires for a client is closed when that client's connection ends.

``current_context.track_resource(r)`` has ``r.close()`` called exactly once, whether the client leaves in order,
is killed, times out, or the daemon shuts down.  Resources are referred to weakly: one that nobody else holds
may go earlier.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Iterator
from typing import Any

from pyroplug.core.connection import ServerConnection
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.kernel import Kernel
from pyroplug.core.plugins import PluginInfo

from .callcontext import TRACKER, TRACKER_MAKER

__all__ = ["PLUGIN", "ResourceTracker"]

PLUGIN = PluginInfo("resources", "resources are closed when their client's connection ends", requires=("callcontext",))

log = logging.getLogger("pyroplug.resources")


class ResourceTracker:
    """The resources of one connection."""

    def __init__(self) -> None:
        # by address, not by equality: resources need not be hashable, and equal ones are not the same
        self._resources: dict[int, weakref.ref[Any]] = {}
        self._lock = threading.RLock()  # reentrant: a collection inside may drop a resource
        self._ended = False

    def track(self, resource: Any) -> None:
        """Close it with the connection; at once if that has ended already.

        :raises TypeError: it has no ``close``, or cannot be referred to weakly
        """
        if not callable(getattr(resource, "close", None)):
            raise TypeError(f"a tracked resource needs a close method: {type(resource).__qualname__} has none")
        key = id(resource)
        with self._lock:
            if not self._ended:
                self._resources[key] = weakref.ref(resource, lambda gone: self._drop(key, gone))
                return
        _close(resource)

    def _drop(self, key: int, gone: weakref.ref[Any]) -> None:
        with self._lock:
            if self._resources.get(key) is gone:
                del self._resources[key]

    def untrack(self, resource: Any) -> None:
        """Do not close it."""
        with self._lock:
            reference = self._resources.get(id(resource))
            if reference is not None and reference() is resource:
                del self._resources[id(resource)]

    def close(self) -> None:
        """Close what is left, once."""
        with self._lock:
            self._ended = True
            references = list(self._resources.values())
            self._resources.clear()
        for reference in references:
            resource = reference()
            if resource is not None:
                _close(resource)

    # Pyro's connections have a set in this place
    add = track
    discard = untrack

    def __iter__(self) -> Iterator[Any]:
        with self._lock:
            references = list(self._resources.values())
        return (resource for reference in references if (resource := reference()) is not None)

    def __contains__(self, resource: object) -> bool:
        return any(resource is other for other in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _close(resource: Any) -> None:
    try:
        resource.close()
    except Exception:
        log.exception("a tracked resource could not be closed: %r", type(resource))


def tracker_of(connection: ServerConnection) -> ResourceTracker:
    """The tracker of a connection; made if there is none yet."""
    mine = ResourceTracker()
    tracker = connection.stash.setdefault(TRACKER, mine)
    assert isinstance(tracker, ResourceTracker)
    if tracker is mine:
        connection.at_end(tracker.close)  # also when it was made in a handshake that is refused
    return tracker


@hookimpl
def pyro_configure(kernel: Kernel) -> None:
    """Tell the context who tracks; connections have it as ``tracked_resources`` too (Pyro's name)."""
    kernel.stash[TRACKER_MAKER] = tracker_of
    kernel.connection_attributes["tracked_resources"] = tracker_of
