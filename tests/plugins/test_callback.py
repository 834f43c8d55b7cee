"""Callbacks: servers that call their clients' objects, and the errors in these."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from pyroplug.api import ConnectionClosedError, Proxy, TimeoutError, callback, expose, oneway
from pyroplug.testing.kernels import PATIENCE, Serve, Served

pytestmark = pytest.mark.needs("callback")


@expose
class Listener:
    """What a client offers to a server."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.lock = threading.Lock()
        self.told = threading.Event()

    @callback
    def hear(self, value: Any) -> str:
        self.heard.append(value)
        return f"heard {value}"

    @callback
    def fail(self) -> None:
        raise ValueError("broken listener")

    def fail_quietly(self) -> None:
        raise ValueError("unmarked")

    @oneway
    @callback
    def tell(self, value: Any) -> None:
        with self.lock:
            self.heard.append(value)
            self.told.set()


@expose
class Server:
    def __init__(self) -> None:
        self.listeners: list[Proxy] = []
        self.next: Any = None
        self.limit: float | None = None

    def call(self, listener: Proxy, method: str, *args: Any) -> Any:
        with listener:
            return getattr(listener, method)(*args)

    def call_twice(self, listener: Proxy) -> Any:
        """The connection is the same, although the first call has failed."""
        with listener:
            try:
                listener.fail()
            except ValueError:
                connection = listener._pyroConnection
                return listener.hear("again") if connection is not None else "lost"
        return "no error"

    def subscribe(self, listener: Proxy) -> None:
        self.listeners.append(listener)

    def publish(self, value: Any) -> int:
        for listener in list(self.listeners):
            try:
                listener.hear(value)
            except ConnectionClosedError:
                self.listeners.remove(listener)
        return len(self.listeners)

    def around(self, hops: int) -> int:
        """Calls the next one, with a proxy for this call."""
        if not hops:
            return 0
        with self.next() as other:
            other._pyroTimeout = self.limit
            return 1 + int(other.around(hops - 1))

    def call_itself(self) -> int:
        return self.around(1)


@contextmanager
def a_ring(size: int, loop: str, limit: float | None = None, **options: Any) -> Iterator[list[Served]]:
    """Daemons, each calling the next."""
    with ExitStack() as stack:
        ring = [stack.enter_context(Served("tcp4", loop, **options)) for _ in range(size)]
        for number, served in enumerate(ring):
            server = Server()
            server.next, server.limit = ring[(number + 1) % size].proxy, limit
            served.publish(server)
        yield ring


@pytest.mark.needs("autoproxy")
@pytest.mark.feature("F101")
def test_a_server_calls_its_client(serve_at: Serve) -> None:
    listener = Listener()
    served = serve_at(Server())
    with Served("tcp4", kernel=served.kernel) as mine:
        mine.publish(listener, "listener")
        proxy = served.proxy()
        assert proxy.call(listener, "hear", 1) == "heard 1"
        assert proxy.call(listener, "tell", 2) is None
        assert listener.told.wait(PATIENCE)
    assert listener.heard == [1, 2]


@pytest.mark.needs("autoproxy")
@pytest.mark.feature("F102", "F103")
def test_errors_are_told_to_the_caller_and_logged_here(caplog: pytest.LogCaptureFixture) -> None:
    listener = Listener()
    with Served() as served, Served(kernel=served.kernel) as mine:
        served.publish(Server())
        mine.publish(listener, "listener")
        proxy = served.proxy()
        with pytest.raises(ValueError, match="broken listener"):
            proxy.call(listener, "fail")
        records = [record for record in caplog.records if record.name == "pyroplug.callback"]
        assert [record.getMessage() for record in records] == ["exception in the callback method Listener.fail"]
        assert "broken listener" in caplog.text
        assert "Traceback" in caplog.text
        with pytest.raises(ValueError, match="unmarked"):
            proxy.call(listener, "fail_quietly")
        assert len([record for record in caplog.records if record.name == "pyroplug.callback"]) == 1


@pytest.mark.needs("autoproxy")
@pytest.mark.feature("F102")
def test_the_connection_stays_after_an_error(serve_at: Serve) -> None:
    listener = Listener()
    served = serve_at(Server())
    with Served("tcp4", kernel=served.kernel) as mine:
        mine.publish(listener, "listener")
        assert served.proxy().call_twice(listener) == "heard again"


