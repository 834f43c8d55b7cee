"""Registered classes: the daemon makes the instances, and the mode says how many."""

import itertools

from pyroplug.api import Daemon, behavior, expose

numbers = itertools.count(1)


class Numbered:
    """Exposed in each class below: a class exposes only what it defines itself."""

    def __init__(self) -> None:
        self._number = next(numbers)
        self._calls = 0


@expose
@behavior(instance_mode="single")
class Single(Numbered):
    def call(self) -> tuple[int, int]:
        self._calls += 1
        return self._number, self._calls


@expose
@behavior(instance_mode="session")  # this is what classes without @behavior get
class Session(Numbered):
    def call(self) -> tuple[int, int]:
        self._calls += 1
        return self._number, self._calls


@expose
@behavior(instance_mode="percall")
class PerCall(Numbered):
    def call(self) -> tuple[int, int]:
        self._calls += 1
        return self._number, self._calls


def create_tuned(cls: type["Tuned"]) -> "Tuned":
    return cls("made by the creator")


@expose
@behavior(instance_mode="single", instance_creator=create_tuned)  # for constructors that need arguments
class Tuned:
    def __init__(self, text: str) -> None:
        self._text = text

    def call(self) -> str:
        return self._text

    def stop(self) -> None:
        daemon.shutdown()


with Daemon() as daemon:
    print(*(daemon.register(cls) for cls in (Single, Session, PerCall, Tuned)), flush=True)
    daemon.requestLoop()
