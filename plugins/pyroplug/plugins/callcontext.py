"""``current_context``: what a method can know of the call it serves, and what a client says with its calls.

It reads :class:`~contextvars.ContextVar` objects, so it is right in threads, tasks, oneway calls and nested
calls.  What a method says with the calls that it makes is kept with the call it serves, so that nothing of it is
left for the next one in that thread, whatever way the call ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from pyroplug.core.call import Call, current_call
from pyroplug.core.errors import LocalProtocolError, PluginError
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.plan import Steps
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.stash import StashKey
from pyroplug.core.wire import EXTENSIONS, NO_CORRELATION

if TYPE_CHECKING:
    import uuid  # slow to import: only where ids are asked for

__all__ = [
    "PLUGIN",
    "RESERVED",
    "SESSION_MAKER",
    "TRACKER",
    "TRACKER_MAKER",
    "CallContext",
    "ClientSide",
    "Tracker",
    "checked",
    "client_side",
    "current_context",
]

PLUGIN = PluginInfo("callcontext", "current_context: the call that is being served")


RESERVED = frozenset({"CORR", "HMAC", "STRM", "BLBI", "WAIT", "TIME", EXTENSIONS})
"""Annotation ids that the protocol itself uses (wire.md 4); applications cannot set them."""


def checked(annotations: Mapping[Any, Any]) -> dict[str, Any]:
    """A copy of annotations that an application wants to send.

    :raises LocalProtocolError: an id or a value is of a kind that cannot be sent, or an id is reserved
    """
    for key, value in annotations.items():
        if not isinstance(key, str) or len(key) != 4 or not key.isascii():
            raise LocalProtocolError(f"annotation identifier must be 4 ascii characters, not {key!r}")
        if key in RESERVED:
            raise LocalProtocolError(f"annotation identifier in use by the protocol: {key!r}")
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise LocalProtocolError(f"annotation {key!r} must be bytes, not {type(value).__name__}")
    return dict(annotations)


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
    def here() -> ClientSide | None:
        """The one of the call that is served, or else of this thread or task; None when there is nothing in it."""
        call = current_call.get()
        return client_side.get() if call is None else call.stash.get(_OF_CALL, None)

    @staticmethod
    def put(**changes: Any) -> ClientSide:
        """Replace that by a copy with changes."""
        old, new = ClientSide.here() or ClientSide(), ClientSide()
        for name in ClientSide.__slots__:
            setattr(new, name, changes.get(name, getattr(old, name)))
        call = current_call.get()
        if call is None:
            client_side.set(new)
        else:
            call.stash[_OF_CALL] = new
        return new


client_side: ContextVar[ClientSide | None] = ContextVar("pyroplug_client_side", default=None)
"""The client's side of this thread or task, outside of served calls; None until something is said or heard."""

_OF_CALL = StashKey[ClientSide]()
"""The client's side of a call that is served: it ends with the call."""


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
TRACKER_MAKER = StashKey["Callable[[Any], Tracker]"]()
"""Where a kernel has the function that gives a connection its tracker."""
SESSION_MAKER = StashKey["Callable[[Any], Any]"]()
"""Where a kernel has the function that gives the session storage of a connection; another plugin offers it."""

CANCELLED_MAKER = StashKey["Callable[[Any], Any]"]()
"""Where a kernel has the function that gives a call the token of its cancellation; another plugin offers it."""
TIME_LEFT = StashKey["Callable[[Any], float | None]"]()
"""Where a kernel has the function that tells how much time a call has left; another plugin offers it."""

