"""Sockets that the user connected: ``Daemon(connected_socket=a)`` and ``Proxy("name", connected_socket=b)``.

There is no location that leads to such an object and nothing listens: daemon and proxy ask this transport for
a stream over the socket they were given.  The pieces of :func:`socket.socketpair` work between threads, and
between processes across ``fork``.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from pyroplug.core.errors import CommunicationError
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Schema, Setting

from ._sockets import SendMsg, SocketStream, unmatched

if TYPE_CHECKING:
    from pyroplug.core.interfaces import Transport
    from pyroplug.core.kernel import Kernel
    from pyroplug.core.settings import Settings
    from pyroplug.core.uri import URI

__all__ = ["PLUGIN", "PairStream", "PairTransport", "pyro_settings", "pyro_transports"]

PLUGIN = PluginInfo("pair", "sockets that the user has connected")


@hookimpl
def pyro_settings(schema: Schema) -> None:
    """R1: PAIR_HANDSHAKE."""
    schema.add(
        Setting(
            "PAIR_HANDSHAKE", bool, True, "proxies say hello on given sockets; off: the peer is Pyro5", owner="pair"
        )
    )


@hookimpl
def pyro_configure(kernel: Kernel) -> None:
    """``proxy._pyroSaysHello`` begins as PAIR_HANDSHAKE."""
    kernel.additions.attributes["_pyroSaysHello"] = lambda: kernel.settings.PAIR_HANDSHAKE


@hookimpl
def pyro_transports() -> Iterable[Transport]:
    """R5: the transport of sockets that are connected already."""
    return [PairTransport()]


class PairTransport:
    """Makes streams of the user's sockets; keeps no state."""

    scheme = "pair"
    """Occurs in no URI: this transport is asked for by name."""

    def stream(self, sock: object) -> PairStream:
        """A stream over ``sock``, which remains the user's: nothing here ever closes it.

        :raises TypeError: it is not a stream socket
        :raises CommunicationError: it is not connected
        """
        if not isinstance(sock, socket.socket) or sock.type != socket.SOCK_STREAM:
            raise TypeError(f"connected_socket must be a stream socket (TCP, Unix, socketpair), not {sock!r}")
        try:
            sock.getpeername()
        except OSError as error:
            raise CommunicationError(f"connected_socket is not connected: {error.strerror or error}") from error
        return PairStream(sock)

    def connect(self, uri: URI, timeout: float | None, settings: Settings) -> NoReturn:
        """Always fails: a socket cannot be found by its URI."""
        del timeout, settings
        raise unmatched(uri)

    def listen(self, options: Mapping[str, Any], settings: Settings) -> None:
        """None: a daemon with ``connected_socket`` has one stream and no listener."""
        del options, settings


class PairStream(SocketStream):
    """A stream over a socket that belongs to the user.

    ``close`` lets go of the socket and gives it its time-out back, so that it can be used for another proxy;
    every later operation on the stream is an :class:`OSError`.  It cannot wake a thread that waits in
    ``recv_into``, since that would need closing the connection: shut the socket down, or use time-outs.
    """

    __slots__ = ("_timeout",)

    def __init__(self, sock: socket.socket) -> None:
        self._timeout = sock.gettimeout()
        super().__init__(sock)

    def fileno(self) -> int:
        """The socket's descriptor, -1 once closed."""
        return -1 if self._closing.locked() else super().fileno()

    def settimeout(self, seconds: float | None, /) -> None:
        """As that of its base."""
        if self._closing.locked():
            _closed()
        super().settimeout(seconds)

    @property
    def sendmsg(self) -> SendMsg | None:
        """As that of its base; None once closed."""
        return None if self._closing.locked() else super().sendmsg

    def close(self) -> None:
        """Let go of the socket; safe to call twice and from another thread."""
        if not self._closing.acquire(blocking=False):
            return
        self.recv_into = self.send = _closed
        with suppress(OSError):  # closed by its owner meanwhile
            self.sock.settimeout(self._timeout)


def _closed(*_: Any) -> NoReturn:
    raise OSError(errno.EBADF, "the stream is closed (its socket may still be open)")
