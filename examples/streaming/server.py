"""Methods that return generators: the client gets the items one after the other."""

from collections.abc import Iterator

from pyroplug.api import Daemon, expose


@expose
class Sensors:
    def __init__(self) -> None:
        self._made = 0
        self._closed = False

    def readings(self, count: int) -> Iterator[float]:
        try:
            for number in range(count):
                self._made += 1
                yield number / 10
        finally:
            # runs whether the client took all items, stopped in the middle or has gone
            self._closed = True

    def names(self) -> Iterator[str]:
        return iter(["north", "south"])  # any iterator will do

    def made_all(self, count: int) -> bool:
        return self._made == count

    def closed(self) -> bool:
        return self._closed

    def stop(self) -> None:
        daemon.shutdown()


with Daemon() as daemon:
    print(daemon.register(Sensors()), flush=True)
    daemon.requestLoop()
