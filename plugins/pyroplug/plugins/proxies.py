"""Proxies can be passed in calls and returned from them.

A proxy travels as its URI with what is known of the object (Pyro5's form, wire.md 19.1).  Its handshake value
stays behind: that is often a password.  Of what a received one claims to have, members that other libraries use
unasked (``__array__`` and the like) are dropped: a proxy is no array, and using it calls whoever sent it.  A daemon travels as a name without meaning, as in Pyro.
"""

from __future__ import annotations

from typing import Any

from pyroplug.core.client import Proxy
from pyroplug.core.daemon import Daemon
from pyroplug.core.errors import SerializeError
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.kernel import Kernel
from pyroplug.core.members import is_private
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.proxy import ProxyBase

__all__ = ["PLUGIN"]

PLUGIN = PluginInfo("proxies", "proxies can be passed in calls")

PROXY, DAEMON = "Pyro5.client.Proxy", "Pyro5.server.Daemon"


def _names(claimed: Any) -> set[str]:
    if not isinstance(claimed, (list, tuple, set, frozenset)) or not all(isinstance(name, str) for name in claimed):
        raise SerializeError("invalid proxy state: the members must be names")
    return {name for name in claimed if not is_private(name) and not name.startswith("__array")}


def _proxy_to_dict(proxy: ProxyBase) -> dict[str, Any]:
    return {"__class__": PROXY, "state": proxy.__getstate__()}


def _daemon_to_dict(daemon: Daemon) -> dict[str, Any]:
    return {"__class__": DAEMON, "state": ()}


@hookimpl
def pyro_configure(kernel: Kernel) -> None:
    """Teach the kernel's type table both forms."""

    def dict_to_proxy(class_name: str, data: dict[str, Any]) -> Proxy:
        state = data.get("state")
        if not isinstance(state, (list, tuple)) or len(state) < 6 or not isinstance(state[0], str):
            raise SerializeError(f"invalid proxy state: {str(state)[:200]}")
        proxy = Proxy.__new__(Proxy)
        proxy._pyroRestore((state[0], *map(_names, state[1:4]), *state[4:]), kernel)
        return proxy

    def dict_to_daemon(class_name: str, data: dict[str, Any]) -> str:
        return "<a daemon of another process>"

    kernel.types.register_class_to_dict(ProxyBase, _proxy_to_dict)
    kernel.types.register_class_to_dict(Daemon, _daemon_to_dict)
    kernel.types.register_dict_to_class(PROXY, dict_to_proxy)
    kernel.types.register_dict_to_class(DAEMON, dict_to_daemon)
