"""Futures: calls that run in the background, and what will become of them.

``asyncproxy(proxy)`` (or ``proxy._pyroAsync()``) is a proxy whose calls return a :class:`FutureResult` at once;
``proxy.method.future(...)`` does it for a single call, and ``Future(function)`` for a function of this program.
They share a connection of their own where the server can do that (plugin mux); otherwise each call that is under way has
one, and idle ones are used again.

The calls run in a pool of threads that belongs to the kernel.  It has at most FUTURE_THREADS of them, and one
more for each that waits for another future, so that futures which wait for futures never come to a stop.
"""

from __future__ import annotations

import concurrent.futures
import contextvars
import copy
import functools
import heapq
import itertools
import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from pyroplug.core.errors import CommunicationError, PluginError, SerializeError
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.kernel import Kernel, default_kernel
from pyroplug.core.members import is_private
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.proxy import CallScope, ProxyBase
from pyroplug.core.settings import Schema, Setting
from pyroplug.core.stash import StashKey
from pyroplug.core.types import NOT_REPLACED

__all__ = ["PLUGIN", "Future", "FutureCancelled", "FutureProxy", "FutureResult", "asyncproxy"]

PLUGIN = PluginInfo("futures", "calls in the background whose results come later")

log = logging.getLogger("pyroplug.futures")

IDLE_CONNECTIONS = 4
"""Connections that a proxy keeps for its next calls in the background."""

Step = Callable[[Any], Any]


class FutureCancelled(concurrent.futures.CancelledError, RuntimeError):
    """The value was asked for, but the call was cancelled (RuntimeError is what Pyro4 raises)."""


