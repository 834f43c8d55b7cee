"""Registration, and objects and proxies that travel."""

from __future__ import annotations

import gc
import pickle
import re
import threading
from typing import Any

import pytest

from pyroplug.api import URI, DaemonError, Proxy, expose
from pyroplug.testing.kernels import PATIENCE, Serve, Served
from pyroplug.testing.transports import in_thread


@expose
class Account:
    """Something that is handed out."""

    def __init__(self, owner: str = "") -> None:
        self.owner = owner

    def name(self) -> str:
        return self.owner


@expose
class Bank:
    """A factory."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.received: list[Any] = []
        self.gate = threading.Event()
        self.entered = threading.Event()

    def open(self, owner: str) -> Any:
        account = self.accounts[owner] = Account(owner)
        self._pyroDaemon.register(account)  # type: ignore[attr-defined]
        return account

    def all(self) -> Any:
        return {"accounts": list(self.accounts.values()), "count": len(self.accounts)}

    def unregistered(self) -> Any:
        return Account("nobody")

    def take(self, thing: Any) -> str:
        self.received.append(thing)
        return type(thing).__name__

    def use(self, thing: Any, *args: Any) -> Any:
        return thing.name(*args)

    def slow(self) -> str:
        self.entered.set()
        self.gate.wait(PATIENCE)
        return "done"

    def echo(self, value: Any) -> Any:
        return value


class Slotted:
    __slots__ = ("x",)

    @expose
    def hello(self) -> str:
        return "hello"


# --------------------------------------------------------------------------- registration
@pytest.mark.feature("F009", "F025", "F027", "F026", "F028")
def test_register_and_unregister(serve_some: Serve) -> None:
    served = serve_some()
    daemon, account = served.daemon, Account("a")
    uri = daemon.register(account)
    assert re.fullmatch(r"obj_[0-9a-f]{32}", uri.object)
    assert account._pyroId == uri.object  # type: ignore[attr-defined]
    assert account._pyroDaemon.locationStr == daemon.locationStr  # type: ignore[attr-defined]
    assert uri == daemon.uriFor(account) == daemon.uriFor(uri.object)
    with pytest.raises(DaemonError, match="already has a Pyro id"):
        daemon.register(account)
    with pytest.raises(DaemonError, match="already registered with that id"):
        daemon.register(Account("b"), uri.object)
    daemon.unregister(account)
    assert not hasattr(account, "_pyroId")
    assert not hasattr(account, "_pyroDaemon")
    with pytest.raises(DaemonError, match="isn't registered"):
        daemon.uriFor(account)
    with pytest.raises(DaemonError, match="isn't registered"):
        daemon.unregister(account)
    with pytest.raises(ValueError, match="argument expected"):
        daemon.unregister(None)
    daemon.register(account, "again")
    daemon.unregister("again")
    assert "again" not in daemon.objectsById
    daemon.unregister("Pyro.Daemon")
    assert "Pyro.Daemon" in daemon.objectsById


@pytest.mark.feature("F290")
def test_force_replaces(serve: Serve) -> None:
    served = serve(Account("first"))
    proxy = served.proxy()
    assert proxy.name() == "first"
    served.publish(Account("second"), force=True)
    assert proxy.name() == "second"
    twice = Account("twice")
    served.publish(twice, "one")
    served.publish(twice, "two", force=True)
    assert served.proxy("two").name() == "twice"


@pytest.mark.feature("F021")
def test_objects_that_take_no_attributes_work_too(serve: Serve) -> None:
    served = serve(Slotted())
    assert served.proxy().hello() == "hello"


@pytest.mark.feature("F291")
def test_weak_registration(serve: Serve) -> None:
    served = serve()
    account = Account("weak")
    served.publish(account, weak=True)
    proxy = served.proxy()
    assert proxy.name() == "weak"
    del account
    gc.collect()
    assert "thing" not in served.daemon.objectsById
    with pytest.raises(DaemonError, match="unknown object"):
        proxy.name()
    with pytest.raises(TypeError, match="class cannot be registered weakly"):
        served.publish(Account, "class", weak=True)


def test_unregistering_while_a_call_runs(serve_threads: Serve) -> None:
    """Scenario 47: the call goes on, the next one is refused."""
    bank = Bank()
    served = serve_threads(bank)
    proxy = served.proxy()
    running = in_thread(proxy.slow)
    assert bank.entered.wait(PATIENCE)
    served.daemon.unregister(bank)
    bank.gate.set()
    assert running.result(PATIENCE) == "done"
    with pytest.raises(DaemonError, match="unknown object: thing"):
        proxy.echo(1)
    served.publish(Bank())
    assert proxy.echo(1) == 1


@pytest.mark.feature("F271")
def test_nothing_exposed(serve_some: Serve) -> None:
    class Nothing:
        def method(self) -> None:
            pass

    served = serve_some()
    with pytest.warns(UserWarning, match=r"Nothing doesn't expose anything.*forget @expose"):
        served.publish(Nothing())
    with pytest.raises(Exception, match="doesn't expose any methods or attributes"):
        served.proxy().method()


# --------------------------------------------------------------------------- autoproxy
@pytest.mark.needs("autoproxy")
@pytest.mark.feature("F145", "F058", "F064")
def test_registered_objects_travel_as_proxies(serve_at: Serve) -> None:
    bank = Bank()
    proxy = serve_at(bank).proxy()
    account = proxy.open("irma")
    assert isinstance(account, Proxy)
    assert account.name() == "irma"
    assert bank.accounts["irma"].__dict__.keys() == {"owner", "_pyroId", "_pyroDaemon"}
    inside = proxy.all()
    assert inside["count"] == 1
    assert inside["accounts"][0].name() == "irma"
    for stub in (account, *inside["accounts"]):
        stub._pyroRelease()


@pytest.mark.needs("autoproxy")
@pytest.mark.feature("F145", "F132")
def test_unregistered_objects_travel_as_copies(serve_at: Serve) -> None:
    bank = Bank()
    served = serve_at(bank)
    proxy = served.proxy()
    served.kernel.types.register_dict_to_class(f"{Account.__module__}.Account", lambda name, data: data)
    assert proxy.unregistered()["owner"] == "nobody"
    account = proxy.open("x")
    account._pyroRelease()
    served.daemon.unregister(bank.accounts["x"])
    assert proxy.all()["accounts"][0]["owner"] == "x"


@pytest.mark.feature("F146")
def test_autoproxy_off(serve_at: Serve) -> None:
    served = serve_at(Bank(), AUTOPROXY=False)
    served.kernel.types.register_dict_to_class(f"{Account.__module__}.Account", lambda name, data: data)
    assert served.proxy().open("x")["owner"] == "x"


@pytest.mark.feature("F101", "F145")
def test_callbacks(serve_at: Serve) -> None:
    """A registered object of the client's, passed to the server, is called back."""
    server = serve_at(Bank())
    with Served("tcp4", "thread") as client:
        mine = Account("the client's")
        client.publish(mine, "callback")
        proxy = Proxy(server.daemon.uriFor("thing"), kernel=client.kernel)
        with proxy:
            assert proxy.take(mine) == "Proxy"
            assert proxy.use(mine) == "the client's"
    for stub in server.daemon.objectsById["thing"].received:
        stub._pyroRelease()
    gc.collect()


