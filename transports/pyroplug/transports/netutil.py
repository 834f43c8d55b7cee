"""Helpers for programs and plugins that work with sockets directly, under Pyro5's names.

Addresses are :mod:`ipaddress` objects.  Nothing here reads settings: where Pyro5 looked at its global
configuration, ``version`` (4, 6, or 0 for whatever the system prefers) is an argument.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Union

from pyroplug.core.errors import CommunicationError, ConnectionClosedError, TimeoutError

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

    IPAddress = Union[IPv4Address, IPv6Address]
    IPInterface = Union[IPv4Interface, IPv6Interface]

__all__ = [
    "REUSE_IS_SAFE",
    "USE_MSG_WAITALL",
    "bind_unused_port",
    "create_bc_socket",
    "create_socket",
    "family_str",
    "find_probably_unused_port",
    "get_interface",
    "get_ip_address",
    "get_ip_version",
    "interrupt_socket",
    "is_loopback",
    "receive_data",
    "send_data",
    "set_exclusive",
    "set_keepalive",
    "set_nodelay",
    "set_noinherit",
    "set_reuseaddr",
]

USE_MSG_WAITALL = hasattr(socket, "MSG_WAITALL") and sys.platform != "win32"
"""Whether one receive call may ask for a whole message; Windows has the flag but does not keep its promise."""

REUSE_IS_SAFE = os.name == "posix" and sys.platform != "cygwin"
"""Whether SO_REUSEADDR only means "ignore TIME_WAIT"; on Windows it lets two servers share a port."""

_FAMILIES: Mapping[int, int] = {0: socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}

# reserved for documentation, so never local: the route to them is the route to the internet.  No packet is sent.
_FAR_AWAY: Mapping[int, str] = {4: "192.0.2.1", 6: "2001:db8::1"}


# --------------------------------------------------------------------------- addresses
def get_ip_address(
    hostname: str | IPAddress | None, workaround127: bool = False, version: int | None = None
) -> IPAddress:
    """The address of a host; of this machine when ``hostname`` is empty.

    ``version`` 4 or 6 asks for that kind (4 settles for the other when there is none), 0 or None for the
    system's choice.  With ``workaround127`` a loopback answer is replaced by the address of the interface that
    leads to the outside, if there is one.

    :raises OSError: the name does not resolve, or not to the version asked for
    :raises ValueError: ``version`` is none of these
    """
    import ipaddress  # not needed to connect: kept out of the start-up time

    if version not in (None, *_FAMILIES):
        raise ValueError(f"version must be 4, 6, or 0 for any, not {version!r}")
    name = str(hostname or "")
    if not workaround127:
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(name)
    try:
        found = _look_up(name or socket.gethostname(), version or 0)
    except socket.gaierror as error:
        if version == 6:
            raise OSError(f"{name or 'this machine'} has no IPv6 address: {error.strerror}") from error
        if version != 4:
            raise
        found = _look_up(name or socket.gethostname(), 0)
    address = ipaddress.ip_address(found)
    if workaround127 and (address.is_loopback or address.is_unspecified):
        with contextlib.suppress(OSError):
            return get_interface(_FAR_AWAY[address.version]).ip
    return address


def _look_up(host: str, version: int) -> str:
    return str(socket.getaddrinfo(host, None, _FAMILIES[version], socket.SOCK_STREAM)[0][4][0])


def get_ip_version(hostname: str | IPAddress) -> int:
    """4 or 6: the kind of address that ``hostname`` is, or resolves to."""
    return get_ip_address(hostname).version


def get_interface(ip_address: str | IPAddress) -> IPInterface:
    """The local interface whose route leads to ``ip_address`` (or host name); nothing is sent.

    :raises OSError: there is no such route
    """
    import ipaddress

    address = get_ip_address(ip_address)
    with socket.socket(_FAMILIES[address.version], socket.SOCK_DGRAM) as sock:
        sock.connect((str(address), 53))
        return ipaddress.ip_interface(sock.getsockname()[0])


def is_loopback(host: str | IPAddress) -> bool:
    """Whether ``host`` plainly means this machine only: 127.x.x.x, ::1, or localhost.  Looks nothing up."""
    name = str(host).strip("[]").lower()
    if name.partition(".")[0] == "localhost" or name.endswith(".localhost") or name == "ip6-localhost":
        return True
    import ipaddress

    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def family_str(sock: socket.socket) -> str:
    """``IPv4``, ``IPv6``, ``Unix``, or ``???``."""
    names = {socket.AF_INET: "IPv4", socket.AF_INET6: "IPv6", getattr(socket, "AF_UNIX", None): "Unix"}
    return names.get(sock.family, "???")


# --------------------------------------------------------------------------- ports
def bind_unused_port(sock: socket.socket, host: str | IPAddress = "localhost") -> int:
    """Bind ``sock`` to a free port of ``host`` and return the port."""
    if sock.type == socket.SOCK_STREAM:
        set_exclusive(sock)
    name = str(host)
    if sock.family == socket.AF_INET:
        sock.bind(("127.0.0.1" if name == "localhost" else name, 0))
    elif sock.family == socket.AF_INET6:
        sock.bind(("::1" if name == "localhost" else name, 0, 0, 0))
    else:
        raise CommunicationError(f"a {family_str(sock)} socket has no ports")
    return int(sock.getsockname()[1])


def find_probably_unused_port(family: int = socket.AF_INET, socktype: int = socket.SOCK_STREAM) -> int:
    """A port nobody uses at the moment; another program may take it before you do."""
    with socket.socket(family, socktype) as sock:
        return bind_unused_port(sock)


# --------------------------------------------------------------------------- options
def _set(sock: socket.socket, level: int, option: str, value: int = 1) -> None:
    # an option that does not exist for this system or this kind of socket is no reason to fail
    with contextlib.suppress(OSError, AttributeError):
        sock.setsockopt(level, getattr(socket, option), value)


def set_nodelay(sock: socket.socket) -> None:
    """Send small messages at once (TCP_NODELAY), if the socket is of that kind."""
    _set(sock, socket.IPPROTO_TCP, "TCP_NODELAY")


def set_keepalive(sock: socket.socket) -> None:
    """Let the system notice, after hours, that the peer is gone (SO_KEEPALIVE), if possible."""
    _set(sock, socket.SOL_SOCKET, "SO_KEEPALIVE")


def set_reuseaddr(sock: socket.socket) -> None:
    """Let a restarted server have its port at once (SO_REUSEADDR); does nothing on Windows, which needs no such
    thing and understands it differently.
    """
    if REUSE_IS_SAFE:
        _set(sock, socket.SOL_SOCKET, "SO_REUSEADDR")


def set_exclusive(sock: socket.socket) -> None:
    """Windows: keep others from binding the same port (SO_EXCLUSIVEADDRUSE); everywhere else that is so anyway."""
    _set(sock, socket.SOL_SOCKET, "SO_EXCLUSIVEADDRUSE")


def set_noinherit(sock: socket.socket) -> None:
    """Keep the socket from child processes; Python's own sockets are like that from the start."""
    sock.set_inheritable(False)


