"""Item streams: a method that returns an iterator or generator gives its caller a remote iterator.

The items are made on the server when the client asks for them.  With old peers one item comes per round trip; between
our own ends (protocol extension "chunks") as many as both sides are quick enough for:

* The first request asks for one item.  While items come fast, requests ask for more and more; a generator that
  takes its time, and a client that does, get one item at a time.
* A generator that pauses never holds back the items before: what is there is sent after a few milliseconds, and the
  generator goes on in a thread of its own.  So at most one chunk is made before it is asked for.
* Under a server loop that runs one call at a time there is no such thread, and only iterators over Python's own
  containers come in chunks.

A client that loses its connection in the middle goes on where it was, without a gap: by asking again it opens a new
connection, and the server keeps the stream for ITER_STREAM_LINGER seconds and repeats what was lost (with
old peers, what was lost on the way is lost).  The stream's id is its only credential, as in Pyro.

An iterator that is dropped (``break`` in a ``for`` loop) says so with the next call of its proxy, or when that is
released: a finalizer may run anywhere and so sends nothing itself.  ``close()`` and ``with`` say it at once.  The
server closes generators, so that their ``finally`` runs, exactly once and never while they run elsewhere; other
iterators it only forgets.
"""

from __future__ import annotations

import contextvars
import dataclasses
import logging
import struct
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

from pyroplug.core.call import Call, current_call
from pyroplug.core.connection import ClientConnection, ServerConnection
from pyroplug.core.daemon import DAEMON_NAME
from pyroplug.core.errors import (
    CommunicationError,
    MessageTooLargeError,
    OverloadError,
    ProtocolError,
    PyroError,
    RemoteProtocolError,
)
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.interfaces import Codec
from pyroplug.core.kernel import WireRegister
from pyroplug.core.members import expose
from pyroplug.core.plan import Steps
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.proxy import ProxyBase
from pyroplug.core.settings import Schema, Setting
from pyroplug.core.stash import StashKey
from pyroplug.core.wire import FLAG_EXCEPTION, FLAG_ITEMSTREAM, FLAG_ONEWAY, INVOKE, Frame, encode

__all__ = ["PLUGIN", "RemoteIterator"]

# oneway: closing a stream is a oneway call
PLUGIN = PluginInfo("streaming", "iterators and generators as results", requires=("oneway",))

log = logging.getLogger("pyroplug.streaming")

CHUNKS = "chunks"
"""The protocol extension: several items in one reply."""
STREAM_ID = "STRM"
"""The annotation that carries the id of a stream."""
PLACEHOLDER = "result of call is an iterator"
"""What peers get to see that know no streams."""
TERMINATED = "item stream terminated"
CHUNK_BYTES = 256 * 1024
"""A chunk is complete with the item that reaches this size (bytes)."""
CHUNK_TIME = 0.005
"""How long (seconds) a chunk may take to make, and a request for a chunk to be answered, if there is any item."""
USING_TIME = 0.05
"""No more items are asked for than the client was last able to use in that time (seconds)."""
GROWTH = 4
"""How many times more items the next chunk may have."""

_CHUNK = struct.Struct("!BI")
_MORE, _END, _END_WITH_VALUE, _ALONE = range(4)

# the iterators of Python's own containers never wait for anything
_CONTAINERS: tuple[Iterable[Any], ...] = ([], (), set(), {}, {}.values(), {}.items(), "", b"", range(0))
_NEVER_WAITS = frozenset((type(reversed([])), type(iter("é")), *(type(iter(each)) for each in _CONTAINERS)))


# ============================================================================= server side
class _Item(NamedTuple):
    """An item that was made, and how it is to travel."""

    value: Any
    serializer_id: int = 0
    data: bytes = b""
    error: Exception | None = None
    """why it cannot travel"""
    alone: bool = False
    """It needs a reply of its own, as an iterator does."""


