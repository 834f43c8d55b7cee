"""Two users at the same time: ``client.py PYRO:...``."""

import sys
import threading

from pyroplug.api import CommunicationError, Proxy


def buy(user: str, password: str, *items: str) -> None:
    with Proxy(sys.argv[1]) as shop:
        shop._pyroHandshake = [user, password]
        for item in items:
            shop.take(item)
            together.wait()
        results[user] = [shop.order()]
        shop.take("a bag")
        results[user].append(shop.order())


results: dict[str, list[str]] = {}
together = threading.Barrier(2)  # one item each, in turns
threads = [
    threading.Thread(target=buy, args=("emma", "secret", "tea", "milk")),
    threading.Thread(target=buy, args=("otto", "geheim", "bread", "cheese")),
]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
for user in sorted(results):
    print("\n".join(results[user]))

with Proxy(sys.argv[1]) as shop:
    shop._pyroHandshake = ["mallory", "guess"]
    try:
        shop.order()
    except CommunicationError as error:
        print("refused:", str(error).rpartition(": ")[2])
    shop._pyroHandshake = ["emma", "secret"]
    shop.stop()
