"""Pyro4 as it comes: the thread server, with serpent (its default) and with pickle (its fastest)."""

from __future__ import annotations

from functools import partial
from typing import Any

from . import Client, Ready, Served, Spec

SPECS = [Spec(f"pyro4-thread-{name}", "pyro4", {"serializer": name}) for name in ("serpent", "pickle")]


def missing() -> str | None:
    try:
        import Pyro4
    except Exception as exc:  # an archived package: it may stop importing in any way
        return f"{exc!r} (pip install Pyro4)"
    return None if Pyro4 else ""


def _configure(spec: Spec) -> Any:
    import Pyro4

    settings: Any = Pyro4.config
    settings.SERIALIZER = spec.options["serializer"]
    settings.SERIALIZERS_ACCEPTED = {spec.options["serializer"]}
    return Pyro4


def serve(spec: Spec, address: str | None, ready: Ready) -> None:
    pyro = _configure(spec)
    pyro.oneway(Served.fire)
    where: dict[str, Any] = {"host": "127.0.0.1"} if address is None else {"unixsocket": address}
    daemon = pyro.Daemon(**where)
    ready(str(daemon.register(pyro.expose(Served)(), "echo")))
    daemon.requestLoop()


def connect(spec: Spec, location: str) -> Client:
    pyro = _configure(spec)
    proxy: Any = pyro.Proxy(location)
    return Client(proxy, proxy._pyroRelease, batch=partial(pyro.batch, proxy))
