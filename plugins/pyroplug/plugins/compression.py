"""Compression: payloads over 100 bytes are sent as zlib streams where that makes them smaller.

Each side decides for what it sends (COMPRESSION); whoever has this plugin can read it.  Inflating stops
at the size limit of messages, so that a small message cannot become a large one.
"""

from __future__ import annotations

import zlib
from typing import Any

from pyroplug.core.errors import MessageTooLargeError, RemoteProtocolError
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.interfaces import Buffer
from pyroplug.core.kernel import WireRegister
from pyroplug.core.plan import Steps
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Schema, Setting
from pyroplug.core.wire import FLAG_COMPRESSED

__all__ = ["PLUGIN", "inflate"]

PLUGIN = PluginInfo("compression", "zlib compression of payloads")

MINIMUM = 100
"""Smaller payloads (bytes) are left alone, as in Pyro5."""
LEVEL = 4
"""zlib level, as in Pyro5: fast, and the first bytes of a stream are its 78 5e."""


@hookimpl
def pyro_settings(schema: Schema) -> None:
    """COMPRESSION."""
    schema.add(Setting("COMPRESSION", bool, False, "compress the payloads that are sent", owner="compression"))


@hookimpl
def pyro_reserve(wire: WireRegister) -> None:
    """The flag, and how to undo it."""
    wire.flag(FLAG_COMPRESSED, "COMPRESSED", inflate)


def inflate(data: Buffer, max_size: int) -> bytes:
    """The original payload.

    :raises MessageTooLargeError: it has more than ``max_size`` bytes; no more than that was inflated
    :raises RemoteProtocolError: the data is no complete zlib stream
    """
    engine = zlib.decompressobj()
    try:
        result = engine.decompress(data, max_size + 1)
    except zlib.error as exc:
        raise RemoteProtocolError(f"invalid compressed payload: {exc}") from None
    if len(result) > max_size:
        raise MessageTooLargeError(f"message too large after inflating (max={max_size})", len(result), max_size)
    if not engine.eof:
        raise RemoteProtocolError("invalid compressed payload: it is not complete")
    return result


class Deflate:
    """The filter of what is sent."""

    flag = FLAG_COMPRESSED

    def encode(self, data: bytes) -> bytes | None:
        """The compressed payload, or None where that is not smaller."""
        if len(data) <= MINIMUM:
            return None
        packed = zlib.compress(data, LEVEL)
        return packed if len(packed) < len(data) else None


@hookimpl
def pyro_bind(connection: Any) -> Steps | None:
    """Compress what this side sends, if it is told to."""
    if not _wanted(connection):
        return None
    return Steps(payload=Deflate())


def _wanted(connection: Any) -> bool:
    return bool(connection.settings.COMPRESSION)
