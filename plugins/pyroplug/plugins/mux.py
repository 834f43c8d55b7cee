"""Many calls in flight on one connection: replies come in any order and find their callers by number.

Threads that share a proxy then do not wait for each other's calls.  Both ends must have the plugin (protocol extension
"mux"); with any other peer a connection carries one call at a time, as ever.  How it is done is the kernel's business: this
plugin is the agreement, and the limit.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.plan import Steps
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Schema, Setting

__all__ = ["PLUGIN"]

PLUGIN = PluginInfo("mux", "many calls in flight on one connection")

_NAME = "mux"
"""What the protocol extension is called."""


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
    """The agreement."""
    return [_NAME]


@hookimpl
def pyro_bind(connection: Any) -> Steps | None:
    """On both sides, if both have it."""
    return _steps(connection.settings.MUX_MAX_CALLS) if _NAME in connection.extensions else None


@functools.lru_cache(maxsize=8)
def _steps(limit: int) -> Steps:
    return Steps(overlapping=limit)
