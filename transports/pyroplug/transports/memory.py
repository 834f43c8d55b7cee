"""Calls within one process, without the network: locations ``./m:name``.

For tests, and for programs whose parts may later move to other processes.  The daemon option is ``memory``: a name,
or True for a free one.  Everything is copied as if it went over a wire.

All kernels of a process share one :class:`MemoryNetwork`; a program that wants its own makes a
:class:`MemoryTransport` of one.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import functools
import itertools
import socket
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from pyroplug.core.errors import CommunicationError, ConfigError, TimeoutError
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.plugins import PluginInfo

from ._sockets import ListenError

if TYPE_CHECKING:
    from pyroplug.core.interfaces import Transport
    from pyroplug.core.settings import Settings
    from pyroplug.core.uri import URI

__all__ = [
    "PLUGIN",
    "MemoryListener",
    "MemoryNetwork",
    "MemoryStream",
    "MemoryTransport",
    "default_network",
    "memory_pair",
    "pyro_transports",
]

PLUGIN = PluginInfo("memory", "connections within one process")

BUFFER_SIZE: Final = 1 << 20
"""Bytes that wait in one direction before ``send`` has to wait."""

_FILLING: Final = 4096
"""How many bytes at once fill a socket that has to look full."""

BACKLOG_SIZE: Final = 1024
"""Connections that wait to be accepted before ``connect`` has to wait."""

_PREFIX: Final = "./m:"


@hookimpl
def pyro_transports() -> Iterable[Transport]:
    """R5: the transport of ``./m:name`` locations."""
    return [MemoryTransport(default_network())]


@functools.cache
def default_network() -> MemoryNetwork:
    """The network that all kernels of this process share."""
    return MemoryNetwork()


def _wait(condition: threading.Condition, ready: Callable[[], bool], timeout: float | None) -> None:
    """Wait, holding ``condition``, until ``ready()``; like a socket of that time-out.

    :raises BlockingIOError: it is 0
    :raises builtins.TimeoutError: it has passed
    """
    if ready():
        return
    if timeout == 0:
        raise BlockingIOError(errno.EAGAIN, "this would wait")
    if not condition.wait_for(ready, timeout):
        raise builtins.TimeoutError("timed out")


class _Signal:
    """A descriptor that is readable while the signal is on, and writable unless blocked; made when first asked for.

    Not thread-safe: whoever owns it holds a lock.
    """

    __slots__ = ("_ends", "_on", "_told", "blocked")

    def __init__(self) -> None:
        self._ends: tuple[socket.socket, socket.socket] | None = None
        self._on = False
        self._told = False  # whether there is a byte in the socket pair
        self.blocked = False

    def fileno(self) -> int:
        if self._ends is None:
            self._ends = socket.socketpair()
            for end in self._ends:
                end.setblocking(False)
            self._ends[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the least there is: block() fills it
            self._tell()
            if self.blocked:
                self._fill()
        return self._ends[0].fileno()

    def block(self, blocked: bool) -> None:
        if blocked is not self.blocked:
            self.blocked = blocked
            if self._ends is not None and blocked:
                self._fill()
            elif self._ends is not None:
                with contextlib.suppress(BlockingIOError):
                    while self._ends[1].recv(_FILLING):
                        pass

    def _fill(self) -> None:
        assert self._ends is not None
        with contextlib.suppress(BlockingIOError):
            while self._ends[0].send(bytes(_FILLING)):
                pass

    def set(self, on: bool) -> None:
        self._on = on
        if self._ends is not None and on is not self._told:
            self._tell()

    def _tell(self) -> None:
        assert self._ends is not None
        if self._on and not self._told:
            self._ends[1].send(b"!")
        elif self._told and not self._on:
            self._ends[0].recv(1)
        self._told = self._on

    def close(self) -> None:
        if self._ends is not None:
            ends, self._ends = self._ends, None
            for end in ends:
                end.close()


class _Pipe:
    """One direction: bytes that were sent and not yet received."""

    __slots__ = ("_condition", "_data", "_limit", "_receiving", "_sending", "_signal")

    def __init__(self, limit: int) -> None:
        self._condition = threading.Condition()
        self._data = bytearray()
        self._limit = limit
        self._sending = True  # the sender has not closed
        self._receiving = True  # nor has the receiver
        self._signal = _Signal()

    def recv_into(self, buffer: Any, nbytes: int, timeout: float | None) -> int:
        with memoryview(buffer) as given, given.cast("B") as view, self._condition:
            self._check(self._receiving)
            size = min(nbytes or len(view), len(view))
            if size:
                _wait(self._condition, self._readable, timeout)
            count = min(size, len(self._data)) if self._receiving else 0
            if count:
                view[:count] = self._data[:count]
                del self._data[:count]
                self._changed()
            return count

    def send(self, data: Any, timeout: float | None) -> int:
        with memoryview(data) as given, given.cast("B") as view, self._condition:
            self._check(self._sending)
            if len(view):
                _wait(self._condition, self._writable, timeout)
            self._check(self._sending)
            if not self._receiving:
                raise BrokenPipeError(errno.EPIPE, "the other end is closed")
            count = min(len(view), self._limit - len(self._data))
            self._data += view[:count]
            self._changed()
            return count

    def _check(self, is_open: bool) -> None:
        if not is_open:
            raise OSError(errno.EBADF, "the stream is closed")

    def _readable(self) -> bool:
        return bool(self._data) or not self._sending or not self._receiving

    def _writable(self) -> bool:
        return len(self._data) < self._limit or not self._sending or not self._receiving

    def _changed(self) -> None:
        if self._receiving:
            self._signal.set(self._readable())
        self._condition.notify_all()

    @property
    def full(self) -> bool:
        """Whether a sender would wait; without the lock, so it may have changed."""
        return not self._writable()

    @property
    def blocked(self) -> bool:
        """Whether the descriptor says that its owner cannot send."""
        return self._signal.blocked

    def show_room(self, opposite: _Pipe) -> None:
        """Have the descriptor of whoever receives here tell whether he can send into the opposite pipe."""
        with self._condition:
            if self._receiving:
                self._signal.block(opposite.full)  # read in here: of two that come at once the later one is right

    def close_sender(self) -> None:
        with self._condition:
            self._sending = False
            self._changed()

    def close_receiver(self) -> None:
        with self._condition:
            self._receiving = False
            self._data.clear()
            self._signal.close()
            self._condition.notify_all()

    def fileno(self) -> int:
        with self._condition:
            return self._signal.fileno() if self._receiving else -1


class MemoryStream:
    """One end of a connection within the process; made in pairs by :func:`memory_pair`.

    It behaves as a socket does, but a stream that is dropped without ``close`` leaves its other end waiting.
    No descriptor is used unless ``fileno`` is called.
    """

    __slots__ = ("__weakref__", "_incoming", "_outgoing", "_peer", "_timeout")

    def __init__(self, incoming: _Pipe, outgoing: _Pipe, peer: str) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._peer = peer
        self._timeout: float | None = None

    def fileno(self) -> int:
        """A descriptor for polling: readable and writable when the stream is."""
        return self._incoming.fileno()

    def recv_into(self, buffer: Any, nbytes: int = 0, /) -> int:
        """Receive into ``buffer``; the number of bytes, 0 at the end of the stream."""
        count = self._incoming.recv_into(buffer, nbytes, self._timeout)
        if self._outgoing.blocked:
            self._outgoing.show_room(self._incoming)  # the other end may go on
        return count

    def send(self, data: Any, /) -> int:
        """Send some of ``data``; the number of bytes taken."""
        count = self._outgoing.send(data, self._timeout)
        if self._outgoing.full:
            self._incoming.show_room(self._outgoing)
        return count

    def settimeout(self, seconds: float | None, /) -> None:
        """None waits for ever, 0 never waits, otherwise seconds for each single operation."""
        if seconds is not None and seconds < 0:
            raise ValueError("a time-out cannot be negative")
        self._timeout = seconds

    def close(self) -> None:
        """Close both directions, waking threads that wait in them; safe to call twice."""
        self._outgoing.close_sender()
        self._incoming.close_receiver()
        if self._outgoing.blocked:
            self._outgoing.show_room(self._incoming)

    def pending(self) -> int:
        """0: ``fileno`` tells of all that has come."""
        return 0

    @property
    def peer(self) -> str:
        """``memory:name``."""
        return self._peer

    @property
    def sock(self) -> None:
        """There is no socket."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._peer}>"


