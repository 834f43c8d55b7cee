"""gRPC: generic handlers with msgpack in them, so that any value can be sent."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from . import Client, Echo, Ready, Spec

SPECS = [
    Spec(
        "grpcio-msgpack", "grpc_", rows=("echo-42", "echo-42-unix", "echo-dict", "bytes-1mb", "connect"), note="HTTP/2"
    )
]

_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def missing() -> str | None:
    try:
        import grpc
    except ImportError as exc:
        return f"{exc} (pip install grpcio)"
    return None if grpc else ""


def _codec() -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    import msgpack

    return msgpack.Packer(use_bin_type=True).pack, msgpack.unpackb


def serve(spec: Spec, address: str | None, ready: Ready) -> None:
    import grpc

    def echo(value: Any, context: Any) -> Any:
        return value

    pack, unpack = _codec()
    handler = grpc.unary_unary_rpc_method_handler(echo, request_deserializer=unpack, response_serializer=pack)
    server: Any = grpc.server(ThreadPoolExecutor(8), options=_OPTIONS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Echo", {"echo": handler}),))
    if address is None:
        ready_at = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    else:
        server.add_insecure_port(f"unix:{address}")
        ready_at = f"unix:{address}"
    server.start()
    ready(ready_at)
    server.wait_for_termination()


def connect(spec: Spec, location: str) -> Client:
    import grpc

    pack, unpack = _codec()
    # without a pool of its own a new channel would use the connection of the one before
    channel: Any = grpc.insecure_channel(location, [*_OPTIONS, ("grpc.use_local_subchannel_pool", 1)])
    return Client(Echo(channel.unary_unary("/Echo/echo", pack, unpack)), channel.close)
