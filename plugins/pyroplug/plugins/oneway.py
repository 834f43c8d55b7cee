"""Oneway calls: the caller does not wait, and never hears of result or error.

``@oneway`` marks a method; clients learn it with the metadata.  The server obeys the flag in the message,
not the mark.  Calls of one client run in the order in which they were made, in a pool of reused threads
with a bounded queue (ONEWAY_QUEUE_SIZE); with ONEWAY_THREADED=0 they run in line with the client's other calls.
Failures are logged, and counted: see :func:`oneway_counts`.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from pyroplug.core.call import Call
from pyroplug.core.hookspecs import hookimpl, steady
from pyroplug.core.kernel import WireRegister
from pyroplug.core.members import Members
from pyroplug.core.plan import Steps
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Schema, Setting
from pyroplug.core.stash import StashKey
from pyroplug.core.wire import FLAG_ONEWAY

__all__ = ["PLUGIN", "OnewayCounts", "oneway", "oneway_counts"]

PLUGIN = PluginInfo("oneway", "calls that nobody waits for")

log = logging.getLogger("pyroplug.oneway")

F = TypeVar("F", bound=Callable[..., Any])
_MARK = "_pyroOneway"  # Pyro5's own, so that methods marked by it work here too


def oneway(method: F) -> F:
    """Decorator: clients do not wait for this method; they get None at once."""
    method._pyroOneway = True  # type: ignore[attr-defined]
    return method


class OnewayCounts(NamedTuple):
    """What became of the oneway calls of a daemon, since it was made."""

    started: int
    """calls that began to run"""
    failed: int
    """exceptions in them, and calls that were refused; in a batch each call counts"""
    dropped: int
    """calls that found the queue full (ONEWAY_QUEUE_SIZE) or were waiting when the daemon was closed"""


def oneway_counts(daemon: Any) -> OnewayCounts:
    """How many oneway calls of a daemon were started, failed or were dropped; also after it was closed.

    :raises PluginError: the plugin is off
    """
    daemon.kernel.require(PLUGIN.name)
    return _pool_of(daemon).counts()


class Strand:
    """The waiting oneway calls of one connection; at most one of them runs at a time."""

    __slots__ = ("jobs", "running")

    def __init__(self) -> None:
        self.jobs: deque[Callable[[], object]] = deque()
        self.running = False


class Pool:
    """Threads that run the strands, started when needed and ended when idle."""

    IDLE_LIFETIME = 5.0

    def __init__(self, threads: int, limit: int) -> None:
        self._limit = limit
        self._max_threads = threads
        self._ready: deque[Strand] = deque()
        self._waiting = 0
        self._threads = 0
        self._idle = 0
        self._change = threading.Condition()
        self._started = 0
        self._failed = 0
        self.dropped = 0
        self.closed = False

    def counts(self) -> OnewayCounts:
        """What became of the calls."""
        with self._change:
            return OnewayCounts(self._started, self._failed, self.dropped)

    def count(self, started: int = 0, failed: int = 0) -> None:
        """Count calls that run elsewhere, and failures."""
        with self._change:
            self._started += started
            self._failed += failed

    def submit(self, strand: Strand, job: Callable[[], object]) -> None:
        """Have a job run after those that were submitted for the strand before; drop it if too many wait."""
        with self._change:
            if self._waiting >= self._limit or self.closed:
                self.dropped += 1
                if self.dropped & (self.dropped - 1) == 0:  # 1, 2, 4, 8...: tell, but do not flood the log
                    log.error(
                        "%d oneway calls dropped: %d are waiting (ONEWAY_QUEUE_SIZE)", self.dropped, self._waiting
                    )
                return
            self._waiting += 1
            strand.jobs.append(job)
            if not strand.running:
                strand.running = True
                self._ready.append(strand)
                if self._idle:
                    self._change.notify()
                elif self._threads < self._max_threads:
                    self._threads += 1
                    threading.Thread(target=self._work, name="pyroplug-oneway", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._change:
                while not self._ready:
                    woken = True
                    if not self.closed:  # it may have been closed while a job ran: nobody wakes this thread then
                        self._idle += 1
                        woken = self._change.wait(self.IDLE_LIFETIME)
                        self._idle -= 1
                    if not self._ready and (self.closed or not woken):
                        self._threads -= 1
                        self._change.notify_all()
                        return
                strand = self._ready.popleft()
                job = strand.jobs.popleft()
                self._waiting -= 1
                self._started += 1
            job()
            with self._change:
                if strand.jobs and not self.closed:
                    self._ready.append(strand)  # behind the others: no client can starve them
                else:
                    strand.running = False

    def close(self, timeout: float) -> None:
        """End the threads; what waits is dropped, what runs gets ``timeout`` seconds."""
        with self._change:
            self.closed = True
            self._ready.clear()
            if self._waiting:
                log.warning("%d oneway calls that were waiting are dropped: the daemon was closed", self._waiting)
                self.dropped += self._waiting
                self._waiting = 0
            self._change.notify_all()
            self._change.wait_for(lambda: self._threads == 0, timeout)


_POOL = StashKey[Pool]()
_SUBMIT = StashKey["Callable[[Callable[[], object]], None]"]()
"""Where a connection has the way to its strand."""


@hookimpl
def pyro_settings(schema: Schema) -> None:
    """ONEWAY_THREADED and the limits."""
    schema.add(Setting("ONEWAY_THREADED", bool, True, "oneway calls do not hold up the client's other calls", "oneway"))
    schema.add(Setting("ONEWAY_THREADS", int, 16, "oneway calls running at a time in a daemon", "oneway", minimum=1))
    schema.add(
        Setting(
            "ONEWAY_QUEUE_SIZE",
            int,
            100_000,
            "oneway calls waiting before further ones are dropped",
            "oneway",
            minimum=1,
        )
    )


@hookimpl
def pyro_reserve(wire: WireRegister) -> None:
    """The flag."""
    wire.flag(FLAG_ONEWAY, "ONEWAY")


@hookimpl
def pyro_describe(members: Members) -> None:
    """Note the marked methods in the metadata."""
    members.notes["oneway"] = {name for name in members.methods if members.marked(name, _MARK)}


@hookimpl
@steady
def pyro_bind(connection: Any) -> Steps | None:
    """On the server: count, and, if so configured, run the calls elsewhere.  (The kernel sends no reply.)"""
    if connection.side != "server":
        return None
    if not connection.settings.ONEWAY_THREADED:
        return _IN_LINE
    return _ELSEWHERE


def _pool_of(daemon: Any) -> Pool:
    pool: Pool | None = daemon.stash.get(_POOL, None)
    if pool is None:
        settings = daemon.kernel.settings
        made = Pool(settings.ONEWAY_THREADS, settings.ONEWAY_QUEUE_SIZE)
        return daemon.stash.setdefault(_POOL, made)  # type: ignore[no-any-return]
    return pool


def _elsewhere(call: Call) -> None:
    connection = call.connection
    submit = connection.stash.get(_SUBMIT, None)
    if submit is None:  # most clients make no such call: their connections shall cost nothing
        made = functools.partial(_pool_of(connection.endpoint.daemon).submit, Strand())
        submit = connection.stash.setdefault(_SUBMIT, made)
    call.runner = submit


def _in_line(call: Call) -> None:
    _pool_of(call.connection.endpoint.daemon).count(started=1)


def _failed(call: Call, error: BaseException) -> None:
    if call.flags & FLAG_ONEWAY:
        _pool_of(call.connection.endpoint.daemon).count(failed=1)


_ELSEWHERE = Steps(flags={FLAG_ONEWAY: _elsewhere}, on_error=_failed)
_IN_LINE = Steps(flags={FLAG_ONEWAY: _in_line}, on_error=_failed)


@hookimpl
def pyro_daemon_closed(daemon: Any) -> None:
    """End the threads."""
    _pool_of(daemon).close(daemon.kernel.settings.SHUTDOWN_TIMEOUT)
