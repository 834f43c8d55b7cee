"""See which instance answers: ``client.py PYRO:single PYRO:session PYRO:percall PYRO:tuned``."""

import sys

from pyroplug.api import Proxy

for name, uri in zip(("single", "session", "percall"), sys.argv[1:], strict=False):
    with Proxy(uri) as first, Proxy(uri) as second:
        # each call answers (number of the instance, calls it has had)
        calls = [tuple(proxy.call()) for proxy in (first, first, second)]
        instances = len({number for number, _ in calls})
        print(f"{name}: {instances} instance(s), calls seen {[count for _, count in calls]}")

with Proxy(sys.argv[4]) as tuned:
    print("creator:", tuned.call())
    tuned.stop()