class Stream:
    """One iterator that a client fetches from.

    Whoever runs the iterator has ``_running``; nobody else touches it until that is given back.
    """

    def __init__(self, iterator: Iterator[Any], now: float) -> None:
        self.id = str(uuid.uuid4())
        self.session: Session | None = None
        self.created = now
        self.lingers_until: float | None = None
        self._never_waits = type(iterator) in _NEVER_WAITS
        self._iterator: Iterator[Any] | None = iterator
        self._change = threading.Condition()
        self._running = False
        self._doomed = False
        self.finished = False
        """The end has been sent."""
        self._ready: deque[_Item] = deque()
        """made, and not sent yet"""
        self._sent: list[_Item] = []
        """the last chunk; it may have been lost on the way"""
        self._position = 0
        """how many items were sent before that"""
        self._ending: BaseException | None = None
        """how the iterator has ended: StopIteration, or its error"""

    # ------------------------------------------------------------------------- fetching
    def next_item(self) -> Any:
        """One item, made now (for peers that know no chunks).

        :raises StopIteration: there are no more
        """
        with self._change:
            self._wait()
            self._position += len(self._sent) + 1
            self._sent.clear()
            if self._ready:
                item = self._ready.popleft()
                if item.error is not None:
                    raise item.error
                return item.value
            if self._iterator is None:
                raise self._outcome()
            self._running = True
        try:
            return next(self._iterator)
        except BaseException as exc:  # code of the program
            self._ended(exc)
            raise self._outcome() from None
        finally:
            self._release()

    def next_chunk(self, call: Call, position: int, count: int, seconds: float, ahead: Ahead | None) -> bytes:
        """The next items, encoded; at least one of them unless there are no more.

        :param position: how many items the client has got so far
        :param ahead: the threads that may be used for what takes longer
        """
        with self._change:
            self._acknowledge(position)
            self._wait()
            produce = not self._ready and self._iterator is not None
            self._running |= produce
        elsewhere = False
        if produce:
            try:
                if count > 1 and ahead is not None and not self._never_waits:
                    # the generator is to see the call that it runs for
                    context = contextvars.copy_context()
                    elsewhere = ahead.start(lambda: self._run_ahead(context, call, count, seconds))
                if not elsewhere:
                    self._produce(call, count if self._never_waits else 1, seconds)
            finally:
                if not elsewhere:
                    self._release()
        with self._change:
            if elsewhere:  # it may take its time; after that it is not waited for if there is anything to send
                self._change.wait_for(lambda: not self._running or self._doomed, seconds)
            self._wait()
            # somebody whose client has given up may have taken some meanwhile
            self._acknowledge(position)
            return self._take(call, count)

    def _wait(self) -> None:
        """Wait until there are items, or the iterator may be run; called with ``_change`` held."""
        self._change.wait_for(lambda: self._ready or not self._running or self._doomed)
        if self._doomed:
            raise PyroError(TERMINATED)

    def _release(self) -> None:
        with self._change:
            self._running = False
            self._change.notify_all()
        if self._doomed:
            self.end()

    def _run_ahead(self, context: contextvars.Context, call: Call, count: int, seconds: float) -> None:
        try:
            context.run(self._produce, call, count, seconds)
        finally:
            self._release()

    def _produce(self, call: Call, count: int, seconds: float) -> None:
        """Make items until there are enough, or they are large enough, or it took long enough."""
        iterator, ready = self._iterator, self._ready
        serializer_id, adapters = call.serializer_id, call.plan.results
        dumps = call.plan.codecs[serializer_id].dumps
        deadline = time.monotonic() + seconds
        size = 0
        while iterator is not None and len(ready) < count and size < CHUNK_BYTES and not self._doomed:
            try:
                value = next(iterator)
            except BaseException as exc:  # code of the program
                self._ended(exc)
                return
            try:
                if adapters is not None and adapters[type(value)] is not None:
                    item = _Item(value, alone=True)
                else:
                    item = _Item(value, serializer_id, dumps(value))
                    size += len(item.data)
            except Exception as exc:  # converters are code of the program
                item = _Item(value, error=exc)
            with self._change:
                ready.append(item)
                self._change.notify_all()
            if time.monotonic() >= deadline:
                return

    def _ended(self, exc: BaseException) -> None:
        trace = exc.__traceback__
        exc.__traceback__ = trace.tb_next if trace is not None else None  # without our own frame
        self._ending = exc
        self._iterator = None

    def _outcome(self) -> BaseException:
        """How the iterator has ended, to be told once; the stream is over then."""
        self._doomed = True
        return self._ending or PyroError(TERMINATED)

    def _acknowledge(self, position: int) -> None:
        if position == self._position + len(self._sent):
            self._position = position
        elif position == self._position:
            self._ready.extendleft(reversed(self._sent))  # lost on the way: once more
        else:
            raise ProtocolError(f"the item stream is at {self._position + len(self._sent)}, not at {position}")
        self._sent.clear()

    def _take(self, call: Call, count: int) -> bytes:
        """The chunk to send; called with ``_change`` held."""
        ready = self._ready
        bodies: list[bytes] = []
        room = call.plan.limits.max_message_size - _CHUNK.size
        while ready and len(bodies) < count and not ready[0].alone:
            try:
                data = self._encoded(ready[0], call, room)
            except Exception:
                if not bodies:
                    ready.popleft()
                    raise
                break  # those before it first
            room -= len(data) + 4
            if room < 0 and bodies:
                break
            bodies.append(data)
            self._sent.append(ready.popleft())
        state = _MORE
        if ready and ready[0].alone and not bodies:
            state = _ALONE
        elif not ready and isinstance(self._ending, StopIteration):
            state, value = _END, _sendable(self._ending, call).value
            if value is not None:
                bodies.append(call.plan.codecs[call.serializer_id].dumps(value))
                state = _END_WITH_VALUE
            self.finished = True  # but the client may have to ask once more
        elif not bodies:
            raise self._outcome()
        sizes = struct.pack(f"!{len(bodies)}I", *map(len, bodies))
        return b"".join((_CHUNK.pack(state, len(bodies)), sizes, *bodies))

    @staticmethod
    def _encoded(item: _Item, call: Call, room: int) -> bytes:
        if item.error is not None:
            raise item.error
        data = item.data
        if item.serializer_id != call.serializer_id:  # fetched again, by another proxy
            data = call.plan.codecs[call.serializer_id].dumps(item.value)
        limit = call.plan.limits.max_message_size
        if len(data) + 4 + _CHUNK.size > limit:
            raise MessageTooLargeError(f"message too large ({len(data)}, max={limit})", len(data), limit)
        return data

    # ------------------------------------------------------------------------- the end
    @property
    def over(self) -> bool:
        """Whether nothing can be fetched any more."""
        return self._doomed

    def end(self) -> None:
        """Close the generator; at once, or when it comes to rest if it runs in another thread."""
        with self._change:
            self._doomed = True
            if self._running:
                self._change.notify_all()
                return  # whoever runs it comes here afterwards
            iterator, self._iterator = self._iterator, None
            self._ready.clear()
            self._sent.clear()
        if isinstance(iterator, Generator):
            try:
                iterator.close()
            except Exception:  # code of the program
                log.exception("a generator failed while it was closed")


