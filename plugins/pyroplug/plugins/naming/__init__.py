"""Names for objects: the name server, its clients, and URIs such as ``PYRONAME:shop`` and ``PYROMETA:printer,a4``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.kernel import Kernel
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Schema, Setting, Settings
from pyroplug.core.uri import URI

from .choice import policies
from .locate import SERVERS, Here, NameServers, SetHost, resolve
from .publish import PUBLISHER, Publisher
from .table import NAMESERVER_NAME, NAMING, Naming, naming_of

if TYPE_CHECKING:
    from .leases import Sweeper
    from .nsdaemon import NameServerDaemon
    from .storage import Storage

__all__ = ["NAMESERVER_NAME", "NAMING", "PLUGIN", "Naming", "naming_of"]

PLUGIN = PluginInfo("naming", "the name server and its clients: PYRONAME and PYROMETA uris, names with leases")


@hookimpl
def pyro_settings(schema: Schema) -> None:
    """Where the name server is, how long to look for it and for names, and what leases have."""
    for setting in (
        Setting("NS_HOST", str, "localhost", "where the name server is, if nothing else says so", "naming"),
        Setting("NS_PORT", int, 9090, "its port", "naming", minimum=0, maximum=65535),
        Setting("NS_TIMEOUT", float, 5.0, "seconds that looking for a name server may take", "naming", minimum=0.01),
        Setting("NS_LOOKUP_DELAY", float, 0.0, "seconds to wait for a name that is not there yet", "naming", minimum=0),
        Setting("NS_DISCOVERY", str, "unique", "when several name servers answer: refuse to guess, or take the first",
                "naming", choices=("unique", "first")),
        Setting("NS_POLICY", str, "random", "choice among several providers of a tag: random, round_robin, first",
                "naming"),
        Setting("NS_LEASE", float, 30.0, "seconds that a name outlives its server; 0: until somebody removes it",
                "naming", minimum=0),
        Setting("NS_LEASE_MAX", float, 3600.0, "seconds of a lease that a name server grants at most", "naming",
                minimum=1),
        Setting("NS_MAX_NAMES", int, 1_000_000, "names that a name server takes", "naming", minimum=1),
        Setting("NS_MAX_NAME", int, 1000, "characters of a name or tag", "naming", minimum=1),
        Setting("NS_MAX_TAGS", int, 1000, "tags of one name", "naming", minimum=0),
        Setting("NS_REGEX_TIMEOUT", float, 2.0, "seconds that matching one regex may take", "naming", minimum=0.01),
        Setting("NS_ALLOW_SHUTDOWN", bool, False, "clients may shut the name server down", "naming"),
    ):  # fmt: skip
        schema.add(setting)


@hookimpl
def pyro_configure(kernel: Kernel) -> None:
    """The table that the parts fill, and what the kernel itself needs of naming."""
    naming = kernel.stash[NAMING] = Naming()
    naming.locators += [Here(), SetHost()]
    naming.policies.update(policies())
    naming.storages["memory"] = _memory
    naming.services.append(_sweep)
    kernel.stash[SERVERS] = NameServers(kernel)
    kernel.publisher = kernel.stash[PUBLISHER] = Publisher(kernel)


def _memory(text: str, settings: Settings) -> Storage:
    from .storage import MemoryStorage

    if text:
        raise ValueError(f"the storage 'memory' takes no file, but it was given {text!r}")
    return MemoryStorage()


def _sweep(daemon: NameServerDaemon) -> Sweeper:
    from .leases import Sweeper

    return Sweeper(daemon.nameserver)


@hookimpl
def pyro_resolve(uri: URI, kernel: Kernel) -> URI | None:
    """PYRONAME and PYROMETA uris."""
    return resolve(uri, kernel=kernel) if uri.protocol in ("PYRONAME", "PYROMETA") else None


@hookimpl
def pyro_daemon_closed(daemon: Any) -> None:
    """Take back what it has published."""
    daemon.kernel.stash[PUBLISHER].closed(daemon)


@hookimpl
def pyro_unconfigure(kernel: Kernel) -> None:
    """No more heartbeats and connections."""
    kernel.stash[PUBLISHER].close()
    kernel.stash[SERVERS].close()