@pytest.mark.feature("F104")
def test_a_server_drops_listeners_that_are_gone(serve_at: Serve) -> None:
    served = serve_at(Server())
    kept = Listener()
    with Served("tcp4", kernel=served.kernel) as mine:
        mine.publish(kept, "listener")
        proxy = served.proxy()
        with Served("tcp4", kernel=served.kernel) as gone:
            gone.publish(Listener(), "listener")
            for each in (mine, gone):
                proxy.subscribe(each.daemon.proxyFor("listener"))
            assert proxy.publish("both") == 2
        assert proxy.publish("one") == 1
        assert kept.heard == ["both", "one"]


@pytest.mark.needs("oneway")
@pytest.mark.feature("F104", "F101")
def test_the_caller_may_hold_a_lock_that_the_callback_does_not_want(serve_at: Serve) -> None:
    """Scenario 19: the client is inside a call and holds a lock; a oneway callback waits, the call does not."""
    listener = Listener()
    served = serve_at(Server())
    with Served("tcp4", "thread") as mine:
        mine.publish(listener, "listener")
        proxy = served.proxy()
        with listener.lock:
            assert proxy.call(mine.daemon.proxyFor("listener"), "tell", "x") is None
            assert listener.heard == []
        assert listener.told.wait(PATIENCE)


@pytest.mark.needs("autoproxy")
@pytest.mark.feature("F104")
def test_a_callback_that_wants_a_lock_of_its_caller_ends_by_timeout() -> None:
    """Scenario 19: nobody can know that they wait for each other; a time limit ends it."""

    @expose
    class Locking(Listener):
        def wanting(self) -> str:
            with self.lock:
                return "got it"

    listener = Locking()
    with Served("tcp4") as served, Served("tcp4", kernel=served.kernel) as mine:
        served.publish(Server())
        mine.publish(listener, "listener")
        proxy = served.proxy()
        proxy._pyroTimeout = 0.2
        with listener.lock, pytest.raises(TimeoutError):
            proxy.call(listener, "wanting")
        assert proxy.call(listener, "wanting") == "got it"


@pytest.mark.feature("F104", "F106")
def test_two_crossing_callers() -> None:
    """Scenario 18: A calls B while B calls A, over connections of their own, many times."""
    with a_ring(2, "thread") as (one, two), ThreadPoolExecutor(4) as pool:

        def call(served: Served) -> int:
            proxy = served.proxy()
            return sum(int(proxy.around(2)) for _ in range(10))

        assert list(pool.map(call, [one, two, one, two])) == [20] * 4


@pytest.mark.feature("F106", "F105")
@pytest.mark.parametrize("size", [2, 3])
def test_circular_calls_complete_with_a_proxy_for_each_call(size: int) -> None:
    """Scenario 17: A calls B, B calls C, C calls A, and once around again."""
    with a_ring(size, "thread") as ring:
        proxy = ring[0].proxy()
        assert proxy.around(2 * size) == 2 * size


@pytest.mark.feature("F105")
def test_an_object_calls_its_own_daemon() -> None:
    with a_ring(1, "thread") as (served,):
        assert served.proxy().call_itself() == 1


@pytest.mark.feature("F105", "F106")
@pytest.mark.parametrize("size", [1, 2])
def test_under_multiplex_a_circle_that_nobody_can_see_ends_by_timeout(size: int) -> None:
    """The daemon is in the middle of its only call, and the plugin 'circular' is off: COMMTIMEOUT ends it."""
    environ = {"PYRO_DISABLE_PLUGINS": "circular"}
    with a_ring(size, "multiplex", limit=0.15, environ=environ) as ring:
        proxy = ring[0].proxy()
        with pytest.raises(TimeoutError, match="did not answer in time"):
            proxy.around(size)
        assert proxy.around(0) == 0  # and nobody is the worse for it


@pytest.mark.feature("F106")
def test_under_multiplex_a_oneway_link_breaks_the_circle() -> None:
    listener = Listener()
    with Served("tcp4", "multiplex") as served, Served("tcp4", "multiplex", kernel=served.kernel) as mine:
        served.publish(Server())
        mine.publish(listener, "listener")
        assert served.proxy().call(listener, "tell", 5) is None
        assert listener.told.wait(PATIENCE)