class Session:
    """The streams of one connection."""

    def __init__(self) -> None:
        self.streams: dict[str, Stream] = {}
        self.ended = False


_SESSION = StashKey[Session]()


class Streams:
    """All streams of one daemon."""

    def __init__(self, daemon: Any) -> None:
        self._settings = daemon.kernel.settings
        self._streams: dict[str, Stream] = {}
        self._lock = threading.RLock()
        self._closed = False
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

    def open(self, session: Session, iterator: Iterator[Any]) -> Stream:
        """Keep an iterator.

        :raises OverloadError: the session has too many
        """
        stream = Stream(iterator, time.monotonic())
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

    def finish(self, stream: Stream) -> None:
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

    def disconnected(self, session: Session) -> None:
        """The connection of a session has ended."""
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


class Ahead:
    """Threads in which generators go on while what they have made is sent; started when needed, ended when idle."""

    IDLE_LIFETIME = 5.0

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._threads = 0
        self._idle = 0
        self._jobs: deque[Callable[[], None]] = deque()
        self._change = threading.Condition()
        self._closed = False

    def start(self, job: Callable[[], None]) -> bool:
        """Run a job in a thread that is free now; False when there is none."""
        with self._change:
            if self._closed:
                return False
            if self._idle > len(self._jobs):
                self._jobs.append(job)
                self._change.notify()
                return True
            if self._threads >= self._limit:
                return False
            self._threads += 1
            self._jobs.append(job)
            try:
                threading.Thread(target=self._work, name="pyroplug-stream", daemon=True).start()
            except RuntimeError:  # the system gives no more threads
                self._threads -= 1
                self._jobs.pop()
                return False
            return True

    def _work(self) -> None:
        while True:
            with self._change:
                while not self._jobs:
                    if not self._closed:
                        self._idle += 1
                        woken = self._change.wait(self.IDLE_LIFETIME)
                        self._idle -= 1
                        if woken or self._jobs:
                            continue
                    self._threads -= 1
                    self._change.notify_all()
                    return
                job = self._jobs.popleft()
            try:
                job()
            except BaseException:  # code of the program, closing a generator
                log.exception("a stream failed")
            del job  # it holds a call

    def close(self, timeout: float) -> None:
        """End the threads; what runs gets ``timeout`` seconds."""
        with self._change:
            self._closed = True
            self._change.notify_all()
            if not self._change.wait_for(lambda: self._threads == 0, timeout):
                log.warning("%d generators go on, although the daemon was closed", self._threads)


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
        stream = self._streams.get(streamId, call.connection.stash[_SESSION])
        try:
            return stream.next_item()
        except StopIteration as exc:
            raise _sendable(exc, call) from None
        finally:
            if stream.over:
                self._streams.drop(streamId)

    def get_stream_chunk(self, streamId: str, position: int, max_items: int, max_time: float) -> None:
        """The next items, in a form of their own (extension "chunks").

        :param position: how many items have come so far; what came after that is sent once more
        :raises PyroError: there is no such stream (any more)
        """
        call = _served()
        streams = self._streams
        stream = streams.get(streamId, call.connection.stash[_SESSION])
        count = max(1, min(int(max_items), streams._settings.ITER_STREAM_CHUNK))
        seconds = min(max(0.0, float(max_time)), CHUNK_TIME)
        try:
            call.reply_payload = stream.next_chunk(call, int(position), count, seconds, streams.ahead)
        finally:
            if stream.over:
                streams.drop(streamId)
            elif stream.finished:
                streams.finish(stream)

    def close_stream(self, streamId: str) -> None:
        """Forget a stream."""
        self._streams.drop(streamId)


