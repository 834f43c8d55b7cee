"""``pyroplug probe``: what is listening there."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pyroplug.api import Daemon, Kernel, expose
from pyroplug.cli.app import app
from pyroplug.cli.probe import generation
from pyroplug.core.wire import CONNECTOK, encode
from testkit.timeouts import PATIENCE, scaled

pytestmark = pytest.mark.feature("F116")


def invoke(*args: str) -> Result:
    return CliRunner().invoke(app, ["probe", *args])


def found(*args: str) -> dict[str, Any]:
    result = invoke("--json", *args)
    answer: dict[str, Any] = json.loads(result.stdout)
    assert result.exit_code == (0 if answer["pyro"] else 4)
    return answer


class Thing:
    @expose
    def nothing(self) -> None:
        pass


@contextmanager
def serving(daemon: Daemon) -> Iterator[str]:
    loop = threading.Thread(target=daemon.requestLoop)
    loop.start()
    try:
        yield daemon.locationStr
    finally:
        daemon.shutdown()
        loop.join(PATIENCE)


@contextmanager
def answering(data: bytes, *, first: bool = False, hold: bool = False) -> Iterator[str]:
    """A server that is not ours: it sends ``data`` after (or ``first``, before) hearing something.

    With ``hold`` it keeps the connection open, otherwise it hangs up.
    """
    ended = threading.Event()

    def serve() -> None:
        while True:
            client, _ = listener.accept()
            with client:
                if ended.is_set():
                    return
                try:
                    if not first:
                        client.recv(1024)
                    client.sendall(data)
                    if hold:
                        ended.wait(PATIENCE)
                    else:
                        client.shutdown(socket.SHUT_WR)
                        while client.recv(1024):
                            pass
                except OSError:
                    continue  # the client has gone

    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{address[1]}"
        finally:
            ended.set()
            socket.create_connection(address).close()
            thread.join(PATIENCE)


# --------------------------------------------------------------------------- servers of ours
@pytest.mark.parametrize("server", ["thread", "multiplex"])
def test_our_daemon(server: str) -> None:
    with serving(Daemon(kernel=Kernel(settings={"SERVERTYPE": server}))) as location:
        answer = found(location)
    assert answer["kind"] == "pyroplug"
    assert answer["version"] == 502
    assert answer["compatible"] is True
    assert answer["accepted"] is True
    assert answer["serializers"] == ["json", "msgpack", "serpent"]
    assert "registered" in answer["methods"]
    assert answer["connect_ms"] > 0
    assert 0 < answer["answer_ms"] < 1000 * PATIENCE


def test_our_daemon_as_text() -> None:
    with serving(Daemon(kernel=Kernel())) as location:
        result = invoke(location)
    assert result.exit_code == 0
    lines = dict(line.split(": ", 1) for line in result.stdout.splitlines())
    assert lines["kind"] == "pyroplug"
    assert lines["version"] == "502"
    assert lines["handshake"] == "accepted"
    assert lines["answer"].endswith(" ms")


def test_the_serializers_are_those_that_are_accepted() -> None:
    with serving(Daemon(kernel=Kernel(settings={"SERIALIZERS_ACCEPTED": {"msgpack"}}))) as location:
        answer = found(location)
        quick = found("--version-only", location)
    assert answer["serializers"] == ["msgpack"]
    assert answer["accepted"] is False
    assert "not accepted" in answer["reason"]
    assert quick["serializers"] is None
    assert quick["kind"] == "Pyro5"


def test_a_daemon_that_refuses_us_is_recognised_all_the_same() -> None:
    class Picky(Daemon):
        def validateHandshake(self, conn: Any, data: Any) -> Any:
            raise PermissionError("members only")

    with serving(Picky(kernel=Kernel())) as location:
        answer = found(location)
        result = invoke(location)
    assert answer["kind"] == "pyroplug"
    assert answer["accepted"] is False
    assert answer["reason"] == "members only"
    assert "handshake: refused: members only" in result.stdout


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")
def test_a_unix_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the whole path may be too long for the address of a socket
    with serving(Daemon(unixsocket="d.sock", kernel=Kernel())) as location:
        assert found(location)["kind"] == "pyroplug"
    gone = invoke("./u:d.sock")
    assert gone.exit_code == 3
    assert "no such socket file" in gone.stderr


def test_ipv6() -> None:
    try:
        daemon = Daemon("::1", kernel=Kernel())
    except OSError:
        pytest.skip("this machine has no IPv6")
    with serving(daemon) as location:
        assert location.startswith("[::1]:")
        assert found(location)["kind"] == "pyroplug"


def test_a_uri_will_do() -> None:
    with serving(Daemon(kernel=Kernel())) as location:
        assert found(f"PYRO:whatever@{location}")["location"] == location


def test_a_daemon_is_fine_after_probes() -> None:
    with serving(Daemon(kernel=Kernel())) as location:
        for _ in range(5):
            assert found(location)["accepted"] is True


# --------------------------------------------------------------------------- the real Pyro5
PYRO5 = """
import sys, threading
import Pyro5.api
with Pyro5.api.Daemon(host="127.0.0.1") as daemon:
    print(daemon.locationStr, flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), daemon.shutdown()), daemon=True).start()
    daemon.requestLoop()
