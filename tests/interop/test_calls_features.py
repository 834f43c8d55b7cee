"""Batches, blobs, futures and idempotent methods between us and real Pyro5 programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyroplug.api import BatchProxy, Proxy, SerializedBlob, asyncproxy, expose, idempotent
from pyroplug.core.kernel import Kernel
from pyroplug.testing.kernels import Served, make_kernel

pytestmark = pytest.mark.interop

SERIALIZERS = ("serpent", "marshal", "json", "msgpack")


@expose
class Worker:
    """The counterpart of the one in ``peers/feature_server.py``."""

    def add(self, a: int, b: int = 0) -> int:
        return a + b

    def items(self) -> Iterator[int]:
        return iter([1])

    def process(self, blob: SerializedBlob) -> Any:
        return [blob.info, blob.deserialized()]

    @idempotent
    def look(self) -> str:
        return "seen"


@expose
class Dispatcher:
    def __init__(self, target: Proxy) -> None:
        self._target = target

    def dispatch(self, blob: SerializedBlob) -> Any:
        return self._target.process(blob)


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    made = make_kernel(SERIALIZERS_ACCEPTED=set(SERIALIZERS), BATCH_MAX_CALLS=5)
    yield made
    made.close()


@pytest.fixture
def own() -> Iterator[Kernel]:
    """A kernel that ends with the test, and its threads with it."""
    made = make_kernel(SERIALIZERS_ACCEPTED=set(SERIALIZERS))
    yield made
    made.close()


@pytest.fixture(scope="module")
def pyro5_objects(pyro5_serving: Callable[..., Any]) -> Iterator[dict[str, str]]:
    """The URIs of the objects of the Pyro5 server."""
    with pyro5_serving("feature_server.py") as uris:
        yield uris


def proxy(uri: str, kernel: Kernel, serializer: str) -> Proxy:
    made = Proxy(uri, kernel=kernel)
    made._pyroSerializer = serializer
    return made


# ------------------------------------------------------------------------------------------------ a Pyro5 client
@pytest.fixture(scope="module")
def found(kernel: Kernel, peer: Callable[..., Any], pyro5_objects: dict[str, str]) -> dict[str, Any]:
    """What a Pyro5 client gets from our worker, and from Pyro5's through our dispatcher."""
    with Served("tcp4", kernel=kernel) as served:
        served.publish(Worker(), "worker")
        with Proxy(pyro5_objects["worker"], kernel=kernel) as target:
            served.publish(Dispatcher(target), "dispatcher")
            answer: dict[str, Any] = peer(
                "feature_client.py", str(served.daemon.uriFor("worker")), str(served.daemon.uriFor("dispatcher"))
            )
    return answer


@pytest.mark.feature("F092")
@pytest.mark.parametrize("serializer", ["serpent", "json", "msgpack"])
def test_pyro5_gets_the_results_before_an_unknown_name(found: dict[str, Any], serializer: str) -> None:
    got = found[serializer]["batches"]
    first, (kind, text, traceback) = got["unknown"]
    assert (first, kind, traceback) == (3, "AttributeError", True)
    assert "nope" in text


@pytest.mark.feature("F092")
@pytest.mark.parametrize("serializer", ["serpent", "json", "msgpack"])
def test_pyro5_gets_the_results_before_one_that_cannot_travel(found: dict[str, Any], serializer: str) -> None:
    got = found[serializer]["batches"]
    first, (kind, text, traceback) = got["iterator"]
    assert (first, kind, traceback) == (1, "SerializeError", True)
    assert "iterator" in text
    assert got["long"][0] == "DaemonError"
    assert "BATCH_MAX_CALLS is 5" in got["long"][1]
    assert got["then"] == 2


@pytest.mark.feature("F243")
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_a_blob_from_pyro5_through_our_dispatcher_to_pyro5(found: dict[str, Any], serializer: str) -> None:
    info, data = found[serializer]["blob"]
    assert info == ["info", 1, "info"]
    # (the worker of Pyro5 takes the text "params" for the data of a json message)
    assert data == ("params" if serializer == "json" else [1, {"a": "two"}])


@pytest.mark.feature("F078")
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_pyro5_passes_over_what_it_does_not_know_in_the_metadata(found: dict[str, Any], serializer: str) -> None:
    assert found[serializer]["idempotent"] == "seen"
    assert found[serializer]["methods"] == ["add", "items", "look", "process"]


# ------------------------------------------------------------------------------------------------ a Pyro5 server
@pytest.mark.feature("F243")
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_our_blob_through_a_dispatcher_of_pyro5_to_us(
    kernel: Kernel, pyro5_objects: dict[str, str], serializer: str
) -> None:
    with Served("tcp4", kernel=kernel) as served:
        served.publish(Worker(), "worker")
        with proxy(pyro5_objects["dispatcher"], kernel, serializer) as dispatcher:
            dispatcher.use(str(served.daemon.uriFor("worker")))
            got = dispatcher.dispatch(SerializedBlob(("i", -1, 2.5, None, True, 1 << 70), [1, {"a": "two"}]))
    info, data = got
    assert list(info) == ["i", -1, 2.5, None, True, 1 << 70]
    assert data == [1, {"a": "two"}]


@pytest.mark.feature("F092", "F094")
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_our_batches_at_pyro5(own: Kernel, pyro5_objects: dict[str, str], serializer: str) -> None:
    with proxy(pyro5_objects["worker"], own, serializer) as worker:
        calls = BatchProxy(worker)
        calls.add(1, b=2)
        calls.add(3)
        assert list(calls()) == [3, 3]
        calls.add(4)
        assert list(calls(asynchronous=True).value) == [4]
        calls.add(1)
        calls.divide(1, 0)
        if serializer == "marshal":
            with pytest.raises(ValueError, match="unmarshallable"):  # Pyro5 cannot write the wrapper (wire.md 9)
                calls()
        else:
            results = calls()
            assert next(results) == 1
            with pytest.raises(ZeroDivisionError):
                next(results)
        assert worker.add(1) == 1


@pytest.mark.feature("F095", "F096")
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_our_futures_at_pyro5(own: Kernel, pyro5_objects: dict[str, str], serializer: str) -> None:
    with proxy(pyro5_objects["worker"], own, serializer) as worker, asyncproxy(worker) as later:
        assert [result.value for result in [later.meet() for _ in range(3)]] == [True] * 3  # side by side
        assert later.add(1, b=2).then(str).value == "3"
        assert isinstance(worker.divide.future(1, 0).exception(), ZeroDivisionError)
