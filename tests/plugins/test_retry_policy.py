"""The plugin retry: calls that are made again."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pyroplug.api import Proxy, expose, idempotent
from pyroplug.core.errors import (
    CommunicationError,
    ConnectionClosedError,
    ConnectionRefusedByPeer,
    OverloadError,
    ProtocolError,
    SerializeError,
    TimeoutError,
)
from pyroplug.plugins.retry import BUDGET_PERIOD, POLICY, Budget, IdempotentPolicy, advice
from pyroplug.testing.kernels import LOOPS, PATIENCE, Served, make_kernel
from pyroplug.testing.transports import in_thread

pytestmark = pytest.mark.needs("retry")


class Thing:
    """The replies to its first calls are lost."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.calls = 0
        self.gate = threading.Event()
        self.lost = False

    def _flaky(self) -> int:
        self.calls += 1
        self.lost = self.calls <= self.failures
        return self.calls

    @expose
    @idempotent
    def read(self) -> int:
        return self._flaky()

    @expose
    def write(self) -> int:
        return self._flaky()

    @expose
    @idempotent
    def slow(self) -> int:
        self.calls += 1
        if self.calls <= self.failures:
            self.gate.wait(PATIENCE)
        return self.calls

    @expose
    @idempotent
    def fail(self) -> None:
        self.calls += 1
        raise ConnectionClosedError("an error of the method, not of the connection")


class Plain:
    @expose
    def echo(self, value: Any) -> Any:
        return value


class Breaking:
    """A stream that breaks when the reply of a thing is to be lost."""

    def __init__(self, stream: Any, thing: Thing) -> None:
        self._stream, self._thing = stream, thing

    def recv_into(self, buffer: Any, nbytes: int = 0, /) -> int:
        count: int = self._stream.recv_into(buffer, nbytes)
        if self._thing.lost:
            self._thing.lost = False
            raise ConnectionResetError("cut")
        return count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Watched:
    """A served thing, and the pauses that its clients make."""

    def __init__(self, served: Served, thing: Thing) -> None:
        self.served, self.thing = served, thing
        self.policy: Any = served.kernel.stash.get(POLICY, None) or SimpleNamespace()
        self.pauses: list[float] = []
        self.policy.sleep = self.pauses.append
        self.policy.random = lambda: 0.0
        connect = served.kernel.connect
        served.kernel.connect = lambda *args: Breaking(connect(*args), thing)  # type: ignore[method-assign]
        served.publish(thing)
        self.proxy = served.proxy()


def begin(served: Served, failures: int) -> Watched:
    return Watched(served, Thing(failures))


@pytest.fixture(params=[f"{transport}-{loop}" for transport in ("tcp4", "unix", "memory") for loop in LOOPS])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    transport, _, loop = request.param.partition("-")
    with Served(transport, loop, folder=tmp_path) as served:
        yield served


@pytest.fixture
def local() -> Iterator[Served]:
    with Served() as served:
        yield served


# ----------------------------------------------------------------------------- idempotent methods
@pytest.mark.needs("metadata")
@pytest.mark.feature("F078")
def test_scenario_22_an_idempotent_call_is_repeated_with_growing_pauses(served: Served) -> None:
    it = begin(served, failures=3)
    assert it.proxy.read() == 4
    assert it.pauses == [0.1, 0.2, 0.4]


@pytest.mark.feature("F078")
def test_other_calls_are_not_repeated(served: Served) -> None:
    it = begin(served, failures=1)
    with pytest.raises(ConnectionClosedError):
        it.proxy.write()
    assert it.thing.calls == 1
    assert it.pauses == []
    assert it.proxy.write() == 2  # the proxy itself is as good as new


@pytest.mark.needs("metadata")
@pytest.mark.feature("F078")
def test_a_timeout_is_repeated(local: Served) -> None:
    it = begin(local, failures=2)
    it.proxy._pyroBind()
    it.proxy._pyroTimeout = 0.05
    try:
        assert it.proxy.slow() == 3
    finally:
        it.thing.gate.set()
    assert len(it.pauses) == 2


@pytest.mark.needs("metadata")
def test_tries_are_counted(local: Served) -> None:
    it = begin(local, failures=100)
    with pytest.raises(ConnectionClosedError):
        it.proxy.read()
    assert it.thing.calls == 4
    local.kernel.settings.RETRY_IDEMPOTENT = 0
    with pytest.raises(ConnectionClosedError):
        it.proxy.read()
    assert it.thing.calls == 5


