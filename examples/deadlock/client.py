"""Call, and be called in the middle of it: ``client.py PYRO:...``."""

import sys
import threading
from collections.abc import Callable

from pyroplug.api import CircularCallError, Daemon, Kernel, Proxy, expose


@expose
class Bouncer:
    def __init__(self, server: Callable[[], Proxy]) -> None:
        self.server = server

    def bounce(self, count: int) -> list[str]:
        if not count:
            return ["client: enough"]
        with self.server() as server:
            answers: list[str] = server.bounce(self, count - 1)
        return ["client: calling", *answers]


def run(kernel: Kernel, count: int) -> None:
    with Daemon(kernel=kernel) as daemon:
        bouncer = Bouncer(lambda: Proxy(sys.argv[1], kernel=kernel))
        daemon.register(bouncer)
        thread = threading.Thread(target=daemon.requestLoop)
        thread.start()
        with daemon.proxyFor(bouncer) as mine:
            try:
                print("\n".join(mine.bounce(count)))
            except CircularCallError as error:
                print(
                    "refused, because the only thread would wait for itself:",
                    len(error.chain) - 1,
                    "daemons in a circle",
                )
        daemon.shutdown()
        thread.join()


print("--- calls run concurrently:")
run(Kernel(), 4)

# one call at a time: the callback would wait for the call that it is a part of.  The calls tell each other
# through which daemons they went, so that is noticed.  (A oneway method on one of the links would avoid it.)
print("--- one call at a time:")
run(Kernel(settings={"SERVERTYPE": "multiplex"}), 2)

with Proxy(sys.argv[1]) as server:
    server.stop()
