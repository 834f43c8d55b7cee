"""A service that does not answer the first two calls of a method."""

import threading

from pyroplug.api import Daemon, expose, idempotent


@expose
class Flaky:
    def __init__(self) -> None:
        self._calls = 0
        self._looks = 0
        self._ending = threading.Event()

    def fetch(self) -> str:
        self._calls += 1
        if self._calls <= 2:
            self._ending.wait(60)  # hangs; the client gives up on it
        return f"fetched by call number {self._calls}"

    @idempotent  # it changes nothing, so it may run twice for one call
    def look(self) -> str:
        self._looks += 1
        if self._looks <= 2:
            self._ending.wait(60)
        return f"seen by call number {self._looks}"

    def stop(self) -> None:
        self._ending.set()
        daemon.shutdown()


with Daemon() as daemon:
    print(daemon.register(Flaky()), flush=True)
    daemon.requestLoop()
