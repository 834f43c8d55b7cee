"""``@callback``: an exception in the marked method is also logged where it happens, with its traceback.

For methods of a client's object that a server calls back: their errors go to the server as always, but the
program that has the bug sees it too.  The connection stays (in Pyro it is closed).
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, TypeVar

from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.members import Members
from pyroplug.core.plugins import PluginInfo

__all__ = ["PLUGIN", "callback"]

PLUGIN = PluginInfo("callback", "errors in callbacks are logged where they happen")

log = logging.getLogger("pyroplug.callback")

F = TypeVar("F", bound=Callable[..., Any])
_MARK = "_pyroCallback"  # Pyro5's own, so that methods marked by it work here too


def callback(method: F) -> F:
    """Decorator: log the exceptions of this method, besides sending them to the caller."""
    method._pyroCallback = True  # type: ignore[attr-defined]
    return method


@hookimpl
def pyro_bind_method(cls: type, name: str, members: Members) -> Callable[[Callable[..., Any]], Any] | None:
    """Put the logging around the marked methods."""
    return _logged(f"{cls.__qualname__}.{name}") if members.marked(name, _MARK) else None


def _logged(name: str) -> Callable[[Callable[..., Any]], Any]:
    def wrap(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(instance: Any, /, *args: Any, **kwargs: Any) -> Any:
            try:
                return method(instance, *args, **kwargs)
            except Exception:
                log.warning("exception in the callback method %s", name, exc_info=True)
                raise

        return call

    return wrap