"""


@pytest.fixture(scope="module")
def pyro5() -> Iterator[str]:
    pytest.importorskip("Pyro5")
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYRO")}
    with subprocess.Popen(
        [sys.executable, "-c", PYRO5], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            yield child.stdout.readline().strip()
            child.stdin.close()
            child.wait(scaled(20))
        finally:
            child.kill()


@pytest.mark.interop
def test_pyro5(pyro5: str) -> None:
    answer = found(pyro5)
    assert answer["kind"] == "Pyro5"
    assert answer["version"] == 502
    assert answer["accepted"] is True
    assert set(answer["serializers"]) == {"json", "marshal", "msgpack", "serpent"}
    assert "get_metadata" in answer["methods"]


@pytest.mark.interop
def test_the_doctor_and_ping_with_pyro5(pyro5: str) -> None:
    checked = CliRunner().invoke(app, ["doctor", "--json", pyro5])
    assert checked.exit_code == 0, checked.stdout
    assert json.loads(checked.stdout)["checks"][-1]["name"] == "metadata"
    assert CliRunner().invoke(app, ["ping", pyro5]).exit_code == 0
    assert CliRunner().invoke(app, ["call", pyro5, "registered"]).stdout == '["Pyro.Daemon"]\n'


# --------------------------------------------------------------------------- older generations
@pytest.mark.parametrize(
    ("version", "name"), [(5, "Pyro3"), (40, "Pyro4"), (48, "Pyro4"), (501, "Pyro5"), (502, "Pyro5"), (999, "Pyro")]
)
def test_generations(version: int, name: str) -> None:
    assert generation(version) == name


def test_pyro4_is_told_from_its_header() -> None:
    header = struct.pack("!4sHHHHiHHHH", b"PYRO", 48, 3, 0, 0, 0, 3, 0, 0, 0)
    with answering(header) as location:
        answer = found(location)
        result = invoke(location)
    assert (answer["kind"], answer["version"], answer["compatible"]) == ("Pyro4", 48, False)
    assert "speaks protocol 48, not 502" in result.stdout


def test_pyro3_speaks_first() -> None:
    with answering(b"PYRO\x00\x05\x00\x00\x00\x10" + bytes(30), first=True) as location:
        answer = found(location)
    assert (answer["kind"], answer["version"]) == ("Pyro3", 5)


def test_the_doctor_tells_an_older_generation() -> None:
    with answering(b"PYRO\x00\x30" + bytes(18)) as location:
        result = CliRunner().invoke(app, ["doctor", location])
    assert result.exit_code == 1
    assert "speaks protocol 48" in result.stdout
    assert "Pyro4" in result.stdout


# --------------------------------------------------------------------------- something else
@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "a web server"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "TLS"),
        (b"what?\n", "it answered b'what?\\n'"),
        (b"PYR", "it answered b'PYR'"),
        (b"", "closed without an answer"),
    ],
)
def test_something_that_is_not_pyro(data: bytes, text: str) -> None:
    with answering(data) as location:
        answer = found(location)
        result = invoke(location)
    assert answer["pyro"] is False
    assert answer["kind"] == "unknown"
    assert answer["version"] is None
    assert text in answer["reason"]
    assert result.exit_code == 4
    assert len(result.stderr.splitlines()) == 1
    assert text in result.stderr


@pytest.mark.parametrize("data", [b"", b"PYR", b"PYRO\x01\xf6", b"PYRO\x01\xf6" + bytes(20)])
def test_the_time_is_bounded(data: bytes) -> None:
    limit = scaled(0.5)
    start = time.monotonic()
    with answering(data, hold=True) as location:
        answer = found("--timeout", f"{limit:g}", "--version-only", location)
    assert time.monotonic() - start < limit + PATIENCE
    assert answer["pyro"] is (len(data) >= 6)
    assert f"{limit:g} seconds" in answer["reason"] or "incomplete" in answer["reason"] or "PYR" in answer["reason"]


def test_an_answer_that_announces_too_much_is_not_read() -> None:
    message = encode(CONNECTOK, 3, 0, 0, b"{}")
    assert isinstance(message, bytes)
    huge = message[:12] + struct.pack("!I", 1 << 30) + message[16:]
    with answering(huge, hold=True) as location:
        answer = found("--version-only", location)
    assert answer["version"] == 502
    assert "too large" in answer["reason"]


@pytest.mark.parametrize("payload", [b"[" * 2000, b"null", b'{"meta": 5}', b"\xff"])
def test_an_odd_welcome_is_a_welcome(payload: bytes) -> None:
    message = encode(CONNECTOK, 3, 0, 0, payload)
    assert isinstance(message, bytes)
    with answering(message) as location:
        answer = found("--version-only", location)
    assert answer["accepted"] is True
    assert answer["methods"] == []


def test_nobody_there() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    result = invoke(f"127.0.0.1:{port}")
    assert result.exit_code == 3
    assert result.stdout == ""
    assert "connection refused" in result.stderr
    assert invoke("--json", f"127.0.0.1:{port}").exit_code == 3


def test_a_host_that_does_not_exist() -> None:
    result = invoke("no-such-host.invalid:4444")
    assert result.exit_code == 3
    assert "cannot be found" in result.stderr
