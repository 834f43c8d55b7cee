"""A name server in an event loop of the program's own, with Pyro5 or with pyroplug.

``naming_embedded.py API`` prints the URI, and serves until its standard input is closed.
"""

# ruff: noqa: T201 - what it prints is its report

from __future__ import annotations

import importlib
import selectors
import sys


def main() -> None:
    api = importlib.import_module(sys.argv[1])
    uri, daemon, responder = api.start_ns("localhost", 0)
    assert responder is None  # nobody else can reach this one
    print(uri, flush=True)
    while True:
        with selectors.DefaultSelector() as selector:
            for item in (sys.stdin, *daemon.sockets):
                selector.register(item, selectors.EVENT_READ)
            ready = [key.fileobj for key, _ in selector.select(1)]
        if sys.stdin in ready:
            break
        if ready:
            daemon.events(ready)
    daemon.close()


if __name__ == "__main__":
    main()
