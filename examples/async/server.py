"""A calculator that can be made to wait."""

import threading

from pyroplug.api import Daemon, expose


@expose
class Calculator:
    def __init__(self) -> None:
        self._open = threading.Event()

    def add(self, a: int, b: int) -> int:
        return a + b

    def divide(self, a: int, b: int) -> float:
        return a / b

    def when_open(self, a: int, b: int) -> int:
        self._open.wait(5)
        return a * b

    def open(self) -> None:
        self._open.set()

    def stop(self) -> None:
        daemon.shutdown()


with Daemon() as daemon:
    print(daemon.register(Calculator()), flush=True)
    daemon.requestLoop()
