"""Plugin errorhook: daemon.methodcall_error_handler."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from pyroplug.api import expose, oneway
from pyroplug.testing.kernels import PATIENCE, Served

pytestmark = pytest.mark.needs("errorhook")


class Thing:
    @expose
    def fail(self, *args: Any, **kwargs: Any) -> None:
        raise ValueError("x")

    @expose
    @oneway
    def quietly(self) -> None:
        raise KeyError("y")

    @expose
    def leave(self) -> None:
        raise SystemExit(1)

    @expose
    def fine(self) -> int:
        return 1


@pytest.mark.needs("metadata", "oneway")
@pytest.mark.feature("F295")
def test_it_is_told_of_every_exception_of_a_method() -> None:
    told: list[Any] = []
    came = threading.Semaphore(0)

    def handler(daemon: Any, address: Any, method: str, args: Any, kwargs: Any, error: BaseException) -> None:
        told.append((daemon, address, method, list(args), dict(kwargs), type(error)))
        came.release()

    with Served("tcp4") as served:
        served.publish(Thing())
        served.daemon.methodcall_error_handler = handler
        proxy = served.proxy()
        with pytest.raises(ValueError):
            proxy.fail(1, k=2)
        proxy.quietly()
        with pytest.raises(Exception, match="SystemExit"):
            proxy.leave()
        assert proxy.fine() == 1
        for _ in range(3):
            assert came.acquire(timeout=PATIENCE)
        by_method = {entry[2]: entry for entry in told}
        assert set(by_method) == {"fail", "quietly", "leave"}
        daemon, address, _, args, kwargs, error = by_method["fail"]
        assert daemon is served.daemon
        assert address[0] == "127.0.0.1"
        assert (args, kwargs, error) == ([1], {"k": 2}, ValueError)
        assert by_method["quietly"][5] is KeyError
        assert by_method["leave"][5] is SystemExit


def test_no_handler_no_harm() -> None:
    with Served() as served:
        served.publish(Thing())
        assert served.daemon.methodcall_error_handler is None
        with pytest.raises(ValueError):
            served.proxy().fail()


def test_a_handler_that_fails_even_badly(caplog: pytest.LogCaptureFixture) -> None:
    def handler(*args: Any) -> None:
        raise RuntimeError("handler broke")

    with Served() as served:
        served.publish(Thing())
        served.daemon.methodcall_error_handler = handler
        proxy = served.proxy()
        with pytest.raises(ValueError, match="x"):
            proxy.fail()
        assert proxy.fine() == 1
    assert "handler broke" in caplog.text
