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
from pyroplug.core.errors import LocalProtocolError
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.plan import Steps
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.proxy import ProxyBase
from pyroplug.core.wire import RESULT

from .callcontext import ClientSide, client_side

__all__ = ["PLUGIN", "RESERVED"]

PLUGIN = PluginInfo("annotations", "binary extras with requests and replies", requires=("callcontext",))

RESERVED = frozenset({"CORR", "HMAC", "STRM", "BLBI"})
"""Ids that Pyro itself uses (wire.md 4); applications cannot set them."""


def _checked(annotations: Mapping[str, Any]) -> dict[str, Any]:
    taken = RESERVED.intersection(annotations)
    if taken:
        raise LocalProtocolError(f"annotation ids in use by the protocol: {', '.join(sorted(taken))}")
    return dict(annotations)


@hookimpl
def pyro_bind(connection: Any) -> Steps | None:
    """Both sides, as far as anybody wants it."""
    if connection.side == "server":
        daemon = connection.endpoint.daemon
        return None if type(daemon).annotations is Daemon.annotations else Steps(before_reply=_of_daemon)
    proxy_class = type(connection.owner())
    own = getattr(proxy_class, "_pyroAnnotations", None)
    told = getattr(proxy_class, "_pyroResponseAnnotations", None)
    return Steps(
        before_send=_sender(own),
        after_reply=_receiver(told),
        # a class with methods of its own wants to see every call
        probe=None if own or told else client_side.get,
    )


def _sender(own: Callable[[Any], Mapping[str, Any]] | None) -> Callable[[Call], None]:
    def attach(call: Call) -> None:
        annotations = dict(own(call.connection.owner())) if own else {}
        side = client_side.get()
        if side is not None:
            if side.reply_annotations:
                ClientSide.put(reply_annotations={})  # whatever comes of this call, it is not the last one's
            annotations.update(side.annotations)
        if annotations:
            call.annotations = {**call.annotations, **_checked(annotations)}

    return attach


def _receiver(told: Callable[[Any, Mapping[str, bytes], int], None] | None) -> Callable[[Call], None]:
    def keep(call: Call) -> None:
        annotations = call.reply_annotations or {}
        if annotations:
            ClientSide.put(reply_annotations=dict(annotations))
        if told is not None:
            told(call.connection.owner(), annotations, RESULT)

    return keep


def _of_daemon(call: Call) -> None:
    annotations = call.connection.endpoint.daemon.annotations()
    if annotations:
        call.reply_annotations = {**(call.reply_annotations or {}), **annotations}


@hookimpl
def pyro_hello(proxy: ProxyBase, annotations: dict[str, bytes]) -> None:
    """The handshake carries them as well."""
    own = getattr(type(proxy), "_pyroAnnotations", None)
    if own is not None:
        annotations.update(_checked(own(proxy)))
    side = client_side.get()
    if side is not None:
        annotations.update(_checked(side.annotations))
