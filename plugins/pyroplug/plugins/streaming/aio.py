"""Item streams for programs that await their calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

from pyroplug.core.daemon import DAEMON_NAME
from pyroplug.core.errors import PyroError
from pyroplug.core.wire import FLAG_ONEWAY, Frame

from .chunks import CHUNK_TIME, CHUNKS, TERMINATED

if TYPE_CHECKING:
    from .client import RemoteIterator

__all__ = ["AsyncRemoteIterator", "Connect"]


def _note_drops(connection: Any) -> None:
    from .client import list_of_dropped  # (which imports this module, where it is needed)

    list_of_dropped(connection)


Connect = Callable[[], Awaitable[Any]]
"""Gives the connection to use, with a coroutine method ``call_in_task`` that has the arguments of ``call``."""


class AsyncRemoteIterator(AsyncIterator[Any]):
    """The items of a remote iterator: ``async for item in proxy.items():``.

    Several tasks may share it.  ``aclose()``, or the end of an ``async with`` block, tells the server that no more
    are wanted, and waits until it has closed its generator.  One that is just dropped is closed with the next call of
    its proxy, or when that is released.
    """

    def __init__(self, items: RemoteIterator, connect: Connect) -> None:
        self._stream = items  # it knows what has come, how much to ask for, and how to be forgotten
        self._connect = connect
        self._lock = asyncio.Lock()

    @property
    def streamId(self) -> str:
        """The id of the stream."""
        return self._stream.streamId

    @property
    def value(self) -> Any:
        """What the generator has returned, once it has ended."""
        return self._stream.value

    def __aiter__(self) -> AsyncRemoteIterator:
        return self

    async def __anext__(self) -> Any:
        stream = self._stream
        async with self._lock:
            while not stream._items:
                if stream._over or stream._closed:
                    raise StopAsyncIteration
                await self._fetch()
            data = stream._items.popleft()
            return data if stream._codec is None else stream._codec.loads(data)

    async def _fetch(self) -> None:
        """Ask for more; afterwards there is something, or the stream is over."""
        stream = self._stream
        try:
            connection = await self._connect()
            _note_drops(connection)
            if CHUNKS in connection.extensions:
                asked = time.monotonic()
                count = stream._useful(asked)
                frame = await self._ask(connection, "get_stream_chunk", stream._position, count, CHUNK_TIME)
                if stream._take_chunk(connection, frame, asked, count):
                    return
            stream._take_item(connection, await self._ask(connection, "get_next_stream_item"))
        except StopIteration as exc:
            stream._end(exc.value)
        except PyroError as exc:
            if str(exc) != TERMINATED:
                stream._failed = True
                raise
            stream._over = True
            if not stream._failed:  # otherwise it has ended with the error that was raised then
                raise

    async def _ask(self, connection: Any, method: str, *args: Any) -> Frame:
        frame: Frame = await connection.call_in_task(DAEMON_NAME, method, (self.streamId, *args), {}, 0, True)
        return frame

    async def aclose(self) -> None:
        """Tell the server that no more items are wanted; safe to call twice."""
        stream = self._stream
        if stream._closed:
            return
        async with self._lock:
            stream._closed = True
            stream._items.clear()
            if stream._over:
                return
            connection = await self._connect()
            flags = 0 if CHUNKS in connection.extensions else FLAG_ONEWAY
            await connection.call_in_task(DAEMON_NAME, "close_stream", (self.streamId,), {}, flags)

    async def __aenter__(self) -> AsyncRemoteIterator:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return repr(self._stream).replace("RemoteIterator", "AsyncRemoteIterator")
