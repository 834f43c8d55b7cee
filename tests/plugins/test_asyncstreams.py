"""``async def`` generators as results: under every server loop, for every client."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from pyroplug.api import Proxy, PyroError, SerializeError, current_context, expose
from pyroplug.plugins.streaming import STREAMS
from pyroplug.testing.kernels import PATIENCE, Serve, Served

pytestmark = pytest.mark.needs("asyncstreams")


class ByHand:
    """An asynchronous iterator that is no generator."""

    def __init__(self, count: int) -> None:
        self._left = count

    def __aiter__(self) -> ByHand:
        return self

    async def __anext__(self) -> int:
        await asyncio.sleep(0)
        if not self._left:
            raise StopAsyncIteration
        self._left -= 1
        return self._left


@expose
class Thing:
    def __init__(self) -> None:
        self.ended = threading.Semaphore(0)
        self.how: list[str] = []
        self.started = 0

    async def numbers(self, count: int) -> AsyncIterator[int]:
        self.started += 1
        try:
            for number in range(count):
                await asyncio.sleep(0)
                yield number
        finally:
            await asyncio.sleep(0)  # as clean-up may
            self.ended.release()

    async def failing(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number
        raise ValueError("enough")

    async def pausing(self, count: int) -> AsyncIterator[int]:
        """Some items, and then nothing for ever."""
        try:
            for number in range(count):
                yield number
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.how.append("cancelled")
            raise
        finally:
            self.ended.release()

    async def odd(self) -> AsyncIterator[Any]:
        yield 1
        yield object()
        yield 3

    async def nested(self) -> AsyncIterator[Any]:
        for count in range(3):
            yield self.numbers(count)
            yield iter([count])

    async def context(self) -> AsyncIterator[bool]:
        yield current_context.client is not None
        await asyncio.sleep(0)
        yield current_context.client is not None

    async def by_hand(self, count: int) -> ByHand:
        return ByHand(count)

    async def plain(self) -> Iterator[int]:
        return iter([1, 2])

    def echo(self, value: Any) -> Any:
        return value


def open_streams(served: Served) -> int:
    return len(served.daemon.stash[STREAMS])


@pytest.fixture(params=["chunks", "one by one"])
def get_proxy(request: pytest.FixtureRequest) -> Callable[[Served], Proxy]:
    """A client of ours, and one that is like Pyro's own."""
    if request.param == "chunks":
        return lambda served: served.proxy()

    def old(served: Served) -> Proxy:
        proxy = served.proxy()
        proxy._pyroBind()
        connection = proxy._pyroConnection
        assert connection is not None
        connection.extensions = frozenset()
        return proxy

    return old


@pytest.mark.feature("F241")
def test_items_come_in_order(serve: Serve, get_proxy: Callable[[Served], Proxy]) -> None:
    thing = Thing()
    served = serve(thing)
    with get_proxy(served) as proxy:
        for count in (0, 1, 2, 3000):
            assert list(proxy.numbers(count)) == list(range(count))
            assert thing.ended.acquire(timeout=PATIENCE)
        assert proxy.echo(1) == 1
        assert open_streams(served) == 0


def test_iterators_that_are_no_generators_and_coroutines_that_return_iterators(serve_some: Serve) -> None:
    with serve_some(Thing()).proxy() as proxy:
        assert list(proxy.by_hand(100)) == list(range(99, -1, -1))
        assert list(proxy.plain()) == [1, 2]


def test_an_error_comes_after_the_items_before_it(serve_some: Serve, get_proxy: Callable[[Served], Proxy]) -> None:
    with get_proxy(serve_some(Thing())) as proxy:
        for count in (0, 1, 100):
            items = proxy.failing(count)
            assert [next(items) for _ in range(count)] == list(range(count))
            with pytest.raises(ValueError, match="enough"):
                next(items)
            assert list(items) == []


