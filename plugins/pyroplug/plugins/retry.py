"""Automatic retries: a call whose connection broke or timed out is made again.

Nobody can know whether a call that was lost was executed.  So nothing is repeated unless somebody says that it
may be: MAX_RETRIES (or ``proxy._pyroMaxRetries``) repeats any call that many times, at once; ``@idempotent`` on the
server's methods, or their names in ``proxy._pyroIdempotent``, has just these repeated, RETRY_IDEMPOTENT times, with
pauses that grow and differ from client to client, and within a budget for the whole program, so that a server that
comes back is not knocked down again by everybody's retries.  A call that an overloaded server refused was not executed;
where calls are repeated it is made again too, after the pause that the server advises.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from pyroplug.core.errors import CommunicationError, ConnectionClosedError, OverloadError, TimeoutError
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.kernel import Kernel
from pyroplug.core.members import Members
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.proxy import ProxyBase
from pyroplug.core.settings import Schema, Setting, Settings
from pyroplug.core.stash import StashKey

__all__ = ["PLUGIN", "POLICY", "Budget", "IdempotentPolicy", "advice", "again", "idempotent"]

PLUGIN = PluginInfo("retry", "calls are repeated when the connection broke or timed out")

F = TypeVar("F", bound=Callable[..., Any])
_MARK = "_pyroIdempotent"
_NOTE = "idempotent"
"""What the metadata calls the marked methods.  Other peers do not know it, and pass over it."""

BUDGET_PERIOD = 60.0
"""Seconds in which a budget that was used up is full again."""


def idempotent(method: F) -> F:
    """Decorator: the method may run twice for one call; clients repeat it when the connection was lost."""
    method._pyroIdempotent = True  # type: ignore[attr-defined]
    return method


class Budget:
    """A bucket of permissions that fills up again, all of it in BUDGET_PERIOD seconds.

    :param size: how many there can be; 0 means no limit
    :param clock: tells the time in seconds
    """

    def __init__(self, size: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.size = size
        self.clock = clock
        self._left = float(size)
        self._seen: float | None = None
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Take one; False if there is none left."""
        if not self.size:
            return True
        with self._lock:
            now = self.clock()
            if self._seen is not None:
                self._left = min(self.size, self._left + (now - self._seen) * self.size / BUDGET_PERIOD)
            self._seen = now
            if self._left < 1:
                return False
            self._left -= 1
            return True


def _random() -> float:
    import random  # slow to import, and needed after a failure only

    return random.random()


class IdempotentPolicy:
    """Whether, and after what pause, a call of an idempotent method is repeated.

    The functions that it uses are attributes, so that a test can put its own there.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.sleep: Callable[[float], object] = time.sleep
        self.random: Callable[[], float] = _random
        """Gives numbers from 0 to 1."""
        self.budget = Budget(settings.RETRY_BUDGET)

    def __call__(self, proxy: ProxyBase, method: str, error: Exception, attempt: int) -> bool:
        wanted = _refused(error) or _unanswered(error)
        if attempt > self._settings.RETRY_IDEMPOTENT or not wanted or not _may_repeat(proxy, method):
            return False
        if not self.budget.take():
            return False
        self.sleep(max(self.pause(attempt), advice(error, self.random(), self._settings.RETRY_BACKOFF_MAX)))
        return True

    def pause(self, attempt: int) -> float:
        """How long to wait before the repetition of that number: doubled each time, and less by up to a half."""
        settings = self._settings
        longest: float = min(settings.RETRY_BACKOFF_MAX, settings.RETRY_BACKOFF * 2.0 ** min(attempt - 1, 60))
        return longest * (1 - self.random() / 2)


POLICY = StashKey[IdempotentPolicy]()
"""Where a kernel has its policy for idempotent methods."""


def _unanswered(error: Exception) -> bool:
    """Whether the connection broke, timed out, or never came up; not whether the peer refused or made no sense."""
    return isinstance(error, (ConnectionClosedError, TimeoutError)) or type(error) is CommunicationError


def _may_repeat(proxy: ProxyBase, method: str) -> bool:
    return method in proxy._pyroIdempotent or method in proxy._pyroNotes.get(_NOTE, ())


def _refused(error: Exception) -> bool:
    """Whether the server says that it has not run the call."""
    return isinstance(error, OverloadError) and error.refused


def advice(error: Exception, chance: float, longest: float) -> float:
    """How long the server that refused a call wants to be left alone (seconds), and up to a half more."""
    seconds = getattr(error, "retry_after", 0.0)
    if not isinstance(seconds, (int, float)) or not seconds > 0:
        return 0.0  # no such error, or a peer's nonsense
    return min(longest, seconds * (1 + chance / 2))


def again(proxy: ProxyBase, method: str, error: Exception, attempt: int) -> bool:
    """The policy of MAX_RETRIES: whether any call is to be made once more, at once, or when the server advises it."""
    lost = isinstance(error, (ConnectionClosedError, TimeoutError))
    if not (lost or _refused(error)) or attempt > proxy._pyroMaxRetries:
        return False
    if not lost:
        time.sleep(advice(error, _random(), proxy._pyroKernel.settings.RETRY_BACKOFF_MAX))
    return True


@hookimpl
def pyro_settings(schema: Schema) -> None:
    """MAX_RETRIES, and what holds for idempotent methods."""
    for setting in (
        Setting("MAX_RETRIES", int, 0, "how often any call is repeated after a broken connection", "retry", minimum=0),
        Setting("RETRY_IDEMPOTENT", int, 3, "how often a call of an idempotent method is repeated", "retry", minimum=0),
        Setting("RETRY_BACKOFF", float, 0.1, "seconds before its first repetition, then doubled", "retry", minimum=0),
        Setting("RETRY_BACKOFF_MAX", float, 5.0, "seconds before a repetition at most", "retry", minimum=0),
        Setting("RETRY_BUDGET", int, 300, "such repetitions in a minute, all proxies together; 0: no limit", "retry",
                minimum=0),
    ):  # fmt: skip
        schema.add(setting)


@hookimpl
def pyro_configure(kernel: Kernel) -> None:
    """What can be set for one proxy: ``_pyroMaxRetries``, and ``_pyroIdempotent``, names of methods that may run twice."""
    kernel.additions.attributes["_pyroMaxRetries"] = lambda: kernel.settings.MAX_RETRIES
    kernel.additions.attributes["_pyroIdempotent"] = set
    kernel.stash[POLICY] = IdempotentPolicy(kernel.settings)


@hookimpl
def pyro_describe(members: Members) -> None:
    """Note the marked methods in the metadata; without any the metadata stays as old peers know it."""
    marked = {name for name in members.methods if members.marked(name, _MARK)}
    if marked:
        members.notes[_NOTE] = marked


@hookimpl
def pyro_client_policies(kernel: Kernel) -> Iterable[Callable[[ProxyBase, str, Exception, int], bool]]:
    """The policies: the careful one first."""
    return [kernel.stash[POLICY], again]
