"""Our proxies and real Pyro5 servers: over TCP and Unix sockets, each serializer, both of its server types."""

from __future__ import annotations

import contextvars
import copy
import pickle
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyroplug.core.client import Proxy
from pyroplug.core.daemon import Daemon
from pyroplug.core.errors import (
    CommunicationError,
    ConnectionRefusedByPeer,
    DaemonError,
    NamingError,
    PyroError,
    RemoteError,
    SerializeError,
)
from pyroplug.core.kernel import Kernel
from pyroplug.core.members import expose
from pyroplug.core.tracebacks import get_pyro_traceback
from pyroplug.core.uri import URI
from pyroplug.plugins.batch import BatchProxy
from pyroplug.plugins.blob import SerializedBlob
from pyroplug.plugins.callcontext import current_context
from pyroplug.plugins.ping import ping
from testkit.timeouts import PATIENCE, scaled

pytestmark = pytest.mark.interop

SERIALIZERS = {"serpent": 1, "marshal": 2, "json": 3, "msgpack": 4}
CORRELATION = uuid.UUID("11112222-3333-4444-5555-666677778888")


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    made = Kernel(settings={"SERIALIZERS_ACCEPTED": set(SERIALIZERS)}, environ={})
    yield made
    made.close()


@pytest.fixture(params=[(t, s) for t in ("tcp", "unix") for s in SERIALIZERS], ids="-".join)
def connect(request: pytest.FixtureRequest, pyro5: dict[str, str], kernel: Kernel) -> Iterator[Callable[..., Proxy]]:
    """Make a proxy for an object of the Pyro5 server."""
    transport, serializer = request.param
    proxies: list[Proxy] = []

    def make(name: str = "demo", cls: type[Proxy] = Proxy) -> Proxy:
        proxy = cls(pyro5[transport].replace("PYRO:demo@", f"PYRO:{name}@"), kernel=kernel)
        proxy._pyroSerializer = serializer
        proxies.append(proxy)
        return proxy

    yield make
    for proxy in proxies:
        proxy._pyroRelease()


@pytest.fixture
def demo(connect: Callable[..., Proxy]) -> Proxy:
    return connect()


Connect = Callable[..., Proxy]


# ------------------------------------------------------------------------------------------------ calls
@pytest.mark.feature("F065", "F088", "F120", "F297")
def test_arguments_and_results(demo: Proxy) -> None:
    assert demo.add(3, 4) == 7
    assert demo.kwargs(1, "two", a=3, b=[4]) == [[1, "two"], {"a": 3, "b": [4]}]
    assert demo.nothing() is None
    value = {"l": [1, 2.5, None, True], "s": "h\u00e9llo \u20ac", "n": -(2**70), "d": {"x": []}}
    assert demo.echo(value) == value


def test_bytes_travel_as_the_serializer_can(demo: Proxy) -> None:
    if demo._pyroSerializer == "json":
        with pytest.raises(SerializeError, match="the format has no such values"):
            demo.echo(b"x")
        assert demo.add(1, 1) == 2
    else:
        assert demo.echo(b"\x00\xff raw") == b"\x00\xff raw"


@pytest.mark.feature("F144")
def test_a_megabyte_there_and_back(demo: Proxy) -> None:
    text = "x" * 1_000_000
    assert demo.echo(text) == text


def test_many_calls_on_one_connection_and_on_many(demo: Proxy, connect: Connect) -> None:
    assert [demo.add(i, 1) for i in range(100)] == list(range(1, 101))
    assert [proxy.add(i) for i, proxy in enumerate([connect() for _ in range(10)])] == list(range(10))


def test_class_and_static_methods(demo: Proxy) -> None:
    assert demo.by_class() == "Demo"
    assert demo.by_static(4) == 8


def test_sequence_numbers_wrap(demo: Proxy) -> None:
    demo._pyroBind()
    connection = demo._pyroConnection
    assert connection is not None
    connection.seq = 0xFFFE
    assert [(demo.add(i), demo._pyroSeq) for i in range(3)] == [(0, 0xFFFF), (1, 0), (2, 1)]


def test_a_released_proxy_connects_again(demo: Proxy) -> None:
    assert demo.add(1) == 1
    demo._pyroRelease()
    assert demo._pyroConnection is None
    assert demo.add(2) == 2


