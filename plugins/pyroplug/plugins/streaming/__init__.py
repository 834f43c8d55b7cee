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

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pyroplug.core.connection import ServerConnection
from pyroplug.core.daemon import DAEMON_NAME
from pyroplug.core.hookspecs import hookimpl, steady
from pyroplug.core.kernel import WireRegister
from pyroplug.core.plan import Steps
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Schema, Setting
from pyroplug.core.wire import FLAG_ITEMSTREAM

from .chunks import CHUNK_BYTES, CHUNKS, STREAM_ID
from .client import RemoteIterator, receive_stream
from .server import STREAMS, StreamMethods, Streams, forget_stream, open_stream
from .stream import Item, Stream

__all__ = ["CHUNK_BYTES", "PLUGIN", "STREAMS", "Item", "RemoteIterator", "Stream", "Streams", "open_stream"]

# oneway: clients close the streams that they have dropped with oneway calls
PLUGIN = PluginInfo("streaming", "iterators and generators as results", requires=("oneway",))


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


_CLIENT = Steps(reply_flags={FLAG_ITEMSTREAM: receive_stream})
_SERVER = Steps(results=[(Iterator, open_stream)], on_error=forget_stream)


@hookimpl
@steady
def pyro_bind(connection: Any) -> Steps:
    """Iterators are kept on the server, and become remote iterators on the client."""
    if connection.side == "client":
        return _CLIENT
    return _SERVER


@hookimpl
def pyro_closed(connection: ServerConnection) -> None:
    """The streams of the connection linger, or end."""
    connection.endpoint.daemon.stash[STREAMS].disconnected(connection)  # type: ignore[attr-defined]


@hookimpl
def pyro_housekeeping(daemon: Any, now: float) -> None:
    """End streams whose time is over."""
    daemon.stash[STREAMS].sweep(now)


@hookimpl
def pyro_daemon_closed(daemon: Any) -> None:
    """End all streams."""
    daemon.stash[STREAMS].close(daemon.kernel.settings.SHUTDOWN_TIMEOUT)
