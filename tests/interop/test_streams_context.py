"""Streams, annotations, correlation ids and tracked resources between us and real Pyro5 programs."""

from __future__ import annotations

import functools
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyroplug.api import ProtocolError, Proxy, PyroError, RemoteIterator, current_context, expose
from pyroplug.core.kernel import Kernel
from pyroplug.plugins.callcontext import client_side
from pyroplug.testing.kernels import PATIENCE, Served, make_kernel

pytestmark = [pytest.mark.interop, pytest.mark.feature("F241")]

SERIALIZERS = ("serpent", "marshal", "json", "msgpack")
LOOPS = ("thread", "multiplex")


class Resource:
    def __init__(self, thing: Thing) -> None:
        self._thing = thing

    def close(self) -> None:
        with self._thing._change:
            self._thing._closed += 1
            self._thing._change.notify_all()


@expose
class Thing:
    """The counterpart of the one in ``peers/stream_server.py``."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._ended = 0
        self._closed = 0
        self._held: list[Resource] = []

    def numbers(self, count: int) -> Iterator[int]:
        try:
            yield from range(count)
        finally:
            with self._change:
                self._ended += 1
                self._change.notify_all()

    def failing(self) -> Iterator[int]:
        yield 1
        raise ValueError("on purpose")

    @property
    def letters(self) -> Iterator[str]:
        return iter("abc")

    def echo(self, value: Any) -> Any:
        return value

    def ended(self) -> int:
        return self._ended

    def wait_for_ended(self, count: int) -> bool:
        with self._change:
            return self._change.wait_for(lambda: self._ended >= count, PATIENCE)

    def context(self, note: str) -> list[Any]:
        current_context.response_annotations = {"RESP": note.encode()}
        came = {key: bytes(value).decode() for key, value in current_context.annotations.items()}
        return [came, str(current_context.correlation_id)]

    def get(self, name: str) -> None:
        resource = Resource(self)
        self._held.append(resource)
        current_context.track_resource(resource)

    def wait_for_closed(self, count: int) -> bool:
        with self._change:
            return self._change.wait_for(lambda: self._closed >= count, PATIENCE)


@pytest.fixture(autouse=True)
def _clean() -> Any:
    client_side.set(None)  # what tests of other modules have said in this thread
    yield
    client_side.set(None)


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    made = make_kernel()
    yield made
    made.close()


# ============================================================================= our client
@pytest.fixture(scope="module")
def pyro5_at(pyro5_serving: Callable[..., Any]) -> Callable[..., Any]:
    """Start a Pyro5 server with settings; its URI."""
    return functools.partial(pyro5_serving, "stream_server.py")


@pytest.fixture(scope="module", params=LOOPS)
def uri(request: pytest.FixtureRequest, pyro5_at: Callable[..., Any]) -> Iterator[str]:
    with pyro5_at(str(request.param)) as found:
        yield found


@pytest.fixture(params=SERIALIZERS)
def proxy(request: pytest.FixtureRequest, uri: str, kernel: Kernel) -> Iterator[Proxy]:
    with Proxy(uri, kernel=kernel) as found:
        found._pyroSerializer = request.param
        yield found


def eventually(condition: Callable[[], Any]) -> bool:
    """For what the other process does and gives no sign of."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_the_items_of_a_pyro5_server(proxy: Proxy) -> None:
    items = proxy.numbers(30)
    assert isinstance(items, RemoteIterator)
    assert list(items) == list(range(30))
    assert list(items) == []
    one, two = proxy.numbers(3), proxy.numbers(3)
    assert [(next(one), proxy.echo("x"), next(two)) for _ in range(3)] == [(n, "x", n) for n in range(3)]


@pytest.mark.feature("F285")
def test_the_iterator_of_a_property(proxy: Proxy) -> None:
    assert list(proxy.letters) == ["a", "b", "c"]


def test_the_error_of_a_generator(proxy: Proxy) -> None:
    items = proxy.failing()
    assert next(items) == 1
    with pytest.raises(ValueError, match="on purpose"):
        next(items)
    assert list(items) == []
    assert proxy.echo(1) == 1