# ------------------------------------------------------------------------------------------------ errors
@pytest.mark.feature("F107", "F108", "F109")
def test_a_builtin_error_comes_with_the_remote_traceback(demo: Proxy) -> None:
    with pytest.raises(ZeroDivisionError, match="division by zero") as caught:
        demo.boom()
    lines = vars(caught.value)["_pyroTraceback"]
    assert lines[0].startswith("Traceback")
    assert any("return 1 / 0" in line for line in lines)
    text = "".join(get_pyro_traceback(type(caught.value), caught.value, caught.value.__traceback__))
    assert "return 1 / 0" in text
    assert "Remote traceback" in text


def test_an_error_keeps_its_arguments_and_attributes(demo: Proxy) -> None:
    with pytest.raises(ValueError) as caught:
        demo.boom_attributes()
    assert caught.value.args == ("bad", 42)
    assert vars(caught.value)["extra"] == "info"


@pytest.mark.feature("F304")
def test_an_error_of_pyro_is_ours_of_that_name(demo: Proxy) -> None:
    with pytest.raises(NamingError, match=r"^unknown name: x$"):
        demo.boom_pyro()


@pytest.mark.feature("F107")
def test_an_error_of_an_unknown_class_is_a_remote_error(demo: Proxy) -> None:
    with pytest.raises(RemoteError) as caught:
        demo.boom_custom()
    assert caught.value.class_name == "mymod.CustomError"
    assert caught.value.matches("CustomError")
    assert caught.value.remote_args == ("mine", 7)
    assert "raise CustomError" in "".join(vars(caught.value)["_pyroTraceback"])


def test_an_end_of_iteration_does_not_end_ours(demo: Proxy) -> None:
    with pytest.raises(RuntimeError, match="raised StopIteration"):
        demo.boom_stop()


def test_the_connection_outlives_errors(demo: Proxy) -> None:
    demo._pyroBind()
    connection = demo._pyroConnection
    for method in ("boom", "boom_attributes", "boom_pyro", "boom_custom", "boom_stop"):
        with pytest.raises(Exception, match=r".+"):
            getattr(demo, method)()
    with pytest.raises(TypeError):
        demo.add()
    assert demo.add(1, 1) == 2
    assert demo._pyroConnection is connection


@pytest.mark.feature("F223")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("_private", "attempt to access private attribute '_private'"),
        ("nosuch", "'Demo' object has no attribute 'nosuch'"),
    ],
)
def test_what_cannot_be_called_is_refused(demo: Proxy, name: str, text: str) -> None:
    with pytest.raises(AttributeError) as caught:
        demo._pyroInvoke(name, (), {})
    assert str(caught.value) == text


def test_an_unknown_name_is_refused_on_this_side(demo: Proxy) -> None:
    with pytest.raises(AttributeError, match="has no exposed attribute or method 'nosuch'"):
        _ = demo.nosuch
    with pytest.raises(AttributeError, match="has no exposed attribute 'nosuch'"):
        demo.nosuch = 1


def test_an_unknown_object_in_a_call_is_a_daemon_error(demo: Proxy) -> None:
    with pytest.raises(DaemonError, match=r"^unknown object$"):
        demo._pyroInvoke("add", (1,), {}, objectId="nosuch")
    assert demo.add(1) == 1


# ------------------------------------------------------------------------------------------------ attributes, metadata
@pytest.mark.feature("F068", "F069")
def test_attributes_are_read_and_written_even_with_marshal(demo: Proxy) -> None:
    assert demo.readonly == "fixed"
    demo.value = 77
    assert demo.value == 77
    with pytest.raises(AttributeError, match="unexposed or unknown remote attribute 'readonly'"):
        demo.readonly = 1


@pytest.mark.feature("F086", "F302")
def test_the_members_are_known_after_connecting(demo: Proxy) -> None:
    assert demo._pyroMethods == set()
    demo._pyroBind()
    assert {"add", "echo", "boom", "fire", "call_back", "by_class", "by_static"} <= set(demo._pyroMethods)
    assert demo._pyroOneway == {"fire"}
    assert demo._pyroAttrs == {"value", "readonly"}
    assert {"add", "value"} <= set(dir(demo))
    assert all(type(names) is set for names in (demo._pyroMethods, demo._pyroOneway, demo._pyroAttrs))


