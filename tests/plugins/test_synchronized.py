"""``@synchronized``: the remote calls of an object run one at a time."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pyroplug.api import behavior, expose, oneway, synchronized
from pyroplug.core.wire import FLAG_ONEWAY
from pyroplug.plugins.synchronized import Locks
from pyroplug.testing.kernels import PATIENCE, Serve

pytestmark = [pytest.mark.needs("synchronized"), pytest.mark.feature("F157")]


class Meter:
    """Counts how many are inside at a time; ``enter`` stays until it is let go, or a moment if it may not wait."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self.change = threading.Condition()
        self.open = threading.Event()

    def enter(self, wait: bool = False) -> int:
        with self.change:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.change.notify_all()
        if wait:
            self.open.wait(PATIENCE)
        else:
            for _ in range(200):  # gives others the chance to come in
                threading.Event().is_set()
        with self.change:
            self.inside -= 1
            return self.most

    def wait_for(self, inside: int) -> bool:
        with self.change:
            return self.change.wait_for(lambda: self.inside >= inside, PATIENCE)


@expose
@synchronized
class Guarded:
    def __init__(self) -> None:
        self._meter = Meter()

    def enter(self, wait: bool = False) -> int:
        return self._meter.enter(wait)

    def again(self, times: int) -> int:
        return self.again(times - 1) if times else self._meter.enter()  # local calls take no lock again

    @oneway
    def enter_oneway(self) -> None:
        self._meter.enter()

    @property
    def level(self) -> int:
        return self._meter.enter()

    @level.setter
    def level(self, value: int) -> None:
        self._meter.enter()

    def fail(self) -> None:
        raise ValueError("failed")


@expose
class Mixed:
    def __init__(self) -> None:
        self._meter = Meter()

    @synchronized
    def enter(self, wait: bool = False) -> int:
        return self._meter.enter(wait)

    def free(self) -> int:
        return self._meter.inside

    @property
    @synchronized
    def level(self) -> int:
        return self._meter.enter()


def test_calls_properties_and_oneway_calls_run_one_at_a_time(serve_threads: Serve) -> None:
    thing = Guarded()
    served = serve_threads(thing)

    def hammer(who: int) -> None:
        proxy = served.proxy()
        for _ in range(10):
            proxy.enter()
            proxy.enter_oneway()
            proxy.level = proxy.level
            proxy.again(2)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(hammer, range(6)))
    assert served.proxy().enter() == 1


def test_the_others_wait(serve_threads: Serve) -> None:
    thing, other = Guarded(), Guarded()
    served = serve_threads(thing)
    served.publish(other, "other")
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(served.proxy().enter, True)
        assert thing._meter.wait_for(1)
        second = pool.submit(served.proxy().enter)
        assert served.proxy("other").enter() == 1  # other objects are not affected
        assert not second.done()
        thing._meter.open.set()
        assert (first.result(PATIENCE), second.result(PATIENCE)) == (1, 1)


def test_on_a_method_it_holds_for_that_method(serve_threads: Serve) -> None:
    thing = Mixed()
    served = serve_threads(thing)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(served.proxy().enter, True)
        assert thing._meter.wait_for(1)
        second = pool.submit(served.proxy()._pyroInvoke, "__getattr__", ("level",), {})
        assert served.proxy().free() == 1
        assert not second.done()
        thing._meter.open.set()
        assert (first.result(PATIENCE), second.result(PATIENCE)) == (1, 1)


def test_an_error_gives_the_lock_back(serve: Serve) -> None:
    proxy = serve(Guarded()).proxy()
    for _ in range(3):
        with pytest.raises(ValueError, match="failed"):
            proxy.fail()
    assert proxy.enter() == 1


def test_each_instance_has_its_own_lock(serve_threads: Serve) -> None:
    meter = Meter()

    @expose
    @synchronized
    @behavior(instance_mode="session")
    class PerSession:
        def enter(self, wait: bool) -> int:
            return meter.enter(wait)

    served = serve_threads(PerSession)
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(served.proxy().enter, True) for _ in range(2)]
        assert meter.wait_for(2)
        meter.open.set()
        assert max(call.result(PATIENCE) for call in calls) == 2


def test_a_subclass_is_guarded_too(serve_threads: Serve) -> None:
    class Derived(Guarded):
        @expose
        def more(self) -> int:
            return self._meter.enter()

    thing = Derived()
    served = serve_threads(thing)

    def hammer(_: int) -> Any:
        proxy = served.proxy()
        return [proxy.more() + proxy.enter() for _ in range(10)]

    with ThreadPoolExecutor(4) as pool:
        assert {value for values in pool.map(hammer, range(4)) for value in values} == {2}


def test_oneway_by_the_flag(serve_some: Serve) -> None:
    proxy = serve_some(Guarded()).proxy()
    assert proxy._pyroInvoke("enter", (), {}, flags=FLAG_ONEWAY) is None
    assert proxy.enter() == 1


def test_locks_go_with_their_objects() -> None:
    class Plain:
        pass

    class Slotted:
        __slots__ = ()

    locks = Locks()
    things = [Plain() for _ in range(100)]
    assert len({id(locks.of(thing)) for thing in things}) == 100
    assert all(locks.of(thing) is locks.of(thing) for thing in things)
    slotted = Slotted()
    assert locks.of(slotted) is locks.of(slotted)
    del things
    gc.collect()
    assert len(locks._locks) <= 2
