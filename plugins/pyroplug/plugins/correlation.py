"""Correlation ids: one id for all calls that have one cause.

A client sets ``current_context.correlation_id`` (a UUID) before a call.  The method sees it, calls that it
makes while it runs carry it on, and the reply brings it back.
"""

from __future__ import annotations

from typing import Any

from pyroplug.core.call import Call, current_call
from pyroplug.core.connection import ClientConnection
from pyroplug.core.hookspecs import hookimpl, steady
from pyroplug.core.plan import Steps
from pyroplug.core.plugins import PluginInfo

from .callcontext import client_side, current_context

__all__ = ["PLUGIN"]

PLUGIN = PluginInfo("correlation", "ids that tie calls with one cause together", requires=("callcontext",))


def _attach(call: Call | ClientConnection) -> None:
    served = current_call.get()
    # in a served call there is always one: the caller's, or one that is made now
    wanted = current_context.correlation_id if served is not None or client_side.get() is not None else None
    if wanted is not None:
        call.correlation = wanted.bytes


_STEPS = Steps(before_send=_attach, probe=client_side.get)


@hookimpl
def pyro_hello(connection: ClientConnection) -> None:
    """The handshake has it too."""
    _attach(connection)


@hookimpl
@steady
def pyro_bind(connection: Any) -> Steps | None:
    """On the client: only calls made in a served call, or after an id was set, have anything to carry."""
    # calls made in a served call are looked at because of the plugin 'callcontext'
    return _STEPS if connection.side == "client" else None
