"""Timeouts, broken connections, and how a proxy goes on."""

from __future__ import annotations

import contextvars
import socket
import threading
import time
from typing import Any

import pytest

from pyroplug.api import (
    CommunicationError,
    ConnectionClosedError,
    Proxy,
    TimeoutError,
    URIError,
    behavior,
    expose,
    oneway,
)
from pyroplug.core import proxy as proxy_module
from pyroplug.core.uri import URI
from pyroplug.core.wire import RESULT, encode
from pyroplug.testing.kernels import PATIENCE, Serve, make_kernel
from pyroplug.testing.plugins import make_plugin
from pyroplug.testing.transports import in_thread
from testkit.timeouts import scaled

SHORT = 0.1


@expose
class Thing:
    """Slow when told to be."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)
        self.calls = 0

    def echo(self, value: Any = None) -> Any:
        self.calls += 1
        return value

    def slow(self, value: Any = None) -> Any:
        self.calls += 1
        self.entered.release()
        self.gate.wait(PATIENCE)
        return value

    def fail_at_first(self, times: int) -> int:
        self.calls += 1
        if self.calls <= times:
            from pyroplug.api import current_context

            current_context.client.stream.close()
        return self.calls

    @oneway
    def fire(self) -> None:
        self.calls += 1


@pytest.mark.feature("F079")
def test_a_call_times_out_and_its_reply_reaches_nobody(serve: Serve) -> None:
    """Scenario 1."""
    thing = Thing()
    served = serve(thing)
    proxy = served.proxy()
    assert proxy.echo("warm") == "warm"
    proxy._pyroTimeout = SHORT
    started = time.monotonic()
    with pytest.raises(TimeoutError, match="did not answer in time"):
        proxy.slow("late")
    assert time.monotonic() - started < scaled(2)
    assert proxy._pyroConnection is None
    thing.gate.set()
    proxy._pyroTimeout = PATIENCE
    if served.transport == "pair":
        # the same socket must be used again: the late reply may still be in it, and is never taken for another
        try:
            assert proxy.echo("next") == "next"
        except CommunicationError:
            pass
    else:
        assert [proxy.echo(n) for n in range(5)] == list(range(5))


@pytest.mark.feature("F079", "F080")
def test_comm_timeout_is_the_default_of_proxies(serve: Serve) -> None:
    thing = Thing()
    served = serve(thing)
    client = make_kernel(COMMTIMEOUT=SHORT)
    proxy = served.proxy(kernel=client)
    assert proxy._pyroTimeout == SHORT
    with pytest.raises(TimeoutError):
        proxy.slow()
    thing.gate.set()
    assert served.proxy()._pyroTimeout is None


@pytest.mark.feature("F079")
def test_the_timeout_can_be_changed_at_any_time(serve_some: Serve) -> None:
    thing = Thing()
    proxy = serve_some(thing).proxy()
    proxy._pyroTimeout = PATIENCE
    proxy.echo()
    connection = proxy._pyroConnection
    proxy._pyroTimeout = SHORT
    assert proxy._pyroConnection is connection
    with pytest.raises(TimeoutError):
        proxy.slow()
    thing.gate.set()
    proxy._pyroTimeout = None
    assert proxy.slow(1) == 1
    proxy._pyroTimeout = 0
    assert proxy._pyroTimeout is None
    with pytest.raises(ValueError, match="negative"):
        proxy._pyroTimeout = -1


@pytest.mark.feature("F080", "F081")
@pytest.mark.usefixtures("quick_sweeps")
def test_the_server_lets_idle_clients_go(serve_at: Serve) -> None:
    served = serve_at(Thing(), COMMTIMEOUT=0.1, POLLTIMEOUT=0.02)
    gone = threading.Event()
    served.daemon.clientDisconnect = lambda conn: gone.set()  # type: ignore[method-assign]
    proxy = served.proxy()
    proxy._pyroTimeout = PATIENCE
    proxy.echo()
    assert gone.wait(PATIENCE)
    with pytest.raises(ConnectionClosedError):
        proxy.echo()
    assert proxy.echo(1) == 1


@pytest.mark.usefixtures("quick_sweeps")
def test_a_call_that_runs_is_not_idle(serve_at: Serve) -> None:
    thing = Thing()
    served = serve_at(thing, COMMTIMEOUT=0.08, POLLTIMEOUT=0.02)
    proxy = served.proxy()
    proxy._pyroTimeout = PATIENCE
    proxy.echo()
    threading.Timer(0.3, thing.gate.set).start()
    assert proxy.slow("long") == "long"


def test_a_server_that_never_answers_the_handshake() -> None:
    """Scenario 5."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        uri = f"PYRO:thing@127.0.0.1:{server.getsockname()[1]}"
        for kernel in (make_kernel(HANDSHAKE_TIMEOUT=SHORT), make_kernel(COMMTIMEOUT=SHORT)):
            proxy = Proxy(uri, kernel=kernel)
            started = time.monotonic()
            with pytest.raises(TimeoutError, match="did not answer in time"):
                proxy.echo()
            assert time.monotonic() - started < scaled(2)


