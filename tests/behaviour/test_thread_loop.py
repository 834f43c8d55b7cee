"""What only the thread loop promises: concurrency, its bounds, and threads that come and go."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from pyroplug.api import OverloadError, Proxy, expose
from pyroplug.core.wire import CONNECTFAIL, FLAG_EXCEPTION
from pyroplug.testing.kernels import PATIENCE, Serve, Served
from pyroplug.testing.loops import Workpiece
from pyroplug.testing.transports import in_thread
from testkit.timeouts import scaled


def workers() -> list[str]:
    """The names of the loop's threads."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("pyroplug-worker")]


@pytest.mark.feature("F149", "F154")
def test_thirty_calls_at_once_and_another_client_is_served(serve_threads: Serve) -> None:
    piece = Workpiece()
    served = serve_threads(piece)
    proxies = [served.proxy() for _ in range(30)]
    quick = served.proxy()
    quick.echo()
    calls = [in_thread(proxy.wait, number) for number, proxy in enumerate(proxies)]
    waits = []
    for _ in range(30):
        assert piece.entered.acquire(timeout=PATIENCE)
        started = time.monotonic()
        assert quick.echo("meanwhile") == "meanwhile"
        waits.append(time.monotonic() - started)
    assert sorted(waits)[15] < scaled(0.05)
    piece.gate.set()
    assert [call.result(PATIENCE) for call in calls] == list(range(30))
    assert piece.most == 30


@pytest.mark.feature("F149", "F151", "F311")
@pytest.mark.parametrize("size", [1, 2])
def test_a_full_pool_queues_and_then_refuses(serve_threads: Serve, size: int) -> None:
    """Scenario 22: THREADPOOL_SIZE run, CALL_QUEUE_SIZE wait, the next is refused, and all of it recovers."""
    piece = Workpiece()
    served = serve_threads(piece, THREADPOOL_SIZE=size, THREADPOOL_SIZE_MIN=1, CALL_QUEUE_SIZE=2)
    peers = [served.peer() for _ in range(size + 3)]
    for peer in peers:
        peer.hello()
    for number, peer in enumerate(peers[:size]):
        peer.send(peer.call_message("thing", "wait", number))
        assert piece.entered.acquire(timeout=PATIENCE)
    for number, peer in enumerate(peers[size:], size):
        peer.send(peer.call_message("thing", "wait", number))
    # exactly one of them is answered at once
    answered: list[Any] = []
    for index, peer in enumerate(peers[size:], size):
        peer.stream.settimeout(0.3)
        try:
            answered.append((index, peer.value(peer.message())))
        except TimeoutError:
            pass
        peer.stream.settimeout(PATIENCE)
    ((refused, error),) = answered
    assert isinstance(error, OverloadError)
    assert f"{size} calls running (THREADPOOL_SIZE), 2 waiting (CALL_QUEUE_SIZE)" in str(error)
    assert error.retry_after > 0
    assert not piece.entered.acquire(blocking=False)  # the waiting ones do not run
    # a newcomer is told as well, and does not hang
    newcomer = served.peer()
    frame = newcomer.hello()
    assert frame.type == CONNECTFAIL
    assert b"overloaded" in bytes(frame.payload)
    piece.gate.set()
    for number, peer in enumerate(peers):
        if number != refused:
            assert peer.value(peer.message()) == number
    assert piece.most == size
    assert peers[refused].value(peers[refused].call("thing", "wait", "now")) == "now"
    assert served.proxy().echo("recovered") == "recovered"


def test_what_waits_runs_in_the_order_it_came(serve_threads: Serve) -> None:
    class Ordered(Workpiece):
        def __init__(self) -> None:
            super().__init__()
            self.order: list[Any] = []

        @expose
        def note(self, value: Any) -> None:
            self.order.append(value)

    piece = Ordered()
    served = serve_threads(piece, THREADPOOL_SIZE=1)
    first, *others = [served.peer() for _ in range(8)]
    for peer in (first, *others):
        peer.hello()
    first.send(first.call_message("thing", "wait"))
    assert piece.entered.acquire(timeout=PATIENCE)
    probe: Any = served.daemon.transportServer
    for number, peer in enumerate(others):
        peer.send(peer.call_message("thing", "note", number))
        deadline = time.monotonic() + PATIENCE
        while len(probe._queue) <= number and time.monotonic() < deadline:
            time.sleep(0.001)
    piece.gate.set()
    for peer in (first, *others):
        assert not peer.message().flags & FLAG_EXCEPTION
    assert piece.order == list(range(7))


