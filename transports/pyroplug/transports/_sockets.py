"""Sockets as streams and listeners: what the TCP, Unix socket and pair transports have in common."""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol

from pyroplug.core.errors import CommunicationError
from pyroplug.core.settings import Setting
from pyroplug.core.uri import CONNECTED_SOCKET

__all__ = [
    "BACKLOG",
    "ListenError",
    "ListenerGroup",
    "SendMsg",
    "SocketListener",
    "SocketStream",
    "peer_text",
    "unmatched",
]

log = logging.getLogger(__name__)

BACKLOG = Setting(
    "LISTEN_BACKLOG",
    int,
    1024,
    "connections that may wait to be accepted (the system may allow fewer)",
    owner="transports",
    minimum=1,
    maximum=65535,
)
"""Declared by each transport that listens with a socket, so that none of them needs another one."""

_GONE: Final = frozenset(
    getattr(errno, name)
    # accept(2): errors that belong to the one connection that was waiting, not to the listener
    for name in [
        "EAGAIN",
        "EWOULDBLOCK",
        "ECONNABORTED",
        "ECONNRESET",
        "EPROTO",
        "ENETDOWN",
        "ENOPROTOOPT",
        "EHOSTDOWN",
        "ENONET",
        "EHOSTUNREACH",
        "EOPNOTSUPP",
        "ENETUNREACH",
        "EPERM",
        "ETIMEDOUT",
    ]
    if hasattr(errno, name)
)
_STARVED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_COMPLAIN_EVERY: Final = 1.0  # seconds

INHERITS_OPTIONS: Final = sys.platform == "linux"
"""Whether accepted sockets have the options of the listening one (saves two system calls each)."""


class ListenError(CommunicationError, OSError):
    """A listener could not be opened; also an OSError (with ``errno``), which is what Pyro5 raises."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.errno = code


# Callback protocols and not Callable, which type checkers take for methods when they compare with Stream.
class _Fileno(Protocol):
    def __call__(self) -> int: ...


class _RecvInto(Protocol):
    def __call__(self, buffer: Any, nbytes: int = 0, /) -> int: ...


class _Send(Protocol):
    def __call__(self, data: Any, /) -> int: ...


class SendMsg(Protocol):
    """The shape of :meth:`socket.socket.sendmsg`, as far as streams need it."""

    def __call__(self, buffers: Iterable[Any], /) -> int: ...


def _tls_recv_into(sock: Any) -> _RecvInto:
    """``recv_into`` of a TLS socket, raising what a :class:`Stream` raises where it would wait."""
    from ssl import SSLWantReadError, SSLWantWriteError  # slow to import; whoever has such a socket did already

    def recv_into(buffer: Any, nbytes: int = 0, /) -> int:
        try:
            count: int = sock.recv_into(buffer, nbytes or None)
        except (SSLWantReadError, SSLWantWriteError) as error:
            raise BlockingIOError(errno.EAGAIN, "no complete TLS record has come") from error
        return count

    return recv_into


def _tls_send(sock: Any) -> _Send:
    from ssl import SSLWantReadError, SSLWantWriteError

    def send(data: Any, /) -> int:
        try:
            count: int = sock.send(data)
        except (SSLWantReadError, SSLWantWriteError) as error:
            raise BlockingIOError(errno.EAGAIN, "the TLS record cannot be sent yet") from error
        return count

    return send


def _nothing_pending() -> int:
    return 0


def _tls_pending(sock: Any) -> _Fileno:
    def pending() -> int:
        try:
            return int(sock.pending())
        except (OSError, ValueError):  # closed
            return 0

    return pending


@functools.lru_cache(maxsize=4)
def _shared(number: int) -> int:
    """One object for equal numbers: each connection has one of these."""
    return number


class SocketStream:
    """A connected socket as a :class:`~pyroplug.core.interfaces.Stream`; it owns the socket.

    ``recv_into`` and ``send`` *are* the socket's own methods, so that an operation costs nothing in Python.
    ``address`` is the other end's if known already (what ``accept`` gave).  The stream starts blocking,
    whatever :func:`socket.setdefaulttimeout` says.

    Closing wakes a thread that waits in ``recv_into``.  In a forked child it only closes the child's
    descriptor: the connection remains its parent's.
    """

    __slots__ = (
        "__weakref__",
        "_address",
        "_closing",
        "_peer",
        "_pid",
        "pending",
        "recv_into",
        "send",
        "sock",
    )

    sock: socket.socket
    pending: _Fileno
    recv_into: _RecvInto
    send: _Send

    def __init__(self, sock: socket.socket, address: Any = None) -> None:
        # BSDs and macOS hand the listener's non-blocking mode on, and programs change the default time-out
        sock.settimeout(None)
        self._start(sock, address)

    def _start(self, sock: socket.socket, address: Any) -> None:
        self.sock = sock
        if hasattr(sock, "pending"):
            self.recv_into = _tls_recv_into(sock)
            self.send = _tls_send(sock)
            self.pending = _tls_pending(sock)
        else:
            self.pending = _nothing_pending
            self.recv_into = sock.recv_into
            self.send = sock.send
        self._address = address
        self._peer: str | None = None
        self._pid = _shared(os.getpid())
        # never released: taking it without waiting is an atomic "am I the first to close?", also in signal handlers
        self._closing = threading.Lock()

    def fileno(self) -> int:
        """The socket's descriptor, -1 once closed."""
        return self.sock.fileno()

    def settimeout(self, seconds: float | None, /) -> None:
        """As that of the socket."""
        self.sock.settimeout(seconds)

    @property
    def address(self) -> Any:
        """The address of the other end where it was known from the beginning; kept after the end."""
        return self._address

    def close(self) -> None:
        """Close both directions; the second time, and while another thread is at it, nothing happens."""
        if self._closing.acquire(blocking=False):
            try:
                if os.getpid() == self._pid:
                    self.sock.shutdown(socket.SHUT_RDWR)  # close() alone does not wake a waiting thread
            except OSError:
                pass  # the other end was faster
            try:
                self.sock.close()
            except OSError:
                pass

    @property
    def sendmsg(self) -> SendMsg | None:
        """The socket's method to send several buffers at once; None where there is none (Windows, TLS)."""
        # made on demand: few connections use it, and thousands may be idle
        return None if hasattr(self.sock, "pending") else getattr(self.sock, "sendmsg", None)

    @property
    def peer(self) -> str:
        """``127.0.0.1:5555``, ``[::1]:5555`` or ``unix:/path``; asked for once, never fails."""
        if self._peer is None:
            self._peer = peer_text(self.sock, self._address)
        return self._peer

    def __repr__(self) -> str:
        return f"<{type(self).__name__} fd={self.fileno()} {self._peer or ''}>"


