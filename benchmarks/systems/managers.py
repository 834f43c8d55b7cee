"""The managers of the standard library's multiprocessing: a thread for each connection, pickle on the wire."""

from __future__ import annotations

from multiprocessing.managers import BaseManager
from typing import Any

from . import Client, Ready, Served, Spec

SPECS = [Spec("mp-managers", "managers", rows=("echo-42", "echo-42-unix", "echo-dict", "bytes-1mb"))]
"""Not ``connect``: making and dropping a proxy takes five connections of its own, and waits among them."""

_KEY = b"benchmark"


def missing() -> str | None:
    return None


class _Manager(BaseManager):
    """Serves one object; each connection gets its own."""


_Manager.register("Served", Served, exposed=("echo",))


def serve(spec: Spec, address: str | None, ready: Ready) -> None:
    server: Any = _Manager(("127.0.0.1", 0) if address is None else address, _KEY).get_server()
    ready(f"127.0.0.1 {server.address[1]}" if address is None else address)
    server.serve_forever()


def connect(spec: Spec, location: str) -> Client:
    host, _, port = location.partition(" ")
    manager: Any = _Manager((host, int(port)) if port else location, _KEY)
    manager.connect()
    target = manager.Served()

    def close() -> None:
        target._tls.connection.close()  # a proxy keeps its connection as long as the thread lives
        del target._tls.connection

    return Client(target, close)
