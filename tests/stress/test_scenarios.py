"""The numbered reliability scenarios of users.md, section 3: one test, or a few, for each number.

The features' own tests look at most of them from closer by; here each is tried as a whole.  Waits are bounded, and
the leak check sees to it that nothing is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import gc
import importlib.util
import itertools
import json
import math
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pyroplug.api import (
    BatchProxy,
    CircularCallError,
    CommunicationError,
    ConfigError,
    ConnectionClosedError,
    ConnectionRefusedByPeer,
    Daemon,
    DaemonError,
    Kernel,
    OverloadError,
    Proxy,
    PyroError,
    RemoteError,
    SerializeError,
    Steps,
    TimeoutError,
    asyncproxy,
    behavior,
    expose,
    oneway,
    ping,
)
from pyroplug.core import proxy as proxy_module
from pyroplug.core.uri import URI
from pyroplug.core.wire import CONNECTFAIL
from pyroplug.plugins.futures import FutureCancelled
from pyroplug.testing.kernels import LOOPS, PATIENCE, Served, make_kernel
from pyroplug.testing.plugins import make_plugin
from pyroplug.testing.transports import in_thread
from testkit.timeouts import scaled

pytestmark = pytest.mark.stress

posix = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no such signals there")
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
loops = pytest.mark.parametrize("loop", LOOPS)

HERE = Path(__file__).parent
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("PYRO_")}


# ============================================================================= what is served
@expose
class Thing:
    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)
        self.seen: list[Any] = []
        self.closed = threading.Semaphore(0)
        self.running = 0
        self.most = 0
        self._change = threading.Condition()

    def echo(self, value: Any = None) -> Any:
        return value

    def slow(self, value: Any = None) -> Any:
        self.entered.release()
        self.gate.wait(PATIENCE)
        return value

    def make(self, size: int) -> bytes:
        return b"m" * size

    @oneway
    def note(self, value: Any) -> None:
        with self._change:
            self.seen.append(value)
            self._change.notify_all()

    @oneway
    def fail_unheard(self) -> None:
        raise ValueError("nobody hears this")

    def wait_for(self, count: int) -> bool:
        with self._change:
            return self._change.wait_for(lambda: len(self.seen) >= count, PATIENCE)

    def numbers(self, count: int) -> Iterator[int]:
        try:
            for number in range(count):
                self.running += 1
                self.most = max(self.most, self.running)
                try:
                    yield number
                finally:
                    self.running -= 1
        finally:
            self.closed.release()

    def fail(self, error: str, *args: Any) -> None:
        raise {
            "ValueError": ValueError,
            "SystemExit": SystemExit,
            "KeyboardInterrupt": KeyboardInterrupt,
            "GeneratorExit": GeneratorExit,
            "CancelledError": asyncio.CancelledError,
            "StopIteration": StopIteration,
            "StopAsyncIteration": StopAsyncIteration,
        }[error](*args)

    def unserialisable(self) -> Any:
        return object()

    def size(self, data: bytes) -> int:
        return len(data)


class ServerProcess:
    """A server in another process, which can be killed, stopped, and started anew at the same place."""

    def __init__(self, loop: str = "thread", **options: Any) -> None:
        self.loop = loop
        self.options = options or {"host": "127.0.0.1", "port": 0}
        self.process: subprocess.Popen[str] | None = None
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "scenario_server.py"), self.loop, json.dumps(self.options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=CLEAN,
        )
        assert self.process.stdout is not None
        self.uri, self.session = (URI(text) for text in json.loads(self.process.stdout.readline()))
        if "port" in self.options:
            self.options["port"] = self.uri.port

    def send_signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        if number == signal.SIGSTOP:
            # a signal takes effect when the process is scheduled: until then it may still answer a call
            os.waitpid(self.process.pid, os.WUNTRACED)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate(timeout=PATIENCE)
            self.process = None

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()


def run_client(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a client's program in a process of its own, to its end."""
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        env=CLEAN,
        timeout=scaled(30),
        check=False,
    )


