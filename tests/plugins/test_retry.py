"""Plugin retry."""

from __future__ import annotations

from typing import Any

import pytest

from pyroplug.api import (
    CommunicationError,
    ConnectionClosedError,
    Proxy,
    SerializeError,
    TimeoutError,
    current_context,
    expose,
)
from pyroplug.plugins.retry import again
from pyroplug.testing.kernels import Served, make_kernel
from pyroplug.testing.plugins import make_plugin

pytestmark = pytest.mark.needs("retry")


class Thing:
    def __init__(self) -> None:
        self.calls = 0

    @expose
    def flaky(self, good_from: int) -> int:
        self.calls += 1
        if self.calls < good_from:
            current_context.client.stream.close()
        return self.calls

    @expose
    def fail(self) -> None:
        self.calls += 1
        raise ConnectionClosedError("of the method's own")


@pytest.mark.feature("F078")
def test_the_policy() -> None:
    proxy = Proxy("PYRO:x@localhost:4", kernel=make_kernel(MAX_RETRIES=2))
    assert [again(proxy, "m", ConnectionClosedError("x"), attempt) for attempt in (1, 2, 3)] == [True, True, False]
    assert again(proxy, "m", TimeoutError("x"), 1)
    assert not again(proxy, "m", CommunicationError("x"), 1)
    assert not again(proxy, "m", SerializeError("x"), 1)
    proxy._pyroMaxRetries = 0
    assert not again(proxy, "m", TimeoutError("x"), 1)


@pytest.mark.feature("F078")
def test_as_often_as_was_said() -> None:
    thing = Thing()
    with Served("tcp4") as served:
        served.publish(thing)
        proxy = served.proxy()
        assert proxy._pyroMaxRetries == 0
        with pytest.raises(ConnectionClosedError):
            proxy.flaky(2)
        proxy._pyroMaxRetries = 2
        thing.calls = 0
        assert proxy.flaky(3) == 3
        thing.calls = 0
        with pytest.raises(ConnectionClosedError):
            proxy.flaky(4)
        assert thing.calls == 3


def test_errors_of_the_method_are_not_retried() -> None:
    thing = Thing()
    with Served() as served:
        served.publish(thing)
        proxy = served.proxy()
        proxy._pyroMaxRetries = 5
        with pytest.raises(ConnectionClosedError, match="of the method's own"):
            proxy.fail()
        assert thing.calls == 1


def test_policies_of_other_plugins() -> None:
    seen: list[Any] = []

    def once(proxy: Any, method: str, error: Exception, attempt: int) -> bool:
        seen.append((method, type(error).__name__, attempt))
        return attempt < 2

    thing = Thing()
    with Served("tcp4", extra_plugins=[make_plugin("mine", pyro_client_policies=lambda: [once])]) as served:
        served.publish(thing)
        assert served.proxy().flaky(2) == 2
        assert seen == [("flaky", "ConnectionClosedError", 1)]
