"""Call async methods from a plain program: ``client.py PYRO:...``."""

import sys
import threading

from pyroplug.api import Proxy

reached: list[bool] = []


def wait_for(value: int) -> None:
    with Proxy(sys.argv[1]) as sensor:
        reached.append(sensor.wait_for(value) >= value)


with Proxy(sys.argv[1]) as sensor:
    before = sensor.value()
    waiting = [threading.Thread(target=wait_for, args=(before + 5,)) for _ in range(10)]
    for thread in waiting:
        thread.start()
    for thread in waiting:
        thread.join()
    print("reached:", sum(reached))
    print("grown:", sensor.value() >= before + 5)
    sensor.stop()
