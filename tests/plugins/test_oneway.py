"""Plugin oneway: the decorator, the pool and its limits (calls over every transport: tests/behaviour)."""

from __future__ import annotations

import functools
import threading
from typing import Any

import pytest

from pyroplug.api import OnewayCounts, expose, oneway, oneway_counts
from pyroplug.core.wire import FLAG_ONEWAY
from pyroplug.plugins.oneway import Pool, Strand
from pyroplug.testing.kernels import PATIENCE, Served, make_kernel

pytestmark = pytest.mark.needs("oneway")


@pytest.mark.feature("F089")
def test_the_mark_is_in_the_metadata() -> None:
    class Thing:
        @expose
        @oneway
        def one(self) -> None:
            pass

        @oneway
        @expose
        def other_order(self) -> None:
            pass

        @expose
        def plain(self) -> None:
            pass

        @oneway
        def hidden(self) -> None:
            pass

    assert make_kernel().members_of(Thing).metadata()["oneway"] == {"one", "other_order"}


def test_the_pool_runs_strands_in_order_and_beside_each_other() -> None:
    pool = Pool(threads=4, limit=1000)
    done: list[Any] = []
    meeting = threading.Barrier(2)
    finished = threading.Semaphore(0)

    def job(value: Any) -> None:
        done.append(value)
        finished.release()

    def meet() -> None:
        meeting.wait(PATIENCE)
        finished.release()

    first, second = Strand(), Strand()
    pool.submit(first, meet)
    pool.submit(second, meet)  # each waits for the other: they run at the same time
    for number in range(20):
        pool.submit(first, functools.partial(job, number))
    for _ in range(22):
        assert finished.acquire(timeout=PATIENCE)
    assert done == list(range(20))
    pool.close(PATIENCE)


def test_no_strand_starves_another() -> None:
    pool = Pool(threads=1, limit=1000)
    gate = threading.Event()
    order: list[str] = []
    finished = threading.Semaphore(0)

    def job(name: str) -> None:
        gate.wait(PATIENCE)
        order.append(name)
        finished.release()

    busy, rare = Strand(), Strand()
    for _ in range(10):
        pool.submit(busy, lambda: job("busy"))
    pool.submit(rare, lambda: job("rare"))
    gate.set()
    for _ in range(11):
        assert finished.acquire(timeout=PATIENCE)
    assert order.index("rare") <= 2
    pool.close(PATIENCE)


def test_too_many_are_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    pool = Pool(threads=1, limit=5)
    gate, entered = threading.Event(), threading.Event()

    def block() -> None:
        entered.set()
        gate.wait(PATIENCE)

    strand = Strand()
    pool.submit(strand, block)
    assert entered.wait(PATIENCE)
    for _ in range(5 + 9):
        pool.submit(strand, lambda: None)
    assert pool.dropped == 9
    assert len([record for record in caplog.records if "dropped" in record.message]) == 4  # 1, 2, 4 and 8
    gate.set()
    pool.close(PATIENCE)
    pool.submit(strand, lambda: None)
    assert pool.dropped == 15  # and the 5 that were waiting when it was closed
    assert pool.counts() == OnewayCounts(started=1, failed=0, dropped=15)


@expose
class Counted:
    def __init__(self) -> None:
        self.ran = threading.Semaphore(0)

    @oneway
    def fire(self, fail: bool = False) -> None:
        self.ran.release()
        if fail:
            raise ValueError("nobody hears this")

    def fail(self) -> None:
        raise ValueError("everybody hears this")


@pytest.mark.needs("metadata")
@pytest.mark.feature("F089", "F091")
@pytest.mark.parametrize("threaded", [True, False])
def test_what_nobody_hears_of_is_counted(threaded: bool) -> None:
    counted = Counted()
    with Served(settings={"ONEWAY_THREADED": threaded}) as served:
        served.publish(counted)
        assert oneway_counts(served.daemon) == (0, 0, 0)
        proxy = served.proxy()
        for fail in (False, True, True):
            proxy.fire(fail)
        proxy._pyroInvoke("nowhere", (), {}, flags=FLAG_ONEWAY)
        proxy.fire()
        with pytest.raises(ValueError, match="everybody"):
            proxy.fail()
        for _ in range(4):
            assert counted.ran.acquire(timeout=PATIENCE)
    assert oneway_counts(served.daemon) == OnewayCounts(started=5, failed=3, dropped=0)


@pytest.mark.needs("metadata")
@pytest.mark.feature("F089")
def test_what_waits_when_the_daemon_ends_counts_as_dropped() -> None:
    gate, entered = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    @expose
    class Slow:
        @oneway
        def fire(self) -> None:
            threads.append(threading.current_thread())
            entered.set()
            gate.wait(PATIENCE)

        def all_have_come(self) -> None:
            pass

    with Served(settings={"ONEWAY_QUEUE_SIZE": 3, "ONEWAY_THREADS": 1, "SHUTDOWN_TIMEOUT": 0.1}) as served:
        served.publish(Slow())
        proxy = served.proxy()
        proxy.fire()
        assert entered.wait(PATIENCE)
        for _ in range(5):
            proxy.fire()
        proxy.all_have_come()
        assert oneway_counts(served.daemon) == OnewayCounts(started=1, failed=0, dropped=2)
    assert oneway_counts(served.daemon) == OnewayCounts(started=1, failed=0, dropped=5)
    gate.set()
    threads[0].join(PATIENCE)


def test_idle_threads_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pool, "IDLE_LIFETIME", 0.02)
    pool = Pool(threads=3, limit=10)
    ran = threading.Event()
    thread: list[threading.Thread] = []

    def job() -> None:
        thread.append(threading.current_thread())
        ran.set()

    pool.submit(Strand(), job)
    assert ran.wait(PATIENCE)
    thread[0].join(PATIENCE)
    assert not thread[0].is_alive()
    ran.clear()
    pool.submit(Strand(), job)
    assert ran.wait(PATIENCE)
    pool.close(PATIENCE)
    thread[1].join(PATIENCE)


def test_closing_waits_only_for_what_runs() -> None:
    pool = Pool(threads=1, limit=10)
    gate, entered = threading.Event(), threading.Event()
    ran: list[int] = []

    def block() -> None:
        entered.set()
        gate.wait(PATIENCE)
        ran.append(1)

    strand = Strand()
    pool.submit(strand, block)
    pool.submit(strand, lambda: ran.append(2))
    assert entered.wait(PATIENCE)
    threading.Timer(0.02, gate.set).start()
    pool.close(PATIENCE)
    assert ran == [1]
