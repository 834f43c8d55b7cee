"""Several items in one reply: the form of a chunk, and what both sides know of it.

::

    state (1 byte) | count (4 bytes) | count sizes (4 bytes each) | count items

Each item is encoded by itself, as the result of a call is.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NoReturn

from pyroplug.core.errors import RemoteProtocolError

__all__ = [
    "ALONE",
    "CHUNKS",
    "CHUNK_BYTES",
    "CHUNK_TIME",
    "END",
    "END_WITH_VALUE",
    "MORE",
    "OVERHEAD",
    "PER_ITEM",
    "PLACEHOLDER",
    "STREAM_ID",
    "TERMINATED",
    "pack",
    "unpack",
]

CHUNKS = "chunks"
"""The protocol extension: several items in one reply."""
STREAM_ID = "STRM"
"""The annotation that carries the id of a stream."""
PLACEHOLDER = "result of call is an iterator"
"""What peers get to see that know no streams."""
TERMINATED = "item stream terminated"
"""The error for a stream that there is not, or not any more."""
CHUNK_BYTES = 256 * 1024
"""A chunk is complete with the item that reaches this size (bytes)."""
CHUNK_TIME = 0.005
"""How long (seconds) a chunk may take to make, and a request for a chunk to be answered, if there is any item."""

MORE, END, END_WITH_VALUE, ALONE = range(4)
"""The states: there is more; there is not; the last item is the value that the generator has returned; the next item
does not go into a chunk."""

_HEAD = struct.Struct("!BI")
OVERHEAD = _HEAD.size
"""Bytes of a chunk beside its items."""
PER_ITEM = 4
"""Bytes of an item beside itself."""


def pack(state: int, items: Sequence[bytes]) -> bytes:
    """A chunk of encoded items."""
    return b"".join((_HEAD.pack(state, len(items)), struct.pack(f"!{len(items)}I", *map(len, items)), *items))


def unpack(payload: Any) -> tuple[list[memoryview], int]:
    """The items of a chunk, still encoded, and its state.

    :raises RemoteProtocolError: it is no chunk
    """
    view = memoryview(payload)
    try:
        state, count = _HEAD.unpack_from(view)
        if count * 4 > len(view):
            _invalid()
        sizes = struct.unpack_from(f"!{count}I", view, _HEAD.size)
    except struct.error:
        _invalid()
    offset = _HEAD.size + 4 * count
    bodies = []
    for size in sizes:
        bodies.append(view[offset : offset + size])
        offset += size
    if offset != len(view) or state > ALONE or (state == END_WITH_VALUE and not bodies):
        _invalid()
    return bodies, state


def _invalid() -> NoReturn:
    raise RemoteProtocolError("invalid chunk of items")
