"""Have calls repeated when the connection broke or timed out: ``client.py PYRO:...``."""

import sys

from pyroplug.api import Proxy, TimeoutError

with Proxy(sys.argv[1]) as flaky:
    flaky._pyroTimeout = 0.3

    # by default nothing is repeated: nobody knows whether the call that was lost was executed
    try:
        flaky.fetch()
    except TimeoutError:
        print("no retries: TimeoutError")

    # for methods that may safely run twice (PYRO_MAX_RETRIES sets it for all proxies)
    flaky._pyroMaxRetries = 3
    print("with retries:", flaky.fetch())

    # methods that the server declares idempotent are repeated anyway, with growing pauses; for other
    # servers' methods say it here: flaky._pyroIdempotent = {"look"}
    flaky._pyroMaxRetries = 0
    print("idempotent:", flaky.look())
    flaky.stop()