def test_the_client_may_know_better_than_the_server(local: Served) -> None:
    it = begin(local, failures=2)
    assert it.proxy._pyroIdempotent == set()
    it.proxy._pyroIdempotent = {"write"}
    other = copy.copy(it.proxy)
    assert other.write() == 3
    other._pyroIdempotent.clear()
    assert it.proxy._pyroIdempotent == {"write"}
    other._pyroRelease()


def test_a_server_that_cannot_be_reached_is_tried_again(local: Served) -> None:
    it = begin(local, failures=0)
    nowhere = Proxy(f"PYRO:x@{local.daemon.locationStr}.gone", kernel=local.kernel)
    nowhere._pyroIdempotent = {"read"}
    with pytest.raises(CommunicationError, match="cannot connect"):
        nowhere._pyroInvoke("read", (), {})
    assert len(it.pauses) == 3
    with pytest.raises(CommunicationError, match="cannot connect"):
        nowhere._pyroInvoke("write", (), {})
    assert len(it.pauses) == 3


def test_an_error_of_the_method_is_an_answer(local: Served) -> None:
    it = begin(local, failures=0)
    with pytest.raises(ConnectionClosedError, match="of the method"):
        it.proxy.fail()
    assert it.thing.calls == 1
    assert it.pauses == []


@pytest.mark.parametrize(
    ("error", "repeated"),
    [
        (ConnectionClosedError("x"), True),
        (TimeoutError("x"), True),
        (CommunicationError("cannot connect"), True),
        (ConnectionRefusedByPeer("no"), False),
        (ProtocolError("x"), False),
        (SerializeError("x"), False),
        (ValueError("x"), False),
    ],
)
def test_which_errors_are_worth_another_try(local: Served, error: Exception, repeated: bool) -> None:
    it = begin(local, failures=0)
    it.proxy._pyroIdempotent = {"read"}
    assert it.policy(it.proxy, "read", error, 1) is repeated
    assert it.policy(it.proxy, "write", error, 1) is False
    assert it.policy(it.proxy, "read", error, 4) is False