# ============================================================================= results
class FutureResult(concurrent.futures.Future[Any]):
    """What will become of a call in the background.

    It is a :class:`concurrent.futures.Future` with all that belongs to one (``result``, ``exception``,
    ``add_done_callback``, ``cancel``), can be awaited in a task, and has Pyro's own interface besides.
    It is done when the call and everything that was chained with :meth:`then` are done.
    """

    def __init__(self, pool: Pool | None = None) -> None:
        super().__init__()
        self._pool = pool
        self._chain: deque[Step] = deque()
        self._handlers: list[Callable[[BaseException], Any]] = []
        self._settled = False  # nothing can be added to the chain any more
        self._begun = False
        self._unwanted = False
        self._ended = False  # somebody has said, or is about to say, what became of it
        self._giving_up = False
        self._scope: CallScope | None = None  # of a remote call that can be given up while it is under way
        self._guard = threading.Lock()
        self._newest: concurrent.futures.Future[Any] | None = None  # of steps that came after the end

    # ----------------------------------------------------------------- Pyro's interface
    @property
    def value(self) -> Any:
        """The result; waits for it.  Raises what the call raised."""
        return self.result()

    @property
    def ready(self) -> bool:
        """Whether the value is there (or the error)."""
        return self.done()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is ready, at most ``timeout`` seconds; whether it is."""
        if not self.done():
            with self._patience():
                concurrent.futures.wait([self], timeout)
        return self.done()

    def then(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> FutureResult:
        """Have ``call(value, *args, **kwargs)`` run when the value is there; what it returns is the new value.

        The calls of a chain run one after the other in the background, or here if the value is there already.
        After an error they are not run.  Returns this object.
        """

        def step(value: Any) -> Any:
            return call(value, *args, **kwargs)

        with self._guard:
            if not self._settled:
                self._chain.append(step)
                return self
        if self._error() is None:
            newest: concurrent.futures.Future[Any] = concurrent.futures.Future()
            try:
                newest.set_result(step(self.result()))
                self._newest = newest
            except Exception as exc:  # code of the program
                newest.set_exception(exc)
                self._newest = newest
                self._tell(exc)
        return self

    def iferror(self, handler: Callable[[BaseException], Any]) -> FutureResult:
        """Have ``handler(exception)`` called if the call or its chain fails, at once if it has.

        Without a handler nobody hears of an error before asking for the value.  Returns this object.
        """
        with self._guard:
            if not self._settled:
                self._handlers.append(handler)
                return self
        error = self._error()
        if error is not None:
            _handle(handler, error)
        return self

    # ----------------------------------------------------------------- the standard interface
    def result(self, timeout: float | None = None) -> Any:
        """The value, once it is there; see :meth:`concurrent.futures.Future.result`."""
        newest = self._newest
        if newest is not None:
            return newest.result()
        try:
            if self.done():
                return super().result()
            with self._patience():
                return super().result(timeout)
        except concurrent.futures.CancelledError:
            raise FutureCancelled("future has been cancelled") from None

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The error, or None, once it is known; see :meth:`concurrent.futures.Future.exception`."""
        newest = self._newest
        if newest is not None:
            return newest.exception()
        try:
            if self.done():
                return super().exception()
            with self._patience():
                return super().exception(timeout)
        except concurrent.futures.CancelledError:
            raise FutureCancelled("future has been cancelled") from None

    def cancel(self) -> bool:
        """Do not make the call, or give it up if it is under way; False if it is too late, or cannot be given up.

        A call that is under way can be given up if both ends have the plugin 'cancel'; its server is told.  What runs in
        this program, such as a step of the chain, is never interrupted.
        """
        with self._guard:
            if self._unwanted:
                return True
            begun, scope = self._begun, None if self._settled else self._scope
            if not begun:
                self._unwanted = self._ended = True
        error = FutureCancelled("future has been cancelled")
        if begun:
            return scope is not None and self._give_up(scope, error)
        super().cancel()
        self.set_running_or_notify_cancel()  # tells those who wait for several futures
        self._settle()
        if self._pool is not None:
            self._pool.forget(self)
        self._tell(error)
        return True

    def _give_up(self, scope: CallScope, error: FutureCancelled) -> bool:
        self._giving_up = True  # the call may end by it at once
        if not scope.cancel():
            self._giving_up = False
            return False
        self._fail(error)
        return self._unwanted

    def _fail(self, error: BaseException) -> None:
        """It has ended with an error, unless somebody else was faster."""
        self._settle()
        if self._giving_up and isinstance(error, CommunicationError):
            error = FutureCancelled("future has been cancelled")
        if self._is_first():
            self._unwanted = isinstance(error, FutureCancelled) and self._giving_up
            self.set_exception(error)
            self._tell(error)

    def cancelled(self) -> bool:
        """Whether :meth:`cancel` has had its way."""
        return self._unwanted

    def _is_first(self) -> bool:
        """Whether nobody else says what became of it."""
        with self._guard:
            first, self._ended = not self._ended, True
            return first

    def __await__(self) -> Generator[Any, None, Any]:
        import asyncio  # whoever awaits has it; for all others it would be a fifth of the start

        return asyncio.wrap_future(self).__await__()

    # ----------------------------------------------------------------- for the pool
    def run(self, function: Callable[[], Any]) -> None:
        """Make the call and walk the chain; whatever happens, this is done afterwards."""
        with self._guard:
            if self._unwanted:
                return
            self._begun = True
        self.set_running_or_notify_cancel()
        try:
            value = function()
            while (step := self._next()) is not None:
                value = step(value)
        except BaseException as exc:  # code of the program; what it raises belongs to whoever wants the value
            self._fail(exc)
        else:
            if self._is_first():
                self.set_result(value)
        finally:
            del self  # an exception kept in a traceback must not keep its future too

    def _next(self) -> Step | None:
        with self._guard:
            if self._chain:
                return self._chain.popleft()
            self._settled = True
            return None

    def _settle(self) -> None:
        with self._guard:
            self._settled = True
            self._chain.clear()

    def _error(self) -> BaseException | None:
        try:
            return self.exception()
        except concurrent.futures.CancelledError as exc:
            return exc

    def _tell(self, error: BaseException) -> None:
        for handler in self._handlers:
            _handle(handler, error)
        self._handlers.clear()

    def _patience(self) -> AbstractContextManager[None]:
        """Waiting in a thread of the pool must not stop the pool."""
        thread = threading.current_thread()
        return thread.pool.waiting() if isinstance(thread, _Worker) else nullcontext()


