"""What all transports with sockets have in common."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import socket
import ssl
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from pyroplug.core.errors import CommunicationError
from pyroplug.core.settings import Schema
from pyroplug.testing.transports import PATIENCE, readable, settings_of
from pyroplug.transports import tcp, unix
from pyroplug.transports._sockets import ListenError, SocketListener, SocketStream, peer_text


@contextlib.contextmanager
def listening(**options: Any) -> Iterator[tuple[SocketListener, Any]]:
    sock = socket.create_server(("127.0.0.1", 0))
    with contextlib.closing(SocketListener(sock, "here:1", **options)) as listener:
        yield listener, sock.getsockname()


def failing(code: int) -> Any:
    class Broken:
        def accept(self) -> Any:
            raise OSError(code, os.strerror(code))

    return Broken()


def test_operations_are_the_socket_s_own() -> None:
    """Nothing of ours runs for each of them."""
    left, right = socket.socketpair()
    stream = SocketStream(left)
    assert stream.recv_into == left.recv_into
    assert stream.send == left.send
    if sys.platform != "win32":
        assert stream.sendmsg is not None
        assert stream.sendmsg([b"one", b"two"]) == 6
        assert right.recv(10) == b"onetwo"
    assert not hasattr(stream, "__dict__")
    stream.close()
    right.close()


def test_a_stream_starts_blocking() -> None:
    left, right = socket.socketpair()
    left.setblocking(False)
    stream = SocketStream(left)
    assert left.gettimeout() is None
    stream.close()
    right.close()


def test_peer_of_sockets_without_names() -> None:
    left, right = socket.socketpair()
    stream = SocketStream(left)
    assert stream.peer
    stream.close()
    right.close()
    with socket.socket() as unconnected:
        assert peer_text(unconnected) == "(disconnected)"
        assert peer_text(unconnected, ("::1", 5, 0, 0)) == "[::1]:5"


def test_listen_errors_are_both_kinds() -> None:
    error = ListenError("a text", errno.EADDRINUSE)
    assert isinstance(error, CommunicationError)
    assert isinstance(error, OSError)
    assert str(error) == "a text"
    assert error.errno == errno.EADDRINUSE


def test_the_backlog_is_declared_by_each_that_needs_it() -> None:
    for plugins in ((tcp,), (unix,), (tcp, unix)):
        schema = Schema()
        for plugin in plugins:
            plugin.pyro_settings(schema)
        assert schema["LISTEN_BACKLOG"].default == settings_of(*plugins).LISTEN_BACKLOG == 1024


# --------------------------------------------------------------------------- accepting
@pytest.mark.parametrize("code", [errno.EAGAIN, errno.ECONNABORTED, errno.EPROTO, errno.EPERM])
def test_a_connection_that_failed_is_none(code: int) -> None:
    with listening() as (listener, _):
        real, listener.sock = listener.sock, failing(code)
        assert listener.accept() is None
        listener.sock = real


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE])
def test_out_of_descriptors(code: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("pyroplug.transports._sockets.time.monotonic", lambda: now)
    with listening() as (listener, _):
        real, listener.sock = listener.sock, failing(code)
        for _ in range(1000):
            assert listener.accept() is None
        assert [r.getMessage() for r in caplog.records] == [
            f"here:1 cannot accept connections for now: [Errno {code}] {os.strerror(code)}"
        ]
        now += 1.1
        listener.accept()
        assert len(caplog.records) == 2
        listener.sock = real


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs limits and descriptors as Linux has them")
def test_really_out_of_descriptors(caplog: pytest.LogCaptureFixture) -> None:
    """The connection waits until there are some again."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with listening() as (listener, address), socket.create_connection(address):
        assert readable(listener)
        lowest = os.dup(listener.fileno())
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            assert listener.accept() is None
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert "cannot accept connections" in caplog.text
        stream = listener.accept()
        assert stream is not None
        stream.close()


def test_a_broken_listener_raises_and_a_closed_one_does_not() -> None:
    with listening() as (listener, _):
        real, listener.sock = listener.sock, failing(errno.EBADF)
        with pytest.raises(OSError, match="descriptor"):
            listener.accept()
        listener.sock = real
        listener.close()
        assert listener.accept() is None
        assert listener.fileno() == -1


def test_preparing_accepted_sockets() -> None:
    prepared: list[socket.socket] = []
    with listening(prepare=prepared.append) as (listener, address), socket.create_connection(address) as client:
        assert readable(listener)
        stream = listener.accept()
        assert stream is not None
        assert prepared == [stream.sock]
        assert stream.peer == "{}:{}".format(*client.getsockname())
        assert not stream.sock.get_inheritable()
        stream.close()


def test_a_peer_that_is_gone_before_its_socket_is_prepared() -> None:
    def refuse(sock: socket.socket) -> None:
        raise OSError(errno.EINVAL, "as macOS does")

    with listening(prepare=refuse) as (listener, address), socket.create_connection(address) as client:
        assert readable(listener)
        assert listener.accept() is None
        client.settimeout(PATIENCE)
        assert client.recv(1) == b""


def test_cleaning_up_once() -> None:
    done: list[int] = []
    with listening(cleanup=lambda: done.append(1)) as (listener, _):
        listener.close()
    assert done == [1]


# --------------------------------------------------------------------------- TLS
class FakeTls:
    """What matters of an SSLSocket, over a plain one."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.asked: list[object] = []
        self.wants: type[OSError] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def recv_into(self, buffer: Any, nbytes: int | None = None) -> int:
        self.asked.append(nbytes)
        if self.wants:
            raise self.wants(2, "not yet")
        return self._sock.recv_into(buffer, nbytes or 0)

    def send(self, data: Any) -> int:
        if self.wants:
            raise self.wants(2, "not yet")
        return self._sock.send(data)

    def pending(self) -> int:
        return 7


@pytest.mark.parametrize("error", [ssl.SSLWantReadError, ssl.SSLWantWriteError])
def test_tls_sockets_behave_like_others(error: type[OSError]) -> None:
    left, right = socket.socketpair()
    fake: Any = FakeTls(left)
    stream = SocketStream(fake)
    assert stream.pending() == 7
    assert stream.sendmsg is None
    assert stream.send(b"x") == 1
    right.send(b"y")
    assert stream.recv_into(bytearray(1)) == 1
    assert fake.asked == [None]  # 0 would mean "nothing" to an SSLSocket
    fake.wants = error
    with pytest.raises(BlockingIOError):
        stream.recv_into(bytearray(1))
    with pytest.raises(BlockingIOError):
        stream.send(b"x")
    stream.close()
    right.close()


def test_nothing_is_left_over() -> None:
    """No cycles: a stream that is dropped goes at once."""
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            for sock in socket.socketpair():
                SocketStream(sock).close()
        assert gc.collect() == 0
    finally:
        gc.enable()
