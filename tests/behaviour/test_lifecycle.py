"""The life of a daemon: loops, shutdown from everywhere, foreign event loops."""

from __future__ import annotations

import contextlib
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pyroplug.api import CommunicationError, Daemon, DaemonError, OverloadError, PluginError, Proxy, PyroError, expose
from pyroplug.api import serve as serve_
from pyroplug.testing.kernels import PATIENCE, Serve, make_kernel
from pyroplug.testing.transports import in_thread
from testkit.timeouts import scaled


@expose
class Thing:
    """Can end its own daemon."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.daemon: Any = None

    def echo(self, value: Any = None) -> Any:
        return value

    def slow(self) -> str:
        self.entered.set()
        self.gate.wait(PATIENCE)
        return "finished"

    def stop(self) -> str:
        self._pyroDaemon.shutdown()  # type: ignore[attr-defined]
        return "stopping"


def nothing_answers(proxy: Proxy) -> bool:
    """Scenario 29: neither the old connection nor a new one gives a result."""
    for _ in range(2):
        with pytest.raises((CommunicationError, OverloadError)):
            proxy.echo(1)
    return True


# --------------------------------------------------------------------------- shutdown: scenario 28
@pytest.mark.feature("F047", "F029")
def test_shutdown_from_another_thread(serve_at: Serve) -> None:
    served = serve_at(Thing())
    proxy = served.proxy()
    assert proxy.echo(1) == 1
    served.daemon.shutdown()
    assert nothing_answers(proxy)
    assert served.join()
    served.daemon.shutdown()
    served.daemon.close()


@pytest.mark.feature("F047")
def test_shutdown_inside_a_call(serve: Serve) -> None:
    served = serve(Thing())
    proxy = served.proxy()
    other = served.proxy()
    other.echo()
    assert proxy.stop() == "stopping"  # it is still answered
    assert served.join()
    proxy._pyroTimeout = other._pyroTimeout = PATIENCE
    if served.transport != "pair":
        assert nothing_answers(proxy)
        assert nothing_answers(other)


def test_shutdown_twice_at_once(serve_at: Serve) -> None:
    served = serve_at(Thing())
    proxy = served.proxy()
    proxy.echo()
    for job in [in_thread(served.daemon.shutdown) for _ in range(8)]:
        job.result(PATIENCE)
    assert served.join()
    assert nothing_answers(proxy)


def test_shutdown_before_the_loop_starts_and_after_it_ended(serve_at: Serve) -> None:
    served = serve_at(Thing(), start=False)
    proxy = served.proxy()
    served.daemon.shutdown()
    assert nothing_answers(proxy)
    with pytest.raises(PyroError, match="closed"):
        served.daemon.requestLoop()
    served.daemon.shutdown()


def test_shutdown_lets_running_calls_finish(serve_threads: Serve) -> None:
    """Scenario 30."""
    thing = Thing()
    served = serve_threads(thing)
    running = in_thread(served.proxy().slow)
    assert thing.entered.wait(PATIENCE)
    ending = in_thread(served.daemon.shutdown)
    threading.Timer(0.05, thing.gate.set).start()
    ending.result(PATIENCE)
    assert running.result(PATIENCE) == "finished"


def test_shutdown_returns_by_its_deadline_and_names_what_it_abandons(
    serve_threads: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """Scenario 31."""
    thing = Thing()
    served = serve_threads(thing, SHUTDOWN_TIMEOUT=0.1)
    proxy = served.proxy()
    running = in_thread(proxy.slow)
    assert thing.entered.wait(PATIENCE)
    started = time.monotonic()
    served.daemon.shutdown()
    assert time.monotonic() - started < scaled(2)
    assert "abandoned, because not over within" in caplog.text
    assert isinstance(running.exception(PATIENCE), CommunicationError)
    thing.gate.set()


def test_a_signal_handler_may_shut_down(serve_at: Serve) -> None:
    served = serve_at(Thing(), start=False)
    received: list[int] = []

    def handler(number: int, frame: Any) -> None:
        received.append(number)
        served.daemon.shutdown()

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        # the loop runs in the main thread here, which is where Python runs handlers
        timers = [
            threading.Timer(0.05, lambda: signal.raise_signal(signal.SIGUSR1)),
            threading.Timer(0.05, lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)),
        ]
        for timer in timers:
            timer.start()
        served.daemon.requestLoop()
        for timer in timers:
            timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert received
    with pytest.raises(PyroError, match="closed"):
        served.daemon.requestLoop()


@pytest.mark.feature("F029", "F044")
def test_loop_condition(serve: Serve) -> None:
    served = serve(Thing(), start=False, POLLTIMEOUT=0.01)
    go = threading.Event()
    loop = in_thread(served.daemon.requestLoop, lambda: not go.is_set())
    proxy = served.proxy()
    assert proxy.echo(1) == 1
    go.set()
    loop.result(PATIENCE)
    # the daemon is not closed: it can be served again, and the client is still there
    go.clear()
    loop = in_thread(served.daemon.requestLoop, lambda: not go.is_set())
    assert proxy.echo(2) == 2
    go.set()
    loop.result(PATIENCE)


@pytest.mark.feature("F031")
def test_a_closed_daemon_is_of_no_more_use(serve_at: Serve) -> None:
    served = serve_at(Thing())
    daemon = served.daemon
    with daemon:
        pass
    served.join()
    for use in (daemon.requestLoop, lambda: daemon.register(Thing()), lambda: daemon.events([]), daemon.__enter__):
        with pytest.raises(PyroError, match="closed"):
            use()
    assert "closed" in repr(daemon)


def test_the_address_is_free_at_once(serve_at: Serve) -> None:
    """Scenario 14: connections of a moment ago do not keep the port."""
    served = serve_at(Thing())
    uri = served.daemon.uriFor("thing")
    for _ in range(3):
        with served.proxy() as proxy:
            proxy.echo()
    served.daemon.shutdown()
    kernel = served.kernel
    options: dict[str, Any] = {"memory": uri.location[4:]}
    if uri.host:
        options = {"host": uri.host, "port": uri.port}
    elif served.transport == "unix":
        options = {"unixsocket": uri.sockname}
    for _ in range(3):
        with Daemon(kernel=kernel, **options) as daemon:
            assert daemon.uriFor("thing") == uri


# --------------------------------------------------------------------------- foreign event loops
@contextlib.contextmanager
def driven(*daemons: Daemon) -> Iterator[None]:
    """A program's own loop around ``sockets`` and ``events``."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.is_set():
            with selectors.DefaultSelector() as selector:
                for daemon in daemons:
                    for sock in daemon.sockets:
                        selector.register(sock, selectors.EVENT_READ, daemon)
                ready = selector.select(0.01)
            for daemon in daemons:
                daemon.events([key.fileobj for key, _ in ready if key.data is daemon])

    running = in_thread(loop)
    try:
        yield
    finally:
        stop.set()
        running.result(PATIENCE)


