"""Oneway methods: the client does not wait for them and never hears of their result."""

import threading

from pyroplug.api import Daemon, expose, oneway


@expose
class Logbook:
    def __init__(self) -> None:
        self._lines: list[str] = []
        self._change = threading.Condition()
        self._allowed = threading.Event()

    @oneway
    def write(self, line: str) -> str:
        self._allowed.wait(10)  # a slow disk: a normal call would make the client wait here
        with self._change:
            self._lines.append(line)
            self._change.notify_all()
        return "nobody will see this"

    @oneway
    def fail(self) -> None:
        raise RuntimeError("the client will never know; the server logs it")

    def allow(self) -> None:
        self._allowed.set()

    def read(self, count: int) -> list[str]:
        """The lines, once there are so many: a oneway call runs some time after it was made."""
        with self._change:
            self._change.wait_for(lambda: len(self._lines) >= count, timeout=5)
            return self._lines

    def stop(self) -> None:
        daemon.shutdown()


with Daemon() as daemon:
    print(daemon.register(Logbook()), flush=True)
    daemon.requestLoop()
