"""Exceptions: what a method raises is raised in the client, with the server's traceback."""

from pyroplug.api import Daemon, expose


class OutOfStock(Exception):
    """A class that the client does not have."""

    def __init__(self, article: str, left: int) -> None:
        super().__init__(article, left)
        self.left = left


@expose
class Shop:
    def price(self, article: str) -> float:
        return {"apple": 0.3, "pear": 0.4}[article]

    def share(self, total: float, people: int) -> float:
        return total / people

    def order(self, article: str, count: int) -> None:
        raise OutOfStock(article, 2)

    def stop(self) -> None:
        daemon.shutdown()


with Daemon() as daemon:
    print(daemon.register(Shop()), flush=True)
    daemon.requestLoop()
