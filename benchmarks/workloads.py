"""What is measured: each workload is a loop that runs in a client process.

A workload's ``start`` gets ready (connects, checks one answer) and returns a function that does a number of
operations; only that function is timed.
"""

from __future__ import annotations

import asyncio
import itertools
import selectors
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from benchmarks.systems import Client
from benchmarks.systems.raw_aio import new_loop

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
MANY = 1000
"""Calls in a batch, and items of a stream."""
SHARING = 16
"""Threads that share a proxy."""
TASKS = 100
"""Tasks that share a connection."""
BUSY = 64
"""Clients that are busy at the same time."""
TEXT = "0123456789" * 10_000
"""What a blob holds."""

NAME_SERVERS = ("ns-pyroplug-msgpack", "ns-pyro5-msgpack", "ns-pyroplug-serpent", "ns-pyro5-serpent", "echo-msgpack")
BOTH = (
    "pyroplug-default",
    "pyroplug-thread-msgpack",
    "pyroplug-thread-serpent",
    "pyro5-thread-msgpack",
    "pyro5-thread-serpent",
)
"""The systems of workloads that are about something else than loops and formats."""


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
    """The system that the ratio to the limit refers to; empty where there is none."""
    systems: tuple[str, ...] = ()
    """The only systems for it; () for all that can do it."""
    units: int = 1
    """How many calls or items one operation consists of; figures are shown for one of these."""
    pin: bool = True
    """Client and server take turns: on one CPU, waking another one does not disturb the measurement."""
    server_only: bool = False
    """Whether only the server's CPU time counts, because the clients are no program of that system."""


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


def _batch(connect: Connect, stack: ExitStack) -> Operation:
    client = connect()
    stack.callback(client.close)
    batch = _has(client.batch)()

    def operation(count: int) -> None:
        for _ in itertools.repeat(None, count):
            for _ in itertools.repeat(None, MANY):
                batch.echo(42)
            got = list(batch())
            if len(got) != MANY or got[-1] != 42:
                raise AssertionError(f"a batch gave {len(got)} results")

    return operation


def _oneway(connect: Connect, stack: ExitStack) -> Operation:
    client = connect()
    stack.callback(client.close)
    target: Any = client.target

    def operation(count: int) -> None:
        wanted = target.fired() + count * MANY
        for _ in itertools.repeat(None, count * MANY):
            target.fire(42)
        give_up = time.monotonic() + 20
        while target.fired() < wanted:  # sent is not done
            if time.monotonic() > give_up:
                raise AssertionError("oneway calls were lost")
            time.sleep(0.0005)

    return operation


def _stream(items: int) -> Callable[[Connect, ExitStack], Operation]:
    def start(connect: Connect, stack: ExitStack) -> Operation:
        client = connect()
        stack.callback(client.close)
        target: Any = client.target

        def operation(count: int) -> None:
            for _ in itertools.repeat(None, count):
                got = 0
                for _ in target.numbers(items):
                    got += 1
                if got != items:
                    raise AssertionError(f"a stream gave {got} items")

        return operation

    return start


def _shared(connect: Connect, stack: ExitStack) -> Operation:
    """Threads that call over one connection."""
    # they end after the connection: Pyro5's proxies keep a greenlet of the thread that owns them, and cannot
    # survive (the process ends with a segmentation fault) that a thread has ended which still is the owner
    pool = stack.enter_context(ThreadPoolExecutor(SHARING))
    client = connect()
    stack.callback(client.close)
    echo = client.shared("echo") if client.shared else client.target.echo

    def calls(count: int) -> None:
        for _ in itertools.repeat(None, count):
            if echo(42) != 42:
                raise AssertionError("a thread got the answer of another one")

    def operation(count: int) -> None:
        list(pool.map(calls, [count] * SHARING))

    return operation


