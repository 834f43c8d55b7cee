"""Resource tracking: what a method acquires for a client is closed when that client's connection ends.

``current_context.track_resource(r)`` has ``r.close()`` called exactly once, whether the client leaves in order,
is killed, times out, or the daemon shuts down.  Resources are referred to weakly: one that nobody else holds
may go earlier.
"""

from __future__ import annotations

import logging
import threading
import weakref
from typing import Any

from pyroplug.core.connection import ServerConnection
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.plugins import PluginInfo

from .callcontext import TRACKER

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
                self._resources[key] = weakref.ref(resource, lambda _: self._resources.pop(key, None))
                return
        _close(resource)

    def untrack(self, resource: Any) -> None:
        """Do not close it."""
        with self._lock:
            self._resources.pop(id(resource), None)

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

    @property
    def tracked(self) -> list[Any]:
        """The resources that are tracked now."""
        with self._lock:
            return [resource for reference in self._resources.values() if (resource := reference()) is not None]


def _close(resource: Any) -> None:
    try:
        resource.close()
    except Exception:
        log.exception("a tracked resource could not be closed: %r", type(resource))


@hookimpl
def pyro_opened(connection: ServerConnection) -> None:
    """Give the connection a tracker."""
    connection.stash[TRACKER] = ResourceTracker()


@hookimpl
def pyro_closed(connection: ServerConnection) -> None:
    """Close what its calls have acquired."""
    tracker = connection.stash.get(TRACKER, None)
    if isinstance(tracker, ResourceTracker):
        tracker.close()