@pytest.mark.feature("F030", "F046", "F045")
def test_a_foreign_event_loop(serve_at: Serve) -> None:
    served = serve_at(Thing(), start=False)
    with driven(served.daemon):
        first, second = served.proxy(), served.proxy()
        for number in range(5):
            assert first.echo(number) == number
            assert second.echo(-number) == -number
        first._pyroRelease()
        assert first.echo("again") == "again"
        data = "x" * 3_000_000
        assert second.echo(data) == data


@pytest.mark.feature("F030")
def test_shutdown_in_a_foreign_event_loop(serve_at: Serve) -> None:
    served = serve_at(Thing(), start=False)
    proxy = served.proxy()
    stop = threading.Event()
    gone = threading.Event()

    def loop() -> None:
        while not stop.is_set():
            try:
                sockets = served.daemon.sockets
                with selectors.DefaultSelector() as selector:
                    for sock in sockets:
                        selector.register(sock, selectors.EVENT_READ)
                    ready = [key.fileobj for key, _ in selector.select(0.01)]
                served.daemon.events(ready)
            except (PyroError, OSError, ValueError):  # closed while this loop looked
                gone.set()
                return

    running = in_thread(loop)
    assert proxy.echo(1) == 1
    assert proxy.stop() == "stopping"
    assert gone.wait(PATIENCE)
    stop.set()
    running.result(PATIENCE)
    assert nothing_answers(proxy)


@pytest.mark.feature("F293")
def test_combine_multiplex(serve_multiplex: Serve) -> None:
    served = serve_multiplex(Thing(), start=False)

    class Tidy(Daemon):
        def __init__(self, **kwargs: Any) -> None:
            self.tidied = threading.Event()
            super().__init__(**kwargs)

        def housekeeping(self) -> None:
            self.tidied.set()

    kernel = make_kernel(SERVERTYPE="multiplex")
    with Tidy(host="127.0.0.1", kernel=kernel) as other, Tidy(memory=True, kernel=kernel) as third:
        other.register(Thing(), "other")
        third.register(Thing(), "third")
        served.daemon.combine(other)
        served.daemon.combine(third)
        served.start()
        with Proxy(other.uriFor("other"), kernel=kernel) as proxy, Proxy(third.uriFor("third"), kernel=kernel) as also:
            assert [served.proxy().echo(1), proxy.echo(2), also.echo(3)] == [1, 2, 3]
        tidied: Any = other
        assert tidied.tidied.wait(PATIENCE)
        with pytest.raises(CommunicationError, match="unknown object: thing"):
            Proxy(other.uriFor("thing"), kernel=kernel).echo()
        served.daemon.shutdown()