def _served() -> Call:
    call = current_call.get()
    if call is None:
        raise PyroError("item streams are for remote calls")
    return call


def _sendable(exc: StopIteration, call: Call) -> StopIteration:
    """The end of a stream, with the generator's return value if that can travel."""
    try:
        if exc.value is not None:
            call.plan.codecs[call.serializer_id].dumps(exc.value)
            return StopIteration(exc.value)
    except Exception:  # converters are code of the program
        log.debug("the return value of a generator cannot be sent")
    return StopIteration()


def _opens(call: Call, result: Iterator[Any]) -> Any:
    """Results adapter: keep the iterator, answer with the id of its stream."""
    if not call.wants_reply:
        return None
    connection = call.connection
    streams: Streams = connection.endpoint.daemon.stash[STREAMS]
    if connection.settings.ITER_STREAMING:
        stream = streams.open(connection.stash[_SESSION], result)
        call.stash[_OPENED] = stream
        call.annotate(STREAM_ID, stream.id.encode("ascii"))
    call.reply_flags |= FLAG_EXCEPTION | FLAG_ITEMSTREAM
    return streams.placeholder


_OPENED = StashKey[Stream]()


def _failed(call: Call, error: BaseException) -> None:
    """The reply with the stream's id was not sent: nobody will ever ask for it."""
    stream = call.stash.pop(_OPENED, None)
    if stream is not None:
        call.connection.endpoint.daemon.stash[STREAMS].drop(stream.id)