# --------------------------------------------------------------------------- making sockets
def create_socket(
    bind: tuple[Any, ...] | str | None = None,
    connect: tuple[Any, ...] | str | None = None,
    reuseaddr: bool = False,
    keepalive: bool = True,
    timeout: float | None = -1,
    noinherit: bool = False,
    ipv6: bool | None = False,
    nodelay: bool = True,
) -> socket.socket:
    """A TCP socket, or a Unix socket where ``bind`` or ``connect`` is a path; bound sockets listen already.

    ``timeout`` is in seconds; None and 0 wait for ever, negative leaves the default.  Port 0 binds a free one.

    :raises OSError: it could not be bound or connected
    :raises ValueError: both ``bind`` and ``connect``, or IPv4 together with ``ipv6``
    """
    if bind and connect:
        raise ValueError("a socket is either bound or connected")
    target = bind or connect
    if isinstance(target, str):
        if not hasattr(socket, "AF_UNIX"):
            raise OSError("this system has no Unix sockets")
        family: int = socket.AF_UNIX
    else:
        family, target = _family(target, bool(ipv6))
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family != getattr(socket, "AF_UNIX", None):
            _configure(sock, reuseaddr, nodelay)
        if keepalive:
            set_keepalive(sock)
        if noinherit:
            set_noinherit(sock)
        if timeout is None or timeout >= 0:
            sock.settimeout(timeout or None)
        if bind:
            if isinstance(target, tuple) and target[1] == 0:
                bind_unused_port(sock, target[0])
            else:
                sock.bind(target)
            sock.listen(1024)
        elif connect:
            sock.connect(target)
    except BaseException:
        sock.close()
        raise
    return sock


