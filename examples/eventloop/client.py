"""Call the daemon in the foreign event loop: ``client.py PYRO:...``."""

import sys

from pyroplug.api import Proxy

with Proxy(sys.argv[1]) as thing, Proxy(sys.argv[1]) as other:
    print("method(42) =", thing.method(42), "and", other.method(21))
    thing.knock()
    while not thing.seen():  # the loop sees the knock in one of its next rounds
        pass
    print("the loop also saw:", thing.seen())
    thing.stop()
