"""A slow method, for a client that will not wait for it."""

import threading

from pyroplug.api import Daemon, expose


@expose
class Oracle:
    def __init__(self) -> None:
        self._hurry = threading.Event()

    def ask(self, seconds: float) -> str:
        self._hurry.wait(seconds)
        return "42"

    def hurry(self) -> None:
        self._hurry.set()

    def stop(self) -> None:
        daemon.shutdown()


with Daemon() as daemon:
    print(daemon.register(Oracle()), flush=True)
    daemon.requestLoop()
