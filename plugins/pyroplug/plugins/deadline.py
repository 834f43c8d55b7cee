"""Deadlines: how long a caller waits goes with the call, and with the calls that it causes.

``with deadline(2.0):`` gives all calls inside together so many seconds; ``proxy._pyroTimeout`` (COMMTIMEOUT) gives each call
its own.  The server hears what is left of it, as a length of time, so that no clocks need to agree.  It does not begin a
call whose time is over; a method reads ``current_context.deadline``; and the calls that the method makes have no
more time than that, wherever they go.

With peers that do not have the plugin a deadline holds on this side only.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from pyroplug.core.call import Call, current_call
from pyroplug.core.errors import RemoteProtocolError, TimeoutError
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.kernel import Kernel, WireRegister
from pyroplug.core.plan import Steps
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.stash import StashKey

from .callcontext import TIME_LEFT

__all__ = ["PLUGIN", "deadline"]

PLUGIN = PluginInfo("deadline", "how long a caller waits goes with the call", requires=("callcontext",))

_NAME = "deadline"
ANNOTATION = "TIME"
"""The seconds that are left when the request is sent: a float of 8 bytes, big-endian."""
_SECONDS = struct.Struct("!d")

_ends: ContextVar[float | None] = ContextVar("pyroplug_deadline", default=None)
"""When the time is over for what runs here (``time.monotonic()`` seconds)."""
_OF_CALL = StashKey[float]()
"""When it is over for a call that is served."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Calls in this block end within so many seconds, all together; an outer deadline that is shorter holds.

    :raises TimeoutError: from the call whose time is over; whatever else runs in the block is not interrupted
    """
    if not seconds > 0:
        raise ValueError(f"a deadline needs a time above zero, not {seconds}")
    ends = time.monotonic() + seconds
    outer = _ends.get()
    token = _ends.set(ends if outer is None else min(ends, outer))
    try:
        yield
    finally:
        _ends.reset(token)


# ============================================================================= client
def _limit(call: Call) -> None:
    served = current_call.get()
    times = (_ends.get(), None if served is None else served.stash.get(_OF_CALL, None))
    ends = min((end for end in times if end is not None), default=None)
    timeout: float | None = call.connection.timeout
    if ends is None and timeout is None:
        return
    now = time.monotonic()
    if ends is not None:
        if ends <= now:
            raise TimeoutError(f"{call.method} was not called: the deadline was {now - ends:.3f} seconds before")
        call.expires = ends
        left = ends - now if timeout is None else min(timeout, ends - now)
    else:
        assert timeout is not None
        left = timeout
    if _NAME in call.connection.extensions:
        call.annotations = {**call.annotations, ANNOTATION: _SECONDS.pack(left)}


_ON_DEMAND = Steps(before_send=_limit, probe=_ends.get)
_ALWAYS = Steps(before_send=_limit)


# ============================================================================= server
def _take(call: Call, value: bytes) -> None:
    if len(value) != _SECONDS.size:
        raise RemoteProtocolError(f"a deadline of {len(value)} bytes")
    left = _SECONDS.unpack(value)[0]
    if not left > 0:  # (nor a NaN)
        raise TimeoutError("the call was not begun: its deadline is over")
    call.stash[_OF_CALL] = time.monotonic() + left


_SERVER = Steps(annotations={ANNOTATION: _take})


def _left(call: Call) -> float | None:
    ends = call.stash.get(_OF_CALL, None)
    return None if ends is None else ends - time.monotonic()


# ============================================================================= the plugin
@hookimpl
def pyro_reserve(wire: WireRegister) -> None:
    """The annotation."""
    wire.annotation(ANNOTATION)


@hookimpl
def pyro_extensions() -> Iterable[str]:
    """Whether the server understands it."""
    return [_NAME]


@hookimpl
def pyro_configure(kernel: Kernel) -> None:
    """``current_context.deadline``."""
    kernel.stash[TIME_LEFT] = _left


@hookimpl
def pyro_bind(connection: Any) -> Steps | None:
    """On the client every call is looked at if the proxy has a time-out when it connects."""
    if connection.side == "server":
        return _SERVER if _NAME in connection.extensions else None
    proxy = connection.owner()
    always = proxy is not None and proxy._pyroTimeout is not None and _NAME in connection.extensions
    return _ALWAYS if always else _ON_DEMAND
