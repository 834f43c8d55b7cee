"""What commands that serve share: an end by signal that is an orderly one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["until_signal"]


@contextmanager
def until_signal(stop: Callable[[], object]) -> Iterator[list[int]]:
    """Call ``stop`` on SIGINT and SIGTERM; the list has the signals that came.

    Only the main thread can have that; elsewhere nothing is done.
    """
    import signal  # of no use to all who only have a plugin with such a command loaded

    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def handle(number: int, frame: object) -> None:
        came.append(number)
        stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
