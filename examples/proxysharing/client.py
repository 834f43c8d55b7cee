"""One proxy, many threads: ``client.py PYRO:...``."""

import sys
from concurrent.futures import ThreadPoolExecutor

from pyroplug.api import Proxy

THREADS, CALLS = 8, 200


def work(number: int) -> int:
    """Call through the shared proxy; count the answers that were meant for somebody else."""
    wrong = 0
    for call in range(CALLS):
        if counter.echo([number, call]) != [number, call]:
            wrong += 1
        counter.add(1)
    return wrong


with Proxy(sys.argv[1]) as counter:
    # no owner to claim, no copy for each thread: the calls are under way together on the one connection
    with ThreadPoolExecutor(THREADS) as pool:
        wrong = sum(pool.map(work, range(THREADS)))
    print("wrong answers:", wrong)
    print("calls counted:", counter.add(0))

    # a copy has a connection of its own, and so a session of its own
    with counter.__copy__() as other:
        print("the copy counts too:", other.add(1))
    counter.stop()
