"""Proxies can be passed in calls and returned from them.

A proxy travels as its URI with what is known of the object (Pyro5's form, wire.md 19.1).  Its handshake value
stays behind: that is often a password.  A daemon travels as a name without meaning, as in Pyro.
"""

from __future__ import annotations

from typing import Any

from pyroplug.core.client import Proxy
from pyroplug.core.daemon import Daemon
from pyroplug.core.errors import SerializeError
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.kernel import Kernel
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.proxy import ProxyBase

__all__ = ["PLUGIN"]

PLUGIN = PluginInfo("proxies", "proxies can be passed in calls")

PROXY, DAEMON = "Pyro5.client.Proxy", "Pyro5.server.Daemon"


def _proxy_to_dict(proxy: ProxyBase) -> dict[str, Any]:
    return {"__class__": PROXY, "state": proxy.__getstate__()}


def _daemon_to_dict(daemon: Daemon) -> dict[str, Any]:
    return {"__class__": DAEMON, "state": ()}


@hookimpl
def pyro_configure(kernel: Kernel) -> None:
    """Teach the kernel's type table both forms."""

    def dict_to_proxy(class_name: str, data: dict[str, Any]) -> Proxy:
        state = data.get("state")
        if not isinstance(state, (list, tuple)):
            raise SerializeError(f"invalid proxy state: {state!r}")
        proxy = Proxy.__new__(Proxy)
        proxy._pyroRestore(state, kernel)
        return proxy

    def dict_to_daemon(class_name: str, data: dict[str, Any]) -> str:
        return "<a daemon of another process>"

    kernel.types.register_class_to_dict(ProxyBase, _proxy_to_dict)
    kernel.types.register_class_to_dict(Daemon, _daemon_to_dict)
    kernel.types.register_dict_to_class(PROXY, dict_to_proxy)
    kernel.types.register_dict_to_class(DAEMON, dict_to_daemon)
