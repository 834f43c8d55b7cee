"""Batches: many calls to one object in one message, and their results in one reply.

``batch = BatchProxy(proxy)`` (or ``proxy._pyroBatch()``) collects calls; calling ``batch()`` makes them and
gives their results in order.  The first call that fails ends the batch: its exception is raised where its
result would have come, and the calls after it were not made.

Results that are iterators cannot travel in a batch; that is an error in their place.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from typing import Any, cast

from pyroplug.core.call import Call
from pyroplug.core.dispatch import report
from pyroplug.core.errors import DaemonError, PluginError, PyroError, RemoteProtocolError
from pyroplug.core.hookspecs import hookimpl, steady
from pyroplug.core.kernel import Kernel, WireRegister
from pyroplug.core.members import is_private
from pyroplug.core.plan import Steps
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.proxy import ProxyBase
from pyroplug.core.registry import Entry
from pyroplug.core.settings import Schema, Setting
from pyroplug.core.types import ExceptionWrapper
from pyroplug.core.wire import FLAG_BATCH, FLAG_ONEWAY, Frame

__all__ = ["PLUGIN", "BatchProxy", "batch"]

PLUGIN = PluginInfo("batch", "many calls to one object in one message")

METHOD = "<batch>"
"""What stands in the request in place of a method's name (wire.md 14)."""

Triple = tuple[str, tuple[Any, ...], dict[str, Any]]


