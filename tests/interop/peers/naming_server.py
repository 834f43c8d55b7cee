"""A server that registers its object ``demo`` in a name server, with Pyro5 or with pyroplug.

``naming_server.py API SERIALIZER HOST PORT``, as in ``naming_client.py``.  Prints the URI of the object, serves until its standard
input is closed, and takes the name back.
"""

# ruff: noqa: T201 - what it prints is its report

from __future__ import annotations

import importlib
import sys
import threading
from typing import Any


def main() -> None:
    name, serializer, host, port = sys.argv[1:]
    api = importlib.import_module(name)
    api.config.SERIALIZER = serializer

    @api.expose
    class Demo:
        def echo(self, value: Any) -> Any:
            return value

    with api.Daemon("localhost") as daemon:
        uri = daemon.register(Demo())
        with api.locate_ns(host or None, int(port) if port else None) as ns:
            ns.register("demo", uri, metadata={"class", "demo"})
        loop = threading.Thread(target=daemon.requestLoop)
        loop.start()
        print(uri, flush=True)
        sys.stdin.read()
        with api.locate_ns(host or None, int(port) if port else None) as ns:
            ns.remove("demo")
        daemon.shutdown()
        loop.join()


if __name__ == "__main__":
    main()
