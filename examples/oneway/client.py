"""Make oneway calls: ``client.py PYRO:...``."""

import sys
import time

from pyroplug.api import Proxy

with Proxy(sys.argv[1]) as logbook:
    begin = time.perf_counter()
    answers = [logbook.write(f"line {number}") for number in range(3)]
    logbook.fail()
    print("answers:", answers)
    print("waited for the slow disk:", time.perf_counter() - begin > 5)

    # other calls of this client are not held up by the ones that still run
    logbook.allow()

    # the oneway calls of one client run in the order in which they were made
    print("written:", logbook.read(3))
    logbook.stop()
