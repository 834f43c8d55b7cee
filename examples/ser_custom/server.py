"""Objects of your own classes as arguments and results.

Serializers carry numbers, texts and containers.  For anything else say how it becomes a dict with the key
``__class__``, and what such a dict becomes on arrival.  Both programs do so; they share no code.
"""

from dataclasses import dataclass
from typing import Any

from pyroplug.api import Daemon, expose, register_class_to_dict, register_dict_to_class


@dataclass
class Money:
    cents: int
    currency: str


def money_to_dict(money: Money) -> dict[str, Any]:
    return {"__class__": "shop.Money", "cents": money.cents, "currency": money.currency}


def dict_to_money(class_name: str, data: dict[str, Any]) -> Money:
    # a peer chooses what is in the dict: take what you expect and check it
    return Money(int(data["cents"]), str(data["currency"]))


# the name in __class__ is what the two sides agree on; it need not be a real module
register_class_to_dict(Money, money_to_dict)
register_dict_to_class("shop.Money", dict_to_money)


@expose
class Till:
    def total(self, amounts: list[Money]) -> Money:
        return Money(sum(money.cents for money in amounts), amounts[0].currency)

    def stop(self) -> None:
        daemon.shutdown()


with Daemon() as daemon:
    print(daemon.register(Till()), flush=True)
    daemon.requestLoop()
