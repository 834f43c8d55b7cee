"""Kernels, daemons and clients for tests: made in one line, served in a thread, closed without a trace.

A test of a plugin, whole::

    from pyroplug.api import expose
    from pyroplug.testing.kernels import Served


    class Thing:
        @expose
        def double(self, value):
            return 2 * value


    def test_double():
        with Served(settings={"MY_SETTING": 1}, extra_plugins=[my_plugin]) as served:
            served.publish(Thing(), "thing")
            assert served.proxy("thing").double(4) == 8

:class:`WirePeer` is the other way to talk to a daemon: message by message, or with bytes that no proxy sends.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from pyroplug.core.client import Proxy
from pyroplug.core.daemon import Daemon
from pyroplug.core.interfaces import Buffer, Stream
from pyroplug.core.kernel import Kernel
from pyroplug.core.wire import CONNECT, INVOKE, NO_CORRELATION, Frame, FrameReader, encode, send_all

__all__ = ["LOOPS", "PATIENCE", "TRANSPORTS", "Serve", "Served", "WirePeer", "as_bytes", "has_ipv6", "make_kernel"]

PATIENCE: Final = 10.0 * float(os.environ.get("PYROPLUG_TEST_TIMEOUT_FACTOR") or 1)
"""Seconds after which something that must happen has failed to."""

TRANSPORTS: Final = ("tcp4", "tcp6", "unix", "memory", "pair")
"""What ``Served(transport=...)`` knows."""
LOOPS: Final = ("thread", "multiplex", "asyncio")
"""The server loops that come with pyroplug."""


def _without() -> str:
    """A plugin that the kernels of this module do without, to see what can."""
    return os.environ.get("PYROPLUG_TEST_WITHOUT", "")


def _default_loop() -> str:
    return "multiplex" if _without() == "thread" else "thread"


def has_ipv6() -> bool:
    """Whether this machine has ``::1``."""
    if not socket.has_ipv6:
        return False
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
        try:
            sock.bind(("::1", 0))
        except OSError:
            return False
    return True


def make_kernel(
    plugins: Iterable[Any] | None = None,
    *,
    extra_plugins: Iterable[Any] = (),
    environ: Mapping[str, str] | None = None,
    **settings: Any,
) -> Kernel:
    """A kernel that the environment of whoever runs the tests cannot change; the rest are its settings."""
    environ = dict(environ or {})
    without = _without()
    if without:
        environ["PYRO_DISABLE_PLUGINS"] = ",".join(filter(None, (environ.get("PYRO_DISABLE_PLUGINS"), without)))
        if without == "serpent":
            environ.setdefault("PYRO_SERIALIZER", "json")
        environ.setdefault("PYRO_SERVERTYPE", _default_loop())
    return Kernel(plugins=plugins, extra_plugins=extra_plugins, settings=settings, environ=environ)


def as_bytes(message: bytes | Sequence[Buffer]) -> bytes:
    """What :func:`~pyroplug.core.wire.encode` made, in one piece."""
    return message if isinstance(message, bytes) else b"".join(bytes(part) for part in message)


class WirePeer:
    """A client without a proxy: it sends what it is told to, and shows what comes.

    It uses the kernel's serializer (SERIALIZER) where it is given no other.

    :param stream: its connection, which it owns
    :param kernel: whose serializers it uses
    """

    def __init__(self, stream: Stream, kernel: Kernel) -> None:
        self.stream = stream
        self.kernel = kernel
        self.seq = 0
        self._reader = FrameReader(1 << 31)
        self._buffer = bytearray(1 << 16)
        stream.settimeout(PATIENCE)

    def send(self, data: bytes | Sequence[Buffer]) -> None:
        """Send these bytes, all of them."""
        send_all(self.stream.send, (as_bytes(data),))

    def receive(self) -> Frame | None:
        """The next message, or None at the end of the connection."""
        while (frame := self._reader.next_frame()) is None:
            try:
                count = self.stream.recv_into(self._buffer)
            except ConnectionError:
                return None  # closed with bytes of ours unread: a system resets such connections
            if not count:
                return None
            self._reader.feed(bytes(self._buffer[:count]))
        return frame

    def message(self) -> Frame:
        """The next message, which must come."""
        frame = self.receive()
        assert frame is not None, "the connection was closed, a message was expected"
        return frame

    def ended(self) -> bool:
        """Whether the other side has closed without another message."""
        return self.receive() is None

    # ------------------------------------------------------------------------- conversation
    def connect_message(
        self, object_id: str = "thing", handshake: Any = "hello", serializer: str | None = None, flags: int = 0
    ) -> bytes:
        """A CONNECT message."""
        serializer = serializer or str(self.kernel.settings.SERIALIZER)
        payload = self.kernel.codecs()[serializer].dumps({"handshake": handshake, "object": object_id})
        return as_bytes(encode(CONNECT, self.kernel.serializer_id(serializer), flags, 0, payload))

    def call_message(
        self,
        object_id: str,
        method: str,
        *args: Any,
        serializer: str | None = None,
        flags: int = 0,
        correlation: bytes = NO_CORRELATION,
        annotations: Mapping[str, bytes] | None = None,
    ) -> bytes:
        """An INVOKE message with the next sequence number."""
        self.seq = (self.seq + 1) & 0xFFFF
        serializer = serializer or str(self.kernel.settings.SERIALIZER)
        payload = self.kernel.codecs()[serializer].dumps_call(object_id, method, args, {})
        wire_id = self.kernel.serializer_id(serializer)
        return as_bytes(encode(INVOKE, wire_id, flags, self.seq, payload, annotations, correlation))

    def hello(self, object_id: str = "thing", handshake: Any = "hello", serializer: str | None = None) -> Frame:
        """Shake hands; the answer."""
        self.send(self.connect_message(object_id, handshake, serializer))
        return self.message()

    def call(self, object_id: str, method: str, *args: Any, **options: Any) -> Frame:
        """Make a call; the answer."""
        self.send(self.call_message(object_id, method, *args, **options))
        return self.message()

    def value(self, frame: Frame) -> Any:
        """What a message carries."""
        for codec_name, codec in self.kernel.codecs().items():
            if self.kernel.serializer_id(codec_name) == frame.serializer_id:
                return codec.loads(frame.payload)
        raise AssertionError(f"no serializer has the id {frame.serializer_id}")

    def close(self) -> None:
        """Hang up."""
        self.stream.close()

    def __enter__(self) -> WirePeer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Served:
    """A daemon that serves in a thread of its own, and its clients.

    :param transport: one of :data:`TRANSPORTS`; memory if not given
    :param loop: the setting SERVERTYPE; thread if not given
    :param folder: where a Unix socket may be made
    :param settings: those of the kernel
    :param extra_plugins: further plugins, by name or as objects
    :param environ: in place of the environment
    :param kernel: use this one; ``loop`` and what follows it are ignored then, and it is not closed
    :param daemon_class: the daemon's class
    :param options: further arguments of the daemon
    """

    def __init__(
        self,
        transport: str | None = None,
        loop: str | None = None,
        *,
        folder: Path | None = None,
        settings: Mapping[str, Any] | None = None,
        extra_plugins: Iterable[Any] = (),
        environ: Mapping[str, str] | None = None,
        kernel: Kernel | None = None,
        daemon_class: type[Daemon] = Daemon,
        start: bool = True,
        **options: Any,
    ) -> None:
        self.transport = transport or ("tcp4" if _without() == "memory" else "memory")
        self.loop = loop = loop or _default_loop()
        self.failure: BaseException | None = None
        """What ended the request loop, if it was an exception."""
        self._thread: threading.Thread | None = None
        self._closers = contextlib.ExitStack()
        self._first_pair: socket.socket | None = None
        if kernel is None:
            kernel = make_kernel(extra_plugins=extra_plugins, environ=environ, SERVERTYPE=loop, **(settings or {}))
            self._closers.callback(kernel.close)
        self.kernel = kernel
        try:
            self.daemon = daemon_class(kernel=kernel, **self._location(folder), **options)
        except BaseException:
            self._closers.close()
            raise
        if start:
            self.start()

    def _location(self, folder: Path | None) -> Mapping[str, Any]:
        if self.transport == "tcp4":
            return {"host": "127.0.0.1"}
        if self.transport == "tcp6":
            return {"host": "::1"}
        if self.transport == "unix":
            assert folder is not None, "a folder for the Unix socket is needed"
            return {"unixsocket": str(folder / "s")}
        if self.transport == "pair":
            ours, self._first_pair = self._pair()
            return {"connected_socket": ours}
        return {"memory": True}

    def _pair(self) -> tuple[socket.socket, socket.socket]:
        ends = socket.socketpair()
        for end in ends:
            self._closers.callback(end.close)
        return ends

    def _client_socket(self) -> socket.socket:
        """The client's end of a socket pair whose other end is served."""
        if self._first_pair is not None:
            sock, self._first_pair = self._first_pair, None
            return sock
        ours, theirs = self._pair()
        self.daemon.transportServer.add_stream(self.kernel.given_stream(ours, server_side=True))
        return theirs

    # ------------------------------------------------------------------------- serving
    def start(self) -> None:
        """Serve in a thread."""
        self._thread = threading.Thread(target=self._serve, name="served")
        self._thread.start()

    def _serve(self) -> None:
        try:
            self.daemon.requestLoop()
        except BaseException as exc:  # whoever closes this gets it
            self.failure = exc

    def join(self, timeout: float = PATIENCE) -> bool:
        """Wait for the end of the request loop; whether it has ended."""
        if self._thread is not None:
            self._thread.join(timeout)
            return not self._thread.is_alive()
        return True

    def publish(self, target: Any, object_id: str = "thing", **options: Any) -> str:
        """Register something; its id."""
        self.daemon.register(target, object_id, **options)
        return object_id

    # ------------------------------------------------------------------------- clients
    def proxy(self, object_id: str = "thing", kernel: Kernel | None = None, cls: type[Proxy] = Proxy) -> Proxy:
        """A proxy, with a connection of its own, that is released in the end."""
        kernel = kernel or self.kernel
        if self.transport == "pair":
            proxy = cls(object_id, connected_socket=self._client_socket(), kernel=kernel)
        else:
            proxy = cls(self.daemon.uriFor(object_id), kernel=kernel)
        self._closers.callback(proxy._pyroRelease)
        return proxy

    def stream(self) -> Stream:
        """A connection on which nothing was said yet, closed in the end."""
        if self.transport == "pair":
            stream = self.kernel.given_stream(self._client_socket(), server_side=False)
        else:
            stream = self.kernel.connect(self.daemon.uriFor("any"), PATIENCE)
        self._closers.callback(stream.close)
        return stream

    def peer(self) -> WirePeer:
        """A client that talks in messages."""
        return WirePeer(self.stream(), self.kernel)

    # ------------------------------------------------------------------------- the end
    def close(self) -> None:
        """Shut down, wait for the thread, and close everything; what failed in the request loop is raised."""
        try:
            self.daemon.shutdown()
            self.daemon.close()
            assert self.join(), "the request loop did not end"
        finally:
            self._closers.close()
        if self.failure is not None:
            raise self.failure

    def __enter__(self) -> Served:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


Serve = Callable[..., Served]
"""What a fixture gives that makes :class:`Served` with some of the arguments chosen already."""
