"""The object ``Pyro.Daemon``: what every daemon answers about itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyroplug.core.daemon import DAEMON_NAME, Daemon
from pyroplug.core.errors import DaemonError
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.members import expose
from pyroplug.core.plugins import PluginInfo

__all__ = ["PLUGIN", "DaemonObject"]

PLUGIN = PluginInfo("daemonobject", "the object Pyro.Daemon: ping, registered, info, get_metadata")


@expose
class DaemonObject:
    """The remote interface of a daemon; subclass it and give the class as ``Daemon(interface=...)``."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon

    def registered(self) -> list[str]:
        """The ids of all registered objects; the daemon's own comes first."""
        ids = list(self.daemon.objectsById)
        return sorted(ids, key=lambda object_id: object_id != DAEMON_NAME)

    def ping(self) -> None:
        """Nothing; that it returns is the answer."""

    def info(self) -> str:
        """One line about the daemon."""
        daemon = self.daemon
        nat = f" NAT location={daemon.natLocationStr}" if daemon.natLocationStr else ""
        return (
            f"daemon at {daemon.locationStr}{nat}, {len(daemon.objectsById)} objects registered, "
            f"server type {daemon.kernel.settings.SERVERTYPE}"
        )

    def get_metadata(self, objectId: str) -> dict[str, set[str]]:
        """The names of the methods, oneway methods and attributes of an object.

        :raises DaemonError: no object has that id
        """
        entry = self.daemon._registry.objects.get(objectId)
        if entry is None:
            raise DaemonError(f"unknown object: {objectId}")
        metadata = entry.members.metadata()
        metadata.setdefault("oneway", set())  # Pyro5's clients insist on all three
        return metadata


@hookimpl
def pyro_system_objects(daemon: Any) -> Mapping[str, Any]:
    """The daemon's object, of the class that the program wants."""
    interface = daemon.interface or DaemonObject
    return {DAEMON_NAME: interface(daemon)}
