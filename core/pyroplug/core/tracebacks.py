"""Showing remote tracebacks to people: the helpers of Pyro's ``errors`` module."""

from __future__ import annotations

import sys
import traceback
from types import TracebackType
from typing import Any

__all__ = ["excepthook", "get_pyro_traceback"]


def get_pyro_traceback(
    ex_type: Any = None, ex_value: BaseException | None = None, ex_tb: TracebackType | None = None
) -> list[str]:
    """The lines of the remote traceback, if there is one, and of the local one.

    Give an exception, or type, value and traceback, or nothing for the exception that is being handled.
    Safe for any exception.
    """
    if isinstance(ex_type, BaseException):
        ex_value = ex_type
    elif ex_value is None:
        ex_value = sys.exc_info()[1]
    if ex_value is None:
        return []
    lines: list[str] = []
    current: BaseException | None = ex_value
    seen: set[int] = set()
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        remote = getattr(current, "_pyroTraceback", None)
        if remote:
            if isinstance(remote, str):
                remote = remote.splitlines(keepends=True)
            lines += [" +--- This exception occured remotely (Pyro) - Remote traceback:\n"]
            lines += [f" | {line}" if line.endswith("\n") else f" | {line}\n" for line in remote]
            lines += [" +--- End of remote traceback\n"]
        current = current.__cause__ or current.__context__
    local = traceback.format_exception(type(ex_value), ex_value, ex_tb or ex_value.__traceback__)
    return [*local, *lines] if lines else local


def excepthook(ex_type: type[BaseException], ex_value: BaseException, ex_tb: TracebackType | None) -> None:
    """For ``sys.excepthook``: print uncaught exceptions with their remote tracebacks."""
    sys.stderr.write("".join(get_pyro_traceback(ex_type, ex_value, ex_tb)))
