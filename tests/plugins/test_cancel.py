"""Calls that nobody waits for any more, and the server that is told."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pyroplug.api import PluginError, Proxy, TimeoutError, asyncproxy, current_context, expose, ping
from pyroplug.core.wire import encode
from pyroplug.plugins.cancel import CANCEL, Scope
from pyroplug.plugins.futures import FutureCancelled
from pyroplug.testing.kernels import LOOPS, PATIENCE, Served, make_kernel
from testkit.timeouts import scaled

pytestmark = pytest.mark.needs("cancel", "mux")

SHORT = 0.1


@expose
class Thing:
    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)
        self.cancelled = threading.Event()
        self.calls: list[Any] = []

    def echo(self, value: Any = None) -> Any:
        self.calls.append(value)
        return value

    def polite(self) -> str:
        """Waits until its caller gives up."""
        token = current_context.cancelled
        assert not token
        self.entered.release()
        if token.wait(PATIENCE):
            assert token
            assert current_context.cancelled.is_set()
            self.cancelled.set()
        return "ended"

    def stubborn(self, value: Any = None) -> Any:
        """Does not ask."""
        self.calls.append(value)
        self.entered.release()
        self.gate.wait(PATIENCE)
        return value

    async def later(self) -> str:
        self.entered.release()
        try:
            await asyncio.sleep(PATIENCE)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return "ended"


@pytest.fixture(params=["tcp4", "unix", "memory"])
def served(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Callable[..., Served]]:
    made: list[Served] = []

    def serve(thing: Thing, **options: Any) -> Served:
        made.append(Served(request.param, "thread", folder=tmp_path, **options))
        made[-1].publish(thing)
        return made[-1]

    yield serve
    for each in made:
        each.close()


@pytest.fixture
def thing() -> Iterator[Thing]:
    thing = Thing()
    yield thing
    thing.gate.set()


METHODS = pytest.mark.parametrize("method", ["polite", "later"])


@METHODS
@pytest.mark.parametrize("others", [False, True])
def test_a_time_out_cancels_on_the_server(
    served: Callable[..., Served], thing: Thing, method: str, others: bool
) -> None:
    proxy = served(thing).proxy()
    with ThreadPoolExecutor(1) as pool:
        other = None
        if others:
            other = pool.submit(proxy.stubborn, "other")
            assert thing.entered.acquire(timeout=PATIENCE)
        for seconds in (0.3, 1.0, 3.0):
            proxy._pyroTimeout = scaled(seconds)
            with pytest.raises(TimeoutError):
                getattr(proxy, method)()
            if thing.entered.acquire(timeout=SHORT):  # otherwise a slow machine had not begun the call
                break
        assert thing.cancelled.wait(PATIENCE)
        thing.gate.set()
        if other is not None:
            other.exception(PATIENCE)


def test_what_is_answered_because_of_it_comes_too_late(
    served: Callable[..., Served], thing: Thing, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = served(thing).proxy()
    proxy._pyroBind()
    connection: Any = proxy._pyroConnection
    tell = connection._tell_given_up

    def tell_and_wait(number: int) -> None:
        waiter = connection._waiters[number]
        tell(number)
        end = time.monotonic() + PATIENCE
        while waiter.frame is None and time.monotonic() < end:
            time.sleep(0.001)

    monkeypatch.setattr(connection, "_tell_given_up", tell_and_wait)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(proxy.stubborn, "other")  # reads for both
        assert thing.entered.acquire(timeout=PATIENCE)
        proxy._pyroTimeout = scaled(0.3)
        with pytest.raises(TimeoutError):
            proxy.polite()
        thing.gate.set()
        assert other.result(PATIENCE) == "other"


@METHODS
@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals for threads")
def test_ctrl_c_cancels_on_the_server(served: Callable[..., Served], thing: Thing, method: str) -> None:
    proxy = served(thing).proxy()
    proxy.echo()
    connection = proxy._pyroConnection
    main = threading.get_ident()

    def interrupt() -> None:
        assert thing.entered.acquire(timeout=PATIENCE)
        time.sleep(SHORT)
        signal.pthread_kill(main, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(interrupt)
            with pytest.raises(KeyboardInterrupt):
                getattr(proxy, method)()
    finally:
        signal.signal(signal.SIGINT, before)
    assert thing.cancelled.wait(PATIENCE)
    assert proxy.echo("next") == "next"
    assert proxy._pyroConnection is connection


@METHODS
def test_cancelling_a_future_that_is_under_way(served: Callable[..., Served], thing: Thing, method: str) -> None:
    background = asyncproxy(served(thing).proxy())
    future = getattr(background, method)()
    assert thing.entered.acquire(timeout=PATIENCE)
    told: list[Any] = []
    future.iferror(told.append)
    assert future.cancel()
    assert future.cancelled()
    assert future.cancel()
    with pytest.raises(FutureCancelled):
        future.result(PATIENCE)
    assert thing.cancelled.wait(PATIENCE)
    assert len(told) == 1
    background._pyroRelease()


def test_a_future_whose_server_cannot_be_told_goes_on(thing: Thing) -> None:
    kernel = make_kernel(environ={"PYRO_DISABLE_PLUGINS": "cancel"})
    with Served("tcp4") as served:
        served.publish(thing)
        with served.proxy(kernel=kernel) as proxy, asyncproxy(proxy) as background:
            future = background.stubborn(5)
            assert thing.entered.acquire(timeout=PATIENCE)
            assert not future.cancel()
            thing.gate.set()
            assert future.result(PATIENCE) == 5
    kernel.close()


def test_a_call_in_the_queue_is_dropped(served: Callable[..., Served], thing: Thing) -> None:
    """Scenario 56, before the start."""
    proxy = served(thing, settings={"THREADPOOL_SIZE": 1}).proxy()
    scope = Scope()

    def queued(number: int) -> Any:
        with scope.active():
            return proxy.stubborn(f"queued {number}")

    with ThreadPoolExecutor(10) as pool:
        running = pool.submit(proxy.stubborn, "running")
        assert thing.entered.acquire(timeout=PATIENCE)
        waiting = [pool.submit(queued, number) for number in range(5)]
        deadline = time.monotonic() + PATIENCE
        while not (len(scope._calls) == 5 and all(waiter.waits for _, waiter in scope._calls)):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert scope.cancel()
        errors = [call.exception(PATIENCE) for call in waiting]
        assert ["was cancelled" in str(error) for error in errors] == [True] * 5
        ping(proxy)  # so what was sent before has been read
        thing.gate.set()
        assert running.result(PATIENCE) == "running"
        assert proxy.echo("after") == "after"
        assert thing.calls == ["running", "after"]


@pytest.mark.parametrize("loop", LOOPS)
def test_too_late_unknown_and_twice(thing: Thing, loop: str) -> None:
    """Scenario 56: after the reply, for an unknown id, twice."""
    with Served("tcp4", loop) as served:
        served.publish(thing)
        proxy: Proxy = served.proxy()
        assert proxy.echo(1) == 1
        connection = proxy._pyroConnection
        assert connection is not None
        for number in (connection.seq, connection.seq, 12345, 0):
            assert connection.note(CANCEL, connection.serializer_id, number)
        assert proxy.echo(2) == 2
        peer = served.peer()
        peer.hello()
        peer.send(encode(CANCEL, 1, 0, 77, b"nonsense"))
        reply = peer.call("thing", "echo", 3)
        assert reply.flags == 0
        assert proxy._pyroConnection is connection


def test_twice_while_it_runs(served: Callable[..., Served], thing: Thing) -> None:
    proxy = served(thing).proxy()
    scope = Scope()

    def polite() -> str:
        with scope.active():
            return str(proxy.polite())

    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(polite)
        assert thing.entered.acquire(timeout=PATIENCE)
        assert scope.cancel()
        connection = proxy._pyroConnection
        assert connection is not None
        assert connection.note(CANCEL, connection.serializer_id, connection.seq)
        assert "was cancelled" in str(call.exception(PATIENCE))
        assert thing.cancelled.wait(PATIENCE)
        assert proxy.echo(1) == 1


def test_the_token_belongs_to_a_served_call_and_to_the_plugin(thing: Thing) -> None:
    with pytest.raises(PluginError, match="in a remote call only"):
        assert current_context.cancelled
    with Served("memory", environ={"PYRO_DISABLE_PLUGINS": "cancel"}) as served:
        served.publish(thing)
        with pytest.raises(PluginError, match="cancel"):
            served.proxy().polite()
