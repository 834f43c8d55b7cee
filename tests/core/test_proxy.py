"""Proxies: options, copies, and what they refuse, without much of a server."""

from __future__ import annotations

import pickle
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from pyroplug.api import URI, CommunicationError, Proxy, PyroError, SerializeError, expose
from pyroplug.core.connection import ClientConnection
from pyroplug.core.errors import LocalProtocolError
from pyroplug.testing.kernels import PATIENCE, Served, make_kernel


@expose
class Thing:
    def echo(self, value: Any = None) -> Any:
        return value

    @property
    def value(self) -> int:
        return 3


@pytest.mark.feature("F065", "F002")
def test_making_a_proxy() -> None:
    kernel = make_kernel()
    uri = URI("PYRO:thing@localhost:4444")
    for given in (uri, str(uri)):
        proxy = Proxy(given, kernel=kernel)
        assert proxy._pyroUri == uri
        assert proxy._pyroConnection is None
    with pytest.raises(TypeError, match="made from a text or a URI"):
        Proxy(5, kernel=kernel)  # type: ignore[arg-type]


@pytest.mark.needs("serpent")
@pytest.mark.feature("F297")
def test_the_serializer_of_a_proxy() -> None:
    with Served() as served:
        served.publish(Thing())
        proxy = served.proxy()
        assert proxy._pyroSerializer is None
        proxy.echo()
        proxy._pyroSerializer = "json"
        assert proxy._pyroConnection is None  # a connection keeps the one it began with
        assert proxy.echo((1, 2)) == [1, 2]
        with pytest.raises(SerializeError, match="unknown serializer 'jsn'"):
            proxy._pyroSerializer = "jsn"
        assert proxy._pyroSerializer == "json"
        proxy._pyroSerializer = None
        assert proxy.echo((1, 2)) == (1, 2)


@pytest.mark.needs("metadata", "serpent")
@pytest.mark.feature("F302")
def test_what_travels_with_a_proxy() -> None:
    with Served("tcp4") as served:
        served.publish(Thing())
        proxy = served.proxy()
        proxy._pyroHandshake = "secret"
        proxy.echo()
        proxy._pyroTimeout = 4
        copied = served.kernel.codecs()["serpent"].loads(served.kernel.codecs()["serpent"].dumps(proxy))
        assert copied._pyroUri == proxy._pyroUri
        assert copied._pyroMethods == {"echo"}
        assert copied._pyroAttrs == {"value"}
        assert copied._pyroConnection is None
        assert copied._pyroHandshake == "hello"
        assert copied._pyroKernel is served.kernel
        assert copied.echo(5) == 5
        copied._pyroRelease()
        assert pickle.loads(pickle.dumps(proxy)) == proxy


@pytest.mark.feature("F173")
def test_a_proxy_over_a_given_socket_cannot_travel() -> None:
    with Served("pair") as served:
        served.publish(Thing())
        proxy = served.proxy()
        assert proxy.echo(1) == 1
        with pytest.raises(SerializeError, match="nobody else has that socket"):
            pickle.dumps(proxy)
        with pytest.raises(SerializeError, match="nobody else has that socket"):
            proxy.echo(proxy)
        assert proxy.echo(2) == 2


@pytest.mark.feature("F173")
def test_a_given_socket_is_never_closed() -> None:
    with Served("pair") as served:
        served.publish(Thing())
        here, there = served._pair()
        served.daemon.transportServer.add_stream(served.kernel.given_stream(here, server_side=True))
        for number in range(3):
            with Proxy("thing", connected_socket=there, kernel=served.kernel) as proxy:
                assert proxy.echo(number) == number
        assert there.fileno() != -1


def test_a_state_that_is_none() -> None:
    kernel = make_kernel()
    proxy = Proxy.__new__(Proxy)
    for state in (None, 5, (), ("PYRO:x@y:1",)):
        with pytest.raises(SerializeError, match="invalid proxy state"):
            proxy._pyroRestore(state, kernel)  # type: ignore[arg-type]
    with pytest.raises(PyroError):
        proxy._pyroRestore(("nonsense", (), (), (), "hello", None), kernel)