@pytest.mark.feature("F271")
def test_an_object_that_exposes_nothing_is_refused_on_this_side(connect: Connect) -> None:
    with pytest.raises(PyroError, match="doesn't expose any methods or attributes"):
        connect("hidden")._pyroBind()


@pytest.mark.feature("F301")
def test_items_length_and_iteration(connect: Connect) -> None:
    items = connect("items")
    assert len(items) == 3
    assert items[1] == "b"
    assert list(items) == ["a", "b", "c"]
    assert "b" in items
    assert "x" not in items
    with pytest.raises(IndexError):
        _ = items[9]


# ------------------------------------------------------------------------------------------------ oneway, ping
@pytest.mark.feature("F089")
def test_nobody_waits_for_a_oneway_call(demo: Proxy) -> None:
    assert demo.fire(11) is None
    assert demo.fired(PATIENCE) == 11


def test_the_error_of_a_oneway_call_is_not_seen(demo: Proxy) -> None:
    demo._pyroBind()
    demo._pyroOneway = {"nothing"}
    assert demo.nothing(1, 2, 3) is None
    assert demo.add(2, 2) == 4


@pytest.mark.feature("F303")
def test_the_wire_ping_is_answered(demo: Proxy) -> None:
    ping(demo)
    assert demo.add(1, 2) == 3
    ping(demo)


# ------------------------------------------------------------------------------------------------ proxies and uris
@expose
class Target:
    def __init__(self) -> None:
        self.seen: list[int] = []

    def add(self, a: int, b: int) -> int:
        self.seen.append(a)
        return a + b


@pytest.fixture
def target(kernel: Kernel) -> Iterator[tuple[Target, Daemon]]:
    """An object of ours, served."""
    daemon = Daemon(kernel=kernel)
    thing = Target()
    daemon.register(thing, "target")
    thread = threading.Thread(target=daemon.requestLoop)
    thread.start()
    yield thing, daemon
    daemon.shutdown()
    thread.join(PATIENCE)


@pytest.mark.feature("F085", "F101")
def test_pyro5_calls_the_proxy_that_we_pass(demo: Proxy, target: tuple[Target, Daemon], kernel: Kernel) -> None:
    thing, daemon = target
    with Proxy(daemon.uriFor(thing), kernel=kernel) as proxy:
        assert demo.kind(proxy) == "Proxy"
        assert demo.call_back(proxy, 41) == 42
    assert thing.seen == [41]


@pytest.mark.feature("F145", "F147")
def test_our_registered_object_becomes_a_proxy_there(demo: Proxy, target: tuple[Target, Daemon]) -> None:
    thing, _ = target
    if demo._pyroSerializer == "marshal":  # never autoproxied: what arrives is a dict of a class that nobody knows
        with pytest.raises((SerializeError, PyroError)):
            demo.call_back(thing, 41)
        return
    assert demo.call_back(thing, 41) == 42
    assert thing.seen == [41]


@pytest.mark.feature("F085", "F145")
def test_a_proxy_that_we_passed_comes_back_as_ours(demo: Proxy, target: tuple[Target, Daemon]) -> None:
    thing, daemon = target
    sent = daemon.proxyFor(thing)
    got = demo.echo(sent)
    assert isinstance(got, Proxy)
    assert got == sent
    assert got is not sent
    assert got._pyroMethods == {"add"}
    with got:
        assert got.add(1, 2) == 3


@pytest.mark.feature("F145")
def test_an_object_registered_there_becomes_a_proxy_here(demo: Proxy) -> None:
    if demo._pyroSerializer == "marshal":
        with pytest.raises(PyroError):
            demo.sub()
        return
    sub = demo.sub()
    assert isinstance(sub, Proxy)
    assert sub._pyroMethods == {"hi"}
    with sub:
        assert sub.hi("you") == "hi you"


def test_uris_travel_both_ways(demo: Proxy) -> None:
    assert demo.uri() == URI("PYRO:abc@localhost:1234")
    sent = URI("PYRO:xyz@./u:/tmp/some where")
    assert demo.kind(sent) == "URI"
    assert demo.echo(sent) == sent


@pytest.mark.feature("F083", "F302")
def test_copies_of_a_proxy_work(demo: Proxy, kernel: Kernel) -> None:
    demo._pyroBind()
    with copy.copy(demo) as other:
        assert other.add(1, 1) == 2
        assert other._pyroConnection is not demo._pyroConnection