def eventually(condition: Callable[[], Any]) -> bool:
    """Whether it comes true: for what another thread does and gives no sign of."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def named(prefix: str) -> int:
    return sum(thread.name.startswith(prefix) for thread in threading.enumerate())


@contextlib.contextmanager
def serving(loop: str = "thread", transport: str = "tcp4", **options: Any) -> Iterator[tuple[Served, Thing]]:
    thing = Thing()
    settings = {name: options.pop(name) for name in list(options) if name.isupper()}
    with Served(transport, loop, settings=settings, **options) as served:
        served.publish(thing)
        try:
            yield served, thing
        finally:
            thing.gate.set()


def watch_the_end(served: Served) -> threading.Event:
    """Set when a client has gone."""
    gone = threading.Event()
    served.daemon.clientDisconnect = lambda conn: gone.set()  # type: ignore[method-assign]
    return gone


@pytest.fixture
def quick_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("_base", "thread"):
        monkeypatch.setattr(f"pyroplug.transports.servers.{module}.SWEEP_INTERVAL", 0.02)


@pytest.fixture
def quick_reconnects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_module, "RECONNECT_DELAY", 0.05)


# ============================================================================= connection and framing
@loops
def test_scenario_01_a_late_reply_reaches_nobody(loop: str) -> None:
    with serving(loop) as (served, thing):
        proxy = served.proxy()
        proxy.echo()
        for number in range(5):
            proxy._pyroTimeout = 0.05
            with pytest.raises(TimeoutError):
                proxy.slow(["late", number])
            assert thing.entered.acquire(timeout=PATIENCE)
            thing.gate.set()  # the late reply is on its way
            proxy._pyroTimeout = PATIENCE
            assert [proxy.echo(n) for n in range(3)] == [0, 1, 2]
            thing.gate.clear()


@posix
@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals for threads there")
def test_scenario_01_a_signal_in_the_middle_of_a_call() -> None:
    class Interrupted(Exception):
        pass

    def interrupt(number: int, frame: Any) -> None:
        raise Interrupted

    assert threading.current_thread() is threading.main_thread()
    main = threading.main_thread().ident
    assert main is not None
    previous = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with serving() as (served, thing):
            proxy = served.proxy()

            def strike() -> None:
                assert thing.entered.acquire(timeout=PATIENCE)
                signal.pthread_kill(main, signal.SIGUSR1)

            for number in range(5):
                striking = in_thread(strike)
                with pytest.raises(Interrupted):
                    proxy.slow(["lost", number])
                striking.result(PATIENCE)
                thing.gate.set()
                assert [proxy.echo(n) for n in range(3)] == [0, 1, 2]
                thing.gate.clear()
    finally:
        signal.signal(signal.SIGUSR1, previous)


@loops
@pytest.mark.usefixtures("quick_sweeps")
def test_scenario_02_byte_by_byte_and_then_nothing(loop: str) -> None:
    with serving(loop, HANDSHAKE_TIMEOUT=0.3, STALL_TIMEOUT=0.3, POLLTIMEOUT=0.02) as (served, _):
        others = served.proxy()
        others.echo()
        greeting, calling = served.peer(), served.peer()
        calling.hello()
        for byte in greeting.connect_message()[:60]:
            greeting.send(bytes([byte]))
        for byte in calling.call_message("thing", "echo", "x" * 100)[:60]:
            calling.send(bytes([byte]))
        started = time.monotonic()
        assert others.echo("meanwhile") == "meanwhile"
        frame = greeting.message()
        assert frame.type == CONNECTFAIL
        assert b"timeout" in bytes(frame.payload)
        assert greeting.ended()
        assert calling.ended()
        assert time.monotonic() - started < scaled(5)
        assert others.echo("after") == "after"


@loops
def test_scenario_03_large_bodies_both_ways_at_once(loop: str) -> None:
    """32 MB each way for each client; one sends its second request before it has read the first reply."""
    size = 32 << 20
    data = b"d" * size
    with serving(loop, SERIALIZER="msgpack") as (served, _):
        started = time.monotonic()

        def ordinary() -> bool:
            return bool(served.proxy().echo(data) == data)

        def eager() -> list[int]:
            peer = served.peer()
            peer.hello(serializer="msgpack")
            requests = [peer.call_message("thing", "echo", data, serializer="msgpack") for _ in range(2)]
            sending = in_thread(peer.send, requests)
            sizes = [len(peer.message().payload) for _ in requests]
            sending.result(PATIENCE)
            return sizes

        clients = [in_thread(ordinary), in_thread(ordinary)]
        assert all(count >= size for count in in_thread(eager).result(scaled(30)))
        assert all(client.result(scaled(30)) for client in clients)
        assert time.monotonic() - started < scaled(30)
        assert served.proxy().echo(1) == 1


@posix
@loops
def test_scenario_04_a_server_that_has_fallen_silent(loop: str) -> None:
    """No end of the connection is seen (the server is stopped).  Today ``_pyroTimeout`` tells; heartbeats come later."""
    with ServerProcess(loop) as server, Proxy(server.uri, kernel=make_kernel()) as proxy:
        assert proxy.echo(1) == 1
        proxy._pyroTimeout = 0.3
        server.send_signal(signal.SIGSTOP)
        try:
            started = time.monotonic()
            with pytest.raises(TimeoutError):
                proxy.echo(2)
            assert 0.2 < time.monotonic() - started < scaled(3)
        finally:
            server.send_signal(signal.SIGCONT)
        proxy._pyroTimeout = PATIENCE
        assert proxy.echo(3) == 3


@posix
@loops
@pytest.mark.usefixtures("quick_sweeps")
def test_scenario_04_a_client_that_has_fallen_silent(loop: str) -> None:
    """The client's process is stopped: COMMTIMEOUT lets it go, and STALL_TIMEOUT one that is inside a message.

    That is what there is today; heartbeats, which tell the dead from the idle, come later.
    """
    program = (
        "import os, signal, sys; from pyroplug.api import Proxy\n"
        "proxy = Proxy(sys.argv[1]); proxy.echo(1); os.kill(os.getpid(), signal.SIGSTOP)"
    )
    with serving(loop, COMMTIMEOUT=0.3, POLLTIMEOUT=0.02) as (served, _):
        gone = watch_the_end(served)
        with subprocess.Popen([sys.executable, "-c", program, str(served.daemon.uriFor("thing"))], env=CLEAN) as client:
            try:
                assert gone.wait(scaled(20))  # mostly the start of that process
                assert client.poll() is None
            finally:
                client.kill()
    with serving(loop, STALL_TIMEOUT=0.2, POLLTIMEOUT=0.02) as (served, _):
        gone = watch_the_end(served)
        idle, stalled = served.proxy(), served.peer()
        idle.echo()
        connection = idle._pyroConnection
        stalled.hello()
        started = time.monotonic()
        stalled.send(stalled.call_message("thing", "echo", "x" * 100)[:60])
        assert gone.wait(PATIENCE)
        assert time.monotonic() - started < scaled(3)
        assert idle.echo(2) == 2
        assert idle._pyroConnection is connection


@loops
@pytest.mark.usefixtures("quick_reconnects")
def test_scenario_10_a_restarted_server_knows_nothing_of_before(loop: str) -> None:
    kernel = make_kernel()
    with ServerProcess(loop) as server, Proxy(server.session, kernel=kernel) as proxy:
        assert [proxy.next() for _ in range(3)] == [1, 2, 3]
        server.kill()
        with pytest.raises(ConnectionClosedError):
            proxy.next()
        server.start()
        proxy._pyroReconnect(tries=20)
        assert [proxy.next(), proxy.next()] == [1, 2]


@loops
@pytest.mark.usefixtures("quick_reconnects")
def test_scenario_11_five_hundred_clients_reconnect_at_once(loop: str) -> None:
    """They begin while the server is still down, and all of them get in."""
    kernel = make_kernel()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(ServerProcess(loop))
        proxies = [stack.enter_context(Proxy(server.uri, kernel=kernel)) for _ in range(500)]
        for proxy in proxies:
            proxy._pyroBind()
        server.kill()
        begin = threading.Barrier(501)

        def client(number: int) -> Any:
            proxy = proxies[number]
            begin.wait(scaled(30))
            with pytest.raises(CommunicationError):
                proxy.echo("lost")
            proxy._pyroReconnect(tries=400)
            return proxy.echo(number)

        with ThreadPoolExecutor(500) as pool:
            answers = [pool.submit(client, number) for number in range(500)]
            begin.wait(scaled(30))
            server.start()
            assert [answer.result(scaled(30)) for answer in answers] == list(range(500))


@loops
def test_scenario_12_request_numbers_wrap_around(loop: str) -> None:
    """Hundreds are outstanding at any time; one of the loops gets more than 65 536 calls on one connection."""
    with serving(loop, transport="memory") as (served, _):
        peer = served.peer()
        peer.hello()
        window = 500
        begin = 0 if loop == "thread" else 60_000
        total = 66_000 - begin
        peer.seq = begin
        sent = 0

        def more() -> bytes:
            nonlocal sent
            sent += window
            return b"".join(peer.call_message("thing", "echo") for _ in range(window))

        outstanding = [more()]
        sending = in_thread(peer.send, outstanding[0])
        received = 0
        while received < total:
            sending.result(PATIENCE)
            if sent < total:
                sending = in_thread(peer.send, more())
            for _ in range(window):
                received += 1
                assert peer.message().seq == (begin + received) & 0xFFFF
        assert sent == total


@posix
@loops
def test_scenario_13_a_socket_file_with_blanks_that_a_killed_server_left(loop: str, tmp_path: Path) -> None:
    path = tmp_path / "a socket of mine"
    kernel = make_kernel()
    with ServerProcess(loop, unixsocket=str(path)) as server:
        for _ in range(2):
            assert server.uri.sockname == str(path)
            with Proxy(str(server.uri), kernel=kernel) as proxy:
                assert proxy.echo("x") == "x"
                server.kill()
                assert path.is_socket()  # nobody cleaned up
                with pytest.raises(CommunicationError):
                    proxy.echo("y")
            server.start()
    path.unlink()


@loops
@pytest.mark.parametrize("transport", ["unix", "tcp4"])
def test_scenario_13_peers_that_are_gone_before_they_are_accepted(loop: str, transport: str, tmp_path: Path) -> None:
    with serving(loop, transport=transport, folder=tmp_path, start=False) as (served, _):
        address = served.daemon.sock.getsockname()
        for number in range(50):
            with socket.socket(served.daemon.sock.family, socket.SOCK_STREAM) as client:
                client.connect(address)
                if transport == "tcp4" and number % 2:  # goes with a reset, so that getpeername fails
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        served.start()
        assert served.proxy().echo("still here") == "still here"


@loops
def test_scenario_14_the_same_port_at_once(loop: str) -> None:
    """The server hangs up first, so that its end of each connection is in TIME_WAIT."""
    port = 0
    kernel = make_kernel(SERVERTYPE=loop)
    for _ in range(5):
        with Daemon("127.0.0.1", port, kernel=kernel) as daemon:
            uri = daemon.register(Thing(), "thing")
            assert uri.port
            assert uri.port == (port or uri.port)
            port = uri.port
            running = in_thread(daemon.requestLoop)
            clients = [Proxy(uri, kernel=kernel) for _ in range(5)]
            assert [client.echo(1) for client in clients] == [1] * 5
            daemon.shutdown()
            running.result(PATIENCE)
            for client in clients:
                client._pyroRelease()


# ============================================================================= threads and deadlocks
@loops
def test_scenario_15_fifty_threads_and_fifty_tasks_on_one_proxy(loop: str) -> None:
    with serving(loop) as (served, _):
        proxy = served.proxy()
        later = asyncproxy(proxy)
        begin = threading.Barrier(51)

        def thread(number: int) -> list[Any]:
            begin.wait(PATIENCE)
            return [proxy.echo(["thread", number, call]) for call in range(10)]

        async def task(number: int) -> list[Any]:
            return [await later.echo(["task", number, call]) for call in range(10)]

        async def tasks() -> list[list[Any]]:
            return list(await asyncio.gather(*(task(number) for number in range(50))))

        with ThreadPoolExecutor(50) as pool:
            threads = [pool.submit(thread, number) for number in range(50)]
            begin.wait(PATIENCE)
            answers = asyncio.run(tasks())
            for number, waiting in enumerate(threads):
                assert waiting.result(PATIENCE) == [["thread", number, call] for call in range(10)]
        for number, answer in enumerate(answers):
            assert answer == [["task", number, call] for call in range(10)]
        later._pyroRelease()
        with later:
            pass


@loops
def test_scenario_16_one_thread_reconnects_while_others_call(loop: str) -> None:
    with serving(loop) as (served, _):
        proxy = served.proxy()
        stop = threading.Event()

        def disturb() -> int:
            for count in itertools.count(1):
                proxy._pyroRelease()
                proxy._pyroReconnect(tries=3)
                if stop.is_set():
                    return count
            raise AssertionError

        def call(number: int) -> bool:
            return all(proxy.echo([number, call]) == [number, call] for call in range(40))

        disturbing = in_thread(disturb)
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(call, range(8)))
        stop.set()
        assert disturbing.result(PATIENCE) > 0
        assert proxy.echo(1) == 1


@expose
class Hop:
    """Calls the next one, with a proxy for this call."""

    def __init__(self) -> None:
        self.next: Callable[[], Proxy] | None = None
        self.limit: float | None = None

    def around(self, hops: int) -> int:
        if not hops:
            return 0
        assert self.next is not None
        with self.next() as other:
            other._pyroTimeout = self.limit
            return 1 + int(other.around(hops - 1))


@contextlib.contextmanager
def ring(size: int, loop: str, limit: float | None = None) -> Iterator[list[Served]]:
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(Served("tcp4", loop)) for _ in range(size)]
        for number, served in enumerate(servers):
            hop = Hop()
            hop.next, hop.limit = servers[(number + 1) % size].proxy, limit
            served.publish(hop)
        yield servers


@pytest.mark.parametrize("size", [2, 3])
def test_scenario_17_circles_complete(size: int) -> None:
    with ring(size, "thread") as servers:
        proxy = servers[0].proxy()
        proxy._pyroTimeout = PATIENCE
        assert proxy.around(3 * size) == 3 * size


@pytest.mark.parametrize("size", [2, 3])
def test_scenario_17_circles_that_cannot_complete_end_in_time(size: int) -> None:
    with ring(size, "multiplex", limit=0.2) as servers:
        started = time.monotonic()
        with pytest.raises(CircularCallError, match="SERVERTYPE=thread"):
            servers[0].proxy().around(size)
        assert time.monotonic() - started < scaled(5)
        assert servers[0].proxy().around(0) == 0


def test_scenario_18_two_threads_cross_two_connections() -> None:
    """One calls A and, in that, B; the other B and, in that, A, at the same time and over proxies that they share."""
    with ring(2, "thread") as servers:
        shared = [served.proxy() for served in servers]
        begin = threading.Barrier(2)

        def cross(first: int) -> int:
            begin.wait(PATIENCE)
            return sum(int(shared[(first + step) % 2].around(2)) for step in range(50))

        jobs = [in_thread(cross, first) for first in (0, 1)]
        assert [job.result(scaled(20)) for job in jobs] == [100, 100]


def test_scenario_19_a_callback_into_a_client_that_holds_a_lock() -> None:
    """What does not want the lock completes; what wants it ends by a time limit, with a named error."""
    lock = threading.Lock()

    @expose
    class Listener:
        def free(self) -> str:
            return "free"

        def locked(self) -> str:
            with lock:
                return "locked"

    @expose
    class Caller:
        def call(self, listener: Proxy, method: str) -> Any:
            with listener:
                return getattr(listener, method)()

    with Served("tcp4") as served, Served("tcp4") as mine:
        served.publish(Caller())
        mine.publish(Listener(), "listener")
        proxy, listener = served.proxy(), mine.daemon.proxyFor("listener")
        with lock:
            assert proxy.call(listener, "free") == "free"
            proxy._pyroTimeout = 0.3
            with pytest.raises(TimeoutError):
                proxy.call(listener, "locked")
        proxy._pyroTimeout = PATIENCE
        assert proxy.call(listener, "locked") == "locked"


@loops
def test_scenario_20_finalizers_in_the_middle_of_a_send(loop: str) -> None:
    """The collector finds a stream and a proxy when half of a request is sent over the stream's connection."""
    with serving(loop) as (served, thing):
        proxy = served.proxy()
        proxy._pyroBind()
        connection = proxy._pyroConnection
        assert connection is not None
        original = connection.stream
        found: list[weakref.ref[Any]] = []

        def garbage() -> None:
            other = Proxy(served.daemon.uriFor("thing"), kernel=served.kernel)
            other.echo()
            items = proxy.numbers(100)
            next(items)
            circle: list[Any] = [other, items]
            circle.append(circle)
            found.extend(map(weakref.ref, (other, items)))

        class Halting:
            def __getattr__(self, name: str) -> Any:
                return getattr(original, name)

            def send(self, data: Any) -> int:
                sent = original.send(bytes(memoryview(data).cast("B")[:20]))
                gc.collect()
                return int(sent)

        for number in range(5):
            gc.disable()
            try:
                garbage()
                stand_in: Any = Halting()
                connection.stream = stand_in
                assert proxy.echo(["whole", number]) == ["whole", number]
                connection.stream = original
            finally:
                gc.enable()
            assert [ref() for ref in found] == [None] * len(found)
            assert proxy.echo(number) == number
            assert thing.closed.acquire(timeout=PATIENCE)
        assert proxy._pyroConnection is connection


