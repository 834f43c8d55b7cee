"""How long objects live that methods hand out: with their session, with their lease, or as long as somebody wants."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import pytest

from pyroplug.api import CommunicationError, Daemon, DaemonError, Proxy, expose
from pyroplug.plugins.reaper import reaper_of, registrations
from pyroplug.testing.kernels import PATIENCE, Serve, Served
from pyroplug.testing.transports import in_thread

pytestmark = pytest.mark.needs("autoproxy", "reaper")


@expose
class Item:
    def __init__(self, name: str = "") -> None:
        self.label = name
        self.entered, self.gate, self.reaped = threading.Event(), threading.Event(), threading.Event()

    def name(self) -> str:
        return self.label

    def slow(self) -> str:
        self.entered.set()
        assert self.gate.wait(PATIENCE)
        return "done"

    def _gotReaped(self) -> None:
        self.reaped.set()


@expose
class Shop:
    def __init__(self) -> None:
        self.items: list[Item] = []
        self.daemon: Any = None
        self.gate, self.entered = threading.Event(), threading.Event()
        self.refused: list[BaseException] = []
        self.tried = threading.Event()

    def buy(self, name: str, lifetime: Any = "session", keep: bool = True) -> Any:
        item = Item(name)
        if keep:
            self.items.append(item)
        self.daemon.register(item, lifetime=lifetime)
        return item

    def same(self) -> Any:
        return self.items[-1]

    def late(self) -> None:
        """Registers when the client has gone."""
        self.entered.set()
        assert self.gate.wait(PATIENCE)
        try:
            self.daemon.register(Item(), "late", lifetime="session")
        except DaemonError as exc:
            self.refused.append(exc)
        self.tried.set()

    def open(self) -> bool:
        return True


class Watched(Daemon):
    """Says when a client has gone."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.gone = threading.Semaphore(0)

    def clientDisconnect(self, conn: Any) -> None:
        self.gone.release()


def open_shop(served: Served) -> Shop:
    shop = Shop()
    shop.daemon = served.daemon
    served.publish(shop, "shop")
    return shop


def ids(served: Served) -> set[str]:
    return {one.object_id for one in registrations(served.daemon)}


@pytest.mark.feature("F145")
def test_scenario_43_what_a_session_owns_goes_with_it(serve_at: Serve) -> None:
    served = serve_at()
    shop = open_shop(served)
    first, second = served.proxy("shop"), served.proxy("shop")
    mine, theirs = first.buy("mine"), second.buy("theirs")
    assert (mine.name(), theirs.name()) == ("mine", "theirs")
    own, others = shop.items
    first._pyroRelease()
    assert own.reaped.wait(PATIENCE)
    assert not others.reaped.is_set()
    with pytest.raises(DaemonError, match="unknown object"):
        mine.name()
    assert theirs.name() == "theirs"
    second._pyroRelease()
    assert others.reaped.wait(PATIENCE)
    assert ids(served) == {"shop"}
    for stub in (mine, theirs):
        stub._pyroRelease()


def test_scenario_34_a_client_that_just_disappears(serve_at: Serve) -> None:
    served = serve_at()
    shop = open_shop(served)
    proxy = served.proxy("shop")
    stub = proxy.buy("x")
    stub._pyroRelease()
    connection = proxy._pyroConnection
    assert connection is not None
    connection.stream.close()
    assert shop.items[0].reaped.wait(PATIENCE)
    assert ids(served) == {"shop"}


def test_a_session_over_a_socket_of_the_users() -> None:
    """The next proxy on the same socket is a new session."""
    with Served("pair") as served:
        shop = open_shop(served)
        proxy = served.proxy("shop")
        # a proxy for it could not connect here, so the object itself is asked for
        with pytest.raises(Exception):  # noqa: B017
            proxy.buy("x").name()
        (item,) = shop.items
        assert len(ids(served)) == 2
        proxy._pyroRelease()
        assert proxy.open()
        assert item.reaped.wait(PATIENCE)
        assert ids(served) == {"shop"}


def test_scenario_47_a_session_ends_while_a_call_runs(serve_threads: Serve) -> None:
    """Another client's call on the object goes on; the object is told afterwards."""
    served = serve_threads()
    shop = open_shop(served)
    owner = served.proxy("shop")
    stub = owner.buy("x")
    (item,) = shop.items
    running = in_thread(stub.slow)
    assert item.entered.wait(PATIENCE)
    owner._pyroRelease()
    other = served.proxy("shop")
    while len(ids(served)) > 1:  # no event tells that the server has seen the end of a connection
        assert other.open()
    assert not item.reaped.is_set()
    item.gate.set()
    assert running.result(PATIENCE) == "done"
    assert item.reaped.wait(PATIENCE)
    with pytest.raises(DaemonError, match="unknown object"):
        stub.name()
    stub._pyroRelease()


