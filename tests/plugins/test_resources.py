"""Resource tracking: what was acquired for a client is closed with its connection, once."""

from __future__ import annotations

import gc
import os
import queue
import subprocess
import sys
import weakref
from typing import Any

import pytest

from pyroplug.api import ConnectionRefusedByPeer, Daemon, current_context, expose, oneway
from pyroplug.plugins.resources import ResourceTracker
from pyroplug.testing.kernels import PATIENCE, Serve, Served

pytestmark = [pytest.mark.needs("resources"), pytest.mark.feature("F242")]


class Resource:
    def __init__(self, name: str, log: queue.Queue[str]) -> None:
        self.name = name
        self._log = log

    def close(self) -> None:
        self._log.put(self.name)
        if self.name == "stubborn":
            raise ValueError("I stay open")

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return True


@expose
class Thing:
    def __init__(self) -> None:
        self.closed = queue.Queue[str]()
        self.held: list[Resource] = []

    def get(self, name: str) -> None:
        resource = Resource(name, self.closed)
        self.held.append(resource)
        current_context.track_resource(resource)

    def give_back(self, name: str) -> None:
        (resource,) = [each for each in self.held if each.name == name]
        current_context.untrack_resource(resource)
        current_context.untrack_resource(Resource("never tracked", self.closed))

    def drop(self) -> int:
        self.held.clear()
        gc.collect()
        tracked: Any = current_context.client.tracked_resources
        return len(tracked)

    @oneway
    def get_oneway(self, name: str) -> None:
        self.get(name)

    def wrong(self, kind: int) -> None:
        current_context.track_resource([weakref, 5, _Closable()][kind])

    def names(self) -> list[str]:
        return sorted(resource.name for resource in current_context.client.tracked_resources)


class _Closable:
    """Cannot be referred to weakly."""

    __slots__ = ()

    def close(self) -> None:
        """Nothing."""


def closed(thing: Thing, count: int) -> list[str]:
    """What was closed: so many, and no more."""
    names = sorted(thing.closed.get(timeout=PATIENCE) for _ in range(count))
    assert thing.closed.empty()
    return names


def test_a_client_that_leaves(serve_at: Serve) -> None:
    thing = Thing()
    served = serve_at(thing)
    first, second = served.proxy(), served.proxy()
    first.get("a")
    first.get("b")
    second.get("c")
    assert first.names() == ["a", "b"]
    first._pyroRelease()
    assert closed(thing, 2) == ["a", "b"]
    assert second.names() == ["c"]
    second._pyroRelease()
    assert closed(thing, 1) == ["c"]


def test_a_daemon_that_ends(serve: Serve) -> None:
    thing = Thing()
    served = serve(thing)
    served.proxy().get("a")
    served.daemon.shutdown()
    assert closed(thing, 1) == ["a"]


@pytest.mark.usefixtures("_quick_sweeps")
def test_a_client_that_is_idle_for_too_long(serve_at: Serve) -> None:
    thing = Thing()
    served = serve_at(thing, COMMTIMEOUT=0.05)
    proxy = served.proxy()
    proxy._pyroTimeout = PATIENCE
    proxy.get("a")
    assert closed(thing, 1) == ["a"]


