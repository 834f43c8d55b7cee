"""Use an object until its owner drops it: ``client.py PYRO:...``."""

import sys

from pyroplug.api import DaemonError, Proxy

with Proxy(sys.argv[1]) as editor:
    with editor.open("letter") as letter:
        print("title:", letter.title)
        editor.close("letter")
        try:
            print(letter.title)
        except DaemonError as error:
            print("gone:", error)
    editor.stop()
