"""Pyro5 as it comes: the thread server with each serializer, and the multiplex server once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from . import Client, Ready, Served, Spec, rows_of
from ._pyro import traffic

SPECS = [
    *(
        Spec(f"pyro5-thread-{name}", "pyro5", {"loop": "thread", "serializer": name}, rows=rows_of(name))
        for name in ("msgpack", "serpent", "json")
    ),
    Spec(
        "pyro5-multiplex-msgpack",
        "pyro5",
        {"loop": "multiplex", "serializer": "msgpack"},
        peer="pyro5-thread-msgpack",
        rows=("echo-42", "echo-dict", "busy-64", "idle", "waits"),
    ),
]


def missing() -> str | None:
    try:
        import Pyro5.api
    except ImportError as exc:
        return f"{exc} (pip install Pyro5)"
    return None if Pyro5.api else ""


def _configure(spec: Spec) -> None:
    from Pyro5.api import config

    settings: Any = config  # whose annotations admit the default values only
    settings.SERVERTYPE = spec.options["loop"]
    settings.SERIALIZER = spec.options["serializer"]


def serve(spec: Spec, address: str | None, ready: Ready) -> None:
    from Pyro5.api import Daemon, config, expose, oneway

    _configure(spec)
    settings: Any = config
    settings.THREADPOOL_SIZE = 200  # a thread for each connection: with fewer the 64 busy clients are refused
    oneway(Served.fire)
    where: dict[str, Any] = {"host": "127.0.0.1"} if address is None else {"unixsocket": address}
    daemon = Daemon(**where)
    ready(str(daemon.register(expose(Served)(), "echo")))
    daemon.requestLoop()


def connect(spec: Spec, location: str) -> Client:
    from Pyro5.api import BatchProxy, Proxy, SerializedBlob

    _configure(spec)
    proxy: Any = Proxy(location)

    def close() -> None:
        proxy._pyroClaimOwnership()
        proxy._pyroRelease()

    client = Client(proxy, close, batch=partial(BatchProxy, proxy), blob=SerializedBlob)
    client.shared = partial(_in_turn, proxy)
    if spec.options["serializer"] == "msgpack":
        client.traffic = traffic(location)
    return client


def _in_turn(proxy: Any, name: str) -> Callable[[Any], Any]:
    """A proxy of Pyro5's belongs to one thread at a time, which has to claim it."""
    lock = threading.Lock()

    def call(value: Any) -> Any:
        with lock:
            proxy._pyroClaimOwnership()
            return getattr(proxy, name)(value)

    return call
