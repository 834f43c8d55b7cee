"""What a client process does for a probe: one method for each command."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from benchmarks.systems import Client, Traffic

__all__ = ["Tasks"]


class Tasks:
    """The client's side of one probe; connections stay open until the process ends."""

    def __init__(self, connect: Callable[[], Client]) -> None:
        self._connect = connect
        self._stack = ExitStack()
        self._held: tuple[Any, bytes] | None = None
        self._idle = 0
        self._clients: list[Client] = []

    # ------------------------------------------------------------- memory
    def hold(self, size: int) -> dict[str, Any]:
        """Connect, and have a value ready."""
        client = self._connect()
        client.target.echo(b"small")
        self._held = client.target, bytes(size)
        return {}

    def echo_held(self) -> dict[str, Any]:
        """Send the value and receive it."""
        assert self._held is not None
        target, value = self._held
        target.echo(value)
        return {}

    def open(self, total: int) -> dict[str, Any]:
        """Connections with one call each, until there are so many or the server refuses one."""
        traffic = self._traffic()
        with contextlib.suppress(OSError, AssertionError, IndexError):
            while self._idle < total:
                sock = traffic.open()
                sock.settimeout(10)
                sock.sendall(traffic.request)
                if not sock.recv(4096):
                    break
                self._stack.callback(sock.close)
                self._idle += 1
        return {"connected": self._idle}

    def one_more(self) -> dict[str, Any]:
        """Milliseconds that one more client needs to connect and call, and microseconds of a call then."""
        traffic = self._traffic()
        begin = time.perf_counter()
        with traffic.open() as sock:
            sock.settimeout(10)
            sock.sendall(traffic.request)
            if not sock.recv(4096):
                raise ConnectionError("the server has closed the connection")
            first = time.perf_counter()
            for _ in range(1000):
                sock.sendall(traffic.request)
                sock.recv(4096)
            end = time.perf_counter()
        return {"first": (first - begin) * 1e3, "each": (end - first) * 1e3}

    def _traffic(self) -> Traffic:
        client = self._connect()
        client.close()
        if client.traffic is None:
            raise NotImplementedError("this system has no such thing")
        return client.traffic

    # ------------------------------------------------------------- waits
    def ready(self, count: int) -> dict[str, Any]:
        """So many connections."""
        self._clients = [self._connect() for _ in range(count)]
        for client in self._clients:
            client.target.echo(42)
        return {}

    def naps(self, delay: float, seconds: float) -> dict[str, Any]:
        """A slow call over each connection, in the background and not at once."""

        def later(target: Any) -> None:
            if hasattr(target, "_pyroClaimOwnership"):  # Pyro5: a proxy belongs to the thread that made it
                target._pyroClaimOwnership()
            time.sleep(delay)
            target.nap(seconds)

        for client in self._clients:
            threading.Thread(target=later, args=(client.target,), daemon=True).start()
        return {}

    def longest_wait(self, seconds: float) -> dict[str, Any]:
        """Milliseconds of the slowest of many calls."""
        target = self._clients[0].target
        longest = 0.0
        now = time.perf_counter()
        end = now + seconds
        while now < end:
            target.echo(42)
            before, now = now, time.perf_counter()
            longest = max(longest, now - before)
        return {"milliseconds": longest * 1e3}

    def in_flight(self, threads: int, calls: int, seconds: float) -> dict[str, Any]:
        """How many calls that take some time were under way at once, over one proxy."""
        client = self._connect()
        target: Any = client.target
        target.echo(42)
        nap = client.shared("nap") if client.shared else target.nap

        def call(_: int) -> None:
            for _ in range(calls):
                nap(seconds)

        with ThreadPoolExecutor(threads) as pool:
            begin = time.perf_counter()
            list(pool.map(call, range(threads)))
            taken = time.perf_counter() - begin
        other: Any = self._connect().target
        return {"mean": threads * calls * seconds / taken, "most": other.most_at_once()}

    def calls(self, count: int) -> dict[str, Any]:
        """Plain calls."""
        target = self._connect().target
        for _ in range(count):
            target.echo(42)
        return {}
