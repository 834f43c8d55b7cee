"""The name server object: Pyro5's interface, leases, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from Pyro5.core import URI as PyroURI  # noqa: N811 - it is a class
from Pyro5.nameserver import MemoryStorage as PyroMemory
from Pyro5.nameserver import NameServer as PyroNameServer

from pyroplug.api import NamingError, Proxy, PyroError, SecurityError, URIError
from pyroplug.core.uri import URI
from pyroplug.plugins.naming.server import NAMESERVER_TAG, NameServer
from pyroplug.testing.kernels import LOOPS, Served, make_kernel

NS = "Pyro.NameServer"
U = "PYRO:obj@localhost:4444"


class Clock:
    """Seconds that a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ns(clock: Clock) -> Iterator[NameServer]:
    server = NameServer(make_kernel(NS_MAX_NAME=40, NS_MAX_TAGS=5, NS_MAX_NAMES=20), clock=clock)
    server.announce(URI(f"PYRO:{NS}@localhost:9090"))
    yield server
    server.close()


# ----------------------------------------------------------------------------- as Pyro5 does it
def outcome(function: Callable[[], Any]) -> Any:
    try:
        result = function()
    except Exception as exc:
        name = type(exc).__name__
        return ("PyroError" if name == "URIError" else name), str(exc) if name != "URIError" else ""
    return ("uri", str(result)) if isinstance(result, (URI, PyroURI)) else _plain(result)


def _plain(value: Any) -> Any:
    if isinstance(value, (URI, PyroURI)):
        return str(value)
    if isinstance(value, (set, frozenset)):
        return {"set": sorted(value)}
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


CALLS: list[tuple[str, dict[str, Any]]] = [
    ("ping", {}),
    ("count", {}),
    ("lookup", {"name": NS}),
    ("lookup", {"name": NS, "return_metadata": True}),
    ("register", {"name": "a.one", "uri": U}),
    ("register", {"name": "a.two", "uri": U, "metadata": ["x", "y", "x"]}),
    ("register", {"name": "b.three", "uri": "PYRONAME:other", "metadata": {"y"}}),
    ("register", {"name": "A.four", "uri": "PYRO:o@./u:/tmp/s", "metadata": ("z",)}),
    ("register", {"name": "a.one", "uri": U, "safe": True}),
    ("register", {"name": "grün ☃", "uri": U, "safe": True, "metadata": []}),
    ("register", {"name": 5, "uri": U}),
    ("register", {"name": "n", "uri": 5}),
    ("register", {"name": "n", "uri": "no uri"}),
    ("register", {"name": "n", "uri": U, "metadata": "text"}),
    ("register", {"name": "n", "uri": U, "metadata": 5}),
    ("count", {}),
    ("lookup", {"name": "a.one"}),
    ("lookup", {"name": "a.one", "return_metadata": True}),
    ("lookup", {"name": "a.two", "return_metadata": True}),
    ("lookup", {"name": "nobody"}),
    ("list", {}),
    ("list", {"return_metadata": True}),
    ("list", {"prefix": "a."}),
    ("list", {"prefix": "a.", "return_metadata": True}),
    ("list", {"prefix": ""}),
    ("list", {"prefix": "%"}),
    ("list", {"regex": "a\\.o|b"}),
    ("list", {"regex": ".*o"}),
    ("list", {"regex": "one"}),
    ("list", {"regex": "(a|b)*.(t|o)", "return_metadata": True}),
    ("list", {"prefix": "a", "regex": "b"}),
    ("list", {"regex": "(unclosed"}),
    ("yplookup", {}),
    ("yplookup", {"meta_all": ["y"]}),
    ("yplookup", {"meta_all": {"x", "y"}, "return_metadata": False}),
    ("yplookup", {"meta_all": ["nothing", "y"]}),
    ("yplookup", {"meta_any": ["x", "z"]}),
    ("yplookup", {"meta_any": ["nothing"]}),
    ("yplookup", {"meta_all": ["x"], "meta_any": ["y"]}),
    ("yplookup", {"meta_all": "x"}),
    ("yplookup", {"meta_any": "x"}),
    ("set_metadata", {"name": "a.one", "metadata": {"new"}}),
    ("set_metadata", {"name": "a.two", "metadata": None}),
    ("set_metadata", {"name": "nobody", "metadata": {"new"}}),
    ("set_metadata", {"name": "a.one", "metadata": "text"}),
    ("set_metadata", {"name": 5, "metadata": None}),
    ("list", {"return_metadata": True}),
    ("remove", {}),
    ("remove", {"name": "nobody"}),
    ("remove", {"name": NS}),
    ("remove", {"prefix": "Pyro."}),
    ("remove", {"regex": "Pyro.*"}),
    ("remove", {"regex": "(unclosed"}),
    ("remove", {"name": "a.one"}),
    ("remove", {"prefix": "a."}),
    ("remove", {"prefix": "nobody"}),
    ("remove", {"regex": ".*three"}),
    ("list", {}),
    ("count", {}),
]


