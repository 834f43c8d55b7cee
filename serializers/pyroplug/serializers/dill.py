"""The serializer ``dill``: pickle plus functions, lambdas, classes and more.

UNSAFE: whoever can send bytes to a process that accepts it can run any code in that process.  It is only
loaded when named, and has to be accepted on both sides.

Pyro5 has no such serializer; Pyro4 gave it the id 5.  That one, or its neighbours, mean something else in
protocol 502, so the wire id here is 105: Pyro4's plus 100.
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

__all__ = ["PLUGIN", "DillSerializer", "pyro_serializers", "pyro_settings"]

PLUGIN = PluginInfo(
    "dill", "serializer dill: pickle plus functions, lambdas, classes and more", opt_in=True, unsafe=True
)


class DillSerializer:
    """The format with wire id 105; made by the plugin, bound by the kernel."""

    name = "dill"
    wire_id = 105
    safe = False

    def bind(self, types: TypeTable, settings: Settings) -> PickleCodec:
        """A codec that writes the protocol DILL_PROTOCOL_VERSION; PluginError when dill is not installed."""
        from ._pickling import PickleCodec, missing  # here, because most kernels only look whether the plugin is opt-in

        try:
            import dill  # here, so that the plugin can be listed without it
        except ImportError as err:
            raise missing("dill", err) from err
        return PickleCodec("dill", dill, getattr(settings, "DILL_PROTOCOL_VERSION", -1), types)


@hookimpl
def pyro_settings(schema: Schema) -> None:
    """DILL_PROTOCOL_VERSION."""
    schema.add(
        Setting(
            "DILL_PROTOCOL_VERSION",
            int,
            -1,
            "pickle protocol that the serializer dill writes; -1 is the highest",
            "dill",
            minimum=-1,
        )
    )


@hookimpl
def pyro_serializers() -> Iterable[Serializer]:
    """The serializer dill."""
    return [DillSerializer()]
