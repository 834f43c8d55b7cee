"""Scenarios 5, 6, 8 and 9 of users.md: the first moments of a connection, and processes that are killed in any state."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pyroplug.api import AsyncProxy, CommunicationError, Proxy, TimeoutError, expose
from pyroplug.core.wire import CONNECTOK
from pyroplug.testing.kernels import LOOPS, PATIENCE, Served, make_kernel
from pyroplug.testing.transports import in_thread
from testkit.timeouts import scaled

pytestmark = pytest.mark.stress

loops = pytest.mark.parametrize("loop", LOOPS)
posix = pytest.mark.skipif(sys.platform == "win32", reason="no such signals there")
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("PYRO_")}


@expose
class Thing:
    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)
        self.ended = threading.Semaphore(0)

    def echo(self, value: Any = None) -> Any:
        return value

    def slow(self) -> str:
        self.entered.release()
        self.gate.wait(PATIENCE)
        return "done"

    def numbers(self) -> Iterator[int]:
        try:
            number = 0
            while True:
                yield number
                number += 1
        finally:
            self.ended.release()


# ============================================================================= 5: no answer to the handshake
def test_scenario_05_a_server_that_accepts_and_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        kernel = make_kernel(HANDSHAKE_TIMEOUT=0.2)
        proxy = Proxy(f"PYRO:thing@127.0.0.1:{port}", kernel=kernel)
        begin = time.monotonic()
        with pytest.raises(TimeoutError, match="did not answer in time"):
            proxy.echo(1)
        assert time.monotonic() - begin < PATIENCE

        async def main() -> None:
            other = AsyncProxy(proxy, kernel=kernel)
            with pytest.raises(TimeoutError, match="did not answer in time"):
                await other.echo(1)

        asyncio.run(asyncio.wait_for(main(), PATIENCE))


# ============================================================================= 6: silent clients, full workers
@loops
def test_scenario_06_silent_clients_do_not_stall_the_acceptor(loop: str) -> None:
    thing = Thing()
    with Served("tcp4", loop, settings={"THREADPOOL_SIZE": 1, "CALL_QUEUE_SIZE": 10}) as served:
        served.publish(thing)
        silent = [served.peer() for _ in range(30)]
        calls: list[tuple[Any, str]] = []
        if loop == "thread":  # the only worker is busy, and somebody waits for it
            calls.append((in_thread(lambda: served.proxy().slow()), "done"))
            assert thing.entered.acquire(timeout=PATIENCE)
            calls.append((in_thread(lambda: served.proxy().echo("queued")), "queued"))
        peer = served.peer()
        thing.gate.set()
        for call, result in calls:
            assert call.result(PATIENCE) == result
        assert peer.hello().type == CONNECTOK
        with served.proxy() as proxy:
            assert proxy.echo("served") == "served"
        for each in silent:
            assert each.hello().type == CONNECTOK


# ============================================================================= 8: signals and pieces
@posix
@loops
def test_scenario_08_signals_while_sending_and_receiving(loop: str) -> None:
    """System calls are interrupted, in the client and (its loop runs elsewhere) in whatever thread has the signal."""
    came = 0

    def handler(number: int, frame: Any) -> None:
        nonlocal came
        came += 1

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        with Served("tcp4", loop) as served:
            served.publish(Thing())
            with served.proxy() as proxy:
                large = bytes(range(256)) * 20_000
                for number in range(20):
                    assert proxy.echo([number, large]) == [number, large]
                for number in range(300):
                    assert proxy.echo(number) == number
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert came > 5


@loops
def test_scenario_08_everything_comes_in_pieces(loop: str) -> None:
    """A relay that hands on a few bytes at a time, in both directions."""
    with Served("tcp4", loop) as served, socket.create_server(("127.0.0.1", 0)) as listener:
        served.publish(Thing())
        uri = served.daemon.uriFor("thing")
        stop = threading.Event()

        def pump(source: socket.socket, target: socket.socket) -> None:
            pieces = random.Random(8)
            try:
                while data := source.recv(4096):
                    while data:
                        size = pieces.choice((1, 2, 3, 7, 40, 41, 500))
                        target.sendall(data[:size])
                        data = data[size:]
            except OSError:
                pass
            finally:
                stop.set()

        def relay() -> None:
            client, _ = listener.accept()
            with client, socket.create_connection((uri.host, uri.port or 0)) as server:
                for sock in (client, server):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                back = threading.Thread(target=pump, args=(server, client))
                back.start()
                pump(client, server)
                server.shutdown(socket.SHUT_RDWR)
                back.join(PATIENCE)

        relaying = in_thread(relay)
        with Proxy(f"PYRO:thing@127.0.0.1:{listener.getsockname()[1]}", kernel=served.kernel) as proxy:
            for number in range(30):
                assert proxy.echo(["x" * number * 50, number]) == ["x" * number * 50, number]
        relaying.result(PATIENCE)


# ============================================================================= 9: noise
NOISE = [
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),  # the beginning of TLS
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"\0" * 100,
    b"PYRO\x01\xf6" + b"\xff" * 60,
    b"",
]


@loops
@pytest.mark.parametrize("noise", NOISE, ids=["http", "tls", "ssh", "zeros", "nearly", "nothing"])
def test_scenario_09_noise_costs_a_line_in_the_log(loop: str, noise: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with Served("tcp4", loop) as served:
        served.publish(Thing())
        uri = served.daemon.uriFor("thing")
        with caplog.at_level(logging.INFO, "pyroplug"):
            with socket.create_connection((uri.host, uri.port or 0), PATIENCE) as scanner:
                scanner.sendall(noise)
                scanner.shutdown(socket.SHUT_WR)
                scanner.settimeout(PATIENCE)
                try:
                    while scanner.recv(4096):
                        pass
                except ConnectionError:
                    pass
            with served.proxy() as proxy:
                assert proxy.echo("fine") == "fine"
        told = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert len(told) <= 1
        assert all(record.exc_info is None for record in told)


# ============================================================================= killed in every state
PROGRAMS = {
    "connected, and nothing said": "import socket; s = socket.create_connection((uri.host, uri.port or 0)); ready()",
    "half a handshake": "import socket; s = socket.create_connection((uri.host, uri.port or 0)); s.send(b'PYRO\\x01'); ready()",
    "idle": "p.echo(1); ready()",
    "in a call": "p.echo(1); threading.Thread(target=p.slow, daemon=True).start(); ready()",
    "many calls in flight": "p.echo(1); [threading.Thread(target=p.slow, daemon=True).start() for _ in range(5)]; ready()",
    "in the middle of a stream": "items = p.numbers(); next(items); ready()",
    "in the middle of sending": "threading.Thread(target=lambda: p.echo(b'x' * 300_000_000), daemon=True).start(); ready()",
    "a batch on the way": "b = BatchProxy(p); [b.slow() for _ in range(3)]; threading.Thread(target=b, daemon=True).start(); ready()",
}

FRAME = """
import sys, threading, time
from pyroplug.api import BatchProxy, Proxy, URI
uri = URI(sys.argv[1])
p = Proxy(uri)
def ready():
    sys.stdout.write("ready\\n"); sys.stdout.flush()
{program}
time.sleep(1000)
"""


@loops
@pytest.mark.parametrize("state", PROGRAMS)
def test_a_client_that_is_killed_in_any_state(loop: str, state: str) -> None:
    thing = Thing()
    with Served("tcp4", loop) as served:
        served.publish(thing)
        process = subprocess.Popen(
            [sys.executable, "-c", FRAME.format(program=PROGRAMS[state]), str(served.daemon.uriFor("thing"))],
            stdout=subprocess.PIPE,
            text=True,
            env=CLEAN,
        )
        assert process.stdout is not None
        with process.stdout:
            assert process.stdout.readline() == "ready\n"
            if "slow" in PROGRAMS[state]:
                assert thing.entered.acquire(timeout=PATIENCE)
            process.kill()
            process.wait(PATIENCE)
        thing.gate.set()
        with served.proxy() as proxy:
            assert proxy.echo(state) == state
        server: Any = served.daemon.transportServer
        give_up = time.monotonic() + scaled(20)
        while server._links and time.monotonic() < give_up:
            time.sleep(0.005)
        assert not server._links, "the connection of a client that is gone is still there"


SERVER = """
import sys, threading, time
from pyroplug.api import Daemon, Kernel, expose
@expose
class Thing:
    def echo(self, value): return value
    def slow(self): sys.stdout.write("entered\\n"); sys.stdout.flush(); time.sleep(1000)
    def numbers(self):
        n = 0
        while True:
            yield n
            n += 1