def peer_text(sock: socket.socket, address: Any = None) -> str:
    """Who is at the other end of ``sock``, whose address may be known already; never fails."""
    try:
        if address is None:
            address = sock.getpeername()
        if isinstance(address, tuple):
            host, port = address[:2]
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        # the connecting end of a Unix socket has no name: say where it came in
        path = os.fsdecode(address or sock.getsockname())
    except OSError:
        return "(disconnected)"
    if path.startswith("\0"):
        path = "@" + path[1:]  # as netstat and ss write abstract names
    return f"unix:{path or '(unnamed)'}"


class SocketListener:
    """A listening socket as a :class:`~pyroplug.core.interfaces.Listener`; it owns the socket.

    ``prepare`` is applied to each accepted socket; ``cleanup`` runs once after closing, though not in a forked
    child, whose listener is still its parent's.
    """

    __slots__ = (
        "__weakref__", "_cleanup", "_closing", "_complained", "_pid", "_prepare", "fileno", "location", "published", "sock"
    )  # fmt: skip

    fileno: _Fileno
    location: str
    published: str | None
    """The location for clients, where that is another."""
    sock: socket.socket

    def __init__(
        self,
        sock: socket.socket,
        location: str,
        *,
        published: str | None = None,
        prepare: Callable[[socket.socket], None] | None = None,
        cleanup: Callable[[], None] | None = None,
    ) -> None:
        sock.settimeout(0)
        self.sock = sock
        self.location = location
        self.published = published
        self.fileno = sock.fileno
        self._prepare = prepare
        self._cleanup = cleanup
        self._complained = -_COMPLAIN_EVERY
        self._pid = os.getpid()
        self._closing = threading.Lock()  # used as in SocketStream

    def accept(self) -> SocketStream | None:
        """The next connection, or None: nobody waits, the peer has gone, no descriptors are left, or closed.

        :raises OSError: the listening socket itself is broken
        """
        try:
            sock, address = self.sock.accept()
        except OSError as error:
            if error.errno in _STARVED:
                self._complain(error)
            elif error.errno not in _GONE and not self._closing.locked():
                raise
            return None
        try:
            if self._prepare is not None:
                self._prepare(sock)
            return SocketStream(sock, address)
        except OSError:
            sock.close()  # macOS refuses options on a socket whose peer has gone
            return None

    def _complain(self, error: OSError) -> None:
        # the connection stays in the queue and the loop is back at once: do not fill the disk
        now = time.monotonic()
        if now - self._complained >= _COMPLAIN_EVERY:
            self._complained = now
            log.error("%s cannot accept connections for now: %s", self.location, error)

    def close(self) -> None:
        """Stop listening; safe to call twice and from another thread."""
        if self._closing.acquire(blocking=False):
            # no shutdown: it would end the listening in forked children and parents as well
            with contextlib.suppress(OSError):
                self.sock.close()
            if self._cleanup is not None and os.getpid() == self._pid:
                self._cleanup()

    @property
    def members(self) -> tuple[SocketListener, ...]:
        """What a server loop has to watch: here, this one."""
        return (self,)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.location}>"


class ListenerGroup:
    """Several listeners with one location, such as ``localhost`` on IPv4 and IPv6.

    A server loop watches each of ``members``.  ``fileno`` and ``sock`` are the first one's; ``accept`` asks all.
    """

    __slots__ = ("location", "members")

    def __init__(self, members: Sequence[SocketListener], location: str) -> None:
        self.members = tuple(members)
        self.location = location

    def fileno(self) -> int:
        """The first listener's descriptor."""
        return self.members[0].fileno()

    def accept(self) -> SocketStream | None:
        """The next connection of any of them."""
        for member in self.members:
            stream = member.accept()
            if stream is not None:
                return stream
        return None

    def close(self) -> None:
        """Close them all."""
        for member in self.members:
            member.close()

    @property
    def sock(self) -> socket.socket:
        """The first listener's socket."""
        return self.members[0].sock

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.location} of {len(self.members)}>"


def unmatched(uri: object) -> CommunicationError:
    """The error for a URI that nobody can connect to: its object is behind a socket somebody holds."""
    return CommunicationError(
        f"cannot connect to {uri}: {CONNECTED_SOCKET} is no address; the object is reached over a socket that is "
        f"connected already, which must be given: Proxy(name, connected_socket=sock)"
    )
