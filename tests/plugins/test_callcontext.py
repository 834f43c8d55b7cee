"""``current_context``: what a method can know of the call it serves; nothing of one call is left for the next."""

from __future__ import annotations

import asyncio
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pyroplug.api import Daemon, PluginError, current_context, expose, oneway
from pyroplug.core.wire import FLAG_ONEWAY
from pyroplug.plugins.callcontext import client_side
from pyroplug.testing.kernels import PATIENCE, Serve, Served, make_kernel

pytestmark = [pytest.mark.usefixtures("clean_context"), pytest.mark.needs("callcontext"), pytest.mark.feature("F231")]


@expose
class Thing:
    def __init__(self) -> None:
        self.seen = queue.Queue[Any]()
        self.barrier = threading.Barrier(4)
        self.gate = threading.Event()
        self.next: Any = None

    def numbers(self) -> list[int]:
        return [current_context.seq, current_context.msg_flags, current_context.serializer_id]

    def client(self) -> bool:
        return str(current_context.client.objectId) == "thing"

    def address(self) -> Any:
        return current_context.client_sock_addr

    def late_address(self) -> None:
        self.gate.wait(PATIENCE)
        self.seen.put(current_context.client_sock_addr)

    def together(self, who: bytes) -> bool:
        before = dict(current_context.annotations)
        self.barrier.wait(PATIENCE)
        return before == dict(current_context.annotations) == {"WHOO": who}

    def says(self, fail: bool) -> None:
        """Leaves as much behind as it can."""
        current_context.annotations = {"LEFT": b"from says"}
        current_context.response_annotations = {"RESP": b"from says"}
        if fail:
            raise ValueError("failed")

    def state(self) -> list[Any]:
        return [
            dict(current_context.annotations),
            dict(current_context.response_annotations),
            dict(current_context.reply_annotations),
        ]

    @oneway
    def note(self) -> None:
        self.seen.put((current_context.msg_flags, dict(current_context.annotations)))

    def outer(self) -> list[Any]:
        """Calls another daemon; its own context stays as it was."""
        before = [current_context.seq, current_context.client is not None, dict(current_context.annotations)]
        with self.next() as other:
            current_context.annotations = {"NEST": b"1"}
            inner = other.state()
        current_context.annotations = {}
        after = [current_context.seq, current_context.client is not None, dict(current_context.annotations)]
        return [before == after, inner[0]]

    def changes_what_came(self) -> None:
        current_context.annotations["ABCD"] = b"x"  # type: ignore[index]

    def in_a_thread(self) -> bool:
        context = current_context.to_global()
        seq = current_context.seq

        def work() -> bool:
            empty = current_context.client is None
            current_context.from_global(context)
            return empty and current_context.seq == seq

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(work).result(PATIENCE)


def test_outside_of_calls() -> None:
    assert current_context.client is None
    assert current_context.client_sock_addr is None
    assert (current_context.seq, current_context.msg_flags, current_context.serializer_id) == (0, 0, 0)
    assert current_context.annotations == {}
    assert current_context.response_annotations == {}
    assert current_context.correlation_id is None
    assert repr(current_context) == "<context of None>"


@pytest.mark.feature("F234")
def test_the_numbers_of_the_request(serve: Serve) -> None:
    proxy = serve(Thing()).proxy()
    first, second = proxy.numbers(), proxy.numbers()
    assert second[0] == first[0] + 1 == proxy._pyroSeq
    assert first[1:] == [0, 1]
    proxy._pyroSerializer = "json"
    assert proxy.numbers()[2] == 3


@pytest.mark.feature("F232")
def test_the_connection_of_the_caller(serve: Serve) -> None:
    assert serve(Thing()).proxy().client() is True


@pytest.mark.feature("F233")
def test_the_address_of_the_caller() -> None:
    thing = Thing()
    with Served("tcp4") as served:
        served.publish(thing)
        proxy = served.proxy()
        assert tuple(proxy.address()) == tuple(proxy._pyroLocalSocket or ())


@pytest.mark.feature("F232", "F233")
def test_the_address_is_known_after_the_caller_has_gone() -> None:
    thing = Thing()
    with Served("tcp4") as served:
        served.publish(thing)
        proxy = served.proxy()
        proxy._pyroBind()
        address = proxy._pyroLocalSocket
        proxy._pyroInvoke("late_address", (), {}, flags=FLAG_ONEWAY)
        proxy._pyroRelease()
        assert served.proxy().client() is True
        thing.gate.set()
        assert thing.seen.get(timeout=PATIENCE) == address


