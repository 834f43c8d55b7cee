"""The echo server: the command, its options and output, and the object."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import inf, isnan
from pathlib import Path

import pytest

from pyroplug.api import CommunicationError, Daemon, Kernel, NamingError, Proxy, start_ns
from pyroplug.plugins.echoserver import OBJECT_NAME, EchoServer, serve_echo
from testkit.source import entry_points
from testkit.timeouts import PATIENCE, scaled

pytestmark = pytest.mark.needs("echoserver")

COMMAND = (sys.executable, "-m", "pyroplug", "echo")


def environment(**changes: str) -> dict[str, str]:
    return {**{name: value for name, value in os.environ.items() if not name.startswith("PYRO_")}, **changes}


class Server:
    """The command, running; ``lines`` are those printed until it runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        assert process.stdout is not None
        self.stdout = process.stdout

    def wait_until_running(self) -> None:
        while not self.lines or self.lines[-1] != "echoserver running.":
            self.lines.append(self.next_line())

    def next_line(self) -> str:
        line = self.stdout.readline()
        assert line, "the server has ended"
        return line.rstrip("\n")

    @property
    def uri(self) -> str:
        return next(line for line in self.lines if line.startswith("echo uri: ")).partition(": ")[2]

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=scaled(20))
        return self.process.returncode, out, err


