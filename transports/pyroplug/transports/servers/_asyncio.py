"""The loop behind ``asyncio``: one descriptor for the event loop, which says that something is ready behind it.

The system's poller of the base class (epoll, kqueue) has a descriptor of its own that becomes readable when any of
its sources is ready.  So the event loop watches that one, and everything behind it stays as it is under ``multiplex``:
no transport has to know of asyncio, and any event loop will do that has ``add_reader``.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from pyroplug.core.errors import ConfigError
from pyroplug.core.interfaces import Acceptor
from pyroplug.core.settings import Settings

from ._base import SWEEP_INTERVAL
from .multiplex import MultiplexLoop

__all__ = ["AsyncioLoop", "run_in_event_loop"]


def run_in_event_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run to the end in a new event loop: uvloop's where that is installed, asyncio's otherwise."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


class AsyncioLoop(MultiplexLoop):
    """Serves in the thread of an event loop, one plain method at a time."""

    def __init__(self, acceptor: Acceptor, settings: Settings) -> None:
        super().__init__(acceptor, settings)
        self.event_loop: asyncio.AbstractEventLoop | None = None
        """The event loop that this loop lives in, while it does."""
        self._ended: asyncio.Event | None = None
        self._timer: asyncio.TimerHandle | None = None

    def run(self, condition: Callable[[], bool]) -> None:
        """Serve in this thread, in a new event loop."""
        run_in_event_loop(self.serve(condition))

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
        finally:
            self._detach(loop)

    def _attach(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            loop.add_reader(self._poller.fileno(), self._on_ready)
        except (NotImplementedError, AttributeError) as exc:
            raise ConfigError(
                f"the server loop asyncio cannot live in {type(loop).__name__}, which watches no descriptors; "
                f"use a SelectorEventLoop, or SERVERTYPE=thread, which serves async methods too"
            ) from exc
        self.event_loop = loop
        self._turning_thread = threading.get_ident()
        self._tick()

    def _detach(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop.remove_reader(self._poller.fileno())
        self.event_loop = None
        self._turning_thread = None

    def _tick(self) -> None:
        """What is to be done even if nothing comes: deadlines and housekeeping."""
        loop = self.event_loop
        if loop is not None:
            interval = min(SWEEP_INTERVAL, self._settings.POLLTIMEOUT)
            self._timer = loop.call_later(self._shorter(interval) if self._greeting else interval, self._tick)
            self._on_ready()
            self._keep_house()

    def _on_ready(self) -> None:
        greeting = bool(self._greeting)
        self._turn(0)
        if self._stop and self._ended is not None:
            self._ended.set()
        elif self._greeting and not greeting and self._timer is not None:
            # somebody may have to be sent away before the timer that was set without him
            self._timer.cancel()
            self._tick()
