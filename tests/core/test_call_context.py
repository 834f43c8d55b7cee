"""``current_context``: what a method sees of its call, and that nothing of it is seen by anybody else."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pyroplug.core.call import current_call
from pyroplug.core.client import Proxy
from pyroplug.core.daemon import Daemon
from pyroplug.core.kernel import Kernel
from pyroplug.core.members import expose
from pyroplug.plugins.callcontext import current_context
from pyroplug.plugins.oneway import oneway
from testkit.timeouts import PATIENCE

ONE = uuid.UUID(int=1)
TWO = uuid.UUID(int=2)


def seen() -> dict[str, Any]:
    """The context as plain data."""
    return {
        "client": current_context.client is not None,
        "address": current_context.client_sock_addr is not None,
        "seq": current_context.seq,
        "flags": current_context.msg_flags,
        "serializer": current_context.serializer_id,
        "annotations": {key: value.decode() for key, value in current_context.annotations.items()},
        "correlation": str(current_context.correlation_id),
    }


NOTHING = {
    "client": False, "address": False, "seq": 0, "flags": 0, "serializer": 0, "annotations": {}, "correlation": "None",
}  # fmt: skip


@expose
class Thing:
    def __init__(self) -> None:
        self._other: Proxy | None = None
        self._together = threading.Barrier(2)
        self._oneway: list[dict[str, Any]] = []
        self._done = threading.Event()

    def context(self) -> dict[str, Any]:
        return seen()

    def answer(self, text: str) -> None:
        current_context.response_annotations = {"ANSW": text.encode()}

    def fail(self) -> None:
        current_context.response_annotations["FAIL"] = b"x"
        raise ValueError("on purpose")

    def meet(self) -> list[str]:
        """Wait for the other caller inside the call; the context is one's own all the same."""
        before = str(current_context.correlation_id)
        self._together.wait(PATIENCE)
        return [before, str(current_context.correlation_id)]

    def nested(self) -> list[dict[str, Any]]:
        assert self._other is not None
        before = seen()
        inner = self._other.context()
        return [before, inner, seen()]

    def nested_with_annotations(self) -> list[dict[str, Any]]:
        assert self._other is not None
        current_context.annotations = {"MINE": b"nested"}
        return [self._other.context(), self._other.context()]

    def in_a_thread(self) -> dict[str, Any]:
        """What a thread sees that a method starts, with nothing done about it."""
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(contextvars.Context().run, seen).result()

    def in_a_thread_that_takes_over(self) -> list[dict[str, Any]]:
        values = current_context.to_global()

        def work() -> dict[str, Any]:
            current_context.from_global(values)
            return seen()

        with ThreadPoolExecutor(1) as pool:
            return [seen(), pool.submit(contextvars.Context().run, work).result()]

    @oneway
    def fire(self) -> None:
        self._oneway.append(seen())
        self._done.set()