@pytest.fixture
def _quick_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyroplug.transports.servers._base.SWEEP_INTERVAL", 0.02)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
@pytest.mark.parametrize("loop", ["thread", "multiplex"])
def test_a_client_that_is_killed(loop: str) -> None:
    """Scenario 34."""
    thing = Thing()
    program = (
        "import os, signal, sys; from pyroplug.api import Proxy\n"
        "proxy = Proxy(sys.argv[1]); proxy.get('a'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    with Served("tcp4", loop) as served:
        served.publish(thing)
        client = subprocess.run(
            [sys.executable, "-c", program, str(served.daemon.uriFor("thing"))],
            env={name: value for name, value in os.environ.items() if not name.startswith("PYRO_")},
            check=False,
            timeout=3 * PATIENCE,
        )
        assert client.returncode == -9
        assert closed(thing, 1) == ["a"]


def test_untracked_ones_stay_open(serve_at: Serve) -> None:
    thing = Thing()
    proxy = serve_at(thing).proxy()
    for name in "abc":
        proxy.get(name)
    proxy.give_back("b")
    proxy._pyroRelease()
    assert closed(thing, 2) == ["a", "c"]


def test_tracking_keeps_nothing_alive(serve_at: Serve) -> None:
    thing = Thing()
    proxy = serve_at(thing).proxy()
    proxy.get("a")
    assert proxy.drop() == 0
    proxy._pyroRelease()
    assert thing.closed.empty()


def test_one_that_fails_does_not_stop_the_others(serve_at: Serve, caplog: pytest.LogCaptureFixture) -> None:
    thing = Thing()
    proxy = serve_at(thing).proxy()
    for name in ("a", "stubborn", "z"):
        proxy.get(name)
    proxy._pyroRelease()
    assert closed(thing, 3) == ["a", "stubborn", "z"]
    assert "a tracked resource could not be closed" in caplog.text


def test_oneway_calls_track_too(serve_at: Serve) -> None:
    thing = Thing()
    proxy = serve_at(thing).proxy()
    proxy.get_oneway("a")
    proxy._pyroRelease()  # the call may run after that: it is closed all the same
    assert closed(thing, 1) == ["a"]


@pytest.mark.parametrize(("kind", "why"), [(0, "needs a close method"), (1, "needs a close method"), (2, "weak")])
def test_what_cannot_be_tracked(kind: int, why: str, serve_some: Serve) -> None:
    with pytest.raises(TypeError, match=why):
        serve_some(Thing()).proxy().wrong(kind)


def test_validators_and_disconnect_handlers_see_them(serve_at: Serve) -> None:
    log: queue.Queue[str] = queue.Queue()
    token = Resource("token", log)

    class Watching(Daemon):
        def validateHandshake(self, conn: Any, data: Any) -> Any:
            current_context.track_resource(token)
            return "hello"

        def clientDisconnect(self, conn: Any) -> None:
            log.put(f"disconnect with {[each.name for each in conn.tracked_resources]}")

    served = serve_at(Thing(), daemon_class=Watching)
    served.proxy()._pyroBind()
    served.daemon.shutdown()
    assert [log.get(timeout=PATIENCE), log.get(timeout=PATIENCE)] == ["disconnect with ['token']", "token"]


def test_it_is_a_set_as_in_pyro() -> None:
    tracker, log = ResourceTracker(), queue.Queue[str]()
    one, other = Resource("one", log), Resource("other", log)
    tracker.add(one)
    tracker.add(one)
    assert len(tracker) == 1
    assert one in tracker
    assert other not in tracker  # although they are equal
    tracker.discard(other)
    assert list(tracker) == [one]
    tracker.close()
    tracker.close()
    tracker.track(other)  # late: at once
    assert [log.get_nowait(), log.get_nowait(), log.empty()] == ["one", "other", True]


@pytest.mark.parametrize("refuses", [True, False])
def test_a_validator_may_track_and_refuse(serve_at: Serve, refuses: bool) -> None:
    thing = Thing()

    class Choosy(Daemon):
        def validateHandshake(self, conn: Any, data: Any) -> Any:
            thing.get("of the handshake")
            if refuses:
                raise ValueError("no")
            return "hello"

    served = serve_at(thing, daemon_class=Choosy)
    proxy = served.proxy()
    if refuses:
        with pytest.raises(ConnectionRefusedByPeer, match="no"):
            proxy._pyroBind()
    else:
        proxy._pyroBind()
        assert thing.closed.empty()
        proxy._pyroRelease()
    assert thing.closed.get(timeout=PATIENCE) == "of the handshake"
    assert thing.closed.empty()