def test_a_reply_that_comes_byte_by_byte_has_one_deadline() -> None:
    """Scenario 2, on the client's side."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()

        def trickle() -> None:
            sock, _ = server.accept()
            with sock:
                reply = encode(RESULT, 1, 0, 0, b"x" * 1000)
                assert isinstance(reply, bytes)
                for position in range(len(reply)):
                    if stop.wait(0.03):
                        return
                    sock.sendall(reply[position : position + 1])

        sender = in_thread(trickle)
        proxy = Proxy(f"PYRO:thing@127.0.0.1:{server.getsockname()[1]}", kernel=make_kernel(COMMTIMEOUT=0.2))
        started = time.monotonic()
        with pytest.raises(TimeoutError, match="in time"):
            proxy.echo()
        assert time.monotonic() - started < scaled(2)
        stop.set()
        sender.exception(PATIENCE)


@pytest.mark.feature("F077", "F112")
def test_never_up_and_broken_are_different_errors(serve_at: Serve) -> None:
    served = serve_at(Thing())
    proxy = served.proxy()
    proxy.echo()
    served.daemon.shutdown()
    with pytest.raises(ConnectionClosedError):
        proxy.echo()
    with pytest.raises(CommunicationError, match="cannot connect to") as caught:
        proxy.echo()
    assert not isinstance(caught.value, ConnectionClosedError)


# --------------------------------------------------------------------------- release, bind, reconnect
@pytest.mark.feature("F072", "F065")
def test_release(serve: Serve) -> None:
    served = serve(Thing())
    proxy = served.proxy()
    proxy._pyroRelease()
    assert proxy._pyroConnection is None
    with proxy as same:
        assert same is proxy
        assert proxy.echo(1) == 1
        assert proxy._pyroConnection is not None
    assert proxy._pyroConnection is None
    with pytest.raises(ZeroDivisionError), proxy:  # noqa: PT012 - the connection must have been made
        assert proxy.echo(2) == 2
        raise ZeroDivisionError
    assert proxy._pyroConnection is None
    assert proxy.echo(3) == 3
    proxy._pyroRelease()
    proxy._pyroRelease()


@pytest.mark.feature("F073")
def test_bind(serve: Serve) -> None:
    proxy = serve(Thing()).proxy()
    assert proxy._pyroBind() is True
    connection = proxy._pyroConnection
    assert connection is not None
    assert proxy._pyroBind() is False
    assert proxy.echo(1) == 1
    assert proxy._pyroConnection is connection


@pytest.mark.feature("F073")
def test_bind_replaces_a_uri_that_has_to_be_resolved(serve_at: Serve) -> None:
    served = serve_at(Thing())
    target = served.daemon.uriFor("thing")
    resolutions: list[Any] = []

    def resolve(uri: Any) -> Any:
        resolutions.append(uri)
        return target if uri.object == "some.name" else None

    names = make_plugin("names", pyro_resolve=resolve)
    client = make_kernel(extra_plugins=[names], environ={"PYRO_DISABLE_PLUGINS": "naming"})
    proxy = Proxy("PYRONAME:some.name", kernel=client)
    assert proxy.echo(1) == 1
    assert proxy._pyroUri == URI("PYRONAME:some.name")  # a call resolves, and forgets
    proxy._pyroReconnect(1)
    assert proxy._pyroUri == target  # binding keeps
    proxy._pyroRelease()
    count = len(resolutions)
    assert proxy.echo(2) == 2
    assert len(resolutions) == count + 1  # a server that was restarted may have moved
    proxy._pyroRelease()
    with pytest.raises(URIError, match="no plugin that is loaded resolves PYRONAME"):
        Proxy("PYRONAME:other", kernel=client)._pyroBind()


@pytest.mark.feature("F074", "F075", "F076")
def test_reconnect_after_a_restart_on_the_same_address(serve_at: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenarios 10 and 14."""

    @behavior("session")
    class Session:
        def __init__(self) -> None:
            self.count = 0

        @expose
        def next(self) -> int:
            self.count += 1
            return self.count

    monkeypatch.setattr(proxy_module, "RECONNECT_DELAY", 0.01)
    served = serve_at(Session)
    proxy = served.proxy()
    assert [proxy.next(), proxy.next()] == [1, 2]
    uri = served.daemon.uriFor("thing")
    served.daemon.shutdown()
    with pytest.raises(ConnectionClosedError):
        proxy.next()
    with pytest.raises(ConnectionClosedError, match="tries exhausted"):
        proxy._pyroReconnect(tries=2)
    options: dict[str, Any] = {"memory": uri.location[4:]}
    if served.transport.startswith("tcp"):
        options = {"host": uri.host, "port": uri.port}
    elif served.transport == "unix":
        options = {"unixsocket": uri.sockname}
    again = type(served.daemon)(kernel=served.kernel, **options)
    with again:
        again.register(Session, "thing")
        assert again.uriFor("thing") == uri
        loop = threading.Thread(target=again.requestLoop)
        loop.start()
        proxy._pyroReconnect(tries=3)
        assert proxy.next() == 1  # nothing of the old session is left
        again.shutdown()
        loop.join(PATIENCE)


