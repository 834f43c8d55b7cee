"""Item streams: iterators and generators as results."""

from __future__ import annotations

import gc
import itertools
import queue
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pyroplug.api import (
    CommunicationError,
    ConnectionClosedError,
    OverloadError,
    ProtocolError,
    Proxy,
    PyroError,
    RemoteError,
    RemoteIterator,
    SerializeError,
    current_context,
    expose,
)
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.wire import FLAG_EXCEPTION, FLAG_ITEMSTREAM, FLAG_ONEWAY
from pyroplug.plugins.streaming import STREAMS, Streams
from pyroplug.plugins.streaming.ahead import Ahead
from pyroplug.plugins.streaming.chunks import CHUNK_BYTES
from pyroplug.plugins.streaming.stream import Stream
from pyroplug.testing.kernels import PATIENCE, Serve, Served, WirePeer, make_kernel

pytestmark = [pytest.mark.needs("streaming"), pytest.mark.feature("F241")]


class Counting:
    """An iterator that is no generator."""

    def __init__(self, count: int) -> None:
        self._numbers = iter(range(count))

    def __iter__(self) -> Counting:
        return self

    def __next__(self) -> int:
        return next(self._numbers)


@expose
class Thing:
    def __init__(self) -> None:
        self.made: list[Any] = []
        self.closed = queue.Queue[str]()
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.feed = queue.Queue[Any]()
        self.running = 0
        self.most = 0

    def numbers(self, count: int) -> Iterator[int]:
        try:
            for number in range(count):
                self.made.append(number)
                yield number
        finally:
            self.closed.put("numbers")

    def returning(self, value: Any) -> Generator[int, None, Any]:
        yield 1
        return value

    def returning_something_odd(self) -> Generator[int, None, Any]:
        yield 1
        return threading.Lock()

    def failing(self, count: int) -> Iterator[int]:
        yield from range(count)
        raise ValueError("no more of this")

    def leaving(self) -> Iterator[int]:
        yield 1
        raise SystemExit(3)

    def fed(self) -> Iterator[Any]:
        """What the test puts into the queue; None ends it."""
        try:
            while (item := self.feed.get(timeout=PATIENCE)) is not None:
                yield item
        finally:
            self.closed.put("fed")

    def waiting(self) -> Iterator[int]:
        try:
            yield 1
            self.entered.set()
            self.gate.wait(PATIENCE)
            yield 2
            yield 3
        finally:
            self.closed.put("waiting")

    def careful(self, count: int) -> Iterator[int]:
        """Notes whether two threads are in it; a generator would refuse that."""
        for number in range(count):
            self.running += 1
            self.most = max(self.most, self.running)
            yield number
            self.running -= 1

    def kinds(self, kind: str) -> Any:
        made: dict[str, Callable[[], Any]] = {
            "list iterator": lambda: iter([1, 2, 3]),
            "range iterator": lambda: iter(range(1, 4)),
            "dict iterator": lambda: iter({1: "a", 2: "b", 3: "c"}),
            "map": lambda: map(int, "123"),
            "generator expression": lambda: (number for number in (1, 2, 3)),
            "own class": lambda: itertools.islice(Counting(9), 1, 4),
            "plain class": lambda: Counting(4),
            "list": lambda: [1, 2, 3],
            "tuple": lambda: (1, 2, 3),
            "text": lambda: "123",
        }
        return made[kind]()

    def values(self, values: list[Any]) -> Iterator[Any]:
        yield from values

    def odd_in_the_middle(self) -> Iterator[Any]:
        yield 1
        yield 2
        yield threading.Lock()
        yield 4

    def large(self, count: int, size: int) -> Iterator[bytes]:
        for number in range(count):
            self.made.append(number)
            yield bytes([number % 256]) * size

    def nested(self) -> Iterator[Iterator[int]]:
        yield iter([0])
        yield from (iter(range(count)) for count in (1, 2, 3))

    def context(self) -> Iterator[Any]:
        for _ in range(3):
            yield current_context.client is not None and current_context.seq

    @property
    def letters(self) -> Iterator[str]:
        return iter("abc")

    def echo(self, value: Any) -> Any:
        return value

    def __iter__(self) -> Iterator[int]:
        return iter([7, 8, 9])


