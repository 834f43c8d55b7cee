"""Calls of many threads on one proxy, in flight together on its one connection."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pyroplug.api import BatchProxy, CommunicationError, ConnectionClosedError, Proxy, current_context, expose, oneway
from pyroplug.core.wire import CONNECT, CONNECTOK, EXTENSIONS, RESULT, encode
from pyroplug.plugins.mux import PART
from pyroplug.plugins.ping import ping
from pyroplug.testing.kernels import PATIENCE, Serve, make_kernel
from testkit.timeouts import scaled

pytestmark = pytest.mark.needs("mux")


@expose
class Thing:
    """Counts who is in it, and keeps whoever waits until the gate is opened."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.change = threading.Condition()
        self.inside = 0
        self.most = 0
        self.told: list[Any] = []
        self.told_something = threading.Event()

    def echo(self, value: Any = None) -> Any:
        return value

    def wait(self, value: Any = None) -> Any:
        with self.change:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.change.notify_all()
        self.gate.wait(PATIENCE)
        with self.change:
            self.inside -= 1
        return value

    def nap(self, value: Any) -> Any:
        with self.change:
            self.inside += 1
            self.most = max(self.most, self.inside)
        time.sleep(0.01)
        with self.change:
            self.inside -= 1
        return value

    def has(self, count: int) -> bool:
        """Whether so many calls are waiting, which may take a moment."""
        with self.change:
            return self.change.wait_for(lambda: self.inside >= count, PATIENCE)

    def fail(self, value: Any) -> None:
        raise ConnectionClosedError(f"what the method says: {value}")

    def numbers(self, count: int) -> Any:
        yield from range(count)

    @oneway
    def tell(self, value: Any) -> None:
        self.told.append(value)

    def tells(self, value: Any) -> Any:
        self.told_something.set()
        return value

    def large(self, size: int) -> bytes:
        return bytes(range(256)) * (size // 256)

    def hang_up(self) -> None:
        current_context.client.stream.close()


def without_mux() -> Any:
    return make_kernel(environ={"PYRO_DISABLE_PLUGINS": "mux"})


@pytest.mark.feature("F082")
def test_sixteen_calls_are_in_flight_together(serve_threads: Serve) -> None:
    thing = Thing()
    proxy = serve_threads(thing).proxy()
    with ThreadPoolExecutor(16) as pool:
        calls = [pool.submit(proxy.wait, number) for number in range(16)]
        assert thing.has(16)
        assert proxy.echo("beside them") == "beside them"
        thing.gate.set()
        assert [call.result(PATIENCE) for call in calls] == list(range(16))


@pytest.mark.parametrize("side", ["client", "server"])
def test_with_a_peer_that_cannot_do_it_calls_wait_for_each_other(serve_threads: Serve, side: str) -> None:
    thing = Thing()
    other = without_mux()
    served = serve_threads(thing) if side == "client" else serve_threads(thing, environ={"PYRO_DISABLE_PLUGINS": "mux"})
    proxy = served.proxy(kernel=other if side == "client" else make_kernel())
    with ThreadPoolExecutor(5) as pool:
        assert list(pool.map(proxy.nap, range(5))) == list(range(5))
    assert thing.most == 1
    proxy._pyroRelease()
    other.close()


def test_the_limit_of_one_connection(serve_threads: Serve) -> None:
    thing = Thing()
    proxy = serve_threads(thing, MUX_MAX_CALLS=2).proxy()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(proxy.nap, range(20))) == list(range(20))
    assert thing.most == 2


def test_everything_else_goes_on_beside_a_call(serve_threads: Serve) -> None:
    """Pings, streams, batches, oneway calls and other proxies' calls while one call of the proxy waits."""
    thing = Thing()
    proxy = serve_threads(thing).proxy()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(proxy.wait, "waited")
        assert thing.has(1)
        ping(proxy)
        items = proxy.numbers(1000)
        assert next(items) == 0
        batch = BatchProxy(proxy)
        batch.echo(1)
        batch.echo(2)
        assert list(batch()) == [1, 2]
        assert list(items) == list(range(1, 1000))
        proxy.tell(5)
        with proxy.numbers(10) as closed:
            next(closed)
        assert proxy.echo.future(3).result(PATIENCE) == 3
        thing.gate.set()
        assert waiting.result(PATIENCE) == "waited"


def test_an_error_that_a_method_raises_is_no_error_of_the_connection(serve: Serve) -> None:
    """Whatever its class is, the call was answered: nothing is repeated, the connection stays."""
    proxy = serve(Thing(), MAX_RETRIES=3).proxy()
    with ThreadPoolExecutor(4) as pool:
        for number, call in enumerate([pool.submit(proxy.fail, number) for number in range(20)]):
            with pytest.raises(ConnectionClosedError, match=f"says: {number}$"):
                call.result(PATIENCE)


