"""Make calls that fail: ``client.py PYRO:...``; see what the server prints."""

import sys

from pyroplug.api import Proxy

with Proxy(sys.argv[1]) as thing:
    thing.forget()
    try:
        thing.divide(1, 0)
    except ZeroDivisionError as error:
        print("the client gets the exception as ever:", error)
    thing.stop()
