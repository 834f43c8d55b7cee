"""Heartbeats: a network that stops passing anything on, seen from both ends; and what must not be taken for that."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pyroplug.api import AsyncProxy, ConnectionClosedError, Proxy, expose
from pyroplug.testing.kernels import PATIENCE, Served, make_kernel
from pyroplug.testing.transports import in_thread

pytestmark = pytest.mark.needs("beat", "mux")

BEATS = {"BEAT_INTERVAL": 0.2, "BEAT_MISSED": 4}
"""Missed after one second."""


@expose
class Thing:
    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)

    def echo(self, value: Any = None) -> Any:
        return value

    def slow(self, value: Any = None) -> Any:
        self.entered.release()
        self.gate.wait(PATIENCE)
        return value

    def sleep(self, seconds: float) -> str:
        time.sleep(seconds)
        return "slept"

    async def later(self, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "later"


class Relay:
    """A network between a client and a server: passes bytes on, until it is cut, and says nothing about it."""

    def __init__(self, host: str, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.cut = threading.Event()
        self.client_closed = threading.Event()
        self.server_closed = threading.Event()
        self.from_client = 0
        """Bytes; those that were swallowed too."""
        self._running = in_thread(self._run, host, port)

    def _run(self, host: str, port: int) -> None:
        client, _ = self._listener.accept()
        with client, socket.create_connection((host, port)) as server:
            back = threading.Thread(target=self._pump, args=(server, client, self.server_closed))
            back.start()
            self._pump(client, server, self.client_closed)
            if not self.cut.is_set():
                server.shutdown(socket.SHUT_RDWR)
            back.join(PATIENCE)

    def _pump(self, source: socket.socket, target: socket.socket, closed: threading.Event) -> None:
        try:
            while data := source.recv(65536):
                if closed is self.client_closed:
                    self.from_client += len(data)
                if not self.cut.is_set():
                    target.sendall(data)
        except OSError:
            pass
        closed.set()

    def close(self) -> None:
        """Both ends have closed."""
        self._running.result(PATIENCE)
        self._listener.close()


class Net:
    """A server, and a client behind a relay."""

    def __init__(self, server: dict[str, Any], client: dict[str, Any], loop: str = "thread") -> None:
        self.thing = Thing()
        self.served = Served("tcp4", loop, settings=server)
        self.served.publish(self.thing)
        uri = self.served.daemon.uriFor("thing")
        assert uri.host
        assert uri.port
        self.relay = Relay(uri.host, uri.port)
        self.kernel = make_kernel(**client)
        self.uri = f"PYRO:thing@127.0.0.1:{self.relay.port}"

    def proxy(self) -> Proxy:
        return Proxy(self.uri, kernel=self.kernel)

    def __enter__(self) -> Net:
        return self

    def __exit__(self, *_: object) -> None:
        self.thing.gate.set()
        self.served.__exit__(None, None, None)
        self.relay.close()
        self.kernel.close()


@pytest.fixture(params=["client", "server"])
def net(request: pytest.FixtureRequest) -> Iterator[Net]:
    """Beats are wanted by one side only."""
    wants: tuple[dict[str, Any], dict[str, Any]] = ({}, BEATS) if request.param == "client" else (BEATS, {})
    with Net(*wants) as made:
        yield made


def test_scenario_04_both_ends_find_out_that_the_network_is_gone(net: Net) -> None:
    with net.proxy() as proxy:
        assert proxy.echo(1) == 1
        callers = [in_thread(proxy.slow, number) for number in range(3)]
        for _ in callers:
            assert net.thing.entered.acquire(timeout=PATIENCE)
        net.relay.cut.set()
        for caller in callers:
            with pytest.raises(ConnectionClosedError, match=r"no heartbeat of .* for 1 s \(BEAT_INTERVAL=0.2"):
                caller.result(PATIENCE)
        assert net.relay.server_closed.wait(PATIENCE)  # while its methods still run
        assert not net.thing.gate.is_set()


def test_scenario_04_tasks_find_out_too(net: Net) -> None:
    async def main() -> None:
        async with AsyncProxy(net.uri, kernel=net.kernel) as proxy:
            tasks = [asyncio.ensure_future(proxy.slow(number)) for number in range(3)]
            for _ in tasks:
                assert await asyncio.to_thread(net.thing.entered.acquire, timeout=PATIENCE)
            net.relay.cut.set()
            for task in tasks:
                with pytest.raises(ConnectionClosedError, match="no heartbeat of"):
                    await asyncio.wait_for(task, PATIENCE)

    asyncio.run(main())
    assert net.relay.server_closed.wait(PATIENCE)


def test_scenario_26_methods_that_take_longer_than_that(net: Net) -> None:
    """Longer than the client waits for a beat, and than the server does, which looks once a second."""
    with net.proxy() as proxy:
        callers = [in_thread(proxy.sleep, 5.0), in_thread(proxy.later, 5.0)]
        assert [caller.result(PATIENCE) for caller in callers] == ["slept", "later"]
        connection = proxy._pyroConnection
        assert proxy.echo(2) == 2
        assert proxy._pyroConnection is connection
        assert not net.relay.server_closed.is_set()


def test_all_workers_are_busy() -> None:
    with Net({**BEATS, "THREADPOOL_SIZE": 1, "CALL_QUEUE_SIZE": 5}, {}) as net, net.proxy() as proxy:
        callers = [in_thread(proxy.sleep, 2.0) for _ in range(2)]
        assert [caller.result(PATIENCE) for caller in callers] == ["slept", "slept"]


def test_a_task_may_wait_longer_than_that(net: Net) -> None:
    async def main() -> None:
        async with AsyncProxy(net.uri, kernel=net.kernel) as proxy:
            assert list(await asyncio.gather(proxy.sleep(4.0), proxy.later(4.0))) == ["slept", "later"]
            assert await proxy.echo(3) == 3

    asyncio.run(main())


@pytest.mark.parametrize("loop", ["multiplex", "asyncio"])
def test_servers_that_run_one_call_at_a_time_do_not_agree(loop: str) -> None:
    """They could not answer while a plain method runs, and would be taken for dead."""
    with Net(BEATS, BEATS, loop) as net, net.proxy() as proxy:
        assert proxy.sleep(2.0) == "slept"
        assert proxy._pyroConnection.plan.pulse is None


def test_nobody_watches_idle_clients(net: Net) -> None:
    with net.proxy() as proxy:
        assert proxy.echo(1) == 1
        before = net.relay.from_client
        assert not net.relay.server_closed.wait(4.0)
        assert net.relay.from_client == before
        connection = proxy._pyroConnection
        assert proxy.echo(2) == 2
        assert proxy._pyroConnection is connection


def test_off_means_that_nothing_is_said() -> None:
    with Net({}, {}) as net, net.proxy() as proxy:
        assert proxy.echo(1) == 1
        assert proxy._pyroConnection.plan.pulse is None
        assert proxy._pyroConnection._small  # the short way is open


def test_sockets_of_the_program_are_not_watched() -> None:
    with Served("pair", settings=BEATS) as served:
        served.publish(Thing())
        with served.proxy() as proxy:
            assert proxy.echo(1) == 1
            assert proxy._pyroConnection.plan.pulse is None
