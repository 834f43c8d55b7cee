"""Deadlines that go with the calls, and with the calls that those make."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from pyroplug.api import PluginError, TimeoutError, current_context, deadline, expose
from pyroplug.core.wire import CONNECT, CONNECTOK, EXTENSIONS, FLAG_EXCEPTION, encode
from pyroplug.plugins.deadline import ANNOTATION
from pyroplug.testing.kernels import PATIENCE, Served, make_kernel
from testkit.timeouts import scaled

pytestmark = pytest.mark.needs("deadline")


@expose
class Thing:
    def __init__(self) -> None:
        self.next: Any = None
        self.gate = threading.Event()
        self.calls = 0

    def left(self) -> float | None:
        self.calls += 1
        return current_context.deadline

    def chain(self, depth: int) -> list[float | None]:
        """What is left here, and in the calls that this one causes."""
        return [current_context.deadline, *(self.next.chain(depth - 1) if depth else [])]

    def slow(self) -> None:
        self.gate.wait(PATIENCE)

    def slow_in_the_end(self, depth: int) -> None:
        if depth:
            self.next.slow_in_the_end(depth - 1)
        else:
            self.gate.wait(PATIENCE)

    def own(self, seconds: float) -> list[float | None]:
        with deadline(seconds):
            return list(self.next.chain(0))


@pytest.fixture
def thing() -> Any:
    thing = Thing()
    with Served("tcp4") as served:
        served.publish(thing)
        thing.next = served.proxy()
        yield thing, served
        thing.gate.set()


LONG = 1000.0


def test_without_a_deadline_there_is_none(thing: Any) -> None:
    _, served = thing
    assert served.proxy().left() is None


@pytest.mark.needs("mux")  # one proxy in all calls of a chain
def test_what_is_left_goes_with_the_call_and_those_it_causes(thing: Any) -> None:
    _, served = thing
    proxy = served.proxy()
    with deadline(LONG):
        first = proxy.chain(3)
    assert all(LONG - PATIENCE < left <= LONG for left in first)
    assert first == sorted(first, reverse=True)
    assert len(set(first)) == 4, "it becomes less on the way"
    assert proxy.chain(1) == [None, None]


def test_the_shorter_of_two_holds(thing: Any) -> None:
    _, served = thing
    proxy = served.proxy()
    with deadline(LONG):
        with deadline(2 * LONG):
            assert proxy.left() <= LONG
        with deadline(LONG / 2):
            assert proxy.left() <= LONG / 2
        assert proxy.left() > LONG / 2
        assert proxy.own(LONG / 4)[0] <= LONG / 4
        assert LONG / 2 < proxy.own(LONG * 4)[0] <= LONG


@pytest.mark.parametrize("timeout", [None, LONG])
def test_a_call_ends_in_time(thing: Any, timeout: float | None) -> None:
    _, served = thing
    proxy = served.proxy()
    proxy._pyroTimeout = timeout
    proxy.left()
    begin = time.monotonic()
    with pytest.raises(TimeoutError), deadline(scaled(0.2)):
        proxy.slow()
    assert time.monotonic() - begin < PATIENCE


def test_a_block_has_one_deadline_for_all_its_calls(thing: Any) -> None:
    thing, served = thing
    proxy = served.proxy()
    proxy.left()
    with deadline(scaled(0.2)):
        with pytest.raises(TimeoutError):
            proxy.slow()
        calls = thing.calls
        with pytest.raises(TimeoutError, match="left was not called"):
            proxy.left()
    assert thing.calls == calls
    assert proxy.left() is None


@pytest.mark.needs("mux")
def test_a_nested_call_ends_with_its_cause(thing: Any) -> None:
    """The innermost call of three is the one that is slow; all of them end."""
    _, served = thing
    proxy = served.proxy()
    ended = threading.Event()

    def wait() -> None:
        with pytest.raises(TimeoutError), deadline(scaled(0.5)):
            proxy.slow_in_the_end(2)
        ended.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert ended.wait(PATIENCE)
    thread.join(PATIENCE)


def test_the_time_out_of_a_proxy_is_a_deadline(thing: Any) -> None:
    _, served = thing
    proxy = served.proxy()
    proxy._pyroTimeout = LONG
    first = proxy.chain(1)
    assert all(0 < left <= LONG for left in first)


def test_a_peer_without_the_plugin_is_told_nothing(thing: Any) -> None:
    _, served = thing
    other = make_kernel(environ={"PYRO_DISABLE_PLUGINS": "deadline"})
    proxy = served.proxy(kernel=other)
    proxy._pyroTimeout = LONG
    assert proxy.left() is None
    proxy._pyroRelease()
    other.close()
    with Served("memory", environ={"PYRO_DISABLE_PLUGINS": "deadline"}) as old:
        old.publish(Thing())
        mine = make_kernel()
        silent = old.proxy(kernel=mine)
        with deadline(LONG), pytest.raises(PluginError, match="deadline"):
            silent.left()
        with pytest.raises(TimeoutError), deadline(scaled(0.2)):
            silent.slow()
        silent._pyroRelease()
        old.daemon.objectsById["thing"].gate.set()
        mine.close()


@pytest.mark.parametrize("value", [b"", b"short", b"\xff" * 8, bytes(8), b"\xbf\xf0" + bytes(6)])
def test_what_a_peer_may_send(thing: Any, value: bytes) -> None:
    """Too short, not a number, zero, negative: the method is not called, the connection stays."""
    target, served = thing
    peer = served.peer()
    hello = served.kernel.codecs()["serpent"].dumps({"handshake": "hello", "object": "thing"})
    peer.send(encode(CONNECT, 1, 0, 0, hello, {EXTENSIONS: b"deadline"}))
    assert peer.message().type == CONNECTOK
    reply = peer.call("thing", "left", annotations={ANNOTATION: value})
    assert reply.flags == FLAG_EXCEPTION
    assert target.calls == 0
    assert peer.call("thing", "left").flags == 0


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_deadline_is_in_the_future(seconds: float) -> None:
    with pytest.raises(ValueError, match="above zero"), deadline(seconds):
        pass
