"""What the pieces of a call cost: ``python benchmarks/pieces.py [TEXT...]``, no network, no other process.

Each piece is timed in short runs, the pieces taking turns, and the fastest run is shown, in CPU time: what else the
machine does makes a run slower, never faster.  ``--tree`` times another source tree in the same run, in a process of
its own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # started as a file, and yet part of a package

from benchmarks.processes import PORTIONS, the_cpu  # noqa: E402
from benchmarks.systems import Spec  # noqa: E402
from benchmarks.systems.ours import make_kernel  # noqa: E402
from benchmarks.workloads import RECORD  # noqa: E402

Piece = Callable[[], object]

RUN_SECONDS = 0.005
ROUNDS = 60


class LoopStream:
    """A stream whose other end is a server connection in the same thread: all of a call but the system calls.

    With ``canned`` every request gets that reply, in which only the sequence number is put right: the client alone.
    """

    sock = None
    peer = "nobody"

    def __init__(self) -> None:
        self.serve: Callable[[bytes], bytes] = bytes
        self.canned = bytearray()
        self._reply: bytes | bytearray = b""

    def fileno(self) -> int:
        return -1

    def send(self, data: Any, /) -> int:
        if self.canned:
            self.canned[10:12] = data[10:12]
            self._reply = self.canned
        else:
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


def _codec_pieces(kernel: Any) -> dict[str, Piece]:
    pieces: dict[str, Piece] = {}
    for name, codec in kernel.codecs().items():
        for label, value in (("42", 42), ("dict", RECORD)):
            request = codec.dumps_call("echo", "echo", (value,), {})
            reply = codec.dumps(value)
            pieces |= {
                f"{name} dumps_call {label}": partial(codec.dumps_call, "echo", "echo", (value,), {}),
                f"{name} loads_call {label}": partial(codec.loads_call, request),
                f"{name} dumps {label}": partial(codec.dumps, value),
                f"{name} loads {label}": partial(codec.loads, reply),
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


class _Server:
    """A server connection that answers at once."""

    def __init__(self, daemon: Any, stream: LoopStream) -> None:
        from pyroplug.core.connection import ServerConnection

        self.connection = ServerConnection(daemon._endpoint, stream)

    def serve(self, data: bytes) -> bytes:
        self.connection.receive(data)
        task = self.connection.next_task()
        assert task is not None
        reply = task.run()
        assert isinstance(reply, bytes)
        return reply

    def receive(self, data: bytes) -> object:
        self.connection.receive(data)
        return self.connection.next_task()


def _call_pieces(kernel: Any) -> dict[str, Piece]:
    from pyroplug.api import Daemon, Proxy, expose
    from pyroplug.core import wire

    class Target:
        def echo(self, value: Any) -> Any:
            return value

    # it holds sockets; this process ends after the measurement and gives them back
    daemon = Daemon(host="127.0.0.1", kernel=kernel)
    uri = daemon.register(expose(Target)(), "echo")

    def connected() -> tuple[Any, LoopStream, _Server]:
        stream = LoopStream()
        server = _Server(daemon, stream)
        stream.serve = server.serve
        kernel.connect = lambda uri, timeout: stream
        proxy = Proxy(uri, kernel=kernel)
        proxy.echo(42)
        return proxy, stream, server

    proxy, _, server = connected()
    alone, stream, _ = connected()
    payload = kernel.codecs()["msgpack"].dumps_call("echo", "echo", (42,), {})
    request = wire.encode(wire.INVOKE, 4, 0, 1, payload)
    assert isinstance(request, bytes)
    stream.canned = bytearray(server.serve(request))

    return {
        "server: receive + next_task": partial(server.receive, request),
        "server: receive + next_task + run": partial(server.serve, request),
        "client: the attribute proxy.echo": lambda: alone.echo,
        "client: proxy.echo(42)": lambda: alone.echo(42),
        "both sides: proxy.echo(42)": lambda: proxy.echo(42),
    }


def _pieces(tree: str) -> dict[str, Piece]:
    kernel = make_kernel(Spec("", "ours", {"loop": "thread", "serializer": "msgpack"}, tree=tree))
    return {**_codec_pieces(kernel), **_wire_pieces(kernel.codecs()["msgpack"]), **_call_pieces(kernel)}


def _time(piece: Piece, count: int) -> float:
    begin = time.thread_time()
    for _ in itertools.repeat(None, count):
        piece()
    return time.thread_time() - begin


def measure(tree: str, texts: list[str], rounds: int) -> dict[str, float]:
    """Microseconds of each piece whose name has one of the texts in it."""
    pieces = {name: piece for name, piece in _pieces(tree).items() if not texts or any(text in name for text in texts)}
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
    fastest = {name: min(values) for name, values in runs.items()}
    empty = fastest.pop("(an empty call, subtracted from all)")
    return {name: value - empty for name, value in fastest.items()}


def _measure_tree(tree: str | None, texts: list[str], rounds: int) -> dict[str, float]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYRO_")}
    if tree is not None:
        environ["PYTHONPATH"] = os.pathsep.join(str(Path(tree).resolve() / portion) for portion in PORTIONS)
    command = [sys.executable, __file__, "--child", tree or "", "--rounds", str(rounds), *texts]
    output = subprocess.run(command, env=environ, stdout=subprocess.PIPE, text=True, check=True, timeout=300).stdout
    result: dict[str, float] = json.loads(output)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", nargs="*", help="only pieces with one of these texts in their names")
    parser.add_argument("--tree", action="append", default=[], help="another source tree to be timed as well")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--child", metavar="TREE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        cpu = the_cpu()
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})
        print(json.dumps(measure(options.child, options.texts, options.rounds)))
        return
    trees: list[str | None] = [None, *options.tree]
    # in thirds, so that the trees take turns
    parts = [[_measure_tree(t, options.texts, max(1, options.rounds // 3)) for t in trees] for _ in range(3)]
    print(f"{'microseconds':42}", *(f"{Path(t).name if t else 'here':>10}" for t in trees))
    for name in parts[0][0]:
        values = [min(part[i].get(name, float("nan")) for part in parts) for i in range(len(trees))]
        print(f"{name:42}", *(f"{value:10.2f}" for value in values))


if __name__ == "__main__":
    main()