@loops
def test_scenario_21_the_last_one_to_know_a_proxy_is_another_thread(loop: str) -> None:
    with serving(loop) as (served, _):
        gone = watch_the_end(served)
        proxies = [Proxy(served.daemon.uriFor("thing"), kernel=served.kernel)]
        proxies[0].echo(1)
        dropping = in_thread(proxies.clear)
        dropping.result(PATIENCE)
        assert gone.wait(PATIENCE)
        assert served.proxy().echo(2) == 2


def test_scenario_21_proxies_at_the_end_of_the_interpreter() -> None:
    program = """
import sys, threading
from pyroplug.api import Proxy, asyncproxy
keep = [Proxy(sys.argv[1]) for _ in range(3)]
keep[0].echo(1)
keep.append(keep)                   # a circle: collected last, when modules are gone
keep.append(keep[1].numbers(100))   # a stream with items left
next(keep[-1])
later = asyncproxy(keep[2])
keep.append(later.echo(2).value)
holder = threading.Thread(target=lambda proxy: (proxy.echo(3), threading.Event().wait()), args=(Proxy(sys.argv[1]),))
holder.daemon = True
holder.start()
sys.keeper = Proxy(sys.argv[1])     # outlives the module
sys.keeper.echo(4)
print("end")
"""
    with ServerProcess() as server:
        done = run_client(program, str(server.uri))
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("end", "", 0)


