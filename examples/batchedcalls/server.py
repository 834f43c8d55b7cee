"""Something to call many times; batches need nothing from the server's methods."""

from pyroplug.api import Daemon, expose


@expose
class Calculator:
    def __init__(self) -> None:
        self._calls = 0

    def add(self, a: float, b: float) -> float:
        self._calls += 1
        return a + b

    def divide(self, a: float, b: float) -> float:
        self._calls += 1
        return a / b

    def calls(self) -> int:
        return self._calls

    def stop(self) -> None:
        daemon.shutdown()


with Daemon() as daemon:
    print(daemon.register(Calculator()), flush=True)
    daemon.requestLoop()
