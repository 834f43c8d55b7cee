"""What a method can know of its call: the client, annotations, the correlation id."""

from typing import Any

from pyroplug.api import Daemon, Proxy, current_context, expose


@expose
class Shop:
    def order(self, item: str) -> str:
        print(f"order of {item} by {current_context.client_sock_addr[0]}", flush=True)
        # annotations are bytes beside the arguments, for what is not the method's own business
        language = bytes(current_context.annotations.get("LANG", b"en")).decode()
        current_context.response_annotations = {"COST": b"12.50"}
        # calls made from here carry the same correlation id, whichever way it takes
        with Proxy(stock_uri) as stock:
            place = stock.fetch(item)
        return {"en": f"{item} from {place}", "de": f"{item} aus {place}"}[language]

    def stop(self) -> None:
        daemon.shutdown()


@expose
class Stock:
    def fetch(self, item: str) -> str:
        print(f"correlation id {current_context.correlation_id}: {item}", flush=True)
        return "shelf 7"


class ShopDaemon(Daemon):
    def annotations(self) -> dict[str, Any]:
        return {"SHOP": b"no. 1"}  # with every reply


with ShopDaemon(host="127.0.0.1") as daemon:
    stock_uri = daemon.register(Stock())
    print(daemon.register(Shop()), flush=True)
    daemon.requestLoop()
