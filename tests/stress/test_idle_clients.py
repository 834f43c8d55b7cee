"""Thousands of clients that say nothing: each costs little memory, and none makes another one wait."""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyroplug.api import Kernel, Proxy
from pyroplug.core.wire import CONNECT, CONNECTOK, EXTENSIONS, HEADER_SIZE, encode
from testkit.timeouts import scaled

pytestmark = [pytest.mark.stress, pytest.mark.serial]

CLIENTS = 2000
WARM = 200
"""Clients before the first look: what is made once for all is there then."""
LIMIT = 2048
"""Bytes of server memory for each; about 1250 with CPython 3.11, and newer Pythons differ."""

SERVER = f"""
import resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, {2 * CLIENTS + 500}) if hard > 0 else {2 * CLIENTS + 500}, hard))
from pyroplug.api import Daemon, expose

@expose
class Thing:
    def echo(self, value):
        return value

with Daemon(host="127.0.0.1") as daemon:
    print(daemon.register(Thing(), "thing"), flush=True)
    daemon.requestLoop()
"""


@contextlib.contextmanager
def server() -> Iterator[tuple[str, int]]:
    """The URI of a server in a process of its own, and the process."""
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.kill()


def memory(pid: int) -> int:
    """What of a process is in memory (bytes)."""
    return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * 4096


@pytest.fixture
def descriptors() -> Iterator[None]:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CLIENTS + WARM + 200
    assert hard == resource.RLIM_INFINITY or hard >= wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells the memory of another process")
@pytest.mark.usefixtures("descriptors")
def test_idle_clients_cost_little_and_delay_nobody() -> None:
    import socket

    kernel = Kernel(environ={})
    name = kernel.settings.SERIALIZER
    offered = {EXTENSIONS: ",".join(sorted(kernel.extensions)).encode()}
    payload = kernel.codecs()[name].dumps({"handshake": "hello", "object": "thing"})
    hello = encode(CONNECT, kernel.serializer_id(name), 0, 0, payload, offered)
    assert isinstance(hello, bytes)
    with server() as (uri, pid), contextlib.ExitStack() as stack:
        port = int(uri.rpartition(":")[2])

        def connect(count: int) -> None:
            for _ in range(count):
                sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), scaled(20)))
                sock.sendall(hello)
                answer = sock.recv(4096)
                assert len(answer) > HEADER_SIZE
                assert answer[6] == CONNECTOK

        connect(WARM)
        before = memory(pid)
        connect(CLIENTS)
        each = (memory(pid) - before) / CLIENTS
        assert each <= LIMIT, f"{each:.0f} bytes for each idle client"
        with Proxy(uri, kernel=kernel) as one_more:
            began = time.monotonic()
            assert [one_more.echo(number) for number in range(100)] == list(range(100))
            assert time.monotonic() - began < scaled(5)
    gc.collect()