# ============================================================================= client
class BatchProxy:
    """Collects calls for one proxy and makes them all at once.

    Its methods are the remote ones, give nothing back, and do nothing before the batch itself is called.
    It may be used again then, for further calls.

    :param proxy: what makes the call in the end
    :raises PluginError: the plugin is off in the proxy's kernel
    """

    def __init__(self, proxy: ProxyBase) -> None:
        proxy._pyroKernel.require(PLUGIN.name)
        self._proxy = proxy
        self._calls: list[Triple] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        if is_private(name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        append = self._calls.append

        def collect(*args: Any, **kwargs: Any) -> None:
            append((name, args, kwargs))

        self.__dict__[name] = collect  # found without coming here the next time
        return collect

    def __call__(self, oneway: bool = False, asynchronous: bool = False) -> Any:
        """Make the calls that were collected.

        :param oneway: do not wait, and never hear of results or errors
        :param asynchronous: return a :class:`~pyroplug.plugins.futures.FutureResult` at once; its value will
            be the results
        :returns: an iterator over the results in order; None when ``oneway``
        :raises PyroError: both were asked for
        """
        if oneway and asynchronous:
            raise PyroError("a batch cannot be oneway and asynchronous: nothing comes back from a oneway call")
        calls = self._take()
        if not asynchronous:
            return _make(self._proxy, calls, oneway)
        try:
            later = self._proxy._pyroLater
        except AttributeError as exc:
            raise PluginError(f"an asynchronous batch needs the plugin 'futures': {exc}", "futures") from None
        return later(lambda proxy: _make(proxy, calls, False))

    async def _pyroInTask(self, invoke: Callable[..., Awaitable[Any]], oneway: bool = False) -> Iterator[Any] | None:
        """The same for a program that awaits its calls, which ``invoke`` makes."""
        results = await invoke(METHOD, self._take(), {}, FLAG_BATCH | FLAG_ONEWAY if oneway else FLAG_BATCH)
        return None if oneway else _checked(results)

    def _take(self) -> list[Triple]:
        calls = self._calls[:]
        del self._calls[: len(calls)]
        return calls

    def __len__(self) -> int:
        """The number of calls that were collected."""
        return len(self._calls)

    def __bool__(self) -> bool:
        return True

    def __enter__(self) -> BatchProxy:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Nothing: calls that were collected and not made are forgotten with the batch."""

    def __copy__(self) -> BatchProxy:
        other = type(self)(self._proxy)
        other._calls += self._calls
        return other

    def __repr__(self) -> str:
        return f"<BatchProxy with {len(self._calls)} calls for {self._proxy!r}>"


def batch(proxy: ProxyBase) -> BatchProxy:
    """A batch for this proxy (Pyro4's name for it)."""
    return BatchProxy(proxy)


def _make(proxy: ProxyBase, calls: list[Triple], oneway: bool) -> Any:
    flags = FLAG_BATCH | FLAG_ONEWAY if oneway else FLAG_BATCH
    # (an empty dict and not null, because marshal has no way to write null there)
    results = proxy._pyroInvoke(METHOD, calls, {}, flags)
    if oneway or isinstance(results, Frame):  # a frame: _pyroRawWireResponse
        return results
    return _checked(results)


def _checked(results: Any) -> Iterator[Any]:
    if not isinstance(results, (list, tuple)):
        raise RemoteProtocolError(f"the reply to a batch must be a list, not {type(results).__name__}")
    return _results(cast("Iterable[Any]", results))


def _results(results: Iterable[Any]) -> Iterator[Any]:
    for result in results:
        if type(result) is ExceptionWrapper:
            result.raise_it()
        yield result


# ============================================================================= server
@hookimpl
def pyro_settings(schema: Schema) -> None:
    """BATCH_MAX_CALLS."""
    schema.add(Setting("BATCH_MAX_CALLS", int, 100_000, "calls that a daemon takes in one batch", "batch", minimum=1))


@hookimpl
def pyro_reserve(wire: WireRegister) -> None:
    """The flag."""
    wire.flag(FLAG_BATCH, "BATCH")


@hookimpl
def pyro_configure(kernel: Kernel) -> None:
    """``proxy._pyroBatch()``."""
    kernel.additions.methods["_pyroBatch"] = BatchProxy


@hookimpl
@steady
def pyro_bind(connection: Any) -> Steps | None:
    """On the server: run the calls of a batch in place of a method."""
    return _steps(connection.settings.BATCH_MAX_CALLS) if connection.side == "server" else None


@functools.lru_cache(maxsize=8)
def _steps(limit: int) -> Steps:
    def run(call: Call) -> list[Any] | Coroutine[Any, Any, list[Any]]:
        if len(call.args) > limit:
            raise DaemonError(f"a batch of {len(call.args)} calls is too long (BATCH_MAX_CALLS is {limit})")
        call.reply_flags |= FLAG_BATCH
        call.substitute = _in_place
        entry = call.connection.objects.get(call.object_id)
        if entry is None:
            raise DaemonError(f"unknown object: {call.object_id}")
        return _run_and_await(call, entry) if entry.members.coroutines else _run(call, entry)

    def begin(call: Call) -> None:
        call.invoke = run

    return Steps(flags={FLAG_BATCH: begin})


def _run(call: Call, entry: Entry) -> list[Any]:
    """The results of the calls, ending with the first that failed."""
    table = entry.table
    results: list[Any] = []
    append = results.append
    item: Any = None
    # as in Pyro: one instance serves the whole batch, also with instance mode percall
    instance = entry.instance(call.connection) if entry.dynamic else None
    try:
        if entry.dynamic:
            for item in call.args:
                method, args, kwargs = item
                append(table[method](instance, *args, **kwargs) if kwargs else table[method](instance, *args))
        else:
            for item in call.args:
                method, args, kwargs = item  # kwargs may be null
                append(table[method](*args, **kwargs) if kwargs else table[method](*args))
    except KeyboardInterrupt:
        raise  # ends the server loop: it must see this
    except BaseException as exc:  # whatever user code raises
        append(_failed(call, item, exc))
    return results


async def _run_and_await(call: Call, entry: Entry) -> list[Any]:
    """As :func:`_run`, for objects with async methods: each call ends before the next begins."""
    results: list[Any] = []
    item: Any = None
    instance = entry.instance(call.connection) if entry.dynamic else None
    try:
        for item in call.args:
            method, args, kwargs = item
            function = entry.table[method]
            result = function(instance, *args, **(kwargs or {})) if entry.dynamic else function(*args, **(kwargs or {}))
            results.append(await result if isinstance(result, Coroutine) else result)
    except Exception as exc:  # user code
        results.append(_failed(call, item, exc))
    return results


def _failed(call: Call, item: Any, exc: BaseException) -> ExceptionWrapper:
    """What stands in the place of the result of a call that failed."""
    if not _well_formed(item):
        exc = RemoteProtocolError("invalid batch: each call must be a method name, a list and a dict")
    elif exc.__traceback__ is not None:
        exc.__traceback__ = exc.__traceback__.tb_next  # _run itself tells nobody anything
    whole = call.method, call.args, call.kwargs
    if _well_formed(item):
        call.method, call.args, call.kwargs = item[0], item[1], item[2] or {}
    _keep_lines(exc, report(call, exc))
    call.method, call.args, call.kwargs = whole
    return ExceptionWrapper(exc)


def _well_formed(item: Any) -> bool:
    return (
        isinstance(item, (list, tuple))
        and len(item) == 3
        and isinstance(item[0], str)
        and isinstance(item[1], (list, tuple))
        and isinstance(item[2], (dict, type(None)))
    )


def _keep_lines(exc: BaseException, lines: list[str]) -> None:
    try:
        exc._pyroTraceback = lines  # type: ignore[attr-defined]
    except Exception:  # a class of the program that takes no attributes: it travels without its traceback
        return


def _in_place(call: Call, results: list[Any], why: Exception) -> list[Any]:
    """The results up to the first that cannot be encoded, and the reason in its place.

    :raises Exception: ``why``, when each result by itself can be encoded
    """
    codec = call.plan.codecs[call.serializer_id]
    for number, result in enumerate(results):
        try:
            codec.dumps(result)
        except PyroError as exc:
            error: PyroError = exc
            lines = report(call, exc)
            if isinstance(result, ExceptionWrapper):
                # the exception has something on it that cannot travel: describe it instead
                original = result.exception
                lines = getattr(original, "_pyroTraceback", lines)
                error = PyroError(f"Error serializing exception: {exc}. Original exception: {original!r}")
            _keep_lines(error, lines)
            return [*results[:number], ExceptionWrapper(error)]
    raise why
