"""A name server with an SQLite file: ``name_server.py FILE``; prints its URI and serves until it is killed."""

# ruff: noqa: T201 - what it prints is its URI

from __future__ import annotations

import sys

from pyroplug.api import Daemon, Kernel
from pyroplug.plugins.naming.server import NameServer
from pyroplug.plugins.naming.sqlite import SqlStorage


def main() -> None:
    kernel = Kernel(environ={})
    with Daemon("127.0.0.1", kernel=kernel) as daemon:
        nameserver = NameServer(kernel, SqlStorage(sys.argv[1]))
        nameserver.announce(daemon.register(nameserver, "Pyro.NameServer"))
        print(daemon.uriFor(nameserver), flush=True)
        daemon.requestLoop()


if __name__ == "__main__":
    main()
