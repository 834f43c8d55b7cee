"""The server side: methods that iterate over what a client makes."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Coroutine, Generator, Mapping, Sequence
from contextvars import copy_context
from typing import Any

from pyroplug.core.call import Call, current_call
from pyroplug.core.connection import ServerConnection, State
from pyroplug.core.dispatch import LATER, Later, Request, invoke
from pyroplug.core.errors import ConnectionClosedError, OverloadError, PyroError, RemoteProtocolError
from pyroplug.core.members import expose
from pyroplug.core.settings import Settings
from pyroplug.core.stash import StashKey

from .terms import FLAG_WANT, unpacked

__all__ = ["UPLOADS", "PushMethods", "Uploads", "begin", "lost"]

log = logging.getLogger("pyroplug.push")

WAITING_CHUNKS = 1
"""Chunks that may wait for the method when the next one is asked for."""


class _Source:
    """What has come of one iterator."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.chunks: deque[list[Any]] = deque()
        self.wanted = False
        """The method waits for it."""
        self.ended = False
        self.error: BaseException | None = None
        self.dropped = False
        """The method has left it."""


class Upload:
    """One call with iterators.

    Exactly one request of its client is under way, or the client makes items; ``_pending`` is that request until it is
    answered, first the call itself.
    """

    def __init__(self, request: Request, places: Sequence[int | str], uploads: Uploads) -> None:
        self.call = request
        self.id = 0
        self._uploads = uploads
        self._places = places
        self._sources = [_Source(number) for number in range(len(places))]
        self._change = threading.Condition()
        self._pending: Request | None = request
        self._annotations: Mapping[str, Any] = {}
        self._broken: PyroError | None = None
        """Why no more items come."""
        self._given_up = False
        """The client wants no answer."""
        self._outcome: tuple[Any, BaseException | None] | None = None

    # ------------------------------------------------------------------------- the call
    def decode(self, call: Call) -> tuple[str, str, Sequence[Any], Mapping[str, Any]]:
        """The request, with generators in place of what the client has kept."""
        object_id, method, args, kwargs = call.plan.codecs[call.serializer_id].loads_call(call.payload)
        args, kwargs = list(args), dict(kwargs)
        for source, place in zip(self._sources, self._places, strict=True):
            target: Any = args if isinstance(place, int) else kwargs
            if (place >= len(args) if isinstance(place, int) else place not in kwargs) or target[place] is not None:
                raise RemoteProtocolError(f"there is no argument {place!r} of {method} for an iterator")
            target[place] = self._items(source)
        return object_id, method, args, kwargs

    def start(self, call: Call) -> Later:
        """Have the method run.

        :raises OverloadError: too many do
        """
        self._uploads.start(self, copy_context())
        return LATER

    def run(self) -> None:
        """The method, in a thread of its own."""
        call = self.call
        outcome: tuple[Any, BaseException | None]
        try:
            result = invoke(call, call.object_id, call.method, call.args, call.kwargs)
            if isinstance(result, Coroutine):
                result.close()
                raise PyroError(f"{call.method} is an async def method, which cannot take an iterator (plugin 'push')")
            outcome = result, None
        except BaseException as exc:  # whatever user code raises is answered
            outcome = None, exc
        call.args, call.kwargs = (), {}
        with self._change:
            self._broken = self._broken or PyroError("the call is over; its items could be had only while it ran")
            for source in self._sources:
                source.chunks.clear()
            request, self._pending = self._pending, None
            if request is None:
                self._outcome = outcome
        if request is not None or self._given_up:
            self._uploads.forget(self)
        if request is not None:
            self._dress(request)
            result, error = outcome
            if error is None:
                request.finish(result)
            else:
                request.fail(error)

    def _dress(self, request: Request) -> None:
        """Make a request that brought items answer for the call."""
        call = self.call
        annotations = {**self._annotations, **(call.reply_annotations or {})}
        request.reply_annotations = annotations or None
        request.object_id, request.method = call.object_id, call.method

    # ------------------------------------------------------------------------- items
    def _items(self, source: _Source) -> Generator[Any, None, None]:
        """What the method gets."""
        try:
            while (chunk := self._next_chunk(source)) is not None:
                yield from chunk
        finally:
            with self._change:
                source.dropped = True
                source.chunks.clear()

    def _next_chunk(self, source: _Source) -> list[Any] | None:
        while True:
            chunk: list[Any] | None = None
            with self._change:
                if source.chunks:
                    chunk = source.chunks.popleft()
                    source.wanted = False
                elif self._broken is not None:
                    raise type(self._broken)(*self._broken.args)
                elif source.ended:
                    if source.error is not None:
                        raise source.error
                    return None
                else:
                    source.wanted = True
                wants = self._next_wanted(source)
                request = None
                if wants is not None:
                    request, self._pending = self._pending, None
                if request is None and chunk is None:
                    self._change.wait()
            if request is not None and wants is not None:
                if request is self.call:
                    self._annotations, request.reply_annotations = request.reply_annotations or {}, None
                request.finish(self._want(request, wants))
            if chunk is not None:
                return chunk

    def _next_wanted(self, latest: _Source) -> _Source | None:
        """Whose items are wanted next, if there is room for any; with ``_change`` held."""
        for source in self._sources:
            if source.wanted and not (source.chunks or source.ended):
                return source
        if latest.ended or latest.dropped or len(latest.chunks) > WAITING_CHUNKS - 1:
            return None
        return latest

    def _want(self, request: Request, source: _Source) -> list[int]:
        request.reply_flags |= FLAG_WANT
        return [self.id, source.number, self._uploads.chunk]

    def took(self, request: Request, number: int, items: Any, ended: bool, error: Any) -> Any:
        """Items have come; what to answer."""
        with self._change:
            if not isinstance(items, (list, tuple)) or not 0 <= number < len(self._sources):
                raise RemoteProtocolError("invalid items")
            source = self._sources[number]
            if self._pending is not None:
                raise RemoteProtocolError("items came that nobody asked for")
            if items and not source.dropped and self._broken is None:
                source.chunks.append(list(items))
            if ended and not source.ended:
                source.ended = True
                source.error = _exception(error)
            self._change.notify_all()
            if self._outcome is None:
                wants = self._next_wanted(source)
                if wants is not None:
                    return self._want(request, wants)
                self._pending = request
                return LATER
            (result, failure), self._outcome = self._outcome, None
        self._uploads.forget(self)
        self._dress(request)
        if failure is not None:
            raise failure
        return result

    def stop(self, reason: PyroError) -> None:
        """No more items will come, and nobody waits for an answer."""
        with self._change:
            self._broken = self._broken or reason
            self._given_up = True
            request, self._pending = self._pending, None
            over = self._outcome is not None
            self._change.notify_all()
        if request is not None:
            request.fail(reason)
        if over:
            self._uploads.forget(self)


