"""LOGWIRE: every message that is sent or received is logged (level DEBUG, logger ``pyroplug.wire``).

It is a stream layer with a frame reader of its own, so that it costs nothing where it is off.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from pyroplug.core.errors import ProtocolError
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.interfaces import Layer, Stream
from pyroplug.core.kernel import Kernel
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Schema, Setting
from pyroplug.core.wire import FLAG_CORR_ID, Frame, FrameReader

__all__ = ["PLUGIN", "LoggingLayer"]

PLUGIN = PluginInfo("logwire", "logs every message on the wire")

log = logging.getLogger("pyroplug.wire")

SHOWN = 2000
"""How many bytes of a payload are logged."""
_TYPES: Mapping[int, str] = {1: "CONNECT", 2: "CONNECTOK", 3: "CONNECTFAIL", 4: "INVOKE", 5: "RESULT", 6: "PING"}


@hookimpl
def pyro_settings(schema: Schema) -> None:
    """LOGWIRE."""
    schema.add(Setting("LOGWIRE", bool, False, "log every message (may show secrets)", owner="logwire"))


class _Watcher:
    """Follows one direction of a conversation."""

    def __init__(self, what: str, limit: int) -> None:
        self._what = what
        self._reader: FrameReader | None = FrameReader(limit)

    def saw(self, data: bytes, peer: str) -> None:
        if self._reader is None:
            return
        try:
            self._reader.feed(data)
            while (frame := self._reader.next_frame()) is not None:
                self._log(frame, peer)
        except ProtocolError as exc:
            log.debug("%s %s: no further messages can be told apart: %s", self._what, peer, exc)
            self._reader = None

    def _log(self, frame: Frame, peer: str) -> None:
        import uuid

        correlation = str(uuid.UUID(bytes=frame.correlation)) if frame.flags & FLAG_CORR_ID else "-"
        data = bytes(memoryview(frame.payload)[:SHOWN])
        more = "..." if len(frame.payload) > SHOWN else ""
        log.debug(
            "%s %s: %s flags=%#x ser=%d seq=%d corr=%s size=%d annotations=%r data=%r%s",
            self._what,
            peer,
            _TYPES.get(frame.type, str(frame.type)),
            frame.flags,
            frame.serializer_id,
            frame.seq,
            correlation,
            len(frame.payload),
            dict(frame.annotations),
            data,
            more,
        )


class _LoggedStream:
    """A stream that shows what passes through it."""

    def __init__(self, stream: Stream, limit: int) -> None:
        self._stream = stream
        self._sent = _Watcher("sent to", limit)
        self._received = _Watcher("received from", limit)

    def recv_into(self, buffer: Any, nbytes: int = 0, /) -> int:
        count = self._stream.recv_into(buffer, nbytes)
        self._received.saw(bytes(memoryview(buffer)[:count]), self.peer)
        return count

    def send(self, data: Any, /) -> int:
        count = self._stream.send(data)
        self._sent.saw(bytes(memoryview(data)[:count]), self.peer)
        return count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def fileno(self) -> int:
        return self._stream.fileno()

    def settimeout(self, seconds: float | None, /) -> None:
        self._stream.settimeout(seconds)

    def close(self) -> None:
        self._stream.close()

    def pending(self) -> int:
        return self._stream.pending()

    @property
    def peer(self) -> str:
        return self._stream.peer

    @property
    def sock(self) -> Any:
        return self._stream.sock


class LoggingLayer:
    """Puts a logging stream around a stream."""

    order = 190  # after encryption: it shows what was meant, not what was sent

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def wrap(self, stream: Stream, *, server_side: bool) -> Stream:
        """The logging stream."""
        return _LoggedStream(stream, self._limit)


@hookimpl
def pyro_stream_layers(kernel: Kernel) -> Iterable[Layer]:
    """The layer, if it is wanted."""
    return [LoggingLayer(kernel.settings.MAX_MESSAGE_SIZE)] if kernel.settings.LOGWIRE else []
