"""Catch remote exceptions: ``client.py PYRO:...``."""

import sys

import pyroplug.api
from pyroplug.api import Proxy, RemoteError, get_pyro_traceback

with Proxy(sys.argv[1]) as shop:
    # exceptions of Python itself arrive as what they are
    try:
        shop.price("plum")
    except KeyError as error:
        print("KeyError:", error)

    # the lines of the server's traceback come with them
    try:
        shop.share(10, 0)
    except ZeroDivisionError:
        print("".join(get_pyro_traceback()))

    # a class that does not exist here arrives as a RemoteError that carries all there is to know;
    # nothing is ever imported because a server says so
    try:
        shop.order("apple", 5)
    except RemoteError as error:
        print("RemoteError:", error.class_name, error.remote_args, error.attributes)
        print("is it OutOfStock?", error.matches("OutOfStock"))

    # an uncaught exception ends the program; with this hook the remote traceback is printed too
    sys.excepthook = pyroplug.api.excepthook
    try:
        shop.share(10, 0)
    finally:
        shop.stop()
