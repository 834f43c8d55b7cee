"""A call: one object per request, made with it and dropped with it, on every path."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from .stash import Stash
from .wire import FLAG_CORR_ID, NO_CORRELATION, Frame

if TYPE_CHECKING:
    from .exchange import Waiter
    from .plan import Plan

__all__ = ["Call", "current_call"]

_NO_KWARGS: Mapping[str, Any] = {}

current_call: ContextVar[Call | None] = ContextVar("pyroplug_call", default=None)
"""The call being served in this context, or None."""


class Call:
    """One request, on either side.

    The first group of attributes comes from the message, the second from its payload (after decoding),
    the third is what the reply is made of.
    """

    # defaults on the class: a plain call assigns only what it has
    annotations: Mapping[str, bytes] = {}
    """What came with the request (server), or goes with it (client)."""
    correlation: bytes = NO_CORRELATION
    object_id: str = ""
    method: str = ""
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = _NO_KWARGS
    error: BaseException | None = None
    reply_flags: int = 0
    reply_annotations: dict[str, Any] | None = None
    reply_correlation: bytes = NO_CORRELATION
    reply_payload: bytes | None = None
    """Server: goes out as it is, in place of the encoded result; for what plugins agree on with their like."""
    expires: float | None = None
    """Client: when the time for the call is over (``time.monotonic()`` seconds), if before the proxy's time-out."""
    waiter: Waiter | None = None
    """Client: what the caller waits with, where somebody may end that (``ClientConnection.withdraw``)."""
    wants_reply: bool = True
    decode: Callable[[Call], tuple[str, str, Sequence[Any], Mapping[str, Any]]] | None = None
    """Server: how to decode the payload instead of with the codec."""
    invoke: Callable[[Call], Any] | None = None
    """Server: what to run instead of the method."""
    substitute: Callable[[Call, Any, Exception], Any] | None = None
    """Server: gets a result that cannot be encoded, and why; returns what to send instead, or raises."""
    runner: Callable[[Callable[[], object]], None] | None = None
    """Server: where to run the call when it is not to be waited for."""
    _stash: Stash | None = None

    def __init__(self, connection: Any, plan: Plan, serializer_id: int, flags: int, seq: int, payload: Any) -> None:
        self.connection = connection
        self.plan = plan
        self.serializer_id = serializer_id
        self.flags = flags
        self.seq = seq
        self.payload: Any = payload

    @property
    def stash(self) -> Stash:
        """Typed storage for plugins, made when first used."""
        stash = self._stash
        if stash is None:  # (two threads may look at a call at the same time)
            stash = self.__dict__.setdefault("_stash", Stash())
        return stash

    def take(self, frame: Frame) -> None:
        """Take over what rarely comes with a message."""
        self.annotations = frame.annotations
        if frame.flags & FLAG_CORR_ID:
            self.correlation = frame.correlation

    def annotate(self, key: str, value: Any) -> None:
        """Add an annotation to the reply."""
        if self.reply_annotations is None:
            self.reply_annotations = {}
        self.reply_annotations[key] = value

    def __repr__(self) -> str:
        return f"<Call {self.object_id}.{self.method} seq={self.seq} flags={self.flags:#x}>"
