"""``async def`` generators as results: streams whose items are made in the event loop of the ``async def`` methods.

They travel as the items of plain generators do, so any client can iterate over them, and the settings of ``streaming`` hold.
No thread waits for an item.  What was made before a pause is sent after a few milliseconds, under every server loop,
and the generator goes on meanwhile; at most one chunk is made before it is asked for.

A generator that nobody wants any more (``break``, a lost client whose time is over, the end of the daemon) is cancelled
where it waits, and closed, so that its ``finally`` runs and may itself await something.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from pyroplug.core.dispatch import Request
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.plan import Steps
from pyroplug.core.plugins import PluginInfo
from pyroplug.plugins.streaming import open_stream

__all__ = ["PLUGIN"]

PLUGIN = PluginInfo("asyncstreams", "async def generators as results", requires=("streaming", "coroutines"))


def _open(call: Request, result: AsyncIterator[Any]) -> Any:
    """Results adapter."""
    from .stream import AsyncStream  # which needs asyncio: large, and only for programs that use it

    return open_stream(call, result, AsyncStream)


_SERVER = Steps(results=[(AsyncIterator, _open)])


@hookimpl
def pyro_bind(connection: Any) -> Steps | None:
    """Asynchronous iterators are kept on the server."""
    return _SERVER if connection.side == "server" else None
