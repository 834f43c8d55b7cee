"""The systems that are measured: one adapter module each.

An adapter has three functions and a list::

    SPECS = [Spec("mine-msgpack", "mine", {"serializer": "msgpack"})]


    def missing() -> str | None: ...  # why it cannot run here
    def serve(spec, address, ready) -> None: ...  # in the server process; never returns
    def connect(spec, location) -> Client: ...  # in the client process

``address`` is None for TCP (any free port on 127.0.0.1) or the path of a Unix socket; ``ready(location)`` is
called once clients can come, with whatever text ``connect`` needs.  A new adapter is named in ``MODULES``.
"""

from __future__ import annotations

import importlib
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

__all__ = [
    "MODULES",
    "Adapter",
    "Awaited",
    "Client",
    "Echo",
    "Ready",
    "Served",
    "Spec",
    "Target",
    "Traffic",
    "adapter",
    "all_specs",
    "rows_of",
]

MODULES = ("raw", "raw_aio", "ours", "pyro5", "pyro4", "managers", "thrift_", "rpyc_", "grpc_", "zerorpc_", "names")
"""The adapters, in the order of the tables."""

Ready = Callable[[str], None]


@dataclass(frozen=True)
class Spec:
    """One system in one configuration."""

    name: str
    """What the tables call it."""
    module: str
    """The adapter."""
    options: Mapping[str, str] = field(default_factory=dict)
    peer: str = ""
    """The name of the peer system to compare with (Pyro5 with the same serializer)."""
    rows: tuple[str, ...] = ()
    """The only workloads for it; () for all it can do."""
    tree: str = ""
    """Another source tree to measure instead of the installed one."""
    note: str = ""

    def at(self, tree: str, label: str) -> Spec:
        """The same, from another source tree."""
        return replace(self, tree=tree, name=f"{self.name}@{label}")


class Target(Protocol):
    """What a call is made on; the workloads say ``target.echo(value)``, as a program would."""

    def echo(self, value: Any, /) -> Any:
        """Give the value back."""
        ...


class Awaited(Protocol):
    """A target whose calls are awaited."""

    def echo(self, value: Any, /) -> Awaitable[Any]:
        """Give the value back."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


@dataclass(frozen=True)
class Traffic:
    """One call of ``echo(42)`` as bytes, for a load that is the same for every server and costs the client little."""

    open: Callable[[], socket.socket]
    """A new connection that is ready for requests."""
    request: bytes
    """May be sent again and again on each connection; all replies have the same length."""


@dataclass
class Client:
    """A connection, with what only some systems have.

    The targets of these also have ``fire`` (oneway), ``fired`` (how many of them were run), ``nap`` (sleeps), ``numbers``
    (a generator) and ``info`` (takes a blob).
    """

    target: Target
    close: Callable[[], object]
    batch: Callable[[], Any] | None = None
    """Makes something that collects calls, and is called to make them."""
    blob: Callable[[str, Any], Any] | None = None
    """Makes a value that stays encoded."""
    traffic: Traffic | None = None
    awaited: Callable[[], Awaitable[Awaited]] | None = None
    """Connects for calls that are awaited, in the event loop that runs."""
    shared: Callable[[str], Callable[[Any], Any]] | None = None
    """Makes a method of the target one that many threads may call; None where it is that anyway."""


class Served:
    """The object that Python's remote object systems serve."""

    def __init__(self) -> None:
        self._fired = self._napping = self._most = 0
        self._lock = threading.Lock()

    def echo(self, value: Any) -> Any:
        """Give the value back."""
        return value

    def fire(self, value: Any) -> None:
        """Count the calls: a oneway method."""
        with self._lock:
            self._fired += 1

    def fired(self) -> int:
        """How many calls of ``fire`` there were."""
        return self._fired

    def nap(self, seconds: float) -> None:
        """Take time without using the processor."""
        with self._lock:
            self._napping += 1
            self._most = max(self._most, self._napping)
        time.sleep(seconds)
        with self._lock:
            self._napping -= 1

    def most_at_once(self) -> int:
        """How many calls of ``nap`` there were at the same time."""
        return self._most

    def numbers(self, count: int) -> Iterator[int]:
        """A generator."""
        yield from range(count)

    def info(self, blob: Any) -> Any:
        """What stands on a blob."""
        return blob.info


@dataclass
class Echo:
    """A target made of a function."""

    echo: Callable[[Any], Any]


class Adapter(Protocol):
    """The shape of an adapter module."""

    SPECS: list[Spec]

    def missing(self) -> str | None:
        """Why the system cannot be measured here, or None."""
        ...

    def serve(self, spec: Spec, address: str | None, ready: Ready) -> None:
        """Serve until the process is killed."""
        ...

    def connect(self, spec: Spec, location: str) -> Client:
        """A connection, ready for calls (systems that connect late may do so in the first call)."""
        ...


def rows_of(serializer: str) -> tuple[str, ...]:
    """The workloads that a serializer can do: json has no bytes."""
    return ("echo-42", "echo-dict", "echo-42-unix", "connect") if serializer == "json" else ()


def adapter(module: str) -> Adapter:
    """The adapter of that name."""
    return cast(Adapter, importlib.import_module(f"benchmarks.systems.{module}"))


def all_specs() -> list[Spec]:
    """Every configuration of every system, installed or not."""
    return [spec for module in MODULES for spec in adapter(module).SPECS]
