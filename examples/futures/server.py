"""Methods that take their time."""

import threading

from pyroplug.api import Daemon, expose


@expose
class Observatory:
    def __init__(self) -> None:
        self._all_here = threading.Barrier(3)

    def expose_plate(self, star: str) -> str:
        self._all_here.wait(5)  # done only when three calls run at the same time
        return f"picture of {star}"

    def magnitude(self, star: str) -> float:
        return {"Vega": 0.03, "Deneb": 1.25}[star]

    def stop(self) -> None:
        daemon.shutdown()


with Daemon() as daemon:
    print(daemon.register(Observatory()), flush=True)
    daemon.requestLoop()
