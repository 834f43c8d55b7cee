"""Registered classes: who gets which instance, and when it goes."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest

from pyroplug.api import behavior, current_context, expose
from pyroplug.testing.kernels import PATIENCE, Serve


def make_class(mode: str | None, creator: Any = None) -> Any:
    """A class whose instances have numbers."""

    class Counting:
        made: ClassVar[list[weakref.ref[Any]]] = []
        lock = threading.Lock()

        def __init__(self) -> None:
            with Counting.lock:
                Counting.made.append(weakref.ref(self))
                self.number = len(Counting.made)
            self.calls = 0

        @expose
        def who(self) -> list[int]:
            self.calls += 1
            return [self.number, self.calls]

        @expose
        def client(self) -> int:
            return id(current_context.client)

    return behavior(mode, creator)(Counting) if mode else Counting


@pytest.mark.feature("F267", "F268")
def test_single(serve: Serve) -> None:
    cls = make_class("single")
    served = serve(cls)
    first, second = served.proxy(), served.proxy()
    assert [first.who(), second.who(), first.who()] == [[1, 1], [1, 2], [1, 3]]
    assert len(cls.made) == 1


@pytest.mark.feature("F267", "F268")
@pytest.mark.parametrize("mode", ["session", None])
def test_session_is_the_default(serve: Serve, mode: str | None) -> None:
    cls = make_class(mode)
    served = serve(cls)
    first, second = served.proxy(), served.proxy()
    assert [first.who(), second.who(), first.who()] == [[1, 1], [2, 1], [1, 2]]


@pytest.mark.feature("F267", "F268")
def test_percall(serve: Serve) -> None:
    cls = make_class("percall")
    proxy = serve(cls).proxy()
    assert [proxy.who(), proxy.who(), proxy.who()] == [[1, 1], [2, 1], [3, 1]]
    gc.collect()
    assert [reference() for reference in cls.made] == [None] * 3


def test_a_session_ends_with_its_connection(serve_at: Serve) -> None:
    cls = make_class("session")
    served = serve_at(cls)
    first, second = served.proxy(), served.proxy()
    first.who()
    second.who()
    gone = threading.Event()
    served.daemon.clientDisconnect = lambda conn: gone.set()  # type: ignore[method-assign]
    first._pyroRelease()
    assert gone.wait(PATIENCE)
    second.who()  # whatever the loop still did for the first is over
    gc.collect()
    assert cls.made[0]() is None
    assert cls.made[1]() is not None
    assert first.who() == [3, 1]


def test_a_new_proxy_on_the_same_socket_is_a_new_session(serve_some: Serve) -> None:
    """For sockets of the user's, which are never closed."""
    cls = make_class("session")
    served = serve_some(cls)
    proxy = served.proxy()
    assert proxy.who() == [1, 1]
    proxy._pyroReconnect(tries=1)
    assert proxy.who() == [2, 1]


def test_fifty_simultaneous_first_calls_make_one_single(serve_threads: Serve) -> None:
    """Scenario 24."""
    ready = threading.Barrier(50)

    def slow(cls: Any) -> Any:
        threading.Event().wait(0.02)
        return cls()

    cls = make_class("single", slow)
    served = serve_threads(cls)
    proxies = [served.proxy() for _ in range(50)]

    def call(proxy: Any) -> Any:
        proxy._pyroBind()
        ready.wait(PATIENCE)
        return proxy.who()[0]

    with ThreadPoolExecutor(50) as pool:
        assert list(pool.map(call, proxies)) == [1] * 50
    assert len(cls.made) == 1


def test_a_creator(serve_some: Serve) -> None:
    def create(cls: Any) -> Any:
        instance = cls()
        instance.number = 99
        return instance

    assert serve_some(make_class("session", create)).proxy().who() == [99, 1]


@pytest.mark.parametrize("mode", ["single", "session", "percall"])
def test_a_creator_must_return_an_instance(serve_some: Serve, mode: str) -> None:
    served = serve_some(make_class(mode, lambda cls: "something else"))
    proxy = served.proxy()
    for _ in range(2):
        with pytest.raises(TypeError, match="instance creator returned an instance of a different class: str"):
            proxy.who()


@pytest.mark.parametrize("mode", ["single", "session", "percall"])
def test_a_creator_that_fails_is_the_callers_error(serve_some: Serve, mode: str) -> None:
    attempts: list[int] = []

    def create(cls: Any) -> Any:
        attempts.append(1)
        if len(attempts) < 2:
            raise ConnectionError("database is away")
        return cls()

    proxy = serve_some(make_class(mode, create)).proxy()
    with pytest.raises(ConnectionError, match="database is away"):
        proxy.who()
    assert proxy.who() == [1, 1]