def test_calls_at_the_same_time_have_their_own(serve_threads: Serve) -> None:
    served = serve_threads(Thing())

    def call(number: int) -> bool:
        current_context.annotations = {"WHOO": bytes([number])}
        with served.proxy() as proxy:
            same: bool = proxy.together(bytes([number]))
            return same

    for proxy_class in ("serpent", "msgpack"):
        served.kernel.settings.SERIALIZER = proxy_class
        with ThreadPoolExecutor(4) as pool:
            if proxy_class == "msgpack":  # serpent gives bytes another form
                assert list(pool.map(call, range(4))) == [True] * 4


@pytest.mark.parametrize("fail", [False, True])
def test_nothing_is_left_for_the_next_call(fail: bool, serve: Serve) -> None:
    served = serve(Thing())
    proxy = served.proxy()
    for _ in range(10):  # more often than there are threads that have seen nothing yet
        if fail:
            with pytest.raises(ValueError, match="failed"):
                proxy.says(True)
            assert current_context.response_annotations == {}  # what a method said does not hold for its failure
        else:
            proxy.says(False)
            assert current_context.response_annotations == {"RESP": b"from says"}
        assert proxy.state() == [{}, {}, {}]
        assert current_context.response_annotations == {}


def test_nothing_is_left_for_handshakes(serve_at: Serve) -> None:
    seen = []

    class Watching(Daemon):
        def validateHandshake(self, conn: Any, data: Any) -> Any:
            seen.append((set(current_context.annotations) - {"PLUG"}, dict(current_context.reply_annotations)))
            current_context.annotations = {"LEFT": b"by a validator"}
            return "hello"

    served = serve_at(Thing(), daemon_class=Watching)
    for _ in range(5):
        with served.proxy() as proxy:
            proxy.says(False)
            current_context.response_annotations = {}
            assert proxy.state()[0] == {}
        client_side.set(None)
    assert seen == [(set(), {})] * 5


@pytest.mark.needs("metadata", "oneway")
def test_oneway_calls(serve: Serve) -> None:
    thing = Thing()
    proxy = serve(thing).proxy()
    current_context.annotations = {"ABCD": b"1"}
    proxy.note()
    current_context.annotations = {}
    proxy.note()
    assert thing.seen.get(timeout=PATIENCE) == (FLAG_ONEWAY, {"ABCD": b"1"})
    assert thing.seen.get(timeout=PATIENCE) == (FLAG_ONEWAY, {})


def test_nested_calls(serve_some: Serve) -> None:
    thing = Thing()
    served = serve_some(thing)
    with Served("memory", kernel=served.kernel) as other:
        other.publish(Thing())
        thing.next = other.proxy
        proxy = served.proxy()
        current_context.annotations = {"OUTR": b"2"}
        same, inner = proxy.outer()
        assert same is True
        assert set(inner) == {"NEST"}  # what came with the outer call is not passed on by itself
        assert current_context.annotations == {"OUTR": b"2"}


def test_what_came_with_a_call_cannot_be_changed(serve_some: Serve) -> None:
    proxy = serve_some(Thing()).proxy()
    with pytest.raises(TypeError, match="does not support item assignment"):
        proxy.changes_what_came()
    assert proxy.state()[0] == {}


def test_taking_the_context_to_another_thread(serve_some: Serve) -> None:
    assert serve_some(Thing()).proxy().in_a_thread() is True


def test_tasks_do_not_share_what_they_say() -> None:
    async def work(name: str) -> Any:
        current_context.annotations[name] = b"1"  # type: ignore[index]
        await asyncio.sleep(0)
        return dict(current_context.annotations)

    async def main() -> Any:
        current_context.annotations = {"BASE": b"0"}
        return await asyncio.gather(work("AAAA"), work("BBBB"))

    assert asyncio.run(main()) == [{"BASE": b"0", "AAAA": b"1"}, {"BASE": b"0", "BBBB": b"1"}]


def test_the_plugins_around_it_can_be_off() -> None:
    @expose
    class Asking:
        def track(self) -> None:
            current_context.track_resource(self)

        def session(self) -> Any:
            return current_context.session.value

    kernel = make_kernel(environ={"PYRO_DISABLE_PLUGINS": "resources,session"})
    with Served(kernel=kernel) as served:
        served.publish(Asking())
        proxy = served.proxy()
        with pytest.raises(PluginError, match="plugin 'resources', which is off"):
            proxy.track()
        with pytest.raises(PluginError, match="plugin 'session', which is off"):
            proxy.session()
    kernel.close()
    for use in (lambda: current_context.track_resource(1), lambda: current_context.session):
        with pytest.raises(PluginError, match="in a remote call only"):
            use()
