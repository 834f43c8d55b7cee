"""Connections within one process."""

from __future__ import annotations

import asyncio
import gc
import os
import select
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from pyroplug.api import expose
from pyroplug.core.errors import CommunicationError, ConfigError, TimeoutError
from pyroplug.core.interfaces import Transport
from pyroplug.core.uri import URI
from pyroplug.testing.kernels import LOOPS, Served
from pyroplug.testing.transports import (
    PATIENCE,
    TransportConformance,
    accept,
    in_thread,
    receive,
    settings_of,
)
from pyroplug.transports import memory
from pyroplug.transports.memory import MemoryNetwork, MemoryStream, MemoryTransport, memory_pair


class TestConformance(TransportConformance):
    plugins = (memory,)

    def make_transport(self) -> Transport:
        return MemoryTransport()

    def listen_options(self) -> Mapping[str, Any]:
        return {"memory": "a name with blanks"}


def test_a_pair_is_connected() -> None:
    left, right = memory_pair("test")
    left.send(b"hello")
    assert receive(right, 5) == b"hello"
    assert left.peer == right.peer == "memory:test"
    assert left.sock is None
    left.close()
    right.close()


def test_no_descriptor_is_used_unless_asked_for() -> None:
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    left, right = memory_pair()
    left.send(b"x")
    assert receive(right, 1) == b"x"
    left.close()
    right.close()
    if before:
        assert set(os.listdir("/proc/self/fd")) <= before


def test_the_buffer_is_bounded() -> None:
    left, right = memory_pair(buffer_size=10)
    left.settimeout(0)
    assert left.send(b"0123456") == 7
    assert left.send(b"789abc") == 3
    with pytest.raises(BlockingIOError):
        left.send(b"x")
    assert left.send(b"") == 0
    assert receive(right, 10) == b"0123456789"
    left.close()
    right.close()


@pytest.mark.parametrize("which", [0, 1])
def test_a_waiting_sender_is_woken_by_room_and_by_either_close(which: int) -> None:
    left, right = memory_pair(buffer_size=1)
    left.send(b"a")
    sending = in_thread(left.send, b"b")
    assert receive(right, 2) == b"ab"
    assert sending.result(PATIENCE) == 1
    left.send(b"c")
    sending = in_thread(left.send, b"d")
    (left, right)[which].close()
    with pytest.raises(OSError):
        sending.result(PATIENCE)
    left.close()
    right.close()


def test_wide_items_are_counted_in_bytes() -> None:
    left, right = memory_pair()
    assert left.send(memoryview(b"12345678").cast("I")) == 8
    buffer = memoryview(bytearray(8)).cast("I")
    assert right.recv_into(buffer) == 8
    assert bytes(buffer) == b"12345678"
    assert right.recv_into(bytearray()) == 0
    with pytest.raises(ValueError, match="negative"):
        left.settimeout(-1)
    left.close()
    right.close()


def test_an_asyncio_loop_can_watch_a_stream() -> None:
    async def main() -> bytes:
        left, right = memory_pair()
        loop = asyncio.get_running_loop()
        came: asyncio.Future[bytes] = loop.create_future()
        right.settimeout(0)

        def on_readable() -> None:
            came.set_result(receive(right, 5))
            loop.remove_reader(right.fileno())

        loop.add_reader(right.fileno(), on_readable)
        loop.call_soon(left.send, b"hello")
        try:
            return await asyncio.wait_for(came, PATIENCE)
        finally:
            left.close()
            right.close()

    assert asyncio.run(main()) == b"hello"


def test_names_belong_to_a_network() -> None:
    settings = settings_of(memory)
    one, other = MemoryTransport(), MemoryTransport()
    listener = one.listen({"memory": "name"}, settings)
    assert listener is not None
    uri = URI(f"PYRO:object@{listener.location}")
    assert listener.location == "./m:name"
    with pytest.raises(CommunicationError, match="nobody listens there"):
        other.connect(uri, 1, settings)
    one.connect(uri, 1, settings).close()
    listener.close()


