"""One asynchronous iterator on the server, and who may run it when."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from pyroplug.core.call import Call
from pyroplug.core.dispatch import Request
from pyroplug.plugins.streaming import CHUNK_BYTES, Item, Stream, Streams

__all__ = ["AsyncStream"]

log = logging.getLogger("pyroplug.streaming")


class AsyncStream(Stream):
    """An asynchronous iterator that a client fetches from.

    The iterator, and what waits for it, lives in one event loop.  Only :meth:`end` is called from other threads too.
    """

    def __init__(self, iterator: AsyncIterator[Any], now: float) -> None:
        super().__init__(iter(()), now)
        self._iterator: Any = iterator
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._answering = asyncio.Lock()
        self._news = asyncio.Event()

    # ------------------------------------------------------------------------- answering
    async def answer_item(self, call: Request, streams: Streams) -> Any:
        """As in Stream."""
        async with self._answering:
            try:
                await self._ready_or_over(call, 1, 0.0)
                with self._change:
                    return self._take_item()
            except StopIteration as exc:  # which a coroutine cannot raise
                call.fail(exc)
            finally:
                streams.settle(self)

    async def answer_chunk(self, call: Request, streams: Streams, position: int, count: int, seconds: float) -> None:
        """As in Stream."""
        async with self._answering:
            try:
                with self._change:
                    self._acknowledge(position)
                await self._ready_or_over(call, count, seconds)
                with self._change:
                    call.reply_payload = self._take(call, count)
            finally:
                streams.settle(self)

    async def _ready_or_over(self, call: Call, count: int, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        with self._change:
            self._loop = loop
            if not (self._ready or self._running or self._iterator is None):
                self._running = True
                self._task = loop.create_task(self._make(call, count, seconds))
        task = self._task
        if (
            task is not None and count > 1
        ):  # it may take its time; then it is not waited for if there is anything to send
            await asyncio.wait({task}, timeout=seconds)
        while self._running and not self._ready:
            self._news.clear()
            await self._news.wait()

    async def _make(self, call: Call, count: int, seconds: float) -> None:
        """Make items until there are enough, or they are large enough, or it took long enough."""
        deadline = time.monotonic() + seconds
        size = 0
        try:
            while len(self._ready) < count and size < CHUNK_BYTES and not self._doomed:
                try:
                    item = Item.made(call, await self._iterator.__anext__())
                except StopAsyncIteration:
                    self._ended(StopIteration())
                    return
                except BaseException as exc:  # code of the program, or cancelled
                    self._ended(exc)
                    return
                size += len(item.data)
                self._ready.append(item)
                self._news.set()
                if time.monotonic() >= deadline:
                    return
        finally:
            self._task = None
            self._release()
            self._news.set()

    # ------------------------------------------------------------------------- the end
    def end(self) -> None:
        """Cancel the iterator where it waits, and close it; from any thread, and without waiting for that."""
        with self._change:
            self._doomed = True
            loop = self._loop
            if self._running:
                action: Any = self._cancel
            else:
                iterator, self._iterator = self._iterator, None
                self._ready.clear()
                self._sent.clear()
                if not isinstance(iterator, AsyncGenerator):
                    return
                action = lambda: self._close(iterator)  # noqa: E731
        if loop is not None:  # otherwise it has never been started
            with contextlib.suppress(RuntimeError):  # the event loop has ended, and closes what is left in it
                loop.call_soon_threadsafe(action)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _close(self, iterator: AsyncGenerator[Any, None]) -> None:
        async def close() -> None:
            try:
                await iterator.aclose()
            except Exception:  # code of the program
                log.exception("a generator failed while it was closed")

        self._task = asyncio.ensure_future(close())  # (kept: an event loop has no strong reference)