@pytest.mark.needs("oneway")
def test_registering_for_a_client_that_has_gone() -> None:
    """A oneway call may still run then; nothing of it stays."""
    with Served("tcp4", daemon_class=Watched) as served:
        shop = open_shop(served)
        proxy = served.proxy("shop")
        proxy._pyroBind()
        proxy._pyroOneway = {"late"}
        proxy.late()
        assert shop.entered.wait(PATIENCE)
        proxy._pyroRelease()
        daemon: Any = served.daemon
        assert daemon.gone.acquire(timeout=PATIENCE)
        other = served.proxy("shop")
        assert other.open()
        # the session has ended once the plugins were told, which is after clientDisconnect
        reaper = reaper_of(served.daemon)
        shop.gate.set()
        assert shop.tried.wait(PATIENCE)
        while "late" in ids(served):
            reaper.reap()
        assert len(shop.refused) <= 1


@pytest.mark.feature("F145")
def test_scenario_45_the_same_object_many_times(serve_at: Serve) -> None:
    """One registration, whoever gets it and however often."""
    served = serve_at()
    open_shop(served)
    owner, other = served.proxy("shop"), served.proxy("shop")
    stubs = [owner.buy("x"), *(other.same() for _ in range(20))]
    assert len({stub._pyroUri.object for stub in stubs}) == 1
    assert len(ids(served)) == 2
    other._pyroRelease()
    assert stubs[-1].name() == "x"
    owner._pyroRelease()
    third = served.proxy("shop")
    while len(ids(served)) > 1:
        assert third.open()
    for stub in stubs:  # those that never connected are told so when they do
        with pytest.raises((DaemonError, CommunicationError), match="unknown object"):
            stub.name()
        stub._pyroRelease()


def test_scenario_43_memory_does_not_grow(serve_at: Serve) -> None:
    served = serve_at()
    open_shop(served)
    alive: list[weakref.ref[Any]] = []
    keeper = served.daemon.objectsById["shop"]
    real = keeper.daemon.register

    class Counting:
        def register(self, item: Any, **options: Any) -> Any:
            alive.append(weakref.ref(item))
            return real(item, **options)

    keeper.daemon = Counting()
    for _ in range(5):
        proxy = served.proxy("shop")
        for number in range(20):
            stub = proxy.buy(str(number), "session", False)
            assert isinstance(stub, Proxy)
        proxy._pyroRelease()
    proxy = served.proxy("shop")
    while len(ids(served)) > 1:
        assert proxy.open()
    assert len(alive) == 100
    gc.collect()
    assert [ref for ref in alive if ref() is not None] == []


def test_passing_an_object_renews_its_lease() -> None:
    with Served("tcp4") as served:
        shop = open_shop(served)
        now = [0.0]
        reaper = reaper_of(served.daemon)
        reaper.clock = lambda: now[0]
        proxy = served.proxy("shop")
        stub = proxy.buy("x", 10)
        now[0] = 9.0
        again = proxy.same()
        now[0] = 18.0
        assert reaper.reap() == []
        assert again.name() == "x"
        now[0] = 28.0
        reaper.reap()
        assert shop.items[0].reaped.wait(PATIENCE)
        assert ids(served) == {"shop"}
        for one in (stub, again):
            one._pyroRelease()


@pytest.mark.feature("F291")
def test_weak_ones_stay_as_long_as_the_program_keeps_them(serve_at: Serve) -> None:
    served = serve_at()
    shop = open_shop(served)
    proxy = served.proxy("shop")
    stub = proxy.buy("x", "weak")
    assert stub.name() == "x"
    proxy._pyroRelease()
    assert stub.name() == "x"
    shop.items.clear()
    gc.collect()
    with pytest.raises(DaemonError, match="unknown object"):
        stub.name()
    stub._pyroRelease()


def test_an_object_that_is_unregistered_while_it_travels(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes as a copy then, as any object that is not registered."""
    with Served("tcp4") as served:
        open_shop(served)
        daemon = served.daemon
        served.kernel.types.register_class_to_dict(Item, lambda item: {"copy of": item.label})
        real = daemon.proxyFor

        def too_late(object_id: Any, nat: bool = True) -> Proxy:
            daemon.unregister(object_id)
            return real(object_id, nat)

        monkeypatch.setattr(daemon, "proxyFor", too_late)
        assert served.proxy("shop").buy("x", "permanent") == {"copy of": "x"}