def _exception(error: Any) -> Exception | None:
    if error is None or isinstance(error, Exception):
        return error
    return PyroError(f"the client's iterator failed: {str(error)[:200]}")


# --------------------------------------------------------------------------- all of a daemon
class Uploads:
    """The calls with iterators of one daemon, and the threads in which they run."""

    def __init__(self, settings: Settings) -> None:
        self.chunk: int = settings.PUSH_CHUNK
        self._limit: int = settings.MAX_UPLOADS
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._uploads: set[Upload] = set()
        self._closed = False
        self._latest = 0

    def start(self, upload: Upload, context: Any) -> None:
        """Run an upload's method in a thread."""
        thread = threading.Thread(target=self._run, args=(upload, context), name="pyroplug-upload", daemon=True)
        session = _session(upload.call.connection)
        with self._lock:
            if len(self._uploads) >= self._limit or self._closed:
                raise OverloadError(f"too many calls with iterators as arguments (MAX_UPLOADS={self._limit})")
            self._latest += 1
            upload.id = self._latest
            self._uploads.add(upload)
            self._threads.add(thread)
            session[upload.id] = upload
        try:
            thread.start()
        except RuntimeError:  # the system gives no more threads
            self._threads.discard(thread)
            self.forget(upload)
            raise
        if upload.call.connection.state is State.CLOSED:
            lost(upload.call.connection)

    def _run(self, upload: Upload, context: Any) -> None:
        try:
            context.run(upload.run)
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def forget(self, upload: Upload) -> None:
        """It is over."""
        with self._lock:
            self._uploads.discard(upload)
            _session(upload.call.connection).pop(upload.id, None)

    def close(self, timeout: float) -> None:
        """End all of them; methods that do not wait for items get ``timeout`` seconds."""
        with self._lock:
            self._closed = True
            uploads, threads = list(self._uploads), list(self._threads)
        for upload in uploads:
            upload.stop(PyroError("the daemon is being closed: no more items of the client come"))
        deadline = time.monotonic() + timeout
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in threads):
            log.warning("methods that take iterators go on, although the daemon was closed")

    def __len__(self) -> int:
        """How many are under way."""
        with self._lock:
            return len(self._uploads)


UPLOADS = StashKey[Uploads]()
"""Where a daemon has its uploads."""
_SESSION = StashKey["dict[int, Upload]"]()
"""Where a connection has its own."""


def _session(connection: Any) -> dict[int, Upload]:
    session: dict[int, Upload] = connection.stash.setdefault(_SESSION, {})
    return session


def lost(connection: ServerConnection) -> None:
    """The client has gone."""
    for upload in list(connection.stash.get(_SESSION, {}).values()):
        upload.stop(ConnectionClosedError(f"the client {connection.peer} has gone: no more items of it come"))


def begin(call: Call, data: bytes) -> None:
    """Annotation PUSH: the call has iterators.

    :raises PyroError: they cannot be had here
    """
    daemon = call.connection.endpoint.daemon
    if not getattr(daemon.transportServer, "concurrent", False):
        raise PyroError(
            f"an iterator cannot be an argument here: while a method waits for its items, calls must be served in other "
            f"threads, and SERVERTYPE={daemon.kernel.settings.SERVERTYPE} runs one at a time (use thread; plugin 'push')"
        )
    if call.decode is not None or call.invoke is not None or not isinstance(call, Request):
        raise RemoteProtocolError("iterators as arguments of a call of a special kind")
    upload = Upload(call, unpacked(data), daemon.stash[UPLOADS])
    call.decode, call.invoke = upload.decode, upload.start


@expose
class PushMethods:
    """What the object ``Pyro.Daemon`` does for iterators of clients."""

    def push_items(self, upload: int, number: int, items: Any, ended: bool, error: Any = None) -> Any:
        """The next items of an iterator; the reply to the last is that of the call that they are for.

        :raises PyroError: there is no such call (any more)
        """
        request = current_call.get()
        if not isinstance(request, Request):
            raise PyroError("items are pushed in remote calls")
        found = _session(request.connection).get(upload)
        if not request.wants_reply:
            if found is not None:
                found.stop(error if isinstance(error, PyroError) else PyroError("the client has given up"))
            return None
        if found is None:
            raise PyroError("the call that takes these items is not known, or over")
        return found.took(request, number, items, ended, error)
