"""Autoproxy: a registered object that is passed or returned becomes a proxy for it.

The object itself is not changed.  An object that is not registered (any more) travels as a copy.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any

from pyroplug.core.daemon import Daemon
from pyroplug.core.errors import DaemonError
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.kernel import Kernel
from pyroplug.core.members import Members
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Schema, Setting
from pyroplug.core.stash import StashKey
from pyroplug.core.types import NOT_REPLACED

__all__ = ["PLUGIN"]

PLUGIN = PluginInfo("autoproxy", "registered objects travel as proxies")


class Exporters:
    """The daemons of one kernel whose objects may travel; replaced, never changed, so that reading takes no lock."""

    def __init__(self) -> None:
        self.daemons: tuple[weakref.ref[Daemon], ...] = ()
        self.lock = threading.Lock()


_EXPORTERS = StashKey[Exporters]()


@hookimpl
def pyro_settings(schema: Schema) -> None:
    """AUTOPROXY."""
    schema.add(
        Setting("AUTOPROXY", bool, True, "registered objects travel as proxies, not as copies", owner="autoproxy")
    )


@hookimpl
def pyro_configure(kernel: Kernel) -> None:
    """A place for the daemons whose objects may travel."""
    kernel.stash[_EXPORTERS] = Exporters()


@hookimpl
def pyro_system_objects(daemon: Any) -> None:
    """Remember the daemon (it has no system object of ours)."""
    exporters = daemon.kernel.stash[_EXPORTERS]
    with exporters.lock:
        # weakly: one that nobody closes shall not live as long as the kernel
        exporters.daemons = (*(other for other in exporters.daemons if other() is not None), weakref.ref(daemon))


@hookimpl
def pyro_daemon_closed(daemon: Any) -> None:
    """Forget the daemon."""
    exporters = daemon.kernel.stash[_EXPORTERS]
    with exporters.lock:
        exporters.daemons = tuple(other for other in exporters.daemons if other() not in (daemon, None))


@hookimpl
def pyro_describe(cls: type, members: Members, kernel: Kernel) -> None:
    """Look at the instances of a registered class when they travel."""

    def replace(obj: Any) -> Any:
        if kernel.settings.AUTOPROXY:
            for reference in kernel.stash[_EXPORTERS].daemons:
                daemon = reference()
                if daemon is None:
                    continue
                object_id = daemon._registry.id_of(obj)
                entry = daemon._registry.objects.get(object_id) if object_id is not None else None
                if entry is not None:
                    entry.touch()  # a lease begins anew for whoever gets the proxy
                    try:
                        return daemon.proxyFor(entry.object_id)
                    except DaemonError:  # unregistered this moment
                        continue
        return NOT_REPLACED

    kernel.types.register_replacement(cls, replace)
