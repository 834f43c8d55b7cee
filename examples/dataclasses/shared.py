"""What both ends know: import it in the server and in the client."""

import datetime
import enum
from dataclasses import dataclass, field
from decimal import Decimal

from pyroplug.api import remote_type


@remote_type
class Status(enum.Enum):
    OPEN = "open"
    PAID = "paid"


@remote_type
@dataclass(frozen=True)
class Item:
    name: str
    price: Decimal

    def __post_init__(self) -> None:
        # runs for what comes from the network too
        if self.price < 0:
            raise ValueError(f"{self.name} cannot cost {self.price}")


@remote_type(name="shop.Order")  # the name on the wire, if the one of the class is not good enough
@dataclass
class Order:
    customer: str
    placed: datetime.datetime
    items: list[Item] = field(default_factory=list)
    status: Status = Status.OPEN
    tags: frozenset[str] = frozenset()


@remote_type
class OutOfStockError(Exception):
    """Arrives as itself, because both ends have registered it."""
