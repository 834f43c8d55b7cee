"""``async def`` methods: under every server loop, over every transport, beside plain ones."""

from __future__ import annotations

import asyncio
import threading
from contextlib import ExitStack
from typing import Any

import pytest

from pyroplug.api import (
    BatchProxy,
    ConnectionClosedError,
    PyroError,
    SerializeError,
    behavior,
    current_context,
    expose,
    get_pyro_traceback,
    oneway,
)
from pyroplug.plugins.coroutines import TASKS
from pyroplug.plugins.synchronized import synchronized
from pyroplug.testing.kernels import LOOPS, PATIENCE, Serve, Served
from pyroplug.testing.transports import in_thread


@expose
class Slow:
    """Async methods, and one that is not."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Event] = []
        self.entered = threading.Semaphore(0)
        self.log: list[Any] = []
        self.noted = threading.Event()

    async def echo(self, value: Any) -> Any:
        await asyncio.sleep(0)
        return value

    async def wait(self, value: Any) -> Any:
        """Until somebody calls release."""
        event = asyncio.Event()
        self._waiting.append(event)
        self.entered.release()
        try:
            await event.wait()
        except asyncio.CancelledError:
            self.log.append("cancelled")
            raise
        return value

    async def release(self) -> int:
        waiting, self._waiting = self._waiting, []
        for event in waiting:
            event.set()
        return len(waiting)

    def plain(self, value: Any) -> Any:
        return value

    async def fail(self, text: str) -> None:
        await asyncio.sleep(0)
        raise ValueError(text)

    async def unsendable(self) -> Any:
        return object()

    async def context(self) -> list[Any]:
        await asyncio.sleep(0)
        current_context.response_annotations["REPL"] = b"from a task"
        return [current_context.seq, dict(current_context.annotations).get("ASKS", b"") == b"?"]

    async def nested(self, depth: int) -> int:
        return depth if not depth else await self.nested(depth - 1)

    async def add(self, value: Any) -> int:
        await asyncio.sleep(0)
        self.log.append(value)
        return len(self.log)

    def add_plainly(self, value: Any) -> int:
        self.log.append(value)
        return len(self.log)

    @oneway
    async def note(self, value: Any) -> None:
        await asyncio.sleep(0)
        self.log.append(value)
        self.noted.set()


def test_a_call_returns_what_the_coroutine_returns(serve: Serve) -> None:
    with serve(Slow()).proxy() as proxy:
        for number in range(10):
            assert proxy.echo([number, "x"]) == [number, "x"]
        assert proxy.plain(3) == 3
        assert proxy.nested(5) == 0


def test_what_it_raises_arrives(serve: Serve) -> None:
    with serve(Slow()).proxy() as proxy:
        with pytest.raises(ValueError, match="such a text") as caught:
            proxy.fail("such a text")
        assert "async def fail" not in "".join(get_pyro_traceback(caught.value))
        assert "in fail" in "".join(get_pyro_traceback(caught.value))
        with pytest.raises(SerializeError):
            proxy.unsendable()
        assert proxy.echo(1) == 1


def test_many_wait_at_the_same_time_and_plain_calls_are_served_meanwhile(serve_at: Serve) -> None:
    slow = Slow()
    served = serve_at(slow)
    with ExitStack() as stack:
        proxies = [stack.enter_context(served.proxy()) for _ in range(20)]
        results = [in_thread(proxy.wait, number) for number, proxy in enumerate(proxies)]
        for _ in proxies:
            assert slow.entered.acquire(timeout=PATIENCE)
        with served.proxy() as other:
            assert other.plain("served") == "served"
            assert other.release() == 20
        assert [result.result(PATIENCE) for result in results] == list(range(20))


def test_the_context_is_that_of_the_call(serve: Serve) -> None:
    with serve(Slow()).proxy() as proxy:
        proxy.echo(0)
        current_context.annotations = {"ASKS": b"?"}
        try:
            assert proxy.context() == [proxy._pyroSeq, True]
            assert current_context.response_annotations["REPL"] == b"from a task"
        finally:
            current_context.annotations = {}


@pytest.mark.feature("F092")
def test_in_a_batch_each_call_ends_before_the_next_begins(serve_some: Serve) -> None:
    slow = Slow()
    with serve_some(slow).proxy() as proxy:
        batch = BatchProxy(proxy)
        batch.add("a")
        batch.add_plainly("b")
        batch.add("c")
        batch.fail("stop")
        batch.add("never")
        results = batch()
        assert [next(results) for _ in range(3)] == [1, 2, 3]
        with pytest.raises(ValueError, match="stop"):
            next(results)
        assert slow.log == ["a", "b", "c"]


@pytest.mark.feature("F089")
def test_oneway(serve_some: Serve) -> None:
    slow = Slow()
    with serve_some(slow).proxy() as proxy:
        assert proxy.note("seen") is None
        assert slow.noted.wait(PATIENCE)
        assert slow.log == ["seen"]


def test_classes_have_async_methods_too(serve_some: Serve) -> None:
    @behavior("session")
    class Counter:
        count = 0

        @expose
        async def more(self) -> int:
            self.count += 1
            return self.count

    served = serve_some(Counter)
    with served.proxy() as one, served.proxy() as two:
        assert [one.more(), one.more(), two.more()] == [1, 2, 1]


def test_a_client_that_goes_away_does_not_end_its_call(serve_at: Serve) -> None:
    slow = Slow()
    served = serve_at(slow)
    gone = served.peer()
    gone.hello()
    gone.send(gone.call_message("thing", "wait", 1))
    assert slow.entered.acquire(timeout=PATIENCE)
    gone.stream.close()
    with served.proxy() as proxy:
        assert proxy.release() == 1
        assert proxy.echo(1) == 1
    assert slow.log == []


def test_at_the_end_what_still_runs_is_cancelled_and_its_client_told(serve_at: Serve) -> None:
    slow = Slow()
    served = serve_at(slow, SHUTDOWN_TIMEOUT=0.1)
    with served.proxy() as proxy:
        result = in_thread(proxy.wait, 1)
        assert slow.entered.acquire(timeout=PATIENCE)
        served.daemon.shutdown()
        with pytest.raises((PyroError, ConnectionClosedError)):
            result.result(PATIENCE)
    assert slow.log == ["cancelled"]


def test_calls_that_end_in_time_are_answered_at_the_end(serve_at: Serve) -> None:
    slow = Slow()
    served = serve_at(slow)
    with served.proxy() as proxy, served.proxy() as other:
        result = in_thread(proxy.wait, "in time")
        assert slow.entered.acquire(timeout=PATIENCE)
        other.release()
        served.daemon.shutdown()
        assert result.result(PATIENCE) == "in time"


@pytest.mark.parametrize("loop", LOOPS)
def test_no_event_loop_without_async_calls(loop: str) -> None:
    with Served("memory", loop) as served:
        served.publish(Slow(), "thing")
        with served.proxy("thing") as proxy:
            proxy.plain(1)
            assert TASKS not in served.daemon.stash
            proxy.echo(1)
            assert TASKS in served.daemon.stash


@pytest.fixture(params=["asyncio", "uvloop"])
def kind(request: pytest.FixtureRequest) -> str:
    """The kinds of event loops."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop", reason="uvloop exists for Unix only")
    return str(request.param)