@pytest.mark.feature("F013", "F018", "F176", "F177", "F178", "F273", "F275")
def test_every_answer_is_that_of_the_original(ns: NameServer) -> None:
    original = PyroNameServer(PyroMemory())
    original.register(NS, f"PYRO:{NS}@localhost:9090", metadata={NAMESERVER_TAG})
    for method, arguments in CALLS:
        got = outcome(lambda: getattr(ns, method)(**arguments))  # noqa: B023
        wanted = outcome(lambda: getattr(original, method)(**arguments))  # noqa: B023
        if isinstance(wanted, tuple) and wanted[0] == "PyroError":
            got, wanted = got[0], wanted[0]  # the text of an invalid URI is our own
        assert got == wanted, (method, arguments)


@pytest.mark.feature("F176", "F191")
@pytest.mark.parametrize("serializer", ["serpent", "json", "msgpack", "marshal"])
@pytest.mark.parametrize("loop", LOOPS)
def test_it_is_an_ordinary_object(loop: str, serializer: str) -> None:
    settings = {"SERIALIZER": serializer, "SERIALIZERS_ACCEPTED": {serializer}}
    with Served("tcp4", loop, settings=settings) as served:
        server = NameServer(served.kernel)
        served.publish(server, NS)
        proxy: Any = served.proxy(NS)
        proxy.register("one", URI(U), metadata=["tag"])
        assert proxy.lookup("one") == URI(U)
        uri, tags = proxy.lookup("one", return_metadata=True)
        assert (uri, set(tags)) == (URI(U), {"tag"})
        assert proxy.list() == {"one": U}
        assert {n: (u, set(t)) for n, (u, t) in proxy.yplookup(["tag"]).items()} == {"one": (U, {"tag"})}
        assert proxy.lease("two", U, "secret", 10) == 10.0
        assert proxy.renew("secret", ["two", "three"]) == {"two": "ok", "three": "unknown"}
        assert proxy.release("secret", ["two"]) == 1
        assert proxy.status()["names"] == 1
        with pytest.raises(NamingError, match="unknown name: two"):
            proxy.lookup("two")
        for method in ("announce", "records", "forget", "expire", "close"):
            with pytest.raises(AttributeError):
                getattr(proxy, method)


def test_the_answers_cannot_be_used_to_change_anything(ns: NameServer) -> None:
    ns.register("one", U, metadata={"tag"})
    uri, tags = ns.lookup("one", return_metadata=True)
    uri.object = "other"
    tags.add("more")
    ns.list(return_metadata=True)["one"][1].add("more")
    ns.list().clear()
    assert str(ns.lookup("one")) == U
    assert ns.lookup("one", return_metadata=True)[1] == {"tag"}


# ----------------------------------------------------------------------------- what it refuses
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "name is empty"),
        ("line\nbreak", "control character: 'line.nbreak' at position 4"),
        ("nul\0", "control character"),
        ("\x7f", "control character"),
        ("\x9b0m", "control character"),
        ("para\u2029", "control character"),
        ("half \ud800", "control character"),
        ("x" * 41, "41 characters, at most 40 are allowed .NS_MAX_NAME."),
        (NS, "name already registered: Pyro.NameServer .it is the name server's own."),
    ],
)
def test_names_that_cannot_be(ns: NameServer, name: str, why: str) -> None:
    with pytest.raises(NamingError, match=why):
        ns.register(name, U)
    with pytest.raises(NamingError, match=why):
        ns.lease(name, U, "secret", 10)
    assert ns.list() == {NS: f"PYRO:{NS}@localhost:9090"}
    ns.register("x" * 40, U)


