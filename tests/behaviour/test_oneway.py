"""Oneway calls."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from pyroplug.api import current_context, expose, oneway
from pyroplug.core.wire import FLAG_ONEWAY
from pyroplug.testing.kernels import PATIENCE, Serve
from testkit.timeouts import scaled


@expose
class Thing:
    """Methods that nobody waits for."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.change = threading.Condition()
        self.gate = threading.Event()
        self.threads: set[str] = set()

    def _add(self, value: Any) -> None:
        with self.change:
            self.seen.append(value)
            self.threads.add(threading.current_thread().name)
            self.change.notify_all()

    def wait_for(self, count: int) -> bool:
        with self.change:
            return self.change.wait_for(lambda: len(self.seen) >= count, PATIENCE)

    @oneway
    def note(self, value: Any) -> str:
        self._add(value)
        return "never seen"

    @oneway
    def gated(self, value: Any = None) -> None:
        self.gate.wait(PATIENCE)
        self._add(value)

    @oneway
    def fail(self) -> None:
        self._add("fail")
        raise ValueError("nobody hears this")

    @oneway
    def context(self) -> None:
        self._add((current_context.msg_flags, current_context.seq, current_context.client is not None))

    def echo(self, value: Any) -> Any:
        return value


@pytest.mark.needs("metadata", "oneway")
@pytest.mark.feature("F089", "F086")
def test_the_caller_does_not_wait(serve: Serve) -> None:
    thing = Thing()
    proxy = serve(thing).proxy()
    assert proxy.gated("x") is None
    assert proxy.gated("y") is None
    assert proxy.echo(5) == 5  # nor do its other calls
    assert thing.seen == []
    thing.gate.set()
    assert thing.wait_for(2)
    assert thing.seen == ["x", "y"]


@pytest.mark.feature("F089")
def test_calls_of_one_proxy_keep_their_order(serve: Serve) -> None:
    thing = Thing()
    served = serve(thing)
    first, second = served.proxy(), served.proxy()
    for number in range(200):
        first.note(("first", number))
        second.note(("second", number))
    assert thing.wait_for(400)
    for who in ("first", "second"):
        assert [number for name, number in thing.seen if name == who] == list(range(200))


@pytest.mark.needs("metadata")
@pytest.mark.feature("F091")
def test_threads_are_bounded(serve_some: Serve) -> None:
    """Scenario 23: 300 calls that take long do not make 300 threads."""
    thing = Thing()
    served = serve_some(thing, ONEWAY_THREADS=4)
    proxies = [served.proxy() for _ in range(10)]
    for number in range(300):
        proxies[number % 10].gated(number)
    assert proxies[0].echo(1) == 1
    assert sum(thread.name == "pyroplug-oneway" for thread in threading.enumerate()) <= 4
    thing.gate.set()
    assert thing.wait_for(300)
    assert sorted(thing.seen) == list(range(300))


@pytest.mark.stress
def test_ten_thousand_calls(serve_threads: Serve) -> None:
    thing = Thing()
    proxy = serve_threads(thing).proxy()
    for number in range(10_000):
        proxy.note(number)
    assert thing.wait_for(10_000)
    assert thing.seen == list(range(10_000))
    assert len(thing.threads) <= 2


@pytest.mark.needs("metadata", "oneway")
def test_errors_are_logged_and_not_answered(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    thing = Thing()
    served = serve(thing)
    told = threading.Event()
    served.daemon.methodcall_error_handler = lambda *args: told.set()
    proxy = served.proxy()
    assert proxy.fail() is None
    assert told.wait(PATIENCE)
    assert proxy.echo("next") == "next"
    proxy.note("after")
    assert thing.wait_for(2)
    (record,) = [record for record in caplog.records if "oneway call" in record.message]
    assert "thing.fail" in record.message
    assert "nobody hears this" in record.message


@pytest.mark.feature("F091")
def test_in_line(serve: Serve) -> None:
    """ONEWAY_THREADED=0: the client's next call comes after it, in the same thread."""
    thing = Thing()
    proxy = serve(thing, ONEWAY_THREADED=False).proxy()
    proxy.gated("first")
    threading.Timer(0.02, thing.gate.set).start()
    assert proxy.echo(1) == 1
    assert thing.seen == ["first"]
    assert not any("oneway" in name for name in thing.threads)


@pytest.mark.needs("metadata")
def test_a_full_queue_drops_and_says_so(serve_some: Serve, caplog: pytest.LogCaptureFixture) -> None:
    thing = Thing()
    served = serve_some(thing, ONEWAY_QUEUE_SIZE=3, ONEWAY_THREADS=1)
    proxy = served.proxy()
    proxy.note("first")
    assert thing.wait_for(1)
    for number in range(10):
        proxy.gated(number)
    assert proxy.echo(1) == 1  # all have come
    thing.gate.set()
    assert thing.wait_for(4)
    proxy.note("last")
    assert thing.wait_for(5)
    assert len(thing.seen) in (5, 6)  # one runs (perhaps not yet when the next came), three wait
    assert "oneway calls dropped" in caplog.text
    assert "ONEWAY_QUEUE_SIZE" in caplog.text


@pytest.mark.feature("F090")
def test_the_caller_may_decide(serve_some: Serve) -> None:
    thing = Thing()
    proxy = serve_some(thing).proxy()
    proxy._pyroOneway = {"echo"}
    assert proxy.echo(1) is None
    proxy._pyroOneway = set()
    assert proxy.echo(1) == 1


def test_the_server_obeys_the_flag_not_the_mark(serve: Serve) -> None:
    thing = Thing()
    peer = serve(thing).peer()
    peer.hello()
    peer.send(peer.call_message("thing", "echo", 1, flags=FLAG_ONEWAY))
    frame = peer.call("thing", "note", 2)
    assert peer.value(frame) == "never seen"
    assert frame.seq == peer.seq


@pytest.mark.needs("metadata", "oneway")
def test_the_context_in_a_oneway_thread(serve_some: Serve) -> None:
    thing = Thing()
    proxy = serve_some(thing).proxy()
    proxy.context()
    assert thing.wait_for(1)
    flags, seq, has_client = thing.seen[0]
    assert flags & FLAG_ONEWAY
    assert seq == proxy._pyroSeq
    assert has_client


@pytest.mark.needs("metadata")
def test_shutdown_waits_for_what_runs_and_drops_what_waits(serve_some: Serve, caplog: pytest.LogCaptureFixture) -> None:
    thing = Thing()
    served = serve_some(thing, ONEWAY_THREADS=1)
    proxy = served.proxy()
    proxy.note("begin")
    assert thing.wait_for(1)
    for number in range(3):
        proxy.gated(number)
    proxy.echo(1)
    threading.Timer(0.05, thing.gate.set).start()
    started = time.monotonic()
    served.daemon.shutdown()
    assert time.monotonic() - started < scaled(2)
    assert thing.seen in (["begin"], ["begin", 0])
    assert "oneway calls that were waiting are dropped" in caplog.text
    assert "unknown object" not in caplog.text
    assert not any(thread.name == "pyroplug-oneway" for thread in threading.enumerate())
