"""Pass generators: ``client.py PYRO:meter``."""

import itertools
import sys
from collections.abc import Iterator

from pyroplug.api import Proxy


def readings() -> Iterator[float]:
    made = 0
    try:
        for made in itertools.count(1):
            yield made / 10
    finally:
        print("the generator was closed", "early" if made < 1_000_000 else "late")


def broken() -> Iterator[float]:
    yield 1.0
    raise OSError("the sensor is unplugged")


with Proxy(sys.argv[1]) as meter:
    print("mean:", meter.mean(float(number % 10) for number in range(100_000)))
    print("first above 5:", meter.first_above(5, readings()))
    try:
        meter.mean(broken())
    except OSError as error:
        print("no mean:", error)
    meter.stop()
