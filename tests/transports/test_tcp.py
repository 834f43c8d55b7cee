"""TCP: connecting, listening, names and what is published."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from pyroplug.core.errors import CommunicationError, ConfigError, TimeoutError
from pyroplug.core.interfaces import Listener, Stream, Transport
from pyroplug.core.settings import Settings
from pyroplug.core.uri import CONNECTED_SOCKET, URI
from pyroplug.testing.transports import (
    PATIENCE,
    TransportConformance,
    accept,
    members,
    readable,
    receive,
    send_all,
    settings_of,
)
from pyroplug.transports import netutil, tcp
from pyroplug.transports._sockets import ListenerGroup, ListenError, SocketListener, SocketStream
from pyroplug.transports.tcp import TcpTransport

TRANSPORT = TcpTransport()
LINUX_FDS = os.path.isdir("/proc/self/fd")


class TcpConformance(TransportConformance):
    plugins = (tcp,)
    host: str

    def make_transport(self) -> Transport:
        return TRANSPORT

    def listen_options(self) -> Mapping[str, Any]:
        return {"host": self.host}

    def same_address(self, listener: Listener) -> Mapping[str, Any]:
        return {"host": self.host, "port": URI(f"PYRO:object@{listener.location}").port}


class TestLocalhost(TcpConformance):
    host = "localhost"


class TestIPv4(TcpConformance):
    host = "127.0.0.1"


@pytest.mark.feature("F010")
@pytest.mark.usefixtures("ipv6")
class TestIPv6(TcpConformance):
    host = "::1"


@contextlib.contextmanager
def listening(settings: Settings | None = None, **options: Any) -> Iterator[SocketListener | ListenerGroup]:
    listener = TRANSPORT.listen(options, settings or settings_of(tcp))
    assert listener is not None
    with contextlib.closing(listener):
        yield listener


def port_of(listener: Listener) -> int:
    return int(listener.location.rpartition(":")[2])


def connect(location: str, timeout: float | None = PATIENCE, **values: Any) -> SocketStream:
    return TRANSPORT.connect(URI(f"PYRO:object@{location}"), timeout, settings_of(tcp, **values))


def addresses(listener: Listener) -> list[str]:
    return [member.sock.getsockname()[0] for member in members(listener)]


def resolves(monkeypatch: pytest.MonkeyPatch, name: str, *found: str) -> None:
    """Let ``name`` resolve to these addresses; everything else as usual."""
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> list[Any]:
        if host != name:
            return real(host, port, *args, **kwargs)
        family = args[0] if args else kwargs.get("family", 0)
        results = [entry for address in found for entry in real(address, port, 0, socket.SOCK_STREAM)]
        results = [entry for entry in results if family in (0, entry[0])]
        if not results:
            raise socket.gaierror(socket.EAI_NONAME, "no such family")
        return results

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


# --------------------------------------------------------------------------- where to listen
@pytest.mark.feature("F022")
@pytest.mark.feature("F033")
def test_by_default_only_this_machine_can_connect() -> None:
    with listening() as listener:
        assert listener.location == f"localhost:{port_of(listener)}"
        assert port_of(listener) > 0
        assert all(ipaddress.ip_address(address).is_loopback for address in addresses(listener))


@pytest.mark.feature("F165")
@pytest.mark.feature("F170")
@pytest.mark.usefixtures("ipv6")
def test_localhost_is_both_ip_versions_on_one_port() -> None:
    with listening() as listener:
        assert addresses(listener) == ["127.0.0.1", "::1"]
        assert len({member.sock.getsockname()[1] for member in members(listener)}) == 1
        assert {member.location for member in members(listener)} == {listener.location}
        for host in ("127.0.0.1", "[::1]"):
            client = connect(f"{host}:{port_of(listener)}")
            server = accept(listener)
            assert server.peer.startswith(host)
            client.close()
            server.close()


@pytest.mark.feature("F170")
@pytest.mark.usefixtures("ipv6")
@pytest.mark.parametrize(("version", "address"), [(4, "127.0.0.1"), (6, "::1")])
def test_preferred_ip_version(version: int, address: str) -> None:
    with listening(settings_of(tcp, PREFER_IP_VERSION=version)) as listener:
        assert addresses(listener) == [address]
        assert listener.members == (listener,)
        client = connect(listener.location, PREFER_IP_VERSION=version)
        assert client.sock.getpeername()[0] == address
        client.close()


@pytest.mark.usefixtures("ipv6")
def test_the_group_is_a_listener_by_itself() -> None:
    with listening() as listener:
        assert isinstance(listener, ListenerGroup)
        assert listener.fileno() == listener.sock.fileno() == listener.members[0].fileno()
        assert listener.accept() is None
        client = connect(f"[::1]:{port_of(listener)}")
        assert readable(listener.members[1])
        server = listener.accept()
        assert server is not None
        server.close()
        client.close()


@pytest.mark.usefixtures("ipv6")
def test_a_random_port_that_ipv6_does_not_have(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, refused = tcp._listening, []

    def occupied(family: int, address: Any, settings: Settings) -> socket.socket:
        if family == socket.AF_INET6:
            refused.append(address[1])
            raise OSError(errno.EADDRINUSE, "in use")
        return real(family, address, settings)

    monkeypatch.setattr(tcp, "_listening", occupied)
    with listening() as listener:
        assert addresses(listener) == ["127.0.0.1"]
    assert len(set(refused)) > 1
    assert "listening on 127.0.0.1 only" in caplog.text


def test_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    real = tcp._listening

    def missing(family: int, address: Any, settings: Settings) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "no IPv6")
        return real(family, address, settings)

    monkeypatch.setattr(tcp, "_listening", missing)
    with listening() as listener:
        assert addresses(listener) == ["127.0.0.1"]
    with pytest.raises(ListenError, match="no IPv6"):
        TRANSPORT.listen({"host": "::1"}, settings_of(tcp))


@pytest.mark.feature("F010")
@pytest.mark.usefixtures("ipv6")
@pytest.mark.parametrize("host", ["::1", "[::1]", ipaddress.ip_address("::1")])
def test_ipv6_addresses_are_published_in_brackets(host: object) -> None:
    with listening(host=host) as listener:
        assert listener.location == f"[::1]:{port_of(listener)}"
        assert addresses(listener) == ["::1"]


def test_ipaddress_objects() -> None:
    with listening(host=ipaddress.ip_address("127.0.0.1")) as listener:
        assert listener.location == f"127.0.0.1:{port_of(listener)}"


@pytest.mark.feature("F033")
@pytest.mark.feature("F167")
def test_the_setting_host() -> None:
    with listening(settings_of(tcp, HOST="127.0.0.1")) as listener:
        assert listener.location.startswith("127.0.0.1:")
    with listening(settings_of(tcp, HOST="127.0.0.1"), host="localhost") as listener:
        assert listener.location.startswith("localhost:")


@pytest.mark.parametrize("port", [-1, 65536, "80", 80.5, True, object()])
def test_what_is_no_port(port: object) -> None:
    with pytest.raises(ConfigError, match="port must be a whole number from 0 to 65535"):
        TRANSPORT.listen({"port": port}, settings_of(tcp))


@pytest.mark.parametrize("host", [b"localhost", 127, object()])
def test_what_is_no_host(host: object) -> None:
    with pytest.raises(ConfigError, match="host must be"):
        TRANSPORT.listen({"host": host}, settings_of(tcp))


def test_a_host_that_does_not_exist() -> None:
    with pytest.raises(ListenError, match=r"'no such host\.invalid' cannot be found"):
        TRANSPORT.listen({"host": "no such host.invalid"}, settings_of(tcp))


def test_an_address_of_another_machine() -> None:
    with pytest.raises(ListenError, match=r"cannot listen on 192\.0\.2\.1 port 0: ") as caught:
        TRANSPORT.listen({"host": "192.0.2.1"}, settings_of(tcp))
    assert caught.value.errno == errno.EADDRNOTAVAIL
    assert isinstance(caught.value, OSError)


def test_a_name_with_an_address_of_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    resolves(monkeypatch, "mixed", "192.0.2.1", "127.0.0.1")
    with listening(host="mixed") as listener:
        assert addresses(listener) == ["127.0.0.1"]
        assert listener.location.startswith("mixed:")


@pytest.mark.parametrize(
    "option", [{"unixsocket": "/x"}, {"connected_socket": object()}, {"memory": "x"}, {"memory": True}]
)
def test_options_of_other_transports(option: dict[str, Any]) -> None:
    assert TRANSPORT.listen({"host": "localhost", "port": 0, **option}, settings_of(tcp)) is None


def test_options_of_other_transports_that_are_not_used() -> None:
    with listening(host=None, port=None, unixsocket=None, connected_socket=None, memory=None, other=1) as listener:
        assert listener.location.startswith("localhost:")


# --------------------------------------------------------------------------- ports
@pytest.mark.feature("F037")
@pytest.mark.feature("F038")
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_port_range(host: str) -> None:
    settings = settings_of(tcp, PORT_RANGE=50)
    with listening(host=host) as first, listening(settings, host=host, port=port_of(first)) as second:
        assert port_of(first) < port_of(second) < port_of(first) + 50
        with pytest.raises(ListenError, match="is in use"):
            TRANSPORT.listen({"host": host, "port": port_of(first), "port_range": 0}, settings)
        with listening(host=host, port=port_of(first), port_range=50) as third:
            assert port_of(third) not in (port_of(first), port_of(second))


@pytest.mark.feature("F038")
def test_a_port_range_that_is_full() -> None:
    with listening(host="127.0.0.1") as listener:
        port = port_of(listener)
        with pytest.raises(ListenError, match=f"port {port}: it is in use.*PORT_RANGE") as caught:
            TRANSPORT.listen({"host": "127.0.0.1", "port": port}, settings_of(tcp, PORT_RANGE=1))
    assert caught.value.errno == errno.EADDRINUSE
    assert isinstance(caught.value.__cause__, OSError)


def test_a_port_range_ends_at_the_last_port(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def occupied(family: int, address: Any, settings: Settings) -> socket.socket:
        tried.append(address[1])
        raise OSError(errno.EADDRINUSE, "in use")

    monkeypatch.setattr(tcp, "_listening", occupied)
    with pytest.raises(ListenError, match="and all up to 65535 are in use"):
        TRANSPORT.listen({"host": "127.0.0.1", "port": 65534}, settings_of(tcp, PORT_RANGE=10))
    assert tried == [65534, 65535]


def test_immediate_restart_on_the_same_port() -> None:
    """Also when the old server closed its connections first, which leaves them in TIME_WAIT."""
    with listening() as listener:
        port = port_of(listener)
        client = connect(listener.location)
        server = accept(listener)
        server.close()
        assert client.recv_into(bytearray(1)) == 0
        client.close()
    with listening(port=port) as again:
        assert port_of(again) == port


@pytest.mark.usefixtures("ipv6")
def test_half_of_localhost_in_use_is_in_use() -> None:
    """Else clients would reach one server or the other, depending on the IP version they try first."""
    with listening(host="::1") as other, pytest.raises(ListenError, match="in use"):
        TRANSPORT.listen({"host": "localhost", "port": port_of(other)}, settings_of(tcp))


# --------------------------------------------------------------------------- what is published
@pytest.mark.feature("F164")
@pytest.mark.parametrize("host", ["", "0.0.0.0"])
def test_every_interface_is_never_published(
    host: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "machine")
    resolves(monkeypatch, "machine", "198.51.100.7")
    with caplog.at_level(logging.INFO), listening(host=host) as listener:
        assert listener.sock.getsockname()[0] == "0.0.0.0"
        assert listener.location == f"198.51.100.7:{port_of(listener)}"
    assert "publishing 198.51.100.7" in caplog.text


@pytest.mark.feature("F164")
@pytest.mark.usefixtures("ipv6")
def test_every_interface_of_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "machine")
    resolves(monkeypatch, "machine", "2001:db8::7")
    with listening(host="::") as listener:
        assert listener.location == f"[2001:db8::7]:{port_of(listener)}"
        connect(f"127.0.0.1:{port_of(listener)}").close()
    with listening(settings_of(tcp, PREFER_IP_VERSION=6), host="") as listener:
        assert listener.sock.getsockname()[0] == "::"


@pytest.mark.feature("F118")
def test_a_machine_without_a_resolvable_name(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "machine.invalid")
    resolves(monkeypatch, "machine.invalid")
    with listening(host="") as listener:
        assert listener.location == f"machine.invalid:{port_of(listener)}"
    assert "does not resolve" in caplog.text


@pytest.mark.feature("F118")
def test_a_machine_name_that_means_localhost(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "machine")
    resolves(monkeypatch, "machine", "127.0.1.1")
    with listening(host="machine") as listener:
        assert listener.location == f"machine:{port_of(listener)}"
    warning = "weird DNS setup: machine resolves to localhost (127.x.x.x)"
    assert [record.getMessage() for record in caplog.records] == [warning]
    caplog.clear()
    with listening(host="") as listener:
        assert not listener.location.startswith("0.0.0.0")
    assert warning in [record.getMessage() for record in caplog.records]


@pytest.mark.feature("F118")
def test_no_warning_where_localhost_is_meant(caplog: pytest.LogCaptureFixture) -> None:
    for host in ("localhost", "127.0.0.1", "LOCALHOST"):
        with listening(host=host) as listener:
            assert listener.location.startswith(host)
    assert not caplog.records


# --------------------------------------------------------------------------- connecting
def test_nobody_listens() -> None:
    with listening(host="127.0.0.1") as listener:
        port = port_of(listener)
    with pytest.raises(CommunicationError) as caught:
        connect(f"127.0.0.1:{port}")
    assert str(caught.value).startswith(f"cannot connect to 127.0.0.1:{port}: 127.0.0.1:{port} connection refused")
    assert "is the server running" in str(caught.value)
    assert not isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


@pytest.mark.usefixtures("ipv6")
def test_the_error_names_every_address_that_was_tried() -> None:
    with listening() as listener:
        port = port_of(listener)
    with pytest.raises(CommunicationError) as caught:
        connect(f"localhost:{port}")
    assert f"127.0.0.1:{port} connection refused; [::1]:{port} connection refused" in str(caught.value)


@pytest.mark.parametrize("host", ["nosuchhost.invalid", "a..b", "x" * 70 + ".invalid"])
def test_a_name_that_does_not_resolve(host: str) -> None:
    with pytest.raises(CommunicationError, match=f"the host '{host}' cannot be found") as caught:
        connect(f"{host}:4444")
    assert caught.value.__cause__ is not None


@pytest.mark.usefixtures("ipv6")
@pytest.mark.parametrize("order", [("127.0.0.1", "::1"), ("::1", "127.0.0.1")])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_address_that_answers_is_found(monkeypatch: pytest.MonkeyPatch, host: str, order: tuple[str, str]) -> None:
    resolves(monkeypatch, "both", *order)
    with listening(host=host) as listener:
        client = connect(f"both:{port_of(listener)}")
        assert client.sock.getpeername()[0] == host
        assert client.peer == listener.location
        assert client.sock.gettimeout() is None
        client.close()


@pytest.fixture
def deaf() -> Iterator[tuple[str, int]]:
    """An address that never answers: a listener whose queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = selectors.DefaultSelector()
        stack.callback(fillers.close)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        if sys.platform != "linux":
            pytest.skip("a full queue is silent on Linux only")
        yield listener.getsockname()


