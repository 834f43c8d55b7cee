"""For programs that live in asyncio: a daemon that serves in the running event loop.

::

    async with AsyncDaemon() as daemon:
        uri = daemon.register(Thing())
        await daemon.serve()

The classes are in modules of their own, because asyncio is large and only programs that use it should import it.
"""

from __future__ import annotations

from pyroplug.core.plugins import PluginInfo

__all__ = ["PLUGIN"]

PLUGIN = PluginInfo("aio", "AsyncDaemon, which serves in a running event loop", requires=("asyncio",))
