"""Annotations: binary extras beside a request or reply, by 4 character ids, in both directions.

A client sets ``current_context.annotations`` before a call; the method finds them there, and sets
``current_context.response_annotations`` for the client to read.  The older ways work too: a proxy class with
``_pyroAnnotations()`` and ``_pyroResponseAnnotations(annotations, msgtype)``, a daemon class with ``annotations()``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pyroplug.core.call import Call
from pyroplug.core.daemon import Daemon
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.plan import Steps
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.proxy import ProxyBase
from pyroplug.core.wire import RESULT

from .callcontext import ClientSide, checked, client_side

__all__ = ["PLUGIN"]

Told = Callable[[Any, Mapping[str, bytes], int], None]

PLUGIN = PluginInfo("annotations", "binary extras with requests and replies", requires=("callcontext",))


@hookimpl
def pyro_bind(connection: Any) -> Steps | None:
    """Both sides, as far as anybody wants it."""
    if connection.side == "server":
        daemon = connection.endpoint.daemon
        overridden = getattr(daemon.annotations, "__func__", None) is not Daemon.annotations
        return _SERVER if overridden else None
    own, told = _overrides(type(connection.owner()))
    return _client(own, told) if own or told else _CLIENT


def _client(own: Callable[[Any], Mapping[str, Any]] | None, told: Told | None) -> Steps:
    return Steps(
        before_send=_sender(own),
        after_reply=_receiver(told),
        # a class with methods of its own wants to see every call
        probe=None if own or told else client_side.get,
    )


def _overrides(proxy_class: type) -> tuple[Callable[[Any], Mapping[str, Any]] | None, Told | None]:
    """The methods of a proxy class that are not the empty ones of every proxy."""
    own = getattr(proxy_class, "_pyroAnnotations", None)
    told = getattr(proxy_class, "_pyroResponseAnnotations", None)
    return (
        None if own is ProxyBase._pyroAnnotations else own,
        None if told is ProxyBase._pyroResponseAnnotations else told,
    )


def _sender(own: Callable[[Any], Mapping[str, Any]] | None) -> Callable[[Call], None]:
    def attach(call: Call) -> None:
        annotations = dict(own(call.connection.owner())) if own else {}
        side = ClientSide.here()
        if side is not None:
            if side.reply_annotations:
                ClientSide.put(reply_annotations={})  # whatever comes of this call, it is not the last one's
            annotations.update(side.annotations)
        if annotations:
            call.annotations = {**call.annotations, **checked(annotations)}

    return attach


def _receiver(told: Told | None) -> Callable[[Call], None]:
    def keep(call: Call) -> None:
        annotations = call.reply_annotations
        if annotations:
            ClientSide.put(reply_annotations=dict(annotations))
            if told is not None:
                told(call.connection.owner(), annotations, RESULT)

    return keep


def _of_daemon(call: Call) -> None:
    annotations = call.connection.endpoint.daemon.annotations()
    if annotations:
        call.reply_annotations = {**(call.reply_annotations or {}), **checked(annotations)}


_CLIENT = _client(None, None)
_SERVER = Steps(before_reply=_of_daemon)


@hookimpl
def pyro_hello(proxy: ProxyBase, annotations: dict[str, bytes]) -> None:
    """The handshake carries them as well, if they are small."""
    own, _ = _overrides(type(proxy))
    if own is not None:
        annotations.update(checked(own(proxy)))
    side = ClientSide.here()
    if side is not None and side.annotations:
        given = checked(side.annotations)
        # what is large is meant for the calls, and servers take small messages only from those they do not know yet
        if sum(map(len, given.values())) <= proxy._pyroKernel.settings.MAX_HANDSHAKE_SIZE // 2:
            annotations.update(given)