def test_scenario_22_a_full_pool_refuses_or_queues_and_recovers() -> None:
    with serving(THREADPOOL_SIZE=2, THREADPOOL_SIZE_MIN=1, CALL_QUEUE_SIZE=1) as (served, thing):
        busy = [served.proxy() for _ in range(2)]
        waiting, refused = served.proxy(), served.proxy()
        for proxy in (*busy, waiting, refused):
            proxy.echo()
        calls = [in_thread(proxy.slow, number) for number, proxy in enumerate(busy)]
        for _ in calls:
            assert thing.entered.acquire(timeout=PATIENCE)
        queue: Any = served.daemon.transportServer
        third = in_thread(waiting.echo, "queued")
        assert eventually(lambda: len(queue._queue) == 1)
        with pytest.raises(OverloadError):
            refused.echo("too much")
        assert not third.done()
        thing.gate.set()
        assert [call.result(PATIENCE) for call in calls] == [0, 1]
        assert third.result(PATIENCE) == "queued"
        assert [proxy.echo(1) for proxy in (*busy, waiting, refused)] == [1] * 4


@loops
def test_scenario_22_who_waits_in_the_queue_has_a_deadline(loop: str) -> None:
    with serving(loop, THREADPOOL_SIZE=1, CALL_QUEUE_SIZE=100) as (served, thing):
        busy, patient = served.proxy(), served.proxy()
        patient.echo()
        running = in_thread(busy.slow, "done")
        assert thing.entered.acquire(timeout=PATIENCE)
        patient._pyroTimeout = 0.1
        with pytest.raises(TimeoutError):
            patient.echo(1)
        thing.gate.set()
        assert running.result(PATIENCE) == "done"
        patient._pyroTimeout = PATIENCE
        assert patient.echo(2) == 2


@linux
@loops
def test_scenario_23_ten_thousand_oneway_calls(loop: str) -> None:
    """In their order, few threads, little memory, and each error is told."""
    with serving(loop) as (served, thing):
        errors = itertools.count()
        told = threading.Semaphore(0)

        def handler(*args: Any) -> None:
            next(errors)
            told.release()

        served.daemon.methodcall_error_handler = handler
        proxy = served.proxy()
        proxy.echo()
        before, most = resident(), 0
        for number in range(10_000):
            proxy.note(number)
            if number % 1000 == 0:
                proxy.fail_unheard()
                most = max(most, named("pyroplug-oneway"))
        assert thing.wait_for(10_000)
        for _ in range(10):
            assert told.acquire(timeout=PATIENCE)
        assert thing.seen == list(range(10_000))
        assert next(errors) == 10
        assert most <= 16
        assert resident() - before < 64 << 20


def test_scenario_24_fifty_first_calls_make_one_single_instance() -> None:
    made: list[object] = []

    def slowly(cls: Callable[[], Any]) -> Any:
        threading.Event().wait(0.02)
        return cls()

    @expose
    @behavior("single", slowly)
    class Single:
        def __init__(self) -> None:
            made.append(self)

        def which(self) -> int:
            return made.index(self)

    with Served("tcp4") as served:
        served.publish(Single)
        proxies = [served.proxy() for _ in range(50)]
        begin = threading.Barrier(50)

        def call(proxy: Proxy) -> Any:
            proxy._pyroBind()
            begin.wait(PATIENCE)
            return proxy.which()

        with ThreadPoolExecutor(50) as pool:
            assert list(pool.map(call, proxies)) == [0] * 50
        assert len(made) == 1


@loops
def test_scenario_25_several_threads_on_one_remote_generator(loop: str) -> None:
    with serving(loop, ITER_STREAM_CHUNK=5) as (served, thing):
        items = served.proxy().numbers(2000)
        begin = threading.Barrier(4)

        def fetch(_: int) -> list[int]:
            begin.wait(PATIENCE)
            return list(items)

        with ThreadPoolExecutor(4) as pool:
            parts = list(pool.map(fetch, range(4)))
        assert sorted(itertools.chain(*parts)) == list(range(2000))
        assert all(part == sorted(part) for part in parts)
        assert thing.most == 1


def test_scenario_26_a_blocking_method_stops_nobody_else() -> None:
    """With the thread loop: neither the pings of others nor their calls, nor those who come now."""
    with serving() as (served, thing):
        busy, other = served.proxy(), served.proxy()
        other.echo()
        running = in_thread(busy.slow, "done")
        assert thing.entered.acquire(timeout=PATIENCE)
        started = time.monotonic()
        for number in range(50):
            ping(other)
            assert other.echo(number) == number
            with served.proxy() as newcomer:
                assert newcomer.echo(number) == number
        assert time.monotonic() - started < scaled(5)
        assert not running.done()
        thing.gate.set()
        assert running.result(PATIENCE) == "done"


@pytest.mark.skipif(importlib.util.find_spec("gevent") is None, reason="needs gevent")
@loops
def test_scenario_27_a_process_that_gevent_has_patched(loop: str) -> None:
    """As client of another process, and as server and clients in one."""
    program = """
from gevent import monkey
monkey.patch_all()
import sys
import gevent
from pyroplug.api import Daemon, Kernel, Proxy, expose
class Thing:
    @expose
    def echo(self, value): return value
def client(uri, number):
    with Proxy(uri, kernel=kernel) as proxy:
        proxy._pyroTimeout = 10
        return [proxy.echo([number, call]) for call in range(10)] == [[number, call] for call in range(10)]
kernel = Kernel(settings={"SERVERTYPE": sys.argv[2]})
with Daemon("127.0.0.1", kernel=kernel) as daemon:
    mine = daemon.register(Thing())
    serving = gevent.spawn(daemon.requestLoop)
    clients = [gevent.spawn(client, uri, number) for uri in (mine, sys.argv[1]) for number in range(10)]
    print(all(each.get(timeout=20) for each in clients))
    daemon.shutdown()
    serving.get(timeout=10)
kernel.close()
"""
    with serving(loop) as (served, _):
        done = run_client(program, str(served.daemon.uriFor("thing")), loop)
        if loop == "asyncio":  # what it needs is what gevent takes away, and that is said
            assert "needs epoll or kqueue" in done.stderr
            assert "gevent" in done.stderr
            return
        assert (done.stdout.strip(), done.stderr, done.returncode) == ("True", "", 0)


