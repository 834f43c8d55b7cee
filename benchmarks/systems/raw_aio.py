"""The limit for programs that await: an asyncio protocol on each side, uvloop where it is installed, and msgpack.

Replies come in the order of the calls, so that a queue of futures is all a client has to keep.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from . import Client, Echo, Ready, Spec

SPECS = [Spec("raw-aio-msgpack", "raw_aio", rows=("await-1", "await-100"), note="the limit where calls are awaited")]

_LENGTH = struct.Struct("!I")


def missing() -> str | None:
    try:
        import msgpack
    except ImportError as exc:
        return str(exc)
    return None if msgpack else ""


def new_loop() -> asyncio.AbstractEventLoop:
    """An event loop: uvloop's where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


class _Frames(asyncio.Protocol):
    """Cuts what comes into messages, and unpacks them."""

    def __init__(self) -> None:
        import msgpack

        self._pack: Callable[[Any], bytes] = msgpack.Packer(use_bin_type=True).pack
        self._unpack: Callable[[bytes], Any] = msgpack.unpackb
        self._pending = b""
        self._write: Callable[[bytes], None]
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._write = self.transport.write

    def data_received(self, data: bytes) -> None:
        if self._pending:
            data = self._pending + data
        start, end = 0, len(data)
        while end - start >= 4:
            stop = start + 4 + _LENGTH.unpack_from(data, start)[0]
            if stop > end:
                break
            self.arrived(self._unpack(data[start + 4 : stop]))
            start = stop
        self._pending = data[start:]

    def arrived(self, value: Any) -> None:
        """The server's side: give it back."""
        self.send(value)

    def send(self, value: Any) -> None:
        data = self._pack(value)
        self._write(_LENGTH.pack(len(data)) + data)


class _Calls(_Frames):
    """The client's side."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._futures: deque[asyncio.Future[Any]] = deque()

    def arrived(self, value: Any) -> None:
        self._futures.popleft().set_result(value)

    def echo(self, value: Any, /) -> asyncio.Future[Any]:
        future = self._loop.create_future()
        self._futures.append(future)
        self.send(value)
        return future

    async def close(self) -> None:
        self.transport.close()


def serve(spec: Spec, address: str | None, ready: Ready) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        if address is None:
            server = await loop.create_server(_Frames, "127.0.0.1", 0)
            ready(str(server.sockets[0].getsockname()[1]))
        else:
            server = await loop.create_unix_server(_Frames, address)
            ready(address)
        await server.serve_forever()

    new_loop().run_until_complete(main())


def connect(spec: Spec, location: str) -> Client:
    async def awaited() -> _Calls:
        loop = asyncio.get_running_loop()
        if location.isdigit():
            return (await loop.create_connection(lambda: _Calls(loop), "127.0.0.1", int(location)))[1]
        return (await loop.create_unix_connection(lambda: _Calls(loop), location))[1]

    def only_awaited(value: Any) -> Any:
        raise NotImplementedError("calls are awaited here")

    return Client(Echo(only_awaited), lambda: None, awaited=awaited)
