"""Use a shop: ``client.py PYRO:...``."""

import datetime
import sys
from decimal import Decimal

from shared import Item, Order, OutOfStockError, Status

from pyroplug.api import Proxy

with Proxy(sys.argv[1]) as shop:
    placed = datetime.datetime(2026, 3, 1, 12, 0, tzinfo=datetime.timezone.utc)
    order = Order("Emma", placed, [Item("tea", Decimal("3.50")), Item("pot", Decimal("12.00"))])
    print("total:", repr(shop.total(order)))

    paid = shop.pay(order)
    print("paid:", paid == Order("Emma", placed, order.items, Status.PAID), type(paid).__name__, paid.status)
    print("ours is still", order.status)
    print("count:", shop.count({Status.OPEN: [order], Status.PAID: [paid, paid]}))
    try:
        shop.pay(Order("Otto", placed, tags=frozenset({"rare"})))
    except OutOfStockError as error:
        print("out of stock:", *error.args)
    shop.stop()