@contextmanager
def running(*args: str, wait: bool = True, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    process = subprocess.Popen(
        [*COMMAND, *args],
        env=environment(**(settings or {})),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        server = Server(process)
        if wait:
            server.wait_until_running()
        yield server
    finally:
        process.kill()
        process.communicate()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.fixture
def echo() -> Iterator[Proxy]:
    """A proxy of an echo server in this process, whose slow methods are quick."""
    with Daemon(kernel=Kernel()) as daemon:
        uri = daemon.register(EchoServer(stop=daemon.shutdown, delay=0.01), OBJECT_NAME)
        loop = threading.Thread(target=daemon.requestLoop)
        loop.start()
        with Proxy(uri, kernel=daemon.kernel) as proxy:
            yield proxy
        daemon.shutdown()
        loop.join(PATIENCE)


# --------------------------------------------------------------------------- the command
@pytest.mark.feature("F201", "F202")
def test_the_lines_that_scripts_read() -> None:
    with running() as server:
        assert server.lines == [
            "Starting Pyro's built-in test echo server.",
            "object name: test.echoserver",
            f"echo uri: {server.uri}",
            "echoserver running.",
        ]
        assert server.uri.startswith("PYRO:test.echoserver@localhost:")
        with Proxy(server.uri, kernel=Kernel()) as proxy:
            assert proxy.echo([1, "two"]) == [1, "two"]
            with pytest.raises(ValueError, match="generated error"):
                proxy.error()
            proxy.shutdown()
        assert server.end()[:2] == (0, "")


@pytest.mark.feature("F202")
def test_host_and_port() -> None:
    port = free_port()
    with running("-H", "127.0.0.1", "-p", str(port)) as server:
        assert server.uri == f"PYRO:test.echoserver@127.0.0.1:{port}"
        second = subprocess.run(
            [*COMMAND, "--host", "127.0.0.1", "--port", str(port)],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=scaled(20),
            check=False,
        )
    assert second.returncode == 1
    assert len(second.stderr.splitlines()) == 1
    assert "in use" in second.stderr


@pytest.mark.feature("F202")
@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")
def test_unix_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the whole path may be too long for the address of a socket
    with running("-u", "echo.sock") as server:
        assert server.uri == "PYRO:test.echoserver@./u:echo.sock"
        with Proxy(server.uri, kernel=Kernel()) as proxy:
            assert proxy.echo("x") == "x"
            proxy.shutdown()
        assert server.end()[0] == 0
    assert not Path("echo.sock").exists()


@pytest.mark.feature("F202")
def test_verbose_prints_each_call() -> None:
    with running("-v") as server:
        assert server.lines[1] == "not using a name server."
        with Proxy(server.uri, kernel=Kernel()) as proxy:
            proxy.echo("héllo\x1b")
            assert server.next_line().endswith(" - echo: 'h\\xe9llo\\x1b'")
            proxy.oneway_echo(1)
            assert server.next_line().endswith(" - oneway_echo: 1")
            proxy.verbose = False
            proxy.echo("quiet")
            proxy.verbose = True
            proxy.shutdown()
        assert server.next_line().endswith(" - shutting down")
        assert server.end() == (0, "", "")


@pytest.mark.feature("F202")
def test_it_is_published_by_name_as_long_as_it_runs() -> None:
    kernel = Kernel()
    with start_a_name_server(kernel) as (location, settings), running("-n", "-v", settings=settings) as server:
        assert "not using a name server." not in server.lines
        with Proxy(f"PYRONAME:test.echoserver@{location}", kernel=kernel) as proxy:
            assert proxy.echo("by name") == "by name"
            proxy.shutdown()
        assert server.end()[0] == 0
        with pytest.raises(NamingError, match="unknown name"):
            kernel.resolve(f"PYRONAME:test.echoserver@{location}")
    kernel.close()


@contextmanager
def start_a_name_server(kernel: Kernel) -> Iterator[tuple[str, dict[str, str]]]:
    """Where it is, and the settings that lead there."""
    uri, daemon, _ = start_ns("localhost", 0, kernel=kernel)
    loop = threading.Thread(target=daemon.requestLoop)
    loop.start()
    try:
        yield uri.location, {"PYRO_NS_PORT": str(uri.port)}
    finally:
        daemon.shutdown()
        loop.join(PATIENCE)
        daemon.close()


@pytest.mark.feature("F202")
def test_it_starts_a_name_server_of_its_own() -> None:
    port = str(free_port())
    with running("-N", "-v", settings={"PYRO_NS_PORT": port}) as server:
        assert server.lines[1:3] == [
            f"name server: PYRO:Pyro.NameServer@localhost:{port}",
            "broadcasts: not answered",
        ]
        kernel = Kernel()
        with Proxy(f"PYRONAME:test.echoserver@localhost:{port}", kernel=kernel) as proxy:
            assert str(proxy._pyroUri).startswith("PYRONAME:")
            assert proxy.echo("by name") == "by name"
            proxy.shutdown()
        code, _, errors = server.end()
        assert (code, errors) == (0, "")
        with pytest.raises((NamingError, CommunicationError)):
            kernel.resolve(f"PYRONAME:test.echoserver@localhost:{port}")  # both have ended
        kernel.close()


@pytest.mark.feature("F202")
@pytest.mark.parametrize("option", ["-n", "-N"])
def test_what_is_missing_for_names_is_told(option: str) -> None:
    with running(option, wait=False, settings={"PYRO_DISABLE_PLUGINS": "naming"}) as server:
        code, _, errors = server.end()
    assert code == 5
    assert "plugin 'naming" in errors
    if option == "-n":
        with running(option, wait=False, settings={"PYRO_NS_PORT": str(free_port())}) as server:
            assert server.end()[0] == 3


@pytest.mark.feature("F202")
def test_quiet_prints_nothing() -> None:
    port = free_port()
    patience = threading.Event()
    with running("-q", "-H", "127.0.0.1", "-p", str(port), wait=False) as server:
        with Proxy(f"PYRO:test.echoserver@127.0.0.1:{port}", kernel=Kernel()) as proxy:
            for _ in range(int(scaled(1000))):
                try:
                    proxy._pyroBind()
                    break
                except CommunicationError:
                    patience.wait(0.02)  # it says nothing, so there is nothing to wait for
            proxy.shutdown()
        assert server.end() == (0, "", "")


@pytest.mark.feature("F202")
def test_verbose_wins_over_quiet() -> None:
    with running("-v", "-q") as server:
        assert "echoserver running." in server.lines


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_cleanly(number: int) -> None:
    with running() as server, Proxy(server.uri, kernel=Kernel()) as proxy:
        proxy.echo(1)
        server.process.send_signal(number)
        assert server.end() == (0, "", "")


# --------------------------------------------------------------------------- the object
@pytest.mark.feature("F201")
def test_the_methods(echo: Proxy) -> None:
    assert echo.echo({"a": 1}) == {"a": 1}
    assert echo.oneway_echo("x") is None
    assert echo.slow() == "Finally, an answer!"
    assert echo.oneway_slow() is None
    assert isnan(echo.nan())
    assert echo.inf() == inf
    for method in ("error", "error_with_text"):
        with pytest.raises(ValueError, match="generated error" if method == "error" else "the message of the error"):
            getattr(echo, method)()
    assert echo.verbose is False
    names = "echo error error_with_text oneway_echo slow generator nan inf oneway_slow shutdown".split()
    assert echo._pyroMethods == set(names)
    assert echo._pyroAttrs == {"verbose"}
    assert echo._pyroOneway == {"oneway_echo", "oneway_slow"}


@pytest.mark.feature("F201")
@pytest.mark.skipif("streaming" not in entry_points(), reason="there is no plugin that streams results")
def test_the_generator_is_a_stream(echo: Proxy) -> None:
    assert list(echo.generator()) == ["one", "two", "three"]


@pytest.mark.feature("F201")
def test_shutdown_ends_the_server_and_what_is_slow() -> None:
    arrived = threading.Event()

    class Server(EchoServer):
        def _tell(self, text: str, *message: object) -> None:
            if text.startswith("slow: waiting"):
                arrived.set()

    with Daemon(kernel=Kernel()) as daemon:
        server = Server(stop=daemon.shutdown, delay=PATIENCE * 10)
        uri = daemon.register(server, OBJECT_NAME)
        loop = threading.Thread(target=daemon.requestLoop)
        loop.start()
        answers: list[str] = []

        def slow() -> None:
            with Proxy(uri, kernel=daemon.kernel) as proxy:
                answers.append(proxy.slow())

        waiting = threading.Thread(target=slow)
        with Proxy(uri, kernel=daemon.kernel) as proxy:
            proxy._pyroBind()
            waiting.start()
            assert arrived.wait(PATIENCE)
            proxy.shutdown()
        loop.join(PATIENCE)
        waiting.join(PATIENCE)
        assert not loop.is_alive()
        assert not waiting.is_alive()
        assert answers == ["Finally, an answer!"]


def test_it_can_be_served_from_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    kernel = Kernel()
    uris: list[str] = []
    port = free_port()
    server = threading.Thread(target=serve_echo, args=("127.0.0.1", port), kwargs={"kernel": kernel})
    server.start()
    patience = threading.Event()
    while "echoserver running." not in "".join(uris):
        uris.append(capsys.readouterr().out)
        patience.wait(0.01)
    with Proxy(f"PYRO:{OBJECT_NAME}@127.0.0.1:{port}", kernel=kernel) as proxy:
        proxy.shutdown()
    server.join(PATIENCE)
    assert not server.is_alive()


def test_a_place_that_cannot_be_had() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(CommunicationError, match="in use"):
        serve_echo("127.0.0.1", taken.getsockname()[1], quiet=True, kernel=Kernel())


# --------------------------------------------------------------------------- the real Pyro5 as client
PYRO5 = """
import sys, Pyro5.api
with Pyro5.api.Proxy(sys.argv[1]) as proxy:
    assert proxy.echo("hi") == "hi"
    try:
        proxy.error()
    except ValueError as exc:
        print(exc)
    print(proxy.verbose)
    proxy.shutdown()
"""


@pytest.mark.interop
@pytest.mark.feature("F201")
def test_a_client_of_pyro5() -> None:
    pytest.importorskip("Pyro5")
    with running() as server:
        client = subprocess.run(
            [sys.executable, "-c", PYRO5, server.uri],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=scaled(20),
            check=False,
        )
        assert client.stdout.splitlines() == ["this is the generated error from echoserver echo() method", "False"]
        assert client.stderr == ""
        assert server.end()[0] == 0
