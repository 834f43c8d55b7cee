"""Iterate over what the server makes: ``client.py PYRO:...``."""

import sys

from pyroplug.api import Proxy

with Proxy(sys.argv[1]) as sensors:
    print("names:", list(sensors.names()))

    # a million items: neither side ever has all of them
    with sensors.readings(1_000_000) as readings:
        for reading in readings:
            if reading > 0.5:
                print("stopped at:", reading)
                break
    # the end of the block has told the server that no more are wanted
    print("made all:", sensors.made_all(1_000_000), "- the generator was closed:", sensors.closed())
    sensors.stop()
