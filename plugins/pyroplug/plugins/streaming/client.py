"""The client side: an iterator whose items are made somewhere else."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from pyroplug.core.call import Call
from pyroplug.core.connection import ClientConnection, Lost
from pyroplug.core.daemon import DAEMON_NAME
from pyroplug.core.errors import CommunicationError, LocalProtocolError, ProtocolError, PyroError
from pyroplug.core.interfaces import Codec
from pyroplug.core.proxy import ProxyBase
from pyroplug.core.stash import StashKey
from pyroplug.core.wire import FLAG_EXCEPTION, FLAG_ONEWAY, INVOKE, Frame

from .chunks import ALONE, CHUNK_TIME, CHUNKS, END, END_WITH_VALUE, PLACEHOLDER, STREAM_ID, TERMINATED, unpack

if TYPE_CHECKING:
    from .aio import AsyncRemoteIterator, Connect

__all__ = ["RemoteIterator", "list_of_dropped", "receive_stream"]

log = logging.getLogger("pyroplug.streaming")

USING_TIME = 0.05
"""No more items are asked for than the client was last able to use in that time (seconds)."""
GROWTH = 4
"""How many times more items the next chunk may have."""


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
            self._flush()

    def _fetch_once(self, proxy: ProxyBase) -> CommunicationError | None:
        """Ask for more; the error when the connection was lost by that."""
        connection: ClientConnection | None = None
        try:
            with proxy._pyroLock:
                proxy._pyroBind()
                connection = proxy._pyroConnection
                assert connection is not None
                list_of_dropped(connection)
                if not connection.overlapping:
                    self._fetch_from(connection)
                    return None
            self._fetch_from(connection)
        except Lost as lost:
            return lost.error
        except CommunicationError as exc:
            if connection is None:
                return exc
            self._failed = self._failed or str(exc) != TERMINATED
            raise
        except BaseException as exc:
            self._failed = self._failed or (connection is not None and not connection.gone and str(exc) != TERMINATED)
            raise
        finally:
            if connection is not None and connection.gone:
                proxy._pyroDrop(connection)
        return None

    def _fetch_from(self, connection: ClientConnection) -> None:
        if CHUNKS in connection.extensions:
            self._fetch_chunk(connection)
        else:
            self._fetch_item(connection)

    def _ask(self, connection: ClientConnection, method: str, *args: Any) -> Frame:
        frame: Frame = connection.call(DAEMON_NAME, method, (self.streamId, *args), {}, 0, True)
        return frame

    def _fetch_item(self, connection: ClientConnection) -> None:
        self._take_item(connection, self._ask(connection, "get_next_stream_item"))

    def _take_item(self, connection: ClientConnection, frame: Frame) -> None:
        # decoded under the name of a method that may end an iteration
        item = connection.value(frame, "__next__")
        self._codec = None
        self._items.append(item)
        self._position += 1

    def _fetch_chunk(self, connection: ClientConnection) -> None:
        asked = time.monotonic()
        count = self._useful(asked)
        frame = self._ask(connection, "get_stream_chunk", self._position, count, CHUNK_TIME)
        if not self._take_chunk(connection, frame, asked, count):
            self._fetch_item(connection)

    def _take_chunk(self, connection: ClientConnection, frame: Frame, asked: float, count: int) -> bool:
        """Take the items of a reply; False when there are none, because the next one has to be asked for by itself."""
        if frame.flags & FLAG_EXCEPTION:
            connection.value(frame)
        bodies, state = unpack(connection.inflated(frame))
        if state == ALONE:
            return False
        codec = self._codec = connection.codec
        if state == END_WITH_VALUE:
            self._end(codec.loads(bodies.pop()))
        elif state == END:
            self._end(None)
        self._items.extend(bodies)
        self._position += len(bodies)
        self._latest, self._latest_at = len(bodies), time.monotonic()
        if len(bodies) == count and self._latest_at - asked < 2 * CHUNK_TIME:
            self._count = min(count * GROWTH, connection.settings.ITER_STREAM_CHUNK)
        else:
            self._count = max(1, len(bodies))
        return True

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

        It waits until the server has closed the generator (old peers do that some time after).  Where a thread
        waits for an item of this stream, or is in the middle of a call, it returns at once, and the server is
        told right after.
        """
        if self._closed:
            return
        if not self._lock.acquire(blocking=False):
            self._forget()
            return
        try:
            self._closed = True
            self._items.clear()
            if not self._over:
                self._with_connection(self._tell)
        finally:
            self._lock.release()

    def _with_connection(self, action: Callable[[ClientConnection], None]) -> None:
        """Do something with the proxy's connection, if it has one; nothing of what goes wrong matters any more."""
        proxy = self._proxy
        with proxy._pyroLock:
            connection = proxy._pyroConnection
            if connection is None:
                return
            if not connection.overlapping:
                self._attempt(connection, action)
                return
        self._attempt(connection, action)

    def _attempt(self, connection: ClientConnection, action: Callable[[ClientConnection], None]) -> None:
        try:
            action(connection)
        except (PyroError, Lost) as exc:
            log.debug("a stream could not be closed: %s", exc)
        finally:
            if connection.gone:
                self._proxy._pyroDrop(connection)

    def _tell(self, connection: ClientConnection) -> None:
        if CHUNKS not in connection.extensions:
            self._queue()
            _close_dropped(connection)
            return
        try:
            connection.call(DAEMON_NAME, "close_stream", (self.streamId,), {})
        except LocalProtocolError:  # this thread is in the middle of a call
            self._queue()

    def _flush(self) -> None:
        """Send what is queued."""
        self._with_connection(_close_dropped)

    def _forget(self) -> None:
        """Have the server told later; takes no lock and touches no socket."""
        self._closed = True
        if not self._over:
            self._queue()

    def _queue(self) -> None:
        connection = self._proxy.__dict__.get("_pyroConnection")
        if connection is not None:
            dropped = connection.stash.get(_DROPPED, None)
            if dropped is not None:
                dropped.append(self.streamId)

    def _pyroInTask(self, connect: Connect) -> AsyncRemoteIterator:
        """The same for a program that awaits its calls."""
        from .aio import AsyncRemoteIterator

        return AsyncRemoteIterator(self, connect)

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


def list_of_dropped(connection: ClientConnection) -> deque[str]:
    """The connection's list of them; without any stream it costs the calls nothing."""
    dropped = connection.stash.get(_DROPPED, None)
    if dropped is None:
        dropped = connection.stash[_DROPPED] = deque()
        plan = connection.plan
        connection.use(
            plan.replaced(
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
    while dropped:
        try:
            stream_id = dropped.popleft()
        except IndexError:  # another thread was faster
            return
        payload = connection.codec.dumps_call(DAEMON_NAME, "close_stream", (stream_id,), {})
        try:
            connection.post(INVOKE, connection.serializer_id, FLAG_ONEWAY, payload)
        except LocalProtocolError:  # this thread is in the middle of a call
            dropped.appendleft(stream_id)
            return


def receive_stream(call: Call, placeholder: Any) -> RemoteIterator:
    """Reply with the flag ITEMSTREAM: the result is an iterator."""
    stream_id = (call.reply_annotations or {}).get(STREAM_ID)
    if stream_id is None:
        raise ProtocolError(f"{PLACEHOLDER}, but the server is not configured to allow streaming")
    proxy = call.connection.owner()
    if proxy is None:
        raise ProtocolError(f"{PLACEHOLDER}, and there is no proxy to fetch its items")
    with proxy._pyroLock:
        list_of_dropped(call.connection)
    return RemoteIterator(proxy, bytes(stream_id).decode("ascii", "replace"))
