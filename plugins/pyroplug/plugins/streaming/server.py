"""The server side: the streams of a daemon, of its sessions, and how clients fetch from them."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from pyroplug.core.call import Call, current_call
from pyroplug.core.dispatch import Request
from pyroplug.core.errors import OverloadError, ProtocolError, PyroError
from pyroplug.core.members import expose
from pyroplug.core.stash import StashKey
from pyroplug.core.wire import FLAG_EXCEPTION, FLAG_ITEMSTREAM

from .ahead import Ahead
from .chunks import CHUNK_TIME, PLACEHOLDER, STREAM_ID, TERMINATED
from .stream import Stream

__all__ = ["STREAMS", "Session", "StreamMethods", "Streams", "forget_stream", "open_stream", "session_of"]


class Session:
    """The streams of one connection."""

    def __init__(self, *, ended: bool = False) -> None:
        self.streams: dict[str, Stream] = {}
        self.ended = ended


_SESSION = StashKey[Session]()


def session_of(connection: Any) -> Session:
    """The session of a connection; most never need one."""
    session: Session | None = connection.stash.get(_SESSION, None)
    return session or connection.stash.setdefault(_SESSION, Session())


class Streams:
    """All streams of one daemon."""

    def __init__(self, daemon: Any) -> None:
        self._settings = daemon.kernel.settings
        self._streams: dict[str, Stream] = {}
        self._lock = threading.RLock()
        self._closed = False
        self._over = Session(ended=True)  # that of all who had none
        self._ahead = Ahead(self._settings.ITER_STREAM_THREADS)
        self._daemon = weakref.ref(daemon)
        exc = ProtocolError(PLACEHOLDER)
        exc._pyroTraceback = None  # type: ignore[attr-defined]
        self.placeholder = daemon.kernel.types.exception_to_dict(exc)

    @property
    def ahead(self) -> Ahead | None:
        """Threads for generators; None when calls run one at a time."""
        daemon = self._daemon()
        return self._ahead if daemon is not None and getattr(daemon.transportServer, "concurrent", False) else None

    def open(self, session: Session, stream: Stream) -> Stream:
        """Keep a stream.

        :raises OverloadError: the session has too many
        """
        with self._lock:
            if len(session.streams) < self._settings.MAX_STREAMS and not self._closed:
                self._streams[stream.id] = stream
                self._bind(stream, session)
                return stream
        stream.end()
        raise OverloadError(f"too many item streams open (MAX_STREAMS={self._settings.MAX_STREAMS})")

    def _bind(self, stream: Stream, session: Session) -> None:
        if stream.session is not None:
            stream.session.streams.pop(stream.id, None)
        if session.ended:  # its connection was lost while the call ran
            stream.session = None
            stream.lingers_until = time.monotonic() + self._settings.ITER_STREAM_LINGER
            return
        stream.session, stream.lingers_until = session, None
        session.streams[stream.id] = stream

    def get(self, stream_id: str, session: Session) -> Stream:
        """A stream, bound to the session of who asks for it.

        :raises PyroError: there is none of that id (any more)
        """
        now = time.monotonic()
        with self._lock:
            stream = self._streams.get(stream_id)
            if stream is not None and stream.session is not session:
                self._bind(stream, session)
        if stream is None or stream.over or self._expired(stream, now):
            self.drop(stream_id)
            raise PyroError(TERMINATED)
        return stream

    def _expired(self, stream: Stream, now: float) -> bool:
        lifetime = self._settings.ITER_STREAM_LIFETIME
        if lifetime > 0 and now - stream.created >= lifetime:
            return True
        return stream.lingers_until is not None and now >= stream.lingers_until

    def settle(self, stream: Stream) -> None:
        """After each answer: forget a stream that is over."""
        if stream.over:
            self.drop(stream.id)
        elif stream.finished:
            self._finish(stream)

    def _finish(self, stream: Stream) -> None:
        """Keep a stream whose end has been sent as long as the client may have lost that on the way."""
        linger = self._settings.ITER_STREAM_LINGER
        if linger <= 0:
            self.drop(stream.id)
            return
        with self._lock:
            if stream.session is not None:
                stream.session.streams.pop(stream.id, None)
            stream.session = None
            stream.lingers_until = time.monotonic() + linger

    def drop(self, stream_id: str) -> None:
        """End a stream; unknown ones are ignored."""
        with self._lock:
            stream = self._streams.pop(stream_id, None)
            if stream is None:
                return
            if stream.session is not None:
                stream.session.streams.pop(stream_id, None)
        stream.end()

    def disconnected(self, connection: Any) -> None:
        """A connection has ended."""
        # (a call that still runs may open a stream: it finds a session that has ended)
        session = connection.stash.setdefault(_SESSION, self._over)
        if session is self._over:
            return
        linger = self._settings.ITER_STREAM_LINGER
        with self._lock:
            session.ended = True
            streams = list(session.streams.values())
            session.streams.clear()
            for stream in streams:
                stream.session = None
                stream.lingers_until = time.monotonic() + linger
        for stream in streams:
            if linger <= 0 or self._closed:
                self.drop(stream.id)

    def sweep(self, now: float) -> None:
        """End those whose time is over, and the oldest of those that linger if they are too many."""
        with self._lock:
            streams = list(self._streams.values())
        lingering = 0
        for stream in reversed(streams):
            lingering += stream.lingers_until is not None
            if stream.over or self._expired(stream, now) or lingering > self._settings.MAX_LINGERING_STREAMS:
                self.drop(stream.id)

    def close(self, timeout: float) -> None:
        """End all of them."""
        with self._lock:
            self._closed = True
            streams = list(self._streams)
        for stream_id in streams:
            self.drop(stream_id)
        self._ahead.close(timeout)

    def __len__(self) -> int:
        """How many are open."""
        with self._lock:
            return sum(1 for stream in self._streams.values() if not stream.finished)


STREAMS = StashKey[Streams]()
"""Where a daemon has its streams."""


@expose
class StreamMethods:
    """What the object ``Pyro.Daemon`` does for item streams."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    def get_next_stream_item(self, streamId: str) -> Any:
        """The next item.

        :raises StopIteration: there are no more
        :raises PyroError: there is no such stream (any more)
        """
        call = _served()
        return self._wanted(call, streamId).answer_item(call, self._streams)

    def get_stream_chunk(self, streamId: str, position: int, max_items: int, max_time: float) -> Any:
        """The next items, in a form of their own (extension "chunks").

        :param position: how many items have come so far; what came after that is sent once more
        :raises PyroError: there is no such stream (any more)
        """
        call = _served()
        streams = self._streams
        stream = self._wanted(call, streamId)
        count = max(1, min(int(max_items), streams._settings.ITER_STREAM_CHUNK))
        seconds = min(max(0.0, float(max_time)), CHUNK_TIME)
        return stream.answer_chunk(call, streams, int(position), count, seconds)

    def close_stream(self, streamId: str) -> None:
        """Forget a stream."""
        self._streams.drop(streamId)

    def _wanted(self, call: Call, stream_id: str) -> Stream:
        stream = self._streams.get(stream_id, session_of(call.connection))
        source = call.connection.objects.get(stream.source)
        if source is not None:
            source.touch()  # whoever iterates uses the object: its lease begins anew
        return stream


def _served() -> Request:
    call = current_call.get()
    if not isinstance(call, Request):
        raise PyroError("item streams are for remote calls")
    return call


def open_stream(call: Call, result: Any, make: Callable[[Any, float], Stream] = Stream) -> Any:
    """Results adapter: keep the iterator, answer with the id of its stream.

    :param make: the kind of stream; gets the iterator and the time (``time.monotonic()`` seconds)
    """
    if not call.wants_reply:
        return None
    connection = call.connection
    streams: Streams = connection.endpoint.daemon.stash[STREAMS]
    if connection.settings.ITER_STREAMING:
        stream = streams.open(session_of(connection), make(result, time.monotonic()))
        stream.source = call.object_id
        call.stash[_OPENED] = stream
        call.annotate(STREAM_ID, stream.id.encode("ascii"))
    call.reply_flags |= FLAG_EXCEPTION | FLAG_ITEMSTREAM
    return streams.placeholder


_OPENED = StashKey[Stream]()


def forget_stream(call: Call, error: BaseException) -> None:
    """The reply with the stream's id was not sent: nobody will ever ask for it."""
    stream = call.stash.pop(_OPENED, None)
    if stream is not None:
        call.connection.endpoint.daemon.stash[STREAMS].drop(stream.id)
