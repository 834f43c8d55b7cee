"""RPyC: a service with an exposed method, in its thread-per-connection server.

``echo`` is fetched once and kept: ``connection.root.echo(x)`` would make two round trips.  A dict is not copied
by RPyC but passed by reference, and comes back as the caller's own object.
"""

from __future__ import annotations

import logging
from typing import Any

from . import Client, Echo, Ready, Spec

SPECS = [Spec("rpyc", "rpyc_", note="a dict travels by reference, uncopied")]


def missing() -> str | None:
    try:
        import rpyc
    except ImportError as exc:
        return f"{exc} (pip install rpyc)"
    return None if rpyc else ""


def serve(spec: Spec, address: str | None, ready: Ready) -> None:
    import rpyc
    from rpyc.utils.server import ThreadedServer

    def echo(self: Any, value: Any) -> Any:
        return value

    service = type("EchoService", (rpyc.Service,), {"exposed_echo": echo})
    quiet = logging.getLogger("benchmark-rpyc")
    quiet.setLevel(logging.CRITICAL)
    if address is None:
        server = ThreadedServer(service, hostname="127.0.0.1", port=0, logger=quiet)
        server._listen()
        ready(f"127.0.0.1 {server.port}")
    else:
        server = ThreadedServer(service, socket_path=address, logger=quiet)
        server._listen()
        ready(address)
    server.start()


def connect(spec: Spec, location: str) -> Client:
    import rpyc
    from rpyc.utils.factory import unix_connect

    if " " in location:
        host, port = location.split()
        connection = rpyc.connect(host, int(port))
    else:
        connection = unix_connect(location)
    return Client(Echo(connection.root.echo), connection.close)
