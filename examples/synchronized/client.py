"""Call both objects from three threads: ``client.py PYRO:open PYRO:guarded``."""

import sys
from concurrent.futures import ThreadPoolExecutor

from pyroplug.api import Proxy


def use(uri: str) -> None:
    with Proxy(uri) as register:
        register.use()


for name, uri in zip(("open", "guarded"), sys.argv[1:], strict=True):
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(use, [uri] * 3))
    with Proxy(uri) as register:
        most = register.most_at_a_time()
        print(f"{name}: {'several calls at a time' if most > 1 else 'one call at a time'}")

with Proxy(sys.argv[1]) as register:
    register.stop()
