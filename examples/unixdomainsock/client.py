"""Call over a Unix domain socket: ``client.py "PYRO:...@./u:..."`` (mind the quotes)."""

import sys

from pyroplug.api import URI, Proxy

uri = URI(" ".join(sys.argv[1:]))  # paths may have blanks
with Proxy(uri) as thing:
    print("scheme:", uri.scheme, "host:", uri.host)
    print("the socket file:", thing.mode())
    thing.stop()
