"""Leases: renewed by use, reaped when nobody uses the object, never while a call runs."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from pyroplug.api import (
    CommunicationError,
    Daemon,
    DaemonError,
    Proxy,
    expose,
    registrations,
    set_transients_cleanup_age,
)
from pyroplug.plugins.reaper import reaper_of
from pyroplug.testing.kernels import PATIENCE, Serve, Served, make_kernel
from pyroplug.testing.transports import in_thread

pytestmark = pytest.mark.needs("reaper")


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@expose
class Leased:
    def __init__(self) -> None:
        self.reaped = 0
        self.entered, self.gate = threading.Event(), threading.Event()

    def use(self) -> str:
        return "used"

    @property
    def size(self) -> int:
        return 7

    def slow(self) -> str:
        self.entered.set()
        assert self.gate.wait(PATIENCE)
        return "done"

    def fail(self) -> None:
        raise ValueError("no")

    def items(self, count: int) -> Iterator[int]:
        yield from range(count)

    def _gotReaped(self) -> None:
        self.reaped += 1


@expose
class Maker:
    def __init__(self) -> None:
        self.made: list[Leased] = []
        self.daemon: Any = None

    def make(self, *arguments: Any, **options: Any) -> Any:
        thing = Leased()
        self.made.append(thing)
        self.daemon.register(thing, *arguments, **options)
        return thing

    def again(self, number: int = -1) -> Any:
        return self.made[number]


def start(served: Served) -> tuple[Daemon, Clock]:
    clock = Clock()
    reaper_of(served.daemon).clock = clock
    return served.daemon, clock


def lease(served: Served, seconds: float = 10.0) -> tuple[Leased, Clock]:
    daemon, clock = start(served)
    thing = Leased()
    daemon.register(thing, "thing", lifetime=seconds)
    return thing, clock


def reap(served: Served) -> bool:
    """Look once; whether the object is gone."""
    reaper_of(served.daemon).reap()
    return "thing" not in served.daemon.objectsById


@pytest.mark.feature("F059", "F060")
def test_scenario_43_a_lease_ends_when_nobody_calls(serve: Serve) -> None:
    served = serve()
    thing, clock = lease(served)
    proxy = served.proxy()
    assert proxy.use() == "used"
    clock.now += 9.9
    assert not reap(served)
    clock.now += 0.1
    assert reap(served)
    assert thing.reaped == 1
    assert not hasattr(thing, "_pyroId")
    assert not hasattr(thing, "_pyroDaemon")
    with pytest.raises(DaemonError, match="unknown object: thing"):
        proxy.use()
    assert reap(served)
    assert thing.reaped == 1
    served.publish(Leased())
    assert proxy.use() == "used"


@pytest.mark.needs("metadata")
@pytest.mark.feature("F059")
@pytest.mark.parametrize("use", ["use", "size", "fail", "batch", "renew"])
def test_what_renews_a_lease(use: str) -> None:
    with Served() as served:
        thing, clock = lease(served)
        proxy = served.proxy()
        for _ in range(3):
            clock.now += 9
            if use == "use":
                proxy.use()
            elif use == "size":
                assert proxy.size == 7
            elif use == "fail":
                with pytest.raises(ValueError, match="no"):
                    proxy.fail()
            elif use == "batch":
                batch = proxy._pyroBatch()
                batch.use()
                assert list(batch()) == ["used"]
            else:
                assert proxy._pyroRenew() == 10.0
            assert not reap(served)
        clock.now += 10
        assert reap(served)
        assert thing.reaped == 1


def test_renewing_what_cannot_be_renewed() -> None:
    with Served() as served:
        served.publish(Leased())
        proxy = served.proxy()
        with pytest.raises(DaemonError, match="object has no lease: thing"):
            proxy._pyroRenew()
        served.daemon.unregister("thing")
        with pytest.raises(DaemonError, match="unknown object: thing"):
            proxy._pyroRenew()


def test_scenario_47_a_lease_that_ends_during_a_call(serve_threads: Serve) -> None:
    """The object stays as long as the call runs, and gets a whole lease after it."""
    served = serve_threads()
    thing, clock = lease(served)
    running = in_thread(served.proxy().slow)
    assert thing.entered.wait(PATIENCE)
    clock.now += 1000
    assert not reap(served)
    assert registrations(served.daemon)[0].running == 1
    thing.gate.set()
    assert running.result(PATIENCE) == "done"
    assert not reap(served)
    clock.now += 10
    assert reap(served)
    assert thing.reaped == 1


def test_scenario_47_unregistered_between_look_up_and_call() -> None:
    """A call that has found the entry, but not begun, when the lease ends: it is refused."""
    with Served(start=False) as served:
        thing, clock = lease(served)
        found = served.daemon._registry.objects["thing"].table["use"]
        clock.now += 10
        assert reap(served)
        assert thing.reaped == 1
        with pytest.raises(DaemonError, match="unknown object: thing"):
            found()


def test_scenario_47_a_weak_object_dies_between_look_up_and_call() -> None:
    with Served(start=False) as served:
        thing: Any = Leased()
        served.publish(thing, weak=True)
        entry = served.daemon._registry.objects["thing"]
        assert entry.table["use"](entry.instance(None)) == "used"
        del thing
        gc.collect()
        assert "thing" not in served.daemon.objectsById
        with pytest.raises(DaemonError, match="unknown object: thing"):
            entry.instance(None)


def test_a_weak_object_that_dies_late_takes_no_other_with_it() -> None:
    """Its id belongs to another object by then."""
    with Served(start=False) as served:
        old: Any = Leased()
        served.publish(old, weak=True)
        kept = served.daemon._registry.objects["thing"]  # as a call does that runs
        new = Leased()
        served.publish(new, force=True)
        del old
        gc.collect()
        assert kept.target is None
        assert served.daemon.objectsById["thing"] is new


def test_unregistering_by_the_program_is_no_reaping() -> None:
    with Served(start=False) as served:
        thing, clock = lease(served)
        served.daemon.unregister(thing)
        clock.now += 100
        assert reap(served)
        assert thing.reaped == 0
        other, clock = lease(served)
        replacement = Leased()
        served.publish(replacement, force=True)
        clock.now += 100
        assert not reap(served)
        assert served.daemon.objectsById["thing"] is replacement
        assert other.reaped == 0


def test_what_is_taken_away_is_freed_at_once() -> None:
    """Without waiting for a garbage collection."""
    gc.disable()
    try:
        with Served(start=False) as served:
            thing, clock = lease(served)
            entry = served.daemon._registry.objects["thing"]
            assert entry.table["use"]() == "used"
            gone, entry_gone = weakref.ref(thing), weakref.ref(entry)
            del thing, entry
            clock.now += 10
            assert reap(served)
            assert gone() is None
            assert entry_gone() is None
    finally:
        gc.enable()


@pytest.mark.feature("F060")
def test_a_reaped_object_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Bad:
        @expose
        def use(self) -> None:
            pass

        def _gotReaped(self) -> None:
            raise RuntimeError("not now")

    with Served(start=False) as served:
        daemon, clock = start(served)
        daemon.register(Bad(), "thing", lifetime=1)
        daemon.register(Leased(), "other", lifetime=1)
        clock.now += 1
        with caplog.at_level(logging.ERROR, logger="pyroplug.reaper"):
            assert reap(served)
        assert "other" not in daemon.objectsById
        assert "_gotReaped of thing failed" in caplog.text


def test_housekeeping_reaps() -> None:
    with Served("memory", settings={"POLLTIMEOUT": 0.01}) as served:
        reaped = threading.Event()

        class Brief:
            @expose
            def use(self) -> None:
                pass

            def _gotReaped(self) -> None:
                reaped.set()

        served.daemon.register(Brief(), "brief", lifetime=0.001)
        assert reaped.wait(PATIENCE)


def test_many_calls_at_once_and_a_reaper_that_never_rests(serve_threads: Serve) -> None:
    """Counts stay right; nobody is told twice, and nobody while a call runs."""
    served = serve_threads()
    problems: list[str] = []

    @expose
    class Busy:
        def __init__(self) -> None:
            self.running = 0
            self.told = 0
            self.lock = threading.Lock()

        def use(self) -> None:
            with self.lock:
                self.running += 1
            with self.lock:
                self.running -= 1

        def _gotReaped(self) -> None:
            with self.lock:
                self.told += 1
                if self.running or self.told > 1:
                    problems.append(f"{self.running} running, told {self.told} times")

    _, clock = start(served)
    ended = threading.Event()

    def reaper() -> None:
        while not ended.is_set():
            clock.now += 1
            reaper_of(served.daemon).reap()

    def caller(proxy: Proxy) -> int:
        refused = 0
        for _ in range(100):
            try:
                proxy.use()
            except (DaemonError, CommunicationError) as exc:
                assert "unknown object: busy" in str(exc)  # noqa: PT017 - in a thread
                refused += 1
                try:
                    served.daemon.register(Busy(), "busy", lifetime=2)
                except DaemonError:
                    pass  # another one was faster
        return refused

    served.daemon.register(Busy(), "busy", lifetime=5)
    proxies = [served.proxy("busy") for _ in range(3)]
    background = in_thread(reaper)
    results = [in_thread(caller, proxy) for proxy in proxies]
    try:
        assert sum(result.result(PATIENCE) for result in results) > 0
    finally:
        ended.set()
        background.result(PATIENCE)
    assert problems == []


# --------------------------------------------------------------------------- the argument
@pytest.mark.parametrize("lifetime", ["permanent", None])
def test_permanent_objects_are_served_as_ever(lifetime: Any) -> None:
    with Served(start=False) as served:
        plain = Leased()
        served.daemon.register(plain, "plain")
        served.daemon.register(Leased(), "thing", lifetime=lifetime)
        kinds = {type(served.daemon._registry.objects[name]).__name__ for name in ("plain", "thing")}
        assert kinds == {"ObjectEntry"}


@pytest.mark.parametrize(
    ("lifetime", "error", "text"),
    [
        ("for ever", TypeError, "give 'permanent', 'weak', 'session' or seconds"),
        (True, TypeError, "cannot be True"),
        ([5], TypeError, "give 'permanent'"),
        (0, ValueError, "more than 0 seconds"),
        (-1, ValueError, "more than 0 seconds"),
        (float("nan"), ValueError, "more than 0 seconds"),
        ("session", DaemonError, "in a method that it calls"),
    ],
)
def test_wrong_lifetimes(lifetime: Any, error: type[Exception], text: str) -> None:
    with Served(start=False) as served:
        with pytest.raises(error, match=text):
            served.daemon.register(Leased(), "thing", lifetime=lifetime)
        assert "thing" not in served.daemon.objectsById


def test_lifetimes_that_exclude_each_other() -> None:
    with Served(start=False) as served:
        for lifetime in (5, "session", "permanent"):
            with pytest.raises(TypeError, match="a weak registration cannot have the lifetime"):
                served.daemon.register(Leased(), weak=True, lifetime=lifetime)
        with pytest.raises(TypeError, match="a class cannot have the lifetime 5"):
            served.daemon.register(Leased, lifetime=5)
        served.daemon.register(Leased(), weak=True, lifetime="weak")
        with pytest.raises(TypeError, match="arguments that no plugin knows: color"):
            served.daemon.register(Leased(), "thing", color="red")
        assert "thing" not in served.daemon.objectsById


def test_without_the_plugin() -> None:
    kernel = make_kernel(environ={"PYRO_DISABLE_PLUGINS": "reaper"})
    with Served(kernel=kernel, start=False) as served:
        served.publish(Leased())
        with pytest.raises(TypeError, match=r"no plugin knows: lifetime .*reaper"):
            served.daemon.register(Leased(), lifetime=5)
    kernel.close()


# --------------------------------------------------------------------------- transients
@pytest.mark.feature("F058", "F059")
@pytest.mark.parametrize("how", ["setting", "function"])
def test_transients(how: str) -> None:
    """Objects that calls register without an id; others stay."""
    settings = {"TRANSIENTS_CLEANUP_AGE": 5} if how == "setting" else {}
    with Served("tcp4", settings=settings) as served:
        daemon, clock = start(served)
        if how == "function":
            set_transients_cleanup_age(daemon, 5)
        maker = Maker()
        maker.daemon = daemon
        served.publish(maker, "maker")
        proxy = served.proxy("maker")
        before = daemon.register(Leased()).object
        transient, named, chosen = proxy.make(), proxy.make("named"), proxy.make(lifetime="permanent")
        assert [one.lifetime for one in registrations(daemon) if one.object_id == transient._pyroUri.object] == [
            "leased"
        ]
        assert transient.use() == "used"
        clock.now += 5
        reaper_of(daemon).reap()
        ids = set(daemon.objectsById)
        assert transient._pyroUri.object not in ids
        assert {before, "named", chosen._pyroUri.object, "maker"} <= ids
        assert [thing.reaped for thing in maker.made] == [1, 0, 0]
        with pytest.raises(DaemonError, match="unknown object"):
            transient.use()
        assert named.use() == chosen.use() == "used"
        for stub in (transient, named, chosen):
            stub._pyroRelease()
        with pytest.raises(ValueError, match="cannot be negative"):
            set_transients_cleanup_age(daemon, -1)
        set_transients_cleanup_age(daemon, 0)
        stub = proxy.make()
        clock.now += 1000
        reaper_of(daemon).reap()
        assert stub.use() == "used"
        stub._pyroRelease()


# --------------------------------------------------------------------------- looking at it
def test_registrations() -> None:
    with Served("tcp4") as served:
        daemon, clock = start(served)
        maker = Maker()
        maker.daemon = daemon
        served.publish(maker, "maker")
        weak = Leased()
        daemon.register(weak, "weak", lifetime="weak")
        proxy, other = served.proxy("maker"), served.proxy("maker")
        stubs = [proxy.make("session", lifetime="session"), proxy.make("leased", lifetime=60)]
        clock.now += 20
        stubs[1].use()
        clock.now += 5
        found = {one.object_id: one for one in registrations(daemon)}
        assert {name: (one.lifetime, one.type) for name, one in found.items()} == {
            "maker": ("permanent", "Maker"),
            "weak": ("weak", "Leased"),
            "session": ("session", "Leased"),
            "leased": ("leased", "Leased"),
        }
        assert (found["maker"].age, found["maker"].idle, found["maker"].owner) == (25, None, None)
        leased = found["leased"]
        assert (leased.age, leased.idle, leased.expires, leased.running) == (25, 5, 55, 0)
        connection = proxy._pyroConnection
        assert connection is not None
        assert leased.owner == found["session"].owner
        assert str(connection.stream.sock.getsockname()[1]) in str(leased.owner)
        # what a client is told: its own, and no more
        source = served.proxy("Pyro.Daemon")
        assert source.leases() == []
        mine = proxy._pyroInvoke("leases", (), {}, objectId="Pyro.Daemon")
        assert [one["object"] for one in mine] == ["leased", "session"]
        assert mine[0]["expires"] == 55
        assert other._pyroInvoke("leases", (), {}, objectId="Pyro.Daemon") == []
        for stub in stubs:
            stub._pyroRelease()


@pytest.mark.feature("F059", "F241")
def test_iterating_over_its_items_keeps_an_object(serve_some: Serve) -> None:
    """Fetching items calls the daemon's own object; the one whose generator it is counts as used all the same."""
    served = serve_some(ITER_STREAM_CHUNK=1)
    _, clock = lease(served)
    got = []
    for item in served.proxy().items(5):
        got.append(item)
        clock.now += 9.9
        assert not reap(served)
    assert got == list(range(5))
    clock.now += 10
    assert reap(served)
