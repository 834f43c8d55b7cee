"""``async def`` methods: the client waits for the result, no thread of the server does.

They run as tasks in one event loop: the one that the daemon lives in (server loop ``asyncio``), otherwise one in a
thread of the daemon's own (EVENT_LOOP), made when the first such method is called.
Any number of them run at a time, beside plain methods, which stay where the server loop runs them: so what both
kinds touch must be safe to use from two threads, except under ``asyncio``, where there is only one.

``current_context`` and everything else that belongs to a call is right inside the task.  A task that waits in the
blocking way (``time.sleep``, a plain proxy) holds up all others; there is ``AsyncProxy`` for the latter.

The call of a client that has gone runs to its end, as with plain methods.  When the daemon is closed, what has not
ended after SHUTDOWN_TIMEOUT seconds is cancelled.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Coroutine
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from pyroplug.core.dispatch import LATER, Later, Request
from pyroplug.core.errors import PyroError
from pyroplug.core.hookspecs import hookimpl, steady
from pyroplug.core.plan import Steps
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.stash import StashKey
from pyroplug.transports.servers.asyncio import new_event_loop

if TYPE_CHECKING:
    import asyncio

__all__ = ["PLUGIN", "TASKS", "Tasks"]

PLUGIN = PluginInfo("coroutines", "async def methods", requires=("asyncio",))

LAST_WORDS = 1.0
"""Seconds that cancelled methods get to clean up when the daemon is closed."""


class Tasks:
    """The tasks of one daemon, and their event loop."""

    def __init__(self, daemon: Any) -> None:
        self._server_loop = daemon.transportServer
        self._settings = daemon.kernel.settings
        self._lock = threading.Lock()
        self._own: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._running: set[asyncio.Task[Any]] = set()
        """Changed in the thread of the event loop only."""

    def start(self, request: Request, coroutine: Coroutine[Any, Any, Any]) -> Later:
        """Run a coroutine and answer the request with its result.

        :raises PyroError: the daemon is being closed
        """
        # in the caller's context, where current_call is the request
        context = copy_context()

        def begin() -> None:
            # create_task has a parameter for the context only since Python 3.11
            task: asyncio.Task[Any] = context.run(loop.create_task, coroutine)
            self._running.add(task)
            task.add_done_callback(lambda done: self._done(request, done))
            request.when_stopped(lambda: _cancel(loop, task))

        try:
            loop = self._loop()
            if getattr(self._server_loop, "event_loop_thread", None) == threading.get_ident():
                begin()
            else:
                loop.call_soon_threadsafe(begin)
        except BaseException:
            coroutine.close()  # or there would be a warning that it never ran
            raise
        return LATER

    def _loop(self) -> asyncio.AbstractEventLoop:
        of_server: asyncio.AbstractEventLoop | None = getattr(self._server_loop, "event_loop", None)
        if of_server is not None:
            return of_server
        with self._lock:
            if self._closed:
                raise PyroError("the daemon is being closed: async methods are not started any more")
            if self._own is None:
                self._own = loop = new_event_loop(self._settings)
                self._thread = threading.Thread(target=_turn, args=(loop,), name="pyroplug-coroutines", daemon=True)
                self._thread.start()
            return self._own

    def _done(self, request: Request, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if task.cancelled():
            request.fail(PyroError(f"{request.object_id}.{request.method} was cancelled on the server"))
            return
        error = task.exception()
        if error is None:
            request.finish(task.result())
        else:
            request.fail(error)

    def close(self) -> None:
        """Cancel what still runs, and end the thread; what resists for a second is left alone."""
        with self._lock:
            self._closed = True
            loop, thread = self._own, self._thread
        if loop is None or thread is None:
            for task in list(self._running):
                with contextlib.suppress(RuntimeError):  # the event loop has ended, and cancelled all by itself
                    task.get_loop().call_soon_threadsafe(task.cancel)
            return

        async def cancel() -> None:
            import asyncio

            for task in list(self._running):
                task.cancel()
            if self._running:
                await asyncio.wait(self._running, timeout=LAST_WORDS)
            loop.stop()

        loop.call_soon_threadsafe(lambda: self._stopping(loop.create_task(cancel())))
        if thread is not threading.current_thread():
            thread.join()

    def _stopping(self, task: asyncio.Task[None]) -> None:
        self._last = task  # an event loop keeps no strong reference


def _cancel(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
    with contextlib.suppress(RuntimeError):  # the event loop was closed
        loop.call_soon_threadsafe(task.cancel)


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    import asyncio

    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


TASKS = StashKey[Tasks]()
"""Where a daemon has its tasks."""


def answer_later(call: Request, coroutine: Coroutine[Any, Any, Any]) -> Later:
    """Results adapter: what a method returned is to be awaited first."""
    daemon = call.connection.endpoint.daemon
    if TASKS not in daemon.stash:
        daemon.stash.setdefault(TASKS, Tasks(daemon))
    tasks: Tasks = daemon.stash[TASKS]
    return tasks.start(call, coroutine)


_SERVER = Steps(results=[(Coroutine, answer_later)])


@hookimpl
@steady
def pyro_bind(connection: Any) -> Steps | None:
    """Coroutines as results are awaited."""
    return _SERVER if connection.side == "server" else None


@hookimpl
def pyro_daemon_closed(daemon: Any) -> None:
    """End what still runs."""
    tasks = daemon.stash.pop(TASKS, None)
    if tasks is not None:
        tasks.close()
