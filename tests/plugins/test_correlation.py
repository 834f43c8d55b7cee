"""Correlation ids: one id for all calls that have one cause."""

from __future__ import annotations

import queue
import threading
import uuid
from typing import Any

import pytest

from pyroplug.api import Daemon, current_context, expose, oneway
from pyroplug.core.wire import FLAG_CORR_ID, NO_CORRELATION
from pyroplug.plugins.callcontext import client_side
from pyroplug.testing.kernels import PATIENCE, Serve, Served

pytestmark = [pytest.mark.usefixtures("clean_context"), pytest.mark.needs("correlation"), pytest.mark.feature("F236")]


@expose
class Thing:
    def __init__(self) -> None:
        self.next: Any = None
        self.seen = queue.Queue[str]()

    def mine(self) -> str:
        return str(current_context.correlation_id)

    def twice(self) -> bool:
        return current_context.correlation_id == current_context.correlation_id

    def chain(self, depth: int) -> list[str]:
        if not depth:
            return [self.mine()]
        with self.next() as other:
            return [*other.chain(depth - 1), self.mine()]

    def replaced(self, value: str) -> list[str]:
        current_context.correlation_id = uuid.UUID(value)
        return self.chain(1)

    @oneway
    def note(self) -> None:
        self.seen.put(self.mine())

    def fail(self) -> None:
        raise ValueError("failed")

    def nothing(self) -> None:
        """Does not look at it."""


def test_the_method_sees_the_callers(serve: Serve) -> None:
    proxy = serve(Thing()).proxy()
    wanted = current_context.correlation_id = uuid.uuid4()
    assert uuid.UUID(proxy.mine()) == wanted
    assert current_context.correlation_id == wanted
    current_context.correlation_id = None
    assert uuid.UUID(proxy.mine()) != wanted


@pytest.mark.feature("F237")
def test_without_one_the_server_makes_one(serve: Serve) -> None:
    proxy = serve(Thing()).proxy()
    first, second = proxy.mine(), proxy.mine()
    assert uuid.UUID(first) != uuid.UUID(second)
    assert proxy.twice() is True
    assert current_context.correlation_id is None


def test_oneway_calls_have_it_too(serve_some: Serve) -> None:
    thing = Thing()
    proxy = serve_some(thing).proxy()
    wanted = current_context.correlation_id = uuid.uuid4()
    proxy.note()
    current_context.correlation_id = None
    proxy.note()
    assert thing.seen.get(timeout=PATIENCE) == str(wanted)
    assert thing.seen.get(timeout=PATIENCE) != str(wanted)


@pytest.mark.parametrize("given", [True, False])
def test_nested_calls_carry_it_on(given: bool, serve_threads: Serve) -> None:
    thing = Thing()
    served = serve_threads(thing)
    thing.next = served.proxy
    if given:
        current_context.correlation_id = uuid.uuid4()
    ids = served.proxy().chain(3)
    assert len(ids) == 4
    assert len(set(ids)) == 1
    if given:
        assert ids[0] == str(current_context.correlation_id)


def test_a_method_may_start_a_new_one(serve_threads: Serve) -> None:
    thing = Thing()
    served = serve_threads(thing)
    thing.next = served.proxy
    mine, new = uuid.uuid4(), uuid.uuid4()
    current_context.correlation_id = mine
    assert served.proxy().replaced(str(new)) == [str(new), str(new)]
    assert current_context.correlation_id == mine


def test_other_threads_do_not_have_it(serve_some: Serve) -> None:
    proxy = serve_some(Thing()).proxy()
    mine = current_context.correlation_id = uuid.uuid4()
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend([current_context.correlation_id, proxy.mine()]))
    thread.start()
    thread.join(PATIENCE)
    assert found[0] is None
    assert found[1] != str(mine)


@pytest.mark.parametrize("value", ["a text", 5, b"0" * 16])
def test_only_uuids(value: Any) -> None:
    with pytest.raises(TypeError, match="must be a UUID or None"):
        current_context.correlation_id = value


@pytest.mark.parametrize("method", ["mine", "fail", "nothing"])
def test_the_reply_brings_it_back(method: str) -> None:
    with Served() as served, served.peer() as peer:
        served.publish(Thing())
        peer.hello()
        wanted = uuid.uuid4().bytes
        frame = peer.call("thing", method, flags=FLAG_CORR_ID, correlation=wanted)
        assert frame.flags & FLAG_CORR_ID
        assert frame.correlation == wanted
        assert frame.seq == 1


def test_an_id_without_the_flag_is_ignored() -> None:
    with Served() as served, served.peer() as peer:
        served.publish(Thing())
        peer.hello()
        unwanted = uuid.uuid4()
        frame = peer.call("thing", "mine", correlation=unwanted.bytes)
        assert peer.value(frame) != str(unwanted)
        frame = peer.call("thing", "nothing", correlation=unwanted.bytes)
        assert frame.corr_id == NO_CORRELATION


@pytest.mark.feature("F237")
def test_the_handshake_has_it(serve_some: Serve) -> None:
    """As in Pyro5: wire.md 7.  Validators see the caller's, or one made now."""
    seen: list[uuid.UUID | None] = []

    class Noting(Daemon):
        def validateHandshake(self, conn: Any, data: Any) -> Any:
            seen.append(current_context.correlation_id)
            return "hello"

    served = serve_some(Thing(), daemon_class=Noting)
    proxy = served.proxy()
    mine = current_context.correlation_id = uuid.uuid4()
    try:
        proxy._pyroBind()
        assert seen == [mine]
        assert proxy.mine() == str(mine)
    finally:
        client_side.set(None)
    proxy._pyroRelease()
    proxy.nothing()
    assert len(seen) == 2
    assert seen[1] not in (mine, None)
