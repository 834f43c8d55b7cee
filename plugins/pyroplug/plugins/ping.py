"""Wire ping: a message type of its own that no serializer, object or method takes part in (wire.md 17)."""

from __future__ import annotations

from pyroplug.core.connection import ClientConnection, Lost, ServerConnection
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.kernel import WireRegister
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.proxy import ProxyBase
from pyroplug.core.wire import FLAG_CORR_ID, PING, PING_SERIALIZER, Frame, Message, encode

__all__ = ["PLUGIN", "ping"]

PLUGIN = PluginInfo("ping", "wire-level ping of a connection")


@hookimpl
def pyro_reserve(wire: WireRegister) -> None:
    """Message type 6."""
    wire.message(PING, _answer)


def _answer(connection: ServerConnection, frame: Frame) -> Message:
    return encode(PING, frame.serializer_id, frame.flags & FLAG_CORR_ID, frame.seq, b"pong", None, frame.correlation)


def ping(proxy: ProxyBase) -> None:
    """Send a ping over a proxy's connection (connecting if need be) and wait for the answer.

    :raises CommunicationError: none came, or something else did; the connection is closed then
    :raises PluginError: the plugin is off in the proxy's kernel
    """
    proxy._pyroKernel.require(PLUGIN.name)
    with proxy._pyroLock:
        proxy._pyroBind()
        connection = proxy._pyroConnection
        assert connection is not None
        if not connection.overlapping:
            _ping(proxy, connection)
            return
    _ping(proxy, connection)


def _ping(proxy: ProxyBase, connection: ClientConnection) -> None:
    try:
        connection.ask(PING, PING_SERIALIZER, 0, b"ping", answer=PING)
    except Lost as lost:
        raise lost.error from lost.error.__cause__
    finally:
        if connection.gone:
            proxy._pyroDrop(connection)