@loops
def test_scenario_28_shutdown_when_a_client_goes(loop: str) -> None:
    """``clientDisconnect`` runs in a thread of the loop, which cannot wait for its own end."""
    with serving(loop) as (served, _):
        took: list[float] = []
        told = threading.Event()

        def gone(conn: Any) -> None:
            if not took:
                started = time.monotonic()
                took.append(0)
                served.daemon.shutdown()
                took[0] = time.monotonic() - started
                told.set()

        served.daemon.clientDisconnect = gone  # type: ignore[method-assign]
        proxy, other = served.proxy(), served.proxy()
        assert [proxy.echo(1), other.echo(2)] == [1, 2]
        proxy._pyroRelease()
        assert told.wait(PATIENCE)
        assert took[0] < scaled(2)  # SHUTDOWN_TIMEOUT is 5
        assert served.join(scaled(3))
        with pytest.raises(CommunicationError):
            other.echo()


SHUTDOWNS: dict[str, Callable[[Served], Any]] = {
    "another thread": lambda served: in_thread(served.daemon.shutdown).result(PATIENCE),
    "a call": lambda served: served.proxy("stopper").stop(),
    "twice": lambda served: (served.daemon.shutdown(), served.daemon.shutdown()),  # type: ignore[func-returns-value]
    "two threads": lambda served: [
        job.result(PATIENCE) for job in [in_thread(served.daemon.shutdown) for _ in range(2)]
    ],
}


@loops
@pytest.mark.parametrize("way", SHUTDOWNS)
def test_scenario_28_shutdown_from(loop: str, way: str) -> None:
    class Stopper:
        @expose
        def stop(self) -> str:
            served.daemon.shutdown()
            return "stopping"

    with serving(loop) as (served, _):
        served.publish(Stopper(), "stopper")
        proxy = served.proxy()
        assert proxy.echo(1) == 1
        started = time.monotonic()
        SHUTDOWNS[way](served)
        assert served.join()
        served.daemon.shutdown()  # after the end
        assert time.monotonic() - started < scaled(3)  # SHUTDOWN_TIMEOUT is 5
        assert served.daemon.abandoned == []
        with pytest.raises(CommunicationError):
            proxy.echo(2)


@loops
def test_scenario_29_after_shutdown_nothing_answers(loop: str) -> None:
    """Not for those that were connected, and not for newcomers."""
    with serving(loop) as (served, _):
        proxies = [served.proxy() for _ in range(5)]
        for number, proxy in enumerate(proxies):
            assert proxy.echo(number) == number
        served.daemon.shutdown()
        for proxy in (*proxies, served.proxy()):
            with pytest.raises(CommunicationError):
                proxy.echo("too late")


def test_scenario_30_what_runs_is_answered_and_what_comes_is_refused() -> None:
    with serving(THREADPOOL_SIZE=2, THREADPOOL_SIZE_MIN=1) as (served, thing):
        busy, others = [served.proxy() for _ in range(2)], [served.proxy() for _ in range(3)]
        for proxy in (*busy, *others):
            proxy.echo()
        running = [in_thread(proxy.slow, number) for number, proxy in enumerate(busy)]
        for _ in running:
            assert thing.entered.acquire(timeout=PATIENCE)
        loop: Any = served.daemon.transportServer
        queued = in_thread(others[0].echo, "queued")
        assert eventually(lambda: len(loop._queue) == 1)
        ending = in_thread(served.daemon.shutdown)
        with pytest.raises(OverloadError, match="shutting down; this call was not executed"):
            queued.result(PATIENCE)
        for proxy in others[1:]:
            with pytest.raises(OverloadError, match="shutting down"):
                proxy.echo("now")
        with pytest.raises(CommunicationError, match="shutting down"):
            served.proxy().echo("a newcomer")
        assert not ending.done()
        thing.gate.set()
        assert [call.result(PATIENCE) for call in running] == [0, 1]
        ending.result(PATIENCE)
        assert served.daemon.abandoned == []


