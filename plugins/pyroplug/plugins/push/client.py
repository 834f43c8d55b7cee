"""The client side: iterators whose items are wanted somewhere else."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Generator, Iterator
from typing import Any

from pyroplug.core.call import Call
from pyroplug.core.connection import ClientConnection, Lost
from pyroplug.core.daemon import DAEMON_NAME
from pyroplug.core.errors import MessageTooLargeError, ProtocolError, PyroError, SerializeError
from pyroplug.core.stash import StashKey
from pyroplug.core.wire import FLAG_ONEWAY, Frame

from .terms import FLAG_WANT, MAX_PLACES, PLACES, packed

__all__ = ["feed", "offer", "refuse"]

CHUNK_TIME = 0.005
"""How long (seconds) a chunk may take to make; and to make and send, if the next one is to be larger."""
SLOW_TIME = 0.02
"""A chunk that takes longer than that (seconds) is followed by a smaller one."""
CHUNK_BYTES = 256 * 1024
"""A chunk is complete with the item that reaches this size (bytes), as far as that can be told without encoding it."""
GROWTH = 4
"""How many times more items the next chunk may have."""


class _Source:
    """An iterator, and what it has made."""

    def __init__(self, place: int | str, iterator: Iterator[Any]) -> None:
        self.place = place
        self._iterator = iterator
        self.count = 1
        """How many items the next chunk may have."""
        self._items: list[Any] = []
        self._ended = False
        self._error: Exception | None = None

    def take(self, limit: int) -> tuple[list[Any], bool, Exception | None]:
        """The next items, whether it has ended with them, and its error."""
        count = max(1, min(self.count, limit))
        if not self._ended and len(self._items) < count:
            self._make(count)
        chunk, self._items = self._items[:count], self._items[count:]
        ended = self._ended and not self._items
        return chunk, ended, self._error if ended else None

    def _make(self, count: int) -> None:
        items = self._items
        deadline = time.monotonic() + CHUNK_TIME
        size = 0
        try:
            for item in self._iterator:
                items.append(item)
                if isinstance(item, (bytes, bytearray, str)):
                    size += len(item)
                if len(items) >= count or size >= CHUNK_BYTES or time.monotonic() >= deadline:
                    return
        except Exception as exc:  # code of the program
            self._error = exc
        self._ended = True

    def put_back(self, items: list[Any]) -> None:
        """They were too many for one message."""
        self._items[:0] = items
        self.count = max(1, len(items) // 2)

    def adapt(self, sent: int, seconds: float) -> None:
        """How long the latest chunk took tells the size of the next."""
        if seconds < CHUNK_TIME and sent >= self.count:
            self.count *= GROWTH
        elif seconds > SLOW_TIME:
            self.count = max(1, sent // 2)

    def close(self) -> None:
        """Close a generator; other iterators are only forgotten."""
        if isinstance(self._iterator, Generator):
            self._iterator.close()


_SOURCES = StashKey["list[_Source]"]()


def offer(call: Call, place: int | str, iterator: Iterator[Any]) -> None:
    """In place of an iterator goes None, and an annotation that says so."""
    if isinstance(iterator, io.IOBase):
        raise SerializeError(
            f"an open file cannot be argument {place!r} of {call.method}; for its lines pass a generator of them "
            f"(line for line in file), for its bytes one of pieces"
        )
    sources = call.stash.setdefault(_SOURCES, [])
    if call.flags & FLAG_ONEWAY:
        raise SerializeError(
            f"{call.method} is called oneway, which cannot take an iterator: nobody asks for its items"
        )
    if len(sources) >= MAX_PLACES:
        raise SerializeError(f"too many iterators as arguments of {call.method} (at most {MAX_PLACES})")
    sources.append(_Source(place, iterator))
    call.annotations = {**call.annotations, PLACES: packed([source.place for source in sources])}


def refuse(call: Call, place: int | str, iterator: Iterator[Any]) -> None:
    """The server cannot."""
    raise SerializeError(
        f"{type(iterator).__name__} as argument {place!r} of {call.method}: an iterator can be an argument if both ends "
        f"have the plugin 'push', which {call.connection.peer} has not; give a list, or let the server ask for the items"
    )


def feed(call: Call, wanted: Any) -> Any:
    """Reply with the flag WANT: send items until there is another reply, which is the call's."""
    sources = call.stash.get(_SOURCES, None)
    if sources is None:
        raise ProtocolError(f"{call.connection.peer} wants items of a call without iterators")
    try:
        frame = _send_items(call.connection, sources, wanted)
        # the method's reply, even if it is an exception
        return call.connection.value(frame, call.method)
    finally:
        for source in sources:
            source.close()


def _send_items(connection: ClientConnection, sources: list[_Source], wanted: Any) -> Frame:
    upload = 0
    try:
        while True:
            try:
                upload, number, limit = map(int, wanted)
                source = sources[number] if number >= 0 else sources[len(sources)]
            except (TypeError, ValueError, IndexError):
                raise ProtocolError(f"{connection.peer} wants items in a way that is not known: {wanted!r}") from None
            began = time.monotonic()
            items, ended, error = source.take(limit)
            try:
                frame = _push(connection, upload, number, items, ended, error)
            except MessageTooLargeError:
                if len(items) < 2:
                    raise
                source.put_back(items)
                continue
            except SerializeError:
                if error is None:
                    raise
                described = PyroError(f"{type(error).__name__}: {error}")  # the error itself cannot travel
                frame = _push(connection, upload, number, items, ended, described)
            if not frame.flags & FLAG_WANT:
                return frame
            source.adapt(len(items), time.monotonic() - began)
            wanted = connection.codec.loads(connection.inflated(frame))
    except BaseException as exc:
        failed = exc.error if isinstance(exc, Lost) else exc
        if not connection.gone:  # the method is not to wait for items that will not come
            with contextlib.suppress(PyroError, Lost):
                reason = PyroError(f"the client has given up: {type(failed).__name__}: {failed}")
                connection.call(DAEMON_NAME, "push_items", (upload, 0, [], True, reason), {}, FLAG_ONEWAY)
        if isinstance(exc, Lost):
            # (and not a Lost, which would have the call made again)
            raise exc.error from exc.error.__cause__
        raise


def _push(
    connection: ClientConnection, upload: int, number: int, items: list[Any], ended: bool, error: Exception | None
) -> Frame:
    arguments = (upload, number, items, ended, error)
    frame: Frame = connection.call(DAEMON_NAME, "push_items", arguments, {}, 0, True)
    return frame
