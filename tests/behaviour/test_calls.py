"""Calls: arguments, results, attributes, members, and what a proxy does as an object."""

from __future__ import annotations

import copy
import inspect
import os
import pickle
import socket
from typing import Any

import pytest

from pyroplug.api import CommunicationError, Proxy, SerializeError, expose
from pyroplug.core.wire import FLAG_EXCEPTION, RESULT
from pyroplug.testing.kernels import Serve, make_kernel


@expose
class Thing:
    """Most of what a method can look like."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self._value = 10
        self.plain = "not a property"
        self.items: list[Any] = ["a", "b", "c"]

    def echo(self, value: Any = None) -> Any:
        self.calls.append(value)
        return value

    def everything(self, *args: Any, **kwargs: Any) -> Any:
        return [list(args), kwargs]

    def nothing(self) -> None:
        self.calls.append("nothing")

    def defaults(self, a: int, b: int = 2, *, c: int = 3) -> list[int]:
        return [a, b, c]

    def size(self, data: bytes) -> int:
        return len(data)

    @staticmethod
    def static(value: int) -> int:
        return value + 1

    @classmethod
    def of_class(cls) -> str:
        return cls.__name__

    @property
    def value(self) -> int:
        return self._value

    @value.setter
    def value(self, new: int) -> None:
        self._value = new

    @property
    def constant(self) -> int:
        return 7

    def _private(self) -> None:
        self.calls.append("private!")

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]

    def __setitem__(self, index: int, value: Any) -> None:
        self.items[index] = value

    def __delitem__(self, index: int) -> None:
        del self.items[index]

    def __contains__(self, item: Any) -> bool:
        return item in self.items


class Partly:
    """Only one method is exposed."""

    @expose
    def open(self) -> str:
        return "open"

    def closed(self) -> str:
        return "closed"


@pytest.mark.feature("F065", "F088", "F020", "F062", "F125", "F010", "F011", "F170", "F172")
def test_calls_look_like_local_ones(serve: Serve) -> None:
    proxy = serve(Thing()).proxy()
    assert proxy.echo(21) == 21
    assert proxy.echo() is None
    assert proxy.nothing() is None
    assert proxy.everything() == [[], {}]
    assert proxy.everything(1, "two", three=3, name="x") == [
        [1, "two"],
        {"three": 3, "name": "x"},
    ]
    assert proxy.defaults(1) == [1, 2, 3]
    assert proxy.defaults(1, c=5) == [1, 2, 5]
    assert proxy.static(1) == 2
    assert proxy.of_class() == "Thing"


@pytest.mark.parametrize("size", [1_000_000, 8_000_000])
def test_large_values_in_both_directions(serve: Serve, size: int) -> None:
    data = os.urandom(1000) * (size // 1000)
    served = serve(Thing(), SERIALIZER="msgpack")
    proxy = served.proxy()
    assert proxy.size(data) == size
    assert proxy.echo(data) == data
    assert proxy.echo("still fine") == "still fine"


@pytest.mark.feature("F088")
def test_wrong_arguments_are_the_callers_error(serve_some: Serve) -> None:
    proxy = serve_some(Thing()).proxy()
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        proxy.defaults()
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        proxy.echo(nonsense=1)
    assert proxy.echo(1) == 1


@pytest.mark.needs("metadata")
@pytest.mark.feature("F068", "F069", "F086")
def test_attributes(serve: Serve) -> None:
    thing = Thing()
    proxy = serve(thing).proxy()
    assert proxy.value == 10
    proxy.value = 11
    proxy.value = proxy.value + 1
    assert thing._value == 12
    assert proxy.constant == 7
    with pytest.raises(AttributeError, match="constant"):
        proxy.constant = 8
    for name in ("plain", "nowhere"):
        with pytest.raises(AttributeError, match=f"no exposed attribute or method '{name}'"):
            getattr(proxy, name)
        with pytest.raises(AttributeError, match=f"no exposed attribute '{name}'"):
            setattr(proxy, name, 1)


@pytest.mark.feature("F070")
def test_nested_attributes_are_refused_early(serve_some: Serve) -> None:
    served = serve_some(Thing())
    proxy = served.proxy()
    with pytest.raises(AttributeError, match=r"echo\.imag.*another object"):
        proxy.echo.imag  # noqa: B018 - looking is the test


@pytest.mark.needs("metadata")
@pytest.mark.feature("F086", "F302")
def test_dir_and_hasattr_know_the_members(serve_some: Serve) -> None:
    proxy = serve_some(Thing()).proxy()
    names = dir(proxy)
    assert {"echo", "everything", "value", "constant", "_pyroUri"} <= set(names)
    assert {"_private", "plain"} & set(names) == set()
    assert hasattr(proxy, "echo")
    assert hasattr(proxy, "value")
    assert not hasattr(proxy, "_private")
    assert not hasattr(proxy, "nowhere")


@pytest.mark.feature("F269", "F086", "F222", "F223")
def test_what_is_not_exposed_is_not_there(serve: Serve) -> None:
    thing = Thing()
    served = serve(thing)
    served.publish(Partly(), "partly")
    proxy = served.proxy("partly")
    assert proxy.open() == "open"
    with pytest.raises(AttributeError, match="closed"):
        proxy.closed()
    with pytest.raises(AttributeError, match="_private"):
        served.proxy()._private()
    # past the checks of the proxy: the server has its own
    with pytest.raises(AttributeError, match="attempt to access unexposed attribute 'closed' of class Partly"):
        proxy._pyroInvoke("closed", [], {})
    with pytest.raises(AttributeError, match="attempt to access private attribute '_private'"):
        proxy._pyroInvoke("_private", [], {})
    with pytest.raises(AttributeError, match=r"'Partly' object has no attribute 'opem' \(did you mean 'open'\?\)"):
        proxy._pyroInvoke("opem", [], {})
    assert thing.calls == []
    assert proxy.open() == "open"


@pytest.mark.needs("metadata")
@pytest.mark.feature("F301")
def test_the_item_protocol(serve: Serve) -> None:
    thing = Thing()
    proxy = serve(thing).proxy()
    assert len(proxy) == 3
    assert proxy[1] == "b"
    proxy[1] = "x"
    del proxy[0]
    assert thing.items == ["x", "c"]
    assert "c" in proxy
    assert "q" not in proxy
    assert list(proxy) == ["x", "c"]
    with pytest.raises(IndexError):
        proxy[9]


def test_the_item_protocol_of_an_object_that_has_none(serve_some: Serve) -> None:
    proxy = serve_some(Partly()).proxy()
    with pytest.raises(TypeError, match="no exposed __len__"):
        len(proxy)
    with pytest.raises(TypeError, match="no exposed __iter__ or __getitem__"):
        list(proxy)
    with pytest.raises(AttributeError):
        proxy[0]


# --------------------------------------------------------------------------- scenario 38
@pytest.mark.feature("F054", "F055", "F302", "F071", "F083")
def test_a_proxy_that_is_only_looked_at_touches_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # would let anybody wait for ever
        server.settimeout(0)
        uri = f"PYRO:thing@127.0.0.1:{server.getsockname()[1]}"
        kernel = make_kernel()
        proxy, other = Proxy(uri, kernel=kernel), Proxy(uri, kernel=kernel)
        assert proxy
        assert proxy == other
        assert hash(proxy) == hash(other)
        assert proxy != Proxy("PYRO:other@127.0.0.1:9", kernel=kernel)
        assert proxy != "something else"
        assert "not connected" in repr(proxy)
        assert "PYRO:thing@127.0.0.1" in repr(proxy)
        assert str(proxy)
        for copied in (copy.copy(proxy), copy.deepcopy(proxy), pickle.loads(pickle.dumps(proxy))):
            assert copied == proxy
            assert copied is not proxy
        assert not hasattr(proxy, "__array__")
        assert not hasattr(proxy, "__wrapped__")
        assert not hasattr(proxy, "_repr_html_")
        assert not inspect.isawaitable(proxy)
        assert not inspect.iscoroutinefunction(proxy)
        inspect.isgenerator(proxy)
        assert not isinstance(proxy, dict)
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.feature("F302")
def test_dir_of_an_object_that_cannot_be_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    proxy = Proxy(f"PYRO:thing@127.0.0.1:{port}", kernel=make_kernel())
    assert "_pyroUri" in dir(proxy)
    with pytest.raises(CommunicationError):
        proxy.echo()


def test_copies_have_their_own_connections_and_options(serve_at: Serve) -> None:
    served = serve_at(Thing())
    proxy = served.proxy()
    proxy._pyroTimeout = 5.5
    proxy._pyroHandshake = "secret"
    assert proxy.echo(1) == 1
    other = copy.copy(proxy)
    assert other._pyroConnection is None
    assert (other._pyroTimeout, other._pyroHandshake) == (5.5, "secret")
    assert other.echo(2) == 2
    assert other._pyroConnection is not proxy._pyroConnection
    other._pyroRelease()
    assert proxy.echo(3) == 3


# --------------------------------------------------------------------------- scenario 52
def test_an_argument_that_cannot_be_encoded_is_never_sent(serve: Serve) -> None:
    thing = Thing()
    proxy = serve(thing).proxy()
    proxy.echo(1)
    connection = proxy._pyroConnection
    with pytest.raises(SerializeError, match="don't know how to serialize"):
        proxy.echo(object())
    assert proxy._pyroConnection is connection
    assert proxy.echo(2) == 2
    assert thing.calls == [1, 2]


def test_a_result_that_cannot_be_encoded_is_an_error_reply(serve: Serve) -> None:
    class Odd:
        @expose
        def bad(self) -> Any:
            return object()

        @expose
        def good(self) -> int:
            return 1

    proxy = serve(Odd()).proxy()
    with pytest.raises(SerializeError, match="don't know how to serialize"):
        proxy.bad()
    connection = proxy._pyroConnection
    assert proxy.good() == 1
    assert proxy._pyroConnection is connection


@pytest.mark.feature("F120", "F122", "F297", "F126", "F131")
@pytest.mark.parametrize("serializer", ["serpent", "json", "msgpack"])
def test_the_reply_comes_in_the_serializer_of_the_request(serve_some: Serve, serializer: str) -> None:
    served = serve_some(Thing())
    proxy = served.proxy()
    proxy._pyroSerializer = serializer
    assert proxy.echo([1, "x", None]) == [1, "x", None]
    peer = served.peer()
    peer.hello(serializer=serializer)
    for method, flags in (("echo", 0), ("nowhere", FLAG_EXCEPTION)):
        frame = peer.call("thing", method, serializer=serializer)
        assert (frame.type, frame.serializer_id) == (RESULT, served.kernel.serializer_id(serializer))
        assert frame.flags == flags
    # each request for itself, whatever the handshake was in
    frame = peer.call("thing", "echo", 5, serializer="json")
    assert (frame.serializer_id, peer.value(frame)) == (served.kernel.serializer_id("json"), 5)


@pytest.mark.feature("F298")
def test_a_raw_reply(serve_some: Serve) -> None:
    served = serve_some(Thing())
    proxy = served.proxy()
    proxy._pyroRawWireResponse = True
    frame = proxy._pyroInvoke("echo", [5], {})
    assert frame.type == RESULT
    connection: Any = proxy._pyroConnection
    assert connection.codec.loads(frame.data) == 5


@pytest.mark.feature("F299")
def test_the_local_address(serve: Serve) -> None:
    served = serve(Thing())
    proxy = served.proxy()
    before: Any = proxy._pyroLocalSocket
    assert before is None
    proxy.echo()
    if served.transport.startswith("tcp"):
        assert proxy._pyroLocalSocket[0] in ("127.0.0.1", "::1")
    elif served.transport == "memory":
        assert proxy._pyroLocalSocket is None


@pytest.mark.feature("F300")
def test_claiming_a_proxy_is_allowed_and_needless(serve_some: Serve) -> None:
    proxy = serve_some(Thing()).proxy()
    proxy._pyroClaimOwnership()
    assert proxy.echo(1) == 1


def test_the_sequence_wraps_around(serve_some: Serve) -> None:
    """Scenario 12."""
    proxy = serve_some(Thing()).proxy()
    proxy._pyroBind()
    connection = proxy._pyroConnection
    assert connection is not None
    connection.seq = 65533
    assert [proxy.echo(n) for n in range(6)] == list(range(6))
    assert proxy._pyroSeq == 3
    assert proxy._pyroConnection is connection
