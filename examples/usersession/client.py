"""Two users of the same object: ``client.py PYRO:...``."""

import sys

from pyroplug.api import Proxy

with Proxy(sys.argv[1]) as emmas, Proxy(sys.argv[1]) as ottos:
    emmas._pyroHandshake, ottos._pyroHandshake = "Emma", "Otto"
    emmas.put("pear")
    ottos.put("plum")
    emmas.put("kiwi")
    print(emmas.basket())
    print(ottos.basket())
    ottos._pyroRelease()  # the session goes with the connection
    print(ottos.basket())
    ottos.stop()
