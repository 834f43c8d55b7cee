"""Item streams: methods and properties that return iterators or generators."""

from collections.abc import Iterator

from pyroplug.api import Daemon, expose


@expose
class Numbers:
    def fibonacci(self) -> Iterator[int]:
        """Never ends by itself; only what the client asks for is made."""
        a, b = 0, 1
        try:
            while True:
                yield a
                a, b = b, a + b
        finally:
            # also when the client has lost interest, or is gone
            print("fibonacci: finished", flush=True)

    def squares(self, count: int) -> Iterator[int]:
        return (number * number for number in range(count))

    def countdown(self, start: int) -> Iterator[int]:
        while start:
            yield start
            start -= 1
        raise RuntimeError("too late")

    @property
    def letters(self) -> Iterator[str]:
        return iter("abc")

    def stop(self) -> None:
        daemon.shutdown()


with Daemon() as daemon:
    print(daemon.register(Numbers()), flush=True)
    daemon.requestLoop()