def _awaits(tasks: int) -> Callable[[Connect, ExitStack], Operation]:
    """Tasks on one connection, each with one call in flight."""

    def start(connect: Connect, stack: ExitStack) -> Operation:
        client = connect()
        stack.callback(client.close)
        loop = new_loop()
        stack.callback(loop.close)
        target = loop.run_until_complete(_has(client.awaited)())
        stack.callback(lambda: loop.run_until_complete(target.close()))

        async def calls(count: int) -> None:
            for _ in itertools.repeat(None, count):
                if await target.echo(42) != 42:
                    raise AssertionError("a task got the answer of another one")

        async def all_tasks(count: int) -> None:
            await asyncio.gather(*(calls(count) for _ in range(tasks)))

        def operation(count: int) -> None:
            loop.run_until_complete(calls(count) if tasks == 1 else all_tasks(count))

        return operation

    return start


def _blob(connect: Connect, stack: ExitStack) -> Operation:
    client = connect()
    stack.callback(client.close)
    target: Any = client.target
    make = _has(client.blob)
    if target.info(make("x", TEXT)) != "x":
        raise AssertionError("the blob did not arrive as one")

    def operation(count: int) -> None:
        for _ in itertools.repeat(None, count):
            target.info(make("x", TEXT))

    return operation


def _busy(connect: Connect, stack: ExitStack) -> Operation:
    """Many clients at once, each with one call in flight; their side is a loop over sockets, the same for all."""
    client = connect()
    stack.callback(client.close)
    traffic = client.traffic
    if traffic is None:
        raise NotImplementedError("this system has no such thing")
    socks = [stack.enter_context(traffic.open()) for _ in range(BUSY)]
    first = socks[0]
    first.sendall(traffic.request)
    size = len(first.recv(4096))  # so small an answer comes in one piece
    poller = selectors.DefaultSelector()
    stack.callback(poller.close)
    for sock in socks:
        sock.settimeout(30)
        poller.register(sock, selectors.EVENT_READ)

    def operation(count: int) -> None:
        sent = BUSY
        for sock in socks:
            sock.send(traffic.request)
        answered = 0
        while answered < count * MANY:
            for key, _ in poller.select():
                ready = key.fileobj
                assert isinstance(ready, socket.socket)
                if len(ready.recv(4096)) != size:
                    raise AssertionError("an answer of another length came")
                answered += 1
                if sent < count * MANY:
                    ready.send(traffic.request)
                    sent += 1

    return operation


def _names(call: Callable[[Any, int], Any], expected: int | None = None) -> Callable[[Connect, ExitStack], Operation]:
    """Calls of a name server; ``expected`` is the number of names in the answer."""

    def start(connect: Connect, stack: ExitStack) -> Operation:
        client = connect()
        stack.callback(client.close)
        target = client.target
        answer = call(target, 77)
        if expected is not None and len(answer) < expected:
            raise AssertionError(f"{len(answer)} names, and not {expected}")
        numbers = itertools.cycle(range(100))

        def operation(count: int) -> None:
            for number in itertools.islice(numbers, count):
                call(target, number)

        return operation

    return start


def _register_again(target: Any, number: int) -> None:
    target.register(f"bench.old{number}", "PYRO:object@localhost:4444", metadata=["bench"])


def _by_tag(target: Any, number: int) -> Any:
    return target.yplookup(meta_all=[f"zone{number}"], return_metadata=False)


def _register_and_remove(target: Any, number: int) -> None:
    target.register(f"bench.new{number}", "PYRO:object@localhost:4444", metadata=["bench"])
    if target.remove(f"bench.new{number}") != 1:
        raise AssertionError("nothing was removed")


def _has(member: Callable[..., Any] | None) -> Callable[..., Any]:
    if member is None:
        raise NotImplementedError("this system has no such thing")
    return member