def _handle(handler: Callable[[BaseException], Any], error: BaseException) -> None:
    try:
        handler(error)
    except Exception:  # code of the program
        log.exception("the error handler %r of a future failed", handler)


# ============================================================================= threads
class _Worker(threading.Thread):
    """A thread of a pool."""

    def __init__(self, pool: Pool) -> None:
        # daemon: the end of the program does not wait for calls that nobody may ever answer
        super().__init__(target=pool.work, name="pyroplug-future", daemon=True)
        self.pool = pool


class Pool:
    """Threads that run functions, started when needed and ended when idle.

    :param threads: how many run at a time; those that wait for a future of a pool are not counted
    """

    IDLE_LIFETIME = 5.0

    def __init__(self, threads: int) -> None:
        self._limit = threads
        self._begin()

    def _pyroForked(self) -> None:
        self._begin()  # the threads are the parent's, and so is what waits for them

    def _begin(self) -> None:
        self._jobs: deque[tuple[FutureResult, Callable[[], Any]]] = deque()
        self._later: list[tuple[float, int, FutureResult, Callable[[], Any]]] = []
        self._numbers = itertools.count()
        self._threads = 0
        self._idle = 0
        self._change = threading.Condition()
        self._closed = False

    def submit(self, function: Callable[[], Any], result: FutureResult, delay: float = 0.0) -> FutureResult:
        """Run a function in the context of the caller, now or ``delay`` seconds later.

        :raises PluginError: the kernel was closed
        """
        context = contextvars.copy_context()
        result._pool = self
        with self._change:
            if self._closed:
                raise PluginError("the kernel was closed: no more calls run in the background", "futures")
            self._put(result, functools.partial(context.run, function), delay)
        return result

    def _put(self, result: FutureResult, job: Callable[[], Any], delay: float) -> None:
        if delay > 0:
            heapq.heappush(self._later, (time.monotonic() + delay, next(self._numbers), result, job))
        else:
            self._jobs.append((result, job))
        self._staff()

    def postpone(self, result: FutureResult, seconds: float) -> bool:
        """Let a call that waits for its time wait that long from now; whether it was still waiting."""
        with self._change:
            for number, (_, _, other, job) in enumerate(self._later):
                if other is result:
                    del self._later[number]
                    heapq.heapify(self._later)
                    self._put(result, job, seconds)
                    return True
            return False

    def forget(self, result: FutureResult) -> None:
        """Do not keep a call that was cancelled."""
        with self._change:
            for number, entry in enumerate(self._later):
                if entry[2] is result:
                    del self._later[number]
                    heapq.heapify(self._later)
                    break
            else:
                for job in self._jobs:
                    if job[0] is result:
                        self._jobs.remove(job)
                        break
            self._change.notify()

    def _staff(self) -> None:
        """See to it that somebody looks after what came; with the lock."""
        if self._idle:
            self._change.notify()
        elif self._threads < self._limit:
            self._threads += 1
            _Worker(self).start()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around a wait in one of the threads: another takes its place."""
        with self._change:
            self._limit += 1
            if self._jobs or self._later:
                self._staff()
        try:
            yield
        finally:
            with self._change:
                self._limit -= 1

    def work(self) -> None:
        """What each thread does."""
        while True:
            with self._change:
                found = self._take()
                if found is None:
                    self._threads -= 1
                    self._change.notify_all()
                    return
            result, job = found
            del found
            result.run(job)
            del result, job  # a thread that waits must not keep the last result alive

    def _take(self) -> tuple[FutureResult, Callable[[], Any]] | None:
        """The next job; None when this thread has nothing to do any more."""
        tired = time.monotonic() + self.IDLE_LIFETIME
        while not self._closed and self._threads <= self._limit:
            now = time.monotonic()
            while self._later and self._later[0][0] <= now:
                self._jobs.append(heapq.heappop(self._later)[2:])
            if self._jobs:
                if len(self._jobs) > 1:
                    self._staff()
                return self._jobs.popleft()
            if now >= tired and not self._later:
                return None
            self._idle += 1
            self._change.wait(max(0.0, self._later[0][0] - now) if self._later else tired - now)
            self._idle -= 1
        return None

    def close(self, timeout: float) -> None:
        """End the threads; what waits is cancelled, what runs gets ``timeout`` seconds."""
        with self._change:
            self._closed = True
            left = [result for result, _ in self._jobs] + [entry[2] for entry in self._later]
            self._jobs.clear()
            self._later.clear()
            self._change.notify_all()
        for result in left:
            result.cancel()
        with self._change:
            mine = isinstance(threading.current_thread(), _Worker)
            self._change.wait_for(lambda: self._threads <= mine, timeout)


class _Background:
    """What a kernel has for calls in the background."""

    def __init__(self, kernel: Kernel) -> None:
        self.pool = Pool(kernel.settings.FUTURE_THREADS)
        kernel.forks.remember(self.pool)
        self.spares: weakref.WeakSet[_Spares] = weakref.WeakSet()


_BACKGROUND = StashKey[_Background]()


def _background(kernel: Any) -> _Background:
    found: _Background | None = kernel.stash.get(_BACKGROUND, None)
    if found is None:
        raise PluginError(f"calls in the background need the plugin 'futures', which is off{kernel.off()}", "futures")
    return found


# ============================================================================= proxies
class _Spares:
    """Copies of a proxy that have a connection and nothing to do."""

    def __init__(self) -> None:
        self._idle: list[ProxyBase] = []
        self._shared: ProxyBase | None = None  # whose connection carries any number of calls together
        self._lock = threading.Lock()
        self._round = 0

    def take(self, proxy: ProxyBase) -> tuple[ProxyBase, int]:
        """A copy for one call: one that is connected already, if its options are still the same."""
        with self._lock:
            current = self._round
            shared = self._shared
            if shared is not None:
                if _options(shared) == _options(proxy):
                    return shared, current
                self._shared = None
                shared._pyroRelease()
            while self._idle:
                spare = self._idle.pop()
                if _options(spare) == _options(proxy):
                    return spare, current
                spare._pyroRelease()
        return copy.copy(proxy), current

    def give(self, spare: ProxyBase, taken: int) -> None:
        """A copy is not needed any more."""
        with self._lock:
            connection = spare._pyroConnection
            if spare is self._shared:
                return
            if connection is not None and taken == self._round:
                if connection.overlapping and self._shared is None:
                    self._shared = spare
                    return
                if len(self._idle) < IDLE_CONNECTIONS and self._shared is None:
                    self._idle.append(spare)
                    return
        spare._pyroRelease()

    def release(self) -> None:
        """Close the connections; copies at work close theirs when they are done."""
        with self._lock:
            self._round += 1
            idle, self._idle = self._idle, []
            if self._shared is not None:
                idle.append(self._shared)
                self._shared = None
        for spare in idle:
            spare._pyroRelease()


def _options(proxy: ProxyBase) -> tuple[Any, ...]:
    state = proxy.__dict__
    names = ("_pyroOneway", "_pyroTimeoutValue", "_pyroSerializerName", "_pyroRawWireResponse")
    added = (name for name in proxy._pyroKernel.additions.attributes if name != _SPARES)
    values = (state.get(name) for name in (*names, *added))
    copies = (frozenset(value) if isinstance(value, set) else value for value in values)
    return (proxy._pyroUri, id(proxy._pyroHandshake), *copies)


def _has_one_socket(proxy: ProxyBase) -> bool:
    return proxy.__dict__["_pyroGivenSocket"] is not None


_SPARES = "_pyroSpares"


def _later(proxy: ProxyBase, function: Callable[[ProxyBase], Any]) -> FutureResult:
    """Run ``function(copy of the proxy)`` in the background."""
    background = _background(proxy._pyroKernel)
    if _has_one_socket(proxy):
        return background.pool.submit(lambda: function(proxy), FutureResult())
    make_scope = proxy._pyroKernel.additions.scope
    result = FutureResult()
    scope = result._scope = make_scope() if make_scope is not None else None
    spares = proxy.__dict__.get(_SPARES)
    if spares is None:
        spares = proxy.__dict__.setdefault(_SPARES, _Spares())
        background.spares.add(spares)

    def job() -> Any:
        spare, taken = spares.take(proxy)
        try:
            with scope.active() if scope is not None else nullcontext():
                return function(spare)
        finally:
            if spare._pyroMetadataKnown and not proxy._pyroMetadataKnown:
                known = ("_pyroMethods", "_pyroAttrs", "_pyroOneway", "_pyroNotes", "_pyroMetadataKnown")
                proxy.__dict__.update({name: copy.copy(spare.__dict__[name]) for name in known})
            spares.give(spare, taken)

    return background.pool.submit(job, result)


def _call(proxy: ProxyBase, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> FutureResult:
    return _later(proxy, lambda spare: spare._pyroInvoke(method, args, kwargs))


def _future_of_method(proxy: ProxyBase, method: str, /, *args: Any, **kwargs: Any) -> FutureResult:
    return _call(proxy, method, args, kwargs)


def _release(proxy: ProxyBase) -> None:
    spares = proxy.__dict__.get(_SPARES)
    if spares is not None:
        spares.release()


class FutureProxy:
    """A proxy whose calls return a :class:`FutureResult` at once and run in the background, side by side.

    Making a call never waits, not even for a connection: whatever goes wrong is in the result.  Properties
    are futures too, once the members of the object are known.  Names that begin with ``_pyro`` are those of an
    ordinary proxy that lies underneath, so options are set as ever (``_pyroTimeout``, ``_pyroMaxRetries``).

    :param proxy: the proxy to start from.  It stays as it is, what is used is a copy; except over a connected
        socket, where the calls of both wait for each other.
    """

    _proxy: ProxyBase

    def __init__(self, proxy: ProxyBase | FutureProxy) -> None:
        if isinstance(proxy, FutureProxy):
            proxy = proxy._proxy
        object.__setattr__(self, "_proxy", proxy if _has_one_socket(proxy) else copy.copy(proxy))
        _background(proxy._pyroKernel)  # tell now if there is none

    def __getattr__(self, name: str) -> Any:
        if name == "_proxy":
            raise AttributeError(name)  # __init__ was not here
        proxy = self._proxy
        if name.startswith("_pyro"):
            return getattr(proxy, name)
        if is_private(name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if proxy._pyroMetadataKnown:
            if name in proxy._pyroAttrs:
                return _call(proxy, "__getattr__", (name,), {})
            if name not in proxy._pyroMethods:
                raise AttributeError(f"remote object '{proxy._pyroUri}' has no exposed attribute or method '{name}'")
        return functools.partial(_future_of_method, proxy, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_pyro"):
            raise AttributeError(f"attributes are set on an ordinary proxy, which can say whether it worked: {name}")
        setattr(self._proxy, name, value)

    def _pyroAsync(self) -> FutureProxy:
        """Another one for the same object."""
        return FutureProxy(self._proxy)

    def __enter__(self) -> FutureProxy:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._proxy._pyroRelease()

    def __copy__(self) -> FutureProxy:
        return FutureProxy(self._proxy)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FutureProxy) and other._proxy == self._proxy

    def __hash__(self) -> int:
        return hash(self._proxy)

    def __repr__(self) -> str:
        return f"<FutureProxy for {self._proxy._pyroUri}>"


def asyncproxy(proxy: ProxyBase | FutureProxy) -> FutureProxy:
    """A proxy for the same object whose calls run in the background (Pyro4's name for it)."""
    return FutureProxy(proxy)


# ============================================================================= functions of this program
class Future:
    """A function that is to run in the background, once.

    Calling it starts the function with these arguments and returns a :class:`FutureResult` at once::

        result = Future(add).then(double).iferror(print)(4, 5)
        print(result.value)

    :param function: what is to run
    :param kernel: whose threads to use (default: the default kernel's)
    """

    def __init__(self, function: Callable[..., Any], *, kernel: Kernel | None = None) -> None:
        if not callable(function):
            raise TypeError(f"a future needs something that can be called, not {function!r}")
        self._function = function
        self._kernel = kernel
        self._prepared = FutureResult()
        self._delay = 0.0
        self._started = False
        self._lock = threading.Lock()

    def __call__(self, *args: Any, **kwargs: Any) -> FutureResult:
        """Start the function.

        :raises RuntimeError: it was started before, or cancelled
        """
        background = _background(self._kernel or default_kernel())
        with self._lock:
            self._check()
            if self._prepared.cancelled():
                raise RuntimeError("the future has been cancelled")
            self._started = True
            function = functools.partial(self._function, *args, **kwargs)
            return background.pool.submit(function, self._prepared, self._delay)

    def then(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Future:
        """Have ``call(value, *args, **kwargs)`` run afterwards; what it returns is the new value."""
        with self._lock:
            self._check()
            self._prepared = self._prepared.then(call, *args, **kwargs)
        return self

    def iferror(self, handler: Callable[[BaseException], Any]) -> Future:
        """Have ``handler(exception)`` called if the function or its chain fails."""
        with self._lock:
            self._check()
            self._prepared = self._prepared.iferror(handler)
        return self

    def delay(self, seconds: float) -> bool:
        """Wait that long before the function runs, from its start or, if it waits already, from now.

        :returns: False if it is too late for that
        """
        with self._lock:
            if not self._started:
                self._delay = seconds
                return True
        pool = self._prepared._pool
        return pool is not None and pool.postpone(self._prepared, seconds)

    def cancel(self) -> bool:
        """Do not run the function; False if it has begun to run."""
        with self._lock:  # not while it is being started
            pass
        return self._prepared.cancel()

    def _check(self) -> None:
        if self._started:
            raise RuntimeError("the future has already been evaluated")


# ============================================================================= the plugin
@hookimpl
def pyro_settings(schema: Schema) -> None:
    """FUTURE_THREADS."""
    schema.add(Setting("FUTURE_THREADS", int, 32, "calls running in the background at a time", "futures", minimum=1))


@hookimpl
def pyro_configure(kernel: Kernel) -> None:
    """The pool, ``proxy._pyroAsync()`` and ``proxy.method.future()``."""
    kernel.stash[_BACKGROUND] = _Background(kernel)
    kernel.additions.methods["_pyroAsync"] = FutureProxy
    kernel.additions.methods["_pyroLater"] = _later
    kernel.additions.calls["future"] = _future_of_method
    kernel.additions.on_release.append(_release)

    def as_proxy(proxy: FutureProxy) -> Any:
        form = kernel.types.registered(proxy._proxy)
        if form is NOT_REPLACED:
            raise SerializeError("a proxy cannot be passed in a call: the plugin 'proxies' is off")
        return form

    kernel.types.register_class_to_dict(FutureProxy, as_proxy)


@hookimpl
def pyro_unconfigure(kernel: Kernel) -> None:
    """End the threads, and close the connections that were kept."""
    background = kernel.stash.get(_BACKGROUND, None)
    if background is not None:
        background.pool.close(kernel.settings.SHUTDOWN_TIMEOUT)
        for spares in list(background.spares):
            spares.release()
