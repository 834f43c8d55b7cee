"""Showing remote tracebacks to people: the helpers of Pyro's ``errors`` module."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
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
    for one in _belonging(ex_value):
        remote = _part(one, "_pyroTraceback")
        if isinstance(remote, str):
            remote = remote.splitlines(keepends=True)
        if remote and isinstance(remote, (list, tuple)):
            lines.append(" +--- This exception occured remotely (Pyro) - Remote traceback:\n")
            lines += [f" | {line}" if str(line).endswith("\n") else f" | {line}\n" for line in remote]
            lines.append(" +--- End of remote traceback\n")
    try:
        local = traceback.format_exception(type(ex_value), ex_value, ex_tb or ex_value.__traceback__)
    except Exception:  # code of the program in the exception's class
        local = [f"{type(ex_value).__name__}: <text not available>\n"]
    return [*local, *lines]


def _part(error: BaseException, name: str) -> Any:
    try:
        return getattr(error, name, None)
    except Exception:  # a property of the program
        return None


def _belonging(error: BaseException) -> Iterator[BaseException]:
    """An exception, those that led to it, and the members of groups; each once."""
    waiting: list[BaseException] = [error]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        members = _part(one, "exceptions")
        found = list(members) if isinstance(members, (list, tuple)) else []
        before = one.__cause__ or one.__context__
        waiting += [other for other in [*reversed(found), before] if isinstance(other, BaseException)]


def excepthook(ex_type: type[BaseException], ex_value: BaseException, ex_tb: TracebackType | None) -> None:
    """For ``sys.excepthook``: print uncaught exceptions with their remote tracebacks."""
    if sys.stderr is None:  # a program without a console
        return
    try:
        text = "".join(get_pyro_traceback(ex_type, ex_value, ex_tb))
    except Exception:  # what hangs on an exception may be anything
        sys.__excepthook__(ex_type, ex_value, ex_tb)
        return
    sys.stderr.write(text)