@loops
def test_scenario_31_a_method_that_does_not_end(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    """``shutdown`` returns by its deadline and names the call; its client is told that the connection has gone."""
    with serving(loop, SHUTDOWN_TIMEOUT=0.3) as (served, thing):
        proxy, other = served.proxy(), served.proxy()
        assert [proxy.echo(1), other.echo(2)] == [1, 2]
        call = in_thread(proxy.slow)
        assert thing.entered.acquire(timeout=PATIENCE)
        if loop == "thread":
            assert other.echo(3) == 3
        started = time.monotonic()
        served.daemon.shutdown()
        assert time.monotonic() - started < scaled(2)
        (abandoned,) = served.daemon.abandoned
        assert "thing.slow" in abandoned
        assert "thing.slow" in caplog.text
        assert "SHUTDOWN_TIMEOUT" in caplog.text
        assert isinstance(call.exception(PATIENCE), CommunicationError)
        thing.gate.set()


# ============================================================================= processes, pickling
def test_scenario_38_looking_at_a_proxy_touches_no_network() -> None:
    import copy
    import doctest
    import inspect

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        kernel = make_kernel()
        proxy = Proxy(f"PYRO:thing@127.0.0.1:{server.getsockname()[1]}", kernel=kernel)
        for other in (copy.copy(proxy), copy.deepcopy(proxy), pickle.loads(pickle.dumps(proxy))):
            assert other == proxy
            assert hash(other) == hash(proxy)
        assert bool(proxy)
        assert "not connected" in repr(proxy)
        assert not hasattr(proxy, "__wrapped__")
        assert not hasattr(proxy, "__array_interface__")
        assert not inspect.isawaitable(proxy)
        assert not inspect.isgenerator(proxy)
        assert inspect.unwrap(proxy) is proxy  # type: ignore[arg-type]
        module = type(sys)("with_a_proxy")
        module.__dict__["proxy"] = proxy
        doctest.DocTestFinder().find(module)
        with pytest.raises(BlockingIOError):
            server.accept()


@loops
def test_scenario_39_a_pickled_proxy_in_a_third_process(loop: str) -> None:
    """The first holder has let go before the other one connects; the target is still there."""
    program = """
import pickle, sys
proxy = pickle.load(sys.stdin.buffer)
with proxy:
    sys.stdout.write(str(proxy.echo("from afar")))
"""
    with serving(loop) as (served, _):
        proxy = served.proxy()
        proxy.echo()
        data = pickle.dumps(proxy)
        proxy._pyroRelease()
        del proxy
        gc.collect()
        done = subprocess.run(
            [sys.executable, "-c", program], input=data, capture_output=True, env=CLEAN, timeout=scaled(30), check=False
        )
        assert (done.stdout, done.stderr, done.returncode) == (b"from afar", b"", 0)
        assert served.proxy().echo(1) == 1


@linux
def test_scenario_40_a_forking_server_leaves_no_zombies_and_no_descriptors() -> None:
    """Each child serves one client over the socket it was given, and ends when that client goes."""
    count = 30
    with subprocess.Popen(
        [sys.executable, str(HERE / "scenario_forking.py"), str(count)], stdout=subprocess.PIPE, text=True, env=CLEAN
    ) as server:
        try:
            assert server.stdout is not None
            port = json.loads(server.stdout.readline())
            kernel = make_kernel()
            pids = set()
            for _ in range(count):
                with Proxy(f"PYRO:worker@127.0.0.1:{port}", kernel=kernel) as proxy:
                    proxy._pyroTimeout = PATIENCE
                    pids.add(proxy.pid())
            text, _ = server.communicate(timeout=scaled(20))
        finally:
            server.kill()
    left: Mapping[str, Any] = json.loads(text)
    assert len(pids) == count
    assert left["reaped"] == [0] * count
    assert left["after"] == left["before"]
    assert left["most"] <= left["before"] + 1


# ============================================================================= memory and lifetime
@linux
@loops
def test_scenario_41_thousands_of_connections_leave_nothing(loop: str) -> None:
    """Connect, call, close, and connect to where nobody listens; for so long, or so many times."""
    with serving(loop) as (served, _), socket.create_server(("127.0.0.1", 0)) as nobody:
        uri = served.daemon.uriFor("thing")
        dead = f"PYRO:thing@127.0.0.1:{nobody.getsockname()[1]}"
        nobody.close()

        def cycles(count: int, seconds: float) -> int:
            end = time.monotonic() + seconds
            for number in range(count):
                with Proxy(uri, kernel=served.kernel) as proxy:
                    assert proxy.echo(number) == number
                if number % 10 == 0:
                    with pytest.raises(CommunicationError):
                        Proxy(dead, kernel=served.kernel).echo()
                if time.monotonic() > end:
                    return number + 1
            return count

        gone = itertools.count()

        def count_it(conn: Any) -> None:
            next(gone)

        served.daemon.clientDisconnect = count_it  # type: ignore[method-assign]
        warm = cycles(300, scaled(5))
        assert eventually(lambda: _peek(gone) >= warm)
        gc.collect()
        before = (descriptors(), threading.active_count(), resident())
        more = cycles(3000, scaled(2))
        assert more > 100
        assert eventually(lambda: _peek(gone) >= warm + more)
        gc.collect()
        after = (descriptors(), threading.active_count(), resident())
        assert after[0] <= before[0] + 2
        assert after[1] <= before[1] + 2
        assert after[2] - before[2] < 16 << 20


def _peek(counter: itertools.count[int]) -> int:
    """How often a counter was asked."""
    return int(repr(counter)[6:-1])


def test_scenario_42_an_error_keeps_no_proxy_alive() -> None:
    with serving() as (served, _):
        gc.disable()
        try:
            for number in range(20):
                proxy = Proxy(served.daemon.uriFor("thing"), kernel=served.kernel)
                alive = weakref.ref(proxy)
                args: tuple[Any, ...] = ()
                try:  # pytest.raises would keep the traceback itself
                    proxy.fail("ValueError", number)
                except ValueError as error:
                    args = error.args
                assert args == (number,)
                del proxy
                assert alive() is None
        finally:
            gc.enable()


@expose
class Item:
    def __init__(self) -> None:
        self.reaped = threading.Event()

    def name(self) -> str:
        return "item"

    def _gotReaped(self) -> None:
        self.reaped.set()


@expose
class Shop:
    def __init__(self, served: Served) -> None:
        self.daemon = served.daemon
        self.items: list[Item] = []

    def buy(self) -> Item:
        item = Item()
        self.items.append(item)
        self.daemon.register(item, lifetime="session")
        return item

    def same(self) -> Item:
        return self.items[-1]


@loops
def test_scenario_43_temporary_objects_go_with_the_session(loop: str) -> None:
    with Served("tcp4", loop) as served:
        shop = Shop(served)
        served.publish(shop, "shop")
        owner, other = served.proxy("shop"), served.proxy("shop")
        for _ in range(20):
            with owner.buy() as stub:
                assert stub.name() == "item"
        with other.buy() as kept:
            owner._pyroRelease()
            for item in shop.items[:20]:
                assert item.reaped.wait(PATIENCE)
            assert kept.name() == "item"
            assert eventually(lambda: len([name for name in served.daemon.objectsById if name.startswith("obj_")]) == 1)


def test_scenario_44_futures_nobody_reads() -> None:
    with serving() as (served, _):
        later = asyncproxy(served.proxy())
        dropped = [weakref.ref(later.echo("x" * 100)) for _ in range(30)]
        dropped += [weakref.ref(later.fail("ValueError")) for _ in range(30)]
        assert later.echo("last").value == "last"

        def gone() -> bool:
            later.echo().wait(PATIENCE)  # a worker forgets its job when it has another one
            gc.collect()
            return not any(ref() is not None for ref in dropped)

        assert eventually(gone)
        with later:
            pass


def test_scenario_45_one_object_returned_by_many_threads() -> None:
    """One registration; it stays while its owner does, whoever else comes and goes."""
    with Served("tcp4") as served:
        shop = Shop(served)
        served.publish(shop, "shop")
        owner = served.proxy("shop")
        with owner.buy() as stub:

            def use(_: int) -> list[str]:
                names = []
                for _ in range(10):
                    with served.proxy("shop") as proxy, proxy.same() as same:
                        names.append(same._pyroUri.object if same.name() == "item" else "?")
                return names

            with ThreadPoolExecutor(8) as pool:
                assert set(itertools.chain(*pool.map(use, range(8)))) == {stub._pyroUri.object}
            assert not shop.items[0].reaped.is_set()
            assert stub.name() == "item"
            owner._pyroRelease()
            assert shop.items[0].reaped.wait(PATIENCE)
            with pytest.raises(DaemonError, match="unknown object"):
                stub.name()


@loops
def test_scenario_46_a_stream_that_its_reader_leaves(loop: str) -> None:
    with serving(loop, ITER_STREAM_CHUNK=5) as (served, thing):
        with served.proxy() as proxy:
            for item in proxy.numbers(10_000):
                if item == 20:
                    break
            gc.collect()
            assert proxy.echo(1) == 1
        assert thing.closed.acquire(timeout=PATIENCE)
        assert not thing.running


@posix
@loops
def test_scenario_46_a_stream_whose_reader_is_killed(loop: str) -> None:
    program = (
        "import os, signal, sys; from pyroplug.api import Proxy\n"
        "items = Proxy(sys.argv[1]).numbers(100000); next(items); os.kill(os.getpid(), signal.SIGKILL)"
    )
    with serving(loop, ITER_STREAM_LINGER=0, ITER_STREAM_CHUNK=5) as (served, thing):
        assert run_client(program, str(served.daemon.uriFor("thing"))).returncode == -signal.SIGKILL
        assert thing.closed.acquire(timeout=PATIENCE)
        assert served.proxy().echo(1) == 1


def test_scenario_47_unregistered_while_a_call_runs() -> None:
    with serving() as (served, thing):
        proxy = served.proxy()
        running = in_thread(proxy.slow, "done")
        assert thing.entered.acquire(timeout=PATIENCE)
        served.daemon.unregister(thing)
        thing.gate.set()
        assert running.result(PATIENCE) == "done"
        with pytest.raises(DaemonError, match="unknown object"):
            proxy.echo()


def test_scenario_47_a_weak_object_dies_while_it_is_called() -> None:
    """Each call succeeds or says that there is no such object."""
    with Served("tcp4") as served:
        proxies = [served.proxy("weak") for _ in range(4)]
        for _ in range(10):
            thing: Any = Thing()
            served.publish(thing, "weak", weak=True)
            begin = threading.Barrier(5)

            def call(proxy: Proxy, begin: threading.Barrier = begin) -> bool:
                begin.wait(PATIENCE)
                end = time.monotonic() + PATIENCE
                for number in itertools.count():
                    if time.monotonic() > end:
                        return False
                    try:
                        assert proxy.echo(number) == number
                    except (DaemonError, CommunicationError) as error:  # the latter from who had no connection yet
                        return "unknown object" in str(error)
                raise AssertionError

            calls = [in_thread(call, proxy) for proxy in proxies]
            begin.wait(PATIENCE)
            del thing
            assert all(call.result(PATIENCE) for call in calls)
            assert eventually(lambda: "weak" not in served.daemon.objectsById)


# ============================================================================= errors and values
@loops
def test_scenario_48_an_error_of_a_class_in_the_servers_main(loop: str) -> None:
    """It has a keyword argument that must be given, and a cause; the client has no such class."""
    with ServerProcess(loop) as server, Proxy(server.uri, kernel=make_kernel()) as proxy:
        proxy.echo()
        connection = proxy._pyroConnection
        with pytest.raises(RemoteError) as caught:
            proxy.fail()
        assert caught.value.matches("MainError")
        assert caught.value.attributes["code"] == 7
        assert "the reason" in "".join(caught.value._pyroTraceback)  # type: ignore[attr-defined]
        assert proxy.echo(1) == 1
        assert proxy._pyroConnection is connection


def test_scenario_48_errors_that_cannot_travel() -> None:
    class NestedError(Exception):
        pass

    @expose
    class Odd:
        def attribute(self) -> None:
            error = ValueError("odd")
            error.thing = object()  # type: ignore[attr-defined]
            raise error

        def argument(self) -> None:
            raise ValueError(object())

        def nested(self) -> None:
            raise NestedError("inner")

        def unbuildable(self) -> None:
            b"\xff".decode("ascii")

    with Served("tcp4") as served:
        served.publish(Odd())
        proxy = served.proxy()
        proxy._pyroBind()
        connection = proxy._pyroConnection
        errors = {"attribute": "odd", "argument": "ValueError", "nested": "inner", "unbuildable": "UnicodeDecodeError"}
        for method, text in errors.items():
            with pytest.raises((PyroError, UnicodeDecodeError)) as caught:
                getattr(proxy, method)()
            assert text in "".join([str(caught.value), *getattr(caught.value, "_pyroTraceback", ())])
            assert proxy._pyroConnection is connection


@loops
@pytest.mark.parametrize("name", ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "CancelledError"])
def test_scenario_49_what_would_end_a_thread_is_answered(loop: str, name: str) -> None:
    with serving(loop, THREADPOOL_SIZE=2) as (served, _):
        proxy = served.proxy()
        for _ in range(5):
            with pytest.raises(RemoteError) as caught:
                proxy.fail(name)
            assert caught.value.matches(name)
        assert proxy.echo(1) == 1
        assert served.proxy().echo(2) == 2


