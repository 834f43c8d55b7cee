"""Many deposits at the same time: ``client.py PYRO:... PYRO:...``."""

import sys
from concurrent.futures import ThreadPoolExecutor

from pyroplug.api import Proxy


def deposit(uri: str) -> None:
    with Proxy(uri) as account:
        for _ in range(5):
            account.deposit(1)


for name, uri in zip(("careless", "careful"), sys.argv[1:], strict=True):
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(deposit, [uri] * 5))
    with Proxy(uri) as account:
        print(f"{name}: 25 deposits made, none lost: {account.balance == 25}")

with Proxy(sys.argv[2]) as account:
    account.stop()