@pytest.mark.feature("F078")
def test_a_lost_connection_fails_or_repeats_each_call_by_itself(serve_threads: Serve) -> None:
    thing = Thing()
    served = serve_threads(thing)
    proxy = served.proxy()
    with ThreadPoolExecutor(6) as pool:
        calls = [pool.submit(proxy.wait, number) for number in range(5)]
        assert thing.has(5)
        connection: Any = proxy._pyroConnection
        with pytest.raises(CommunicationError):
            proxy.hang_up()
        # what was raised has a traceback, whose frames have the connection: that would be a circle
        assert connection.failure is not None
        assert connection.failure.__traceback__ is None
        errors = [call.exception(PATIENCE) for call in calls]
        assert all(isinstance(error, ConnectionClosedError) for error in errors)
        assert len({id(error) for error in errors}) == 5
        thing.gate.set()
        proxy._pyroMaxRetries = 1
        assert proxy.echo("connected again") == "connected again"


def test_a_thread_that_leaves_its_with_block_costs_the_others_nothing(serve_threads: Serve) -> None:
    thing = Thing()
    proxy = serve_threads(thing).proxy()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(proxy.wait, "waited")
        assert thing.has(1)
        with proxy:
            assert proxy.echo(1) == 1
        assert proxy._pyroConnection is None
        assert proxy.echo("on a new connection") == "on a new connection"
        thing.gate.set()
        assert waiting.result(PATIENCE) == "waited"


def test_a_time_out_while_the_server_answers_others_keeps_the_connection(serve_threads: Serve) -> None:
    """Scenario 1."""
    thing = Thing()
    proxy = serve_threads(thing).proxy()
    proxy._pyroTimeout = scaled(0.5)
    assert proxy.echo() is None
    connection = proxy._pyroConnection
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(proxy.wait, "too late")
        assert thing.has(1)
        while not slow.done():
            assert proxy.echo("fine") == "fine"
        assert isinstance(slow.exception(), CommunicationError)
        assert proxy._pyroConnection is connection
        thing.gate.set()
        for number in range(100):
            assert proxy.echo(number) == number


@expose
class Crossing:
    """Calls the other one, over a proxy that its threads share."""

    def __init__(self) -> None:
        self.other: Any = None

    def bounce(self, times: int) -> int:
        return 1 + int(self.other.bounce(times - 1)) if times else 0


def test_connections_that_are_crossed_in_opposite_order(serve_threads: Serve) -> None:
    """Scenario 18, and a circle through one proxy: a call within a call uses the connection that its cause waits on."""
    one, two = Crossing(), Crossing()
    served = serve_threads(one)
    served.publish(two, "two")
    one.other, two.other = served.proxy("two"), served.proxy("thing")
    mine: list[Proxy] = [served.proxy("thing"), served.proxy("two")]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda n: mine[n % 2].bounce(6), range(16))) == [6] * 16


MEGABYTE = 1024 * 1024


def test_small_replies_overtake_large_ones(serve_threads: Serve) -> None:
    """A reader that is slow: of the large reply little has gone when the small one is made, which comes first."""
    served = serve_threads(Thing())
    peer = served.peer()
    hello = served.kernel.codecs()["serpent"].dumps({"handshake": "hello", "object": "thing"})
    peer.send(encode(CONNECT, 1, 0, 0, hello, {EXTENSIONS: b"mux,parts"}))
    assert peer.message().type == CONNECTOK
    peer.send(peer.call_message("thing", "wait", 0))
    waiting = served.daemon.objectsById["thing"]
    assert waiting.has(1)
    peer.send(peer.call_message("thing", "large", 8 * MEGABYTE, serializer="msgpack"))
    peer.send(peer.call_message("thing", "tells", "small"))
    assert waiting.told_something.wait(PATIENCE)  # nothing is read before: the large reply waits in the server
    seen = receive_all(peer, 2)
    assert {kind for kind, number in seen if number == 2} == {PART}
    assert seen.index((RESULT, 3)) < len(seen) - 10
    waiting.gate.set()
    assert peer.message().seq == 1


@pytest.mark.parametrize("size", [65_536, 1_000_000, 20 * MEGABYTE])
def test_large_replies_beside_other_calls_arrive_whole(serve: Serve, size: int) -> None:
    """Several large ones at a time, in parts, and small ones between; with compression as without."""
    size -= size % 256
    thing = Thing()
    proxy = serve(thing, SERIALIZER="msgpack", MAX_MESSAGE_SIZE=50 * MEGABYTE).proxy()
    with ThreadPoolExecutor(6) as pool:
        large = [pool.submit(proxy.large, size) for _ in range(3)]
        small = [pool.submit(proxy.nap, number) for number in range(30)]
        assert [call.result(PATIENCE) for call in small] == list(range(30))
        for call in large:
            assert call.result(PATIENCE) == thing.large(size)


def receive_all(peer: Any, count: int) -> list[tuple[int, int]]:
    """Types and numbers of messages until so many replies are complete."""
    seen: list[tuple[int, int]] = []
    sizes = 0
    while count:
        frame = peer.message()
        seen.append((frame.type, frame.seq))
        if frame.type == RESULT:
            count -= 1
        else:
            sizes += len(frame.payload)
            if sizes == 8 * MEGABYTE + 45:  # with the header, and what msgpack says of bytes
                count -= 1
    return seen