# ============================================================================= client side
class RemoteIterator(Iterator[Any]):
    """The items of a remote iterator, fetched when they are asked for.

    Threads may share it.  ``close()``, or the end of a ``with`` block, tells the server that no more are wanted.
    It keeps the proxy that it came from alive, and goes on over a new connection when that was closed.
    """

    _closed = True  # what holds for an object whose __init__ did not get that far

    def __init__(self, proxy: ProxyBase, stream_id: str) -> None:
        self._proxy = proxy
        self.streamId = stream_id
        self.value: Any = None
        """What the generator has returned, once it has ended."""
        self._lock = threading.RLock()
        self._items: deque[Any] = deque()
        self._codec: Codec | None = None
        """How the items are encoded that have come; None when they are not."""
        self._over = False
        self._failed = False
        self._position = 0
        """How many items have come."""
        self._count = 1
        """How many to ask for."""
        self._latest = 0
        """How many came with the last reply."""
        self._latest_at = 0.0
        self._closed = False

    @property
    def proxy(self) -> ProxyBase | None:
        """The proxy that it came from; None once there is nothing to fetch any more (Pyro's name)."""
        return None if self._over or self._closed else self._proxy

    def __iter__(self) -> RemoteIterator:
        return self

    def __next__(self) -> Any:
        with self._lock:
            while not self._items:
                if self._over or self._closed:
                    raise StopIteration(self.value)
                self._fetch()
            data = self._items.popleft()
            return data if self._codec is None else self._codec.loads(data)

    # ------------------------------------------------------------------------- fetching
    def _fetch(self) -> None:
        """Ask for more; afterwards there is something, or the stream is over."""
        proxy = self._proxy
        attempt = 1
        try:
            while (lost := self._fetch_once(proxy)) is not None:
                # the server repeats what was lost, so any policy may have it tried again
                policies = proxy._pyroKernel.policies
                if not any(policy(proxy, "get_next_stream_item", lost, attempt) for policy in policies):
                    raise lost
                attempt += 1
        except StopIteration as exc:
            self._end(exc.value)
        except PyroError as exc:
            if str(exc) != TERMINATED:
                raise
            self._over = True
            if not self._failed:  # otherwise it has ended with the error that was raised then
                raise
        if self._closed:  # by another thread, meanwhile
            self._items.clear()
            self._tell()

    def _fetch_once(self, proxy: ProxyBase) -> CommunicationError | None:
        """Ask for more; the error when the connection was lost by that."""
        with proxy._pyroLock:
            connection: ClientConnection | None = None
            try:
                proxy._pyroBind()
                connection = proxy._pyroConnection
                assert connection is not None
                _list_of_dropped(connection)
                if CHUNKS in connection.extensions:
                    self._fetch_chunk(connection)
                else:
                    self._fetch_item(connection)
            except BaseException as exc:
                lost = connection is None or connection.busy
                if lost:
                    proxy._pyroDrop()
                elif str(exc) != TERMINATED:
                    self._failed = True
                if not lost or not isinstance(exc, CommunicationError):
                    raise
                return exc
            return None

    def _ask(self, connection: ClientConnection, method: str, *args: Any) -> Frame:
        frame: Frame = connection.call(DAEMON_NAME, method, (self.streamId, *args), {}, 0, True)
        return frame

    def _fetch_item(self, connection: ClientConnection) -> None:
        # decoded under the name of a method that may end an iteration
        item = connection.value(self._ask(connection, "get_next_stream_item"), "__next__")
        self._codec = None
        self._items.append(item)
        self._position += 1

    def _fetch_chunk(self, connection: ClientConnection) -> None:
        asked = time.monotonic()
        count = self._useful(asked)
        frame = self._ask(connection, "get_stream_chunk", self._position, count, CHUNK_TIME)
        if frame.flags & FLAG_EXCEPTION:
            connection.value(frame)
        bodies, state = _parts(connection.inflated(frame))
        if state == _ALONE:
            self._fetch_item(connection)
            return
        codec = self._codec = connection.codec
        if state == _END_WITH_VALUE:
            self._end(codec.loads(bodies.pop()))
        elif state == _END:
            self._end(None)
        self._items.extend(bodies)
        self._position += len(bodies)
        self._latest, self._latest_at = len(bodies), time.monotonic()
        if len(bodies) == count and self._latest_at - asked < 2 * CHUNK_TIME:
            self._count = min(count * GROWTH, connection.settings.ITER_STREAM_CHUNK)
        else:
            self._count = max(1, len(bodies))

    def _useful(self, now: float) -> int:
        """How many items this side will use soon; more would be old when it comes to them."""
        using = now - self._latest_at
        if not self._latest or using <= 0:
            return self._count
        return max(1, min(self._count, int(USING_TIME * self._latest / using)))

    def _end(self, value: Any) -> None:
        self.value = value
        self._over = True

    # ------------------------------------------------------------------------- closing
    def close(self) -> None:
        """Tell the server that no more items are wanted; safe to call twice, and from any thread.

        While a thread waits for an item of this stream the server is told right after.
        """
        if not self._closed:
            self._forget()
            if self._lock.acquire(blocking=False):
                try:
                    self._tell()
                finally:
                    self._lock.release()

    def _forget(self) -> None:
        """Have the server told later; takes no lock and touches no socket."""
        self._closed = True
        connection = self._proxy.__dict__.get("_pyroConnection")
        if connection is not None and not self._over:
            dropped = connection.stash.get(_DROPPED, None)
            if dropped is not None:
                dropped.append(self.streamId)

    def _tell(self) -> None:
        proxy = self._proxy
        with proxy._pyroLock:
            connection = proxy._pyroConnection
            if connection is not None:
                try:
                    _close_dropped(connection)
                except CommunicationError as exc:
                    log.debug("a stream could not be closed, the connection is lost: %s", exc)
                    proxy._pyroDrop()

    def __del__(self) -> None:
        if not self._closed:
            self._forget()

    def __enter__(self) -> RemoteIterator:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<RemoteIterator {self.streamId}, {'ended' if self.proxy is None else 'open'}>"


