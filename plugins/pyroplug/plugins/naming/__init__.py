"""Names for objects: the name server, its clients, and URIs such as ``PYRONAME:shop`` and ``PYROMETA:printer,a4``."""

from __future__ import annotations

from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.kernel import Kernel
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Schema, Setting

from .table import NAMESERVER_NAME, NAMING, Naming, naming_of

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
        Setting("NS_ALLOW_SHUTDOWN", bool, False, "clients may shut the name server down", "naming"),
    ):  # fmt: skip
        schema.add(setting)


@hookimpl
def pyro_configure(kernel: Kernel) -> None:
    """The table that the parts fill."""
    kernel.stash[NAMING] = Naming()