@pytest.mark.feature("F085")
def test_proxies_can_be_passed(serve_at: Serve) -> None:
    """Scenario 39: it still works, and after the first one was released."""
    bank = Bank()
    served = serve_at(bank)
    with Served("tcp4", "thread") as other:
        other.publish(Account("passed"), "acc")
        mine = other.proxy("acc")
        proxy = served.proxy()
        assert proxy.use(mine) == "passed"
        back = proxy.echo(mine)
        mine._pyroRelease()
        assert back == mine
        assert back.name() == "passed"
        assert proxy.use(back) == "passed"
        back._pyroRelease()
        travelled = pickle.loads(pickle.dumps(mine))
        assert travelled == mine
    gc.collect()


def test_uris_can_be_passed(serve_some: Serve) -> None:
    proxy = serve_some(Bank()).proxy()
    uri = URI("PYRO:x@somewhere:4444")
    assert proxy.echo(uri) == uri
    assert isinstance(proxy.echo(uri), URI)


# --------------------------------------------------------------------------- uriFor, proxyFor, metadata
@pytest.mark.feature("F024", "F292")
def test_uri_for_and_proxy_for(serve_at: Serve) -> None:
    account = Account("x")
    served = serve_at(account)
    daemon = served.daemon
    assert str(daemon.uriFor("anything")) == f"PYRO:anything@{daemon.locationStr}"
    with daemon.proxyFor(account) as proxy:
        assert proxy._pyroMethods == {"name"}
        assert proxy.name() == "x"
    with daemon.proxyFor("thing") as proxy:
        assert proxy.name() == "x"
    for missing in ("nowhere", Account("other")):
        with pytest.raises(DaemonError, match="isn't registered"):
            daemon.proxyFor(missing)


@pytest.mark.feature("F292")
def test_a_class_that_is_changed_later(serve_at: Serve) -> None:
    class Growing:
        @expose
        def first(self) -> int:
            return 1

    def second(self: Any) -> int:
        return 2

    served = serve_at(Growing())
    assert served.proxy().first() == 1
    Growing.second = expose(second)  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        served.proxy().second()
    served.daemon.resetMetadataCache("thing")
    assert served.proxy().second() == 2


@pytest.mark.feature("F023", "F168", "F024")
@pytest.mark.parametrize("loop", ["thread", "multiplex"])
def test_nat(loop: str) -> None:
    with Served("tcp4", loop, nathost="public.example", natport=4444) as served:
        daemon = served.daemon
        assert daemon.natLocationStr == "public.example:4444"
        uri = daemon.register(Account("x"), "thing")
        assert str(uri) == "PYRO:thing@public.example:4444"
        inner = daemon.uriFor("thing", nat=False)
        assert inner.location == daemon.locationStr
        with Proxy(inner, kernel=served.kernel) as proxy:
            assert proxy.name() == "x"
        assert daemon.proxyFor("thing")._pyroUri == uri
    with Served("tcp4", loop, nathost="public.example", natport=0) as served:
        assert served.daemon.natLocationStr == f"public.example:{URI('PYRO:x@' + served.daemon.locationStr).port}"
    with Served("tcp4", loop, nathost="2001:db8::1", natport=5) as served:
        assert served.daemon.uriFor("x").location == "[2001:db8::1]:5"
