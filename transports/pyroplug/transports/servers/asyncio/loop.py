"""The loop behind ``asyncio``: one descriptor for the event loop, which says that something is ready behind it.

The system's poller of the base class (epoll, kqueue) has a descriptor of its own that becomes readable when any of
its sources is ready.  So the event loop watches that one, and everything behind it stays as it is under ``multiplex``:
no transport has to know of asyncio, and any event loop will do that has ``add_reader``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable

from pyroplug.core.errors import ConfigError
from pyroplug.core.interfaces import Acceptor
from pyroplug.core.settings import Settings

from .._base import SWEEP_INTERVAL
from ..multiplex import MultiplexLoop
from . import new_event_loop

__all__ = ["AsyncioLoop"]

log = logging.getLogger("pyroplug.server")


class AsyncioLoop(MultiplexLoop):
    """Serves in the thread of an event loop, one plain method at a time."""

    def __init__(self, acceptor: Acceptor, settings: Settings) -> None:
        super().__init__(acceptor, settings)
        self.event_loop: asyncio.AbstractEventLoop | None = None
        """The event loop that this loop lives in, while it does."""
        self.event_loop_thread: int | None = None
        """The ident of its thread."""
        self._ended: asyncio.Event | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watched = -1

    def run(self, condition: Callable[[], bool]) -> None:
        """Serve in this thread, in a new event loop."""
        loop = new_event_loop(self._settings)
        try:
            asyncio.set_event_loop(loop)
            loop.run_until_complete(self.serve(condition))
        finally:
            asyncio.set_event_loop(None)
            _end(loop)

    async def serve(self, condition: Callable[[], bool] = lambda: True) -> None:
        """Serve in the running event loop until ``condition()`` is false or :meth:`shutdown` is called.

        ``condition`` is asked about every POLLTIMEOUT seconds.

        :raises ConfigError: this kind of event loop cannot watch descriptors (Windows: use a SelectorEventLoop)
        """
        loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._attach(loop)
        try:
            while not self._stop and condition():
                with contextlib.suppress(asyncio.TimeoutError):  # (not TimeoutError's name before 3.11)
                    await asyncio.wait_for(self._ended.wait(), self._settings.POLLTIMEOUT)
            if self._stop:
                await self._let_finish()
        finally:
            self._detach(loop)

    async def _let_finish(self) -> None:
        """Take no further requests; wait for async methods here, because closing waits in the blocking way."""
        for link in list(self._links.values()):
            link.connection.drain()
        while time.monotonic() < self._deadline and any(  # noqa: ASYNC110 - those who end calls know no event loop
            self._running(link) for link in list(self._links.values())
        ):
            await asyncio.sleep(0.005)

    def _drain(self) -> None:
        if self._turning_thread not in (None, threading.get_ident()):
            super()._drain()
            return
        # serve() has waited; here nothing could end any more, because this thread is the event loop's
        for link in list(self._links.values()):
            link.connection.drain()
        self._note_abandoned()

    def _attach(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            self._watched = self._poller.fileno()
        except AttributeError:
            raise ConfigError(
                "the server loop asyncio needs epoll or kqueue, which this process does not have (gevent takes them "
                "away); use SERVERTYPE=thread or multiplex"
            ) from None
        try:
            loop.add_reader(self._watched, self._on_ready)
        except (NotImplementedError, AttributeError) as exc:
            raise ConfigError(
                f"the server loop asyncio cannot live in {type(loop).__name__}, which watches no descriptors; "
                f"use a SelectorEventLoop, or SERVERTYPE=thread, which serves async methods too"
            ) from exc
        self.event_loop = loop
        self.event_loop_thread = self._turning_thread = threading.get_ident()
        self._tick()

    def _detach(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop.remove_reader(self._watched)
        self.event_loop = None
        self.event_loop_thread = self._turning_thread = None

    def _tick(self) -> None:
        """What is to be done even if nothing comes: deadlines and housekeeping."""
        loop = self.event_loop
        if loop is not None:
            interval = min(SWEEP_INTERVAL, self._settings.POLLTIMEOUT)
            self._timer = loop.call_later(self._shorter(interval) if self._greeting else interval, self._tick)
            self._on_ready()
            self._keep_house()

    def _on_ready(self) -> None:
        if self._poller_closed:
            return  # somebody who could not wait for a method of ours to end
        greeting = bool(self._greeting)
        self._turn(0)
        if self._stop and self._ended is not None:
            self._ended.set()
        elif self._greeting and not greeting and self._timer is not None:
            # somebody may have to be sent away before the timer that was set without him
            self._timer.cancel()
            self._tick()


def _end(loop: asyncio.AbstractEventLoop) -> None:
    """Close an event loop of ours, and cancel the tasks that are left in it."""
    try:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=1.0))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