def memory_pair(name: str = "pair", buffer_size: int = BUFFER_SIZE) -> tuple[MemoryStream, MemoryStream]:
    """Two streams that are connected to each other, each direction holding up to ``buffer_size`` bytes."""
    there, back = _Pipe(buffer_size), _Pipe(buffer_size)
    return MemoryStream(back, there, f"memory:{name}"), MemoryStream(there, back, f"memory:{name}")


class MemoryListener:
    """Where a daemon waits for connections of a :class:`MemoryNetwork`."""

    __slots__ = ("__weakref__", "_condition", "_forget", "_open", "_signal", "_waiting", "location", "name")

    def __init__(self, name: str, forget: Callable[[MemoryListener], None]) -> None:
        self.name = name
        self.location = _PREFIX + name
        self._forget = forget
        self._condition = threading.Condition()
        self._waiting: deque[MemoryStream] = deque()
        self._open = True
        self._signal = _Signal()

    def connect(self, timeout: float | None) -> MemoryStream:
        """The client's end of a new connection.

        :raises CommunicationError: the listener is closed
        :raises TimeoutError: too many connections waited to be accepted for ``timeout`` seconds
        """
        with self._condition:
            try:
                _wait(self._condition, self._has_room, timeout)
            except (BlockingIOError, builtins.TimeoutError) as error:
                raise TimeoutError(f"cannot connect to {self.location} within {timeout or 0:g} seconds") from error
            if not self._open:
                raise _nobody(self.location)
            client, server = memory_pair(self.name)
            self._waiting.append(server)
            self._signal.set(True)
            return client

    def _has_room(self) -> bool:
        return len(self._waiting) < BACKLOG_SIZE or not self._open

    def fileno(self) -> int:
        """A descriptor that is readable while a connection waits; -1 once closed."""
        with self._condition:
            return self._signal.fileno() if self._open else -1

    def accept(self) -> MemoryStream | None:
        """The next connection, or None when none waits."""
        with self._condition:
            if not self._waiting:
                return None
            stream = self._waiting.popleft()
            self._signal.set(bool(self._waiting))
            self._condition.notify_all()
            return stream

    def close(self) -> None:
        """Stop listening, dropping connections that nobody accepted; safe to call twice."""
        with self._condition:
            was_open, self._open = self._open, False
            dropped = list(self._waiting)
            self._waiting.clear()
            self._signal.close()
            self._condition.notify_all()
        for stream in dropped:
            stream.close()
        if was_open:
            self._forget(self)

    @property
    def members(self) -> tuple[MemoryListener, ...]:
        """What a server loop has to watch: here, this one."""
        return (self,)

    @property
    def sock(self) -> None:
        """There is no socket."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.location}>"


class MemoryNetwork:
    """Who listens under which name; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # weakly: a daemon that nobody closes is not to stay for its name
        self._listeners: weakref.WeakValueDictionary[str, MemoryListener] = weakref.WeakValueDictionary()
        self._numbers = itertools.count(1)

    def listen(self, name: str | None = None) -> MemoryListener:
        """A listener for ``name``, or for a free one.

        :raises ListenError: somebody listens there
        """
        with self._lock:
            if name is None:
                name = next(free for free in map("anonymous-{}".format, self._numbers) if free not in self._listeners)
            if name in self._listeners:
                raise ListenError(f"cannot listen on {_PREFIX}{name}: in use in this process", errno.EADDRINUSE)
            listener = self._listeners[name] = MemoryListener(name, self._forget)
            return listener

    def connect(self, name: str, timeout: float | None = None) -> MemoryStream:
        """The client's end of a connection to ``name``; errors as those of a transport's ``connect``."""
        with self._lock:
            listener = self._listeners.get(name)
        if listener is None:
            raise _nobody(_PREFIX + name)
        return listener.connect(timeout)

    def _forget(self, listener: MemoryListener) -> None:
        with self._lock:
            if self._listeners.get(listener.name) is listener:
                del self._listeners[listener.name]