def test_closing_and_dropping(proxy: Proxy) -> None:
    before = len(proxy.ended())
    with proxy.numbers(1000) as items:
        assert next(items) == 0
    assert eventually(lambda: len(proxy.ended()) >= before + 1)
    for _ in proxy.numbers(1000):
        break
    del items
    assert eventually(lambda: len(proxy.ended()) >= before + 2)


@pytest.mark.feature("F284")
def test_going_on_after_reconnecting(proxy: Proxy) -> None:
    items = proxy.numbers(10)
    got = [next(items) for _ in range(5)]
    proxy._pyroRelease()
    assert got + list(items) == list(range(10))


@pytest.mark.feature("F284")
def test_limits_of_a_pyro5_server(pyro5_at: Callable[..., Any], kernel: Kernel) -> None:
    with pyro5_at("thread", "ITER_STREAMING=0") as uri, Proxy(uri, kernel=kernel) as proxy:
        with pytest.raises(ProtocolError, match="but the server is not configured to allow streaming"):
            proxy.numbers(3)
        assert proxy.echo(1) == 1
    with pyro5_at("thread", "ITER_STREAM_LINGER=0") as uri, Proxy(uri, kernel=kernel) as proxy:
        items = proxy.numbers(10)
        assert next(items) == 0
        proxy._pyroRelease()
        assert eventually(lambda: proxy.ended() == ["numbers"])
        with pytest.raises(PyroError, match="item stream terminated"):
            next(items)


@pytest.mark.feature("F235", "F236")
def test_annotations_and_correlation_ids_with_a_pyro5_server(proxy: Proxy) -> None:
    wanted = current_context.correlation_id = uuid.uuid4()
    current_context.annotations = {"ABCD": b"from us"}
    came, correlation = proxy.context("back")
    assert (came, correlation) == ({"ABCD": "from us"}, str(wanted))
    assert current_context.response_annotations == {"RESP": b"back"}
    current_context.annotations = {}
    assert proxy.context("more")[0] == {}


@pytest.mark.feature("F236")
def test_a_nested_call_of_a_pyro5_server_carries_our_id(uri: str, kernel: Kernel) -> None:
    wanted = current_context.correlation_id = uuid.uuid4()
    with Served("tcp4", kernel=kernel) as served, Proxy(uri, kernel=kernel) as proxy:
        served.publish(Thing())
        assert proxy.ask(served.daemon.proxyFor("thing"))[1] == str(wanted)


@pytest.mark.feature("F242")
def test_a_pyro5_server_closes_what_it_tracks_for_us(uri: str, kernel: Kernel) -> None:
    with Proxy(uri, kernel=kernel) as proxy, Proxy(uri, kernel=kernel) as other:
        before = len(other.closed())
        proxy.get("a")
        proxy._pyroRelease()
        assert eventually(lambda: len(other.closed()) >= before + 1)


# ============================================================================= our server
@pytest.fixture(params=LOOPS)
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    with Served("tcp4", request.param, settings={"SERIALIZERS_ACCEPTED": set(SERIALIZERS)}) as served:
        served.publish(Thing())
        yield str(served.daemon.uriFor("thing"))


@pytest.mark.feature("F235", "F236", "F242", "F285")
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_a_pyro5_client_of_ours(serializer: str, address: str, peer: Callable[..., Any]) -> None:
    found = peer("stream_client.py", stdin=json.dumps({"uri": address, "serializer": serializer}) + "\n")
    letters = found.pop("letters")
    if serializer == "marshal":  # Pyro5 itself cannot ask for attributes with it (wire.md 9)
        assert letters == "AttributeError: 'NoneType' object has no attribute 'items'"
    else:
        assert letters == ["a", "b", "c"]
    assert found == {
        "numbers": list(range(50)),
        "interleaved": [[number, "x", number] for number in range(3)],
        "failing": [[1], "on purpose", True],
        "closing": [0, True],
        "dropping": True,
        "unknown": "PyroError: item stream terminated",
        "context": [{"ABCD": "from pyro5"}, str(uuid.UUID(int=5)), {"RESP": "back"}],
        "resources": True,
    }
