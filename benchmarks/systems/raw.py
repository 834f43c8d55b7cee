"""The limits: blocking sockets, a length before each message, a thread for each connection, and nothing else.

``raw-msgpack`` packs and unpacks on both sides; ``raw-bytes`` only moves bytes, through a buffer that is reused.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

from . import Client, Echo, Ready, Spec, Traffic

SPECS = [
    Spec("raw-msgpack", "raw", {"serializer": "msgpack"}, note="the limit"),
    Spec("raw-bytes", "raw", rows=("bytes-1mb", "bytes-64mb"), note="the limit for bytes"),
]

_LENGTH = struct.Struct("!I")
_BUFFER = 64 * 1024
_CHUNK = 1000
"""Items of a stream in one message."""


def missing() -> str | None:
    try:
        import msgpack
    except ImportError as exc:
        return str(exc)
    return None if msgpack else ""


def _receive(sock: socket.socket, buffer: memoryview) -> memoryview:
    """One message; small ones arrive with a single system call."""
    count = sock.recv_into(buffer)
    if not count:
        raise EOFError
    while count < 4:
        count += _some(sock, buffer[count:])
    size = 4 + _LENGTH.unpack_from(buffer)[0]
    if size <= len(buffer):
        while count < size:
            count += _some(sock, buffer[count:])
        return buffer[4:size]
    large = bytearray(size)
    view = memoryview(large)
    view[:count] = buffer[:count]
    while count < size:
        count += _some(sock, view[count:])
    return view[4:]


def _some(sock: socket.socket, view: memoryview) -> int:
    count = sock.recv_into(view)
    if not count:
        raise EOFError
    return count


def _codec() -> tuple[Callable[[Any], bytes], Callable[[bytes | memoryview], Any]]:
    import msgpack

    return msgpack.Packer(use_bin_type=True).pack, msgpack.unpackb


def _serve_msgpack(sock: socket.socket) -> None:
    pack, unpack = _codec()
    buffer = memoryview(bytearray(_BUFFER))
    try:
        while True:
            value = unpack(_receive(sock, buffer))
            data = pack(value)
            sock.sendall(_LENGTH.pack(len(data)) + data)
            if type(value) is str and value in _MODES:
                _MODES[value](sock)
    except (EOFError, OSError):
        sock.close()


def _serve_batches(sock: socket.socket) -> None:
    """Lists of calls, and the lists of their results."""
    pack, unpack = _codec()
    buffer = memoryview(bytearray(_BUFFER))
    while True:
        data = pack([args[0] for _, args in unpack(_receive(sock, buffer))])
        sock.sendall(_LENGTH.pack(len(data)) + data)


def _serve_oneway(sock: socket.socket) -> None:
    """Messages that get no answer, many with one system call; None asks how many there were."""
    pack, unpack = _codec()
    fired = 0
    pending = b""
    while True:
        data = sock.recv(_BUFFER)
        if not data:
            raise EOFError
        pending += data
        start, end = 0, len(pending)
        while end - start >= 4:
            stop = start + 4 + _LENGTH.unpack_from(pending, start)[0]
            if stop > end:
                break
            if unpack(pending[start + 4 : stop]) is None:
                answer = pack(fired)
                sock.sendall(_LENGTH.pack(len(answer)) + answer)
            else:
                fired += 1
            start = stop
        pending = pending[start:]


def _serve_streams(sock: socket.socket) -> None:
    """Numbers, 1000 with each message."""
    pack, unpack = _codec()
    buffer = memoryview(bytearray(_BUFFER))
    while True:
        left = unpack(_receive(sock, buffer))
        for start in range(0, left, _CHUNK):
            data = pack(list(range(start, min(start + _CHUNK, left))))
            sock.sendall(_LENGTH.pack(len(data)) + data)


_MODES = {"<batches>": _serve_batches, "<oneway>": _serve_oneway, "<streams>": _serve_streams}
"""Texts after which a connection is for something else than echoes."""


def _serve_bytes(sock: socket.socket) -> None:
    buffer = bytearray(_BUFFER)
    try:
        while True:
            view = memoryview(buffer)
            count = _some(sock, view)
            while count < 4:
                count += _some(sock, view[count:])
            size = 4 + _LENGTH.unpack_from(buffer)[0]
            if size > len(buffer):
                first = bytes(view[:count])
                view.release()
                buffer = bytearray(size)
                view = memoryview(buffer)
                view[:count] = first
            while count < size:
                count += _some(sock, view[count:size])
            sock.sendall(view[:size])
    except (EOFError, OSError):
        sock.close()


def serve(spec: Spec, address: str | None, ready: Ready) -> None:
    if address is None:
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        ready(f"127.0.0.1 {listener.getsockname()[1]}")
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(address)
        listener.listen(1024)
        ready(address)
    handler = _serve_msgpack if spec.options else _serve_bytes
    while True:
        sock, _ = listener.accept()
        if address is None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=handler, args=(sock,), daemon=True).start()


def connect(spec: Spec, location: str) -> Client:
    if " " in location:
        host, port = location.split()
        sock = socket.create_connection((host, int(port)))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    else:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(location)
    if not spec.options:
        return Client(Echo(_bytes_echo(sock)), sock.close)
    pack, unpack = _codec()
    buffer = memoryview(bytearray(_BUFFER))

    def echo(value: Any) -> Any:
        data = pack(value)
        sock.sendall(_LENGTH.pack(len(data)) + data)
        return unpack(_receive(sock, buffer))

    call = pack(42)

    def another() -> socket.socket:
        host, port = location.split()
        return socket.create_connection((host, int(port)))

    traffic = Traffic(another, _LENGTH.pack(len(call)) + call)
    lock = threading.Lock()

    def in_turn(value: Any) -> Any:
        with lock:
            return echo(value)

    return Client(
        _Caller(sock, echo), sock.close, batch=lambda: _Batch(echo), traffic=traffic, shared=lambda name: in_turn
    )


class _Caller:
    """Echoes; or else oneway calls; or else streams."""

    def __init__(self, sock: socket.socket, echo: Callable[[Any], Any]) -> None:
        self.echo = echo
        self._sock = sock
        self._pack, self._unpack = _codec()
        self._oneway = self._streams = False

    def fire(self, value: Any) -> None:
        data = self._pack(value)
        self._sock.sendall(_LENGTH.pack(len(data)) + data)

    def fired(self) -> Any:
        if not self._oneway:
            self._oneway = True
            self.echo("<oneway>")
        return self.echo(None)

    def numbers(self, count: int) -> Iterator[int]:
        if not self._streams:
            self._streams = True
            self.echo("<streams>")
        self.fire(count)
        pending = b""
        while count > 0:
            pending += self._sock.recv(_BUFFER)
            start, end = 0, len(pending)
            while end - start >= 4:
                stop = start + 4 + _LENGTH.unpack_from(pending, start)[0]
                if stop > end:
                    break
                items = self._unpack(pending[start + 4 : stop])
                count -= len(items)
                yield from items
                start = stop
            pending = pending[start:]


class _Batch:
    def __init__(self, echo: Callable[[Any], Any]) -> None:
        self._calls: list[Any] = []
        self._exchange = echo
        echo("<batches>")

    def echo(self, value: Any) -> None:
        self._calls.append(("echo", (value,)))

    def __call__(self) -> Any:
        calls, self._calls = self._calls, []
        return self._exchange(calls)


def _bytes_echo(sock: socket.socket) -> Callable[[bytes], object]:
    buffer = bytearray(_BUFFER)

    def echo(value: bytes) -> object:
        nonlocal buffer
        size = 4 + len(value)
        if size > len(buffer):
            buffer = bytearray(size)
        sent = sock.sendmsg((_LENGTH.pack(len(value)), value))
        if sent < size:
            sock.sendall(memoryview(value)[sent - 4 :])
        count = 0
        with memoryview(buffer) as view:
            while count < size:
                count += _some(sock, view[count:size])
        return buffer

    return echo