@pytest.mark.parametrize("loop", LOOPS)
def test_both_kinds_of_event_loops(loop: str, kind: str) -> None:
    class Where:
        @expose
        async def module(self) -> str:
            return type(asyncio.get_running_loop()).__module__

    with Served("memory", loop, settings={"EVENT_LOOP": kind}) as served:
        served.publish(Where(), "thing")
        with served.proxy("thing") as proxy:
            assert proxy.module().partition(".")[0] == kind


def test_without_the_plugin_the_error_names_it() -> None:
    class Thing(Slow):
        coroutine: Any = None

        @expose
        def kept(self) -> Any:
            """What an async method looks like to whoever calls it."""
            self.coroutine = self.echo(1)
            return self.coroutine

    thing = Thing()
    with Served("memory", environ={"PYRO_DISABLE_PLUGINS": "coroutines"}) as served:
        served.publish(thing, "thing")
        with served.proxy("thing") as proxy:
            with pytest.raises(SerializeError, match="switched off here: plugin coroutines") as caught:
                proxy.kept()
            assert str(caught.value).count("switched off here") == 1
            assert proxy.plain(1) == 1
    thing.coroutine.close()  # or Python would warn, some time later, that it was never awaited


def test_async_methods_cannot_be_synchronized() -> None:
    class Wrong:
        @expose
        @synchronized
        async def method(self) -> None: ...

    with Served("memory") as served, pytest.raises(TypeError, match=r"asyncio\.Lock"):
        served.publish(Wrong(), "thing")
