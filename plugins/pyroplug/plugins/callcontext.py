"""``current_context``: what a method can know of the call it serves, and what a client says with its calls.

It reads :class:`~contextvars.ContextVar` objects, so it is right in threads, tasks, oneway calls and nested
calls, and nothing of one call is left for the next.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Protocol

from pyroplug.core.call import current_call
from pyroplug.core.errors import PluginError
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.plan import Steps
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.stash import StashKey
from pyroplug.core.wire import NO_CORRELATION

__all__ = ["PLUGIN", "TRACKER", "CallContext", "ClientSide", "Tracker", "client_side", "current_context"]

PLUGIN = PluginInfo("callcontext", "current_context: the call that is being served")


class ClientSide:
    """What a client says with its next calls, and what came with the last reply.

    Tasks and ``asyncio.to_thread`` copy the context and so share this object: never change one, put another.
    """

    __slots__ = ("annotations", "correlation_id", "reply_annotations")

    def __init__(self) -> None:
        self.annotations: dict[str, Any] = {}
        self.correlation_id: uuid.UUID | None = None
        self.reply_annotations: dict[str, bytes] = {}

    @staticmethod
    def put(**changes: Any) -> None:
        """Replace the one of this thread or task by a copy with changes."""
        old, new = client_side.get() or ClientSide(), ClientSide()
        for name in ClientSide.__slots__:
            setattr(new, name, changes.get(name, getattr(old, name)))
        client_side.set(new)


client_side: ContextVar[ClientSide | None] = ContextVar("pyroplug_client_side", default=None)
"""The client's side of this thread or task; None until something is said or heard."""


class Tracker(Protocol):
    """Who closes resources when a connection ends; another plugin offers it."""

    def track(self, resource: Any) -> None:
        """Close it with the connection."""
        ...

    def untrack(self, resource: Any) -> None:
        """Do not."""
        ...


TRACKER = StashKey[Tracker]()
"""Where a connection has its tracker."""


def _client() -> ClientSide:
    side = client_side.get()
    if side is None:
        side = ClientSide()
        client_side.set(side)
    return side


class CallContext:
    """The context of the code that is running.

    In a method that is called remotely it tells of that call; elsewhere ``client`` and its like are empty,
    and ``annotations`` and ``correlation_id`` are what the next calls of this thread or task will carry.
    """

    __slots__ = ()

    @property
    def client(self) -> Any:
        """The connection of the caller, or None."""
        call = current_call.get()
        return call.connection if call else None

    @property
    def client_sock_addr(self) -> Any:
        """The address of the caller as its socket gives it, or None; kept after the client has gone."""
        call = current_call.get()
        return call.connection.peer_address if call else None

    @property
    def seq(self) -> int:
        """The sequence number of the request (0..65535)."""
        call = current_call.get()
        return call.seq if call else 0

    @property
    def msg_flags(self) -> int:
        """The header flags of the request."""
        call = current_call.get()
        return call.flags if call else 0

    @property
    def serializer_id(self) -> int:
        """The wire id of the serializer of the request."""
        call = current_call.get()
        return call.serializer_id if call else 0

    @property
    def annotations(self) -> Mapping[str, Any]:
        """In a served call what came with it; otherwise the dict of what the next calls carry.

        Keys have 4 ASCII characters, values are bytes.  Assigning sets what this thread or task sends with
        its calls from now on, in a served call until that ends.
        """
        side = client_side.get()
        call = current_call.get()
        if call is not None:
            return side.annotations if side is not None and side.annotations else call.annotations
        return _client().annotations

    @annotations.setter
    def annotations(self, value: Mapping[str, Any]) -> None:
        ClientSide.put(annotations=dict(value))

    @property
    def response_annotations(self) -> dict[str, Any]:
        """In a served call what the reply will carry; otherwise what came with the last reply."""
        call = current_call.get()
        if call is None:
            side = client_side.get()
            return side.reply_annotations if side is not None else {}
        if call.reply_annotations is None:
            call.reply_annotations = {}
        return call.reply_annotations

    @response_annotations.setter
    def response_annotations(self, value: Mapping[str, Any]) -> None:
        call = current_call.get()
        if call is None:
            ClientSide.put(reply_annotations=dict(value))
        else:
            call.reply_annotations = dict(value)

    @property
    def reply_annotations(self) -> dict[str, bytes]:
        """What came with the last reply to a call of this thread or task, also inside a served call."""
        side = client_side.get()
        return side.reply_annotations if side is not None else {}

    @property
    def correlation_id(self) -> uuid.UUID | None:
        """The id that ties calls together that have one cause.

        In a served call the caller's, or one made now; otherwise what was assigned, or None.  Calls made
        while serving a call carry the same id.
        """
        call = current_call.get()
        if call is None:
            side = client_side.get()
            return side.correlation_id if side is not None else None
        if call.correlation == NO_CORRELATION:
            call.correlation = uuid.uuid4().bytes
        return uuid.UUID(bytes=call.correlation)

    @correlation_id.setter
    def correlation_id(self, value: uuid.UUID | None) -> None:
        if value is not None and not isinstance(value, uuid.UUID):
            raise TypeError(f"correlation_id must be a UUID or None, not {type(value).__name__}")
        call = current_call.get()
        if call is None:
            ClientSide.put(correlation_id=value)
        else:
            call.correlation = value.bytes if value is not None else NO_CORRELATION

    def track_resource(self, resource: Any) -> None:
        """Have ``resource.close()`` called when the caller's connection ends, in whatever way.

        :raises PluginError: the plugin 'resources' is off
        """
        self._tracker().track(resource)

    def untrack_resource(self, resource: Any) -> None:
        """Undo :meth:`track_resource`."""
        self._tracker().untrack(resource)

    @staticmethod
    def _tracker() -> Tracker:
        call = current_call.get()
        if call is None:
            raise PluginError("resources can be tracked in a remote call only", "resources")
        tracker: Tracker | None = call.connection.stash.get(TRACKER, None)
        if tracker is None:
            raise PluginError("tracking resources needs the plugin 'resources', which is off", "resources")
        return tracker

    def to_global(self) -> dict[str, Any]:
        """The context as a dict, for :meth:`from_global` in another thread (Pyro's names)."""
        return {"call": current_call.get(), "client": client_side.get()}

    def from_global(self, values: Mapping[str, Any]) -> None:
        """Take over the context of another thread."""
        current_call.set(values["call"])
        client_side.set(values["client"])

    def __repr__(self) -> str:
        return f"<context of {current_call.get()!r}>"


current_context = CallContext()
"""The call that is served here and now, and what calls made from here carry."""


def _forget(call: Any) -> None:
    # a served call starts with nothing of what an earlier one said in this thread
    if client_side.get() is not None:
        client_side.set(None)


@hookimpl
def pyro_bind(connection: Any) -> Steps | None:
    """On the server: each call begins without a client's side."""
    return Steps(on_received=_forget) if connection.side == "server" else None