@pytest.mark.feature("F086")
def test_known_metadata_is_believed() -> None:
    proxy = Proxy("PYRO:x@localhost:4", kernel=make_kernel())
    proxy._pyroGetMetadata(known_metadata={"methods": ["a"], "attrs": ["b"], "oneway": ["a"]})
    assert (proxy._pyroMethods, proxy._pyroAttrs, proxy._pyroOneway) == ({"a"}, {"b"}, {"a"})
    assert hasattr(proxy, "a")
    assert not hasattr(proxy, "c")
    with pytest.raises(PyroError, match="doesn't expose any methods or attributes"):
        proxy._pyroGetMetadata(known_metadata={})


@pytest.mark.feature("F087")
def test_without_metadata_every_name_is_a_method() -> None:
    with Served() as served:
        served.publish(Thing())
        proxy = served.proxy(kernel=make_kernel(METADATA=False))
        assert proxy.echo(1) == 1
        assert callable(proxy.anything)
        with pytest.raises(AttributeError, match="no attribute 'anything'"):
            proxy.anything()


@pytest.mark.needs("metadata")
def test_metadata_of_another_object_can_be_asked_for() -> None:
    class Other:
        @expose
        def else_(self) -> None:
            pass

    with Served() as served:
        served.publish(Thing())
        served.publish(Other(), "other")
        proxy = served.proxy()
        proxy._pyroGetMetadata("other")
        assert proxy._pyroMethods == {"else_"}


class Meddling:
    """A stream in the middle of whose operations something happens, once."""

    def __init__(self, stream: Any, operation: str, action: Callable[[], Any]) -> None:
        self._stream, self._operation, self._action = stream, operation, action

    def __getattr__(self, name: str) -> Any:
        if name == self._operation:
            self._operation = ""
            self._action()
        return getattr(self._stream, name)


@pytest.mark.parametrize("value", [1, "x" * 100_000], ids=["short way", "long way"])
@pytest.mark.parametrize("operation", ["send", "recv_into"])
@pytest.mark.parametrize("mux", [pytest.param(True, marks=pytest.mark.needs("mux")), False])
def test_a_call_within_a_call_of_the_same_thread_is_refused(mux: bool, operation: str, value: Any) -> None:
    """A finalizer or signal handler that uses the proxy while its own thread sends, or reads."""
    with Served() as served:
        served.publish(Thing())
        proxy = served.proxy(kernel=make_kernel(environ={} if mux else {"PYRO_DISABLE_PLUGINS": "mux"}))
        proxy.echo()
        connection = proxy._pyroConnection
        assert isinstance(connection, ClientConnection)
        assert connection.overlapping == mux
        refused: list[Exception] = []

        def meddle() -> None:
            for inner in (2, "y" * 100_000):
                try:
                    proxy.echo(inner)
                except LocalProtocolError as exc:
                    refused.append(exc)

        meddling: Any = Meddling(connection.stream, operation, meddle)
        connection.stream = meddling
        assert proxy.echo(value) == value
        assert ["in the middle of another call" in str(exc) for exc in refused] == [True, True]
        assert proxy.echo(3) == 3
        assert proxy._pyroConnection is connection


def test_a_dropped_proxy_closes_its_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = threading.Event()

        def wait_for_the_end() -> None:
            sock, _ = server.accept()
            with sock:
                sock.settimeout(PATIENCE)
                while sock.recv(1000):
                    pass
                ended.set()

        thread = threading.Thread(target=wait_for_the_end)
        thread.start()
        proxy = Proxy(f"PYRO:x@127.0.0.1:{server.getsockname()[1]}", kernel=make_kernel(HANDSHAKE_TIMEOUT=0.05))
        with pytest.raises(CommunicationError):
            proxy.echo()
        del proxy
        assert ended.wait(PATIENCE)
        thread.join(PATIENCE)


def test_names_that_tools_look_for_are_local() -> None:
    proxy = Proxy("PYRO:x@127.0.0.1:9", kernel=make_kernel())  # nobody answers there
    for name in ("__wrapped__", "__array__", "__array_interface__", "__fspath__", "__index__", "__await__", "__len_x"):
        assert not hasattr(proxy, name), name
    proxy._anything = 1
    assert proxy._anything == 1


@pytest.mark.parametrize("timeout", [None, 0, 1.5])
def test_time_outs(timeout: float | None) -> None:
    proxy = Proxy("PYRO:x@localhost:4", kernel=make_kernel())
    proxy._pyroTimeout = timeout
    assert proxy._pyroTimeout == (timeout or None)