@pytest.mark.feature("F293")
def test_combine_with_anything_that_has_sockets_and_events(serve_multiplex: Serve) -> None:
    served = serve_multiplex(Thing(), start=False)
    here, there = socket.socketpair()
    received: list[bytes] = []
    came = threading.Event()

    class Foreign:
        sockets = (here,)

        def events(self, ready: Any) -> None:
            received.append(ready[0].recv(100))
            came.set()
            raise RuntimeError("must not end the loop")

    with here, there:
        served.daemon.combine(Foreign())
        served.start()
        there.send(b"hello")
        assert came.wait(PATIENCE)
        assert received == [b"hello"]
        assert served.proxy().echo(1) == 1
        served.daemon.shutdown()


def test_the_thread_loop_cannot_be_combined(serve_threads: Serve) -> None:
    served = serve_threads(Thing())
    with Daemon(memory=True, kernel=served.kernel) as other, pytest.raises(TypeError, match="SERVERTYPE=multiplex"):
        served.daemon.combine(other)


# --------------------------------------------------------------------------- serve()
@pytest.mark.feature("F032", "F062")
@pytest.mark.parametrize("loop", ["thread", "multiplex"])
def test_serve(loop: str, capsys: pytest.CaptureFixture[str]) -> None:
    kernel = make_kernel(SERVERTYPE=loop)
    with Daemon(memory=True, kernel=kernel) as daemon:
        thing = Thing()
        running = in_thread(serve_, {thing: "named", Thing(): None}, None, 0, daemon, False)
        with Proxy(f"PYRO:named@{daemon.locationStr}", kernel=kernel) as proxy:
            while True:
                try:
                    assert proxy.echo(84) == 84
                    break
                except (CommunicationError, DaemonError):
                    time.sleep(0.001)
        daemon.shutdown()
        running.result(PATIENCE)
    output = capsys.readouterr().out
    assert "Pyro daemon running on" in output
    assert "named: PYRO:named@" in output
    assert "PYRO:obj_" in output


@pytest.mark.feature("F032")
def test_serve_checks_its_arguments() -> None:
    with Daemon(memory=True, kernel=make_kernel()) as daemon, pytest.raises(ValueError, match="without daemon"):
        serve_({}, "localhost", 0, daemon)
    without_names = make_kernel(environ={"PYRO_DISABLE_PLUGINS": "naming"})
    with Daemon(memory=True, kernel=without_names) as daemon, pytest.raises(PluginError, match="naming"):
        Daemon.serveSimple({}, daemon=daemon, ns=True, verbose=False)


# --------------------------------------------------------------------------- processes
def test_the_interpreter_ends_with_everything_open() -> None:
    """Scenario 33: no hang and no traceback, with a daemon that serves and proxies that are connected."""
    program = """
import threading
from pyroplug.api import Daemon, Proxy, expose, oneway
class Thing:
    @expose
    def echo(self, value): return value
    @expose
    @oneway
    def fire(self): threading.Event().wait(0.05)
daemon = Daemon()
uri = daemon.register(Thing())
threading.Thread(target=daemon.requestLoop, daemon=True).start()
proxies = [Proxy(uri) for _ in range(3)]
print([p.echo(1) for p in proxies])
proxies[0].fire()
"""
    for extra in ({}, {"PYRO_SERVERTYPE": "multiplex"}):
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=scaled(30),
            check=False,
            env={"PATH": "/usr/bin:/bin", **extra},
        )
        assert (done.stdout.strip(), done.stderr, done.returncode) == ("[1, 1, 1]", "", 0)


def test_children_inherit_no_sockets(serve_at: Serve) -> None:
    """Scenario 37."""
    served = serve_at(Thing())
    proxy = served.proxy()
    proxy.echo()
    listing = "import os, stat\nfor n in range(3, 256):\n try:\n  print(stat.S_ISSOCK(os.fstat(n).st_mode))\n except OSError: pass"
    done = subprocess.run(
        [sys.executable, "-c", listing], capture_output=True, text=True, timeout=scaled(30), check=True, close_fds=False
    )
    assert "True" not in done.stdout
