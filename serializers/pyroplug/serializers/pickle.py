"""The serializer ``pickle``: nearly every type of Python.

UNSAFE: whoever can send bytes to a process that accepts it can run any code in that process.  It is only
loaded when named, and has to be accepted on both sides.

Pyro5 has no such serializer; Pyro4 gave it the id 4.  That one, or its neighbours, mean something else in
protocol 502, so the wire id here is 104: Pyro4's plus 100.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Schema, Setting

if TYPE_CHECKING:
    from pyroplug.core.interfaces import Serializer
    from pyroplug.core.settings import Settings
    from pyroplug.core.types import TypeTable

    from ._pickling import PickleCodec

__all__ = ["PLUGIN", "PickleSerializer", "pyro_serializers", "pyro_settings"]

PLUGIN = PluginInfo("pickle", "serializer pickle: nearly every type of Python", opt_in=True, unsafe=True)


class PickleSerializer:
    """The format with wire id 104; made by the plugin, bound by the kernel."""

    name = "pickle"
    wire_id = 104
    safe = False

    def bind(self, types: TypeTable, settings: Settings) -> PickleCodec:
        """A codec that writes the protocol PICKLE_PROTOCOL_VERSION."""
        import pickle

        from ._pickling import PickleCodec

        return PickleCodec("pickle", pickle, getattr(settings, "PICKLE_PROTOCOL_VERSION", -1), types)


@hookimpl
def pyro_settings(schema: Schema) -> None:
    """PICKLE_PROTOCOL_VERSION."""
    import pickle

    schema.add(
        Setting(
            "PICKLE_PROTOCOL_VERSION",
            int,
            -1,
            "pickle protocol that the serializer pickle writes; -1 is the highest",
            "pickle",
            minimum=-1,
            maximum=pickle.HIGHEST_PROTOCOL,
        )
    )


@hookimpl
def pyro_serializers() -> Iterable[Serializer]:
    """The serializer pickle."""
    return [PickleSerializer()]
