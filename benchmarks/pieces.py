"""What the pieces of a call cost: ``python benchmarks/pieces.py [TEXT...]``, no network, no other process.

Each piece is timed in short runs, the pieces taking turns, and the median of the runs is shown.  ``--tree`` times
another source tree in the same run, in a process of its own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # started as a file, and yet part of a package

from benchmarks.processes import PORTIONS, the_cpu  # noqa: E402
from benchmarks.workloads import RECORD  # noqa: E402

Piece = Callable[[], object]

RUN_SECONDS = 0.02
ROUNDS = 15


class LoopStream:
    """A stream whose other end is a server connection in the same thread: all of a call but the system calls."""

    sock = None
    peer = "nobody"

    def __init__(self) -> None:
        self.serve: Callable[[bytes], bytes] = bytes
        self._reply = b""

    def fileno(self) -> int:
        return -1

    def send(self, data: Any, /) -> int:
        self._reply = self.serve(bytes(data))
        return len(data)

    def recv_into(self, buffer: Any, nbytes: int = 0, /) -> int:
        size = len(self._reply)
        buffer[:size] = self._reply
        return size

    def settimeout(self, seconds: float | None, /) -> None:
        pass

    def pending(self) -> int:
        return 0

    def close(self) -> None:
        pass


class Canned(LoopStream):
    """Answers each request with the same reply, in which only the sequence number is put right."""

    def __init__(self, reply: bytes) -> None:
        super().__init__()
        self._canned = bytearray(reply)

    def send(self, data: Any, /) -> int:
        self._canned[10:12] = data[10:12]
        return len(data)

    def recv_into(self, buffer: Any, nbytes: int = 0, /) -> int:
        size = len(self._canned)
        buffer[:size] = self._canned
        return size


def _bare_connection(kernel: Any) -> Any:
    from pyroplug.core.connection import ClientConnection

    return ClientConnection(LoopStream(), kernel.client_plan(), kernel.serializer_id("msgpack"), kernel.settings)


def _codec_pieces(kernel: Any) -> dict[str, Piece]:
    pieces: dict[str, Piece] = {}
    for name, codec in kernel.codecs().items():
        for label, value in (("42", 42), ("dict", RECORD)):
            request = codec.dumps_call("echo", "echo", (value,), {})
            reply = codec.dumps(value)
            pieces |= {
                f"{name} dumps_call {label}": lambda c=codec, v=value: c.dumps_call("echo", "echo", (v,), {}),
                f"{name} loads_call {label}": lambda c=codec, r=request: c.loads_call(r),
                f"{name} dumps {label}": lambda c=codec, v=value: c.dumps(v),
                f"{name} loads {label}": lambda c=codec, r=reply: c.loads(r),
            }
    return pieces


def _wire_pieces(codec: Any) -> dict[str, Piece]:
    from pyroplug.core import wire

    payload = codec.dumps_call("echo", "echo", (42,), {})
    message = wire.encode(wire.INVOKE, 4, 0, 1, payload, None, wire.NO_CORRELATION, 1 << 30)
    assert isinstance(message, bytes)
    reader = wire.FrameReader(1 << 30)

    def frame() -> object:
        reader.feed(message)
        return reader.next_frame()

    return {
        "wire.encode": lambda: wire.encode(wire.INVOKE, 4, 0, 1, payload, None, wire.NO_CORRELATION, 1 << 30),
        "FrameReader feed + next_frame": frame,
    }


def _call_pieces(kernel: Any) -> dict[str, Piece]:
    from pyroplug.api import Daemon, Proxy, expose
    from pyroplug.core import wire
    from pyroplug.core.connection import ServerConnection

    class Target:
        def echo(self, value: Any) -> Any:
            return value

    daemon = Daemon(host="127.0.0.1", kernel=kernel)
    daemon.register(expose(Target)(), "echo")
    codec = kernel.codecs()["msgpack"]
    stream = LoopStream()
    server = ServerConnection(daemon._endpoint, stream)

    def serve(data: bytes) -> bytes:
        server.receive(data)
        task = server.next_task()
        assert task is not None
        reply = task.run()
        assert isinstance(reply, bytes)
        return reply

    def encoded(kind: int, payload: bytes) -> bytes:
        message = wire.encode(kind, 4, 0, 1, payload)
        assert isinstance(message, bytes)
        return message

    serve(encoded(wire.CONNECT, codec.dumps({"handshake": "hello", "object": "echo"})))
    request = encoded(wire.INVOKE, codec.dumps_call("echo", "echo", (42,), {}))
    reply = serve(request)
    stream.serve = serve

    client = _bare_connection(kernel)
    client.stream = Canned(reply)
    client.use(kernel.bind(client))
    proxy = Proxy("PYRO:echo@localhost:1", kernel=kernel)
    proxy._pyroGetMetadata(known_metadata={"methods": {"echo"}})
    proxy.__dict__["_pyroConnection"] = client

    whole = _bare_connection(kernel)
    whole.stream = stream
    whole.use(kernel.bind(whole))
    whole_proxy = Proxy("PYRO:echo@localhost:1", kernel=kernel)
    whole_proxy._pyroGetMetadata(known_metadata={"methods": {"echo"}})
    whole_proxy.__dict__["_pyroConnection"] = whole

    payload = codec.dumps_call("echo", "echo", (42,), {})

    def nothing(name: str, args: Any, kwargs: Any) -> None:
        pass

    idle = Proxy("PYRO:echo@localhost:1", kernel=kernel)
    idle._pyroGetMetadata(known_metadata={"methods": {"echo"}})
    idle.__dict__["_pyroInvoke"] = nothing

    def taken() -> object:
        server.receive(request)
        return server.next_task()

    def run_only() -> object:
        server.receive(request)
        task = server.next_task()
        assert task is not None
        return task.run()

    # a daemon holds sockets and threads; this process ends after the measurement and gives them back
    return {
        "server: receive + next_task": taken,
        "server: receive + next_task + run": run_only,
        "client: proxy.echo without _pyroInvoke": lambda: idle.echo(42),
        "client: connection.exchange": lambda: client.exchange(payload, 0),
        "client: connection.call": lambda: client.call("echo", "echo", (42,), {}),
        "client: proxy.echo(42)": lambda: proxy.echo(42),
        "both sides: proxy.echo(42)": lambda: whole_proxy.echo(42),
    }


def _pieces() -> dict[str, Piece]:
    from pyroplug.api import Kernel

    kernel = Kernel(settings={"SERIALIZER": "msgpack"}, environ={})
    return {**_codec_pieces(kernel), **_wire_pieces(kernel.codecs()["msgpack"]), **_call_pieces(kernel)}


def _time(piece: Piece, count: int) -> float:
    begin = time.perf_counter()
    for _ in itertools.repeat(None, count):
        piece()
    return time.perf_counter() - begin


def measure(texts: list[str], rounds: int) -> dict[str, float]:
    """Microseconds of each piece whose name has one of the texts in it."""
    pieces = {name: piece for name, piece in _pieces().items() if not texts or any(text in name for text in texts)}
    pieces["(an empty call, subtracted from all)"] = lambda: None
    counts: dict[str, int] = {}
    for name, piece in pieces.items():
        counts[name] = 1
        while _time(piece, counts[name]) < RUN_SECONDS / 4:
            counts[name] *= 2
    runs: dict[str, list[float]] = {name: [] for name in pieces}
    for _ in range(rounds):
        for name, piece in pieces.items():
            runs[name].append(_time(piece, counts[name]) / counts[name] * 1e6)
    medians = {name: statistics.median(values) for name, values in runs.items()}
    empty = medians.pop("(an empty call, subtracted from all)")
    return {name: value - empty for name, value in medians.items()}


def _measure_tree(tree: str | None, texts: list[str], rounds: int) -> dict[str, float]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYRO_")}
    if tree is not None:
        environ["PYTHONPATH"] = os.pathsep.join(str(Path(tree).resolve() / portion) for portion in PORTIONS)
    command = [sys.executable, __file__, "--child", "--rounds", str(rounds), *texts]
    output = subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=300).stdout
    result: dict[str, float] = json.loads(output)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", nargs="*", help="only pieces with one of these texts in their names")
    parser.add_argument("--tree", action="append", default=[], help="another source tree to be timed as well")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        cpu = the_cpu()
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})
        print(json.dumps(measure(options.texts, options.rounds)))
        return
    trees: list[str | None] = [None, *options.tree]
    # in thirds, so that the trees take turns
    parts = [[_measure_tree(t, options.texts, max(1, options.rounds // 3)) for t in trees] for _ in range(3)]
    print(f"{'microseconds':42}", *(f"{Path(t).name if t else 'here':>10}" for t in trees))
    for name in parts[0][0]:
        values = [statistics.median(part[i].get(name, float("nan")) for part in parts) for i in range(len(trees))]
        print(f"{name:42}", *(f"{value:10.2f}" for value in values))


if __name__ == "__main__":
    main()
