"""Sockets that the user has connected."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from pyroplug.core.errors import CommunicationError
from pyroplug.core.interfaces import Stream
from pyroplug.core.uri import CONNECTED_SOCKET, URI
from pyroplug.testing.transports import PATIENCE, in_thread, receive, send_all, settings_of
from pyroplug.transports import pair
from pyroplug.transports.pair import PairTransport

pytestmark = pytest.mark.feature("F173")

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def sockets() -> Iterator[Pair]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


def test_a_stream_over_each_end(sockets: Pair) -> None:
    left, right = map(PairTransport().stream, sockets)
    assert isinstance(left, Stream)
    assert left.sock is sockets[0]
    answer = in_thread(receive, right, 5)
    left.send(b"hello")
    assert answer.result(PATIENCE) == b"hello"
    assert left.peer
    left.close()
    right.close()


def test_the_socket_is_never_closed(sockets: Pair) -> None:
    stream = PairTransport().stream(sockets[0])
    descriptor = stream.fileno()
    assert descriptor == sockets[0].fileno()
    stream.close()
    stream.close()
    assert sockets[0].fileno() == descriptor
    sockets[0].sendall(b"still open")
    assert sockets[1].recv(100) == b"still open"


def test_a_closed_stream_raises(sockets: Pair) -> None:
    stream = PairTransport().stream(sockets[0])
    stream.close()
    assert stream.fileno() == -1
    for operation in (lambda: stream.recv_into(bytearray(1)), lambda: stream.send(b"x"), lambda: stream.settimeout(0)):
        with pytest.raises(OSError, match="the stream is closed"):
            operation()
    assert stream.sendmsg is None
    assert stream.pending() == 0
    assert isinstance(stream.peer, str)


def test_the_socket_can_be_used_again(sockets: Pair) -> None:
    """As by a second proxy; the time-out its owner gave it is there again in between."""
    sockets[0].settimeout(12)
    for _ in range(2):
        stream = PairTransport().stream(sockets[0])
        assert sockets[0].gettimeout() is None
        stream.settimeout(0)
        with pytest.raises(BlockingIOError):
            stream.recv_into(bytearray(1))
        stream.send(b"x")
        assert sockets[1].recv(100) == b"x"
        stream.close()
        assert sockets[0].gettimeout() == 12


def test_closing_when_the_socket_is_closed_already(sockets: Pair) -> None:
    stream = PairTransport().stream(sockets[0])
    sockets[0].close()
    assert stream.fileno() == -1
    stream.close()


def test_shutting_the_socket_down_wakes_a_reader(sockets: Pair) -> None:
    stream = PairTransport().stream(sockets[0])
    started = threading.Event()

    def read() -> int:
        started.set()
        return stream.recv_into(bytearray(1))

    reading = in_thread(read)
    assert started.wait(PATIENCE)
    sockets[0].shutdown(socket.SHUT_RDWR)
    assert reading.result(PATIENCE) == 0
    stream.close()


def test_tcp_sockets() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as client, listener.accept()[0] as server:
            left, right = map(PairTransport().stream, (client, server))
            assert left.peer == f"127.0.0.1:{listener.getsockname()[1]}"
            left.send(b"hello")
            assert receive(right, 5) == b"hello"
            left.close()
            right.close()
        with pytest.raises(CommunicationError, match="is not connected"):
            PairTransport().stream(listener)


def test_what_is_no_stream_socket() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        for thing in (datagrams, object(), "localhost:4444"):
            with pytest.raises(TypeError, match="must be a stream socket"):
                PairTransport().stream(thing)
    with socket.socket() as fresh, pytest.raises(CommunicationError, match="is not connected"):
        PairTransport().stream(fresh)


def test_no_uri_leads_here(sockets: Pair) -> None:
    settings = settings_of(pair)
    (transport,) = pair.pyro_transports()
    assert transport.scheme == "pair"
    assert transport.listen({"connected_socket": sockets[0]}, settings) is None
    with pytest.raises(CommunicationError, match="must be given"):
        transport.connect(URI(f"PYRO:object@{CONNECTED_SOCKET}:0"), None, settings)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12 warns of fork where there are threads
def test_across_a_fork(sockets: Pair) -> None:
    child = os.fork()
    if not child:
        try:
            sockets[0].close()
            echo = PairTransport().stream(sockets[1])
            send_all(echo, receive(echo, 5)[::-1])
            echo.close()
        finally:
            os._exit(0)
    sockets[1].close()
    stream = PairTransport().stream(sockets[0])
    stream.settimeout(PATIENCE)
    stream.send(b"hello")
    assert receive(stream, 5) == b"olleh"
    assert os.waitpid(child, 0)[1] == 0
    assert stream.recv_into(bytearray(1)) == 0
    stream.close()
