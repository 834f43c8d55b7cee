"""Iterators as arguments: ``proxy.upload(generate())``, and the method iterates over an ordinary generator.

::

    client                                     server
    call, with None in the iterator's place -> the method begins, in a thread of its own
            <- reply with the flag WANT ------ it wants items of that iterator
    push_items(chunk) ---------------------->  ... while it works on them
            <- reply with the flag WANT ------ there is room for the next chunk
    push_items(chunk) ---------------------->
            <- reply ------------------------- its result

So one request is under way at any time, and the reply to the last is the reply to the call: no further message types, and no
thread in the client, whose iterator runs in the thread that makes the call (and may itself make calls).  The reply is also the
credit.  At most three chunks are made and not used: one that the method iterates over, one that waits for it, one on its way.
Chunks begin with one item and grow while they are made and taken quickly, up to PUSH_CHUNK.

* The method gets a generator.  When it leaves it, or returns, the client's generator is closed at the next chunk, or with the
  reply, so that its ``finally`` runs.
* What the client's iterator raises is raised in the method.  A lost client is a ConnectionClosedError there.
* ``_pyroTimeout`` is for each chunk, not for the call as a whole.
* A call whose items have begun to flow is not repeated when the connection is lost: the iterator cannot begin anew.

Items can be had during the call only, from server loops that run calls in threads, and not by ``async def`` methods.  Items that
were made before a pause of the iterator may go with those after it; PUSH_CHUNK=1 sends each at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pyroplug.core.connection import ServerConnection
from pyroplug.core.daemon import DAEMON_NAME
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.kernel import WireRegister
from pyroplug.core.plan import Steps
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Schema, Setting

from .client import feed, offer, refuse
from .server import UPLOADS, PushMethods, Uploads, begin, lost
from .terms import FLAG_WANT, PLACES

__all__ = ["PLUGIN", "UPLOADS", "Uploads"]

PLUGIN = PluginInfo("push", "iterators and generators as arguments")

_NAME = "push"
"""What the protocol extension is called."""


@hookimpl
def pyro_settings(schema: Schema) -> None:
    """The limits."""
    schema.add(
        Setting("PUSH_CHUNK", int, 1000, "items of an iterator that is an argument in one message", "push", minimum=1)
    )
    schema.add(Setting("MAX_UPLOADS", int, 100, "calls with iterators that a daemon runs at a time", "push", minimum=1))


@hookimpl
def pyro_reserve(wire: WireRegister) -> None:
    """The flag and the annotation."""
    wire.flag(FLAG_WANT, "WANT")
    wire.annotation(PLACES)


@hookimpl
def pyro_extensions() -> Iterable[str]:
    """The agreement."""
    return [_NAME]


@hookimpl
def pyro_system_objects(daemon: Any) -> Mapping[str, Any]:
    """The method of the daemon's object that takes items."""
    daemon.stash[UPLOADS] = Uploads(daemon.kernel.settings)
    return {DAEMON_NAME: PushMethods()}


_CLIENT = Steps(unsendable=((Iterator, offer),), reply_flags={FLAG_WANT: feed})
_OLD_PEER = Steps(unsendable=((Iterator, refuse),))
_SERVER = Steps(annotations={PLACES: begin})


@hookimpl
def pyro_bind(connection: Any) -> Steps | None:
    """Where both ends can do it."""
    agreed = _NAME in connection.extensions
    if connection.side == "client":
        return _CLIENT if agreed else _OLD_PEER
    return _SERVER if agreed else None


@hookimpl
def pyro_closed(connection: ServerConnection) -> None:
    """No more items will come."""
    lost(connection)


@hookimpl
def pyro_daemon_closed(daemon: Any) -> None:
    """End what still waits for items."""
    daemon.stash[UPLOADS].close(daemon.kernel.settings.SHUTDOWN_TIMEOUT)
