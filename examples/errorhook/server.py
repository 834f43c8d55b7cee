"""Be told of every exception that a method raises, on the server."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pyroplug.api import Daemon, expose, oneway


@expose
class Thing:
    def divide(self, a: float, b: float) -> float:
        return a / b

    @oneway
    def forget(self) -> None:
        raise RuntimeError("nobody waits for this")

    def stop(self) -> None:
        daemon.shutdown()


def report(
    daemon: Daemon, client: Any, method: str, args: Sequence[Any], kwargs: Mapping[str, Any], error: BaseException
) -> None:
    """Must be quick and may be called by several threads; if it fails, that is logged and nothing else."""
    sys.stdout.write(f"{method}{tuple(args)} raised {type(error).__name__}: {error}\n")


with Daemon() as daemon:
    daemon.methodcall_error_handler = report
    print(daemon.register(Thing()), flush=True)
    daemon.requestLoop()
