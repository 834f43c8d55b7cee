"""One iterator on the server, and who may run it when."""

from __future__ import annotations

import contextvars
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from pyroplug.core.call import Call
from pyroplug.core.errors import MessageTooLargeError, ProtocolError, PyroError
from pyroplug.core.interfaces import Codec

from .ahead import Ahead
from .chunks import ALONE, CHUNK_BYTES, END, END_WITH_VALUE, MORE, OVERHEAD, PER_ITEM, TERMINATED, pack

if TYPE_CHECKING:
    from pyroplug.core.dispatch import Request

    from .server import Session, Streams

__all__ = ["Item", "Stream", "sendable"]

log = logging.getLogger("pyroplug.streaming")

# the iterators of Python's own containers never wait for anything
_CONTAINERS: tuple[Iterable[Any], ...] = ([], (), set(), {}, {}.values(), {}.items(), "", b"", range(0))
_NEVER_WAITS = frozenset((type(reversed([])), type(iter("é")), *(type(iter(each)) for each in _CONTAINERS)))


class Item(NamedTuple):
    """An item that was made, and how it is to travel."""

    value: Any
    codec: Codec | None = None
    data: bytes = b""
    error: Exception | None = None
    """why it cannot travel"""
    alone: bool = False
    """It needs a reply of its own, as an iterator does."""

    @classmethod
    def made(cls, call: Call, value: Any) -> Item:
        """An item for who makes this call."""
        plan = call.plan
        try:
            if plan.results is not None and plan.results[type(value)] is not None:
                return cls(value, alone=True)
            codec = plan.codecs[call.serializer_id]
            return cls(value, codec, codec.dumps(value))
        except Exception as exc:  # converters are code of the program
            return cls(value, error=exc)


class Stream:
    """One iterator that a client fetches from.

    Whoever runs the iterator has ``_running``; nobody else touches it until that is given back.
    """

    def __init__(self, iterator: Iterator[Any], now: float) -> None:
        digits = os.urandom(16).hex()  # written as Pyro5 does, which takes them from uuid
        self.id = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
        self.source = ""
        """The id of the object whose method made the iterator."""
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
        self._ready: deque[Item] = deque()
        """made, and not sent yet"""
        self._sent: list[Item] = []
        """the last chunk; it may have been lost on the way"""
        self._position = 0
        """how many items were sent before that"""
        self._ending: BaseException | None = None
        """how the iterator has ended: StopIteration, or its error"""

    # ------------------------------------------------------------------------- answering
    def answer_item(self, call: Request, streams: Streams) -> Any:
        """One item, or something that will answer the call with it.

        :raises StopIteration: there are no more
        """
        try:
            return self.next_item()
        except StopIteration as exc:
            raise sendable(exc, call.plan.codecs[call.serializer_id]) from None
        finally:
            streams.settle(self)

    def answer_chunk(self, call: Request, streams: Streams, position: int, count: int, seconds: float) -> Any:
        """Make a chunk the payload of the reply; or return something that will answer the call with it."""
        try:
            call.reply_payload = self.next_chunk(call, position, count, seconds, streams.ahead)
        finally:
            streams.settle(self)

    # ------------------------------------------------------------------------- fetching
    def next_item(self) -> Any:
        """One item, made now (for peers that know no chunks).

        :raises StopIteration: there are no more
        """
        with self._change:
            self._wait()
            if self._ready or self._iterator is None:
                return self._take_item()
            self._pass_item()
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
        deadline = time.monotonic() + seconds
        size = 0
        while iterator is not None and len(ready) < count and size < CHUNK_BYTES and not self._doomed:
            try:
                value = next(iterator)
            except BaseException as exc:  # code of the program
                self._ended(exc)
                return
            item = Item.made(call, value)
            size += len(item.data)
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

    def _pass_item(self) -> None:
        """One more item is sent that is not kept, and what came before it has arrived."""
        self._position += len(self._sent) + 1
        self._sent.clear()

    def _take_item(self) -> Any:
        """The item to send by itself; called with ``_change`` held.

        :raises StopIteration: there are no more
        """
        if not self._ready:
            raise self._outcome()
        self._pass_item()
        item = self._ready.popleft()
        if item.error is not None:
            raise item.error
        return item.value

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
        codec = call.plan.codecs[call.serializer_id]
        limit = call.plan.limits.max_message_size - OVERHEAD
        room = limit
        while ready and len(bodies) < count and not ready[0].alone:
            try:
                data = _encoded(ready[0], codec, limit)
            except Exception:
                if not bodies:
                    ready.popleft()
                    raise
                break  # those before it first
            room -= len(data) + PER_ITEM
            if room < 0 and bodies:
                break
            bodies.append(data)
            self._sent.append(ready.popleft())
        state = MORE
        if ready and ready[0].alone and not bodies:
            state = ALONE
        elif not ready and isinstance(self._ending, StopIteration):
            state, value = END, sendable(self._ending, codec).value
            if value is not None:
                bodies.append(codec.dumps(value))
                state = END_WITH_VALUE
            self.finished = True  # but the client may have to ask once more
        elif not bodies:
            raise self._outcome()
        return pack(state, bodies)

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


def _encoded(item: Item, codec: Codec, limit: int) -> bytes:
    """An item as it is to travel; what is raised is why it cannot."""
    if item.error is not None:
        raise item.error
    # another codec made it if the client goes on with another serializer
    data = item.data if item.codec is codec else codec.dumps(item.value)
    if len(data) + PER_ITEM > limit:
        raise MessageTooLargeError(f"message too large ({len(data)}, max={limit})", len(data), limit)
    return data


def sendable(ending: StopIteration, codec: Codec) -> StopIteration:
    """The end of a stream, with the generator's return value if that can travel."""
    try:
        if ending.value is not None:
            codec.dumps(ending.value)
            return StopIteration(ending.value)
    except Exception:  # converters are code of the program
        log.debug("the return value of a generator cannot be sent")
    return StopIteration()
