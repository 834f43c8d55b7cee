"""Iterators as arguments: items flow to the method, which holds the client back, and both ends clean up."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pyroplug.api import (
    CommunicationError,
    ConnectionClosedError,
    MessageTooLargeError,
    OverloadError,
    PyroError,
    SerializeError,
    current_context,
    expose,
    oneway,
)
from pyroplug.plugins.push import UPLOADS
from pyroplug.testing.kernels import PATIENCE, Serve, Served, make_kernel
from pyroplug.testing.transports import in_thread
from testkit.serving import EVERYWHERE, serve_over

pytestmark = pytest.mark.needs("push")


@expose
class Thing:
    def __init__(self) -> None:
        self.go_on = threading.Semaphore(0)
        self.entered = threading.Semaphore(0)
        self.ended = threading.Semaphore(0)
        self.got: list[Any] = []
        self.kept: Iterator[Any] = iter(())

    def total(self, items: Iterator[int], factor: int = 1) -> int:
        return sum(items) * factor

    def collect(self, items: Iterator[Any]) -> list[Any]:
        return list(items)

    def first(self, count: int, items: Iterator[Any]) -> list[Any]:
        return list(itertools.islice(items, count))

    def ignore(self, items: Iterator[Any]) -> str:
        return "ignored"

    def merge(self, some: Iterator[int], others: Iterator[int]) -> list[list[int]]:
        return [list(pair) for pair in zip(some, others, strict=False)]

    def one_after_the_other(self, some: Iterator[int], others: Iterator[int]) -> list[int]:
        return [*others, *some]

    def step(self, items: Iterator[Any]) -> int:
        """Takes one item whenever the test says so."""
        self.entered.release()
        try:
            for item in items:
                self.got.append(item)
                assert self.go_on.acquire(timeout=PATIENCE)
            return len(self.got)
        finally:
            self.ended.release()

    def wait(self, items: Iterator[Any]) -> None:
        try:
            for item in items:
                self.got.append(item)
                self.entered.release()
        except BaseException as exc:
            self.got.append(exc)
            raise
        finally:
            self.ended.release()

    def fail(self, items: Iterator[Any]) -> None:
        next(items)
        raise ZeroDivisionError("no more")

    def rescue(self, items: Iterator[Any]) -> list[Any]:
        got: list[Any] = []
        try:
            for item in items:
                got.append(item)
        except ValueError as exc:
            got.append(str(exc))
        return got

    def keep(self, items: Iterator[Any]) -> Any:
        self.kept = items
        return next(items)

    def kept_item(self) -> Any:
        return next(self.kept)

    def numbers(self, items: Iterator[int]) -> Iterator[int]:
        return iter([2 * item for item in items])

    def context(self, items: Iterator[Any]) -> bool:
        current_context.response_annotations["REPL"] = b"early"
        list(items)
        return current_context.client is not None

    @oneway
    def forget(self, items: Iterator[Any]) -> None:
        pass

    async def later(self, items: Iterator[Any]) -> int:
        return len(list(items))

    def echo(self, value: Any) -> Any:
        return value


class Counting:
    """A generator that tells how far it is, and whether it was closed."""

    def __init__(self, count: int | None = None) -> None:
        self._count = count
        self.made = 0
        self.closed = threading.Event()

    def items(self) -> Iterator[int]:
        try:
            while self._count is None or self.made < self._count:
                self.made += 1
                yield self.made - 1
        finally:
            self.closed.set()


def uploads(served: Served) -> int:
    deadline = time.monotonic() + PATIENCE
    while (count := len(served.daemon.stash[UPLOADS])) and time.monotonic() < deadline:
        time.sleep(0.005)
    return count


serve_threaded = serve_over((each for each in EVERYWHERE if each.endswith("thread")), "Every transport.")


@pytest.mark.parametrize("count", [0, 1, 2, 5000])
def test_the_method_gets_the_items_in_order(count: int, serve_threaded: Serve) -> None:
    served = serve_threaded(Thing())
    with served.proxy() as proxy:
        counting = Counting(count)
        assert proxy.collect(counting.items()) == list(range(count))
        assert counting.closed.wait(PATIENCE)
        assert proxy.total((number for number in range(count)), factor=2) == sum(range(count)) * 2
        assert proxy.total(items=map(int, range(count))) == sum(range(count))
        assert proxy.echo(1) == 1
    assert uploads(served) == 0


@pytest.mark.parametrize("serializer", ["serpent", "json", "msgpack", "marshal", "pickle"])
def test_each_serializer_carries_them(serializer: str) -> None:
    with Served(loop="thread", settings={"SERIALIZERS_ACCEPTED": {serializer, "serpent"}}) as served:
        served.publish(Thing())
        with served.proxy() as proxy:
            proxy._pyroSerializer = serializer
            assert proxy.collect(item for item in ["é", 1, None, [1.5]]) == ["é", 1, None, [1.5]]
            assert proxy.rescue(failing(3)) == [0, 1, 2, "enough"]


def failing(count: int) -> Iterator[int]:
    yield from range(count)
    raise ValueError("enough")


def test_a_break_closes_the_generator_of_the_client(serve_threaded: Serve) -> None:
    with serve_threaded(Thing()).proxy() as proxy:
        counting = Counting()
        assert proxy.first(3, counting.items()) == [0, 1, 2]
        assert counting.closed.is_set()
        assert counting.made < 200
        counting = Counting()
        assert proxy.ignore(counting.items()) == "ignored"
        assert counting.made == 0


def test_several_iterators(serve_threads: Serve) -> None:
    with serve_threads(Thing()).proxy() as proxy:
        pairs = proxy.merge(iter(range(1000)), (number for number in range(3000)))
        assert pairs == [[number, number] for number in range(1000)]
        assert proxy.one_after_the_other((n for n in range(500)), others=iter(range(500, 900))) == [
            *range(500, 900),
            *range(500),
        ]


def test_a_slow_method_holds_the_client_back(serve_threads: Serve) -> None:
    thing = Thing()
    with serve_threads(thing, PUSH_CHUNK=5).proxy() as proxy:
        counting = Counting(80)
        result = in_thread(proxy.step, counting.items())
        assert thing.entered.acquire(timeout=PATIENCE)
        ahead = []
        for number in range(80):
            thing.go_on.release()
            deadline = time.monotonic() + PATIENCE
            while len(thing.got) <= number and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(0.003)  # or it would not be slow
            ahead.append(counting.made - len(thing.got))
        assert 5 < max(ahead) <= 15
        assert result.result(PATIENCE) == 80


def test_what_the_generator_raises_is_raised_in_the_method(serve_threaded: Serve) -> None:
    with serve_threaded(Thing()).proxy() as proxy:
        assert proxy.rescue(failing(100)) == [*range(100), "enough"]
        with pytest.raises(ValueError, match="enough"):
            proxy.collect(failing(0))
        assert proxy.echo(1) == 1


def test_what_the_method_raises_closes_the_generator(serve_threads: Serve) -> None:
    with serve_threads(Thing()).proxy() as proxy:
        counting = Counting()
        with pytest.raises(ZeroDivisionError, match="no more"):
            proxy.fail(counting.items())
        assert counting.closed.is_set()


def test_an_item_that_cannot_travel(serve_threads: Serve) -> None:
    thing = Thing()
    served = serve_threads(thing)
    with served.proxy() as proxy:
        with pytest.raises(SerializeError):
            proxy.wait(item for item in [1, object()])
        assert thing.ended.acquire(timeout=PATIENCE)
        assert thing.got[0] == 1
        assert "given up" in str(thing.got[-1])
        assert proxy.echo(1) == 1
    assert uploads(served) == 0


def test_items_too_many_for_one_message_go_in_several(serve_threads: Serve) -> None:
    with serve_threads(Thing(), MAX_MESSAGE_SIZE=40_000).proxy() as proxy:
        rows = [[0] * 100 for _ in range(1000)]
        assert proxy.total(len(row) for row in rows) == 100_000
        assert proxy.first(0, iter(rows)) == []
        sizes = proxy.total(itertools.chain((1 for _ in range(400)), [2]))
        assert sizes == 402
        with pytest.raises(MessageTooLargeError):
            proxy.collect(item for item in ["x" * 50_000])


@pytest.mark.feature("F284")
def test_a_lost_client_ends_the_iteration(serve_threads: Serve) -> None:
    thing = Thing()
    served = serve_threads(thing)
    with served.proxy() as proxy:
        stuck = threading.Event()

        def items() -> Iterator[int]:
            yield 1
            stuck.wait(PATIENCE)
            yield 2

        result = in_thread(proxy.wait, items())
        assert thing.entered.acquire(timeout=PATIENCE)
        connection = proxy._pyroConnection
        assert connection is not None
        connection.close()
        assert thing.ended.acquire(timeout=PATIENCE)
        assert isinstance(thing.got[-1], ConnectionClosedError)
        stuck.set()
        with pytest.raises(CommunicationError):
            result.result(PATIENCE)
        assert proxy.echo(1) == 1
    assert uploads(served) == 0


def test_a_call_whose_items_flow_is_not_repeated(serve_threads: Serve) -> None:
    thing = Thing()
    with serve_threads(thing, MAX_RETRIES=3).proxy() as proxy:

        def items() -> Iterator[int]:
            yield 1
            connection = proxy._pyroConnection
            assert connection is not None
            connection.close()
            yield 2

        with pytest.raises(CommunicationError):
            proxy.wait(items())
        assert thing.ended.acquire(timeout=PATIENCE)
        assert thing.got[0] == 1
        assert not thing.ended.acquire(timeout=0.05)


def test_the_generator_may_make_calls_of_the_same_proxy(serve_threaded: Serve) -> None:
    with serve_threaded(Thing()).proxy() as proxy:
        assert proxy.collect(proxy.echo(number) for number in range(20)) == list(range(20))


def test_results_and_annotations_are_those_of_any_call(serve_threads: Serve) -> None:
    with serve_threads(Thing()).proxy() as proxy:
        assert list(proxy.numbers(iter(range(10)))) == [2 * number for number in range(10)]
        assert proxy.context(iter([1, 2])) is True
        assert bytes(current_context.response_annotations["REPL"]) == b"early"


def test_a_time_out(serve_threads: Serve) -> None:
    thing = Thing()
    served = serve_threads(thing)
    with served.proxy() as proxy:
        proxy._pyroTimeout = 0.2
        counting = Counting()
        with pytest.raises(CommunicationError, match="timeout"):
            proxy.step(counting.items())
        assert counting.closed.is_set()
        thing.go_on.release(1000)
        assert thing.ended.acquire(timeout=PATIENCE)
    assert uploads(served) == 0


def test_items_are_for_the_call_only(serve_threads: Serve) -> None:
    with serve_threads(Thing()).proxy() as proxy:
        assert proxy.keep(iter([1, 2])) == 1
        with pytest.raises(PyroError, match="the call is over"):
            proxy.kept_item()


@pytest.mark.parametrize("loop", ["multiplex", "asyncio"])
def test_loops_that_cannot_say_so(loop: str) -> None:
    with Served("tcp4", loop) as served:
        served.publish(Thing())
        with served.proxy() as proxy:
            counting = Counting()
            with pytest.raises(PyroError, match=f"SERVERTYPE={loop}"):
                proxy.total(counting.items())
            assert counting.made == 0
            assert proxy.echo(1) == 1


def test_methods_that_cannot_say_so(serve_threads: Serve) -> None:
    with serve_threads(Thing()).proxy() as proxy:
        with pytest.raises(PyroError, match="async def"):
            proxy.later(iter([1]))
        with pytest.raises(SerializeError, match="oneway"):
            proxy.forget(iter([1]))
        with pytest.raises(SerializeError):
            proxy.echo([iter([1])])
        with open(__file__, encoding="utf-8") as file, pytest.raises(SerializeError, match="open file"):
            proxy.echo(file)


def test_a_server_without_the_plugin() -> None:
    kernel = make_kernel()
    try:
        with Served("tcp4", "thread", environ={"PYRO_DISABLE_PLUGINS": "push"}) as served:
            served.publish(Thing())
            with served.proxy(kernel=kernel) as proxy, pytest.raises(SerializeError, match="plugin 'push'"):
                proxy.total(iter([1]))
    finally:
        kernel.close()


def test_the_number_of_calls_is_limited(serve_threads: Serve) -> None:
    thing = Thing()
    served = serve_threads(thing, MAX_UPLOADS=1)
    with served.proxy() as proxy, served.proxy() as other:
        result = in_thread(proxy.step, iter([1]))
        assert thing.entered.acquire(timeout=PATIENCE)
        with pytest.raises(OverloadError, match="MAX_UPLOADS=1"):
            other.total(iter([1]))
        thing.go_on.release(10)
        assert result.result(PATIENCE) == 1
        assert uploads(served) == 0
        assert other.total(iter([1])) == 1


def test_ten_at_a_time_on_one_proxy(serve_threads: Serve) -> None:
    with serve_threads(Thing()).proxy() as proxy:
        proxy._pyroBind()
        results = [in_thread(proxy.collect, Counting(2000).items()) for _ in range(10)]
        assert [result.result(PATIENCE) for result in results] == [list(range(2000))] * 10


def test_the_end_of_the_daemon_ends_the_iteration() -> None:
    thing = Thing()
    served = Served("tcp4", "thread", settings={"SHUTDOWN_TIMEOUT": 0.2})
    with served:
        served.publish(thing)
        stuck = threading.Event()

        def items() -> Iterator[int]:
            yield 1
            stuck.wait(PATIENCE)

        proxy = served.proxy()
        result = in_thread(proxy.wait, items())
        assert thing.entered.acquire(timeout=PATIENCE)
        served.daemon.shutdown()
        served.daemon.close()
        assert thing.ended.acquire(timeout=PATIENCE)
        assert isinstance(thing.got[-1], PyroError)
        stuck.set()
        with pytest.raises(PyroError):
            result.result(PATIENCE)


@pytest.mark.parametrize(
    "message",
    [(99, 0, [1], False, None), (1, 7, [1], False, None), (1, 0, 5, False, None), (1, 0, [1], False, None)],
)
def test_items_that_nobody_asked_for(message: tuple[Any, ...], serve_threads: Serve) -> None:
    thing = Thing()
    with serve_threads(thing).proxy() as proxy:
        result = in_thread(proxy.step, iter([1, 2, 3, 4, 5, 6, 7, 8]))
        assert thing.entered.acquire(timeout=PATIENCE)
        if message[0] == 1 and message[1] == 0:
            time.sleep(0.1)
        with pytest.raises(PyroError):
            proxy._pyroInvoke("push_items", message, {}, objectId="Pyro.Daemon")
        thing.go_on.release(10)
        assert result.result(PATIENCE) == 8
