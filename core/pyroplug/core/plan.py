"""The one place where plugins and calls meet.

Plugins return :class:`Steps` when a connection is bound; the kernel compiles them, with what was reserved
at load time, into one :class:`Plan`.  A call reads the plan and never asks a plugin manager anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol

from .wire import IN_PLACE, RESULT, head

if TYPE_CHECKING:
    from typing_extensions import Self, dataclass_transform

    from .call import Call
    from .dispatch import Request
    from .interfaces import Buffer, Codec

else:

    def dataclass_transform(**_: Any) -> Any:
        return lambda cls: cls


__all__ = ["Adapters", "Inflater", "Limits", "PayloadFilter", "Plan", "Pulse", "Record", "Steps"]

Inflater = Callable[["Buffer", int], "Buffer"]
"""``inflate(data, max_size)``: undo a payload filter; must refuse results over ``max_size`` bytes."""


_NOTHING: Mapping[Any, Any] = MappingProxyType({})


@dataclass_transform(frozen_default=True, kw_only_default=True, eq_default=False)
class Record:
    """Values that never change, with names and defaults: what a frozen dataclass is to a type checker.

    To make a dataclass of twenty fields takes longer than importing this module, in each program that starts.
    """

    def __init__(self, **values: Any) -> None:
        names = type(self).__annotations__
        wrong = [name for name in values if name not in names]
        wrong += [name for name in names if name not in values and not hasattr(self, name)]
        if wrong:
            raise TypeError(f"{type(self).__name__}: unknown or missing: {', '.join(wrong)}")
        self.__dict__.update(values)

    def replaced(self, **values: Any) -> Self:
        """The same with some values changed."""
        return type(self)(**{**self.__dict__, **values})

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be changed")


class PayloadFilter(Protocol):
    """Changes payload bytes on their way out; the undoing is reserved with the flag bit."""

    @property
    def flag(self) -> int:
        """The reserved header flag that tells the peer."""
        ...

    def encode(self, data: bytes) -> bytes | None:
        """The other form, or None to leave this message as it is."""
        ...


class Pulse(NamedTuple):
    """How the ends of a connection show each other that they are there while calls are in flight."""

    kind: int
    """The type of the message, which has no payload and which the other side gives back."""
    interval: float
    """Seconds from one to the next."""
    missed: int
    """So many without a sign of life: the other side is gone."""

    @property
    def patience(self) -> float:
        """Seconds after which silence means that nobody is there."""
        return self.interval * (self.missed + 1)


class Steps(Record):
    """What a plugin wants to have done for the calls of one connection.  Every field costs only where used.

    Return the same object for connections that want the same: the plan of a connection for which every plugin
    returned something that it also returned before is not compiled again.  Neither a ``Steps`` object nor the
    mappings in it may change.

    The functions get the :class:`~pyroplug.core.call.Call`.  One that raises makes the call fail with
    that error, except those of ``on_error``, whose failures are logged.
    """

    before_send: Callable[[Call], None] | None = None
    """Client: before a request is encoded."""
    after_reply: Callable[[Call], None] | None = None
    """Client: when the reply has come, before its value is decoded; also run for any reply with annotations."""
    probe: Callable[[], object] | None = None
    """Client: asked before each call whether ``before_send`` and ``after_reply`` have anything to do; None
    means no.  A call that no plugin wants to see takes a shorter way.  Make it something written in C, such as
    the ``get`` of a ContextVar."""
    arguments: Mapping[type, Callable[[Call], None]] = _NOTHING
    """Client: run when the only positional argument has exactly that type; may set ``call.payload``."""
    unsendable: Sequence[tuple[type, Callable[[Call, int | str, Any], Any]]] = ()
    """Client: asked by type for what goes in place of arguments, when no serializer takes a call as it is; the function gets
    the position or name of the argument and its value."""
    given_up: Callable[[Any, int], None] | None = None
    """Client: gets the connection and the number of a call whose caller does not wait any more (its time is over,
    Ctrl-C, :meth:`~pyroplug.core.connection.ClientConnection.withdraw`)."""
    before_release: Callable[[Any], None] | None = None
    """Client: gets the connection before it is closed on purpose (not when it was lost, or is collected)."""
    on_received: Callable[[Call], None] | None = None
    """Server: when a request has come, before it is decoded."""
    before_reply: Callable[[Call], None] | None = None
    """Server: before a reply is encoded; ``call.error`` tells an exception."""
    flags: Mapping[int, Callable[[Call], None]] = _NOTHING
    """Server: run when a request has that reserved header flag; may change how the call is decoded or run."""
    annotations: Mapping[str, Callable[[Call, bytes], None]] = _NOTHING
    """Server: gets the value of that reserved annotation, which nobody else sees, in the thread that runs the call."""
    reply_flags: Mapping[int, Callable[[Call, Any], Any]] = _NOTHING
    """Client: run when a reply has that flag; gets the decoded value, returns the one to deliver."""
    results: Sequence[tuple[type, Callable[[Request, Any], Any]]] = ()
    """Server: adapters of return values by type (subclasses too); LATER as result answers the call later."""
    codecs: Mapping[int, Codec] = _NOTHING
    """Both sides: in place of the codecs of those wire ids, after the handshake; others are not added."""
    payload: PayloadFilter | None = None
    """Both sides: for what is sent."""
    inflaters: Mapping[int, Inflater] = _NOTHING
    """Both sides: undo payload filters that both agreed on; of flags that were reserved without an inflater."""
    on_error: Callable[[Call, BaseException], None] | None = None
    """Server: told of each exception that a method raised."""
    format_traceback: Callable[[BaseException], list[str]] | None = None
    """Server: how the remote traceback is made; the first plugin that has one wins."""
    overlapping: int = 0
    """Both sides: both ends agreed that so many calls of this connection may be in flight together, and that their
    replies come in any order; 0: one call at a time."""
    parts: int = 0
    """Both sides: the message type in which large messages travel in parts, so that small ones go between; 0: none."""
    pulse: Pulse | None = None
    """Both sides: both ends agreed that the client shows, while it waits for answers, that it is there."""
    segments: int = 0
    """Both sides: both ends agreed that messages may have so many segments; 0: none."""
    requests: Callable[[Codec], Callable[..., bytes] | None] | None = None
    """Client: what encodes requests in place of ``dumps_call`` of a codec, and may give a payload with segments; None
    leaves a codec as it is.  Not used where there are payload filters, which want everything in one piece."""
    replies: Callable[[Codec], Callable[[Any, bytes], bytes] | None] | None = None
    """Server: what may give a payload with segments for a reply whose payload is large; it gets both."""


class Adapters(dict[type, "Callable[[Request, Any], Any] | None"]):
    """Result adapters by exact type; misses search the base classes once and are remembered."""

    LIMIT = 1000
    """How many types are remembered: a program may make new ones all the time."""

    def __init__(self, adapters: Iterable[tuple[type, Callable[[Request, Any], Any]]]) -> None:
        super().__init__()
        self._known = tuple(adapters)

    def __missing__(self, kind: type) -> Callable[[Request, Any], Any] | None:
        found = next((adapter for known, adapter in self._known if issubclass(kind, known)), None)
        if len(self) >= self.LIMIT:
            self.clear()
        self[kind] = found
        return found


class Limits(NamedTuple):
    """What a connection tolerates; sizes in bytes, times in seconds (None: no limit)."""

    max_message_size: int
    max_handshake_size: int
    max_annotations: int
    handshake_timeout: float | None
    idle_timeout: float | None
    stall_timeout: float | None


class Plan(Record):
    """Everything a connection needs to know to handle a call: plain tuples and dicts.  Connections share it."""

    codecs: Mapping[int, Codec]
    """Accepted serializers by wire id."""
    names: Mapping[int, str]
    """Their names, for error texts."""
    limits: Limits
    error_to_dict: Callable[[BaseException, list[str]], Any]
    """How an exception travels, with the lines of its traceback."""
    describe_error: Callable[[BaseException, list[str], str], Any]
    """How an exception travels that cannot be encoded, and why it cannot."""
    from_dict: Callable[[Mapping[str, Any]], Any]
    """The object that a tagged dict stands for."""
    heads: Mapping[bytes, int] = _NOTHING
    """The first bytes of plain requests to the wire id of their serializer."""
    answers: Mapping[int, bytes] = _NOTHING
    """Server: the first bytes of plain replies by the wire id of their serializer, where nothing is to be done before
    a reply is sent."""
    small: int = 0
    """Server: up to this size (bytes, exclusive) such a reply is one piece, and within the limits."""
    inflaters: Mapping[int, Inflater] = _NOTHING
    before_send: tuple[Callable[[Call], None], ...] = ()
    after_reply: tuple[Callable[[Call], None], ...] = ()
    plain: bool = True
    """Client: no plugin wants to see every call."""
    probes: tuple[Callable[[], object], ...] = ()
    arguments: Mapping[type, Callable[[Call], None]] = _NOTHING
    before_release: tuple[Callable[[Any], None], ...] = ()
    unsendable: tuple[tuple[type, Callable[[Call, int | str, Any], Any]], ...] = ()
    given_up: tuple[Callable[[Any, int], None], ...] = ()
    on_received: tuple[Callable[[Call], None], ...] = ()
    before_reply: tuple[Callable[[Call], None], ...] = ()
    flags: Mapping[int, Callable[[Call], None]] = _NOTHING
    annotations: Mapping[str, Callable[[Call, bytes], None]] = _NOTHING
    reply_flags: Mapping[int, Callable[[Call, Any], Any]] = _NOTHING
    results: Adapters | None = None
    payload: tuple[PayloadFilter, ...] = ()
    on_error: tuple[Callable[[Call, BaseException], None], ...] = ()
    format_traceback: Callable[[BaseException], list[str]] | None = None
    overlapping: int = 0
    """How many calls may be in flight together; 0: one call at a time."""
    parts: int = 0
    """The message type of parts of large messages; 0: there are none."""
    pulse: Pulse | None = None
    """How both sides show that they are there; None: they do not."""
    segments: int = 0
    """How many segments a message may have."""
    requests: Mapping[int, Callable[..., bytes]] = _NOTHING
    """Client: what encodes requests, by wire id, where that is not the codec."""
    replies: Mapping[int, Callable[[Any, bytes], bytes]] = _NOTHING
    """Server: what changes large payloads of replies, by wire id."""
    extensions: frozenset[str] = frozenset()
    """What this side can do beyond the protocol of old peers; offered and accepted in the handshake."""
    switched_off: str = ""
    """A remark for what is refused: the plugins that somebody switched off, one of which may be the reason."""
    flag_mask: int = 0
    """The request flags that need anything at all."""

    def extended(self, steps: Iterable[Steps]) -> Plan:
        """A plan with the plugins' steps compiled in."""
        steps = list(steps)
        flags = _merge(step.flags for step in steps)
        changed = _merge(step.codecs for step in steps)
        codecs = {wire_id: changed.get(wire_id, codec) for wire_id, codec in self.codecs.items()}
        whole = any(step.payload for step in steps)
        inflaters = {**self.inflaters, **_merge(step.inflaters for step in steps)}
        adapters = [pair for step in steps for pair in step.results]
        direct = not (whole or any(step.before_reply for step in steps))
        formatters = [step.format_traceback for step in steps if step.format_traceback]
        return self.replaced(
            codecs=codecs,
            answers={wire_id: head(RESULT, wire_id) for wire_id in codecs} if direct else {},
            small=min(IN_PLACE, self.limits.max_message_size),
            inflaters=inflaters,
            before_send=tuple(s.before_send for s in steps if s.before_send),
            after_reply=tuple(s.after_reply for s in steps if s.after_reply),
            plain=not any((s.before_send or s.after_reply) and not s.probe for s in steps),
            probes=tuple(dict.fromkeys(s.probe for s in steps if s.probe)),  # several may ask the same question
            arguments=_merge(step.arguments for step in steps),
            unsendable=tuple(pair for step in steps for pair in step.unsendable),
            given_up=tuple(s.given_up for s in steps if s.given_up),
            before_release=tuple(s.before_release for s in steps if s.before_release),
            on_received=tuple(s.on_received for s in steps if s.on_received),
            before_reply=tuple(s.before_reply for s in steps if s.before_reply),
            flags=flags,
            annotations=_merge(step.annotations for step in steps),
            reply_flags=_merge(step.reply_flags for step in steps),
            results=Adapters(adapters) if adapters else None,
            payload=tuple(s.payload for s in steps if s.payload),
            on_error=tuple(s.on_error for s in steps if s.on_error),
            format_traceback=formatters[0] if formatters else None,
            overlapping=max((step.overlapping for step in steps), default=0),
            parts=max((step.parts for step in steps), default=0),
            pulse=next((step.pulse for step in steps if step.pulse), None),
            segments=max((step.segments for step in steps), default=0),
            requests={} if whole else _writers((s.requests for s in steps), codecs),
            replies={} if whole else _writers((s.replies for s in steps), codecs),
            flag_mask=sum(flags) | sum(inflaters) | self.flag_mask,
        )


def _merge(maps: Iterable[Mapping[Any, Any]]) -> dict[Any, Any]:
    # two plugins cannot have the same flag or annotation: reservation at load time refused that
    return {key: handler for mapping in maps for key, handler in mapping.items()}


def _writers(
    makers: Iterable[Callable[[Codec], Any] | None], codecs: Mapping[int, Codec]
) -> dict[int, Callable[..., bytes]]:
    made = {(wire_id, maker): maker(codec) for maker in makers if maker for wire_id, codec in codecs.items()}
    return {wire_id: writer for (wire_id, _), writer in made.items() if writer is not None}
