"""Auto-clean: names of servers that are gone disappear, and those of servers that came back do not."""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pyroplug.api import ConfigError, NamingError
from pyroplug.core.uri import URI
from pyroplug.plugins.naming import naming_of
from pyroplug.plugins.naming.autoclean import UNREACHABLE, AutoCleaner, autoclean
from pyroplug.plugins.naming.server import NameServer
from pyroplug.plugins.naming.sqlite import SqlStorage
from pyroplug.testing.kernels import LOOPS, Served, make_kernel
from testkit.timeouts import PATIENCE, scaled


class World:
    """A name server, a cleaner, and the locations where somebody answers."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.alive: set[str] = set()
        self.tried: list[str] = []
        self.ns = NameServer(make_kernel())
        self.ns.announce(URI("PYRO:Pyro.NameServer@ns:9090"))
        self.cleaner = AutoCleaner(self.ns, make_kernel(), self.connect, lambda: self.now)

    def connect(self, uri: URI) -> None:
        self.tried.append(uri.location)
        if uri.location not in self.alive:
            raise ConnectionRefusedError("nobody there")

    def after(self, seconds: float) -> int:
        self.now += seconds
        return self.cleaner.clean()

    def names(self) -> set[str]:
        return set(self.ns.list()) - {"Pyro.NameServer"}


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.feature("F277")
def test_who_cannot_be_reached_for_twenty_seconds_is_removed(world: World) -> None:
    world.alive = {"here:1"}
    world.ns.register("here", "PYRO:a@here:1")
    world.ns.register("gone", "PYRO:a@gone:1")
    world.ns.register("gone too", "PYRO:b@gone:1")
    assert world.after(0) == 0
    assert world.after(UNREACHABLE - 0.1) == 0
    assert world.names() == {"here", "gone", "gone too"}
    assert world.after(0.1) == 2
    assert world.names() == {"here"}


@pytest.mark.feature("F277")
def test_who_comes_back_has_all_the_time_again(world: World) -> None:
    world.ns.register("shop", "PYRO:a@shop:1")
    world.after(0)
    world.alive = {"shop:1"}
    world.after(15)
    world.alive = set()
    assert world.after(15) == 0
    assert world.after(15) == 0
    assert world.after(15) == 1


@pytest.mark.feature("F277")
def test_each_location_is_tried_once(world: World) -> None:
    for number in range(50):
        world.ns.register(f"name{number}", f"PYRO:o{number}@host{number % 3}:1")
    world.after(0)
    assert sorted(world.tried) == ["host0:1", "host1:1", "host2:1", "ns:9090"]


@pytest.mark.feature("F277")
def test_scenario_57_what_was_registered_anew_meanwhile_stays(world: World) -> None:
    world.ns.register("shop", "PYRO:a@shop:1")
    world.after(0)
    connect = world.connect

    def registered_meanwhile(uri: URI) -> None:
        world.ns.register("shop", "PYRO:a@other:1")
        connect(uri)

    world.cleaner._connect = registered_meanwhile
    assert world.after(UNREACHABLE) == 0
    assert world.names() == {"shop"}


@pytest.mark.feature("F277")
def test_what_is_left_alone(world: World) -> None:
    world.ns.lease("leased", "PYRO:a@gone:1", "secret", 1000)
    world.ns.register("by name", "PYRONAME:other@gone:9090")
    world.ns.register("no port", "PYRO:a@gone:0")
    world.after(0)
    assert world.after(100) == 0
    assert world.tried == ["ns:9090", "ns:9090"]
    assert "Pyro.NameServer" in world.ns.list()


@pytest.mark.feature("F277")
def test_real_connections(tmp_path: Path) -> None:
    with Served("tcp4", "thread") as served, Served("unix", "thread", folder=tmp_path) as other:
        now = [0.0]
        ns = NameServer(served.kernel)
        ns.register("tcp", served.daemon.uriFor("x"))
        ns.register("unix", other.daemon.uriFor("x"))
        with socket.socket() as closed:  # bound, and nobody listens
            closed.bind(("127.0.0.1", 0))
            ns.register("gone", f"PYRO:a@127.0.0.1:{closed.getsockname()[1]}")
            ns.register("gone unix", f"PYRO:a@./u:{tmp_path}/nobody")
            cleaner = AutoCleaner(ns, served.kernel, clock=lambda: now[0])
            cleaner.clean()
            now[0] = UNREACHABLE
            assert cleaner.clean() == 2
        assert set(ns.list()) == {"tcp", "unix"}


@pytest.mark.feature("F277")
def test_the_setting() -> None:
    for fine in (0, 3, 60):
        make_kernel(NS_AUTOCLEAN=fine)
    for bad in (-1, 0.5, 2.99):
        with pytest.raises(ConfigError, match="NS_AUTOCLEAN"):
            make_kernel(NS_AUTOCLEAN=bad)
    off, on = make_kernel(), make_kernel(NS_AUTOCLEAN=3)
    assert autoclean in naming_of(on).services
    daemon: Any = SimpleNamespace(kernel=off, nameserver=NameServer(off))
    assert autoclean(daemon) is None
    daemon.kernel = on
    service = autoclean(daemon)
    assert service is not None
    service.close()
    service.close()
    kernel = make_kernel(environ={"PYRO_DISABLE_PLUGINS": "naming_autoclean"})
    assert autoclean not in naming_of(kernel).services


@pytest.mark.feature("F277")
def test_it_looks_around_by_itself(world: World) -> None:
    done = threading.Event()
    kernel = make_kernel(NS_AUTOCLEAN=3)
    world.ns.register("gone", "PYRO:a@gone:1")

    def connect(uri: URI) -> None:
        if "gone" not in world.ns.list():
            done.set()
        raise OSError("nobody")

    seconds = itertools.count(0.0, 5.0)
    cleaner = AutoCleaner(world.ns, kernel, connect, lambda: next(seconds), period=0.01)
    cleaner.start()
    assert done.wait(PATIENCE)
    cleaner.close()


# ----------------------------------------------------------------------------- everything at once
Job = Callable[[Any, random.Random], object]
JOBS: list[Job] = [
    lambda ns, r: ns.register(f"n{r.randrange(60)}", f"PYRO:a@dead{r.randrange(9)}:1", metadata=None),
    lambda ns, r: ns.register(f"n{r.randrange(60)}", "PYRO:a@alive:1", metadata=[f"t{r.randrange(5)}", "all"]),
    lambda ns, r: ns.register(f"n{r.randrange(60)}", "PYRO:a@alive:1", safe=True),
    lambda ns, r: ns.lease(f"n{r.randrange(60)}", "PYRO:a@alive:1", f"o{r.randrange(3)}", 0.02),
    lambda ns, r: ns.renew(f"o{r.randrange(3)}", [f"n{r.randrange(60)}"]),
    lambda ns, r: ns.remove(f"n{r.randrange(60)}"),
    lambda ns, r: ns.remove(prefix=f"n{r.randrange(6)}"),
    lambda ns, r: ns.remove(regex=f"n[{r.randrange(6)}]\\d$"),
    lambda ns, r: ns.set_metadata(f"n{r.randrange(60)}", r.choice([None, ["all"], {"x", "y"}])),
    lambda ns, r: ns.lookup(f"n{r.randrange(60)}", return_metadata=True),
    lambda ns, r: ns.list(return_metadata=True),
    lambda ns, r: ns.list(prefix="n1"),
    lambda ns, r: ns.list(regex="n.*1", return_metadata=True),
    lambda ns, r: ns.yplookup(["all"]),
    lambda ns, r: ns.yplookup(None, ["all", "t1"]),
    lambda ns, r: ns.count(),
]


@contextlib.contextmanager
def threads(targets: list[Callable[[], None]]) -> Iterator[None]:
    running = [threading.Thread(target=target) for target in targets]
    for thread in running:
        thread.start()
    try:
        yield
    finally:
        for thread in running:
            thread.join(scaled(30))


@pytest.mark.feature("F275", "F277")
@pytest.mark.stress
@pytest.mark.parametrize("storage", ["memory", "sql"])
@pytest.mark.parametrize("loop", LOOPS)
def test_scenario_57_everything_at_once(loop: str, storage: str, tmp_path: Path) -> None:
    with Served("tcp4", loop) as served:
        kept = SqlStorage(str(tmp_path / "names")) if storage == "sql" else None
        server = NameServer(served.kernel, kept)
        served.publish(server, "ns")
        server.announce(served.daemon.uriFor("ns"))
        now = [0.0]
        failures: list[BaseException] = []
        stop = threading.Event()

        def connect(uri: URI) -> None:
            if "dead" in uri.location:
                raise OSError("nobody")

        cleaner = AutoCleaner(server, served.kernel, connect, lambda: now[0])

        def guarded(work: Callable[[], None]) -> Callable[[], None]:
            def run() -> None:
                try:
                    work()
                except BaseException as exc:
                    failures.append(exc)

            return run

        def clean() -> None:
            while not stop.is_set():
                now[0] += UNREACHABLE / 3
                cleaner.clean()
                server.expire()

        def client(seed: int) -> None:
            numbers = random.Random(seed)
            with served.proxy("ns") as ns:
                for _ in range(120):
                    with contextlib.suppress(NamingError):
                        numbers.choice(JOBS)(ns, numbers)

        with threads([guarded(clean)]):
            try:
                with threads([guarded(lambda seed=seed: client(seed)) for seed in range(6)]):  # type: ignore[misc]
                    pass
            finally:
                stop.set()
        assert failures == []
        assert "Pyro.NameServer" in server.list()
        found = server.list(return_metadata=True)
        assert server.count() == len(found)
        assert set(server.yplookup(["all"])) == {name for name, (_, tags) in found.items() if "all" in tags}
        assert set(server.list(prefix="n")) == {name for name in found if name.startswith("n")}
        server.close()
        if kept is not None:
            again = NameServer(served.kernel, SqlStorage(str(tmp_path / "names")))
            assert {n: r for n, r in again.records().items() if r.lease is None} == {
                name: record for name, record in server._index.records.items() if record.lease is None
            }
            again.close()
