"""Limit how long calls may take: ``client.py PYRO:...``."""

import sys

from pyroplug.api import Kernel, Proxy, TimeoutError

with Proxy(sys.argv[1]) as oracle:
    oracle._pyroTimeout = 0.3  # seconds, for each call of this proxy
    print("quick:", oracle.ask(0))
    try:
        oracle.ask(60)
    except TimeoutError as error:
        print("too slow:", error)

    # the late reply can no longer be mistaken for that of another call: the connection was given up,
    # and the next call opens a new one
    print("connected:", oracle._pyroConnection is not None)
    oracle.hurry()
    print("next call:", oracle.ask(60))

# PYRO_COMMTIMEOUT sets it for all proxies; in code it is a setting of the kernel they belong to
impatient = Kernel(settings={"COMMTIMEOUT": 2.0})
with Proxy(sys.argv[1], kernel=impatient) as oracle:
    print("timeout of this kernel's proxies:", oracle._pyroTimeout)
    oracle.stop()
