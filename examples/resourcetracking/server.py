"""Give back what a client has taken, however the client ends."""

import threading

from pyroplug.api import Daemon, current_context, expose


class Lock:
    """A resource: anything with ``close()``."""

    def __init__(self, name: str) -> None:
        self.name = name

    def close(self) -> None:
        with instruments.change:
            instruments.taken.pop(self.name, None)
            instruments.change.notify_all()


@expose
class Instruments:
    def __init__(self) -> None:
        self.change = threading.Condition()
        self.taken: dict[str, Lock] = {}

    def take(self, name: str) -> None:
        lock = self.taken[name] = Lock(name)
        # closed when the connection of this client ends: in order, by a crash, by a timeout, at shutdown.
        # Resources are referred to weakly, so keep them somewhere
        current_context.track_resource(lock)

    def in_use(self) -> list[str]:
        return sorted(self.taken)

    def wait_until_free(self, name: str) -> bool:
        with self.change:
            return self.change.wait_for(lambda: name not in self.taken, timeout=5)

    def stop(self) -> None:
        daemon.shutdown()


instruments = Instruments()
with Daemon() as daemon:
    print(daemon.register(instruments), flush=True)
    daemon.requestLoop()