def test_time_out(deaf: tuple[str, int]) -> None:
    with pytest.raises(TimeoutError, match=r"cannot connect to 127\.0\.0\.1:\d+ within 0\.05 seconds: .*timed out"):
        connect(f"127.0.0.1:{deaf[1]}", timeout=0.05)


def test_no_time_at_all() -> None:
    with listening() as listener, pytest.raises(TimeoutError, match="within 0 seconds"):
        connect(listener.location, timeout=0)


def test_time_out_of_several_addresses(monkeypatch: pytest.MonkeyPatch, deaf: tuple[str, int]) -> None:
    resolves(monkeypatch, "several", "127.0.0.1", "127.0.0.2")
    with pytest.raises(TimeoutError, match=r"127\.0\.0\.2:\d+ connection refused; 127\.0\.0\.1:\d+ timed out"):
        connect(f"several:{deaf[1]}", timeout=0.4)


def test_a_silent_address_does_not_keep_others_waiting(monkeypatch: pytest.MonkeyPatch, deaf: tuple[str, int]) -> None:
    resolves(monkeypatch, "several", "127.0.0.1", "127.0.0.2")
    with listening(host="127.0.0.2", port=deaf[1]) as listener:
        client = connect(f"several:{deaf[1]}", timeout=PATIENCE)
        assert client.peer == listener.location
        client.close()