def _family(address: tuple[Any, ...] | None, ipv6: bool) -> tuple[int, Any]:
    """The family of an address, and the address in the form of that family."""
    if not address or not address[0]:
        return (socket.AF_INET6 if ipv6 else socket.AF_INET), address
    version = get_ip_address(address[0]).version
    if version == 6:
        return socket.AF_INET6, (*map(str, address[:1]), address[1], 0, 0)
    if ipv6:
        raise ValueError(f"{address[0]} is an IPv4 address, but ipv6 was asked for")
    return socket.AF_INET, (str(address[0]), address[1])


def _configure(sock: socket.socket, reuseaddr: bool, nodelay: bool) -> None:
    if nodelay and sock.type == socket.SOCK_STREAM:
        set_nodelay(sock)
    if reuseaddr:
        set_reuseaddr(sock)


def create_bc_socket(
    bind: tuple[Any, ...] | None = None,
    reuseaddr: bool = False,
    timeout: float | None = -1,
    ipv6: bool | None = False,
) -> socket.socket:
    """A UDP socket that may broadcast; ``timeout`` in seconds, None waits for ever, negative leaves the default.

    :raises OSError: it could not be bound
    """
    if bind is not None and not isinstance(bind, tuple):
        raise ValueError(f"bind must be a pair of host and port, not {bind!r}")
    family, address = _family(bind, bool(ipv6))
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if reuseaddr:
            set_reuseaddr(sock)
        if timeout is None or timeout >= 0:
            sock.settimeout(timeout)
        if address:
            sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


# --------------------------------------------------------------------------- all the bytes
def receive_data(sock: socket.socket, size: int) -> bytes:
    """Exactly ``size`` bytes, waiting also where the socket is non-blocking.

    :raises ConnectionClosedError: the stream ended before; its ``partialData`` is what had come
    :raises TimeoutError: nothing came within the socket's time-out
    """
    data = bytearray(size)
    received = 0
    flags = socket.MSG_WAITALL if USE_MSG_WAITALL and not hasattr(sock, "getpeercert") else 0
    with memoryview(data) as view:
        while received < size:
            try:
                count = sock.recv_into(view[received:], size - received, flags)
            except BlockingIOError:
                _wait(sock, selectors.EVENT_READ)
                continue
            except OSError as error:
                raise _lost("receiving", error) from error
            if not count:
                failure = ConnectionClosedError(f"receiving: the stream ended after {received} of {size} bytes")
                vars(failure)["partialData"] = bytes(data[:received])  # Pyro's name; no attribute of the class
                raise failure
            received += count
    return bytes(data)


def send_data(sock: socket.socket, data: bytes | bytearray | memoryview) -> None:
    """Send all of ``data``, waiting also where the socket is non-blocking.

    :raises ConnectionClosedError: the other side is gone
    :raises TimeoutError: nothing could be sent within the socket's time-out
    """
    with memoryview(data) as whole, whole.cast("B") as view:
        sent = 0
        while sent < len(view):
            try:
                sent += sock.send(view[sent:])
            except BlockingIOError:
                _wait(sock, selectors.EVENT_WRITE)
            except OSError as error:
                raise _lost("sending", error) from error


def _wait(sock: socket.socket, event: int) -> None:
    # not select.select(), which cannot take descriptors above 1023
    with selectors.DefaultSelector() as selector:
        selector.register(sock, event)
        selector.select()


def _lost(what: str, error: OSError) -> CommunicationError:
    if isinstance(error, socket.timeout):
        return TimeoutError(f"{what}: timed out")
    return ConnectionClosedError(f"{what}: connection lost: {error}")


def interrupt_socket(address: tuple[Any, ...] | str) -> None:
    """Wake a server that waits for connections at ``address``, by making one and dropping it; never fails."""
    with contextlib.suppress(OSError), create_socket(connect=address, keepalive=False, timeout=2) as sock:
        sock.sendall(b"!" * 16)
        sock.shutdown(socket.SHUT_RDWR)