class Pair:
    """Two daemons, the object of the first calling that of the second."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.thing, self.inner = Thing(), Thing()
        self.daemons = [Daemon(memory=True, kernel=kernel) for _ in range(2)]
        self.uris = [d.register(o, "thing") for d, o in zip(self.daemons, (self.thing, self.inner), strict=True)]
        self.threads = [threading.Thread(target=daemon.requestLoop) for daemon in self.daemons]
        for thread in self.threads:
            thread.start()
        self.thing._other = Proxy(self.uris[1], kernel=kernel)

    def proxy(self) -> Proxy:
        return Proxy(self.uris[0], kernel=self.kernel)

    def close(self) -> None:
        assert self.thing._other is not None
        self.thing._other._pyroRelease()
        for daemon in self.daemons:
            daemon.shutdown()
        for thread in self.threads:
            thread.join(PATIENCE)
        self.kernel.close()


@pytest.fixture(params=["thread", "multiplex"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    made = Pair(Kernel(settings={"SERVERTYPE": request.param}, environ={}))
    yield made
    made.close()


def alone(function: Callable[[], Any]) -> Any:
    """Run in a context of its own, so that what is set there goes with it."""
    return contextvars.copy_context().run(function)


# ------------------------------------------------------------------------------------------------ in a call
@pytest.mark.feature("F231", "F232", "F233", "F234", "F237")
def test_a_method_sees_its_call(pair: Pair) -> None:
    with pair.proxy() as proxy:
        first, second = proxy.context(), proxy.context()
    assert first["client"]
    assert first["address"]
    assert (first["seq"], second["seq"]) == (1, 2)
    assert (first["flags"], first["serializer"], first["annotations"]) == (0, 1, {})
    assert uuid.UUID(first["correlation"]) != uuid.UUID(second["correlation"])


@pytest.mark.feature("F231")
def test_outside_of_calls_there_is_nothing(pair: Pair) -> None:
    assert alone(seen) == NOTHING
    with pair.proxy() as proxy:
        proxy.context()
    assert alone(seen) == NOTHING
    assert current_call.get() is None


@pytest.mark.feature("F235", "F236")
def test_what_a_client_says_is_seen_and_answered(pair: Pair) -> None:
    def client() -> None:
        with pair.proxy() as proxy:
            current_context.annotations = {"NOTE": b"hello"}
            current_context.correlation_id = ONE
            assert current_context.response_annotations == {}
            got = proxy.context()
            assert (got["annotations"], got["correlation"]) == ({"NOTE": "hello"}, str(ONE))
            assert got["flags"] == 0x40
            proxy.answer("yes")
            assert current_context.response_annotations == {"ANSW": b"yes"}
            proxy.context()
            assert current_context.response_annotations == {}

    alone(client)
    with pair.proxy() as proxy:
        assert proxy.context()["annotations"] == {}


@pytest.mark.parametrize("value", ["text", 1, b"0" * 16])
def test_a_correlation_id_is_a_uuid(value: Any) -> None:
    with pytest.raises(TypeError, match="correlation_id must be a UUID or None"):
        current_context.correlation_id = value


@pytest.mark.feature("F235")
def test_annotations_of_a_failed_call_stay_behind(pair: Pair) -> None:
    def client() -> None:
        with pair.proxy() as proxy:
            for _ in range(5):
                with pytest.raises(ValueError, match="on purpose"):
                    proxy.fail()
                assert current_context.response_annotations == {}
                proxy.context()
                assert current_context.response_annotations == {}

    alone(client)


# ------------------------------------------------------------------------------------------------ nested calls
@pytest.mark.feature("F236")
def test_a_nested_call_has_a_context_of_its_own_and_the_same_correlation(pair: Pair) -> None:
    def client() -> list[dict[str, Any]]:
        with pair.proxy() as proxy:
            current_context.annotations = {"NOTE": b"outer"}
            current_context.correlation_id = ONE
            found: list[dict[str, Any]] = proxy.nested()
            return found

    before, inner, after = alone(client)
    assert before == after
    assert before["annotations"] == {"NOTE": "outer"}
    assert inner["annotations"] == {}
    assert before["correlation"] == inner["correlation"] == str(ONE)


@pytest.mark.feature("F236", "F237")
def test_an_id_made_by_the_server_goes_on_with_nested_calls(pair: Pair) -> None:
    with pair.proxy() as proxy:
        before, inner, after = proxy.nested()
        assert before["correlation"] == inner["correlation"] == after["correlation"]
        assert proxy.nested()[0]["correlation"] != before["correlation"]


def test_what_a_method_says_ends_with_its_call(pair: Pair) -> None:
    with pair.proxy() as proxy:
        assert [found["annotations"] for found in proxy.nested_with_annotations()] == [{"MINE": "nested"}] * 2
        for _ in range(5):  # whatever thread serves them
            assert proxy.nested()[1]["annotations"] == {}


# ------------------------------------------------------------------------------------------------ threads and tasks
def test_calls_that_run_at_the_same_time_have_their_own() -> None:
    made = Pair(Kernel(environ={}))

    def client(correlation: uuid.UUID) -> list[str]:
        with made.proxy() as proxy:
            current_context.correlation_id = correlation
            found: list[str] = proxy.meet()
            return found

    try:
        with ThreadPoolExecutor(2) as pool:
            one, two = (pool.submit(client, correlation) for correlation in (ONE, TWO))
            assert one.result(PATIENCE) == [str(ONE)] * 2
            assert two.result(PATIENCE) == [str(TWO)] * 2
    finally:
        made.close()


def test_a_thread_that_a_method_starts_sees_nothing_unless_it_takes_over(pair: Pair) -> None:
    with pair.proxy() as proxy:
        assert proxy.in_a_thread() == NOTHING
        mine, taken = proxy.in_a_thread_that_takes_over()
    assert mine == taken
    assert mine["client"]


def test_client_threads_do_not_share_what_they_say(pair: Pair) -> None:
    said, heard = threading.Event(), threading.Event()

    def one() -> None:
        current_context.annotations = {"NOTE": b"one"}
        said.set()
        assert heard.wait(PATIENCE)

    def two() -> Any:
        assert said.wait(PATIENCE)
        with pair.proxy() as proxy:
            found = proxy.context()["annotations"]
        heard.set()
        return found

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.submit(one), pool.submit(two)
        assert second.result(PATIENCE) == {}
        first.result(PATIENCE)


@pytest.mark.parametrize("in_place", [False, True])
def test_copies_of_a_context_do_not_share_what_they_say(pair: Pair, in_place: bool) -> None:
    def say(text: bytes) -> None:
        if in_place:
            current_context.annotations["NOTE"] = text  # type: ignore[index]
        else:
            current_context.annotations = {"NOTE": text}

    def client() -> None:
        with pair.proxy() as proxy:
            proxy.answer("so that there is something to share")
            say(b"outer")
            alone(lambda: say(b"inner"))
            alone(lambda: proxy.answer("inner"))
            assert proxy.context()["annotations"] == {"NOTE": "outer"}
            current_context.correlation_id = ONE
            alone(lambda: setattr(current_context, "correlation_id", TWO))
            assert current_context.correlation_id == ONE

    alone(client)


def test_tasks_do_not_share_what_they_say(pair: Pair) -> None:
    async def client(number: int, said: asyncio.Event) -> Any:
        current_context.annotations = {"NOTE": str(number).encode()}
        if number == 1:
            said.set()
        await said.wait()
        with pair.proxy() as proxy:
            in_thread = await asyncio.to_thread(proxy.context)
            return proxy.context()["annotations"], in_thread["annotations"]

    async def main() -> list[Any]:
        current_context.annotations = {"NOTE": b"main"}
        said = asyncio.Event()
        found = await asyncio.gather(*(client(number, said) for number in range(2)))
        return [*found, dict(current_context.annotations)]

    zero, one, outer = alone(lambda: asyncio.run(main()))
    assert zero == ({"NOTE": "0"}, {"NOTE": "0"})
    assert one == ({"NOTE": "1"}, {"NOTE": "1"})
    assert outer == {"NOTE": b"main"}


@pytest.mark.feature("F091", "F231")
def test_a_oneway_call_has_its_context(pair: Pair) -> None:
    def client() -> None:
        with pair.proxy() as proxy:
            current_context.correlation_id = ONE
            proxy.fire()
            assert pair.thing._done.wait(PATIENCE)

    alone(client)
    (found,) = pair.thing._oneway
    assert found["client"]
    assert found["flags"] == 0x44
    assert found["seq"] == 1
    assert found["correlation"] == str(ONE)
