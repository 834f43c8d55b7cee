"""Oneway methods: the client does not wait for them and never hears of their result."""

import threading

from pyroplug.api import Daemon, expose, oneway


@expose
class Logbook:
    def __init__(self) -> None:
        self._lines: list[str] = []
        self._allowed = threading.Event()

    @oneway
    def write(self, line: str) -> str:
        self._allowed.wait(10)  # a slow disk: a normal call would make the client wait here
        self._lines.append(line)
        return "nobody will see this"

    @oneway
    def fail(self) -> None:
        raise RuntimeError("the client will never know; the server logs it")

    def allow(self) -> None:
        self._allowed.set()

    def read(self, count: int) -> list[str]:
        while len(self._lines) < count:  # a oneway call has arrived some time after it was made
            threading.Event().wait(0.01)
        return self._lines

    def stop(self) -> None:
        daemon.shutdown()


with Daemon() as daemon:
    print(daemon.register(Logbook()), flush=True)
    daemon.requestLoop()
