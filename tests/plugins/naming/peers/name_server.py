"""A name server with an SQLite file: ``name_server.py FILE``; prints its URI and serves until it is killed."""

# ruff: noqa: T201 - what it prints is its URI

from __future__ import annotations

import sys

from pyroplug.api import Kernel, NameServerDaemon


def main() -> None:
    with NameServerDaemon("127.0.0.1", 0, storage=f"sql:{sys.argv[1]}", kernel=Kernel(environ={})) as daemon:
        print(daemon.uriFor("Pyro.NameServer"), flush=True)
        daemon.requestLoop()


if __name__ == "__main__":
    main()
