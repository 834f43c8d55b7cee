"""Give calls a time, and give them up: ``client.py PYRO:...``."""

import sys
import time
from collections.abc import Callable

from pyroplug.api import FutureResult, Proxy, TimeoutError, asyncproxy, deadline


def until(condition: Callable[[], bool]) -> bool:
    """The server hears of it a moment later."""
    for _ in range(100):
        if condition():
            return True
        time.sleep(0.05)
    return False


with Proxy(sys.argv[1]) as workshop:
    print("without haste:", workshop.polish(0.1))

    with deadline(60):
        left = workshop.time_left()
        print("the server knows the time:", 0 < left <= 60)

    try:
        with deadline(0.5):  # for both calls together
            workshop.polish(0.1)
            workshop.polish(60)
    except TimeoutError:
        print("not in time")
    print("the server stopped:", until(lambda: "polish: stopped" in workshop.journal()))

    with asyncproxy(workshop) as background:
        drying: FutureResult = background.dry(60)
        while not drying.cancel():  # (it can be cancelled before it begins, and while it is under way)
            time.sleep(0.05)
        print("cancelled:", drying.cancelled())

    workshop.stop()
