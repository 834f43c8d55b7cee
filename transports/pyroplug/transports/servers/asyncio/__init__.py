"""Server loop ``asyncio``: the daemon lives in an asyncio event loop, beside whatever else runs there.

Everything happens in the thread of that loop.  Plain methods run in place, one at a time, and must be quick, like
every callback of an event loop; ``async def`` methods run as tasks (plugin ``coroutines``), any number at a time.

``requestLoop()`` makes an event loop of its own (EVENT_LOOP).
:class:`~pyroplug.plugins.aio.AsyncDaemon` serves in the loop of the program.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.interfaces import Acceptor, ServerLoop, ServerLoopFactory
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Schema, Setting, Settings

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["PLUGIN", "AsyncioFactory", "new_event_loop"]

PLUGIN = PluginInfo("asyncio", "server loop: in an asyncio event loop", requires=("multiplex",))


def new_event_loop(settings: Settings) -> AbstractEventLoop:
    """An event loop of the kind that EVENT_LOOP names; "auto": uvloop's where that is installed.

    :raises ImportError: EVENT_LOOP is uvloop, and that is not installed
    """
    if settings.EVENT_LOOP != "asyncio":
        try:
            import uvloop
        except ImportError:
            if settings.EVENT_LOOP == "uvloop":
                raise
        else:
            return uvloop.new_event_loop()
    import asyncio

    return asyncio.SelectorEventLoop()  # Windows' usual one cannot watch descriptors


class AsyncioFactory:
    """Makes loops that live in an event loop; only then asyncio is imported."""

    names = ("asyncio",)

    def create(self, acceptor: Acceptor, settings: Settings) -> ServerLoop:
        """A loop for one daemon."""
        from .loop import AsyncioLoop

        return AsyncioLoop(acceptor, settings)


@hookimpl
def pyro_settings(schema: Schema) -> None:
    """EVENT_LOOP."""
    schema.add(
        Setting(
            "EVENT_LOOP",
            str,
            "auto",
            "kind of event loop where pyroplug makes one; auto: uvloop if it is installed",
            owner="asyncio",
            choices=("auto", "asyncio", "uvloop"),
        )
    )


@hookimpl
def pyro_servers() -> list[ServerLoopFactory]:
    """The loop."""
    return [AsyncioFactory()]
