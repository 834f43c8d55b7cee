"""Many calls in one message: ``client.py PYRO:...``."""

import sys

from pyroplug.api import BatchProxy, Proxy

with Proxy(sys.argv[1]) as calculator:
    batch = BatchProxy(calculator)
    for number in range(5):
        batch.add(number, 10)  # only noted down
    print("made so far:", calculator.calls())

    # one round trip for all of them; the results come in the order of the calls
    print("results:", list(batch()))

    # the first error ends a batch: it is raised where its result would have been, the rest is not called
    batch.add(1, 1)
    batch.divide(1, 0)
    batch.add(2, 2)
    results = batch()
    print("first:", next(results))
    try:
        next(results)
    except ZeroDivisionError as error:
        print("second:", error)
    print("calls made in all:", calculator.calls())
    calculator.stop()