@pytest.mark.parametrize("bad", [[1], b"bytes", [None], [["x"]], {"x": 1, 2: 3}, 7])
def test_tags_that_are_no_texts(ns: NameServer, bad: Any) -> None:
    ns.register("one", U, metadata={"tag"})
    for call in (
        lambda: ns.register("one", U, metadata=bad),
        lambda: ns.set_metadata("one", bad),
        lambda: ns.yplookup(meta_all=bad),
        lambda: ns.yplookup(meta_any=bad),
    ):
        with pytest.raises(TypeError):
            call()
    assert ns.lookup("one", return_metadata=True)[1] == {"tag"}


def test_too_many_tags_and_tags_that_cannot_be(ns: NameServer) -> None:
    ns.register("one", U, metadata=map(str, range(5)))
    with pytest.raises(NamingError, match="more than 5 tags"):
        ns.register("one", U, metadata=map(str, iter(int, 1)))  # it never ends
    with pytest.raises(NamingError, match="tag in metadata has a control character"):
        ns.register("one", U, metadata=["a\tb"])
    assert ns.lookup("one", return_metadata=True)[1] == set("01234")


def test_a_remote_object_is_not_asked_for_tags(ns: NameServer) -> None:
    with Proxy("PYRO:tags@localhost:1") as proxy, pytest.raises(TypeError, match="cannot be a remote object"):
        ns.register("one", U, metadata=proxy)


def test_a_uri_that_is_none(ns: NameServer) -> None:
    with pytest.raises(URIError) as caught:
        ns.register("one", "PYRO:x")
    assert isinstance(caught.value, PyroError)


def test_a_full_name_server_takes_no_more(ns: NameServer) -> None:
    for number in range(19):
        ns.register(f"name{number}", U)
    with pytest.raises(NamingError, match="it takes 20 names"):
        ns.register("one more", U)
    ns.register("name3", "PYRO:other@localhost:1")  # in place of what is there
    ns.remove("name4")
    ns.register("one more", U)


@pytest.mark.feature("F186")
def test_shutdown_is_for_those_who_were_allowed_to(ns: NameServer) -> None:
    with pytest.raises(SecurityError, match="NS_ALLOW_SHUTDOWN"):
        ns.shutdown()
    asked: list[bool] = []
    NameServer(make_kernel(), shutdown=lambda: asked.append(True)).shutdown()
    assert asked == [True]


# ----------------------------------------------------------------------------- leases
def test_an_expired_lease_is_gone_at_once(ns: NameServer, clock: Clock) -> None:
    assert ns.lease("one", U, "secret", 10, metadata=["tag"]) == 10.0
    ns.register("stays", U)
    clock.now += 9.9
    assert str(ns.lookup("one")) == U
    assert ns.count() == 3
    clock.now += 0.1
    with pytest.raises(NamingError, match="unknown name: one"):
        ns.lookup("one")
    with pytest.raises(NamingError, match="unknown name: one"):
        ns.set_metadata("one", ["x"])
    assert ns.count() == 2
    assert set(ns.list()) == {NS, "stays"}
    assert ns.list(prefix="o") == ns.list(regex="o") == ns.yplookup(["tag"]) == ns.yplookup(None, ["tag"]) == {}
    assert ns.remove("one") == ns.remove(prefix="o") == 0
    assert ns.status()["leases"] == 0
    assert ns.expire() == 1
    assert ns.expire() == 0


def test_a_heartbeat_prolongs_a_lease(ns: NameServer, clock: Clock) -> None:
    ns.lease("one", U, "secret", 10)
    for _ in range(5):
        clock.now += 8
        assert ns.renew("secret", ["one"]) == {"one": "ok"}
    clock.now += 10
    assert ns.renew("secret", ["one"]) == {"one": "unknown"}
    assert ns.lease("one", U, "secret", 10, safe=True) == 10.0
    assert str(ns.lookup("one")) == U


