"""Server loop ``asyncio``: the daemon lives in an asyncio event loop, beside whatever else runs there.

Everything happens in the thread of that loop.  Plain methods run in place, one at a time, and must be quick, like
every callback of an event loop; ``async def`` methods run as tasks (plugin ``coroutines``), any number at a time.

``requestLoop()`` makes an event loop of its own, uvloop's where that is installed.
:class:`~pyroplug.plugins.aio.AsyncDaemon` serves in the loop of the program.
"""

from __future__ import annotations

from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.interfaces import Acceptor, ServerLoop, ServerLoopFactory
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Settings

__all__ = ["PLUGIN", "AsyncioFactory"]

PLUGIN = PluginInfo("asyncio", "server loop: in an asyncio event loop")


class AsyncioFactory:
    """Makes loops that live in an event loop; only then asyncio is imported."""

    names = ("asyncio",)

    def create(self, acceptor: Acceptor, settings: Settings) -> ServerLoop:
        """A loop for one daemon."""
        from ._asyncio import AsyncioLoop

        return AsyncioLoop(acceptor, settings)


@hookimpl
def pyro_servers() -> list[ServerLoopFactory]:
    """The loop."""
    return [AsyncioFactory()]
