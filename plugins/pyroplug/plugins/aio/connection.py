"""A client's connection in an event loop: the same states, numbers and plans, with other ways to wait.

The connection is made and greeted in a thread, in the blocking way, because resolving, connecting, layers and the
handshake of plugins may all take their time.  Then :meth:`AsyncConnection.attach` moves it into the event loop:
from there on bytes are received when the loop says so, and each waiter is a future instead of a lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import Any

from pyroplug.core.call import Call
from pyroplug.core.connection import ClientConnection
from pyroplug.core.errors import (
    CommunicationError,
    ConfigError,
    ConnectionClosedError,
    LocalProtocolError,
    TimeoutError,
)
from pyroplug.core.exchange import Lost, Waiter
from pyroplug.core.interfaces import Buffer
from pyroplug.core.wire import FLAG_ONEWAY, INVOKE, NO_CORRELATION, RESULT, Frame, Message, encode

__all__ = ["AsyncConnection"]

LAST_WORDS = 1.0
"""Seconds that what is still to be sent gets when the connection is closed."""


class FutureWaiter(Waiter):
    """Somebody who awaits an answer."""

    __slots__ = ("future",)

    def __init__(self, kind: int, future: asyncio.Future[None]) -> None:
        super().__init__(kind)
        self.future = future

    def wake(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


class AsyncConnection(ClientConnection):
    """Calls are made by tasks of one event loop, any number of them together where the server agreed."""

    blocking = False
    _loop: asyncio.AbstractEventLoop | None = None
    _beating: asyncio.TimerHandle | None = None

    # ----------------------------------------------------------------- in and out of the event loop
    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Live in this event loop from now on.

        :raises ConfigError: it cannot watch descriptors
        """
        self.stream.settimeout(0)
        self._out: deque[memoryview] = deque()
        self._one = asyncio.Lock()
        self._room = asyncio.Semaphore(self._limit)
        try:
            loop.add_reader(self.stream.fileno(), self._on_readable)
        except (NotImplementedError, AttributeError) as exc:
            raise ConfigError(
                f"AsyncProxy cannot live in {type(loop).__name__}, which watches no descriptors; use a SelectorEventLoop"
            ) from exc
        self._loop = loop
        if self.reader.partial:
            loop.call_soon(self._on_readable)

    def settimeout(self, seconds: float | None) -> None:
        """How long a call may take from now on (seconds; None: no limit)."""
        if self._loop is None:
            super().settimeout(seconds)
        self.timeout = seconds  # the stream never waits

    def _break(self, error: CommunicationError) -> None:
        loop, self._loop = self._loop, None
        if loop is None or loop.is_closed():
            super()._break(error)
        elif loop is _running_loop():
            self._detach(loop)
            super()._break(error)
        else:  # a finalizer, in some thread: the event loop has to forget the descriptor first
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._break_in, loop, error)

    def forsaken(self) -> None:
        """As in Exchange; the event loop has to forget the descriptor."""
        self.close()

    def _break_in(self, loop: asyncio.AbstractEventLoop, error: CommunicationError) -> None:
        self._detach(loop)
        super()._break(error)

    def _detach(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._beating is not None:
            self._beating.cancel()
            self._beating = None
        fd = self.stream.fileno()
        if fd >= 0:
            loop.remove_reader(fd)
            loop.remove_writer(fd)

    def release(self) -> None:
        """Hang up on purpose: plugins may send something first."""
        self.released()
        if self._loop is not None and self._out:
            with contextlib.suppress(OSError):
                self.stream.settimeout(LAST_WORDS)
                while self._out:
                    part = self._out.popleft()
                    sent = self.stream.send(part)
                    if sent < len(part):
                        self._out.appendleft(part[sent:])
        self.close()

    # ----------------------------------------------------------------- bytes
    def _on_readable(self) -> None:
        try:
            while True:
                frame = self.reader.next_frame()
                if frame is not None:
                    self._hand_out(frame)
                elif not self._receive_some():
                    return
        except CommunicationError as exc:
            self._break(exc)
        except OSError as exc:
            self._break(self._translated(exc))

    def _receive_some(self) -> bool:
        """Receive once; False when nothing is there."""
        if self._loop is None:
            return False
        try:
            self._receive()
        except BlockingIOError:
            return False
        return True

    def _beat_on(self) -> None:
        """Show the server that this side is there, as long as a task waits."""
        loop, pulse, self._beating = self._loop, self._pulse, None
        if loop is None or pulse is None or not self._others_wait():
            return
        try:
            self._beat(pulse)
        except CommunicationError as exc:
            self._break(exc)
        else:
            if self._loop is not None:
                self._beating = loop.call_later(pulse.interval, self._beat_on)

    def _send(self, message: Message) -> None:
        if self._loop is None:
            super()._send(message)
            return
        parts: tuple[Buffer, ...] = (message,) if isinstance(message, bytes) else message
        self._out.extend(memoryview(part) for part in parts)
        if len(self._out) == len(parts):  # nobody else waits for the peer to take something
            self._flush()
        if self.failure is not None:
            raise Lost(ConnectionClosedError(str(self.failure)))

    def _flush(self) -> None:
        out, loop = self._out, self._loop
        if loop is None:
            return
        try:
            while out:
                part = out[0]
                sent = self.stream.send(part)
                if sent == len(part):
                    out.popleft()
                else:
                    out[0] = part[sent:]
            loop.remove_writer(self.stream.fileno())
        except BlockingIOError:
            loop.add_writer(self.stream.fileno(), self._flush)
        except OSError as exc:
            self._break(self._translated(exc, sending=True))

    # ----------------------------------------------------------------- calls
    async def call_in_task(
        self, object_id: str, method: str, args: Any, kwargs: Any, flags: int = 0, raw: bool = False
    ) -> Any:
        """As ``call``, for tasks of the event loop.

        :raises Lost: it failed on the way
        """
        serializer_id = self.serializer_id
        annotations: Any = None
        correlation = NO_CORRELATION
        expires: float | None = None
        call: Call | None = None
        if self._plain and not (len(args) == 1 and type(args[0]) in self._arguments) and not self._probed():
            payload = self._dumps_call(object_id, method, args, kwargs)
        else:
            call = Call(self, self.plan, serializer_id, flags, 0, None)
            call.object_id, call.method, call.args, call.kwargs = object_id, method, args, kwargs
            self.prepare(call)
            payload, flags, serializer_id = call.payload, call.flags, call.serializer_id
            annotations, correlation, expires = call.annotations, call.correlation, call.expires
        if flags & FLAG_ONEWAY:
            self.post(INVOKE, serializer_id, flags, payload, annotations, correlation)
            return None
        async with self._room if self.overlapping else self._one:
            self._may_send()
            number = self._number()
            message = encode(INVOKE, serializer_id, flags, number, payload, annotations, correlation, self._max_size)
            frame = await self._answer(number, message, expires)
        return self.complete(frame, serializer_id, method, call, raw)

    def _probed(self) -> bool:
        return any(probe() is not None for probe in self._probes)

    async def _answer(self, number: int, message: Message, expires: float | None) -> Frame:
        loop = self._loop
        if loop is None:
            raise LocalProtocolError("this connection belongs to no event loop")
        waiter = self._waiters[number] = FutureWaiter(RESULT, loop.create_future())
        waiter.number = number
        seconds = self.timeout
        if expires is not None:
            left = max(0.0, expires - time.monotonic())
            seconds = left if seconds is None else min(seconds, left)
        heard = self._heard
        timer: asyncio.TimerHandle | None = None
        try:
            self._send(message)
            if self._pulse is not None and self._beating is None:
                self._beating = loop.call_later(self._pulse.interval, self._beat_on)
            if seconds is not None:
                timer = loop.call_later(seconds, waiter.wake)
            await waiter.future
        except BaseException:
            # the task was cancelled.  The number is not used again before its answer has come, which nobody gets
            self._forget(waiter)
            if not self.overlapping:
                self._break(CommunicationError(f"the call to {self.peer} was cancelled"))
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if waiter.error is None and waiter.frame is None:
            self._forget(waiter)
            error = TimeoutError(f"receiving: timeout, {self.peer} did not answer in time")
            if not self.overlapping:
                self._break(error)
            elif heard == self._heard:
                self.retire()  # for all we know the server is dead: the next call finds out, the others may wait
            waiter.error = error
        if self._retired:
            waiter.wanted = False
            self._close_if_idle()
        if waiter.frame is None:
            assert waiter.error is not None
            raise Lost(waiter.error)
        return waiter.frame

    def _forget(self, waiter: FutureWaiter) -> None:
        if self.failure is None and waiter.frame is None:
            self._tell_given_up(waiter.number)
        waiter.wanted = False

    def note(self, kind: int, serializer_id: int, number: int) -> bool:
        """Send a small message about another one, whose number it has; False if it does not go."""
        try:
            self._send(encode(kind, serializer_id, 0, number, b""))
        except Lost:
            return False
        return True


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
