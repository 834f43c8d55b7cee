"""Text, tables, JSON and colours.

Colours and boxes appear on terminals only; what programs read is plain.  Text that came from elsewhere
cannot steer the terminal.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import json
import os
import sys
import unicodedata
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click

from pyroplug.core.proxy import ProxyBase
from pyroplug.core.uri import URI

__all__ = [
    "clean",
    "color_allowed",
    "live_table",
    "milliseconds",
    "print_json",
    "print_text",
    "show_value",
    "table",
    "value_text",
]


def color_allowed() -> bool | None:
    """False where colours are not wanted (NO_COLOR, a dumb terminal); None leaves it to the kind of stream."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return None


def clean(text: str) -> str:
    """``text`` without characters that could steer a terminal; line ends and tabs stay."""
    if text.isprintable():
        return text
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else _escape(c) for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _clean_json(text: str) -> str:
    """JSON text without such characters; it stays JSON, and means the same."""
    if text.isprintable():
        return text
    return "".join(c if c == "\n" or c.isprintable() else json.dumps(c)[1:-1] for c in text)


def milliseconds(seconds: float) -> str:
    """A time for people: ``0.123 ms``."""
    return f"{seconds * 1000:.3f} ms"


def print_text(text: str = "", *, err: bool = False, **style: Any) -> None:
    """One piece of text; ``style`` as of ``click.style``."""
    click.echo(click.style(clean(text), **style) if style else clean(text), err=err)


# --------------------------------------------------------------------------- JSON
def print_json(value: Any) -> None:
    """``value`` for programs."""
    click.echo(_clean_json(json.dumps(value, indent=2, ensure_ascii=False, default=_plain_or_text)))


def _plain_or_text(value: Any) -> Any:
    try:
        return _plain(value)
    except TypeError:
        return repr(value)


def _plain(value: Any) -> Any:
    """What stands for a value that JSON does not know; TypeError where nothing does."""
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (uuid.UUID, decimal.Decimal)):
        return str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"data": base64.b64encode(value).decode(), "encoding": "base64"}
    if isinstance(value, URI):
        return str(value)
    if isinstance(value, ProxyBase):
        return str(value._pyroUri)
    raise TypeError(f"{type(value).__qualname__} has no form in JSON")


def value_text(value: Any) -> str:
    """A value as one line of JSON, or as Python shows it where JSON has nothing for it (NaN, odd keys, objects)."""
    try:
        return _clean_json(json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain))
    except (TypeError, ValueError, RecursionError):
        return clean(repr(value))


def show_value(value: Any, *, raw: bool = False) -> None:
    """Print the result of a call; with ``raw`` a text without quotes."""
    if raw and isinstance(value, str):
        click.echo(clean(value) if sys.stdout.isatty() else value, color=True)  # True: nothing is taken out
    else:
        click.echo(value_text(value))


# --------------------------------------------------------------------------- tables
def table(headers: Sequence[str], rows: Sequence[Sequence[str]], colors: Mapping[str, str] | None = None) -> None:
    """Rows in columns: with lines around them on a terminal (if ``rich`` is installed), else as plain text.

    ``colors`` gives cells with these texts a colour.
    """
    rows = _cleaned(rows)
    rich = _rich_table(headers, rows, colors or {}) if sys.stdout.isatty() else None
    if rich is None:
        _plain_table(headers, rows, colors or {})
    else:
        _console().print(rich)


@contextmanager
def live_table(
    headers: Sequence[str], colors: Mapping[str, str] | None = None
) -> Iterator[Callable[[str, Sequence[Sequence[str]]], None]]:
    """A table that changes: gives a function that shows a title and the rows of now in place of those before.

    Where the output is no terminal, one table follows the other.
    """
    colors = colors or {}

    def show_plainly(title: str, rows: Sequence[Sequence[str]]) -> None:
        click.clear()  # nothing, where there is no terminal
        print_text(title)
        _plain_table(headers, _cleaned(rows), colors)

    if not sys.stdout.isatty() or _rich_table(headers, [], colors) is None:
        yield show_plainly
        return
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    with Live(console=_console(), auto_refresh=False) as live:

        def show(title: str, rows: Sequence[Sequence[str]]) -> None:
            live.update(Group(Text(clean(title)), _rich_table(headers, _cleaned(rows), colors)), refresh=True)

        yield show


def _cleaned(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[clean(cell).replace("\n", " ") for cell in row] for row in rows]


def _plain_table(headers: Sequence[str], rows: Sequence[Sequence[str]], colors: Mapping[str, str]) -> None:
    widths = [max(len(row[i]) for row in [headers, *rows]) for i in range(len(headers))]
    for number, row in enumerate([[h.upper() for h in headers], *rows]):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        if number:
            cells = [
                click.style(cell, fg=colors[text]) if text in colors else cell
                for cell, text in zip(cells, row, strict=True)
            ]
        click.echo("  ".join(cells).rstrip())


def _rich_table(headers: Sequence[str], rows: Sequence[Sequence[str]], colors: Mapping[str, str]) -> Any:
    """The table for a terminal; None without the package ``rich``."""
    try:
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return None
    shown = Table()
    for header in headers:
        shown.add_column(header, overflow="fold")
    for row in rows:
        shown.add_row(*(Text(cell, style=colors.get(cell, "")) for cell in row))
    return shown


def _console() -> Any:
    from rich.console import Console

    return Console(no_color=color_allowed() is False)
