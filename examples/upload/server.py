"""A method that takes items as the client makes them, and is done with each before it asks for more."""

from collections.abc import Iterator

from pyroplug.api import Daemon, expose


@expose
class Meter:
    def mean(self, readings: Iterator[float]) -> float:
        """As many as there are: they are never all in memory."""
        total = count = 0.0
        for reading in readings:
            total, count = total + reading, count + 1
        return total / count

    def first_above(self, limit: float, readings: Iterator[float]) -> float:
        """Leaves the rest alone."""
        return next(reading for reading in readings if reading > limit)

    def stop(self) -> None:
        daemon.shutdown()


with Daemon() as daemon:
    print(daemon.register(Meter()), flush=True)
    daemon.requestLoop()