_DROPPED = StashKey["deque[str]"]()
"""The ids of streams that the server is to be told to forget."""


def _list_of_dropped(connection: ClientConnection) -> deque[str]:
    """The connection's list of them; without any stream it costs the calls nothing."""
    dropped = connection.stash.get(_DROPPED, None)
    if dropped is None:
        dropped = connection.stash[_DROPPED] = deque()
        plan = connection.plan
        connection.use(
            dataclasses.replace(
                plan,
                before_send=(*plan.before_send, _close_before),
                probes=(*plan.probes, lambda: dropped or None),
                before_release=(*plan.before_release, _close_dropped),
            )
        )
    return dropped


def _close_before(call: Call) -> None:
    _close_dropped(call.connection)


def _close_dropped(connection: ClientConnection) -> None:
    """Tell the server; a oneway call that no step of a plugin has to do with."""
    dropped = connection.stash.get(_DROPPED, None)
    while dropped and not connection.busy:
        stream_id = dropped.popleft()
        payload = connection.codec.dumps_call(DAEMON_NAME, "close_stream", (stream_id,), {})
        connection.seq = (connection.seq + 1) & 0xFFFF
        connection.busy = True
        connection.send(encode(INVOKE, connection.serializer_id, FLAG_ONEWAY, connection.seq, payload))
        connection.busy = False


