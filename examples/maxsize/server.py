"""A limit for the size of messages: a daemon that takes no more than 10,000 bytes."""

from pyroplug.api import Daemon, Kernel, expose


@expose
class Store:
    def put(self, text: str) -> int:
        return len(text)

    def get(self, size: int) -> str:
        return "x" * size

    def stop(self) -> None:
        daemon.shutdown()


# PYRO_MAX_MESSAGE_SIZE does the same; the limit holds for what is sent as well as for what is received,
# and for compressed messages after inflating
with Daemon(kernel=Kernel(settings={"MAX_MESSAGE_SIZE": 10_000})) as daemon:
    print(daemon.register(Store()), flush=True)
    daemon.requestLoop()
