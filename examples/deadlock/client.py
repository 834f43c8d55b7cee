"""Call, and be called in the middle of it: ``client.py PYRO:...``."""

import sys
import threading
from collections.abc import Callable

from pyroplug.api import Daemon, Kernel, Proxy, TimeoutError, expose


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
            except TimeoutError:
                print("nobody answered: the only thread was waiting for itself")
        daemon.shutdown()
        thread.join()


print("--- calls run concurrently:")
run(Kernel(), 4)

# one call at a time: the callback waits for the call that it is a part of.  Nobody can see that from
# one place; a time limit ends it.  (A oneway method on one of the links would avoid it.)
print("--- one call at a time, with a time limit:")
run(Kernel(settings={"SERVERTYPE": "multiplex", "COMMTIMEOUT": 0.5}), 2)

with Proxy(sys.argv[1]) as server:
    server.stop()