def _parts(payload: Any) -> tuple[list[memoryview], int]:
    """The items of a chunk, still encoded, and its state.

    :raises RemoteProtocolError: it is no chunk
    """
    view = memoryview(payload)
    try:
        state, count = _CHUNK.unpack_from(view)
        if count * 4 > len(view):
            _invalid()
        sizes = struct.unpack_from(f"!{count}I", view, _CHUNK.size)
    except struct.error:
        _invalid()
    offset = _CHUNK.size + 4 * count
    bodies = []
    for size in sizes:
        bodies.append(view[offset : offset + size])
        offset += size
    if offset != len(view) or state > _ALONE or (state == _END_WITH_VALUE and not bodies):
        _invalid()
    return bodies, state


def _invalid() -> NoReturn:
    raise RemoteProtocolError("invalid chunk of items")


def _received(call: Call, placeholder: Any) -> RemoteIterator:
    """Reply with the flag ITEMSTREAM: the result is an iterator."""
    stream_id = (call.reply_annotations or {}).get(STREAM_ID)
    if stream_id is None:
        raise ProtocolError(f"{PLACEHOLDER}, but the server is not configured to allow streaming")
    proxy = call.connection.owner()
    if proxy is None:
        raise ProtocolError(f"{PLACEHOLDER}, and there is no proxy to fetch its items")
    _list_of_dropped(call.connection)
    return RemoteIterator(proxy, bytes(stream_id).decode("ascii", "replace"))


# ============================================================================= hooks
@hookimpl
def pyro_settings(schema: Schema) -> None:
    """Pyro's three settings, and the limits."""
    for setting in (
        Setting("ITER_STREAMING", bool, True, "iterators as results are streamed", "streaming"),
        Setting("ITER_STREAM_LIFETIME", float, 0.0, "seconds a stream may last; 0: no limit", "streaming", minimum=0),
        Setting(
            "ITER_STREAM_LINGER",
            float,
            30.0,
            "seconds a stream outlives its connection; 0: none",
            "streaming",
            minimum=0,
        ),
        Setting("ITER_STREAM_CHUNK", int, 1000, "items in one reply at most; 1: as in Pyro", "streaming", minimum=1),
        Setting(
            "ITER_STREAM_THREADS",
            int,
            16,
            "threads in which generators go on meanwhile; 0: none",
            "streaming",
            minimum=0,
        ),
        Setting("MAX_STREAMS", int, 1000, "item streams that one connection may have open", "streaming", minimum=1),
        Setting(
            "MAX_LINGERING_STREAMS", int, 10_000, "streams of lost clients kept in a daemon", "streaming", minimum=1
        ),
    ):
        schema.add(setting)


@hookimpl
def pyro_reserve(wire: WireRegister) -> None:
    """The flag and the annotation."""
    wire.flag(FLAG_ITEMSTREAM, "ITEMSTREAM")
    wire.annotation(STREAM_ID)


@hookimpl
def pyro_extensions() -> Iterable[str]:
    """Several items in one reply."""
    return [CHUNKS]


@hookimpl
def pyro_system_objects(daemon: Any) -> Mapping[str, Any]:
    """The methods of the daemon's object that clients fetch items with."""
    streams = daemon.stash[STREAMS] = Streams(daemon)
    return {DAEMON_NAME: StreamMethods(streams)}


@hookimpl
def pyro_bind(connection: Any) -> Steps:
    """Iterators are kept on the server, and become remote iterators on the client."""
    if connection.side == "client":
        return Steps(reply_flags={FLAG_ITEMSTREAM: _received})
    connection.stash[_SESSION] = Session()
    return Steps(results=[(Iterator, _opens)], on_error=_failed)


@hookimpl
def pyro_closed(connection: ServerConnection) -> None:
    """The streams of the connection linger, or end."""
    session = connection.stash.get(_SESSION, None)
    if session is not None:
        connection.endpoint.daemon.stash[STREAMS].disconnected(session)  # type: ignore[attr-defined]


@hookimpl
def pyro_housekeeping(daemon: Any, now: float) -> None:
    """End streams whose time is over."""
    daemon.stash[STREAMS].sweep(now)


@hookimpl
def pyro_daemon_closed(daemon: Any) -> None:
    """End all streams."""
    daemon.stash[STREAMS].close(daemon.kernel.settings.SHUTDOWN_TIMEOUT)
