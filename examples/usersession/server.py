"""Remember who the client is, for as long as it is connected."""

from typing import Any

from pyroplug.api import Daemon, current_context, expose


class ShopDaemon(Daemon):
    def validateHandshake(self, conn: Any, data: Any) -> Any:
        # one storage for each connection: made here or in a method, whichever asks first
        current_context.session.user = str(data)
        current_context.session.basket = []
        return "hello"


@expose
class Shop:
    """One object for all clients; what belongs to one of them is in its session."""

    def put(self, article: str) -> None:
        current_context.session.basket.append(article)

    def basket(self) -> str:
        session = current_context.session
        return f"{session.user} has {', '.join(session.basket) or 'nothing'}"

    def stop(self) -> None:
        daemon.shutdown()


with ShopDaemon() as daemon:
    print(daemon.register(Shop()), flush=True)
    daemon.requestLoop()