# --------------------------------------------------------------------------- retry
@pytest.mark.feature("F078")
def test_retries(serve_at: Serve) -> None:
    thing = Thing()
    served = serve_at(thing, MAX_RETRIES=3)
    proxy = served.proxy()
    assert proxy._pyroMaxRetries == 3
    assert proxy.fail_at_first(3) == 4
    thing.calls = 0
    with pytest.raises(ConnectionClosedError):
        proxy.fail_at_first(4)
    assert thing.calls == 4
    proxy._pyroMaxRetries = 0
    thing.calls = 0
    with pytest.raises(ConnectionClosedError):
        proxy.fail_at_first(1)
    assert thing.calls == 1


@pytest.mark.feature("F078")
def test_a_timeout_is_tried_again(serve_threads: Serve) -> None:
    thing = Thing()
    proxy = serve_threads(thing, MAX_RETRIES=2).proxy()
    proxy._pyroBind()
    proxy._pyroTimeout = SHORT
    with pytest.raises(TimeoutError):
        proxy.slow()
    for _ in range(3):
        assert thing.entered.acquire(timeout=PATIENCE)  # a server that is slow starts them when nobody waits any more
    thing.gate.set()
    assert thing.calls == 3


@pytest.mark.parametrize("mux", [pytest.param(True, marks=pytest.mark.needs("mux")), False])
def test_ctrl_c_in_a_call_does_not_mix_up_replies(serve_at: Serve, mux: bool) -> None:
    """Scenario 1: what is interrupted in the middle may cost the connection, never the order."""
    thing = Thing()
    kernel = None if mux else make_kernel(environ={"PYRO_DISABLE_PLUGINS": "mux"})
    proxy = serve_at(thing).proxy(kernel=kernel)
    proxy.echo()
    connection = proxy._pyroConnection
    assert connection is not None
    original = connection.stream

    class Interrupted:
        def __getattr__(self, name: str) -> Any:
            return getattr(original, name)

        def recv_into(self, *args: Any) -> int:
            raise KeyboardInterrupt

    stand_in: Any = Interrupted()
    connection.stream = stand_in
    # (in a context of its own: what other tests have left in this one makes calls take the long way, which waits elsewhere)
    with pytest.raises(KeyboardInterrupt):
        contextvars.Context().run(proxy.echo, "lost")
    connection.stream = original
    assert proxy._pyroConnection is (connection if mux else None)
    assert proxy.echo("next") == "next"
    if kernel is not None:
        proxy._pyroRelease()
        kernel.close()
