"""Heartbeats: a peer that vanished without a word is missed while calls are in flight.

A network that is gone, or a machine without power, sends no end of the connection, so whoever waits would wait for ever.  With
BEAT_INTERVAL set on either end a client that waits for answers sends a small message each so many seconds, whatever else
it sends, and the server gives it back, whatever methods are running.  The client gives up a server that has answered none of
the last BEAT_MISSED, the server a client whose calls still run and that says nothing.  Nobody watches idle connections:
the next call finds out, and on the server TCP's own keepalive (SOCK_KEEPALIVE).

Both ends must have the plugin and ``mux``: without calls in flight together the server reads nothing while a call runs.
Servers that run one call at a time (``multiplex``, ``asyncio``) do not agree to it, because a long plain method would keep
them from answering; nor are sockets watched that the program connected, which another proxy may use next.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

from pyroplug.core.connection import ClientConnection, ServerConnection
from pyroplug.core.errors import ProtocolError
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.kernel import WireRegister
from pyroplug.core.plan import Pulse, Steps
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Schema, Setting, Settings
from pyroplug.core.wire import MARSHAL_ID, Frame, Message, encode

__all__ = ["BEAT", "PLUGIN"]

PLUGIN = PluginInfo("beat", "heartbeats while calls are in flight", requires=("mux",))

BEAT = 103
"""The message type; no payload, and the server gives the number back."""
_NAME = "beat"
"""The protocol extension, and what the handshake says of it: interval and number, from the client as a wish."""
_SHORTEST, _LONGEST = 0.05, 86_400.0
"""Seconds between beats that a peer may have us agree to."""
_MOST = 1000
_AGREED = "_beat_steps"
"""The attribute of connections where both agreed: no stash, which thousands of idle ones would have to have for it."""


@hookimpl
def pyro_settings(schema: Schema) -> None:
    """BEAT_INTERVAL, BEAT_MISSED."""
    schema.add(
        Setting(
            "BEAT_INTERVAL",
            float,
            0.0,
            "seconds between the heartbeats of a client that waits; 0: none, unless the other end wants them",
            "beat",
            minimum=0,
            maximum=_LONGEST,
        )
    )
    schema.add(
        Setting("BEAT_MISSED", int, 3, "so many heartbeats without an answer: gone", "beat", minimum=1, maximum=_MOST)
    )


@hookimpl
def pyro_reserve(wire: WireRegister) -> None:
    """The message type."""
    wire.message(BEAT, _answer)


def _answer(connection: ServerConnection, frame: Frame) -> Message:
    return encode(BEAT, MARSHAL_ID, 0, frame.seq, b"")


@hookimpl
def pyro_extensions() -> Iterable[str]:
    """Whether the other side can do it."""
    return [_NAME]


@hookimpl
def pyro_hello(connection: ClientConnection, hello: dict[str, Any]) -> None:
    """Say what the client wants, if it wants anything, or that it cannot."""
    if not connection.owns_stream:
        hello[_NAME] = None
    elif connection.settings.BEAT_INTERVAL:
        hello[_NAME] = _wish(connection.settings)


def _wish(settings: Settings) -> list[Any]:
    return [settings.BEAT_INTERVAL, settings.BEAT_MISSED]


@hookimpl
def pyro_validate_handshake(connection: ServerConnection, hello: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Agree to what the client wants, or else tell it what the server wants."""
    daemon: Any = connection.endpoint.daemon  # type: ignore[attr-defined]
    if connection.keep_open or not {_NAME, "mux"} <= connection.extensions:
        return None
    if not getattr(daemon.transportServer, "concurrent", False):
        return None
    settings = connection.settings
    wish = hello.get(_NAME, _wish(settings) if settings.BEAT_INTERVAL else None)
    if wish is None:
        return None
    interval, missed = _checked(wish, connection.peer)
    setattr(connection, _AGREED, _steps(interval, missed))
    return _welcome(interval, missed)


@hookimpl
def pyro_validate_welcome(connection: ClientConnection, welcome: Mapping[str, Any]) -> None:
    """Do what both agreed to."""
    if _NAME in welcome and {_NAME, "mux"} <= connection.extensions:
        setattr(connection, _AGREED, _steps(*_checked(welcome[_NAME], connection.peer)))


def _checked(said: Any, peer: str) -> tuple[float, int]:
    try:
        interval, missed = said
        if 0 < interval <= _LONGEST and 1 <= missed <= _MOST:
            return max(_SHORTEST, float(interval)), int(missed)
    except (TypeError, ValueError):
        pass
    raise ProtocolError(f"{peer} wants impossible heartbeats: {said!r:.100}")


@functools.lru_cache(maxsize=16)
def _welcome(interval: float, missed: int) -> Mapping[str, Any]:
    return {_NAME: [interval, missed]}


@functools.lru_cache(maxsize=16)
def _steps(interval: float, missed: int) -> Steps:
    return Steps(pulse=Pulse(BEAT, interval, missed))


@hookimpl
def pyro_bind(connection: Any) -> Steps | None:
    """On both sides, where both agreed."""
    steps: Steps | None = vars(connection).get(_AGREED)
    return steps
