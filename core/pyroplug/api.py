"""The names that programs import: Pyro5.api's, and what is new.

Nothing is imported before it is used, so that a plugin that is off is never loaded, and so that
importing this module costs next to nothing.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # a type checker knows this name: typing itself would be most of the time that this import takes
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from pyroplug.core.call import Call
    from pyroplug.core.client import Proxy
    from pyroplug.core.daemon import DAEMON_NAME, Daemon, serve
    from pyroplug.core.errors import (
        CircularCallError,
        CommunicationError,
        ConfigError,
        ConnectionClosedError,
        ConnectionRefusedByPeer,
        DaemonError,
        MessageTooLargeError,
        NamingError,
        OverloadError,
        PluginConflict,
        PluginError,
        ProtocolError,
        PyroError,
        RemoteError,
        SecurityError,
        SerializeError,
        TimeoutError,
        URIError,
    )
    from pyroplug.core.hookspecs import hookimpl
    from pyroplug.core.kernel import Kernel, default_kernel
    from pyroplug.core.members import expose
    from pyroplug.core.plan import Steps
    from pyroplug.core.plugins import PluginInfo
    from pyroplug.core.settings import Schema, Setting, Settings
    from pyroplug.core.stash import Stash, StashKey
    from pyroplug.core.tracebacks import excepthook, get_pyro_traceback
    from pyroplug.core.uri import URI
    from pyroplug.plugins.aio.daemon import AsyncDaemon
    from pyroplug.plugins.aio.proxy import AsyncProxy
    from pyroplug.plugins.batch import BatchProxy, batch
    from pyroplug.plugins.blob import SerializedBlob
    from pyroplug.plugins.callback import callback
    from pyroplug.plugins.callcontext import current_context
    from pyroplug.plugins.daemonobject import DaemonObject
    from pyroplug.plugins.deadline import deadline
    from pyroplug.plugins.futures import Future, FutureProxy, FutureResult, asyncproxy
    from pyroplug.plugins.instances import behavior
    from pyroplug.plugins.naming.broadcast import BroadcastServer
    from pyroplug.plugins.naming.groups import Groups
    from pyroplug.plugins.naming.locate import locate_ns
    from pyroplug.plugins.naming.nsdaemon import NameServerDaemon, start_ns, start_ns_loop
    from pyroplug.plugins.naming.publish import type_meta
    from pyroplug.plugins.oneway import OnewayCounts, oneway, oneway_counts
    from pyroplug.plugins.ping import ping
    from pyroplug.plugins.reaper import registrations, set_transients_cleanup_age
    from pyroplug.plugins.retry import idempotent
    from pyroplug.plugins.session import SessionStorage, init_session
    from pyroplug.plugins.streaming import RemoteIterator
    from pyroplug.plugins.synchronized import synchronized
    from pyroplug.plugins.typed import remote_type

    config: Settings
    __version__: str

__all__ = [
    "DAEMON_NAME",
    "URI",
    "AsyncDaemon",
    "AsyncProxy",
    "BatchProxy",
    "BroadcastServer",
    "Call",
    "CircularCallError",
    "CommunicationError",
    "ConfigError",
    "ConnectionClosedError",
    "ConnectionRefusedByPeer",
    "Daemon",
    "DaemonError",
    "DaemonObject",
    "Future",
    "FutureProxy",
    "FutureResult",
    "Groups",
    "Kernel",
    "MessageTooLargeError",
    "NameServerDaemon",
    "NamingError",
    "OnewayCounts",
    "OverloadError",
    "PluginConflict",
    "PluginError",
    "PluginInfo",
    "ProtocolError",
    "Proxy",
    "PyroError",
    "RemoteError",
    "RemoteIterator",
    "Schema",
    "SecurityError",
    "SerializeError",
    "SerializedBlob",
    "SerializerBase",
    "SessionStorage",
    "Setting",
    "Settings",
    "Stash",
    "StashKey",
    "Steps",
    "TimeoutError",
    "URIError",
    "__version__",
    "asyncproxy",
    "batch",
    "behavior",
    "callback",
    "config",
    "current_context",
    "deadline",
    "default_kernel",
    "excepthook",
    "expose",
    "get_pyro_traceback",
    "hookimpl",
    "idempotent",
    "init_session",
    "locate_ns",
    "oneway",
    "oneway_counts",
    "ping",
    "register_class_to_dict",
    "register_dict_to_class",
    "registrations",
    "remote_type",
    "resolve",
    "serve",
    "set_transients_cleanup_age",
    "start_ns",
    "start_ns_loop",
    "synchronized",
    "type_meta",
    "unregister_class_to_dict",
    "unregister_dict_to_class",
]

_HOMES: Mapping[str, str] = {
    name: module
    for module, names in {
        "pyroplug.core.call": "Call",
        "pyroplug.plugins.aio.daemon": "AsyncDaemon",
        "pyroplug.plugins.aio.proxy": "AsyncProxy",
        "pyroplug.core.client": "Proxy",
        "pyroplug.core.daemon": "DAEMON_NAME Daemon serve",
        "pyroplug.core.errors": "CircularCallError CommunicationError ConfigError ConnectionClosedError ConnectionRefusedByPeer "
        "DaemonError MessageTooLargeError NamingError OverloadError PluginConflict PluginError ProtocolError "
        "PyroError RemoteError SecurityError SerializeError TimeoutError URIError",
        "pyroplug.core.hookspecs": "hookimpl",
        "pyroplug.core.kernel": "Kernel default_kernel",
        "pyroplug.core.members": "expose",
        "pyroplug.core.plan": "Steps",
        "pyroplug.core.plugins": "PluginInfo",
        "pyroplug.core.settings": "Schema Setting Settings",
        "pyroplug.core.stash": "Stash StashKey",
        "pyroplug.core.tracebacks": "excepthook get_pyro_traceback",
        "pyroplug.core.uri": "URI",
        "pyroplug.plugins.batch": "BatchProxy batch",
        "pyroplug.plugins.blob": "SerializedBlob",
        "pyroplug.plugins.callback": "callback",
        "pyroplug.plugins.callcontext": "current_context",
        "pyroplug.plugins.daemonobject": "DaemonObject",
        "pyroplug.plugins.futures": "Future FutureProxy FutureResult asyncproxy",
        "pyroplug.plugins.instances": "behavior",
        "pyroplug.plugins.naming.broadcast": "BroadcastServer",
        "pyroplug.plugins.naming.groups": "Groups",
        "pyroplug.plugins.naming.locate": "locate_ns",
        "pyroplug.plugins.naming.nsdaemon": "NameServerDaemon start_ns start_ns_loop",
        "pyroplug.plugins.naming.publish": "type_meta",
        "pyroplug.plugins.oneway": "OnewayCounts oneway oneway_counts",
        "pyroplug.plugins.deadline": "deadline",
        "pyroplug.plugins.ping": "ping",
        "pyroplug.plugins.reaper": "registrations set_transients_cleanup_age",
        "pyroplug.plugins.retry": "idempotent",
        "pyroplug.plugins.session": "SessionStorage init_session",
        "pyroplug.plugins.streaming": "RemoteIterator",
        "pyroplug.plugins.synchronized": "synchronized",
        "pyroplug.plugins.typed": "remote_type",
    }.items()
    for name in names.split()
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is not None:
        value = getattr(importlib.import_module(home), name)
        globals()[name] = value
        return value
    if name == "config":
        from pyroplug.core.kernel import default_kernel

        return default_kernel().settings
    if name == "__version__":
        from importlib.metadata import version

        return version("pyroplug")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def resolve(uri: str | URI, delay_time: float = 0.0) -> URI:
    """The direct URI of what a URI of another kind (PYRONAME, PYROMETA, ...) stands for.

    :param delay_time: seconds to wait for a name that is not there yet
    :raises URIError: it is no URI, or no plugin that is loaded resolves its kind
    :raises NamingError: there is no such name
    """
    from pyroplug.core.kernel import default_kernel
    from pyroplug.core.uri import URI

    kernel = default_kernel()
    uri = URI(uri)
    if delay_time and uri.protocol != "PYRO":
        kernel.require("naming")
        from pyroplug.plugins.naming.locate import resolve as wait_for

        return wait_for(uri, delay_time, kernel=kernel)
    return kernel.resolve(uri)


def register_class_to_dict(clazz: type, converter: Callable[[Any], dict[str, Any]], serpent_too: bool = True) -> None:
    """Say how objects of a class travel: ``converter(obj)`` returns a dict.

    Holds for the default kernel; other kernels have ``kernel.types``.
    """
    from pyroplug.core.kernel import default_kernel

    default_kernel().types.register_class_to_dict(clazz, converter, serpent_too)


def unregister_class_to_dict(clazz: type) -> None:
    """Undo :func:`register_class_to_dict`; unknown classes are ignored."""
    from pyroplug.core.kernel import default_kernel

    default_kernel().types.unregister_class_to_dict(clazz)


def register_dict_to_class(classname: str, converter: Callable[[str, dict[str, Any]], Any]) -> None:
    """Say what a dict with that ``__class__`` becomes on arrival: ``converter(classname, dict)``.

    Be careful: whatever the converter does, a peer can have it done.
    """
    from pyroplug.core.kernel import default_kernel

    default_kernel().types.register_dict_to_class(classname, converter)


def unregister_dict_to_class(classname: str) -> None:
    """Undo :func:`register_dict_to_class`; unknown names are ignored."""
    from pyroplug.core.kernel import default_kernel

    default_kernel().types.unregister_dict_to_class(classname)


class SerializerBase:
    """Pyro's place for the four converter functions."""

    register_class_to_dict = staticmethod(register_class_to_dict)
    unregister_class_to_dict = staticmethod(unregister_class_to_dict)
    register_dict_to_class = staticmethod(register_dict_to_class)
    unregister_dict_to_class = staticmethod(unregister_dict_to_class)
