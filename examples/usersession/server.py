"""User sessions: what belongs to one user is kept with the connection, so that users never get into each other's way."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyroplug.api import Daemon, SessionStorage, current_context, expose, init_session

PASSWORDS = {"emma": "secret", "otto": "geheim"}


class Basket:
    """Stands for a database connection, a temporary file or an instrument."""

    def __init__(self, user: str) -> None:
        self.user = user
        self.items: list[str] = []

    def close(self) -> None:
        print(f"{self.user}'s basket is put away: {self.items}", flush=True)


class ShopDaemon(Daemon):
    def validateHandshake(self, conn: Any, data: Any) -> Any:
        user, password = data
        if PASSWORDS.get(user) != password:
            raise PermissionError("who are you?")
        current_context.session.user = user
        return f"hello {user}"


def begin(session: SessionStorage) -> None:
    """What each storage begins with."""
    session.orders = 0


@expose
class Shop:
    """One object for all users; what differs is in the session."""

    def take(self, item: str) -> None:
        with self._basket() as basket:
            basket.items.append(item)

    def order(self) -> str:
        session = current_context.session
        session.orders += 1
        with self._basket() as basket:
            order = f"order {session.orders} of {session.user}: {', '.join(basket.items)}"
            basket.items = []
        return order

    @contextmanager
    def _basket(self) -> Iterator[Basket]:
        session = current_context.session
        if not hasattr(session, "basket"):
            session.basket = Basket(session.user)
            current_context.track_resource(session.basket)  # closed when the user goes, in whatever way
        yield session.basket

    def stop(self) -> None:
        daemon.shutdown()


with ShopDaemon() as daemon:
    init_session(daemon, begin)
    print(daemon.register(Shop()), flush=True)
    daemon.requestLoop()