@pytest.mark.feature("F153")
def test_five_hundred_idle_clients_cost_no_thread() -> None:
    with Served("memory", "thread") as served:
        served.publish(Workpiece())
        peers = [served.peer() for _ in range(500)]
        for peer in peers:
            peer.hello()
        assert len(workers()) <= 6
        for number, peer in enumerate(peers):
            if number % 50 == 0:
                assert peer.value(peer.call("thing", "echo", number)) == number
        assert served.proxy().echo(1) == 1
        assert len(workers()) <= 6


def test_threads_that_are_not_needed_end(serve_threads: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyroplug.transports.servers.thread.IDLE_LIFETIME", 0.05)
    piece = Workpiece()
    served = serve_threads(piece, THREADPOOL_SIZE_MIN=1)
    proxies = [served.proxy() for _ in range(20)]
    for proxy in proxies:
        proxy.echo()
    calls = [in_thread(proxy.wait) for proxy in proxies]
    for _ in proxies:
        assert piece.entered.acquire(timeout=PATIENCE)
    assert len(workers()) >= 20
    piece.gate.set()
    for call in calls:
        call.result(PATIENCE)
    deadline = time.monotonic() + PATIENCE
    while len(workers()) > 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    assert len(workers()) <= 3
    assert served.proxy().echo(1) == 1
    served.daemon.shutdown()
    assert workers() == []


@pytest.mark.feature("F105", "F106")
def test_a_call_that_comes_back_to_its_own_daemon(serve_threads: Serve) -> None:
    """Scenario 17: A calls B, which calls A."""

    @expose
    class Circle:
        uri: Any = None
        kernel: Any = None

        def down(self, levels: int) -> list[int]:
            if not levels:
                return [0]
            with Proxy(self.uri, kernel=self.kernel) as proxy:
                return [levels, *proxy.down(levels - 1)]

    circle = Circle()
    served = serve_threads(circle)
    circle.uri, circle.kernel = served.daemon.uriFor("thing"), served.kernel
    assert served.proxy().down(10) == list(range(10, -1, -1))


def test_pipelined_calls_of_one_client_never_overlap(serve_threads: Serve) -> None:
    piece = Workpiece()
    served = serve_threads(piece)
    peer = served.peer()
    peer.hello()
    peer.send(b"".join(peer.call_message("thing", "wait", number) for number in range(10)))
    assert piece.entered.acquire(timeout=PATIENCE)
    assert served.proxy().echo(1) == 1
    assert not piece.entered.acquire(blocking=False)
    piece.gate.set()
    assert [peer.value(peer.message()) for _ in range(10)] == list(range(10))
    assert piece.most == 1


def test_a_reply_that_is_not_read_costs_no_thread(serve_threads: Serve) -> None:
    """Eight clients do not read 3 MB each; the pool has two threads."""
    served = serve_threads(Workpiece(), THREADPOOL_SIZE=2)
    lazy = [served.peer() for _ in range(8)]
    for peer in lazy:
        peer.hello()
        peer.send(peer.call_message("thing", "make", 3_000_000))
    quick = served.proxy()
    for number in range(5):
        assert quick.echo(number) == number
    for peer in lazy:
        assert len(peer.value(peer.message())) == 3_000_000


@pytest.mark.stress
def test_many_clients_many_calls(serve_threads: Serve) -> None:
    served = serve_threads(Workpiece(), THREADPOOL_SIZE=4)

    def client(number: int) -> bool:
        proxy = served.proxy()
        return all(proxy.echo([number, call]) == [number, call] for call in range(30))

    jobs = [in_thread(client, number) for number in range(40)]
    assert all(job.result(PATIENCE) for job in jobs)
