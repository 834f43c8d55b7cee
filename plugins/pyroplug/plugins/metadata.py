"""Metadata: clients learn an object's methods and properties when they connect.

With it a proxy knows without asking which names exist, which are properties, and which methods are
oneway.  Without it (plugin off, or METADATA=0 on the client) every name is taken for a method.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyroplug.core.connection import ServerConnection
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.kernel import Kernel
from pyroplug.core.members import Members
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.proxy import ProxyBase
from pyroplug.core.settings import Schema, Setting
from pyroplug.core.stash import StashKey

__all__ = ["PLUGIN", "as_sets"]

PLUGIN = PluginInfo("metadata", "tells clients the members of an object when they connect")


_TOLD = StashKey[Mapping[str, Any]]()


def as_sets(members: Members) -> dict[str, set[str]]:
    """The three sets of Pyro5: methods, oneway and attrs (wire.md 8 and 18; all three must be there)."""
    metadata = members.metadata()
    metadata.setdefault("oneway", set())
    return metadata


@hookimpl
def pyro_settings(schema: Schema) -> None:
    """METADATA."""
    schema.add(Setting("METADATA", bool, True, "proxies learn and check the members of their object", owner="metadata"))


@hookimpl
def pyro_configure(kernel: Kernel) -> None:
    """Servers that do not tell by themselves can be asked."""
    if kernel.settings.METADATA:
        kernel.metadata_source = ("Pyro.Daemon", "get_metadata")


@hookimpl
def pyro_validate_handshake(connection: ServerConnection, hello: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Add the metadata of the object to the reply."""
    entry = connection.objects.get(hello["object"])
    if entry is None:
        return None
    stash = entry.members.stash
    told = stash.get(_TOLD, None)
    # the same object for every client, so that it is encoded once
    return told if told is not None else stash.setdefault(_TOLD, {"meta": as_sets(entry.members)})


@hookimpl
def pyro_validate_welcome(proxy: ProxyBase, welcome: Mapping[str, Any]) -> None:
    """Let the proxy know."""
    metadata = welcome.get("meta")
    if metadata is not None and proxy._pyroKernel.settings.METADATA:
        proxy._pyroProcessMetadata(metadata)
