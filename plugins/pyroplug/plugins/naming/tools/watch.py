"""The live view of ``nsc watch``."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import click

from pyroplug.cli.output import live_table, milliseconds, print_json, print_text, table
from pyroplug.core.errors import CommunicationError, NamingError, PyroError, URIError
from pyroplug.core.uri import URI

from .checks import ANSWERS, Answer, Checker
from .nsc import Entry, Tool, read_entries

__all__ = ["Watch"]

HEADERS = ("name", "address", "state", "time", "metadata", "reason")
COLORS: Mapping[str, str] = {
    "answers": "green",
    "gone": "red",
    "silent": "red",
    "unknown": "yellow",
    "refuses": "yellow",
    "wrong": "red",
}


@dataclass(frozen=True)
class Look:
    """What was seen at one time."""

    uri: str
    status: dict[str, Any]
    seen: list[tuple[Entry, Answer]]

    @property
    def well(self) -> bool:
        """Whether everything answers."""
        return all(answer.state == ANSWERS for _, answer in self.seen)

    def title(self) -> str:
        """The line above the table."""
        answering = sum(answer.state == ANSWERS for _, answer in self.seen)
        extra = "".join(
            f", {name}: {self.status[name]}" for name in ("version", "storage", "leases") if name in self.status
        )
        return f"{self.uri}: {len(self.seen)} names, {answering} answer{extra} ({time.strftime('%H:%M:%S')})"

    def rows(self) -> list[Sequence[str]]:
        """The rows of the table."""
        return [
            (
                entry.name,
                _address(entry.uri),
                answer.state,
                "" if answer.seconds is None else milliseconds(answer.seconds),
                " ".join(entry.tags),
                answer.reason,
            )
            for entry, answer in self.seen
        ]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        names = [
            {
                **entry.as_dict(),
                "address": _address(entry.uri),
                "state": answer.state,
                "ms": None if answer.seconds is None else answer.seconds * 1000,
                "reason": answer.reason,
            }
            for entry, answer in self.seen
        ]
        return {"name_server": self.uri, "status": self.status, "names": names}


def _address(uri: str) -> str:
    try:
        return URI(uri).location
    except URIError:
        return uri


class Watch:
    """Looks again and again; the name server may go and come back meanwhile."""

    def __init__(self, tool: Tool, prefix: str | None, interval: float, workers: int) -> None:
        self._tool = tool
        self._prefix = prefix
        self._interval = interval
        self._checker = Checker(tool.session.kernel, min(tool.timeout, 2.0), workers)

    def run(self, once: bool) -> bool:
        """Show what is there, until Ctrl-C or once; whether everything answered in the end."""
        try:
            if once:
                look = self._look()
                self._show_once(look)
                return look.well
            with ExitStack() as stack:
                show = self._show_json if self._tool.as_json else self._show_table(stack)
                self._go_on(show)
            return True
        finally:
            self._checker.close()

    def _look(self) -> Look:
        with self._tool.name_server() as proxy:
            found = proxy.list(prefix=self._prefix, return_metadata=True)
            status = dict(proxy.status()) if "status" in proxy._pyroMethods else {}
            uri = str(proxy._pyroUri)
        entries = read_entries(found)
        answers = self._checker.check(entry.uri for entry in entries)
        return Look(uri, status, [(entry, answers[entry.uri]) for entry in entries])

    def _go_on(self, show: Callable[[Look | PyroError], None]) -> None:
        pause = threading.Event()
        try:
            show(self._look())  # without a name server there is nothing to watch: this one may raise
            while True:
                pause.wait(self._interval)
                try:
                    show(self._look())
                except (CommunicationError, NamingError) as exc:
                    show(exc)
        except KeyboardInterrupt:
            pass  # how one leaves a live view

    def _show_once(self, look: Look) -> None:
        if self._tool.as_json:
            print_json(look.as_dict())
        else:
            print_text(look.title())
            table(HEADERS, look.rows(), COLORS)

    def _show_json(self, look: Look | PyroError) -> None:
        shown = look.as_dict() if isinstance(look, Look) else {"error": str(look)}
        click.echo(json.dumps(shown))  # ASCII only: nothing in it steers a terminal

    def _show_table(self, stack: ExitStack) -> Callable[[Look | PyroError], None]:
        draw = stack.enter_context(live_table(HEADERS, COLORS))

        def show(look: Look | PyroError) -> None:
            if isinstance(look, Look):
                draw(look.title(), look.rows())
            else:
                draw(f"the name server does not answer: {look}", [])

        return show