# ------------------------------------------------------------------------------------------------ handshake
class Validating(Proxy):
    answers: list[Any]

    def _pyroValidateHandshake(self, response: Any) -> None:
        self.__dict__.setdefault("_answers", []).append(response)


@pytest.mark.feature("F225")
def test_a_handshake_is_accepted_with_an_answer(connect: Connect) -> None:
    proxy = connect(cls=Validating)
    proxy._pyroHandshake = {"user": "u", "pw": [1, 2]}
    assert proxy.add(1, 1) == 2
    assert vars(proxy)["_answers"] == [{"you-said": {"user": "u", "pw": [1, 2]}}]


@pytest.mark.feature("F225")
def test_a_handshake_is_denied_with_the_reason(demo: Proxy) -> None:
    demo._pyroHandshake = "deny"
    with pytest.raises(ConnectionRefusedByPeer, match=r"rejected: go away$") as caught:
        demo.add(1, 1)
    assert caught.value.reason == "go away"
    assert isinstance(caught.value, CommunicationError)
    demo._pyroHandshake = "hello"
    assert demo.add(1, 1) == 2


def test_an_unknown_object_is_refused_with_the_reason(connect: Connect) -> None:
    with pytest.raises(ConnectionRefusedByPeer) as caught:
        connect("nosuch").add(1)
    assert caught.value.reason == "unknown object"


# ------------------------------------------------------------------------------------------------ the daemon's object
@pytest.mark.feature("F035")
def test_the_daemon_of_pyro5_tells_about_itself(connect: Connect) -> None:
    daemon = connect("Pyro.Daemon")
    assert daemon.ping() is None
    assert set(daemon.registered()) == {"Pyro.Daemon", "demo", "sub", "sub2", "items", "hidden"}
    assert "objects registered" in daemon.info()
    metadata = daemon.get_metadata("demo")
    assert set(metadata["attrs"]) == {"readonly", "value"}
    assert "add" in metadata["methods"]
    with pytest.raises(DaemonError, match=r"^unknown object$"):
        daemon.get_metadata("nosuch")


# ------------------------------------------------------------------------------------------------ context, compression
@pytest.mark.feature("F235", "F236")
def test_annotations_and_correlation_ids_go_both_ways(demo: Proxy) -> None:
    def in_a_context_of_its_own() -> None:
        assert demo.context()["annotations"] == {}
        current_context.annotations = {"TEST": b"note"}
        current_context.correlation_id = CORRELATION
        assert demo.context() == {
            "correlation": str(CORRELATION),
            "annotations": {"TEST": "note"},
            "serializer": SERIALIZERS[str(demo._pyroSerializer)],
            "seq": 2,
        }
        assert current_context.response_annotations == {"RESP": b"reply-note"}
        assert demo.add(1, 1) == 2
        assert current_context.response_annotations == {}

    contextvars.copy_context().run(in_a_context_of_its_own)
    assert demo.context()["annotations"] == {}
    assert demo.context()["correlation"] != str(CORRELATION)


@pytest.mark.feature("F287")
@pytest.mark.parametrize("ours", [False, True])
@pytest.mark.parametrize("theirs", [False, True])
def test_compression_on_either_end(demo: Proxy, kernel: Kernel, ours: bool, theirs: bool) -> None:
    text = "compress me " * 1000
    demo.compress(theirs)
    demo._pyroRelease()
    kernel.settings.COMPRESSION = ours
    try:
        assert demo.echo(text) == text
        assert demo.add(1, 2) == 3
    finally:
        kernel.settings.COMPRESSION = False
        demo.compress(False)


# ------------------------------------------------------------------------------------------------ streams, batches, blobs
@pytest.mark.feature("F241")
def test_items_are_streamed(demo: Proxy) -> None:
    assert list(demo.gen(5)) == [0, 1, 2, 3, 4]
    assert list(demo.gen(0)) == []
    assert list(zip(demo.gen(3), demo.gen(3), strict=True)) == [(0, 0), (1, 1), (2, 2)]
    items = demo.gen_fail()
    assert next(items) == 1
    with pytest.raises(ValueError, match="on purpose"):
        next(items)
    with pytest.raises(StopIteration):
        next(items)
    assert demo.add(1, 1) == 2