@pytest.mark.feature("F178")
def test_a_lease_of_somebody_else_is_not_replaced_safely(ns: NameServer, clock: Clock) -> None:
    ns.lease("one", U, "first", 10)
    with pytest.raises(NamingError, match="name already registered: one"):
        ns.lease("one", "PYRO:b@localhost:2", "second", 10, safe=True)
    with pytest.raises(NamingError, match="name already registered: one"):
        ns.register("one", "PYRO:b@localhost:2", safe=True)
    assert ns.lease("one", "PYRO:moved@localhost:2", "first", 10, safe=True) == 10.0
    assert str(ns.lookup("one")) == "PYRO:moved@localhost:2"
    ns.register("permanent", U)
    with pytest.raises(NamingError, match="name already registered: permanent"):
        ns.lease("permanent", U, "first", 10, safe=True)


def test_scenario_58_a_late_heartbeat_steals_nothing_back(ns: NameServer, clock: Clock) -> None:
    ns.lease("shop", "PYRO:a@localhost:1", "first", 10)
    clock.now += 11  # the first server is stuck, and a second one takes over
    with pytest.raises(NamingError, match="unknown name"):
        ns.lookup("shop")
    ns.lease("shop", "PYRO:b@localhost:2", "second", 10, safe=True)
    assert ns.renew("first", ["shop"]) == {"shop": "lost"}
    assert ns.release("first", ["shop"]) == 0
    with pytest.raises(NamingError, match="already registered"):
        ns.lease("shop", "PYRO:a@localhost:1", "first", 10, safe=True)
    assert str(ns.lookup("shop")) == "PYRO:b@localhost:2"
    assert ns.renew("second", ["shop"]) == {"shop": "ok"}


def test_who_registers_a_name_for_good_takes_it_over(ns: NameServer) -> None:
    ns.lease("one", U, "secret", 10)
    ns.register("one", "PYRO:b@localhost:2")
    assert ns.renew("secret", ["one"]) == {"one": "lost"}
    assert ns.release("secret", ["one", "nobody"]) == 0


def test_tags_of_a_lease_can_be_changed(ns: NameServer, clock: Clock) -> None:
    ns.lease("one", U, "secret", 10)
    ns.set_metadata("one", ["tag"])
    assert ns.renew("secret", ["one"]) == {"one": "ok"}
    clock.now += 11
    assert ns.yplookup(["tag"]) == {}


def test_a_lease_is_never_longer_than_the_setting_says() -> None:
    server = NameServer(make_kernel(NS_LEASE_MAX=60))
    assert server.lease("one", U, "secret", 60) == 60.0
    assert server.lease("one", U, "secret", 61) == 60.0
    assert server.lease("one", U, "secret", float("inf")) == 60.0


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_lengths_that_no_lease_has(ns: NameServer, seconds: float) -> None:
    with pytest.raises(NamingError, match="seconds long"):
        ns.lease("one", U, "secret", seconds)


def test_wrong_types_in_leases(ns: NameServer) -> None:
    for call in (
        lambda: ns.lease("one", U, "secret", "10"),  # type: ignore[arg-type]
        lambda: ns.lease("one", U, "secret", True),
        lambda: ns.lease("one", U, None, 10),  # type: ignore[arg-type]
        lambda: ns.renew(5, ["one"]),  # type: ignore[arg-type]
        lambda: ns.renew("secret", "one"),
        lambda: ns.renew("secret", [1]),  # type: ignore[list-item]
        lambda: ns.release("secret", 5),  # type: ignore[arg-type]
        lambda: ns.lookup(["one"]),  # type: ignore[arg-type]
        lambda: ns.list(regex=5),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(NamingError, match="owner is empty"):
        ns.lease("one", U, "", 10)


def test_nobody_is_told_who_owns_a_lease(ns: NameServer) -> None:
    ns.lease("one", U, "the secret", 10, metadata=["tag"])
    told = [ns.lookup("one", True), ns.list(return_metadata=True), ns.yplookup(["tag"]), ns.status()]
    assert "the secret" not in repr(told)
