"""Calls in Pyro's protocol, as bytes."""

from __future__ import annotations

import socket
from typing import Any

from pyroplug.core.uri import URI
from pyroplug.core.wire import CONNECT, CONNECTOK, INVOKE, FrameReader, Message, encode

from . import Traffic

MSGPACK = 4
"""The wire id of msgpack."""


def traffic(location: str) -> Traffic:
    """Calls of ``echo(42)`` in msgpack, for any server of that protocol."""
    import msgpack

    pack: Any = msgpack.packb
    uri = URI(location)

    def open_connection() -> socket.socket:
        sock = socket.create_connection((uri.host, uri.port or 0), 30)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        hello = pack({"handshake": "hello", "object": uri.object})
        sock.sendall(_joined(encode(CONNECT, MSGPACK, 0, 0, hello)))
        reader = FrameReader(1 << 20)
        while True:
            reader.feed(sock.recv(65536))
            frame = reader.next_frame()
            if frame is not None:
                if frame.type != CONNECTOK:
                    raise AssertionError(f"the handshake was answered with message type {frame.type}")
                return sock

    call = pack([uri.object, "echo", [42], {}])
    return Traffic(open_connection, _joined(encode(INVOKE, MSGPACK, 0, 1, call)))


def _joined(message: Message) -> bytes:
    return message if isinstance(message, bytes) else b"".join(message)
