"""thriftpy2: interface definitions, binary protocol in C, a thread for each connection.

There is no value of any type in Thrift: whole numbers, the record and bytes have a method each.
"""

from __future__ import annotations

import io
from typing import Any

from . import Client, Echo, Ready, Spec

SPECS = [
    Spec(
        "thriftpy2",
        "thrift_",
        rows=("echo-42", "echo-42-unix", "echo-dict", "bytes-1mb", "connect"),
        note="typed by an interface definition",
    )
]

_IDL = """
struct Address { 1: string street, 2: string city }
struct Record {
    1: i64 id, 2: string name, 3: string email, 4: bool active, 5: double score,
    6: list<string> tags, 7: string parent, 8: Address address, 9: i64 visits, 10: string comment
}
service Echo {
    i64 number(1: i64 value)
    Record record(1: Record value)
    binary data(1: binary value)
}
"""


def missing() -> str | None:
    try:
        import thriftpy2
    except Exception as exc:
        return f"{exc!r} (pip install thriftpy2)"
    return None if thriftpy2.__name__ else ""


def _interface() -> Any:
    from thriftpy2.parser import load_fp

    return load_fp(io.StringIO(_IDL), "benchmark_thrift")


class _Handler:
    def number(self, value: Any) -> Any:
        return value

    record = data = number


def serve(spec: Spec, address: str | None, ready: Ready) -> None:
    from thriftpy2 import protocol, server, thrift, transport

    library: Any = transport  # has no types
    listener = library.TServerSocket(unix_socket=address) if address else library.TServerSocket("127.0.0.1", 0)
    listener.client_timeout = None
    listener.listen()
    ready(address or f"127.0.0.1 {listener.sock.getsockname()[1]}")
    listener.listen = lambda: None  # it does: the port had to be known before
    threaded: Any = server.TThreadedServer
    binary: Any = protocol.TBinaryProtocolFactory
    processor: Any = thrift.TProcessor
    threaded(
        processor(_interface().Echo, _Handler()),
        listener,
        iprot_factory=binary(),
        itrans_factory=library.TBufferedTransportFactory(),
        daemon=True,
    ).serve()


def connect(spec: Spec, location: str) -> Client:
    from thriftpy2 import rpc

    make_client: Any = rpc.make_client  # whose annotations forget that no timeout is one, too
    interface = _interface()
    host, _, port = location.partition(" ")
    if port:
        client = make_client(interface.Echo, host, int(port), timeout=None)
    else:
        client = make_client(interface.Echo, unix_socket=location, timeout=None)

    def echo(value: Any) -> Any:
        if type(value) is int:
            return client.number(value)
        if type(value) is bytes:
            return client.data(value)
        answer = client.record(interface.Record(**{**value, "address": interface.Address(**value["address"])}))
        return {**vars(answer), "address": vars(answer.address)}

    return Client(Echo(echo), client.close)
