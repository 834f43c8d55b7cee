"""Call both kinds of server from three threads: ``client.py PYRO:thread PYRO:multiplex``."""

import sys
from concurrent.futures import ThreadPoolExecutor

from pyroplug.api import Proxy


def work(uri: str) -> None:
    with Proxy(uri) as worker:  # three clients: the calls of one proxy run one after the other
        worker.work()


for name, uri in zip(("thread", "multiplex"), sys.argv[1:], strict=True):
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, [uri] * 3))
    with Proxy(uri) as worker:
        print(f"{name}: at most {worker.most_at_a_time()} call(s) at a time")

with Proxy(sys.argv[2]) as worker:
    worker.stop()
