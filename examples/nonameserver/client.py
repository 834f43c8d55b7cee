"""Call the object whose URI the server printed: ``client.py PYRO:...``."""

import sys

from pyroplug.api import Proxy

with Proxy(sys.argv[1]) as thing:
    print("method(42) =", thing.method(42))
    thing.stop()
