"""The plugin batch: many calls in one message."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pyroplug.api import BatchProxy, Proxy, batch, behavior, expose
from pyroplug.core.errors import (
    DaemonError,
    MessageTooLargeError,
    PluginError,
    PyroError,
    RemoteProtocolError,
    SerializeError,
)
from pyroplug.core.wire import FLAG_BATCH, FLAG_EXCEPTION, FLAG_ONEWAY, Frame
from pyroplug.testing.kernels import PATIENCE, Serve, Served

pytestmark = pytest.mark.needs("batch")

SERIALIZERS = ["serpent", "json", "msgpack", "marshal"]


class Odd(Exception):
    """An exception with something on it that cannot travel."""

    def __init__(self) -> None:
        super().__init__("odd")
        self.lock = threading.Lock()


@expose
class Thing:
    def __init__(self) -> None:
        self.seen: list[Any] = []
        self._changed = threading.Condition()

    def note(self, value: Any) -> int:
        with self._changed:
            self.seen.append(value)
            self._changed.notify_all()
        return len(self.seen)

    def wait_for(self, count: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: len(self.seen) >= count, PATIENCE)

    def add(self, a: int, b: int = 0) -> int:
        return a + b

    def divide(self, a: int, b: int) -> float:
        return a / b

    def odd(self) -> None:
        raise Odd

    def leave(self) -> None:
        raise SystemExit(3)

    def stop(self) -> None:
        raise StopIteration

    def items(self) -> Iterator[int]:
        return iter([1, 2])

    def text(self, size: int) -> str:
        return "x" * size

    @property
    def size(self) -> int:
        return len(self.seen)


@pytest.fixture
def served(serve_everywhere: Serve) -> Served:
    return serve_everywhere(Thing())


@pytest.fixture
def local() -> Iterator[Served]:
    with Served(settings={"SERIALIZERS_ACCEPTED": set(SERIALIZERS)}) as served:
        served.publish(Thing())
        yield served


# ----------------------------------------------------------------------------- F092
@pytest.mark.feature("F092")
def test_results_come_in_the_order_of_the_calls(served: Served) -> None:
    calls = served.proxy()._pyroBatch()
    assert calls.add(1, 2) is None
    calls.add(3, b=4)
    for number in range(50):
        calls.add(number)
    assert len(calls) == 52
    results = calls()
    assert next(results) == 3
    assert list(results) == [7, *range(50)]
    calls.add(9)  # it can be used again, and has forgotten what was made
    assert list(calls()) == [9]


@pytest.mark.feature("F092")
@pytest.mark.parametrize("make", [BatchProxy, batch, lambda proxy: proxy._pyroBatch()])
def test_there_are_three_ways_to_make_one(local: Served, make: Any) -> None:
    with make(local.proxy()) as calls:
        assert isinstance(calls, BatchProxy)
        calls.add(1, 1)
        assert list(calls()) == [2]


@pytest.mark.needs("metadata")
@pytest.mark.feature("F092")
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_scenario_54_an_error_in_the_middle_ends_the_batch(local: Served, serializer: str) -> None:
    proxy = local.proxy()
    proxy._pyroSerializer = serializer
    calls = BatchProxy(proxy)
    calls.note("before")
    calls.divide(1, 0)
    calls.note("after")
    results = calls()
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError) as caught:
        next(results)
    trace = "".join(caught.value._pyroTraceback)  # type: ignore[attr-defined]
    assert "in divide" in trace
    assert "pyroplug/plugins" not in trace
    assert list(results) == []
    assert proxy.size == 1  # what came after was not run


@pytest.mark.feature("F092")
def test_scenario_54_over_every_transport_and_loop(served: Served) -> None:
    calls = BatchProxy(served.proxy())
    assert list(calls()) == []  # empty
    calls.add(1)
    calls.items()
    results = calls()
    assert next(results) == 1
    with pytest.raises(SerializeError, match="iterator"):
        next(results)  # no streams in a batch
    calls.divide(1, 0)
    with pytest.raises(ZeroDivisionError):
        next(calls())


@pytest.mark.feature("F092")
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_scenario_52_a_result_that_cannot_travel_is_an_error_in_its_place(local: Served, serializer: str) -> None:
    proxy = local.proxy()
    proxy._pyroSerializer = serializer
    calls = BatchProxy(proxy)
    calls.add(1)
    calls.items()
    results = calls()
    assert next(results) == 1
    with pytest.raises(SerializeError):
        next(results)
    calls.add(1)
    calls.odd()
    results = calls()
    assert next(results) == 1
    with pytest.raises(PyroError, match="Error serializing exception"):
        next(results)
    assert proxy.add(2) == 2


@pytest.mark.needs("metadata")
def test_scenario_52_an_argument_that_cannot_travel_is_refused_before_anything_is_sent(local: Served) -> None:
    proxy = local.proxy()
    calls = BatchProxy(proxy)
    calls.note(1)
    calls.note(threading.Lock())
    with pytest.raises(SerializeError):
        calls()
    assert proxy.size == 0


@pytest.mark.parametrize(
    ("name", "text"),
    [("nope", "no attribute 'nope'"), ("_hidden", "private"), ("ad", "did you mean 'add'"), ("__init__", "private")],
)
def test_a_name_that_is_no_method_is_an_error_in_its_place(local: Served, name: str, text: str) -> None:
    calls = BatchProxy(local.proxy())
    calls.add(1)
    calls._calls.append((name, (), {}))
    results = calls()
    assert next(results) == 1
    with pytest.raises(AttributeError, match=text):
        next(results)


def test_an_error_that_would_end_the_server_is_wrapped(local: Served) -> None:
    calls = BatchProxy(local.proxy())
    calls.add(1)
    calls.leave()
    results = calls()
    assert next(results) == 1
    with pytest.raises(PyroError, match="SystemExit"):
        next(results)


def test_a_remote_stopiteration_does_not_end_the_results_silently(local: Served) -> None:
    calls = BatchProxy(local.proxy())
    calls.stop()
    calls.add(1)
    with pytest.raises(RuntimeError):
        list(calls())


def test_an_unknown_object_fails_the_whole_batch(local: Served) -> None:
    proxy = local.proxy("thing")
    proxy._pyroBind()
    local.daemon.unregister("thing")
    calls = BatchProxy(proxy)
    calls.add(1)
    with pytest.raises(DaemonError, match="unknown object"):
        calls()


# ----------------------------------------------------------------------------- F093, F094
@pytest.mark.feature("F093")
def test_scenario_54_a_oneway_batch_gives_nothing_back(served: Served) -> None:
    proxy = served.proxy()
    calls = BatchProxy(proxy)
    calls.note("a")
    calls.note("b")
    calls.divide(1, 0)
    calls.note("never")
    assert calls(oneway=True) is None
    assert proxy.wait_for(2)
    calls.note("c")
    assert calls(oneway=True) is None
    assert proxy.wait_for(3)
    assert served.daemon.objectsById["thing"].seen == ["a", "b", "c"]


@pytest.mark.feature("F094")
def test_an_asynchronous_batch_is_a_future(served: Served) -> None:
    calls = BatchProxy(served.proxy())
    calls.add(1)
    calls.divide(1, 0)
    future = calls(asynchronous=True)
    assert len(calls) == 0
    results = future.value
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.feature("F094")
def test_oneway_and_asynchronous_exclude_each_other(local: Served) -> None:
    with pytest.raises(PyroError, match="oneway and asynchronous"):
        BatchProxy(local.proxy())(oneway=True, asynchronous=True)


@pytest.mark.feature("F094")
def test_asynchronous_without_futures_says_what_is_missing() -> None:
    with Served(environ={"PYRO_DISABLE_PLUGINS": "futures"}) as served:
        served.publish(Thing())
        calls = BatchProxy(served.proxy())
        calls.add(1)
        with pytest.raises(PluginError, match="'futures'"):
            calls(asynchronous=True)
        assert list(calls()) == []


def test_without_the_plugin_a_proxy_says_which_are_off() -> None:
    with Served(environ={"PYRO_DISABLE_PLUGINS": "batch"}) as served:
        served.publish(Thing())
        with pytest.raises(AttributeError, match=r"'_pyroBatch'.*off: .*batch"):
            served.proxy()._pyroBatch()


# ----------------------------------------------------------------------------- limits and bad requests
@pytest.mark.parametrize(("count", "fits"), [(0, True), (1, True), (5, True), (6, False), (100, False)])
def test_the_length_of_a_batch_is_limited(count: int, fits: bool) -> None:
    with Served(settings={"BATCH_MAX_CALLS": 5}) as served:
        thing = Thing()
        served.publish(thing)
        calls = BatchProxy(served.proxy())
        for number in range(count):
            calls.note(number)
        if fits:
            assert len(list(calls())) == count
        else:
            with pytest.raises(DaemonError, match=f"batch of {count} calls.*BATCH_MAX_CALLS is 5"):
                calls()
            assert thing.seen == []


@pytest.mark.parametrize(
    "bad", [[], "add", ("add",), ("add", (1,)), ("add", 1, {}), (1, (), {}), ("add", (), [1]), None, (["add"], (), {})]
)
def test_what_is_no_call_is_an_error_in_its_place(local: Served, bad: Any) -> None:
    with local.peer() as peer:
        peer.hello()
        reply = peer.call("thing", "<batch>", ("add", (1,), None), bad, ("note", (1,), {}), flags=FLAG_BATCH)
        assert reply.flags & FLAG_BATCH
        assert not reply.flags & FLAG_EXCEPTION
        value = peer.value(reply)
        assert value[0] == 1
        assert isinstance(value[1].exception, RemoteProtocolError)
        assert len(value) == 2


def test_null_keyword_arguments_are_none_at_all(local: Served) -> None:
    with local.peer() as peer:
        peer.hello()
        reply = peer.call("thing", "<batch>", ["add", [2], None], flags=FLAG_BATCH)
        assert peer.value(reply) == [2]


def test_a_reply_that_is_no_list_is_refused(local: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = local.proxy()
    monkeypatch.setattr(type(proxy), "_pyroInvoke", lambda *args, **kwargs: 5)
    with pytest.raises(RemoteProtocolError, match="must be a list"):
        BatchProxy(proxy)()


def test_a_reply_that_is_too_large_is_one_error() -> None:
    with Served(settings={"MAX_MESSAGE_SIZE": 20_000}) as served:
        served.publish(Thing())
        proxy = served.proxy()
        calls = BatchProxy(proxy)
        for _ in range(10):
            calls.text(3000)
        with pytest.raises(MessageTooLargeError):
            calls()
        for _ in range(5):
            calls.text(3000)
        assert len(list(calls())) == 5


def test_properties_can_be_read_in_a_batch(local: Served) -> None:
    calls = BatchProxy(local.proxy())
    calls.note(1)
    calls._calls.append(("__getattr__", ("size",), {}))  # pseudo methods of other plugins are in the table as well
    assert list(calls()) == [1, 1]


# ----------------------------------------------------------------------------- with other plugins
def test_the_error_hook_hears_of_each_call_that_fails(local: Served) -> None:
    heard: list[Any] = []
    local.daemon.methodcall_error_handler = lambda *about: heard.append(about[2:])
    calls = BatchProxy(local.proxy())
    calls.add(1)
    calls.divide(1, b=0)
    list_ = calls()
    assert next(list_) == 1
    with pytest.raises(ZeroDivisionError):
        next(list_)
    [(method, args, kwargs, error)] = heard
    assert (method, list(args), kwargs) == ("divide", [1], {"b": 0})
    assert isinstance(error, ZeroDivisionError)


@pytest.mark.parametrize(("mode", "expected"), [("single", [1, 2, 3]), ("session", [1, 2, 3]), ("percall", [1, 2, 3])])
def test_one_instance_serves_the_whole_batch(mode: str, expected: list[int]) -> None:
    @expose
    @behavior(mode)
    class Counter:
        def __init__(self) -> None:
            self.count = 0

        def up(self, step: int = 1) -> int:
            self.count += step
            return self.count

    with Served() as served:
        served.publish(Counter, "counter")
        calls = BatchProxy(served.proxy("counter"))
        calls.up()
        calls.up(step=1)
        calls.up(1)
        assert list(calls()) == expected


def test_a_weak_object_serves_batches() -> None:
    thing = Thing()
    with Served() as served:
        served.publish(thing, "weak", weak=True)
        calls = BatchProxy(served.proxy("weak"))
        calls.add(4)
        assert list(calls()) == [4]


def test_compressed_batches() -> None:
    with Served(settings={"COMPRESSION": True}) as served:
        served.publish(Thing())
        calls = BatchProxy(served.proxy())
        for number in range(300):
            calls.add(number)
        assert list(calls()) == list(range(300))


def test_the_raw_reply_can_be_had(local: Served) -> None:
    proxy = local.proxy()
    proxy._pyroRawWireResponse = True
    calls = BatchProxy(proxy)
    calls.add(1)
    frame = calls()
    assert isinstance(frame, Frame)
    assert frame.flags & FLAG_BATCH


# ----------------------------------------------------------------------------- the object itself
def test_it_is_copied_with_its_calls_but_not_its_future(local: Served) -> None:
    calls = BatchProxy(local.proxy())
    calls.add(1)
    other = copy.copy(calls)
    other.add(2)
    assert list(calls()) == [1]
    assert list(other()) == [1, 2]
    assert calls
    assert "0 calls" in repr(calls)
    with pytest.raises(AttributeError):
        calls._private  # noqa: B018
    with pytest.raises(AttributeError):
        calls.__deepcopy__  # noqa: B018


def test_threads_may_fill_one_batch(local: Served) -> None:
    calls = BatchProxy(local.proxy())
    threads = [threading.Thread(target=lambda: [calls.add(1) for _ in range(100)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(calls()) == 400


def test_the_flags_on_the_wire(local: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    proxy = local.proxy()

    def record(self: Proxy, *args: Any) -> list[Any]:
        sent.append(args)
        return []

    monkeypatch.setattr(Proxy, "_pyroInvoke", record)
    calls = BatchProxy(proxy)
    calls.add(1, b=2)
    calls()
    calls(oneway=True)
    assert sent == [
        ("<batch>", [("add", (1,), {"b": 2})], {}, FLAG_BATCH),
        ("<batch>", [], {}, FLAG_BATCH | FLAG_ONEWAY),
    ]