# ----------------------------------------------------------------------------- pauses and the budget
def test_pauses_double_up_to_a_limit_and_differ() -> None:
    kernel = make_kernel(RETRY_BACKOFF=0.5, RETRY_BACKOFF_MAX=3.0)
    policy = IdempotentPolicy(kernel.settings)
    policy.random = lambda: 0.0
    assert [policy.pause(attempt) for attempt in range(1, 6)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert policy.pause(10_000) == 3.0
    policy.random = lambda: 1.0
    assert [policy.pause(attempt) for attempt in range(1, 6)] == [0.25, 0.5, 1.0, 1.5, 1.5]
    assert make_kernel().stash[POLICY].pause(1) != make_kernel().stash[POLICY].pause(1)
    kernel.close()


def test_a_budget_runs_out_and_fills_again() -> None:
    now = [100.0]
    budget = Budget(3, lambda: now[0])
    assert [budget.take() for _ in range(5)] == [True, True, True, False, False]
    now[0] += BUDGET_PERIOD / 3 - 0.01
    assert budget.take() is False
    now[0] += 0.02
    assert [budget.take() for _ in range(2)] == [True, False]
    now[0] += 100 * BUDGET_PERIOD
    assert [budget.take() for _ in range(4)] == [True, True, True, False]
    assert all(Budget(0).take() for _ in range(1000))


@pytest.mark.needs("metadata")
def test_all_proxies_share_the_budget() -> None:
    with Served(settings={"RETRY_BUDGET": 4}) as served:
        it = begin(served, failures=1000)
        it.policy.budget.clock = lambda: 0.0
        for proxy, calls in ((it.proxy, 4), (served.proxy(), 6), (served.proxy(), 7)):
            with pytest.raises(ConnectionClosedError):
                proxy.read()
            assert it.thing.calls == calls
        assert len(it.pauses) == 4


# ----------------------------------------------------------------------------- with MAX_RETRIES
@pytest.mark.feature("F078")
def test_max_retries_repeats_anything_at_once(served: Served) -> None:
    it = begin(served, failures=2)
    it.proxy._pyroMaxRetries = 2
    assert it.proxy.write() == 3
    assert it.pauses == []
    it.thing.calls, it.thing.failures = 0, 3
    with pytest.raises(ConnectionClosedError):
        it.proxy.write()


@pytest.mark.needs("metadata")
def test_max_retries_goes_on_where_the_budget_ends(local: Served) -> None:
    local.kernel.settings.MAX_RETRIES = 5
    it = begin(local, failures=5)
    assert it.proxy.read() == 6
    assert len(it.pauses) == 3


# ----------------------------------------------------------------------------- metadata
@pytest.mark.needs("metadata")
@pytest.mark.parametrize("serializer", ["serpent", "json", "msgpack"])
def test_the_server_says_which_methods_are_idempotent(local: Served, serializer: str) -> None:
    it = begin(local, failures=1)
    it.proxy._pyroSerializer = serializer
    it.proxy._pyroBind()
    assert it.proxy._pyroNotes == {"idempotent": {"read", "slow", "fail"}}
    assert it.proxy._pyroMethods == {"read", "write", "slow", "fail"}


def test_without_idempotent_methods_the_metadata_is_that_of_old_peers(local: Served) -> None:
    local.publish(Plain(), "plain")
    assert set(local.kernel.members_of(Plain).metadata()) == {"methods", "attrs", "oneway"}
    proxy = local.proxy("plain")
    assert proxy.echo(1) == 1
    assert proxy._pyroNotes == {}


def test_metadata_that_makes_no_sense_is_passed_over(local: Served) -> None:
    local.publish(Plain(), "plain")
    proxy = local.proxy("plain")
    proxy._pyroGetMetadata(known_metadata={"methods": ["echo"], "idempotent": 5, "other": ["echo", 1, None]})
    assert proxy._pyroNotes == {"other": {"echo"}}


def test_without_the_plugin_nothing_is_repeated() -> None:
    with Served(environ={"PYRO_DISABLE_PLUGINS": "retry"}) as served:
        it = begin(served, failures=1)
        with pytest.raises(ConnectionClosedError):
            it.proxy.read()
        assert it.proxy.read() == 2


# --------------------------------------------------------------------------- a server that is overloaded
class Busy:
    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.echoes = 0

    @expose
    def wait(self) -> str:
        self.entered.set()
        self.gate.wait(PATIENCE)
        return "over"

    @expose
    def echo(self, value: Any) -> Any:
        self.echoes += 1
        return value

    @expose
    @idempotent
    def read(self, value: Any) -> Any:
        return self.echo(value)

    @expose
    def pass_on(self) -> None:
        self.echoes += 1
        error = OverloadError("another server was overloaded", 0.01)
        error.refused = True  # as it came from there
        raise error


def test_a_call_that_an_overloaded_server_refused_is_made_again() -> None:
    """Where calls are repeated at all: it was not executed."""
    busy = Busy()
    settings = {"THREADPOOL_SIZE": 1, "THREADPOOL_SIZE_MIN": 1, "CALL_QUEUE_SIZE": 0, "RETRY_IDEMPOTENT": 100}
    with Served("tcp4", "thread", settings=settings) as served:
        served.publish(busy)
        first, plain, patient, reader = [served.proxy() for _ in range(4)]
        for proxy in (first, plain, patient, reader):
            proxy.echo(0)
        before = busy.echoes
        running = in_thread(first.wait)
        assert busy.entered.wait(PATIENCE)
        with pytest.raises(OverloadError) as caught:
            plain.echo(1)
        assert caught.value.refused
        patient._pyroMaxRetries = 100
        calls = [in_thread(patient.echo, 2), in_thread(reader.read, 3)]
        threading.Timer(0.05, busy.gate.set).start()
        assert [call.result(PATIENCE) for call in calls] == [2, 3]
        assert running.result(PATIENCE) == "over"
        assert busy.echoes == before + 2


def test_what_a_method_passes_on_is_not_repeated() -> None:
    """The method has begun; that it met an overloaded server says nothing about its own call."""
    busy = Busy()
    with Served("tcp4", "thread") as served:
        served.publish(busy)
        proxy = served.proxy()
        proxy._pyroMaxRetries = 5
        with pytest.raises(OverloadError) as caught:
            proxy.pass_on()
        assert not caught.value.refused
        assert busy.echoes == 1


@pytest.mark.parametrize("nonsense", ["soon", None, -1.0, float("nan")])
def test_advice_that_makes_no_sense_is_none(nonsense: Any) -> None:
    assert advice(OverloadError("full", nonsense), 0.5, 5.0) == 0.0
    assert advice(OverloadError("full", 1e9), 0.5, 5.0) == 5.0
    assert advice(OverloadError("full", 1.0), 0.5, 5.0) == 1.25
