"""A daemon in the event loop of the program."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pyroplug.core.daemon import Daemon
from pyroplug.core.kernel import Kernel, default_kernel

__all__ = ["AsyncDaemon"]


def _always() -> bool:
    return True


class AsyncDaemon(Daemon):
    """A :class:`~pyroplug.core.daemon.Daemon` that serves in the running event loop.

    Everything else is as with any daemon: ``register``, ``uriFor``, ``shutdown`` (from a method, another task or
    another thread).  ``async def`` methods run as tasks beside the program's own, plain methods in place.

    :raises PluginError: the plugin ``aio`` is off
    """

    def __init__(self, *args: Any, kernel: Kernel | None = None, **options: Any) -> None:
        kernel = kernel or default_kernel()
        kernel.require("aio")
        super().__init__(*args, kernel=kernel, servertype="asyncio", **options)

    async def serve(self, condition: Callable[[], bool] = _always) -> None:
        """Serve until :meth:`shutdown` is called or ``condition()``, asked about every POLLTIMEOUT seconds, is false.

        To be cancelled like any task: the daemon then serves no more, but can be served again.

        :raises PyroError: the daemon was closed
        :raises ConfigError: this kind of event loop cannot watch descriptors (Windows: use a SelectorEventLoop)
        """
        server: Any = self.transportServer  # the interface of server loops knows no coroutines
        with self._serving():
            await server.serve(condition)

    async def aclose(self) -> None:
        """Close, without holding up the event loop while calls end."""
        self._shutting_down = True
        self.transportServer.shutdown()
        while not self._loop_ended.is_set():  # noqa: ASYNC110 - whoever awaits serve() may be in another thread
            await asyncio.sleep(0.001)
        self.close()

    async def __aenter__(self) -> AsyncDaemon:
        self._check_open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()