def _nobody(location: str) -> CommunicationError:
    return CommunicationError(f"cannot connect to {location}: nobody listens there in this process")


class MemoryTransport:
    """Carries ``./m:name`` over one network."""

    scheme = "m"

    def __init__(self, network: MemoryNetwork | None = None) -> None:
        self.network = MemoryNetwork() if network is None else network

    def connect(self, uri: URI, timeout: float | None, settings: Settings) -> MemoryStream:
        """A stream to ``uri``; see :class:`~pyroplug.core.interfaces.Transport`."""
        del settings
        location = uri.location
        if not location.startswith(_PREFIX):
            raise CommunicationError(f"cannot connect to {uri}: expected a location such as {_PREFIX}name")
        return self.network.connect(location[len(_PREFIX) :], timeout)

    def listen(self, options: Mapping[str, Any], settings: Settings) -> MemoryListener | None:
        """A listener for the name that ``memory`` is (True: a free one); None without that option.

        :raises ListenError: somebody listens there
        :raises ConfigError: it is no name
        """
        del settings
        name = options.get("memory")
        if name in (None, False, ""):
            return None
        if name is True:
            return self.network.listen()
        if not isinstance(name, str) or "\n" in name:
            raise ConfigError(f"memory must be a name or True, not {name!r}")
        return self.network.listen(name)