WORKLOADS = {
    workload.key: workload
    for workload in (
        Workload("echo-42", "echo(42), TCP", _echo(42)),
        Workload("echo-42-unix", "echo(42), Unix socket", _echo(42), unix=True),
        Workload("echo-dict", "echo(dict of 10 fields), TCP", _echo(RECORD)),
        Workload("bytes-1mb", "echo(1 MB bytes), TCP", _echo(MEGABYTE), megabytes=1.048576, limit="raw-bytes"),
        Workload(
            "bytes-64mb",
            "echo(64 MB bytes), TCP",
            _echo(MEGABYTE * 64),
            megabytes=67.108864,
            limit="raw-bytes",
            systems=("raw-bytes", "raw-msgpack", "pyroplug-default", "pyroplug-thread-msgpack", "pyro5-thread-msgpack"),
        ),
        Workload("connect", "connect + call + close, TCP", _connect),
        Workload("batch-1000", "batch of 1000 echo(42), per call", _batch, systems=("raw-msgpack", *BOTH), units=MANY),
        Workload(
            "oneway",
            "1000 oneway calls, until the server has run them, per call",
            _oneway,
            systems=("raw-msgpack", *BOTH),
            units=MANY,
        ),
        Workload(
            "stream",
            "remote generator of 1000 numbers, per item",
            _stream(MANY),
            systems=("raw-msgpack", *BOTH),
            units=MANY,
        ),
        Workload(
            "stream-100k",
            "remote generator of 100,000 numbers, per item",
            _stream(100 * MANY),
            systems=("raw-msgpack", "pyroplug-default", "pyroplug-thread-msgpack"),
            units=100 * MANY,
        ),
        Workload(
            "shared-16",
            "16 threads that share one proxy, echo(42), TCP",
            _shared,
            systems=("raw-msgpack", *BOTH),
            units=SHARING,
        ),
        Workload(
            "await-1",
            "asyncio: one call after the other, TCP",
            _awaits(1),
            limit="raw-aio-msgpack",
            systems=("raw-aio-msgpack", "pyroplug-thread-msgpack", "pyroplug-multiplex-msgpack"),
        ),
        Workload(
            "await-100",
            "asyncio: 100 tasks on one connection, TCP",
            _awaits(TASKS),
            limit="raw-aio-msgpack",
            systems=("raw-aio-msgpack", "pyroplug-thread-msgpack", "pyroplug-multiplex-msgpack"),
            units=TASKS,
        ),
        Workload(
            "busy-64",
            "64 busy clients, echo(42), TCP; CPU us is the server's",
            _busy,
            systems=(
                "raw-msgpack",
                "pyroplug-thread-msgpack",
                "pyroplug-multiplex-msgpack",
                "pyro5-thread-msgpack",
                "pyro5-multiplex-msgpack",
            ),
            units=MANY,
            pin=False,
            server_only=True,
        ),
        Workload("blob-100kb", "SerializedBlob of 100 KB of text, not decoded", _blob, limit="", systems=BOTH),
        *(
            Workload(key, f"Name server with 100,000 names: {title}", start, limit=limit, systems=NAME_SERVERS)
            for key, title, start, limit in (
                (
                    "ns-lookup",
                    "look one up",
                    _names(lambda ns, n: ns.lookup(f"app.group{n}.service-{n}")),
                    "echo-msgpack",
                ),
                ("ns-register", "register one again", _names(_register_again), ""),
                ("ns-remove", "register a new one and remove it", _names(_register_and_remove), ""),
                ("ns-prefix", "list 1000 by prefix", _names(lambda ns, n: ns.list(prefix=f"app.group{n}."), 1000), ""),
                ("ns-regex", "list 11 by regex", _names(lambda ns, n: ns.list(regex=".*service-7777.*"), 11), ""),
                ("ns-tags", "look 100 up by tag", _names(_by_tag, 100), ""),
                ("ns-list", "list all of them", _names(lambda ns, n: ns.list(), 100_000), ""),
            )
        ),
    )
}
"""By key, in the order of the report."""
