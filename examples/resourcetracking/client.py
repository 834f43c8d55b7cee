"""Leave without cleaning up: ``client.py PYRO:...``."""

import subprocess
import sys

from pyroplug.api import Proxy

CRASHING = "import os, sys; from pyroplug.api import Proxy; p = Proxy(sys.argv[1]); p.dial(111); os._exit(1)"

with Proxy(sys.argv[1]) as exchange:
    with Proxy(sys.argv[1]) as other:
        other.dial(555)
        other.dial(777)
        other.hang_up(555)
        print("lines in use:", exchange.busy())
    # that client has gone, and its lines with it
    print("free again:", exchange.wait_until_free())

    # the same holds for a client that crashes
    subprocess.run([sys.executable, "-c", CRASHING, sys.argv[1]], check=False)
    print("free again:", exchange.wait_until_free())
    exchange.stop()
