"""Read and write remote attributes: ``client.py PYRO:...``."""

import sys

from pyroplug.api import Proxy

with Proxy(sys.argv[1]) as thermostat:
    print("target is", thermostat.target)
    thermostat.target = 21.5
    print("target is", thermostat.target, "and the reading", thermostat.reading)

    # the setter runs on the server, and so does its check
    try:
        thermostat.target = 90
    except ValueError as error:
        print("refused:", error)

    # a property without setter cannot be written
    try:
        thermostat.reading = 1
    except AttributeError as error:
        print("read only:", error)

    # what is not exposed does not exist here; the proxy knows that without asking the server
    try:
        print(thermostat.serial)
    except AttributeError as error:
        print("not exposed:", error)

    thermostat.stop()
