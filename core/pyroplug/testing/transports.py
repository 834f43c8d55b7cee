"""What every transport must do: a test class that third parties run on theirs.

A complete test module for a transport (here the one for connections within a process)::

    from pyroplug.testing.transports import TransportConformance
    from pyroplug.transports import memory


    class TestMemory(TransportConformance):
        plugins = (memory,)  # whose settings are needed

        def make_transport(self):
            return memory.MemoryTransport()

        def listen_options(self):
            return {"memory": "name"}

pytest runs the inherited tests.  Every wait is bounded by :data:`PATIENCE`.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from typing import TYPE_CHECKING, Any, Final

import pytest

from pyroplug.core.errors import CommunicationError
from pyroplug.core.interfaces import Listener, Stream, Transport
from pyroplug.core.settings import Schema, Settings
from pyroplug.core.uri import URI

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "PATIENCE",
    "TransportConformance",
    "accept",
    "in_thread",
    "members",
    "readable",
    "receive",
    "receive_all",
    "send_all",
    "settings_of",
]

PATIENCE: Final = 10.0 * float(os.environ.get("PYROPLUG_TEST_TIMEOUT_FACTOR") or 1)
"""Seconds after which something that must happen has failed to."""

_MOMENT: Final = 0.05  # seconds: a time-out that must pass, and how long "nothing happens" is watched


# --------------------------------------------------------------------------- helpers
def settings_of(*plugins: Any, **values: Any) -> Settings:
    """The settings that ``plugins`` declare; ``values`` in place of defaults, the environment left out."""
    schema = Schema()
    for plugin in plugins:
        declare = getattr(plugin, "pyro_settings", None)
        if declare is not None:
            declare(schema)
    return Settings(schema, {}, values)


def readable(*things: Any, within: float = PATIENCE) -> bool:
    """Whether a poll finds one of ``things`` (that have a ``fileno``) readable within so many seconds."""
    with selectors.DefaultSelector() as selector:
        for thing in things:
            selector.register(thing, selectors.EVENT_READ)
        return bool(selector.select(within))


def members(listener: Listener) -> tuple[Listener, ...]:
    """The single listeners of one that may be a group."""
    group: tuple[Listener, ...] = getattr(listener, "members", (listener,))
    return group


def accept(listener: Listener) -> Stream:
    """Wait for the next connection, as a server loop does."""
    assert readable(*members(listener)), "no connection came"
    for member in members(listener):
        stream = member.accept()
        if stream is not None:
            return stream
    raise AssertionError("the listener was readable, but there was no connection")


def send_all(stream: Stream, data: bytes) -> None:
    """Send everything; the stream must not be non-blocking."""
    with memoryview(data) as view:
        sent = 0
        while sent < len(data):
            sent += stream.send(view[sent:])


def receive(stream: Stream, size: int) -> bytes:
    """Exactly ``size`` bytes; fewer only at the end of the stream."""
    data = bytearray(size)
    with memoryview(data) as view:
        received = 0
        while received < size:
            count = stream.recv_into(view[received:])
            if not count:
                break
            received += count
    return bytes(data[:received])


def receive_all(stream: Stream) -> bytes:
    """Everything until the end of the stream."""
    data = bytearray()
    chunk = bytearray(65536)
    while count := stream.recv_into(chunk):
        data += chunk[:count]
    return bytes(data)


def in_thread(function: Callable[..., Any], *args: Any) -> futures.Future[Any]:
    """Run a function in a thread of its own; the future has its result."""
    future: futures.Future[Any] = futures.Future()

    def run() -> None:
        try:
            future.set_result(function(*args))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


# --------------------------------------------------------------------------- the suite
class TransportConformance:
    """The tests; a subclass says which transport they are for.

    ``plugins`` are the plugin modules whose settings the transport reads.
    """

    plugins: Sequence[Any] = ()

    def make_transport(self) -> Transport:
        """The transport to be tested; called once for each test."""
        raise NotImplementedError

    def listen_options(self) -> Mapping[str, Any]:
        """Daemon arguments that mean this transport, and an address that is free."""
        raise NotImplementedError

    def same_address(self, listener: Listener) -> Mapping[str, Any]:
        """Daemon arguments for the very address of ``listener``; needed if ``listen_options`` leaves it open."""
        del listener
        return self.listen_options()

    def make_settings(self) -> Settings:
        """The settings to be tested with."""
        return settings_of(*self.plugins)

    @pytest.fixture(autouse=True)
    def _prepare(self) -> Iterator[None]:
        self.settings = self.make_settings()
        self.transport = self.make_transport()
        with contextlib.ExitStack() as stack:
            self._stack = stack
            yield

    def listen(self, options: Mapping[str, Any] | None = None) -> Listener:
        """A listener that is closed after the test."""
        listener = self.transport.listen(self.listen_options() if options is None else options, self.settings)
        assert listener is not None, "the transport did not recognise its own options"
        self._stack.callback(listener.close)
        return listener

    def connect(self, location: str, timeout: float | None = PATIENCE) -> Stream:
        """A client's stream that is closed after the test."""
        stream = self.transport.connect(URI(f"PYRO:object@{location}"), timeout, self.settings)
        self._stack.callback(stream.close)
        return stream

    def pair(self) -> tuple[Stream, Stream]:
        """A client's and a server's stream, connected; no operation waits longer than :data:`PATIENCE`."""
        listener = self.listen()
        client = self.connect(listener.location)
        server = accept(listener)
        self._stack.callback(server.close)
        client.settimeout(PATIENCE)
        server.settimeout(PATIENCE)
        return client, server

    # ----------------------------------------------------------------------- shapes
    def test_objects_have_the_shape_of_the_protocols(self) -> None:
        """Streams satisfy ``Stream``; the location is a valid one and of the transport's scheme."""
        listener = self.listen()
        client = self.connect(listener.location)
        server = accept(listener)
        self._stack.callback(server.close)
        assert isinstance(client, Stream)
        assert isinstance(server, Stream)
        uri = URI(f"PYRO:object@{listener.location}")
        assert (uri.scheme, uri.location) == (self.transport.scheme, listener.location)

    def test_options_of_others_are_left_to_them(self) -> None:
        """An option that no transport knows, or of another kind, is never taken for ours as well."""
        other = {"memory": "elsewhere"} if self.transport.scheme != "m" else {"unixsocket": "/elsewhere"}
        assert self.transport.listen(other, self.settings) is None

    # ----------------------------------------------------------------------- bytes
    def test_bytes_arrive_in_both_directions(self) -> None:
        """The plain case."""
        client, server = self.pair()
        send_all(client, b"question")
        assert receive(server, 8) == b"question"
        send_all(server, b"answer")
        assert receive(client, 6) == b"answer"

    def test_recv_into_takes_what_there_is(self) -> None:
        """It does not wait for a full buffer, honours ``nbytes``, and leaves the rest of the buffer alone."""
        client, server = self.pair()
        send_all(client, b"abcdef")
        buffer = bytearray(b"." * 16)
        assert server.recv_into(buffer, 2) == 2
        assert buffer == b"ab" + b"." * 14
        assert readable(server)
        count = server.recv_into(memoryview(buffer)[4:])
        assert 1 <= count <= 4
        assert bytes(buffer[4 : 4 + count]) == b"cdef"[:count]

    def test_every_kind_of_buffer_can_be_sent(self) -> None:
        """Bytes, bytearrays and views."""
        client, server = self.pair()
        for data in (b"one", bytearray(b"two"), memoryview(b"__six")[2:]):
            assert client.send(data) == 3
        assert receive(server, 9) == b"onetwosix"

    def test_much_data_in_both_directions_at_once(self) -> None:
        """More than any buffer holds; nothing is lost, changed, or stuck."""
        client, server = self.pair()
        there, back = os.urandom(1 << 10) * 6000, os.urandom(1 << 10) * 5000
        jobs = [in_thread(send_all, client, there), in_thread(send_all, server, back)]
        got_back = in_thread(receive, client, len(back))
        assert receive(server, len(there)) == there
        assert got_back.result(PATIENCE) == back
        for job in jobs:
            job.result(PATIENCE)

    # ----------------------------------------------------------------------- not waiting
    def test_non_blocking_receive_raises_where_it_would_wait(self) -> None:
        """``BlockingIOError``, before and after there was something."""
        client, server = self.pair()
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.recv_into(bytearray(8))
        send_all(client, b"x")
        assert readable(server)
        assert server.recv_into(bytearray(8)) == 1
        with pytest.raises(BlockingIOError):
            server.recv_into(bytearray(8))

    def test_non_blocking_send_takes_a_part_and_then_raises(self) -> None:
        """Back-pressure: exactly what was counted arrives, and then there is room again."""
        client, server = self.pair()
        client.settimeout(0)
        block = bytes(range(256)) * 1024
        sent = 0
        with pytest.raises(BlockingIOError):  # noqa: PT012 - after how many sends is not our business
            while sent < 1 << 30:
                sent += client.send(memoryview(block)[sent % 256 :])
        assert sent > 0
        expected = in_thread(receive, server, sent).result(PATIENCE)
        assert expected == (bytes(range(256)) * (sent // 256 + 1))[:sent]
        with selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_WRITE)
            assert selector.select(PATIENCE)
        assert client.send(b"x") == 1

    def test_blocking_send_waits_for_room(self) -> None:
        """A sender is held until the other side receives."""
        client, server = self.pair()
        data = bytes(32 << 20)
        sending = in_thread(send_all, client, data)
        assert receive(server, len(data)) == data
        sending.result(PATIENCE)

    def test_time_out_of_a_receive(self) -> None:
        """The builtin TimeoutError, which is an OSError; the stream goes on working."""
        client, server = self.pair()
        server.settimeout(_MOMENT)
        with pytest.raises(TimeoutError):
            server.recv_into(bytearray(8))
        send_all(client, b"late")
        assert receive(server, 4) == b"late"

    def test_time_out_of_a_send(self) -> None:
        """The same in the other direction."""
        client, _ = self.pair()
        client.settimeout(_MOMENT)
        with pytest.raises(TimeoutError):
            send_all(client, bytes(64 << 20))

    def test_new_streams_wait(self) -> None:
        """Both ends start blocking."""
        listener = self.listen()
        client = self.connect(listener.location)
        with contextlib.closing(accept(listener)) as server:
            for reader, writer in ((client, server), (server, client)):
                reading = in_thread(receive, reader, 1)
                assert not reading.done()
                writer.send(b"x")
                assert reading.result(PATIENCE) == b"x"

    # ----------------------------------------------------------------------- polling
    def test_fileno_is_readable_exactly_while_something_can_be_received(self) -> None:
        """Level-triggered: not before, again and again while, and not after; then for the end of the stream."""
        client, server = self.pair()
        assert not readable(server, within=0)
        send_all(client, b"abcd")
        assert readable(server)
        assert receive(server, 2) == b"ab"
        assert readable(server, within=0)
        assert receive(server, 2) == b"cd"
        assert not readable(server, within=0)
        client.close()
        assert readable(server)
        assert server.recv_into(bytearray(8)) == 0
        assert readable(server, within=0)

    def test_fileno_asked_for_late(self) -> None:
        """What came before a loop began to watch is noticed as well."""
        client, server = self.pair()
        send_all(client, b"early")
        assert readable(server)

    def test_nothing_is_pending(self) -> None:
        """A transport keeps no bytes that a poll does not tell of."""
        client, server = self.pair()
        send_all(client, b"abcd")
        assert receive(server, 1) == b"a"
        assert server.pending() == 0
        assert readable(server)

    # ----------------------------------------------------------------------- ends
    def test_the_end_comes_after_all_data(self) -> None:
        """What was sent before closing arrives; then 0, as often as one asks."""
        client, server = self.pair()
        send_all(client, b"last words")
        client.close()
        assert receive_all(server) == b"last words"
        assert server.recv_into(bytearray(8)) == 0

    def test_sending_to_a_closed_end_fails(self) -> None:
        """With an OSError, if not at once then soon."""
        client, server = self.pair()
        server.close()
        with pytest.raises(OSError):  # noqa: PT011, PT012 - networks notice it with the second block only
            for _ in range(1000):
                client.send(bytes(65536))

    def test_closing_twice(self) -> None:
        """Nothing happens the second time."""
        for stream in self.pair():
            stream.close()
            stream.close()
            assert stream.fileno() == -1
            assert stream.pending() == 0

    def test_a_closed_stream_raises(self) -> None:
        """OSError for every operation."""
        client, _ = self.pair()
        client.close()
        with pytest.raises(OSError):  # noqa: PT011 - the text is the system's
            client.recv_into(bytearray(8))
        with pytest.raises(OSError):  # noqa: PT011 - the text is the system's
            client.send(b"x")

    def test_closing_wakes_a_thread_that_receives(self) -> None:
        """It finds the end of the stream, or an OSError."""
        client, server = self.pair()
        client.settimeout(None)
        started = threading.Event()

        def read() -> int:
            started.set()
            try:
                return client.recv_into(bytearray(8))
            except OSError:
                return 0

        reading = in_thread(read)
        assert started.wait(PATIENCE)
        with contextlib.suppress(TimeoutError, futures.TimeoutError):
            reading.result(_MOMENT)  # lets the thread get as far as waiting; right without, too
        client.close()
        assert reading.result(PATIENCE) == 0
        assert server.recv_into(bytearray(8)) == 0

    def test_closing_from_many_threads(self) -> None:
        """Nobody fails."""
        client, server = self.pair()
        for job in [in_thread(stream.close) for stream in (client, server) * 8]:
            job.result(PATIENCE)

    # ----------------------------------------------------------------------- who
    def test_peer_is_a_text_for_people(self) -> None:
        """One line, always the same, also when the other end is gone and when the stream is closed."""
        client, server = self.pair()
        name = client.peer
        assert name
        assert name.isprintable()
        client.close()
        assert client.peer == name
        assert server.peer
        server.close()
        assert server.peer.isprintable()

    def test_peer_asked_for_after_the_end(self) -> None:
        """It never fails."""
        client, server = self.pair()
        client.close()
        server.close()
        assert isinstance(server.peer, str)
        assert isinstance(client.peer, str)

    def test_repr(self) -> None:
        """Works for open and closed ones."""
        listener = self.listen()
        client = self.connect(listener.location)
        for thing in (listener, client):
            assert repr(thing)
            thing.close()
            assert repr(thing)

    # ----------------------------------------------------------------------- listening
    def test_accept_never_waits(self) -> None:
        """None when nobody is there."""
        for member in members(self.listen()):
            assert member.accept() is None

    def test_every_connection_is_accepted_once(self) -> None:
        """Several may wait; the listener is readable while they do."""
        listener = self.listen()
        clients = [self.connect(listener.location) for _ in range(5)]
        for number, client in enumerate(clients):
            client.send(bytes([number]))
        servers = [accept(listener) for _ in clients]
        for server in servers:
            self._stack.callback(server.close)
        assert sorted(receive(server, 1) for server in servers) == [bytes([n]) for n in range(5)]
        assert not readable(*members(listener), within=0)

    def test_a_client_that_has_gone_before_it_was_accepted(self) -> None:
        """It is accepted and found closed, or not seen at all."""
        listener = self.listen()
        self.connect(listener.location).close()
        readable(*members(listener), within=_MOMENT)
        for member in members(listener):
            stream = member.accept()
            if stream is not None:
                stream.settimeout(PATIENCE)
                with contextlib.suppress(ConnectionError):
                    assert stream.recv_into(bytearray(8)) == 0
                assert stream.peer
                stream.close()

    def test_a_closed_listener_refuses(self) -> None:
        """With a CommunicationError that says where, and has its reason where a system call failed."""
        listener = self.listen()
        location = listener.location
        listener.close()
        with pytest.raises(CommunicationError, match="cannot connect") as caught:
            self.connect(location)
        assert location in str(caught.value)

    def test_closing_a_listener_frees_its_address(self) -> None:
        """At once, even if there was a connection; closing twice is fine, and connections survive."""
        listener = self.listen()
        options = self.same_address(listener)
        client = self.connect(listener.location)
        server = accept(listener)
        self._stack.callback(server.close)
        listener.close()
        listener.close()
        again = self.listen(options)
        assert again.location == listener.location
        send_all(client, b"still here")
        assert receive(server, 10) == b"still here"
        newcomer = self.connect(again.location)
        with contextlib.closing(accept(again)) as stream:
            send_all(newcomer, b"hello")
            assert receive(stream, 5) == b"hello"

    def test_an_address_in_use_is_refused(self) -> None:
        """With a CommunicationError that is an OSError too; whoever was there first is not disturbed."""
        listener = self.listen()
        with pytest.raises(CommunicationError, match="in use"):
            self.transport.listen(self.same_address(listener), self.settings)
        client = self.connect(listener.location)
        with contextlib.closing(accept(listener)) as server:
            send_all(client, b"hello")
            assert receive(server, 5) == b"hello"
