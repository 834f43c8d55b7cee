"""Fixtures for what hostile peers send."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from pyroplug.api import expose
from pyroplug.testing.kernels import Serve, Served

Harmless = Callable[..., AbstractContextManager[list[logging.LogRecord]]]


@expose
class Target:
    """What is attacked; ``calls`` says what got through."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def echo(self, value: Any = None) -> Any:
        self.calls.append(value)
        return value

    def bad_result(self) -> Any:
        return object()

    def make(self, size: int) -> str:
        return "x" * size

    def _private(self) -> None:
        self.calls.append("private!")


class Hidden:
    """One method is exposed, one is not."""

    @expose
    def shown(self) -> str:
        return "shown"

    def hidden(self) -> str:
        return "hidden"


@pytest.fixture(params=["thread", "multiplex"])
def serve(request: pytest.FixtureRequest) -> Iterator[Serve]:
    """A daemon on TCP with a :class:`Target` called "thing" and a :class:`Hidden` called "hidden"."""
    with contextlib.ExitStack() as stack:

        def make(transport: str = "tcp4", **settings: Any) -> Served:
            served = Served(transport, request.param, settings=settings)
            stack.enter_context(served)
            served.publish(Target(), "thing")
            served.publish(Hidden(), "hidden")
            return served

        yield make


@pytest.fixture
def harmless(caplog: pytest.LogCaptureFixture) -> Harmless:
    """A context in which others are served before, during and after, and the log gets one line about it."""

    @contextlib.contextmanager
    def guard(served: Served, lines: int = 1) -> Iterator[list[logging.LogRecord]]:
        bystander = served.proxy()
        assert bystander.echo("before") == "before"
        caplog.clear()
        records: list[logging.LogRecord] = []
        yield records
        assert bystander.echo("after") == "after"
        assert served.proxy().echo("newcomer") == "newcomer"
        ours = [record for record in caplog.records if record.name.startswith("pyroplug")]
        records += [record for record in ours if record.levelno >= logging.WARNING]
        assert len(records) == lines, [record.getMessage() for record in records]
        assert all("\n" not in record.getMessage() for record in records)
        assert not any(record.exc_info for record in records), "a traceback in the log for a peer's mistake"

    return guard