def test_an_item_that_cannot_travel_costs_nothing_else(serve_some: Serve, get_proxy: Callable[[Served], Proxy]) -> None:
    with get_proxy(serve_some(Thing())) as proxy:
        items = proxy.odd()
        assert next(items) == 1
        with pytest.raises(SerializeError):
            next(items)
        assert list(items) == [3]


def test_iterators_as_items(serve_some: Serve, get_proxy: Callable[[Served], Proxy]) -> None:
    with get_proxy(serve_some(Thing())) as proxy:
        assert [list(items) for items in proxy.nested()] == [[], [0], [0], [1], [0, 1], [2]]


def test_the_generator_knows_the_call_it_runs_for(serve_some: Serve) -> None:
    with serve_some(Thing()).proxy() as proxy:
        assert list(proxy.context()) == [True, True]


def test_what_was_made_is_not_held_back_by_a_pause_and_calls_go_on(serve: Serve) -> None:
    with serve(Thing()).proxy() as proxy:
        items = proxy.pausing(500)
        assert [next(items) for _ in range(500)] == list(range(500))
        assert proxy.echo(1) == 1
        items.close()


def test_many_at_a_time_under_a_loop_that_runs_one_call_at_a_time(serve_multiplex: Serve) -> None:
    with serve_multiplex(Thing()).proxy() as proxy:
        streams = [proxy.numbers(100) for _ in range(20)]
        for number in range(100):
            assert [next(stream) for stream in streams] == [number] * 20
        for stream in streams:
            stream.close()


@pytest.mark.feature("F284")
def test_a_break_runs_finally(serve: Serve) -> None:
    thing = Thing()
    served = serve(thing)
    with served.proxy() as proxy:
        for number in proxy.numbers(1_000_000):
            if number == 10:
                break
        proxy.echo(1)
        assert thing.ended.acquire(timeout=PATIENCE)
        with proxy.numbers(1_000_000) as items:
            next(items)
        assert thing.ended.acquire(timeout=PATIENCE)
        assert open_streams(served) == 0


def test_one_that_waits_is_cancelled_with_its_client(serve_at: Serve) -> None:
    thing = Thing()
    with serve_at(thing, ITER_STREAM_LINGER=0).proxy() as proxy:
        items = proxy.pausing(3)
        assert [next(items) for _ in range(3)] == [0, 1, 2]
        proxy._pyroTimeout = 0.1  # the connection is given up with the call
        with pytest.raises(PyroError):
            next(items)
        assert thing.ended.acquire(timeout=PATIENCE)
        assert thing.how == ["cancelled"]


@pytest.mark.feature("F284")
def test_a_lost_client_runs_finally(serve_at: Serve) -> None:
    thing = Thing()
    served = serve_at(thing, ITER_STREAM_LINGER=0)
    with served.proxy() as proxy:
        next(proxy.numbers(100))
        assert not thing.ended.acquire(blocking=False)
    assert thing.ended.acquire(timeout=PATIENCE)
    deadline = time.monotonic() + PATIENCE
    while open_streams(served) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert open_streams(served) == 0


def test_going_on_over_a_new_connection(serve_at: Serve) -> None:
    with serve_at(Thing()).proxy() as proxy:
        items = proxy.numbers(2000)
        got = [next(items) for _ in range(50)]
        proxy._pyroRelease()
        assert got + list(items) == list(range(2000))


def test_the_end_of_the_daemon_runs_finally(serve: Serve) -> None:
    thing = Thing()
    served = serve(thing)
    with served.proxy() as proxy:
        waiting, resting = proxy.pausing(1), proxy.numbers(100)
        assert [next(waiting), next(resting)] == [0, 0]
        served.close()
        for _ in range(2):
            assert thing.ended.acquire(timeout=PATIENCE)


def test_one_that_was_never_asked_for_an_item_never_starts(serve_some: Serve) -> None:
    thing = Thing()
    with serve_some(thing).proxy() as proxy:
        proxy.numbers(3).close()
        assert proxy.echo(1) == 1
    assert thing.started == 0
