"""Threads in which generators go on while what they have made is sent."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

__all__ = ["Ahead"]

log = logging.getLogger("pyroplug.streaming")


class Ahead:
    """Threads in which generators go on while what they have made is sent; started when needed, ended when idle."""

    IDLE_LIFETIME = 5.0

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._threads = 0
        self._idle = 0
        self._jobs: deque[Callable[[], None]] = deque()
        self._change = threading.Condition()
        self._closed = False

    def start(self, job: Callable[[], None]) -> bool:
        """Run a job in a thread that is free now; False when there is none."""
        with self._change:
            if self._closed:
                return False
            if self._idle > len(self._jobs):
                self._jobs.append(job)
                self._change.notify()
                return True
            if self._threads >= self._limit:
                return False
            self._threads += 1
            self._jobs.append(job)
            try:
                threading.Thread(target=self._work, name="pyroplug-stream", daemon=True).start()
            except RuntimeError:  # the system gives no more threads
                self._threads -= 1
                self._jobs.pop()
                return False
            return True

    def _work(self) -> None:
        while True:
            with self._change:
                while not self._jobs:
                    if not self._closed:
                        self._idle += 1
                        woken = self._change.wait(self.IDLE_LIFETIME)
                        self._idle -= 1
                        if woken or self._jobs:
                            continue
                    self._threads -= 1
                    self._change.notify_all()
                    return
                job = self._jobs.popleft()
            try:
                job()
            except BaseException:  # code of the program, closing a generator
                log.exception("a stream failed")
            del job  # it holds a call

    def close(self, timeout: float) -> None:
        """End the threads; what runs gets ``timeout`` seconds."""
        with self._change:
            self._closed = True
            self._change.notify_all()
            if not self._change.wait_for(lambda: self._threads == 0, timeout):
                log.warning("%d generators go on, although the daemon was closed", self._threads)
