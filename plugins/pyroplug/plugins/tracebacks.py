"""DETAILED_TRACEBACK: remote tracebacks with the source line and the local variables of every frame.

Off by default, because local variables hold data that a client may not be meant to see; names that look
like secrets are shown as ``<hidden>``.  Formatting never raises, whatever ``__repr__`` does.
"""

from __future__ import annotations

import linecache
import re
import traceback
from types import TracebackType
from typing import Any

from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.plan import Steps
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Schema, Setting

__all__ = ["PLUGIN", "detailed_traceback"]

PLUGIN = PluginInfo("tracebacks", "detailed remote tracebacks with local variables")

SHOWN = 200
"""Characters of one variable's value."""
_SECRET = re.compile(r"pass(word|wd)?|secret|token|key|credential|auth", re.IGNORECASE)


@hookimpl
def pyro_settings(schema: Schema) -> None:
    """DETAILED_TRACEBACK."""
    schema.add(
        Setting(
            "DETAILED_TRACEBACK", bool, False, "tracebacks sent to clients show local variables", owner="tracebacks"
        )
    )


def detailed_traceback(error: BaseException) -> list[str]:
    """The lines of a traceback, the innermost frame last, each frame with its variables."""
    lines = ["-" * 50 + "\n", f" EXCEPTION {type(error).__qualname__}: {_text(error)}\n"]
    lines.append(" Extended stacktrace follows (most recent call last):\n")
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        code = frame.f_code
        lines.append("-" * 50 + "\n")
        lines.append(f'File "{code.co_filename}", line {trace.tb_lineno}, in {code.co_name}\n')
        source = linecache.getline(code.co_filename, trace.tb_lineno).strip()
        if source:
            lines += ["Source code:\n", f"    {source}\n"]
        lines.append("Local values:\n")
        lines += [f"    {name} = {_value(name, value)}\n" for name, value in sorted(frame.f_locals.items())]
        trace = trace.tb_next
    lines.append("-" * 50 + "\n")
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        lines.append("Caused by:\n")
        lines += [line + "\n" for text in traceback.format_exception(cause) for line in text.splitlines()]
    lines.append(f" EXCEPTION {type(error).__qualname__}: {_text(error)}\n")
    lines += [f" {note}\n" for note in getattr(error, "__notes__", ())]
    return lines


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # a broken __str__ of the program
        return "<text not available>"


def _value(name: str, value: Any) -> str:
    if _SECRET.search(name):
        return "<hidden>"
    try:
        text = repr(value)
    except Exception:  # a broken __repr__ of the program
        return f"<{type(value).__qualname__} whose repr failed>"
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


@hookimpl
def pyro_bind(connection: Any) -> Steps | None:
    """On the server, if it is wanted."""
    if connection.side == "server" and connection.settings.DETAILED_TRACEBACK:
        return Steps(format_traceback=detailed_traceback)
    return None
