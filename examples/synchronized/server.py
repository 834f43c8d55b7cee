"""One remote call of an object at a time, without a lock in every method."""

import threading

from pyroplug.api import Daemon, expose, synchronized


class _Register:
    def __init__(self) -> None:
        self._inside = 0
        self._most = 0
        self._change = threading.Condition()

    def _use(self) -> None:
        """Wait a moment for another call to come in."""
        with self._change:
            self._inside += 1
            self._most = max(self._most, self._inside)
            self._change.notify_all()
            self._change.wait_for(lambda: self._most > 1, timeout=0.2)
            self._inside -= 1


@expose
class Open(_Register):
    def use(self) -> None:
        self._use()

    def most_at_a_time(self) -> int:
        return self._most

    def stop(self) -> None:
        daemon.shutdown()


@expose
@synchronized  # on a class: all its remote methods; on a method: those that are marked
class Guarded(_Register):
    def use(self) -> None:
        self._use()

    def most_at_a_time(self) -> int:
        return self._most


with Daemon() as daemon:
    print(daemon.register(Open()), daemon.register(Guarded()), flush=True)
    daemon.requestLoop()
