"""Chains of calls, error handlers, tasks and batches in the background: ``client.py PYRO:...``."""

import asyncio
import sys
import threading

from pyroplug.api import BatchProxy, Proxy, asyncproxy

with Proxy(sys.argv[1]) as calculator, asyncproxy(calculator) as background:
    # the call is under way, and here the program goes on
    result = background.when_open(6, 7)
    print("ready at once:", result.ready, result.wait(timeout=0.01))

    # what is to be done with the value; each step gets what the one before returned
    result.then(background.add, 8).then(lambda inner: inner.value).then(print, "is the end of the chain")
    calculator.open()
    result.wait()

    # errors are silent until somebody asks for the value, or wants to hear of them
    heard = threading.Event()
    failed = background.divide(1, 0)
    failed.iferror(lambda error: print("error handler:", error)).iferror(lambda error: heard.set())
    heard.wait(5)

    # results are concurrent.futures.Future objects, and tasks can await them
    async def program() -> None:
        print("awaited:", await asyncio.gather(*(background.add(number, 1) for number in range(3))))

    asyncio.run(program())

    # a whole batch in the background
    batch = BatchProxy(calculator)
    batch.add(1, 1)
    batch.add(2, 2)
    print("batch:", list(batch(asynchronous=True).value))
    calculator.stop()
