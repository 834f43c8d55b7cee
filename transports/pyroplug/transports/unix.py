r"""Unix domain sockets: locations such as ``./u:/tmp/my socket``.

Daemon option ``unixsocket``: a path (text, bytes or path object), or on Linux an abstract name, which starts with
a null character; since that cannot be typed, the two characters ``\0`` at the start mean the same.
"""

from __future__ import annotations

import builtins
import errno
import logging
import os
import socket
import stat
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from pyroplug.core.errors import CommunicationError, ConfigError, TimeoutError
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Schema

from ._sockets import BACKLOG, ListenError, SocketListener, SocketStream

if TYPE_CHECKING:
    from pyroplug.core.interfaces import Transport
    from pyroplug.core.settings import Settings
    from pyroplug.core.uri import URI

__all__ = ["PLUGIN", "UnixTransport", "pyro_settings", "pyro_transports"]

PLUGIN = PluginInfo("unix", "Unix domain sockets")

log = logging.getLogger(__name__)

LONGEST_PATH: Final = 107 if sys.platform == "linux" else 103
"""In bytes; the system's structure has one more, for the null at the end."""

_BUSY_RETRY: Final = 0.01  # seconds between attempts while the server's queue is full

_HINTS: Final[Mapping[int, str]] = {
    errno.ENOENT: "there is no such socket file; is the server running?",
    errno.ECONNREFUSED: "nobody listens there; is the server running?",
    errno.EPROTOTYPE: "it is a socket of another kind",
    errno.ENOTSOCK: "it is no socket",
}

Identity = tuple[int, int, int]


@hookimpl
def pyro_settings(schema: Schema) -> None:
    """R1: how many connections may wait."""
    schema.add(BACKLOG)


@hookimpl
def pyro_transports() -> Iterable[Transport]:
    """R5: the transport of ``./u:path`` locations."""
    return [UnixTransport()]


class UnixTransport:
    """Carries ``./u:path``; keeps no state."""

    scheme = "u"

    def connect(self, uri: URI, timeout: float | None, settings: Settings) -> SocketStream:
        """A stream to ``uri``; see :class:`~pyroplug.core.interfaces.Transport`."""
        del settings
        try:
            path = _checked_path(uri.sockname)
        except ConfigError as error:
            raise CommunicationError(f"cannot connect to {uri.location}: {error}") from error
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _connect(sock, path, timeout)
        except builtins.TimeoutError as error:
            sock.close()
            raise TimeoutError(f"cannot connect to {uri.location} within {timeout or 0:g} seconds") from error
        except OSError as error:
            sock.close()
            reason = _HINTS.get(error.errno or 0, error.strerror or str(error))
            raise CommunicationError(f"cannot connect to {uri.location}: {reason}") from error
        except BaseException:
            sock.close()
            raise
        return SocketStream(sock, path)

    def listen(self, options: Mapping[str, Any], settings: Settings) -> SocketListener | None:
        """A listener for ``unixsocket``; None without that option.

        The socket file gets the permissions that the umask leaves, and is removed when the listener is closed.
        One that a killed server left is replaced.

        :raises ListenError: the address cannot be had (also an OSError)
        :raises ConfigError: it is no path, or too long, or this system has no Unix sockets (also a ValueError)
        """
        given = options.get("unixsocket")
        if not given:
            return None
        path = _checked_path(given)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        remover = None
        try:
            _bind(sock, path)
            remover = None if path.startswith("\0") else _Remover(path)
            sock.listen(settings.LISTEN_BACKLOG)
        except BaseException as error:
            sock.close()
            if remover is not None:
                remover.remove()
            if isinstance(error, OSError) and not isinstance(error, ListenError):
                raise ListenError(f"cannot listen on {path!r}: {error.strerror or error}", error.errno) from error
            raise
        return SocketListener(sock, f"./u:{path}", cleanup=None if remover is None else remover.remove)


def _checked_path(given: Any) -> str:
    """The path, or the abstract name with its leading null."""
    if not hasattr(socket, "AF_UNIX"):
        raise ConfigError("this system has no Unix sockets; use host and port")
    try:
        path = os.fsdecode(given)
    except TypeError:
        raise ConfigError(f"unixsocket must be a path, not {given!r}") from None
    if path.startswith("\\0"):
        path = "\0" + path[2:]
    abstract = path.startswith("\0")
    if abstract and sys.platform != "linux":
        raise ConfigError(f"abstract socket names such as {path!r} exist on Linux only")
    if not path or "\0" in path[1:]:
        raise ConfigError(f"unixsocket {path!r} is no path: it is empty or has a null character in it")
    if "\n" in path:
        raise ConfigError(f"unixsocket {path!r} has a line break in it, which a URI cannot have")
    size, longest = len(os.fsencode(path)), LONGEST_PATH + abstract
    if size > longest:
        raise ConfigError(f"unixsocket {path!r} is too long: {size} bytes, of which the system allows {longest}")
    return path


def _connect(sock: socket.socket, path: str, timeout: float | None) -> None:
    if timeout is None:
        sock.settimeout(None)
        sock.connect(path)
        return
    deadline = time.monotonic() + timeout
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise builtins.TimeoutError("timed out")
        sock.settimeout(left)
        try:
            sock.connect(path)
            return
        except BlockingIOError:
            # the server's queue is full; with a time-out the system does not wait for room, and nothing reports it
            time.sleep(min(_BUSY_RETRY, left))


# --------------------------------------------------------------------------- the file
def _identity(path: str) -> Identity | None:
    """What tells a socket file from a later one of the same name; None when there is no socket.

    The time is needed because numbers of removed files are used again at once; ``chmod`` does not change it.
    """
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_mtime_ns) if stat.S_ISSOCK(found.st_mode) else None


class _Remover:
    """Removes a socket file, unless it is not the one any more that was there at first."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)  # the program may change its directory meanwhile
        self.identity = _identity(self.path)

    def remove(self) -> None:
        if self.identity is not None and _identity(self.path) == self.identity:
            with suppress(OSError):
                os.unlink(self.path)


def _bind(sock: socket.socket, path: str) -> None:
    try:
        sock.bind(path)
        return
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        if path.startswith("\0"):
            raise ListenError(f"cannot listen on {path!r}: in use by a running server", error.errno) from error
    left_over = _Remover(path)
    if left_over.identity is None and os.path.lexists(path):
        raise ListenError(f"cannot listen on {path!r}: a file that is no socket is there; not removed", errno.EEXIST)
    if _alive(path):
        raise ListenError(f"cannot listen on {path!r}: in use by a running server", errno.EADDRINUSE)
    log.info("removing the socket %s of a server that does not run any more", path)
    left_over.remove()
    sock.bind(path)


def _alive(path: str) -> bool:
    """Whether a process has the socket of the file ``path``, listening already or about to.

    A datagram socket asks, so that the owner does not see a connection come and go: the system refuses it when
    nobody has the file, and otherwise says that it is of another kind.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        return probe.connect_ex(path) not in (errno.ECONNREFUSED, errno.ENOENT)
