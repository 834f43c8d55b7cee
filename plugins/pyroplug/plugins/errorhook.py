"""``daemon.methodcall_error_handler``: the program is told of every exception that a method raises.

Oneway calls and calls in batches included.  A handler that fails is logged; the reply is not affected.
"""

from __future__ import annotations

from typing import Any

from pyroplug.core.call import Call
from pyroplug.core.hookspecs import hookimpl, steady
from pyroplug.core.plan import Steps
from pyroplug.core.plugins import PluginInfo

__all__ = ["PLUGIN"]

PLUGIN = PluginInfo("errorhook", "calls daemon.methodcall_error_handler for each exception of a method")


def _tell(call: Call, error: BaseException) -> None:
    connection = call.connection
    handler = connection.endpoint.daemon.methodcall_error_handler
    if handler is not None and call.method:
        handler(connection.endpoint.daemon, connection.peer_address, call.method, call.args, call.kwargs, error)


_STEPS = Steps(on_error=_tell)


@hookimpl
@steady
def pyro_bind(connection: Any) -> Steps | None:
    """On the server: look for a handler when something was raised."""
    return _STEPS if connection.side == "server" else None
