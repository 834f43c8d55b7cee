"""Something for many threads to call."""

import threading

from pyroplug.api import Daemon, expose


@expose
class Counter:
    def __init__(self) -> None:
        # calls of different connections run at the same time: protect what they share
        self._lock = threading.Lock()
        self._value = 0

    def add(self, amount: int) -> int:
        with self._lock:
            self._value += amount
            return self._value

    def echo(self, value: object) -> object:
        return value

    def stop(self) -> None:
        daemon.shutdown()


with Daemon() as daemon:
    print(daemon.register(Counter()), flush=True)
    daemon.requestLoop()
