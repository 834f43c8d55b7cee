"""Send and receive objects of a class of our own: ``client.py PYRO:...``."""

import sys
from typing import Any

from pyroplug.api import Proxy, PyroError, register_class_to_dict, register_dict_to_class


class Price:
    """The client's idea of what the server calls Money."""

    def __init__(self, cents: int, currency: str) -> None:
        self.cents = cents
        self.currency = currency

    def __str__(self) -> str:
        return f"{self.cents / 100:.2f} {self.currency}"


def dict_to_price(class_name: str, data: dict[str, Any]) -> Price:
    return Price(data["cents"], data["currency"])


with Proxy(sys.argv[1]) as till:
    # without converters the object leaves as a dict of its attributes, and nobody over there knows its class
    try:
        till.total([Price(100, "EUR")])
    except PyroError as error:
        print("before:", type(error).__name__)

    register_class_to_dict(Price, lambda price: {"__class__": "shop.Money", **vars(price)})
    register_dict_to_class("shop.Money", dict_to_price)
    for serializer in ("serpent", "json", "msgpack"):
        till._pyroSerializer = serializer
        total = till.total([Price(199, "EUR"), Price(301, "EUR")])
        print(f"{serializer}: {type(total).__name__} {total}")

    till.stop()