@loops
@pytest.mark.parametrize("name", ["StopIteration", "StopAsyncIteration"])
def test_scenario_50_the_end_of_a_remote_iteration_ends_no_loop_here(loop: str, name: str) -> None:
    with serving(loop) as (served, _):
        proxy = served.proxy()
        passed = []

        class Loop:
            def __iter__(self) -> Loop:
                return self

            def __next__(self) -> Any:
                passed.append(1)
                return proxy.fail(name)

        with pytest.raises(RuntimeError, match=name):
            list(Loop())
        assert passed == [1]
        assert proxy.echo(1) == 1


def test_scenario_51_no_server_makes_a_client_exit() -> None:
    """Whatever the serializer, and in results as well as in errors."""

    @expose
    class Evil:
        def result(self, name: str) -> Any:
            return {"__class__": f"builtins.{name}", "__exception__": True, "args": [1], "attributes": {}}

        def error(self, name: str) -> None:
            raise {"SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt}[name](1)

    with Served("tcp4") as served:
        served.publish(Evil())
        for serializer in ("serpent", "json", "msgpack"):
            proxy = served.proxy()
            proxy._pyroSerializer = serializer
            for name in ("SystemExit", "KeyboardInterrupt"):
                with pytest.raises(RemoteError) as caught:
                    proxy.error(name)
                assert caught.value.matches(name)
                try:
                    value = proxy.result(name)
                except Exception as error:  # refused: an ordinary error
                    value = error
                assert not isinstance(value, (SystemExit, KeyboardInterrupt))


@loops
def test_scenario_52_what_cannot_be_serialised(loop: str) -> None:
    with serving(loop) as (served, thing):
        proxy = served.proxy()
        proxy.echo()
        connection, seq = proxy._pyroConnection, proxy._pyroSeq
        with pytest.raises(SerializeError):
            proxy.note(object())
        assert proxy._pyroSeq == seq  # nothing was sent
        with pytest.raises(SerializeError):
            proxy.unserialisable()
        assert proxy.echo(1) == 1
        assert proxy._pyroConnection is connection
        assert thing.seen == []


VALUES = [
    "nul \0 in a text",
    b"nul \0 in bytes",
    b"",
    "",
    2**70,
    -(2**63),
    math.inf,
    -math.inf,
    0.1 + 0.2,
    (1, (2, [3])),
    [1, (2,)],
    {"1": "text", "": b"nothing \0"},
    {1, 2},
    datetime.datetime(2024, 2, 29, 12, 30, 15, 123456, datetime.timezone(datetime.timedelta(hours=5, minutes=30))),
]


def listed(value: Any) -> Any:
    """With lists where there are tuples, except in keys."""
    return [listed(part) for part in value] if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize("serializer", ["serpent", "json", "msgpack", "marshal"])
def test_scenario_53_values_keep_their_types(serializer: str) -> None:
    with serving(SERIALIZERS_ACCEPTED={"serpent", "json", "msgpack", "marshal"}) as (served, _):
        proxy = served.proxy()
        proxy._pyroSerializer = serializer
        for value in VALUES:
            if serializer in ("json", "msgpack"):  # which have no tuples, as documented
                value = listed(value)
            again = proxy.echo(value)
            assert again == value
            assert type(again) is type(value)
        assert math.isnan(proxy.echo(math.nan))
        assert bytes(proxy.echo(memoryview(b"view \0"))) == b"view \0"
        # json has keys of text only, as documented
        assert proxy.echo({1: "one"}) == ({"1": "one"} if serializer == "json" else {1: "one"})
        connection = proxy._pyroConnection
        for value in ("half a pair: \ud800", {(1, 2): "pair"}):
            try:
                assert proxy.echo(value) == value
            except (SerializeError, UnicodeError):
                pass  # refused, and not turned into something else
        assert proxy._pyroConnection is connection
        assert proxy.echo(1) == 1


@loops
def test_scenario_54_batches(loop: str) -> None:
    with serving(loop) as (served, thing):
        calls = BatchProxy(served.proxy())
        assert list(calls()) == []
        calls.echo(1)
        calls.fail("ValueError", "in the middle")
        calls.note("never")
        results = calls()
        assert next(results) == 1
        with pytest.raises(ValueError, match="in the middle"):
            next(results)
        assert list(results) == []
        calls.echo(2)
        calls.numbers(3)
        results = calls()
        assert next(results) == 2
        with pytest.raises(SerializeError, match="serialize"):  # no streams in batches
            next(results)
        for number in range(10):
            calls.note(number)
        assert calls(oneway=True) is None
        assert thing.wait_for(10)
        assert thing.seen == list(range(10))


def test_scenario_55_hooks_that_fail_or_are_slow_lose_no_reply() -> None:
    trouble: list[str] = []
    gate = threading.Event()

    def step(call: Any) -> None:
        if "raise" in trouble:
            raise RuntimeError("step broke")
        if "slow" in trouble:
            gate.wait(PATIENCE)

    def bind(connection: Any) -> Steps:
        return Steps(on_received=step, before_reply=step) if connection.side == "server" else Steps()

    def fail(*args: Any) -> None:
        raise RuntimeError("hook broke")

    plugin = make_plugin("troubled", pyro_bind=bind, pyro_opened=fail, pyro_closed=fail)
    with serving(extra_plugins=[plugin]) as (served, _):
        served.daemon.methodcall_error_handler = fail
        served.daemon.clientDisconnect = lambda conn: fail()  # type: ignore[method-assign]
        proxy = served.proxy()
        proxy.echo()
        connection = proxy._pyroConnection
        with pytest.raises(ValueError, match="the method's"):
            proxy.fail("ValueError", "the method's")
        trouble.append("raise")
        with pytest.raises(Exception, match="step broke"):
            proxy.echo()
        trouble[:] = ["slow"]
        waiting = in_thread(proxy.echo, "slow")
        other = served.proxy()
        assert other._pyroBind()  # those who do not call are served meanwhile
        gate.set()
        assert waiting.result(PATIENCE) == "slow"
        trouble.clear()
        assert proxy.echo(1) == 1
        assert proxy._pyroConnection is connection


@pytest.mark.needs("cancel", "mux")
def test_scenario_56_cancelling_at_every_moment() -> None:
    """With ``FutureResult.cancel()``; what else may come over the wire is tried in tests/plugins/test_cancel.py."""
    with serving(FUTURE_THREADS=1) as (served, thing):
        later = asyncproxy(served.proxy())
        running = later.slow("running")
        assert thing.entered.acquire(timeout=PATIENCE)
        queued = later.note("queued")
        heard: list[BaseException] = []
        queued.iferror(heard.append)
        assert queued.cancel() is True
        assert queued.cancel() is True  # twice
        with pytest.raises(FutureCancelled):
            queued.result(PATIENCE)
        assert [type(error) for error in heard] == [FutureCancelled]
        assert running.cancel() is True  # it has begun: the server is told, and nobody waits any more
        assert running.cancel() is True
        with pytest.raises(FutureCancelled):
            running.result(PATIENCE)
        thing.gate.set()  # the method did not ask whether it was cancelled, and goes on
        over = later.echo("over")
        assert over.result(PATIENCE) == "over"
        assert over.cancel() is False  # it is over
        assert over.value == "over"
        assert later.echo("next").value == "next"
        assert thing.seen == []
        with later:
            pass


# ============================================================================= settings
ROUND_TRIP = """
import sys, threading
from pyroplug.api import Daemon, Proxy, expose
@expose
class Thing:
    def echo(self, value): return value
with Daemon("localhost") as daemon:
    uri = daemon.register(Thing())
    threading.Thread(target=daemon.requestLoop).start()
    with Proxy(uri) as proxy:
        print(proxy.echo("answer"))
    daemon.shutdown()
"""


def works(kernel: Kernel) -> bool:
    """Whether a daemon and a proxy of this kernel understand each other."""
    with Daemon("localhost", 0, kernel=kernel) as daemon:
        uri = daemon.register(Thing())
        serving = in_thread(daemon.requestLoop)
        with Proxy(uri, kernel=kernel) as proxy:
            answer = proxy.echo("answer")
        daemon.shutdown()
        serving.result(PATIENCE)
    return bool(answer == "answer")


def test_scenario_62_every_variable_unset_empty_and_of_the_wrong_type() -> None:
    unset = Kernel(environ={})
    assert works(unset)
    for setting in unset.settings.schema:
        chosen = setting.name in ("SERIALIZER", "SERIALIZERS_ACCEPTED", "SERVERTYPE", "JSON_MODULE")
        if chosen or (setting.choices and setting.type is str):
            with pytest.raises(PyroError, match=setting.name):  # nothing is no choice among what there is
                assert works(Kernel(environ={setting.variable: ""}))
        else:
            kernel = Kernel(environ={setting.variable: ""})
            assert works(kernel), setting.variable
            kernel.close()
        if setting.type in (bool, int, float):
            with pytest.raises(ConfigError, match=setting.variable) as caught:
                Kernel(environ={setting.variable: "many"})
            assert "'many'" in str(caught.value) or setting.secret
    unset.close()


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({}, ""),
        ({"PYRO_COMMTIMEOUT": "", "PYRO_HOST": "", "PYRO_LOGLEVEL": "", "PYRO_MAX_RETRIES": " "}, ""),
        ({"PYRO_COMMTIMEOUT": "soon"}, "PYRO_COMMTIMEOUT"),
        ({"PYRO_SERVERTYPE": "thraed"}, "did you mean 'thread"),
    ],
)
def test_scenario_62_a_process_and_its_environment(variables: Mapping[str, str], complaint: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", ROUND_TRIP],
        capture_output=True,
        text=True,
        env={**CLEAN, **variables},
        timeout=scaled(30),
        check=False,
    )
    assert (ran.returncode, ran.stdout) == ((1, "") if complaint else (0, "answer\n")), ran.stderr
    assert complaint in ran.stderr
    assert bool(ran.stderr) == bool(complaint)


def test_scenario_62_two_daemons_with_different_settings_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        serving("thread", MAX_MESSAGE_SIZE=20_000, SERIALIZERS_ACCEPTED={"serpent"}) as (small, _),
        serving("multiplex", MAX_MESSAGE_SIZE=200_000, SERIALIZERS_ACCEPTED={"json"}, SERIALIZER="json") as (large, _),
    ):
        data = "x" * 100_000
        assert large.proxy().size(data) == len(data)
        with pytest.raises(PyroError, match="20000"):
            small.proxy().size(data)
        with (
            pytest.raises(ConnectionRefusedByPeer, match="serializer"),
            Proxy(small.daemon.uriFor("thing"), kernel=large.kernel) as other,
        ):
            other.echo()
        monkeypatch.setenv("PYRO_SERIALIZER", "nonsense")  # what exists has read its environment
        small.kernel.settings.MAX_MESSAGE_SIZE = 300_000
        assert large.kernel.settings.MAX_MESSAGE_SIZE == 200_000
        assert small.proxy().echo(1) == large.proxy().echo(1) == 1
