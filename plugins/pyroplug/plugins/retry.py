"""Automatic retries: a call whose connection broke or timed out is made again, up to MAX_RETRIES times.

Nobody can know whether the lost call was executed; use it for methods that may safely run twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pyroplug.core.errors import ConnectionClosedError, TimeoutError
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.proxy import ProxyBase
from pyroplug.core.settings import Schema, Setting

__all__ = ["PLUGIN"]

PLUGIN = PluginInfo("retry", "calls are repeated when the connection broke or timed out")


@hookimpl
def pyro_settings(schema: Schema) -> None:
    """MAX_RETRIES."""
    schema.add(
        Setting(
            "MAX_RETRIES", int, 0, "how often a call is repeated after a broken connection", owner="retry", minimum=0
        )
    )


def again(proxy: ProxyBase, method: str, error: Exception, attempt: int) -> bool:
    """Whether the call is to be made once more."""
    return isinstance(error, (ConnectionClosedError, TimeoutError)) and attempt <= proxy._pyroMaxRetries


@hookimpl
def pyro_client_policies() -> Iterable[Callable[[ProxyBase, str, Exception, int], bool]]:
    """The policy."""
    return [again]
