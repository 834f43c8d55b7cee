"""Many calls in flight on one connection: replies come in any order and find their callers by number.

Threads that share a proxy then do not wait for each other's calls.  Both ends must have the plugin (protocol extension
"mux"); with any other peer a connection carries one call at a time, as ever.  How it is done is the kernel's business: this
plugin is the agreement, and the limit.

Large replies travel in parts while other calls are in flight (protocol extension "parts"), so that small ones go between.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable
from typing import Any

from pyroplug.core.connection import ServerConnection
from pyroplug.core.hookspecs import hookimpl, steady
from pyroplug.core.kernel import WireRegister
from pyroplug.core.plan import Steps
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Schema, Setting
from pyroplug.core.wire import Frame

__all__ = ["PART", "PLUGIN"]

log = logging.getLogger("pyroplug.mux")

PLUGIN = PluginInfo("mux", "many calls in flight on one connection")

_NAME = "mux"
"""What the protocol extension is called."""
PART = 102
"""The message type of a part.  The payloads of all parts with one number are one message."""
_PARTS = "parts"


@hookimpl
def pyro_settings(schema: Schema) -> None:
    """MUX_MAX_CALLS."""
    schema.add(
        Setting(
            "MUX_MAX_CALLS",
            int,
            1000,
            "calls in flight on one connection; further ones wait",
            "mux",
            minimum=1,
            maximum=60_000,  # numbers have 16 bits
        )
    )


@hookimpl
def pyro_extensions() -> Iterable[str]:
    """The agreement, and that parts are understood."""
    return [_NAME, _PARTS]


@hookimpl
def pyro_reserve(wire: WireRegister) -> None:
    """The message type of parts, which clients do not send."""
    wire.message(PART, _refuse)


def _refuse(connection: ServerConnection, frame: Frame) -> None:
    log.warning("%s: part of a request, which nobody agreed to", connection.peer)
    connection.close()


@hookimpl
@steady
def pyro_bind(connection: Any) -> Steps | None:
    """On both sides, if both have it."""
    if _NAME not in connection.extensions:
        return None
    return _steps(connection.settings.MUX_MAX_CALLS, PART if _PARTS in connection.extensions else 0)


@functools.lru_cache(maxsize=8)
def _steps(limit: int, parts: int) -> Steps:
    return Steps(overlapping=limit, parts=parts)