def streams_of(served: Served) -> Streams:
    return served.daemon.stash[STREAMS]


def eventually(condition: Callable[[], Any]) -> bool:
    """Whether it comes true: for what another thread does and gives no sign of."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def single() -> Any:
    """A kernel that gets one item per round trip, as peers do that know no chunks."""
    kernel = make_kernel()
    kernel.extensions = frozenset()
    return kernel


@pytest.fixture(params=["chunks", "single"])
def get_proxy(request: pytest.FixtureRequest) -> Callable[[Served], Proxy]:
    """Proxies that get several items per round trip, or one."""
    return lambda served: served.proxy(kernel=None if request.param == "chunks" else single())


# ============================================================================= what comes
def test_items_come_in_order(serve: Serve, get_proxy: Callable[[Served], Proxy]) -> None:
    thing = Thing()
    served = serve(thing)
    proxy = get_proxy(served)
    items = proxy.numbers(2500)
    assert isinstance(items, RemoteIterator)
    assert list(items) == list(range(2500))
    assert thing.closed.get(timeout=PATIENCE) == "numbers"
    assert list(items) == []
    assert items.proxy is None
    assert len(streams_of(served)) == 0
    assert proxy.echo(1) == 1


@pytest.mark.parametrize("serializer", ["serpent", "json", "msgpack", "marshal"])
def test_each_serializer_carries_items(serializer: str, get_proxy: Callable[[Served], Proxy]) -> None:
    values = [1, "zwei", None, 2.5, {"a": [1, 2]}, True, ["x"], ""] * 5
    with Served(settings={"SERIALIZERS_ACCEPTED": {serializer, "serpent"}}) as served:
        served.publish(Thing())
        proxy = get_proxy(served)
        proxy._pyroSerializer = serializer
        assert list(proxy.values(values)) == values


@pytest.mark.parametrize(
    "kind", ["list iterator", "range iterator", "dict iterator", "map", "generator expression", "own class"]
)
def test_every_iterator_is_streamed(kind: str, get_proxy: Callable[[Served], Proxy]) -> None:
    with Served() as served:
        served.publish(Thing())
        items = get_proxy(served).kinds(kind)
        assert isinstance(items, RemoteIterator)
        assert list(items) == [1, 2, 3]


@pytest.mark.parametrize(("kind", "value"), [("list", [1, 2, 3]), ("tuple", (1, 2, 3)), ("text", "123")])
def test_containers_are_values(kind: str, value: Any) -> None:
    with Served() as served:
        served.publish(Thing())
        assert served.proxy().kinds(kind) == value


@pytest.mark.needs("metadata")
@pytest.mark.feature("F285")
def test_properties_are_streamed(serve: Serve, get_proxy: Callable[[Served], Proxy]) -> None:
    proxy = get_proxy(serve(Thing()))
    assert list(proxy.letters) == ["a", "b", "c"]
    assert list(proxy.letters) == ["a", "b", "c"]


def test_iterating_a_proxy(serve_some: Serve) -> None:
    assert list(serve_some(Thing()).proxy()) == [7, 8, 9]


def test_the_return_value_of_a_generator(serve_some: Serve, get_proxy: Callable[[Served], Proxy]) -> None:
    proxy = get_proxy(serve_some(Thing()))

    def delegating() -> Iterator[int]:
        result = yield from proxy.returning({"total": 1})
        yield result

    assert list(delegating()) == [1, {"total": 1}]
    items = proxy.returning(5)
    assert (list(items), items.value) == ([1], 5)
    items = proxy.returning(None)
    assert (list(items), items.value) == ([1], None)
    items = proxy.returning_something_odd()
    assert (list(items), items.value) == ([1], None)


@pytest.mark.parametrize("count", [0, 1, 3, 40])
def test_an_error_comes_after_the_items_before_it(
    count: int, serve_some: Serve, get_proxy: Callable[[Served], Proxy]
) -> None:
    served = serve_some(Thing())
    proxy = get_proxy(served)
    items = proxy.failing(count)
    got = [next(items) for _ in range(count)]
    assert got == list(range(count))
    with pytest.raises(ValueError, match="no more of this") as caught:
        next(items)
    lines: list[str] = caught.value._pyroTraceback  # type: ignore[attr-defined]
    assert "in failing" in lines[1]
    assert list(items) == []  # as with a generator here
    assert len(streams_of(served)) == 0


def test_a_generator_that_wants_to_exit(serve_some: Serve, get_proxy: Callable[[Served], Proxy]) -> None:
    proxy = get_proxy(serve_some(Thing()))
    items = proxy.leaving()
    assert next(items) == 1
    with pytest.raises(RemoteError, match="SystemExit"):
        next(items)
    assert proxy.echo(1) == 1


def test_an_item_that_cannot_travel_costs_nothing_else(serve_some: Serve, get_proxy: Callable[[Served], Proxy]) -> None:
    items = get_proxy(serve_some(Thing())).odd_in_the_middle()
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(SerializeError):
        next(items)
    assert list(items) == [4]


def test_iterators_as_items(serve_some: Serve, get_proxy: Callable[[Served], Proxy]) -> None:
    proxy = get_proxy(serve_some(Thing()))
    assert [list(inner) for inner in proxy.nested()] == [[0], [0], [0, 1], [0, 1, 2]]


def test_the_generator_knows_the_call_it_runs_for(serve_some: Serve) -> None:
    seqs = list(serve_some(Thing()).proxy().context())
    assert all(seqs)
    assert seqs == sorted(seqs)


def test_other_calls_in_between(serve_some: Serve, get_proxy: Callable[[Served], Proxy]) -> None:
    proxy = get_proxy(serve_some(Thing()))
    first, second = proxy.numbers(30), proxy.values(list("abcdef" * 5))
    for number, letter in zip(first, second, strict=True):
        assert proxy.echo([number, letter]) == [number, letter]


# ============================================================================= how many at a time
def test_the_first_item_does_not_wait_for_the_second(serve_threads: Serve) -> None:
    thing = Thing()
    items = serve_threads(thing).proxy().fed()
    for number in range(20):
        thing.feed.put(number)
        assert next(items) == number  # nothing is held back, although items have come fast
    thing.feed.put(None)
    assert list(items) == []


def test_what_was_made_is_not_held_back_by_a_pause(serve_threads: Serve) -> None:
    thing = Thing()
    items = serve_threads(thing).proxy().fed()
    for number in range(30):
        thing.feed.put(number)
    got = [next(items) for _ in range(30)]  # the generator waits now, in the middle of a chunk
    assert got == list(range(30))
    thing.feed.put("later")
    assert next(items) == "later"
    thing.feed.put(None)
    assert list(items) == []


def test_under_a_loop_that_runs_one_call_at_a_time_too(serve_multiplex: Serve) -> None:
    thing = Thing()
    served = serve_multiplex(thing)
    items = served.proxy().fed()
    for number in range(5):
        thing.feed.put(number)
    assert [next(items) for _ in range(5)] == [0, 1, 2, 3, 4]
    thing.feed.put(None)
    assert list(items) == []
    assert not [thread for thread in threading.enumerate() if thread.name == "pyroplug-stream"]


def test_fast_items_share_round_trips(serve_threads: Serve) -> None:
    proxy = serve_threads(Thing()).proxy()
    items = proxy.numbers(3000)
    before = proxy._pyroSeq
    assert sum(1 for _ in items) == 3000
    assert proxy._pyroSeq - before < 300


def test_a_slow_client_gets_no_old_items(serve_threads: Serve) -> None:
    thing = Thing()
    items = serve_threads(thing).proxy().numbers(1000)
    for number in range(4):
        assert next(items) == number
        items._latest_at -= 0.1 * items._latest  # as if it had taken a tenth of a second for each
    assert len(thing.made) <= 4 + 4


def test_one_item_at_a_time_if_so_configured(serve_threads: Serve) -> None:
    thing = Thing()
    items = serve_threads(thing, ITER_STREAM_CHUNK=1).proxy().numbers(50)
    for number in range(20):
        assert next(items) == number
        assert thing.made == list(range(number + 1))


@pytest.mark.parametrize("size", [100, 40_000, CHUNK_BYTES + 1])
def test_chunks_are_bounded_in_bytes(size: int, serve_threads: Serve) -> None:
    thing = Thing()
    served = serve_threads(thing)
    proxy = served.proxy()
    proxy._pyroSerializer = "msgpack"
    most = 0
    for count, item in enumerate(proxy.large(60, size), 1):
        assert item == bytes([count - 1]) * size
        most = max(most, len(thing.made) - count)
    assert most <= CHUNK_BYTES // size + 2


def test_an_item_larger_than_a_message(serve_threads: Serve, get_proxy: Callable[[Served], Proxy]) -> None:
    served = serve_threads(Thing(), MAX_MESSAGE_SIZE=20_000)
    proxy = get_proxy(served)
    proxy._pyroSerializer = "msgpack"
    assert sum(map(len, proxy.large(20, 4_000))) == 80_000  # each fits, several do not
    with pytest.raises(ProtocolError, match="too large"):
        next(proxy.large(1, 30_000))


def test_no_thread_to_run_ahead_in(serve_threads: Serve) -> None:
    thing = Thing()
    served = serve_threads(thing, ITER_STREAM_THREADS=0)
    assert list(served.proxy().numbers(100)) == list(range(100))
    assert not [thread for thread in threading.enumerate() if thread.name == "pyroplug-stream"]


def test_threads_to_run_ahead_in_are_limited() -> None:
    ahead = Ahead(1)
    gate, done = threading.Event(), threading.Event()

    def wait() -> None:
        gate.wait(PATIENCE)

    assert ahead.start(wait)
    assert not ahead.start(done.set)
    gate.set()
    assert eventually(lambda: ahead.start(done.set))
    assert done.wait(PATIENCE)
    ahead.close(PATIENCE)
    assert not ahead.start(done.set)


def test_ten_streams_at_once(serve_at: Serve) -> None:
    served = serve_at(Thing())

    def fetch(count: int) -> bool:
        return list(served.proxy().numbers(count)) == list(range(count))

    with ThreadPoolExecutor(10) as pool:
        assert all(pool.map(fetch, range(100, 1100, 100)))


# ============================================================================= threads
def test_two_threads_on_one_stream(serve_some: Serve, get_proxy: Callable[[Served], Proxy]) -> None:
    """Scenario 25."""
    thing = Thing()
    items = get_proxy(serve_some(thing)).careful(800)
    start = threading.Barrier(4)

    def fetch(_: int) -> list[int]:
        start.wait(PATIENCE)
        return list(items)

    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(fetch, range(4)))
    assert sorted(itertools.chain(*parts)) == list(range(800))
    assert all(part == sorted(part) for part in parts)
    assert thing.most == 1


def test_two_connections_on_one_stream(serve_at: Serve) -> None:
    """Scenario 25: the id is all that is needed, and each item is given out once."""
    thing = Thing()
    served = serve_at(thing)
    with served.peer() as first, served.peer() as second:
        first.hello()
        second.hello()
        stream_id = bytes(first.call("thing", "careful", 60).annotations["STRM"]).decode()
        start = threading.Barrier(2)

        def fetch(peer: WirePeer) -> list[int]:
            got = []
            start.wait(PATIENCE)
            while not (frame := peer.call("Pyro.Daemon", "get_next_stream_item", stream_id)).flags & FLAG_EXCEPTION:
                got.append(peer.value(frame))
            return got

        with ThreadPoolExecutor(2) as pool:
            one, two = pool.map(fetch, (first, second))
    assert sorted(one + two) == list(range(60))
    assert one == sorted(one)
    assert two == sorted(two)
    assert thing.most == 1


# ============================================================================= the end
def test_a_break_frees_the_generator_with_the_next_call(serve: Serve, get_proxy: Callable[[Served], Proxy]) -> None:
    """Scenario 46."""
    thing = Thing()
    served = serve(thing)
    proxy = get_proxy(served)
    for item in proxy.numbers(10_000):
        if item == 20:
            break
    gc.collect()
    assert thing.closed.empty()
    assert proxy.echo(1) == 1
    assert thing.closed.get(timeout=PATIENCE) == "numbers"
    assert eventually(lambda: len(streams_of(served)) == 0)
    assert thing.closed.empty()


def test_a_break_frees_the_generator_with_the_release(serve_at: Serve) -> None:
    """Scenario 46."""
    thing = Thing()
    with serve_at(thing).proxy() as proxy:
        for _ in proxy.numbers(10_000):
            break
        gc.collect()
    assert thing.closed.get(timeout=PATIENCE) == "numbers"  # and does not linger


def test_a_finalizer_sends_nothing_and_waits_for_nothing(serve_threads: Serve) -> None:
    """Scenario 20: it may run in the middle of a send of the same connection, in the thread that sends."""
    thing = Thing()
    proxy = serve_threads(thing).proxy()
    items = proxy.numbers(100)
    next(items)
    connection = proxy._pyroConnection
    assert connection is not None
    stream = connection.stream
    seen = []

    class Watched:
        def __getattr__(self, name: str) -> Any:
            seen.append(name)
            return getattr(stream, name)

    finalize = items.__del__
    with proxy._pyroLock:  # held by this thread; another one must not wait for it either
        stand_in: Any = Watched()
        connection.stream = stand_in
        other = threading.Thread(target=finalize)
        other.start()
        other.join(PATIENCE)
        assert not other.is_alive()
        assert seen == []
        connection.stream = stream
    assert proxy.echo(2) == 2
    assert thing.closed.get(timeout=PATIENCE) == "numbers"


def test_a_finalizer_within_a_call_of_the_same_thread(serve_threads: Serve) -> None:
    """Scenario 20: closing while the connection is busy waits for a better moment."""
    thing = Thing()
    proxy = serve_threads(thing).proxy()
    items = proxy.numbers(100)
    next(items)
    connection = proxy._pyroConnection
    assert connection is not None
    original = connection.stream

    class Interrupted:
        def __getattr__(self, name: str) -> Any:
            return getattr(original, name)

        def send(self, data: Any) -> int:
            items.close()  # as a signal handler might
            return original.send(data)

    stand_in: Any = Interrupted()

    connection.stream = stand_in
    assert proxy.echo("whole") == "whole"
    connection.stream = original
    assert thing.closed.empty()
    assert proxy.echo(1) == 1
    assert thing.closed.get(timeout=PATIENCE) == "numbers"


def test_closing(serve: Serve, get_proxy: Callable[[Served], Proxy]) -> None:
    thing = Thing()
    proxy = get_proxy(serve(thing))
    with proxy.numbers(10_000) as items:
        assert next(items) == 0
    assert thing.closed.get(timeout=PATIENCE) == "numbers"
    items.close()
    assert list(items) == []
    assert "ended" in repr(items)
    assert proxy.echo(1) == 1


def test_closing_one_that_has_ended_sends_nothing(serve_some: Serve) -> None:
    proxy = serve_some(Thing()).proxy()
    items = proxy.numbers(3)
    assert list(items) == [0, 1, 2]
    seq = proxy._pyroSeq
    items.close()
    del items
    assert proxy.echo(1) == 1
    assert proxy._pyroSeq == seq + 1


def test_closing_while_another_thread_waits_for_an_item(serve_threads: Serve) -> None:
    thing = Thing()
    items = serve_threads(thing).proxy().waiting()
    assert next(items) == 1
    with ThreadPoolExecutor(1) as pool:
        rest = pool.submit(list, items)
        assert thing.entered.wait(PATIENCE)
        items.close()
        thing.gate.set()
        assert rest.result(PATIENCE) == []
    assert thing.closed.get(timeout=PATIENCE) == "waiting"


def test_a_generator_is_never_closed_while_it_runs(serve_threads: Serve) -> None:
    thing = Thing()
    served = serve_threads(thing, ITER_STREAM_LINGER=0)
    proxy = served.proxy()
    items = proxy.waiting()
    assert next(items) == 1
    with ThreadPoolExecutor(1) as pool:
        rest = pool.submit(next, items, None)
        assert thing.entered.wait(PATIENCE)
        streams_of(served).drop(items.streamId)
        assert thing.closed.empty()
        thing.gate.set()
        with pytest.raises(PyroError, match="item stream terminated"):
            rest.result(PATIENCE)
    assert thing.closed.get(timeout=PATIENCE) == "waiting"
    assert thing.closed.empty()


@pytest.mark.feature("F284")
def test_a_lost_client_frees_the_generator_at_once_without_linger(serve_at: Serve) -> None:
    """Scenarios 34 and 46."""
    thing = Thing()
    served = serve_at(thing, ITER_STREAM_LINGER=0)
    proxy = served.proxy()
    items = proxy.numbers(10_000)
    assert next(items) == 0
    connection = proxy._pyroConnection
    assert connection is not None
    connection.close()  # without a word
    assert thing.closed.get(timeout=PATIENCE) == "numbers"
    assert eventually(lambda: len(streams_of(served)) == 0)


@pytest.mark.feature("F284")
def test_after_the_linger_time_housekeeping_frees_the_generator(serve_at: Serve) -> None:
    """Scenarios 34 and 46."""
    thing = Thing()
    served = serve_at(thing, ITER_STREAM_LINGER=0.03, POLLTIMEOUT=0.02)
    proxy = served.proxy()
    items = proxy.numbers(10_000)
    assert next(items) == 0
    proxy._pyroRelease()
    assert thing.closed.get(timeout=PATIENCE) == "numbers"
    with pytest.raises(PyroError, match="item stream terminated"):
        list(items)
    assert list(items) == []


def test_the_oldest_of_too_many_lingering_streams_go(serve_threads: Serve) -> None:
    served = serve_threads(Thing(), MAX_LINGERING_STREAMS=2, POLLTIMEOUT=0.02)
    kept = [served.proxy().numbers(5) for _ in range(4)]
    for items in kept:
        items._proxy._pyroRelease()
    assert eventually(lambda: len(streams_of(served)) == 2)
    assert [len(list(items)) for items in kept[2:]] == [5, 5]


@pytest.mark.feature("F284")
def test_the_lifetime_of_a_stream(serve_at: Serve, get_proxy: Callable[[Served], Proxy]) -> None:
    thing = Thing()
    served = serve_at(thing, ITER_STREAM_LIFETIME=0.05, POLLTIMEOUT=0.02)
    items = get_proxy(served).numbers(10_000)
    assert next(items) == 0
    assert thing.closed.get(timeout=PATIENCE) == "numbers"
    with pytest.raises(PyroError, match="item stream terminated"):
        for _ in items:
            pass


def test_the_end_of_the_daemon_frees_the_generators(serve: Serve) -> None:
    thing = Thing()
    served = serve(thing)
    items = served.proxy().numbers(10_000)
    assert next(items) == 0
    served.daemon.shutdown()
    assert thing.closed.get(timeout=PATIENCE) == "numbers"
    assert thing.closed.empty()
    items._proxy._pyroRelease()


def test_a_generator_that_fails_while_it_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    def stubborn() -> Iterator[int]:
        try:
            yield 1
        finally:
            raise ValueError("I will not go")

    iterator = stubborn()
    stream = Stream(iterator, 0.0)
    assert stream.next_item() == 1
    stream.end()
    stream.end()
    assert caplog.text.count("a generator failed while it was closed") == 1
    with pytest.raises(PyroError, match="item stream terminated"):
        stream.next_item()


# ============================================================================= reconnecting
@pytest.mark.feature("F284")
def test_going_on_over_a_new_connection(serve_at: Serve, get_proxy: Callable[[Served], Proxy]) -> None:
    served = serve_at(Thing())
    proxy = get_proxy(served)
    got = []
    for item in proxy.numbers(500):
        got.append(item)
        if item in (0, 7, 100, 101):
            proxy._pyroRelease()
    assert got == list(range(500))
    assert len(streams_of(served)) == 0


def test_nothing_is_lost_with_a_connection(serve_at: Serve) -> None:
    """The reply is lost on its way; the server sends its items once more."""
    served = serve_at(Thing())
    proxy = served.proxy()
    items = proxy.numbers(300)
    got = [next(items) for _ in range(30)]
    got += [next(items) for _ in range(len(items._items))]
    connection = proxy._pyroConnection
    assert connection is not None
    original = connection.stream

    class Losing:
        def __getattr__(self, name: str) -> Any:
            return getattr(original, name)

        def recv_into(self, target: Any) -> int:
            original.recv_into(target)
            raise ConnectionResetError("lost")

    stand_in: Any = Losing()

    connection.stream = stand_in
    with pytest.raises(ConnectionClosedError):
        next(items)
    got += items
    assert got == list(range(300))


def test_retries_are_asked_for_as_with_any_call(serve_at: Serve) -> None:
    served = serve_at(Thing())
    proxy = served.proxy()
    proxy._pyroMaxRetries = 1
    items = proxy.numbers(300)
    assert next(items) == 0
    connection = proxy._pyroConnection
    assert connection is not None
    connection.close()
    assert list(items) == list(range(1, 300))


def test_another_proxy_in_another_serializer_goes_on(serve_at: Serve) -> None:
    served = serve_at(Thing())
    proxy = served.proxy()
    items = proxy.numbers(100)
    got = [next(items) for _ in range(10)]
    proxy._pyroSerializer = "json"  # closes the connection
    assert got + list(items) == list(range(100))


def test_a_lost_server(serve_at: Serve) -> None:
    served = serve_at(Thing())
    proxy = served.proxy()
    items = proxy.numbers(100_000)
    next(items)
    served.daemon.shutdown()
    with pytest.raises(CommunicationError):
        for _ in items:
            pass
    items.close()


# ============================================================================= limits and refusals
@pytest.mark.feature("F284")
def test_streaming_can_be_switched_off(serve: Serve) -> None:
    proxy = serve(Thing(), ITER_STREAMING=False).proxy()
    with pytest.raises(ProtocolError, match="but the server is not configured to allow streaming"):
        proxy.numbers(3)
    assert proxy.echo(1) == 1


def test_a_connection_has_a_limited_number_of_streams(serve_at: Serve) -> None:
    served = serve_at(Thing(), MAX_STREAMS=3)
    proxy, other = served.proxy(), served.proxy()
    kept = [proxy.numbers(5) for _ in range(3)]
    with pytest.raises(OverloadError, match="MAX_STREAMS=3"):
        proxy.numbers(5)
    assert list(other.numbers(2)) == [0, 1]
    assert list(kept.pop()) == [0, 1, 2, 3, 4]
    assert list(proxy.numbers(5)) == [0, 1, 2, 3, 4]


def test_unknown_ids(serve_some: Serve) -> None:
    proxy = serve_some(Thing()).proxy()
    proxy.echo(1)
    for method, args in (
        ("get_next_stream_item", ("nosuch",)),
        ("get_stream_chunk", (str(uuid.uuid4()), 0, 10, 0.01)),
        ("get_next_stream_item", ([],)),
    ):
        with pytest.raises((PyroError, TypeError), match=r"item stream terminated|unhashable"):
            proxy._pyroInvoke(method, args, {}, objectId="Pyro.Daemon")
    proxy._pyroInvoke("close_stream", ("nosuch",), {}, objectId="Pyro.Daemon")


def test_a_wrong_position_is_refused(serve_some: Serve) -> None:
    proxy = serve_some(Thing()).proxy()
    items = proxy.numbers(10)
    assert next(items) == 0
    items._position = 5
    with pytest.raises(ProtocolError, match="is at 1, not at 5"):
        next(items)
    items._position = 1
    assert list(items) == list(range(1, 10))


def test_oneway_calls_make_no_stream(serve_some: Serve) -> None:
    thing = Thing()
    served = serve_some(thing)
    proxy = served.proxy()
    assert proxy._pyroInvoke("numbers", (3,), {}, flags=FLAG_ONEWAY) is None
    assert proxy.echo(1) == 1
    assert len(streams_of(served)) == 0


def test_a_reply_that_fails_keeps_no_stream() -> None:
    class Failing:
        PLUGIN = PluginInfo("failing", "fails while a reply is made")

        @hookimpl
        def pyro_bind(self, connection: Any) -> Any:
            from pyroplug.api import Steps

            def fail(call: Any) -> None:
                if call.error is None and call.method == "numbers":
                    raise ValueError("no reply today")

            return Steps(before_reply=fail) if connection.side == "server" else None

    thing = Thing()
    with Served(extra_plugins=[Failing()]) as served:
        served.publish(thing)
        with pytest.raises(ValueError, match="no reply today"):
            served.proxy().numbers(3)
        assert len(streams_of(served)) == 0


def test_a_chunk_that_is_none(serve_threads: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = serve_threads(Thing()).proxy()
    for chunk in (b"", b"\x00\x00\x00\x00\xff", b"\x09\x00\x00\x00\x00", b"\x00\x00\x00\x00\x01\x00\x00\x00\x09x"):
        items = proxy.numbers(10)
        monkeypatch.setattr(Stream, "next_chunk", lambda *args, chunk=chunk: chunk)
        with pytest.raises(ProtocolError, match="invalid chunk"):
            next(items)


# ============================================================================= the wire
def test_the_messages_are_those_of_pyro5() -> None:
    """As recorded: wire.md 15."""
    with Served() as served, served.peer() as peer:
        served.publish(Thing())
        peer.hello()
        reply = peer.call("thing", "numbers", 2)
        assert reply.flags == FLAG_EXCEPTION | FLAG_ITEMSTREAM
        stream_id = bytes(reply.annotations["STRM"]).decode("ascii")
        assert str(uuid.UUID(stream_id)) == stream_id
        assert bytes(reply.payload) == (
            b"# serpent utf-8 python3.2\n{'__class__':'Pyro5.errors.ProtocolError','__exception__':True,"
            b"'args':('result of call is an iterator',),'attributes':{'_pyroTraceback':None}}"
        )
        assert [peer.value(peer.call("Pyro.Daemon", "get_next_stream_item", stream_id)) for _ in range(2)] == [0, 1]
        end = peer.call("Pyro.Daemon", "get_next_stream_item", stream_id)
        assert end.flags == FLAG_EXCEPTION
        assert isinstance(peer.value(end), StopIteration)
        gone = peer.call("Pyro.Daemon", "get_next_stream_item", stream_id)
        assert repr(peer.value(gone)) == "PyroError('item stream terminated')"


def test_the_end_of_a_stream_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    with Served() as served:
        served.publish(Thing())
        assert list(served.proxy(kernel=single()).numbers(3)) == [0, 1, 2]
    assert "StopIteration" not in caplog.text


def test_a_client_without_the_plugin_sees_an_error() -> None:
    kernel = make_kernel(environ={"PYRO_DISABLE_PLUGINS": "streaming"})
    with Served() as served:
        served.publish(Thing())
        with pytest.raises(ProtocolError, match=r"^result of call is an iterator$"):
            served.proxy(kernel=kernel).numbers(3)


def test_compressed_chunks(serve_threads: Serve) -> None:
    served = serve_threads(Thing(), COMPRESSION=True)
    values: Iterable[str] = ["a" * 1000] * 50
    assert list(served.proxy().values(values)) == values