def test_the_plugin_gives_everybody_the_same_network() -> None:
    (one,), (other,) = memory.pyro_transports(), memory.pyro_transports()
    assert isinstance(one, MemoryTransport)
    assert isinstance(other, MemoryTransport)
    assert one.network is other.network is memory.default_network()


def test_free_names() -> None:
    network = MemoryNetwork()
    taken = network.listen("anonymous-1")
    settings = settings_of(memory)
    transport = MemoryTransport(network)
    listeners = [transport.listen({"memory": True}, settings) for _ in range(3)]
    assert [getattr(each, "location", None) for each in (taken, *listeners)] == [
        "./m:anonymous-1", "./m:anonymous-2", "./m:anonymous-3", "./m:anonymous-4",
    ]  # fmt: skip


def test_a_listener_that_is_dropped_gives_its_name_back() -> None:
    network = MemoryNetwork()
    for _ in range(2):
        listener = network.listen("mine")
        del listener
        gc.collect()


@pytest.mark.parametrize("name", [1, b"name", "two\nlines"])
def test_what_is_no_name(name: object) -> None:
    with pytest.raises(ConfigError, match="memory must be a name"):
        MemoryTransport().listen({"memory": name}, settings_of(memory))


def test_a_location_of_another_transport() -> None:
    with pytest.raises(CommunicationError, match="expected a location such as"):
        MemoryTransport().connect(URI("PYRO:object@localhost:4444"), 1, settings_of(memory))


def test_connections_nobody_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "BACKLOG_SIZE", 2)
    network = MemoryNetwork()
    listener = network.listen("name")
    waiting = [network.connect("name"), network.connect("name")]
    for timeout in (0, 0.01):
        with pytest.raises(TimeoutError, match=r"\./m:name"):
            network.connect("name", timeout)
    third = in_thread(network.connect, "name", PATIENCE)
    accept(listener).close()
    third.result(PATIENCE).close()
    fourth = in_thread(network.connect, "name", PATIENCE)
    listener.close()
    assert listener.accept() is None
    assert listener.fileno() == -1
    for stream in waiting:
        assert stream.recv_into(bytearray(1)) == 0
        stream.close()
    with pytest.raises(CommunicationError):
        fourth.result(PATIENCE)


def can_send(stream: MemoryStream) -> bool:
    _, writable, _ = select.select([], [stream], [], 0)
    return bool(writable)


@pytest.mark.parametrize("asked", ["before", "after"])
def test_the_descriptor_tells_whether_there_is_room(asked: str) -> None:
    left, right = memory_pair(buffer_size=1000)
    left.settimeout(0)
    if asked == "before":
        assert can_send(left)
    assert left.send(bytes(600)) == 600
    if asked == "before":
        assert can_send(left)
    assert left.send(bytes(600)) == 400
    assert not can_send(left)
    assert can_send(right)
    with pytest.raises(BlockingIOError):
        left.send(b"more")
    assert right.recv_into(bytearray(1)) == 1
    assert can_send(left)
    assert left.send(b"more") == 1
    assert not can_send(left)
    assert right.send(b"!") == 1  # the other direction has nothing to do with it
    assert select.select([left], [], [], 0)[0] == [left]
    assert not can_send(left)
    right.close()
    assert can_send(left)  # and hears why it cannot
    with pytest.raises(BrokenPipeError):
        left.send(b"more")
    left.close()


@pytest.mark.parametrize("loop", LOOPS)
def test_a_reply_that_nobody_reads_costs_the_server_nothing(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for room, and does not ask for it again and again."""

    class Thing:
        @expose
        def much(self) -> str:
            return "x" * (3 * memory.BUFFER_SIZE)

    tries: list[int] = []
    original = MemoryStream.send

    def counted(self: MemoryStream, data: Any, /) -> int:
        tries.append(len(data))
        return original(self, data)

    with Served("memory", loop) as served:
        served.publish(Thing())
        peer = served.peer()
        peer.hello()
        monkeypatch.setattr(MemoryStream, "send", counted)
        peer.send(peer.call_message("thing", "much"))
        assert not threading.Event().wait(0.3)  # the server has nothing to do
        assert len(tries) < 20
        assert len(peer.value(peer.message())) == 3 * memory.BUFFER_SIZE
