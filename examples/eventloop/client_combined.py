"""Call both daemons: ``client_combined.py PYRO:... PYRO:...``."""

import sys

from pyroplug.api import Proxy

with Proxy(sys.argv[1]) as public, Proxy(sys.argv[2]) as internal:
    print("daemons:", public.name(), internal.name())
    print("different ports:", public._pyroUri.port != internal._pyroUri.port)
    public.stop()