def test_versions_take_turns() -> None:
    targets: list[tuple[int, tuple[Any, ...]]] = [(10, (n,)) for n in range(3)] + [(2, (n,)) for n in range(5, 7)]
    assert [address[0] for _, address in tcp._interleaved(targets)] == [0, 5, 1, 6, 2]
    assert tcp._interleaved([]) == []


def test_a_connection_to_oneself_is_none() -> None:
    """A client that tries a free port often enough gets connected to itself, which must count as refused."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.connect(sock.getsockname())
        with pytest.raises(ConnectionRefusedError):
            tcp._refuse_self(sock, sock.getsockname())


def test_objects_behind_a_given_socket() -> None:
    uri = URI(f"PYRO:object@{CONNECTED_SOCKET}:0")
    with pytest.raises(CommunicationError, match="connected_socket=sock"):
        TRANSPORT.connect(uri, None, settings_of(tcp))
    with pytest.raises(CommunicationError, match="names no host"):
        TRANSPORT.connect(URI("PYRO:object@./u:/tmp/x"), None, settings_of(tcp))


# --------------------------------------------------------------------------- socket options
@contextlib.contextmanager
def both_ends(**values: Any) -> Iterator[list[Stream]]:
    settings = settings_of(tcp, **values)
    with listening(settings) as listener:
        client = connect(listener.location, **values)
        server = accept(listener)
        yield [client, server]
        client.close()
        server.close()


@pytest.mark.parametrize("on", [True, False])
def test_socket_options(on: bool) -> None:
    with both_ends(SOCK_NODELAY=on, SOCK_KEEPALIVE=on) as ends:
        for end in ends:
            assert bool(end.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)) is on
            assert bool(end.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)) is on
            assert not end.sock.get_inheritable()


@pytest.mark.parametrize("on", [True, False])
def test_reuse(on: bool) -> None:
    with listening(settings_of(tcp, SOCK_REUSE=on)) as listener:
        found = listener.sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert bool(found) is (on and netutil.REUSE_IS_SAFE)


def test_the_default_time_out_of_the_program_does_not_matter() -> None:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(0.001)
    try:
        with both_ends() as ends:
            assert [end.sock.gettimeout() for end in ends] == [None, None]
    finally:
        socket.setdefaulttimeout(before)


def test_settings() -> None:
    settings = settings_of(tcp)
    assert (settings.HOST, settings.NATHOST, settings.NATPORT) == ("localhost", None, 0)
    with pytest.raises(ConfigError, match="PREFER_IP_VERSION"):
        settings.PREFER_IP_VERSION = 5


# --------------------------------------------------------------------------- processes
CHILD = "import sys; sys.stdout.write('up\\n'); sys.stdout.flush(); sys.stdin.read()"


def test_children_do_not_inherit_sockets() -> None:
    """The port is free, and the peer sees the end, though a child is still running."""
    with listening() as listener:
        port = port_of(listener)
        client = connect(listener.location)
        server = accept(listener)
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False
        )
        with child:
            assert child.stdout is not None
            assert child.stdout.readline().strip() == b"up"
            server.close()
            listener.close()
            client.settimeout(PATIENCE)
            assert client.recv_into(bytearray(1)) == 0
            client.close()
            with listening(port=port) as again:
                assert port_of(again) == port


SERVER = """
import sys
from pyroplug.testing.transports import accept, settings_of
from pyroplug.transports import tcp
listener = tcp.TcpTransport().listen({"port": int(sys.argv[1])}, settings_of(tcp))
print(listener.location, flush=True)
stream = accept(listener)
stream.send(b"hello")
sys.stdin.read()
"""


def test_a_killed_server_can_be_started_again() -> None:
    port = "0"
    for _ in range(2):
        with subprocess.Popen(
            [sys.executable, "-c", SERVER, port], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as server:
            assert server.stdout is not None
            location = server.stdout.readline().strip()
            assert port in ("0", location.rpartition(":")[2])
            port = location.rpartition(":")[2]
            client = connect(location)
            client.settimeout(PATIENCE)
            assert receive(client, 5) == b"hello"
            server.kill()
            with contextlib.suppress(ConnectionError):
                assert client.recv_into(bytearray(1)) == 0
            client.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12 warns of fork where there are threads
def test_closing_in_a_forked_child_leaves_the_connection_to_its_parent() -> None:
    with both_ends() as (client, server), listening() as listener:
        child = os.fork()
        if not child:
            try:
                client.close()
                listener.close()
            finally:
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        send_all(client, b"still here")
        server.settimeout(PATIENCE)
        assert receive(server, 10) == b"still here"
        connect(listener.location).close()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timer")
def test_signals_do_not_disturb() -> None:
    """A signal handler may run in the middle of everything (the system calls are interrupted)."""
    came = []
    previous = signal.signal(signal.SIGALRM, lambda *_: came.append(1))
    try:
        with both_ends() as (client, server):
            for end in (client, server):
                end.settimeout(PATIENCE)
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
            data = os.urandom(1 << 16)
            while len(came) < 20:
                send_all(client, data)
                assert receive(server, len(data)) == data
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