@pytest.mark.feature("F241")
def test_a_stream_that_is_closed_early_is_forgotten_there(demo: Proxy) -> None:
    with demo.gen(1_000_000) as items:
        assert next(items) == 0
        stream_id = items.streamId
    demo.nothing()  # the message that closes it goes before; some time later it is done
    deadline = time.monotonic() + PATIENCE

    def ask_until_it_is_gone() -> None:
        while time.monotonic() < deadline:
            demo._pyroInvoke("get_next_stream_item", (stream_id,), {}, objectId="Pyro.Daemon")

    with pytest.raises(PyroError, match="item stream terminated"):
        ask_until_it_is_gone()


@pytest.mark.feature("F092", "F093")
def test_batches_are_made_in_one_message(demo: Proxy) -> None:
    calls = BatchProxy(demo)
    calls.add(1, 2)
    calls.kwargs("z", k=1)
    assert list(calls()) == [3, [["z"], {"k": 1}]]
    calls = BatchProxy(demo)
    calls.fire(5)
    assert calls(oneway=True) is None
    assert demo.fired(PATIENCE) == 5


@pytest.mark.feature("F092")
def test_a_batch_ends_with_the_first_error(demo: Proxy) -> None:
    calls = BatchProxy(demo)
    calls.add(1, 2)
    calls.boom()
    calls.add(3, 4)
    if demo._pyroSerializer == "marshal":  # Pyro5 cannot write the error into the list (wire.md 9)
        with pytest.raises(ValueError, match="unmarshallable object"):
            list(calls())
        return
    results = calls()
    assert next(results) == 3
    with pytest.raises(ZeroDivisionError, match="division by zero") as caught:
        next(results)
    assert any("1 / 0" in line for line in vars(caught.value)["_pyroTraceback"])


@pytest.mark.feature("F243")
def test_a_blob_stays_serialized_on_its_way(demo: Proxy) -> None:
    info, data = demo.blob(SerializedBlob("info-tag", [1, "two"]))
    assert info == "info-tag"
    assert data == ("params" if demo._pyroSerializer == "json" else [1, "two"])  # Pyro5's mistake (wire.md 16)


# ------------------------------------------------------------------------------------------------ connected sockets
@pytest.mark.feature("F173")
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_a_pyro5_server_over_a_connected_socket(serializer: str, spawned: Callable[..., Any]) -> None:
    kernel = Kernel(extra_plugins=["marshal"], environ={"PYRO_PAIR_HANDSHAKE": "0"})
    ours, theirs = socket.socketpair()
    process = spawned("pyro5_server.py", "pair", str(theirs.fileno()), pass_fds=(theirs.fileno(),))
    theirs.close()
    try:
        with ours, Proxy("demo", connected_socket=ours, kernel=kernel) as proxy:
            proxy._pyroSerializer = serializer
            assert proxy.add(1, 2) == 3
            assert proxy.kwargs(1, b=2) == [[1], {"b": 2}]
            assert proxy.readonly == "fixed"
            assert proxy._pyroAttrs == {"readonly", "value"}
            assert str(proxy._pyroUri) == "PYRO:demo@<<connected-socket>>:0"
            with pytest.raises(ZeroDivisionError):
                proxy.boom()
            assert proxy.fire(5) is None
            assert proxy.fired(PATIENCE) == 5
        process.communicate(timeout=PATIENCE)  # its only client has gone
    finally:
        process.kill()
        process.communicate()
    kernel.close()


@pytest.mark.feature("F173")
def test_hello_over_a_connected_socket_is_not_for_pyro5(spawned: Callable[..., Any]) -> None:
    kernel = Kernel(settings={"COMMTIMEOUT": scaled(0.3)}, environ={})
    ours, theirs = socket.socketpair()
    process = spawned("pyro5_server.py", "pair", str(theirs.fileno()), pass_fds=(theirs.fileno(),))
    theirs.close()
    try:
        with (
            ours,
            Proxy("demo", connected_socket=ours, kernel=kernel) as proxy,
            pytest.raises(CommunicationError),
        ):
            proxy.add(1, 2)
    finally:
        process.kill()
        process.communicate()
    kernel.close()


# ------------------------------------------------------------------------------------------------ pickles
def test_a_pickled_proxy_works(pyro5: dict[str, str]) -> None:
    with Proxy(pyro5["tcp"]) as proxy:
        proxy._pyroBind()
        data = pickle.dumps(proxy)
    with pickle.loads(data) as again:
        assert again._pyroMethods == proxy._pyroMethods
        assert again.add(1, 1) == 2
