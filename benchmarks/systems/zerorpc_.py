"""zerorpc: ZeroMQ and msgpack under gevent."""

from __future__ import annotations

from typing import Any

from . import Client, Ready, Served, Spec

SPECS = [Spec("zerorpc", "zerorpc_", rows=("echo-42", "echo-42-unix", "echo-dict", "bytes-1mb", "connect"))]


def missing() -> str | None:
    try:
        import zerorpc
    except Exception as exc:
        return f"{exc!r} (pip install zerorpc)"
    return None if zerorpc else ""


def _library() -> Any:
    import zerorpc

    return zerorpc


def serve(spec: Spec, address: str | None, ready: Ready) -> None:
    server = _library().Server(Served(), heartbeat=None)
    if address is None:
        server.bind("tcp://127.0.0.1:*")
        ready(server._events._socket.getsockopt_string(_last_endpoint()))
    else:
        server.bind(f"ipc://{address}")
        ready(f"ipc://{address}")
    server.run()


def _last_endpoint() -> int:
    import zmq

    return int(zmq.LAST_ENDPOINT)


def connect(spec: Spec, location: str) -> Client:
    client = _library().Client(heartbeat=None)
    client.connect(location)
    return Client(client, client.close)
