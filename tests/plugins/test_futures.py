"""The plugin futures: calls in the background."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from pyroplug.api import (
    BatchProxy,
    Future,
    FutureProxy,
    FutureResult,
    Kernel,
    Proxy,
    asyncproxy,
    current_context,
    expose,
    oneway,
)
from pyroplug.core.errors import CommunicationError, PluginError, SerializeError
from pyroplug.plugins.futures import IDLE_CONNECTIONS, FutureCancelled
from pyroplug.testing.kernels import PATIENCE, Serve, Served, make_kernel

pytestmark = pytest.mark.needs("futures")


@expose
class Thing:
    def __init__(self) -> None:
        self._gate = threading.Event()
        self._all = threading.Barrier(4)
        self._begun = threading.Event()
        self._value = 5

    def echo(self, value: Any) -> Any:
        return value

    def add(self, a: int, b: int = 0) -> int:
        return a + b

    def fail(self) -> None:
        raise ValueError("remote")

    def meet(self) -> bool:
        """Returns when four calls are running."""
        self._all.wait(PATIENCE)
        return True

    def gated(self) -> str:
        self._begun.set()
        self._gate.wait(PATIENCE)
        return "late"

    @oneway
    def open(self) -> None:
        self._gate.set()

    def correlation(self) -> str:
        return str(current_context.correlation_id)

    @property
    def value(self) -> int:
        return self._value

    @value.setter
    def value(self, new: int) -> None:
        self._value = new


@pytest.fixture
def served(serve_everywhere: Serve) -> Served:
    return serve_everywhere(Thing())


@pytest.fixture
def local() -> Iterator[Served]:
    with Served() as served:
        served.publish(Thing())
        yield served


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    kernel = make_kernel(FUTURE_THREADS=2)
    yield kernel
    kernel.close()


def thing_of(served: Served) -> Thing:
    thing = served.daemon.objectsById["thing"]
    assert isinstance(thing, Thing)
    return thing


# ----------------------------------------------------------------------------- F095: asynchronous proxies
@pytest.mark.feature("F095", "F096")
def test_calls_return_futures(served: Served) -> None:
    with asyncproxy(served.proxy()) as later:
        results = [later.add(number, b=1) for number in range(20)]
        assert all(isinstance(result, FutureResult) for result in results)
        assert [result.value for result in results] == list(range(1, 21))
        assert all(result.ready for result in results)
        failed = later.fail()
        with pytest.raises(ValueError, match="remote"):
            failed.value  # noqa: B018
        assert later.echo(None).value is None


@pytest.mark.feature("F095")
def test_the_proxy_itself_stays_as_it_is(local: Served) -> None:
    proxy = local.proxy()
    later = proxy._pyroAsync()
    assert isinstance(later, FutureProxy)
    assert later != proxy
    assert proxy.echo(1) == 1
    assert later.echo(1).value == 1
    assert later == proxy._pyroAsync() == later._pyroAsync() == asyncproxy(later) == copy.copy(later)
    assert hash(later) == hash(copy.copy(later))
    assert str(proxy._pyroUri) in repr(later)


@pytest.mark.feature("F095")
def test_options_belong_to_the_asynchronous_proxy(local: Served) -> None:
    proxy = local.proxy()
    later = asyncproxy(proxy)
    later._pyroSerializer = "json"
    later._pyroTimeout = PATIENCE
    assert later.echo((1, 2)).value == [1, 2]
    later._pyroSerializer = "msgpack"  # connections of before are not used any more
    assert later.echo(b"x").value == b"x"
    assert proxy._pyroSerializer is None
    assert proxy._pyroTimeout is None


@pytest.mark.feature("F095", "F100")
def test_calls_run_side_by_side() -> None:
    with Served("tcp4") as served:
        served.publish(Thing())
        later = asyncproxy(served.proxy())
        assert [result.value for result in [later.meet() for _ in range(4)]] == [True] * 4


@pytest.mark.feature("F095")
def test_making_a_call_waits_for_nothing_and_errors_reach_the_future(local: Served) -> None:
    uri = local.daemon.uriFor("thing")
    nowhere = asyncproxy(Proxy(f"PYRO:x@{uri.location}.gone", kernel=local.kernel))
    for result in (nowhere.echo(1), nowhere.whatever(), nowhere.echo(threading.Lock())):
        assert isinstance(result.exception(PATIENCE), CommunicationError)
    later = asyncproxy(local.proxy())
    with pytest.raises(SerializeError):
        later.echo(threading.Lock()).value  # noqa: B018
    with pytest.raises(AttributeError, match="nope"):
        later.nope().value  # noqa: B018


@pytest.mark.needs("metadata")
@pytest.mark.feature("F095")
def test_once_the_members_are_known_names_are_checked_and_properties_are_futures(local: Served) -> None:
    proxy = local.proxy()
    proxy._pyroBind()
    later = asyncproxy(proxy)
    assert later.value.value == 5
    with pytest.raises(AttributeError, match="no exposed attribute or method 'nope'"):
        later.nope()
    with pytest.raises(AttributeError, match="ordinary proxy"):
        later.value = 6
    with pytest.raises(AttributeError):
        later._private  # noqa: B018


@pytest.mark.needs("metadata")
@pytest.mark.feature("F095")
def test_a_proxy_learns_the_members_from_its_calls(local: Served) -> None:
    later = asyncproxy(local.proxy())
    assert later.echo(1).value == 1
    assert later.value.value == 5


@pytest.mark.feature("F095")
def test_one_call_of_an_ordinary_proxy(served: Served) -> None:
    proxy = served.proxy()
    result = proxy.add.future(3, b=4)
    assert isinstance(result, FutureResult)
    assert result.value == 7
    assert proxy.add(1) == 1
    with pytest.raises(AttributeError, match="no attributes"):
        proxy.add.something()


def test_a_future_of_a_proxy_does_not_hold_up_its_other_calls() -> None:
    with Served("tcp4") as served:
        served.publish(Thing())
        proxy = served.proxy()
        late = proxy.gated.future()
        assert proxy.echo(1) == 1
        assert not late.ready
        assert late.wait(0.01) is False
        proxy.open()
        assert late.wait(PATIENCE) is True
        assert late.value == "late"


def test_connections_are_used_again_and_few_are_kept() -> None:
    with Served("tcp4") as served:
        served.publish(Thing())
        opened: list[Any] = []
        connect = served.kernel.connect

        def count(*args: Any) -> Any:
            opened.append(args)
            return connect(*args)

        served.kernel.connect = count  # type: ignore[assignment]
        proxy = served.proxy()
        for number in range(10):
            assert proxy.echo.future(number).value == number
        assert len(opened) <= 2  # (the first may come back a moment after its result)
        results = [proxy.echo.future(number) for number in range(50)]
        assert [result.value for result in results] == list(range(50))
        spares = proxy.__dict__["_pyroSpares"]
        assert len(spares._idle) <= IDLE_CONNECTIONS
        proxy._pyroRelease()
        assert spares._idle == []
        assert proxy.echo.future(5).value == 5


@pytest.mark.needs("callcontext", "correlation")
def test_the_context_of_the_caller_goes_along(local: Served) -> None:
    import uuid

    proxy = local.proxy()
    mine = uuid.uuid4()
    current_context.correlation_id = mine
    try:
        assert proxy.correlation.future().value == str(mine)
    finally:
        current_context.correlation_id = None


def test_an_asynchronous_proxy_travels_as_a_proxy(local: Served) -> None:
    proxy = local.proxy()
    returned = proxy.echo(asyncproxy(proxy))
    assert isinstance(returned, Proxy)
    assert returned == proxy


def test_without_the_plugin() -> None:
    with Served(environ={"PYRO_DISABLE_PLUGINS": "futures"}) as served:
        served.publish(Thing())
        proxy = served.proxy()
        with pytest.raises(PluginError, match="futures"):
            asyncproxy(proxy)
        with pytest.raises(AttributeError, match="futures"):
            proxy._pyroAsync()
        with pytest.raises(AttributeError, match="no attributes"):
            proxy.echo.future(1)
        with pytest.raises(PluginError, match="futures"):
            _ = Future(len, kernel=served.kernel)("abc")


# ----------------------------------------------------------------------------- F096-F098: results
@pytest.mark.feature("F097")
def test_a_chain_runs_in_order_in_the_background(local: Served) -> None:
    later = asyncproxy(local.proxy())
    threads: list[str] = []

    def step(value: int, factor: int, *, plus: int = 0) -> int:
        threads.append(threading.current_thread().name)
        return value * factor + plus

    result = later.gated()
    assert result.then(len) is result
    assert result.then(step, 10, plus=2).then(step, 2) is result
    assert not result.ready
    later.open()
    assert result.value == 84
    assert threads == ["pyroplug-future"] * 2


@pytest.mark.feature("F097")
def test_then_on_a_value_that_is_there_runs_at_once(local: Served) -> None:
    result = asyncproxy(local.proxy()).echo(3)
    assert result.wait(PATIENCE)
    assert result.then(lambda value: value + 1).value == 4
    assert result.then(pow, 2).result() == 16
    errors: list[BaseException] = []
    result.iferror(errors.append).then(lambda value: value / 0).then(errors.append)
    assert isinstance(result.exception(), ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        result.value  # noqa: B018


@pytest.mark.feature("F098")
def test_the_error_handler_hears_of_the_call_and_of_the_chain(local: Served) -> None:
    later = asyncproxy(local.proxy())
    heard: list[BaseException] = []
    done = threading.Event()
    result = later.fail().then(heard.append)

    def handler(error: BaseException) -> None:
        heard.append(error)
        done.set()

    assert result.iferror(handler) is result
    assert done.wait(PATIENCE)
    assert [str(error) for error in heard] == ["remote"]
    assert result.iferror(heard.append) is result  # late: told at once
    assert len(heard) == 2
    in_chain = later.echo(1).then(lambda value: value / 0)
    assert isinstance(in_chain.exception(PATIENCE), ZeroDivisionError)
    in_chain.iferror(heard.append)
    assert isinstance(heard[2], ZeroDivisionError)


@pytest.mark.feature("F098")
def test_a_handler_that_fails_is_logged(local: Served, caplog: pytest.LogCaptureFixture) -> None:
    result = asyncproxy(local.proxy()).fail()
    result.wait(PATIENCE)
    result.iferror(lambda error: 1 / 0)
    assert "failed" in caplog.text
    assert isinstance(result.exception(), ValueError)


@pytest.mark.feature("F096")
def test_it_is_a_standard_future_too(local: Served) -> None:
    later = asyncproxy(local.proxy())
    results = [later.echo(number) for number in range(5)]
    done, left = concurrent.futures.wait(results, PATIENCE)
    assert done == set(results)
    assert not left
    assert sorted(result.result() for result in concurrent.futures.as_completed(results)) == [0, 1, 2, 3, 4]
    called: list[Any] = []
    results[0].add_done_callback(called.append)
    assert called == [results[0]]
    late = later.gated()
    with pytest.raises(concurrent.futures.TimeoutError):
        late.result(0.01)
    later.open()
    assert late.result(PATIENCE) == "late"


@pytest.mark.feature("F096")
def test_it_can_be_awaited(local: Served) -> None:
    later = asyncproxy(local.proxy())

    async def program() -> list[Any]:
        first = await later.echo(1).then(str)
        rest = await asyncio.gather(later.echo(2), later.echo(3))
        with pytest.raises(ValueError, match="remote"):
            await later.fail()
        return [first, *rest]

    assert asyncio.run(program()) == ["1", 2, 3]


# ----------------------------------------------------------------------------- F099: functions
@pytest.mark.feature("F099")
def test_a_function_of_this_program(kernel: Kernel) -> None:
    heard: list[BaseException] = []
    future = Future(pow, kernel=kernel).then(str).then(lambda text, suffix: text + suffix, suffix="!")
    result = future.iferror(heard.append)(2, 10)
    assert result.value == "1024!"
    assert heard == []
    for action in (lambda: future(1, 2), lambda: future.then(str), lambda: future.iferror(print)):
        with pytest.raises(RuntimeError, match="already been evaluated"):
            action()
    assert future.delay(1) is False
    assert future.cancel() is False
    assert result.value == "1024!"


@pytest.mark.feature("F099")
def test_errors_of_a_function(kernel: Kernel) -> None:
    heard: list[BaseException] = []
    result = Future(lambda: 1 / 0, kernel=kernel).then(str).iferror(heard.append)()
    with pytest.raises(ZeroDivisionError):
        result.value  # noqa: B018
    _ = result.iferror(heard.append)  # comes back when the other handler was called: they follow each other
    assert len(heard) >= 1
    assert isinstance(Future(sys.exit, kernel=kernel)(3).exception(PATIENCE), SystemExit)


@pytest.mark.feature("F099")
def test_a_function_can_be_cancelled_before_it_runs(kernel: Kernel) -> None:
    ran: list[int] = []
    early = Future(ran.append, kernel=kernel)
    assert early.cancel() is True
    assert early.cancel() is True
    with pytest.raises(RuntimeError, match="cancelled"):
        _ = early(1)
    heard: list[BaseException] = []
    delayed = Future(ran.append, kernel=kernel).iferror(heard.append)
    assert delayed.delay(1000) is True
    result = delayed(1)
    assert result.wait(0.01) is False
    waiting = [result]
    assert delayed.cancel() is True
    with pytest.raises(RuntimeError, match="future has been cancelled"):
        result.value  # noqa: B018
    assert concurrent.futures.wait(waiting, PATIENCE).not_done == set()
    assert isinstance(heard[0], FutureCancelled)
    assert result.then(ran.append) is result
    assert ran == []


@pytest.mark.feature("F099")
def test_a_delay_can_be_changed_while_it_lasts(kernel: Kernel) -> None:
    future = Future(lambda: "ran", kernel=kernel)
    future.delay(1000)
    result = future()
    other = Future(lambda: "other", kernel=kernel)
    other.delay(0.01)
    assert other().result(PATIENCE) == "other"
    assert not result.ready
    assert future.delay(0.01) is True
    assert result.result(PATIENCE) == "ran"
    assert future.delay(1) is False


def test_something_that_cannot_be_called_is_no_future() -> None:
    with pytest.raises(TypeError, match="can be called"):
        Future(5)  # type: ignore[arg-type]


# ----------------------------------------------------------------------------- F100: threads
@pytest.mark.feature("F100")
def test_the_threads_are_few_and_used_again(kernel: Kernel) -> None:
    results = [Future(threading.get_ident, kernel=kernel)() for _ in range(100)]
    assert len({result.value for result in results}) <= 2


@pytest.mark.feature("F100")
def test_a_call_that_waits_in_the_queue_can_be_cancelled(kernel: Kernel) -> None:
    gate, ran = threading.Event(), threading.Event()
    busy = [Future(gate.wait, kernel=kernel)(PATIENCE) for _ in range(2)]
    queued = Future(ran.set, kernel=kernel)()
    assert queued.cancel() is True
    gate.set()
    assert [result.value for result in busy] == [True, True]
    assert not ran.is_set()


@pytest.mark.feature("F100")
def test_futures_that_wait_for_futures_never_come_to_a_stop(kernel: Kernel) -> None:
    def tree(depth: int) -> int:
        if not depth:
            return 1
        return sum(Future(tree, kernel=kernel)(depth - 1).value for _ in range(2))

    assert Future(tree, kernel=kernel)(5).result(PATIENCE) == 32
    assert len([thread for thread in threading.enumerate() if thread.name == "pyroplug-future"]) < 64


def test_scenario_44_futures_that_are_dropped_leave_nothing_behind(local: Served) -> None:
    later = asyncproxy(local.proxy())
    dropped = [weakref.ref(later.echo("x" * 100)) for _ in range(20)]
    dropped += [weakref.ref(later.fail()) for _ in range(20)]
    assert later.echo("last").value == "last"
    for _ in range(100):
        gc.collect()
        if not any(ref() is not None for ref in dropped):
            break
        later.echo("another").wait(PATIENCE)
    assert [ref for ref in dropped if ref() is not None] == []


def test_the_end_of_the_kernel_cancels_what_waits() -> None:
    kernel = make_kernel(FUTURE_THREADS=1)
    gate, begun = threading.Event(), threading.Event()

    def hold() -> str:
        begun.set()
        gate.wait(PATIENCE)
        return "done"

    running = Future(hold, kernel=kernel)()
    assert begun.wait(PATIENCE)
    queued = Future(hold, kernel=kernel)()
    _ = queued.iferror(lambda error: gate.set())
    kernel.close()
    assert running.value == "done"
    with pytest.raises(FutureCancelled):
        queued.value  # noqa: B018
    with pytest.raises(PluginError, match="closed"):
        _ = Future(hold, kernel=kernel)()


def test_a_call_under_way_does_not_keep_the_interpreter_from_ending() -> None:
    program = "from pyroplug.api import Future; import threading; Future(threading.Event().wait)(); print('end')"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert result.stdout == "end\n"


def test_an_asynchronous_batch_in_a_task(local: Served) -> None:
    calls = BatchProxy(local.proxy())
    calls.add(1)
    calls.add(2)

    async def program() -> list[int]:
        return list(await calls(asynchronous=True))

    assert asyncio.run(program()) == [1, 2]
