"""Synchronized objects: their remote calls run one at a time."""

import time

from pyroplug.api import Daemon, expose, synchronized


@expose
class Careless:
    def __init__(self) -> None:
        self._balance = 0

    def deposit(self, amount: int) -> None:
        balance = self._balance
        time.sleep(0.02)  # meanwhile somebody else may do the same
        self._balance = balance + amount

    @property
    def balance(self) -> int:
        return self._balance


@expose
@synchronized  # holds for what is inherited, too
class Careful(Careless):
    def stop(self) -> None:
        daemon.shutdown()


with Daemon() as daemon:
    print(daemon.register(Careless()), daemon.register(Careful()), flush=True)
    daemon.requestLoop()
