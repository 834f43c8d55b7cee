"""The plug points: what a serializer, a transport or a server loop must offer.

They are :class:`typing.Protocol` classes: nothing has to be inherited, a type checker compares the
shapes, and :mod:`pyroplug.testing` holds a conformance suite for each that third parties run on theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Union, runtime_checkable

if TYPE_CHECKING:
    from .connection import ServerConnection
    from .settings import Settings
    from .types import TypeTable
    from .uri import URI

__all__ = [
    "Acceptor",
    "Buffer",
    "Codec",
    "InstanceProvider",
    "Layer",
    "Listener",
    "Publisher",
    "Serializer",
    "ServerLoop",
    "ServerLoopFactory",
    "Stream",
    "Transport",
]

Buffer = Union[bytes, bytearray, memoryview]


# --------------------------------------------------------------------------- values <-> bytes
class Codec(Protocol):
    """A serializer bound to one kernel's types and settings.

    Everything that can be looked up beforehand was looked up by :meth:`Serializer.bind`; the four methods
    are on the path of every call.  Many threads use one codec at the same time.

    Every method raises :class:`~pyroplug.core.errors.SerializeError` for values or bytes it cannot handle,
    never the exception of the library underneath (which stays as ``__cause__``), and never anything that
    ends a worker (``RecursionError`` and ``MemoryError`` of a decoder are converted as well).

    Where only the peer of a connection can read the bytes, codec and serializer have an attribute ``portable``: those
    for bytes that may be passed on, which the codec reads too.

    One with ``reads_segments = True`` writes a :class:`~pyroplug.core.wire.Segment` anywhere in a value, and puts the
    segment there when it reads a :class:`~pyroplug.core.wire.Segmented` payload.
    """

    def dumps(self, value: Any) -> bytes:
        """One value as bytes."""
        ...

    def loads(self, data: Buffer) -> Any:
        """The value that :meth:`dumps` was given, as far as the format can tell."""
        ...

    def dumps_call(self, object_id: str, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        """A request: what is called, and with what (wire format: section 9 of the protocol document)."""
        ...

    def loads_call(self, data: Buffer) -> tuple[str, str, Sequence[Any], Mapping[str, Any]]:
        """The inverse of :meth:`dumps_call`; a null keyword dict comes back as an empty one.

        For pseudo methods (batches) ``args`` is whatever sequence the peer sent.
        """
        ...


class Serializer(Protocol):
    """A serialization format; what a serializer plugin returns from ``pyro_serializers``.

    A complete plugin, one module named in the entry-point group ``pyroplug.plugins``::

        import json

        from pyroplug.api import PluginInfo, SerializeError, hookimpl

        PLUGIN = PluginInfo("tinyjson", "plain json, without classes")


        class TinyCodec:
            def dumps(self, value):
                try:
                    return json.dumps(value, default=list).encode()  # (list: for sets)
                except (TypeError, ValueError) as error:
                    raise SerializeError(f"tinyjson cannot carry this: {error}") from error

            def loads(self, data):
                try:
                    return json.loads(bytes(data))
                except (ValueError, RecursionError) as error:
                    raise SerializeError(f"no valid tinyjson: {error}") from error

            def dumps_call(self, object_id, method, args, kwargs):
                return self.dumps([object_id, method, args, kwargs])

            def loads_call(self, data):
                match self.loads(data):
                    case [str(object_id), str(method), list(args), dict() | None as kwargs]:
                        return object_id, method, args, kwargs or {}
                raise SerializeError("no valid tinyjson request")


        class TinyJson:
            name, wire_id, safe = "tinyjson", 200, True

            def bind(self, types, settings):
                return TinyCodec()


        @hookimpl
        def pyro_serializers():
            return [TinyJson()]
    """

    @property
    def name(self) -> str:
        """The word used in the settings SERIALIZER and SERIALIZERS_ACCEPTED."""
        ...

    @property
    def wire_id(self) -> int:
        """The number in the message header: 1..255, unique.

        1-4 are Pyro5's, 42 stands in pings, 100-127 are for serializers of this distribution.
        """
        ...

    @property
    def safe(self) -> bool:
        """False when decoding hostile bytes could run code or crash the interpreter."""
        ...

    def bind(self, types: TypeTable, settings: Settings) -> Codec:
        """A codec for this kernel; called again when a setting has changed."""
        ...


# --------------------------------------------------------------------------- bytes <-> network
@runtime_checkable
class Stream(Protocol):
    """A byte stream in both directions: a socket, or something that behaves like one.

    A new stream is blocking.  A server loop makes it non-blocking with ``settimeout(0)``; then
    ``recv_into`` and ``send`` raise :class:`BlockingIOError` where they would wait.  All other failures are
    :class:`OSError` (``builtins.TimeoutError`` after ``settimeout``); the connection translates them.
    """

    def fileno(self) -> int:
        """A descriptor that becomes readable when ``recv_into`` would not wait; -1 once closed."""
        ...

    def recv_into(self, buffer: Any, nbytes: int = 0, /) -> int:
        """Receive into ``buffer``; the number of bytes, 0 at the end of the stream."""
        ...

    def send(self, data: Any, /) -> int:
        """Send some of ``data``; the number of bytes taken."""
        ...

    def settimeout(self, seconds: float | None, /) -> None:
        """None waits for ever, 0 never waits, otherwise seconds for each single operation."""
        ...

    def close(self) -> None:
        """Close both directions; safe to call twice and from another thread."""
        ...

    def pending(self) -> int:
        """Bytes that were received but not yet handed out (a TLS record); 0 for plain sockets."""
        ...

    @property
    def peer(self) -> str:
        """Who is at the other end, as text for log lines and errors."""
        ...

    @property
    def sock(self) -> Any:
        """The socket underneath, or None; for programs that ask for ``getpeername`` and the like."""
        ...


class Listener(Protocol):
    """Where a daemon waits for connections.

    One that clients reach by another location than its own, such as through NAT, may have that as ``published``.
    """

    def fileno(self) -> int:
        """A descriptor that becomes readable when :meth:`accept` would not wait."""
        ...

    def accept(self) -> Stream | None:
        """The next connection, or None when none is waiting (or the peer has gone already)."""
        ...

    def close(self) -> None:
        """Stop listening and remove what was left in the file system; safe to call twice."""
        ...

    @property
    def location(self) -> str:
        """The location part of URIs that lead here, such as ``localhost:4444``."""
        ...

    @property
    def sock(self) -> Any:
        """The listening socket, or None."""
        ...


class Transport(Protocol):
    """A way to carry streams; what a transport plugin returns from ``pyro_transports``."""

    @property
    def scheme(self) -> str:
        """Which locations are ours: ``""`` for ``host:port``, ``"u"`` for ``./u:path``, and so on."""
        ...

    def connect(self, uri: URI, timeout: float | None, settings: Settings) -> Stream:
        """A blocking stream to the location of ``uri``.

        :raises CommunicationError: nobody listens there, or the name does not resolve (saying which)
        :raises TimeoutError: not connected within ``timeout`` seconds
        """
        ...

    def listen(self, options: Mapping[str, Any], settings: Settings) -> Listener | None:
        """A listener for the daemon arguments ``options``, or None when they mean another transport.

        ``options`` holds ``host``, ``port``, ``unixsocket``, ``nathost``, ``natport`` and any further keyword
        argument of the daemon; every transport is asked, exactly one must answer.
        """
        ...


class Layer(Protocol):
    """Wraps a stream in another (TLS, logging, fault injection); from ``pyro_stream_layers``.

    Layers are applied in rising ``order``; the first is nearest to the network.
    """

    @property
    def order(self) -> int:
        """0-99 encryption, 100-199 what works on clear bytes."""
        ...

    def wrap(self, stream: Stream, *, server_side: bool) -> Stream:
        """The stream to use from now on.  Must not wait for the network on the server side."""
        ...


# --------------------------------------------------------------------------- who runs what, and when
class Acceptor(Protocol):
    """What a server loop needs of a daemon."""

    def connection(self, stream: Stream, *, given: bool = False) -> ServerConnection:
        """A connection for a stream that was just accepted, or was ``given`` by the user.

        ``connection.stream`` is what to use from then on: layers may have been put around the stream.
        """
        ...

    def housekeeping(self) -> None:
        """To be called about every POLLTIMEOUT seconds."""
        ...


class ServerLoop(Protocol):
    """Waits for bytes and runs calls; made by a :class:`ServerLoopFactory`.

    A loop that runs calls of several clients at a time has ``concurrent = True``.  One that does not may have a method
    ``held()``: the acceptors for which nobody does anything until the calling thread goes on.

    In a forked child ``forked(served)`` is called, if there is such a method: the descriptors are shared with the parent, and
    the threads are not there.  ``served`` tells whether it ran; then it must let go of everything without a word.
    """

    def add_listener(self, listener: Listener) -> None:
        """Accept connections from ``listener`` from now on."""
        ...

    def add_stream(self, stream: Stream) -> None:
        """Serve one stream that is connected already."""
        ...

    def run(self, condition: Callable[[], bool]) -> None:
        """Serve in the calling thread until ``condition()`` is false or :meth:`shutdown` is called."""
        ...

    def events(self, ready: Iterable[Any]) -> None:
        """Handle what a foreign event loop found ready; never waits."""
        ...

    @property
    def sockets(self) -> list[Any]:
        """Everything a foreign event loop must watch for reading; ask again each time."""
        ...

    def combine(self, other: ServerLoop) -> None:
        """Serve ``other``'s sockets too; raises TypeError where that cannot work."""
        ...

    def shutdown(self) -> None:
        """Make :meth:`run` return soon; from any thread, a signal handler, or a call."""
        ...

    def close(self) -> None:
        """Close every connection and end every thread of the loop."""
        ...


class Publisher(Protocol):
    """Makes objects known to everybody under names; a plugin gives it to the kernel."""

    @property
    def publish(self) -> Callable[..., URI]:
        """Called as (daemon, target, name, **options): makes something known, registered there if need be; its URI."""
        ...

    def withdraw(self, daemon: Any, name: str) -> bool:
        """Undo that; False if the daemon has published nothing under that name."""
        ...


class ServerLoopFactory(Protocol):
    """What ``pyro_servers`` returns: a name for the setting SERVERTYPE, and how to make the loop."""

    @property
    def names(self) -> tuple[str, ...]:
        """The name and its aliases."""
        ...

    def create(self, acceptor: Acceptor, settings: Settings) -> ServerLoop:
        """A loop for one daemon."""
        ...


class InstanceProvider(Protocol):
    """Gives the instance that serves a call of a registered class; from ``pyro_instances``."""

    def __call__(self, connection: ServerConnection, /) -> Any:
        """An instance of the class; ``connection`` is whose call it is."""
        ...
