"""The serializer ``cloudpickle``: pickle plus functions and classes of the main program.

UNSAFE: whoever can send bytes to a process that accepts it can run any code in that process.  It is only
loaded when named, and has to be accepted on both sides.

Pyro5 has no such serializer; Pyro4 gave it the id 7.  That one, or its neighbours, mean something else in
protocol 502, so the wire id here is 107: Pyro4's plus 100.

The protocol that is written is PICKLE_PROTOCOL_VERSION when the plugin ``pickle``, which owns that setting,
is loaded too, and the highest otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.plugins import PluginInfo

if TYPE_CHECKING:
    from pyroplug.core.interfaces import Serializer
    from pyroplug.core.settings import Settings
    from pyroplug.core.types import TypeTable

    from ._pickling import PickleCodec

__all__ = ["PLUGIN", "CloudpickleSerializer", "pyro_serializers"]

PLUGIN = PluginInfo(
    "cloudpickle",
    "serializer cloudpickle: pickle plus functions and classes of the main program",
    opt_in=True,
    unsafe=True,
)


class CloudpickleSerializer:
    """The format with wire id 107; made by the plugin, bound by the kernel."""

    name = "cloudpickle"
    wire_id = 107
    safe = False

    def bind(self, types: TypeTable, settings: Settings) -> PickleCodec:
        """A codec that writes the protocol PICKLE_PROTOCOL_VERSION; PluginError when cloudpickle is not installed."""
        from ._pickling import PickleCodec, missing  # here, because most kernels only look whether the plugin is opt-in

        try:
            import cloudpickle  # here, so that the plugin can be listed without it
        except ImportError as err:
            raise missing("cloudpickle", err) from err
        return PickleCodec("cloudpickle", cloudpickle, getattr(settings, "PICKLE_PROTOCOL_VERSION", -1), types)


@hookimpl
def pyro_serializers() -> Iterable[Serializer]:
    """The serializer cloudpickle."""
    return [CloudpickleSerializer()]
