"""DETAILED_TRACEBACK: remote tracebacks with the source line and the local variables of every frame.

Off by default, because local variables hold data that a client may not be meant to see.  Names that match
TRACEBACK_REDACT are shown as ``<hidden>``, also inside the texts of values.  Formatting never raises, whatever the
``__repr__`` of a value does, and takes no more than TRACEBACK_MAX_VALUE characters of it.
"""

from __future__ import annotations

import functools
import itertools
import linecache
import re
import reprlib
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from pyroplug.core.hookspecs import hookimpl, steady
from pyroplug.core.plan import Steps
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Schema, Setting

__all__ = ["PLUGIN", "REDACT", "DetailedTraceback", "detailed_traceback"]

PLUGIN = PluginInfo("tracebacks", "detailed remote tracebacks with local variables")

REDACT = r"pass(word|wd|phrase)?|secret|token|key|credential|auth|cookie|session|private"
"""Names that look like secrets."""
MAX_VALUE = 200
_FRAMES = 100
"""Frames that are shown of one exception: the first half and the last half of more."""
_EXCEPTIONS = 10
"""Causes that are shown."""
_INSIDE = (
    r"""(?P<_name>\b\w*(?:NAME)\w*['"]?\s*[=:]\s*)"""
    r"""(?:b?'(?:[^'\\]|\\.)*'?|b?"(?:[^"\\]|\\.)*"?|[\[({][^\])}]*[\])}]?|[^\s,)}\]]+)"""
)
_LINE = "-" * 50 + "\n"


def _wrong_pattern(text: str) -> str | None:
    try:
        re.compile(text)
    except re.error as exc:
        return f"is no regular expression: {exc}"
    return None


class _Repr(reprlib.Repr):
    """Shows no values of keys that look like secrets, whatever these values are."""

    def __init__(self, secret: re.Pattern[str] | None) -> None:
        super().__init__()
        self._secret = secret

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        if self._secret is not None:
            shown = itertools.islice(x.items(), self.maxdict + 1)
            x = {key: _HIDDEN if isinstance(key, str) and self._secret.search(key) else item for key, item in shown}
        return super().repr_dict(x, level)


class _Hidden:
    def __repr__(self) -> str:
        return "<hidden>"


_HIDDEN = _Hidden()


class DetailedTraceback:
    """Formats exceptions with the variables of every frame.

    :param redact: regular expression for names whose values are not shown, in any case; empty for none
    :param max_value: characters that are shown of one value
    """

    def __init__(self, redact: str = REDACT, max_value: int = MAX_VALUE) -> None:
        self._max_value = max_value
        self._secret = re.compile(redact, re.IGNORECASE) if redact else None
        # name=value, 'name': value and "name": value inside the text of a value
        self._inside = re.compile(_INSIDE.replace("NAME", redact), re.IGNORECASE) if redact else None
        # Looks at the beginning of large containers and texts only, and not into the depth.  It leaves out the middle
        # of what is too long, which could be half of a name: so it gets far more than is shown in the end.
        self._repr = _Repr(self._secret)
        self._repr.maxstring = self._repr.maxlong = self._repr.maxother = max(10_000, 4 * max_value)
        self._repr.maxlist = self._repr.maxtuple = self._repr.maxdict = self._repr.maxset = 20
        self._repr.maxlevel = 4

    def __call__(self, error: BaseException) -> list[str]:
        """The lines, the innermost frame last; the cause of an exception comes before it."""
        chain: list[BaseException] = []
        current: BaseException | None = error
        while current is not None and len(chain) < _EXCEPTIONS and not any(current is known for known in chain):
            chain.append(current)
            current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
        lines: list[str] = []
        for one in reversed(chain):
            if lines:
                lines.append("Which led to:\n")
            lines += self._one(one)
        return lines

    def _one(self, error: BaseException) -> Iterator[str]:
        summary = [f" EXCEPTION {line}\n" for line in self._summary(error)]
        yield _LINE
        yield from summary
        yield " Extended stacktrace follows (most recent call last):\n"
        traces = _traces(error.__traceback__)
        for number, trace in enumerate(traces):
            if len(traces) > _FRAMES and number == _FRAMES // 2:
                yield f"... {len(traces) - _FRAMES} frames are not shown ...\n"
            if number < _FRAMES // 2 or number >= len(traces) - _FRAMES // 2:
                yield from self._frame(trace)
        yield _LINE
        yield from summary

    def _summary(self, error: BaseException) -> list[str]:
        try:
            text = "".join(traceback.format_exception_only(type(error), error))  # with notes, and members of groups
        except BaseException:  # a broken __str__ of the program, which can raise anything
            text = f"{type(error).__qualname__}: <text not available>"
        return text.rstrip("\n").split("\n")

    def _frame(self, trace: TracebackType) -> Iterator[str]:
        frame = trace.tb_frame
        code = frame.f_code
        yield _LINE
        yield f'File "{code.co_filename}", line {trace.tb_lineno}, in {code.co_name}\n'
        source = linecache.getline(code.co_filename, trace.tb_lineno).strip()
        if source:
            yield "Source code:\n"
            yield f"    {source}\n"
        yield "Local values:\n"
        try:
            variables = sorted((str(name), value) for name, value in list(frame.f_locals.items()))
        except Exception:  # names are unique, so values are not compared; but a namespace can be any mapping
            variables = []
        for name, value in variables:
            yield f"    {name} = {self.value(name, value)}\n"

    def value(self, name: str, value: Any) -> str:
        """What is shown of a variable."""
        if self._secret is not None and self._secret.search(name):
            return "<hidden>"
        try:
            text = self._repr.repr(value)
        except BaseException:  # a broken __repr__ of the program, which can raise anything
            return f"<{type(value).__qualname__} whose repr failed>"
        if self._inside is not None:
            text = self._inside.sub(lambda match: f"{match['_name']}<hidden>", text)
        text = text.replace("\n", "\\n")
        return text if len(text) <= self._max_value else text[: self._max_value] + "..."


def _traces(trace: TracebackType | None) -> list[TracebackType]:
    traces: list[TracebackType] = []
    while trace is not None:
        traces.append(trace)
        trace = trace.tb_next
    return traces


def detailed_traceback(error: BaseException) -> list[str]:
    """The lines of a traceback, the innermost frame last, each frame with its variables."""
    return DetailedTraceback()(error)


@hookimpl
def pyro_settings(schema: Schema) -> None:
    """DETAILED_TRACEBACK and what it shows."""
    schema.add(
        Setting(
            "DETAILED_TRACEBACK", bool, False, "tracebacks sent to clients show local variables", owner="tracebacks"
        )
    )
    schema.add(
        Setting(
            "TRACEBACK_REDACT",
            str,
            REDACT,
            "regular expression: variables with such names are not shown in detailed tracebacks",
            owner="tracebacks",
            check=_wrong_pattern,
        )
    )
    schema.add(
        Setting(
            "TRACEBACK_MAX_VALUE",
            int,
            MAX_VALUE,
            "characters of one variable's value in detailed tracebacks",
            owner="tracebacks",
            minimum=0,
        )
    )


@hookimpl
@steady
def pyro_bind(connection: Any) -> Steps | None:
    """On the server, if it is wanted."""
    settings = connection.settings
    if connection.side == "server" and settings.DETAILED_TRACEBACK:
        return _steps(settings.TRACEBACK_REDACT, settings.TRACEBACK_MAX_VALUE)
    return None


@functools.lru_cache(maxsize=8)
def _steps(redact: str, max_value: int) -> Steps:
    return Steps(format_traceback=DetailedTraceback(redact, max_value))
