"""The helpers with Pyro5's names."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import sys
from collections.abc import Iterator

import Pyro5.socketutil
import pytest

from pyroplug.core.errors import CommunicationError, ConnectionClosedError, TimeoutError
from pyroplug.testing.transports import PATIENCE, in_thread
from pyroplug.transports import netutil

pytestmark = pytest.mark.feature("F319")


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


def test_names_of_pyro5_are_all_there() -> None:
    """But for TLS contexts and the connection class, which live elsewhere."""
    theirs = {
        name
        for name, thing in vars(Pyro5.socketutil).items()
        if callable(thing) and getattr(thing, "__module__", "") == "Pyro5.socketutil" and not name.startswith("_")
    }
    assert theirs - {"get_ssl_context", "SocketConnection"} <= set(netutil.__all__)
    assert all(hasattr(netutil, name) for name in netutil.__all__)


@pytest.mark.feature("F034")
class TestAddresses:
    def test_literals(self) -> None:
        for text in ("127.0.0.1", "::1", "198.51.100.7"):
            assert netutil.get_ip_address(text) == ipaddress.ip_address(text)
            assert netutil.get_ip_address(ipaddress.ip_address(text)) == ipaddress.ip_address(text)
        assert [netutil.get_ip_version(text) for text in ("127.0.0.1", "::1")] == [4, 6]

    def test_names(self) -> None:
        assert netutil.get_ip_address("localhost", version=4) == ipaddress.ip_address("127.0.0.1")
        assert netutil.get_ip_address("localhost").is_loopback
        for nobody in ("", None):
            with contextlib.suppress(socket.gaierror):
                assert netutil.get_ip_address(nobody) == netutil.get_ip_address(socket.gethostname())
        with pytest.raises(socket.gaierror):
            netutil.get_ip_address("nosuchhost.invalid")
        with pytest.raises(OSError, match="no IPv6 address"):
            netutil.get_ip_address("nosuchhost.invalid", version=6)
        with pytest.raises(ValueError, match="version must be"):
            netutil.get_ip_address("localhost", version=5)

    def test_the_way_around_127(self, monkeypatch: pytest.MonkeyPatch) -> None:
        outside = ipaddress.ip_interface("198.51.100.7")
        monkeypatch.setattr(netutil, "get_interface", lambda _: outside)
        assert netutil.get_ip_address("localhost", workaround127=True, version=4) == outside.ip
        assert netutil.get_ip_address("203.0.113.1", workaround127=True) == ipaddress.ip_address("203.0.113.1")

        def unreachable(_: object) -> None:
            raise OSError("network unreachable")

        monkeypatch.setattr(netutil, "get_interface", unreachable)
        assert netutil.get_ip_address("localhost", workaround127=True, version=4).is_loopback

    def test_interfaces(self) -> None:
        for target in ("127.0.0.1", "localhost", ipaddress.ip_address("127.0.0.1")):
            assert netutil.get_interface(target).ip.is_loopback

    @pytest.mark.parametrize(
        ("host", "expected"),
        [
            ("localhost", True),
            ("LocalHost", True),
            ("app.localhost", True),
            ("localhost.localdomain", True),
            ("127.0.0.1", True),
            ("127.4.5.6", True),
            ("::1", True),
            ("[::1]", True),
            ("::ffff:127.0.0.1", True),
            ("0.0.0.0", False),
            ("192.0.2.1", False),
            ("::", False),
            ("example.org", False),
            ("localhosts", False),
            ("", False),
        ],
    )
    def test_is_loopback(self, host: str, expected: bool) -> None:
        assert netutil.is_loopback(host) is expected

    def test_family_str(self) -> None:
        with socket.socket() as sock:
            assert netutil.family_str(sock) == "IPv4"
        with netutil.create_socket(ipv6=True) as sock:
            assert netutil.family_str(sock) == "IPv6"
        if hasattr(socket, "AF_UNIX"):
            with socket.socket(socket.AF_UNIX) as sock:
                assert netutil.family_str(sock) == "Unix"


class TestMaking:
    def test_unused_ports(self) -> None:
        assert 1024 <= netutil.find_probably_unused_port() <= 65535
        assert netutil.find_probably_unused_port(socktype=socket.SOCK_DGRAM) > 0
        with socket.socket() as sock:
            assert netutil.bind_unused_port(sock, ipaddress.ip_address("127.0.0.1")) == sock.getsockname()[1]

    @pytest.mark.usefixtures("ipv6")
    def test_unused_ports_of_ipv6(self) -> None:
        assert netutil.find_probably_unused_port(socket.AF_INET6) > 0

    @pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets")
    def test_unix_sockets_have_no_ports(self) -> None:
        with socket.socket(socket.AF_UNIX) as sock, pytest.raises(CommunicationError, match="Unix socket has no ports"):
            netutil.bind_unused_port(sock)

    def test_server_and_client(self) -> None:
        with netutil.create_socket(bind=("localhost", 0), reuseaddr=True, timeout=PATIENCE) as server:
            with netutil.create_socket(connect=server.getsockname(), noinherit=True, timeout=0) as client:
                assert client.gettimeout() is None
                assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert client.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                accepted, _ = server.accept()
                accepted.close()
            netutil.interrupt_socket(server.getsockname())
            interrupting, _ = server.accept()
            with interrupting:
                assert netutil.receive_data(interrupting, 16) == b"!" * 16
            address = server.getsockname()
        netutil.interrupt_socket(address)  # nobody there: no error
        with pytest.raises(ConnectionRefusedError):
            netutil.create_socket(connect=address)

    @pytest.mark.usefixtures("ipv6")
    def test_ipv6(self) -> None:
        with netutil.create_socket(bind=("::1", 0)) as server:
            assert server.getsockname()[0] == "::1"
            netutil.create_socket(connect=server.getsockname()[:2]).close()
        with pytest.raises(ValueError, match="is an IPv4 address"):
            netutil.create_socket(bind=("127.0.0.1", 0), ipv6=True)

    @pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets")
    def test_paths(self, tmp_path: object) -> None:
        path = f"{tmp_path}/s"
        with netutil.create_socket(bind=path) as server:
            netutil.create_socket(connect=path).close()
            assert netutil.family_str(server) == "Unix"
        import os

        os.unlink(path)

    def test_not_both(self) -> None:
        with pytest.raises(ValueError, match="either bound or connected"):
            netutil.create_socket(bind=("", 1), connect=("", 1))
        netutil.create_socket(timeout=3).close()

    def test_broadcast_sockets(self) -> None:
        with netutil.create_bc_socket(bind=("127.0.0.1", 0), reuseaddr=True, timeout=PATIENCE) as receiver:
            assert receiver.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)
            assert receiver.gettimeout() == PATIENCE
            with netutil.create_bc_socket(timeout=None) as sender:
                sender.sendto(b"hello", receiver.getsockname())
                assert receiver.recv(100) == b"hello"
        with pytest.raises(ValueError, match="pair of host and port"):
            netutil.create_bc_socket(bind="localhost")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        with pytest.raises(OSError, match="assign requested address|not valid" if sys.platform != "win32" else ""):
            netutil.create_bc_socket(bind=("192.0.2.1", 0))

    def test_options_that_do_not_fit_are_ignored(self, pair: tuple[socket.socket, socket.socket]) -> None:
        for setter in (netutil.set_nodelay, netutil.set_keepalive, netutil.set_reuseaddr, netutil.set_exclusive):
            setter(pair[0])
        pair[0].set_inheritable(True)
        netutil.set_noinherit(pair[0])
        assert not pair[0].get_inheritable()


@pytest.mark.feature("F171")
class TestAllTheBytes:
    @pytest.mark.parametrize("timeout", [None, 0, PATIENCE])
    def test_much_data(self, pair: tuple[socket.socket, socket.socket], timeout: float | None) -> None:
        left, right = pair
        left.settimeout(timeout)
        right.settimeout(timeout)
        data = bytes(range(256)) * 20000
        sending = in_thread(netutil.send_data, left, memoryview(data).cast("I"))
        assert netutil.receive_data(right, len(data)) == data
        sending.result(PATIENCE)
        assert netutil.receive_data(right, 0) == b""

    def test_the_end_comes_early(self, pair: tuple[socket.socket, socket.socket]) -> None:
        left, right = pair
        left.sendall(b"abc")
        left.close()
        with pytest.raises(ConnectionClosedError, match="ended after 3 of 10") as caught:
            netutil.receive_data(right, 10)
        assert vars(caught.value)["partialData"] == b"abc"
        with pytest.raises(ConnectionClosedError, match="connection lost"):
            netutil.send_data(right, bytes(1 << 20))
        right.close()
        with pytest.raises(ConnectionClosedError, match="connection lost"):
            netutil.receive_data(right, 1)

    def test_time_outs(self, pair: tuple[socket.socket, socket.socket]) -> None:
        left, _ = pair
        left.settimeout(0.01)
        with pytest.raises(TimeoutError, match="receiving"):
            netutil.receive_data(left, 1)
        with pytest.raises(TimeoutError, match="sending"):
            netutil.send_data(left, bytes(64 << 20))
