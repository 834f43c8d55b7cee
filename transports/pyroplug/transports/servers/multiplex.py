"""Server loop ``multiplex``: one thread, strictly one call at a time.

No silent peer can block it: bytes are taken as they come, and a call starts when its request is complete.
A call that takes long makes everybody wait, and a call that waits for another call to the same daemon
waits for ever; that is what "one at a time" means.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from pyroplug.core.connection import Task
from pyroplug.core.dispatch import LATER
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.interfaces import Acceptor, ServerLoop, ServerLoopFactory
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Settings

from ._base import LAST_MOMENT, READ, BaseLoop, Link

__all__ = ["PLUGIN", "MultiplexFactory", "MultiplexLoop"]

PLUGIN = PluginInfo("multiplex", "server loop: one thread, one call at a time")


class MultiplexLoop(BaseLoop):
    """Runs every call in the thread that turns the loop."""

    _current: Task | None = None

    def run(self, condition: Callable[[], bool]) -> None:
        """Serve in this thread."""
        self._turning_thread = threading.get_ident()
        try:
            interval = self._settings.POLLTIMEOUT
            while not self._stop and condition():
                self._turn(min(interval, 1.0))
                self._keep_house()
        finally:
            self._turning_thread = None

    def events(self, ready: Iterable[Any]) -> None:
        """Handle what is ready."""
        self._turning_thread = threading.get_ident()
        try:
            for item in list(ready):
                fd = item if isinstance(item, int) else item.fileno()
                link = self._links.get(fd)
                if link is not None:
                    self._ready(link, READ)
                    continue
                for source in self._listeners:
                    if source.fd == fd:
                        self._accept(source)
            # what belongs to no socket of the caller's: wake-ups, replies that wait, deadlines
            self._turn(0)
            self._keep_house()
        finally:
            self._turning_thread = None

    def held(self) -> list[Acceptor]:
        """The acceptors that wait for the calling thread: all that this loop serves, if it is the one that turns it."""
        turned: BaseLoop = self
        while turned._host is not None:
            turned = turned._host
        if turned._turning_thread != threading.get_ident():
            return []
        loops = [turned]
        for loop in loops:
            loops += loop._others
        return [loop._acceptor for loop in loops]

    def _work_on(self, link: Link, task: Task) -> None:
        link.busy = True
        interrupted = waits = False
        try:
            self._current = task
            message = task.run()
            interrupted = isinstance(getattr(task, "error", None), KeyboardInterrupt)
            waits = message is LATER and not self._left_open(link, task)
            if message is not LATER:
                self._deliver(link, message)
        finally:
            self._current = None
            if not waits:  # otherwise it may be answered, and free, already
                link.busy = False
        if link.out and link.shared is None and link.fd in self._links:
            self._flush(link)
        if interrupted and threading.current_thread() is threading.main_thread():
            # the caller was told; most likely it was Ctrl-C, and that is meant for this program
            raise KeyboardInterrupt

    def _work(self, link: Link) -> None:
        while (task := self._next_task(link)) is not None:
            self._work_on(link, task)
            if link.busy or link.fd not in self._links:
                return

    def _in_threads(self) -> list[Any]:
        return [self._current]

    def _running(self, link: Link) -> bool:
        if link.later or link.shared is not None:
            return super()._running(link)
        # a call that runs in this very thread asked for the end: it cannot be waited for
        return link.busy and self._turning_thread not in (None, threading.get_ident())

    def _drain(self) -> None:
        super()._drain()
        deadline = max(self._deadline, time.monotonic() + LAST_MOMENT)
        while self._turning_thread not in (None, threading.get_ident()) and time.monotonic() < deadline:
            time.sleep(0.001)  # a foreign event loop turns this one: it must not meet a closed poller

    def _keep_house(self) -> None:
        now = time.monotonic()
        if now >= self._next_housekeeping:
            self._next_housekeeping = now + self._settings.POLLTIMEOUT
            for loop in (self, *self._others):
                loop._acceptor.housekeeping()


class MultiplexFactory:
    """Makes multiplex loops."""

    names = ("multiplex",)

    def create(self, acceptor: Acceptor, settings: Settings) -> ServerLoop:
        """A loop for one daemon."""
        return MultiplexLoop(acceptor, settings)


@hookimpl
def pyro_servers() -> list[ServerLoopFactory]:
    """The loop."""
    return [MultiplexFactory()]
