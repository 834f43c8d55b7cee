"""Server loop ``thread``: calls of different clients run at the same time; a worker belongs to a call.

One thread, the *leader*, polls all clients and runs the calls it finds in place: a short call costs no
hand-over to another thread.  A second one, the *standby*, looks every few milliseconds whether the leader
still runs the same call; if so it takes over the polling, and the old leader becomes an ordinary worker
until its call ends.  Idle clients cost no thread, and no number of clients makes the next one wait.

THREADPOOL_SIZE limits the calls that run at once.  Beyond that CALL_QUEUE_SIZE requests wait for a free
worker, and further ones are refused at once with an OverloadError.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from pyroplug.core.connection import RETRY_AFTER, QuickTask, RefusedTask, State, Task, shutting_down
from pyroplug.core.dispatch import LATER, Later, Request
from pyroplug.core.errors import OverloadError
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.interfaces import Acceptor, ServerLoop, ServerLoopFactory
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Settings
from pyroplug.core.wire import Message

from ._base import LAST_MOMENT, SWEEP_INTERVAL, BaseLoop, Link, overlaps

__all__ = ["PLUGIN", "ThreadFactory", "ThreadLoop"]

PLUGIN = PluginInfo("thread", "server loop: calls run concurrently in a bounded pool of threads")

log = logging.getLogger("pyroplug.server")

TICK = 0.002
"""Seconds between two looks of the standby; a call that lasts one to two ticks loses the lead."""
TICKS_TO_NAP = 25
"""After so many looks without any call the standby sleeps until there is one."""
IDLE_LIFETIME = 10.0
"""Seconds after which a worker above THREADPOOL_SIZE_MIN that has nothing to do ends."""
CONDITION_INTERVAL = 0.2
"""Seconds between two looks at a ``loopCondition``."""


def _overloaded(running: int, waiting: int) -> OverloadError:
    return OverloadError(
        f"server overloaded: {running} calls running (THREADPOOL_SIZE), {waiting} waiting (CALL_QUEUE_SIZE)",
        RETRY_AFTER,
    )


class _Ending(QuickTask):
    """Stands for the end of a connection, where the standby looks for a task."""


class ThreadLoop(BaseLoop):
    """Leader, standby and workers."""

    concurrent = True
    """Calls run at the same time, so that plugins may use threads for them as well."""

    def __init__(self, acceptor: Acceptor, settings: Settings) -> None:
        super().__init__(acceptor, settings)
        self._pool_size: int = settings.THREADPOOL_SIZE
        self._queue_size: int = settings.CALL_QUEUE_SIZE
        self._min_threads = min(settings.THREADPOOL_SIZE_MIN, self._pool_size) + 2
        self._have_no_threads()

    def _have_no_threads(self) -> None:
        self._turn_lock = threading.Lock()
        self._roles = threading.Condition(self._turn_lock)  # the same lock; calls use it without the wrapper
        # everything below is changed with _roles held, unless said otherwise
        self._threads: set[threading.Thread] = set()
        self._leader: threading.Thread | None = None
        self._standby: threading.Thread | None = None
        self._busy = 0  # calls that run in threads other than the leader
        self._idle = 0
        self._queue: deque[tuple[Link, Task]] = deque()
        self._running_calls: set[Task] = set()  # those that workers run
        self._paused_run = True
        self._count = 0
        # written by the leader without the lock, read by the standby
        self._current: Task | None = None
        self._napping = False
        self._alarm = threading.Event()
        # taken at first; released to end run(): safe in a signal handler, where an Event is not
        self._end_of_run = threading.Lock()

    # ----------------------------------------------------------------- for daemons
    def run(self, condition: Callable[[], bool]) -> None:
        """Serve until the condition is false; this thread only waits, so that Ctrl-C ends the daemon, not a call."""
        self._end_of_run.acquire(blocking=False)
        self._start()
        try:
            while not self._stop and condition():
                interval = min(CONDITION_INTERVAL, self._settings.POLLTIMEOUT)
                if self._end_of_run.acquire(timeout=interval):
                    break
                self._keep_house()
        finally:
            if not self._stop:
                self._pause()

    def events(self, ready: Iterable[Any]) -> None:
        """Accept what is ready; the clients are then served by the loop's own threads."""
        self._start()
        fds = {item if isinstance(item, int) else item.fileno() for item in ready}
        for source in self._listeners:
            if source.fd in fds:
                self._accept(source)
        self._keep_house()

    @property
    def sockets(self) -> list[Any]:
        """The listening sockets; clients are none of the foreign loop's business."""
        return [source.listener.sock or source.listener for source in self._listeners]

    def combine(self, other: Any) -> None:
        """Not possible: raises TypeError."""
        raise TypeError("the thread server loop cannot be combined with others; use SERVERTYPE=multiplex for that")

    def shutdown(self) -> None:
        """Make :meth:`run` return."""
        self._end_soon()
        with contextlib.suppress(RuntimeError):  # not taken: nobody runs
            self._end_of_run.release()
        self._waker.wake()

    def is_own_thread(self) -> bool:
        """Whether this is one of the loop's threads, which cannot wait for their own end."""
        return threading.current_thread() in self._threads

    def _keep_house(self) -> None:
        now = time.monotonic()
        if now >= self._next_housekeeping:
            self._next_housekeeping = now + self._settings.POLLTIMEOUT
            self._acceptor.housekeeping()

    # ----------------------------------------------------------------- threads and their roles
    def _start(self) -> None:
        with self._roles:
            self._paused_run = False
            # one to lead and one to stand by
            for _ in range(2 - len(self._threads)):
                self._start_thread()

    def _start_thread(self) -> None:
        self._count += 1
        thread = threading.Thread(target=self._main, name=f"pyroplug-worker-{self._count}", daemon=True)
        self._threads.add(thread)
        thread.start()

    def _main(self) -> None:
        me = threading.current_thread()
        try:
            while True:
                role = self._next_role(me)
                if role is None:
                    return
                role()
        finally:
            with self._roles:
                self._threads.discard(me)
                if self._leader is me:
                    self._leader = None
                if self._standby is me:
                    self._standby = None
                self._roles.notify_all()

    def _next_role(self, me: threading.Thread) -> Callable[[], None] | None:
        """What this thread is to do next; None: end."""
        with self._roles:
            while True:
                if self._stop or self._paused_run:
                    return None
                if self._queue and self._busy < self._pool_size:
                    job = self._queue.popleft()
                    self._busy += 1
                    self._running_calls.add(job[1])
                    return lambda: self._run_queued(*job)
                if self._leader is None:
                    self._leader = me
                    self._epoch += 1
                    return lambda: self._lead(me)
                if self._standby is None:
                    self._standby = me
                    return lambda: self._stand_by(me)
                self._idle += 1
                woken = self._roles.wait(IDLE_LIFETIME)
                self._idle -= 1
                if not woken and not self._queue and len(self._threads) > self._min_threads:
                    return None

    def _lead(self, me: threading.Thread) -> None:
        epoch = self._epoch
        while self._epoch == epoch and not self._stop and not self._paused_run:
            try:
                self._turn(SWEEP_INTERVAL)
            except Exception:
                log.exception("the server loop met an unexpected error and goes on")
        with self._roles:
            if self._leader is me:
                self._leader = None
            else:
                self._busy -= 1  # counted when the lead was lost; whatever was running has ended

    def _stand_by(self, me: threading.Thread) -> None:
        seen: Task | None = None
        quiet = 0
        while not self._stop and not self._paused_run and self._leader is not None:
            current = self._current
            if current is None:
                quiet += 1
                if quiet > TICKS_TO_NAP:
                    self._alarm.clear()
                    self._napping = True
                    seen = None  # a call that is over, with all that it was given
                    if not self._something_to_do():  # looked at again, now that the leader can see us napping
                        self._alarm.wait()
                    self._napping = False
                    quiet = 0
            else:
                quiet = 0
                if current is seen and self._take_over(me, current):
                    self._lead(me)
                    return
            seen = current
            time.sleep(TICK)
        with self._roles:
            if self._standby is me:
                self._standby = None

    def _something_to_do(self) -> bool:
        return self._current is not None or self._stop or self._paused_run

    def _take_over(self, me: threading.Thread, current: Task) -> bool:
        with self._roles:
            if self._current is not current or self._stop:
                return False
            self._overtake(current)
            self._leader = me
            self._standby = None
            self._staff()
            return True

    def _overtake(self, current: Task) -> None:
        """Make the leader a worker that runs this task; with ``_roles`` held."""
        self._current = None
        self._epoch += 1
        self._busy += 1
        self._running_calls.add(current)
        if overlaps(current):
            # its client may have more to do: the link is left to whoever leads now
            link: Link = current.connection.carrier
            self._share(link, current, elsewhere=True)
            link.busy = False
            self._ask(lambda: self._resume(link))

    def _staff(self) -> None:
        """See to it that somebody comes for what waits in the queue, and stands by; with ``_roles`` held."""
        wanted = min(len(self._queue), self._pool_size - self._busy) + (self._standby is None)
        if self._idle:
            self._roles.notify()
        if wanted > self._idle and len(self._threads) < self._pool_size + 2:
            self._start_thread()

    # ----------------------------------------------------------------- calls
    def _work_on(self, link: Link, task: Task) -> None:
        link.busy = True
        if self._run(link, task):
            link.busy = False
            if link.out and link.shared is None:
                self._flush(link)

    def _work(self, link: Link) -> None:
        link.busy = True
        while (task := self._next_task(link)) is not None:
            if not self._run(link, task):
                return
            if link.connection.state is State.CLOSED:
                break
        link.busy = False
        if link.out and link.shared is None:
            self._flush(link)

    def _run(self, link: Link, task: Task) -> bool:
        """Run a task in place and send its reply; False when the link is in the hands of another thread now."""
        if (link.shared is not None or self._busy >= self._pool_size or self._queue) and not task.quick:
            if overlaps(task) and self._hand_over(link, task):
                return True
            now = self._wait_for_worker(link, task)
            if now is None:
                return False
            task = now
        epoch = self._epoch
        self._current = task
        if self._napping:
            self._napping = False
            self._alarm.set()
        message = task.run()
        with self._turn_lock:
            demoted = self._epoch != epoch
            if not demoted:  # otherwise it says what the new leader runs
                self._current = None
        if demoted:
            self._running_calls.discard(task)
            self._finish(link, task, message)
            return False
        if message is LATER:
            return self._left_open(link, task)
        self._deliver(link, message)
        return True

    def _close(self, link: Link, error: BaseException | None) -> None:
        if threading.current_thread() is not self._leader:
            super()._close(link, error)
            return
        # what is told of the end may be slow code of the program: the standby has an eye on it
        epoch = self._epoch
        self._current = ending = _Ending()
        try:
            super()._close(link, error)
        finally:
            with self._turn_lock:
                if self._epoch == epoch:
                    self._current = None
                else:
                    self._running_calls.discard(ending)

    def _wait_for_worker(self, link: Link, task: Task) -> Task | None:
        """Queue a task (None), or say what is to be run in place: the task after all, or its refusal."""
        with self._roles:
            waiting = len(self._queue) - (self._pool_size - self._busy)
            if waiting < 0:
                return task  # there is a worker for each that waits, and one more: this thread may lose the lead
            if waiting < self._queue_size:
                self._queue.append((link, task))
                self._staff()
                return None
        return RefusedTask(task, _overloaded(self._pool_size, waiting))

    def _hand_over(self, link: Link, request: Request) -> bool:
        """Give a call whose link goes on to a worker, or refuse it; False when it may as well be run in place."""
        with self._roles:
            waiting = len(self._queue) - (self._pool_size - self._busy)
            shared = link.shared
            if waiting < 0 and (shared is None or not shared.elsewhere):
                return False
            if waiting < self._queue_size:
                shared = self._share(link, request, elsewhere=True)
                self._queue.append((link, request))
                self._staff()
        if waiting >= self._queue_size:
            self._deliver(link, request.refuse(_overloaded(self._pool_size, waiting)))
        elif shared is not None:
            self._admits(link, shared)
        return True

    def _run_queued(self, link: Link, task: Task) -> None:
        try:
            message = task.run()
            self._running_calls.discard(task)
            self._finish(link, task, message)
        finally:
            with self._roles:
                self._busy -= 1

    def _finish(self, link: Link, task: Task, message: Message | Later | None) -> None:
        """A worker ends a call: send the reply, run what the client has sent since, give the link back."""
        connection = link.connection
        if overlaps(task):
            request, shared = task, link.shared
            assert shared is not None, "this call is in flight, so the link is shared"
            if message is not LATER:
                self._reply(link, shared, request, message, elsewhere=True)
                return
            with shared.lock:
                shared.elsewhere -= 1
            request.on_answer(lambda message: self._reply(link, shared, request, message))
            return
        try:
            while message is not LATER and self._deliver(link, message) and not connection.plan.overlapping:
                following = connection.next_task()
                if following is None:
                    if connection.closing:
                        self._close(link, None)
                    break
                task = following
                message = task.run()
        finally:
            if message is not LATER or self._left_open(link, task):
                more = connection.plan.overlapping and connection.reader.partial
                self._give_back(link)
                if more:
                    self._ask(lambda: self._resume(link))

    # ----------------------------------------------------------------- the end
    def forked(self, served: bool) -> None:
        """As in BaseLoop; the threads are not here."""
        self._have_no_threads()
        super().forked(served)

    def _pause(self) -> None:
        """Stop serving, keep the clients."""
        with self._roles:
            self._paused_run = True
            self._roles.notify_all()
        self._join(time.monotonic() + self._settings.SHUTDOWN_TIMEOUT)

    def _refuse_queued(self) -> None:
        with self._roles:
            queued = list(self._queue)
            self._queue.clear()
        for link, task in queued:
            self._finish(link, task, task.refuse(shutting_down()))

    def _may_turn(self) -> bool:
        with self._roles:
            if self._leader is None:
                return True
            if self._current is None:
                return False  # it is about to end
            self._overtake(self._current)
            self._leader = None
            return True

    def _in_threads(self) -> list[Task]:
        return list(self._running_calls)

    def _end_threads(self) -> None:
        with self._roles:
            self._roles.notify_all()
        self._join(max(self._deadline, time.monotonic() + LAST_MOMENT))

    def _join(self, deadline: float) -> None:
        me = threading.current_thread()
        while True:
            self._alarm.set()
            self._waker.wake()
            with self._roles:
                # (Ctrl-C can come while a thread is being started; such a one sees that it has to end)
                others = [thread for thread in self._threads if thread is not me and thread.is_alive()]
            if not others or time.monotonic() > deadline:
                return
            others[0].join(0.01)


class ThreadFactory:
    """Makes thread loops."""

    names = ("thread", "threaded")

    def create(self, acceptor: Acceptor, settings: Settings) -> ServerLoop:
        """A loop for one daemon."""
        return ThreadLoop(acceptor, settings)


@hookimpl
def pyro_servers() -> list[ServerLoopFactory]:
    """The loop."""
    return [ThreadFactory()]
