"""Session storage: what belongs to one client, as long as it is connected."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pyroplug.api import (
    ConnectionClosedError,
    Daemon,
    SessionStorage,
    Stash,
    current_context,
    expose,
    init_session,
    oneway,
)
from pyroplug.plugins.session import session_of
from pyroplug.testing.kernels import PATIENCE, Serve

pytestmark = [pytest.mark.needs("session"), pytest.mark.feature("F159")]


class Value:
    """Something that can be referred to weakly."""


@expose
class Thing:
    def __init__(self) -> None:
        self.kept: weakref.ref[Value] | None = None
        self.noted = threading.Event()
        self.storages: list[Any] = []

    def count(self) -> int:
        session = current_context.session
        session.count = getattr(session, "count", 0) + 1
        return int(session.count)

    @oneway
    def note(self, value: Any) -> None:
        current_context.session.note = value
        self.noted.set()

    def noted_value(self) -> Any:
        return current_context.session.note

    def user(self) -> Any:
        return current_context.session.user

    def same_connection(self) -> bool:
        return current_context.session.caller is current_context.client

    def close_caller(self) -> None:
        current_context.session.caller.close()

    def keep(self) -> None:
        value = current_context.session.value = Value()
        self.kept = weakref.ref(value)

    def remember(self) -> None:
        self.storages.append(current_context.session)


@pytest.mark.feature("F244")
def test_each_client_has_its_own(serve: Serve) -> None:
    served = serve(Thing())
    first, second = served.proxy(), served.proxy()
    assert [first.count(), first.count(), second.count(), first.count()] == [1, 2, 1, 3]


def test_it_goes_with_the_connection(serve_at: Serve) -> None:
    thing = Thing()
    proxy = serve_at(thing).proxy()
    proxy.keep()
    assert thing.kept is not None
    assert thing.kept() is not None
    proxy._pyroReconnect(1)
    assert proxy.count() == 1
    proxy._pyroRelease()
    for _ in range(500):  # the server hears of it some time after
        gc.collect()
        if thing.kept() is None:
            break
        threading.Event().wait(0.005)
    assert thing.kept() is None


def test_oneway_calls_see_the_same(serve: Serve) -> None:
    thing = Thing()
    proxy = serve(thing).proxy()
    proxy.note("x")
    assert thing.noted.wait(PATIENCE)
    assert proxy.noted_value() == "x"


@pytest.mark.feature("F160")
def test_the_connection_of_the_caller(serve_at: Serve) -> None:
    proxy = serve_at(Thing()).proxy()
    assert proxy.same_connection() is True
    proxy.close_caller()
    with pytest.raises(ConnectionClosedError):
        proxy.count()
    assert proxy.count() == 1  # over a new connection


@pytest.mark.feature("F160")
def test_a_validator_may_leave_something_there(serve_at: Serve) -> None:
    class Validating(Daemon):
        def validateHandshake(self, conn: Any, data: Any) -> Any:
            current_context.session.user = data
            assert session_of(conn) is current_context.session
            return "hello"

    served = serve_at(Thing(), daemon_class=Validating)
    for user in ("alibaba", "cassim"):
        proxy = served.proxy()
        proxy._pyroHandshake = user
        assert proxy.user() == user


@pytest.mark.feature("F161")
def test_what_it_begins_with(serve: Serve) -> None:
    served = serve(Thing())
    made = []

    def initialize(storage: SessionStorage) -> None:
        made.append(storage.caller)
        storage.count = 10

    init_session(served.daemon, initialize)
    first, second = served.proxy(), served.proxy()
    assert [first.count(), first.count(), second.count()] == [11, 12, 11]
    assert len(made) == 2
    assert None not in made


@pytest.mark.feature("F161")
def test_an_initializer_that_fails_is_tried_again(serve_some: Serve) -> None:
    served = serve_some(Thing())
    failures = [ValueError("not yet")]

    def initialize(storage: SessionStorage) -> None:
        if failures:
            raise failures.pop()
        storage.count = 5

    init_session(served.daemon, initialize)
    proxy = served.proxy()
    with pytest.raises(ValueError, match="not yet"):
        proxy.count()
    assert proxy.count() == 6


@pytest.mark.feature("F162")
def test_delegates_find_it_by_the_connection() -> None:
    class Connection:
        """As much of one as is asked for."""

        def __init__(self) -> None:
            self.stash = Stash()
            self.endpoint: Any = type("Endpoint", (), {"daemon": type("Daemon", (), {"stash": Stash()})})

    connections: list[Any] = [Connection()]
    start = threading.Barrier(8)

    def ask(_: int) -> SessionStorage:
        start.wait(PATIENCE)
        return session_of(connections[0])

    with ThreadPoolExecutor(8) as pool:
        assert len({id(storage) for storage in pool.map(ask, range(8))}) == 1
    storage = session_of(connections[0])
    storage.name = "x"
    assert "name" in repr(storage)
    connections.clear()
    gc.collect()
    assert storage.caller is None


def test_a_storage_that_is_kept_tells_that_its_client_has_gone(serve_at: Serve) -> None:
    thing = Thing()
    proxy = serve_at(thing).proxy()
    proxy.remember()
    proxy._pyroRelease()
    proxy.remember()
    assert thing.storages[0] is not thing.storages[1]
