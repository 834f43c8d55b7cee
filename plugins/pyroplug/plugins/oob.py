"""Large bytes travel outside the payload: not copied by the sender, received where they stay.

Between two ends that both have this plugin, with the default serializer and with msgpack, in arguments and results,
alone or inside containers and numpy's arrays.  Not on connections whose messages are compressed.

What a method returns is sent later than it returns, so that what could change meanwhile (bytearrays, memoryviews,
arrays) is copied once; arguments are not, because the caller waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyroplug.core.errors import SerializeError
from pyroplug.core.hookspecs import hookimpl, steady
from pyroplug.core.plan import Steps
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Schema, Setting
from pyroplug.core.wire import IN_PLACE, Segment, Segmented

if TYPE_CHECKING:
    from pyroplug.core.call import Call
    from pyroplug.core.interfaces import Buffer, Codec
    from pyroplug.core.kernel import Kernel

__all__ = ["MAX_SEGMENTS", "PLUGIN"]

PLUGIN = PluginInfo("oob", "large bytes travel outside the payload, without copies")

EXTENSION = "oob"
MAX_SEGMENTS = 1000
"""How many segments one message may have; bytes beyond that stay in the payload."""
_BUFFERS = frozenset({bytes, bytearray, memoryview})


class _Splitter:
    """Takes the large bytes out of one value."""

    def __init__(self, keep: bool) -> None:
        self.segments: list[Buffer] = []
        self._keep = keep

    def split(self, value: Any) -> Any:
        """The value with a :class:`Segment` in the place of each; what has none in it is the same object."""
        kind = type(value)
        if kind in _BUFFERS:
            return self._buffer(value)
        if kind is list or kind is tuple:
            items = [self.split(item) for item in value]
            if all(map(_same, items, value)):
                return value
            return items if kind is list else tuple(items)
        if kind is dict:
            changed = {key: self.split(item) for key, item in value.items()}
            return value if all(map(_same, changed.values(), value.values())) else changed
        return value

    def _buffer(self, value: Buffer) -> Any:
        size = value.nbytes if type(value) is memoryview else len(value)
        if size < IN_PLACE or len(self.segments) >= MAX_SEGMENTS:
            return value
        if type(value) is not bytes:
            view = memoryview(value)
            if not view.c_contiguous:
                return value
            value = bytes(view) if self._keep else view.cast("B")
        self.segments.append(value)
        return Segment(len(self.segments) - 1)


def _same(one: object, other: object) -> bool:
    return one is other


# Closures, because they run for every call.
def _requests(codec: Codec) -> Callable[..., bytes] | None:
    """What encodes requests with that codec."""
    if not getattr(codec, "reads_segments", False):
        return None
    dumps_call = codec.dumps_call

    def request(object_id: str, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        whole = None
        for arg in args:
            if type(arg) in _BUFFERS:
                parts: Any = [list(args), kwargs]
                break
        else:
            whole = dumps_call(object_id, method, args, kwargs)
            if len(whole) < IN_PLACE:
                return whole
            parts = _plain(codec, [list(args), kwargs])
        splitter = _Splitter(keep=False)
        parts = splitter.split(parts)
        if splitter.segments:
            try:
                return Segmented.of(dumps_call(object_id, method, *parts), splitter.segments)
            except SerializeError:
                pass  # there is something else in it that only another form can carry
        return dumps_call(object_id, method, args, kwargs) if whole is None else whole

    return request


def _replies(codec: Codec) -> Callable[[Any, bytes], bytes] | None:
    """What looks for large bytes in a value that is large when encoded."""
    if not getattr(codec, "reads_segments", False):
        return None

    def reply(value: Any, whole: bytes) -> bytes:
        return _split(codec, _plain(codec, value)) or whole

    return reply


def _split(codec: Codec, value: Any) -> Segmented | None:
    splitter = _Splitter(keep=True)
    part = splitter.split(value)
    if not splitter.segments:
        return None
    try:
        return Segmented.of(codec.dumps(part), splitter.segments)
    except SerializeError:
        return None


def _result(call: Call, value: Any) -> Any:
    """Server: large bytes as a result need not be encoded to know that they are large."""
    plan = call.plan
    if type(value) in _BUFFERS and len(value) and call.serializer_id in plan.replies:
        call.reply_payload = _split(plan.codecs[call.serializer_id], value)
    return value


def _plain(codec: Codec, value: Any) -> Any:
    plain: Callable[[Any], Any] | None = getattr(codec, "plain", None)
    return value if plain is None else plain(value)


_STEPS = Steps(
    segments=MAX_SEGMENTS,
    requests=_requests,
    replies=_replies,
    results=[(kind, _result) for kind in (bytes, bytearray, memoryview)],
)


@hookimpl
def pyro_settings(schema: Schema) -> None:
    """OOB."""
    schema.add(Setting("OOB", bool, True, "large bytes travel outside the payload where both ends can do that", "oob"))


@hookimpl
def pyro_extensions(kernel: Kernel) -> Iterable[str]:
    """What old peers do not have."""
    return [EXTENSION] if kernel.settings.OOB else []


@hookimpl
@steady
def pyro_bind(connection: Any) -> Steps | None:
    """Both sides."""
    return _STEPS if EXTENSION in connection.extensions else None
