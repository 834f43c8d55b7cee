"""Unix domain sockets: files, abstract names, what servers leave behind."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from pyroplug.core.errors import CommunicationError, ConfigError, TimeoutError
from pyroplug.core.interfaces import Listener, Transport
from pyroplug.core.uri import URI
from pyroplug.testing.transports import PATIENCE, TransportConformance, accept, in_thread, receive, settings_of
from pyroplug.transports import unix
from pyroplug.transports._sockets import ListenError, SocketListener, SocketStream
from pyroplug.transports.unix import UnixTransport

pytestmark = [
    pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets"),
    pytest.mark.feature("F172"),
]
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="abstract names exist on Linux only")

TRANSPORT = UnixTransport()


class TestFile(TransportConformance):
    plugins = (unix,)

    @pytest.fixture(autouse=True)
    def _path(self, tmp_path: pathlib.Path) -> None:
        self.path = str(tmp_path / "a socket")

    def make_transport(self) -> Transport:
        return TRANSPORT

    def listen_options(self) -> Mapping[str, Any]:
        return {"unixsocket": self.path}


@linux_only
class TestAbstract(TransportConformance):
    plugins = (unix,)

    def make_transport(self) -> Transport:
        return TRANSPORT

    def listen_options(self) -> Mapping[str, Any]:
        return {"unixsocket": f"\0pyroplug test {os.getpid()}"}


@contextlib.contextmanager
def listening(path: object) -> Iterator[SocketListener]:
    listener = TRANSPORT.listen({"unixsocket": path}, settings_of(unix))
    assert listener is not None
    with contextlib.closing(listener):
        yield listener


def connect(location: str, timeout: float | None = PATIENCE) -> SocketStream:
    return TRANSPORT.connect(URI(f"PYRO:object@{location}"), timeout, settings_of(unix))


def works(listener: Listener) -> bool:
    client = connect(listener.location)
    server = accept(listener)
    server.send(b"hello")
    received = receive(client, 5)
    client.close()
    server.close()
    return received == b"hello"


@pytest.mark.feature("F011")
@pytest.mark.feature("F022")
def test_location_and_peer(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "with blanks and ümlauts"
    for given in (str(path), os.fsencode(path), path):
        with listening(given) as listener:
            assert listener.location == f"./u:{path}"
            assert stat.S_ISSOCK(path.stat().st_mode)
            client = connect(listener.location)
            server = accept(listener)
            assert client.peer == server.peer == f"unix:{path}"
            client.close()
            server.close()
        assert not path.exists()


@linux_only
def test_abstract_names() -> None:
    name = f"pyroplug other {os.getpid()}"
    for given in ("\0" + name, "\\0" + name):
        with listening(given) as listener:
            assert listener.location == f"./u:\0{name}"
            assert works(listener)
            client = connect(listener.location)
            server = accept(listener)
            assert client.peer == server.peer == f"unix:@{name}"
            client.close()
            server.close()
            with pytest.raises(ListenError, match="in use by a running server"):
                TRANSPORT.listen({"unixsocket": given}, settings_of(unix))


def test_without_the_option() -> None:
    assert TRANSPORT.listen({"host": "localhost", "unixsocket": None}, settings_of(unix)) is None
    assert TRANSPORT.listen({}, settings_of(unix)) is None


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/tmp/" + "x" * 200, "is too long: 205 bytes"),
        ("\0" + "x" * 200, "is too long" if sys.platform == "linux" else "Linux only"),
        ("/tmp/a\0b", "null character"),
        ("/tmp/a\nb", "line break"),
        (42, "must be a path"),
    ],
)
def test_what_is_no_path(path: object, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        TRANSPORT.listen({"unixsocket": path}, settings_of(unix))


@pytest.mark.parametrize("spare", [0, 1])
def test_the_longest_path(tmp_path: pathlib.Path, spare: int) -> None:
    folder = f"{tmp_path}/"
    path = folder + "x" * (unix.LONGEST_PATH + spare - len(folder))
    if spare:
        with pytest.raises(ConfigError, match=f"of which the system allows {unix.LONGEST_PATH}"):
            TRANSPORT.listen({"unixsocket": path}, settings_of(unix))
        with pytest.raises(CommunicationError, match="too long"):
            connect(f"./u:{path}")
    else:
        with listening(path) as listener:
            assert works(listener)


@linux_only
@pytest.mark.parametrize("spare", [0, 1])
def test_the_longest_abstract_name(spare: int) -> None:
    name = "\0" + "x" * (unix.LONGEST_PATH + spare)
    if spare:
        with pytest.raises(ConfigError, match="of which the system allows 108"):
            TRANSPORT.listen({"unixsocket": name}, settings_of(unix))
    else:
        with listening(name) as listener:
            assert works(listener)


def test_a_system_without_unix_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_UNIX")
    with pytest.raises(ConfigError, match="no Unix sockets; use host and port"):
        TRANSPORT.listen({"unixsocket": "/tmp/x"}, settings_of(unix))
    with pytest.raises(CommunicationError, match="no Unix sockets"):
        connect("./u:/tmp/x")


# --------------------------------------------------------------------------- connecting
def test_nobody_ever_listened(tmp_path: pathlib.Path) -> None:
    with pytest.raises(CommunicationError, match="there is no such socket file") as caught:
        connect(f"./u:{tmp_path}/nothing")
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_a_file_that_is_no_socket(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(CommunicationError, match="cannot connect"):
        connect(f"./u:{path}")


@linux_only
def test_a_full_queue(tmp_path: pathlib.Path) -> None:
    """The system does not wait for room where there is a time-out: we do."""
    settings = settings_of(unix, LISTEN_BACKLOG=1)
    listener = TRANSPORT.listen({"unixsocket": tmp_path / "s"}, settings)
    assert listener is not None
    waiting = [connect(listener.location) for _ in range(2)]
    for timeout in (0, 0.05):
        with pytest.raises(TimeoutError, match="within"):
            connect(listener.location, timeout)
    patient = in_thread(connect, listener.location)
    accept(listener).close()
    for stream in (*waiting, patient.result(PATIENCE)):
        stream.close()
    listener.close()


# --------------------------------------------------------------------------- what is in the way
SERVER = """
import sys
from pyroplug.testing.transports import settings_of
from pyroplug.transports import unix
listener = unix.UnixTransport().listen({"unixsocket": sys.argv[1]}, settings_of(unix))
print(listener.location, flush=True)
sys.stdin.read()
"""


def test_the_file_of_a_killed_server_is_replaced(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a socket"
    command = [sys.executable, "-c", SERVER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline().strip() == f"./u:{path}"
        with pytest.raises(ListenError, match="in use by a running server"):
            TRANSPORT.listen({"unixsocket": path}, settings_of(unix))
        connect(f"./u:{path}").close()
        server.kill()
    assert path.exists()
    with pytest.raises(CommunicationError, match="nobody listens there"):
        connect(f"./u:{path}")
    with listening(path) as listener:
        assert works(listener)
    assert not path.exists()


def test_the_socket_of_a_running_server_stays(tmp_path: pathlib.Path) -> None:
    with listening(tmp_path / "s") as listener:
        with pytest.raises(ListenError) as caught:
            TRANSPORT.listen({"unixsocket": tmp_path / "s"}, settings_of(unix))
        assert caught.value.errno == errno.EADDRINUSE
        assert works(listener)


def test_a_server_that_is_just_starting_is_not_taken_for_dead(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as starting:
        starting.bind(path)  # but does not listen yet
        with pytest.raises(ListenError, match="in use by a running server"):
            TRANSPORT.listen({"unixsocket": path}, settings_of(unix))
    os.unlink(path)


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_no_socket_is_never_removed(tmp_path: pathlib.Path, kind: str) -> None:
    path = tmp_path / "precious"
    if kind == "file":
        path.touch()
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ListenError, match="no socket is there; not removed"):
        TRANSPORT.listen({"unixsocket": path}, settings_of(unix))
    assert os.path.lexists(path)


def test_the_socket_of_another_kind_stays(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(ListenError, match="in use"):
            TRANSPORT.listen({"unixsocket": path}, settings_of(unix))
        with pytest.raises(CommunicationError, match="socket of another kind"):
            connect(f"./u:{path}")
    path.unlink()


def test_a_folder_that_does_not_exist(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ListenError, match="No such file or directory") as caught:
        TRANSPORT.listen({"unixsocket": tmp_path / "nowhere" / "s"}, settings_of(unix))
    assert caught.value.errno == errno.ENOENT


# --------------------------------------------------------------------------- cleaning up
def test_only_the_own_file_is_removed(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "s"
    with listening(path) as first:
        path.unlink()
        with listening(path) as second:
            first.close()
            assert works(second)
        assert not path.exists()


def test_the_file_is_removed_after_the_folder_was_changed(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with listening("relative") as listener:
        assert listener.location == "./u:relative"
        assert works(listener)
        os.chmod("relative", 0o600)
        monkeypatch.chdir("/")
    assert not (tmp_path / "relative").exists()


def test_the_file_may_be_gone_already(tmp_path: pathlib.Path) -> None:
    with listening(tmp_path / "s"):
        (tmp_path / "s").unlink()


def test_nothing_is_left_when_listening_fails(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(socket.socket):
        def listen(self, backlog: int = 0, /) -> None:
            raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(socket, "socket", Broken)
    with pytest.raises(ListenError, match="broken"):
        TRANSPORT.listen({"unixsocket": tmp_path / "s"}, settings_of(unix))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12 warns of fork where there are threads
def test_a_forked_child_does_not_remove_the_file_of_its_parent(tmp_path: pathlib.Path) -> None:
    with listening(tmp_path / "s") as listener:
        child = os.fork()
        if not child:
            try:
                listener.close()
            finally:
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert works(listener)
