"""Dataclasses, enums, dates and decimals as arguments and results; an exception of the program's own."""

from decimal import Decimal

from shared import Order, OutOfStockError, Status

from pyroplug.api import Daemon, expose


@expose
class Shop:
    def total(self, order: Order) -> Decimal:
        return sum((item.price for item in order.items), Decimal(0))

    def pay(self, order: Order) -> Order:
        print("order of", order.customer, "placed", order.placed.isoformat(), flush=True)
        if "rare" in order.tags:
            raise OutOfStockError("rare things", 0)
        order.status = Status.PAID
        return order

    def count(self, orders: dict[Status, list[Order]]) -> dict[Status, int]:
        return {status: len(found) for status, found in orders.items()}

    def stop(self) -> None:
        daemon.shutdown()


with Daemon() as daemon:
    print(daemon.register(Shop()), flush=True)
    daemon.requestLoop()
