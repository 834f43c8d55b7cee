"""A name server for ``echo -N``: in the process of the echo server, and ended with it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.kernel import Kernel
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.uri import URI
from pyroplug.plugins.echoserver import NAME_SERVER

__all__ = ["PLUGIN", "name_server"]

PLUGIN = PluginInfo("naming_echo", "a name server inside the echo server: 'echo -N'", requires=("naming", "echoserver"))


@contextmanager
def name_server(kernel: Kernel, host: str) -> Iterator[tuple[URI, str | None]]:
    """A name server that runs; its URI, and where it answers broadcasts.

    Programs of this kernel find it from now on.
    """
    from .nsdaemon import start_ns  # only with -N

    uri, daemon, responder = start_ns(host, kernel=kernel)
    loop = threading.Thread(target=daemon.requestLoop, name="pyroplug-echo-ns")
    try:
        if responder is not None:
            responder.runInThread()
        loop.start()
        kernel.settings.NS_HOST, kernel.settings.NS_PORT = uri.host, uri.port
        yield uri, None if responder is None else responder.locationStr
    finally:
        daemon.shutdown()
        if responder is not None:
            responder.close()
        if loop.ident is not None:
            loop.join()
        daemon.close()


@hookimpl
def pyro_configure(kernel: Kernel) -> None:
    """Tell the echo server how."""
    kernel.stash[NAME_SERVER] = name_server
