"""What is measured: each workload is a loop that runs in a client process.

A workload's ``start`` gets ready (connects, checks one answer) and returns a function that does a number of
operations; only that function is timed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from benchmarks.systems import Client

__all__ = ["RECORD", "WORKLOADS", "Connect", "Operation", "Workload"]

Connect = Callable[[], Client]
Operation = Callable[[int], None]

RECORD = {
    "id": 1234567,
    "name": "Irmen de Jong",
    "email": "irmen@razorvine.example",
    "active": True,
    "score": 12.75,
    "tags": ["python", "remote", "objects"],
    "parent": None,
    "address": {"street": "Main street 12", "city": "Utrecht"},
    "visits": 42,
    "comment": "a text of average length, as records have them",
}
"""A dict of ten fields."""

MEGABYTE = bytes(range(256)) * 4096


@dataclass(frozen=True)
class Workload:
    """One row of the results."""

    key: str
    title: str
    start: Callable[[Connect, ExitStack], Operation]
    unix: bool = False
    megabytes: float = 0.0
    """What one operation carries in one direction, for workloads that are shown as MB/s."""
    limit: str = "raw-msgpack"
    """The system that the ratio to the limit refers to."""
    pin: bool = True
    """Client and server take turns: on one CPU, waking another one does not disturb the measurement."""


def _echo(value: Any) -> Callable[[Connect, ExitStack], Operation]:
    def start(connect: Connect, stack: ExitStack) -> Operation:
        client = connect()
        stack.callback(client.close)
        answer = client.target.echo(value)
        # serpent and json deliver bytes in an envelope of text
        if answer != value and not isinstance(value, bytes):
            raise AssertionError(f"echo({value!r}) gave {answer!r}")
        target = client.target

        def operation(count: int) -> None:
            for _ in itertools.repeat(None, count):
                target.echo(value)

        return operation

    return start


def _connect(connect: Connect, stack: ExitStack) -> Operation:
    def operation(count: int) -> None:
        for _ in itertools.repeat(None, count):
            client = connect()
            client.target.echo(42)
            client.close()

    return operation


WORKLOADS = {
    workload.key: workload
    for workload in (
        Workload("echo-42", "echo(42), TCP", _echo(42)),
        Workload("echo-42-unix", "echo(42), Unix socket", _echo(42), unix=True),
        Workload("echo-dict", "echo(dict of 10 fields), TCP", _echo(RECORD)),
        Workload("bytes-1mb", "echo(1 MB bytes), TCP", _echo(MEGABYTE), megabytes=1.048576, limit="raw-bytes"),
        Workload("connect", "connect + call + close, TCP", _connect),
    )
}
"""By key, in the order of the report."""