_ADDRESS = StashKey[Any]()


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
        if call is None:
            return None
        address = call.connection.stash.get(_ADDRESS, None)
        return call.connection.peer_address if address is None else address

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
        """In a served call what came with it (read only); otherwise the dict of what the next calls carry.

        Keys have 4 ASCII characters, values are bytes.  Assigning sets what this thread or task sends with its calls
        from now on, in a served call until that ends.  Change the dict right where you get it: each time it is a
        new one, so that what one task puts into it does not go with the calls of another.
        """
        side = ClientSide.here()
        call = current_call.get()
        if call is not None and (side is None or not side.annotations):
            return MappingProxyType(call.annotations)
        return ClientSide.put(annotations=dict(side.annotations) if side is not None else {}).annotations

    @annotations.setter
    def annotations(self, value: Mapping[str, Any]) -> None:
        ClientSide.put(annotations=dict(value))

    @property
    def response_annotations(self) -> dict[str, Any]:
        """In a served call what the reply will carry; otherwise what came with the last reply."""
        call = current_call.get()
        if call is None:
            return self.reply_annotations
        if call.reply_annotations is None:
            call.reply_annotations = {}
        return call.reply_annotations

    @response_annotations.setter
    def response_annotations(self, value: Mapping[str, Any]) -> None:
        call = current_call.get()
        if call is None:
            ClientSide.put(reply_annotations=dict(value))
        else:
            call.reply_annotations = checked(value)

    @property
    def reply_annotations(self) -> dict[str, bytes]:
        """What came with the last reply to a call of this thread or task, also inside a served call."""
        side = ClientSide.here()
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
        import uuid

        if call.correlation == NO_CORRELATION:
            call.correlation = uuid.uuid4().bytes
        return uuid.UUID(bytes=call.correlation)

    @correlation_id.setter
    def correlation_id(self, value: uuid.UUID | None) -> None:
        import uuid

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
        connection = call.connection
        tracker: Tracker | None = connection.stash.get(TRACKER, None)
        if tracker is not None:
            return tracker
        make: Callable[[Any], Tracker] | None = connection.endpoint.daemon.kernel.stash.get(TRACKER_MAKER, None)
        if make is None:
            raise PluginError("tracking resources needs the plugin 'resources', which is off", "resources")
        return make(connection)

    @property
    def session(self) -> Any:
        """Storage for what belongs to the caller, as long as its connection lasts; takes any attributes.

        :raises PluginError: the plugin 'session' is off, or no remote call is being served
        """
        call = current_call.get()
        if call is None:
            raise PluginError("there is session storage in a remote call only", "session")
        make = call.connection.endpoint.daemon.kernel.stash.get(SESSION_MAKER, None)
        if make is None:
            raise PluginError("session storage needs the plugin 'session', which is off", "session")
        return make(call.connection)

    @property
    def cancelled(self) -> Any:
        """Whether the caller gave the call up: true once he did, with ``is_set()`` and ``wait(seconds)``.

        A method that runs long looks at it now and then, or waits with it instead of sleeping.

        :raises PluginError: the plugin 'cancel' is off, or no remote call is being served
        """
        return self._ask_plugin(CANCELLED_MAKER, "cancellation", "cancel")

    @property
    def deadline(self) -> float | None:
        """Seconds that the caller still waits (negative once they are over), or None if he did not say.

        :raises PluginError: the plugin 'deadline' is off, or no remote call is being served
        """
        left: float | None = self._ask_plugin(TIME_LEFT, "deadline", "deadline")
        return left

    @staticmethod
    def _ask_plugin(key: StashKey[Callable[[Any], Any]], what: str, plugin: str) -> Any:
        call = current_call.get()
        if call is None:
            raise PluginError(f"there is a {what} in a remote call only", plugin)
        kernel = call.connection.endpoint.daemon.kernel
        kernel.require(plugin)
        return kernel.stash[key](call)

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


def _nothing(call: Call) -> None:
    """A call made while serving another: others may have something to add."""


_STEPS = Steps(before_send=_nothing, probe=current_call.get)


def _refuse(call: Call) -> None:
    """Without the plugins that carry them, what was said would be lost without a word."""
    side = ClientSide.here()
    if side is None:
        return
    kernel = call.connection.owner()._pyroKernel
    if side.annotations:
        kernel.require("annotations")
    if side.correlation_id is not None:
        kernel.require("correlation")


_REFUSING = Steps(before_send=_refuse)


@hookimpl
def pyro_bind(connection: Any) -> Steps | None:
    """Keep the address of a client; have the calls looked at that a method makes."""
    if connection.side == "client":
        proxy = connection.owner()
        complete = proxy is None or {"annotations", "correlation"} <= proxy._pyroKernel.plugins.loaded.keys()
        return _STEPS if complete else _REFUSING
    if not getattr(connection.stream, "address", None):  # it does not keep it: ask while there is somebody to ask
        connection.stash[_ADDRESS] = connection.peer_address
    return None