with Daemon(host="127.0.0.1", kernel=Kernel(settings={"SERVERTYPE": sys.argv[1]})) as daemon:
    print(daemon.register(Thing(), "thing"), flush=True)
    daemon.requestLoop()
"""


@loops
@pytest.mark.parametrize("state", ["idle", "in a call", "in the middle of a stream", "in the middle of receiving"])
def test_a_server_that_is_killed_in_any_state(loop: str, state: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", SERVER, loop], stdout=subprocess.PIPE, text=True, env=CLEAN)
    assert process.stdout is not None
    try:
        uri = process.stdout.readline().strip()
        kernel = make_kernel()
        with process.stdout, Proxy(uri, kernel=kernel) as proxy:
            assert proxy.echo(1) == 1
            result: Any = None
            items: Any = None
            if state == "in a call":
                result = in_thread(proxy.slow)
                assert process.stdout.readline() == "entered\n"
            elif state == "in the middle of a stream":
                items = proxy.numbers()
                assert next(items) == 0
            elif state == "in the middle of receiving":
                os.kill(process.pid, signal.SIGSTOP)
                result = in_thread(proxy.echo, b"x" * 100_000_000)
            process.kill()
            process.wait(PATIENCE)
            if result is not None:
                with pytest.raises(CommunicationError):
                    result.result(PATIENCE)
            if items is not None:
                with pytest.raises(CommunicationError):
                    for _ in items:
                        pass
            with pytest.raises(CommunicationError):
                proxy.echo(2)
    finally:
        process.kill()
        process.wait(PATIENCE)


# ============================================================================= 15: fifty tasks
@pytest.mark.timeout(600)
def test_scenario_15_fifty_tasks_on_one_proxy() -> None:
    """Fifty thousand calls on one connection, and every task gets its own answers."""
    with Served("tcp4", settings={"SERIALIZER": "msgpack"}) as served:
        served.publish(Thing())

        async def main() -> int:
            async with AsyncProxy(served.daemon.uriFor("thing"), kernel=served.kernel) as proxy:

                async def hammer(who: int) -> int:
                    right = 0
                    for number in range(1000):
                        right += await proxy.echo([who, number]) == [who, number]
                    return right

                return sum(await asyncio.gather(*(hammer(who) for who in range(50))))

        assert asyncio.run(main()) == 50_000
