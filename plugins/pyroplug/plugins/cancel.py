"""Cancellation: the server hears of it when nobody waits for a call any more.

A call is given up by its caller when its time is over, by Ctrl-C, or with ``FutureResult.cancel()``.  A call that was not
begun is then dropped; an ``async def`` method is cancelled, as a task is; a plain method goes on, and finds
``current_context.cancelled`` true.  Whether to stop is its own decision: nobody can end a thread.

Both ends must have the plugin and ``mux``: without calls in flight together the server reads nothing while a call runs.
The message carries nothing but the number of the call; one that came too late, or twice, is nothing to the server.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from pyroplug.core.call import Call
from pyroplug.core.connection import ClientConnection, ServerConnection
from pyroplug.core.errors import CommunicationError, PyroError
from pyroplug.core.exchange import Waiter
from pyroplug.core.hookspecs import hookimpl, steady
from pyroplug.core.kernel import Kernel, WireRegister
from pyroplug.core.plan import Steps
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.stash import StashKey
from pyroplug.core.wire import RESULT, Frame

from .callcontext import CANCELLED_MAKER

__all__ = ["CANCEL", "PLUGIN", "Cancelled", "Scope"]

PLUGIN = PluginInfo("cancel", "the server hears when a caller gives up", requires=("callcontext", "mux"))

CANCEL = 101
"""The message type; its number is that of the request, and it has no payload."""
_NAME = "cancel"


# ============================================================================= server
class Cancelled:
    """Whether the caller of a method has given up: true, once he has."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = threading.Event()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def is_set(self) -> bool:
        """Whether he has."""
        return self._event.is_set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until he has, at most so long; whether he has.  In place of ``time.sleep``."""
        return self._event.wait(seconds)

    def __repr__(self) -> str:
        return f"<Cancelled: {bool(self)}>"


_TOKEN = StashKey[Cancelled]()


def _token(call: Any) -> Cancelled:
    known: Cancelled | None = call.stash.get(_TOKEN, None)
    if known is not None:
        return known
    made = Cancelled()
    token: Cancelled = call.stash.setdefault(_TOKEN, made)
    if token is made:
        call.when_stopped(made._event.set)
    return token


def _cancel(connection: ServerConnection, frame: Frame) -> None:
    request = connection.in_flight.get(frame.seq)
    if request is not None:  # otherwise it was answered meanwhile
        request.stop(PyroError(f"call {frame.seq} was cancelled by its caller"))


# ============================================================================= client
class Scope:
    """The calls that a piece of code makes, for somebody else who may want to end them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: list[tuple[ClientConnection, Waiter]] = []

    def cancel(self) -> bool:
        """Give up the calls that are under way; False if there is none that can be."""
        with self._lock:
            calls = list(self._calls)
        # (a list: all of them)
        return any([connection.withdraw(waiter, _error()) for connection, waiter in calls])  # noqa: C419

    def add(self, call: Call) -> None:
        """A call begins."""
        waiter = call.waiter = Waiter(RESULT)
        with self._lock:
            # (those that have ended are forgotten when the next one begins: most scopes have one call)
            self._calls = [known for known in self._calls if known[1].frame is None and known[1].error is None]
            self._calls.append((call.connection, waiter))

    @contextmanager
    def active(self) -> Iterator[None]:
        """Have the calls belong to it that are made in this block."""
        token = _scope.set(self)
        try:
            yield
        finally:
            _scope.reset(token)


def _error() -> CommunicationError:
    return CommunicationError("the call was cancelled")


_scope: ContextVar[Scope | None] = ContextVar("pyroplug_cancel_scope", default=None)


def _register(call: Call) -> None:
    scope = _scope.get()
    if scope is not None:
        scope.add(call)


def _given_up(connection: ClientConnection, number: int) -> None:
    connection.note(CANCEL, connection.serializer_id, number)


_CLIENT = Steps(given_up=_given_up, before_send=_register, probe=_scope.get)


# ============================================================================= the plugin
@hookimpl
def pyro_reserve(wire: WireRegister) -> None:
    """The message type."""
    wire.message(CANCEL, _cancel)


@hookimpl
def pyro_extensions() -> Iterable[str]:
    """Whether the server understands it."""
    return [_NAME]


@hookimpl
def pyro_configure(kernel: Kernel) -> None:
    """``current_context.cancelled``, and scopes for whoever offers to cancel calls."""
    kernel.stash[CANCELLED_MAKER] = _token
    kernel.additions.scope = Scope


@hookimpl
@steady
def pyro_bind(connection: Any) -> Steps | None:
    """The client tells, if the server listens."""
    return _CLIENT if connection.side == "client" and {_NAME, "mux"} <= connection.extensions else None
