"""Exceptions: what a method raises reaches the caller, whatever it is, and the connection goes on."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import weakref
from typing import Any

import pytest

from pyroplug.api import (
    CommunicationError,
    ConnectionClosedError,
    NamingError,
    PyroError,
    RemoteError,
    TimeoutError,
    excepthook,
    expose,
    get_pyro_traceback,
)
from pyroplug.testing.kernels import Serve


class CustomError(Exception):
    def __init__(self, *args: Any, code: int = 0) -> None:
        super().__init__(*args)
        self.code = code


class NeedsKeywordError(ValueError):
    def __init__(self, *, need: str) -> None:
        super().__init__(need)
        self.need = need


@expose
class Thing:
    """Raises what is asked for."""

    class NestedError(Exception):
        pass

    def raise_builtin(self, *args: Any) -> None:
        raise ValueError(*args)

    def raise_with_attributes(self) -> None:
        error = KeyError("k")
        error.extra = {"a": [1]}  # type: ignore[attr-defined]
        raise error

    def raise_custom(self) -> None:
        raise CustomError("text", 5, code=42)

    def raise_nested(self) -> None:
        raise Thing.NestedError("inner")

    def raise_needing(self) -> None:
        raise NeedsKeywordError(need="it")

    def raise_unbuildable(self) -> None:
        error = UnicodeEncodeError("utf-8", "x", 0, 1, "why")
        error.args = ("not enough",)
        raise error

    def raise_unserialisable(self) -> None:
        error = ValueError("with a lock")
        error.lock = threading.Lock()  # type: ignore[attr-defined]
        raise error

    def raise_unserialisable_argument(self) -> None:
        raise ValueError(object())

    def raise_without_text(self) -> None:
        class BrokenError(Exception):
            def __str__(self) -> str:
                raise RuntimeError("no text")

        raise BrokenError(object())

    def raise_chain(self) -> None:
        try:
            raise KeyError("the cause")
        except KeyError as exc:
            raise ValueError("the effect") from exc

    def raise_base(self, name: str) -> None:
        raise {
            "SystemExit": SystemExit(3),
            "KeyboardInterrupt": KeyboardInterrupt("ctrl-c"),
            "GeneratorExit": GeneratorExit("gen"),
            "CancelledError": asyncio.CancelledError("cancelled"),
        }[name]

    def raise_end(self, name: str) -> None:
        raise {"StopIteration": StopIteration(1), "StopAsyncIteration": StopAsyncIteration()}[name]

    def raise_ours(self, name: str) -> None:
        errors: dict[str, PyroError] = {
            "ConnectionClosedError": ConnectionClosedError("inside"),
            "TimeoutError": TimeoutError("inside"),
            "CommunicationError": CommunicationError("inside"),
            "NamingError": NamingError("inside"),
        }
        raise errors[name]

    def raise_os(self) -> None:
        raise BrokenPipeError(32, "inside")

    def return_one(self) -> Exception:
        return ValueError("returned")

    def echo(self, value: Any) -> Any:
        return value


@pytest.mark.feature("F107", "F088", "F304")
def test_builtin_exceptions_arrive_as_what_they_are(serve: Serve) -> None:
    proxy = serve(Thing()).proxy()
    with pytest.raises(ValueError) as caught:
        proxy.raise_builtin("a", 2, None)
    assert type(caught.value) is ValueError
    assert caught.value.args == ("a", 2, None)
    with pytest.raises(KeyError) as caught_key:
        proxy.raise_with_attributes()
    assert caught_key.value.extra == {"a": [1]}  # type: ignore[attr-defined]
    assert proxy.echo(1) == 1


@pytest.mark.feature("F108", "F109")
def test_the_remote_traceback_comes_along(serve_some: Serve) -> None:
    proxy = serve_some(Thing()).proxy()
    with pytest.raises(ValueError) as caught:
        proxy.raise_chain()
    lines = caught.value._pyroTraceback  # type: ignore[attr-defined]
    text = "".join(lines)
    assert all(line.endswith("\n") for line in lines)
    assert "in raise_chain" in text
    assert "the cause" in text
    assert "direct cause" in text
    shown = "".join(get_pyro_traceback(caught.value))
    assert "in raise_chain" in shown
    assert "test_the_remote_traceback_comes_along" in shown


@pytest.mark.feature("F111")
def test_the_excepthook_shows_the_remote_traceback(serve_some: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError) as caught:
        serve_some(Thing()).proxy().raise_chain()
    excepthook(type(caught.value), caught.value, caught.value.__traceback__)
    shown = capsys.readouterr().err
    assert "Remote traceback" in shown
    assert "in raise_chain" in shown
    excepthook(KeyError, KeyError("only local"), None)
    assert "only local" in capsys.readouterr().err


def test_unknown_classes_become_remote_errors(serve: Serve) -> None:
    """Scenario 48."""
    proxy = serve(Thing()).proxy()
    with pytest.raises(RemoteError) as caught:
        proxy.raise_custom()
    error = caught.value
    assert error.class_name.endswith("CustomError")
    assert error.matches("CustomError")
    assert error.remote_args == ("text", 5)
    assert error.attributes["code"] == 42
    assert "in raise_custom" in "".join(error._pyroTraceback)  # type: ignore[attr-defined]
    with pytest.raises(RemoteError) as caught:
        proxy.raise_nested()
    assert caught.value.matches("NestedError")
    with pytest.raises(RemoteError) as caught:
        proxy.raise_needing()
    assert caught.value.attributes == {"need": "it"}
    assert proxy.echo(1) == 1


def test_exceptions_that_cannot_be_built_or_sent(serve: Serve) -> None:
    proxy = serve(Thing()).proxy()
    proxy._pyroBind()
    connection = proxy._pyroConnection
    with pytest.raises(RemoteError) as caught:
        proxy.raise_unbuildable()
    assert caught.value.matches("UnicodeEncodeError")
    for method in (proxy.raise_unserialisable, proxy.raise_unserialisable_argument):
        with pytest.raises(PyroError, match=r"Error serializing exception.*Original exception.*ValueError"):
            method()
    with pytest.raises(PyroError, match="BrokenError"):
        proxy.raise_without_text()
    assert proxy.echo(1) == 1
    assert proxy._pyroConnection is connection


@pytest.mark.skipif(sys.version_info < (3, 11), reason="new in Python 3.11")
def test_notes_and_groups(serve_some: Serve) -> None:
    class Newer:
        @expose
        def noted(self) -> None:
            error = ValueError("v")
            error.add_note("look here")  # type: ignore[attr-defined,unused-ignore]
            raise error

        @expose
        def group(self) -> None:
            raise ExceptionGroup("many", [ValueError("one"), TypeError("two")])  # type: ignore[name-defined,unused-ignore]  # noqa: F821

    proxy = serve_some(Newer()).proxy()
    with pytest.raises(ValueError) as caught:
        proxy.noted()
    assert caught.value.__notes__ == ["look here"]  # type: ignore[attr-defined,unused-ignore]
    with pytest.raises(Exception, match="many") as group:
        proxy.group()
    assert "one" in "".join(group.value._pyroTraceback)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "CancelledError"])
def test_base_exceptions_are_answered_and_the_worker_lives(serve: Serve, name: str) -> None:
    """Scenarios 49 and 51."""
    served = serve(Thing())
    proxy = served.proxy()
    with pytest.raises(RemoteError) as caught:
        proxy.raise_base(name)
    assert caught.value.matches(name)
    connection = proxy._pyroConnection
    assert proxy.echo(1) == 1
    assert proxy._pyroConnection is connection
    assert served.proxy().echo(2) == 2


@pytest.mark.parametrize("name", ["StopIteration", "StopAsyncIteration"])
def test_the_end_of_an_iteration_does_not_leak(serve_some: Serve, name: str) -> None:
    """Scenario 50."""
    proxy = serve_some(Thing()).proxy()

    def loop() -> Any:
        for _ in range(3):
            yield proxy.raise_end(name)

    with pytest.raises(RuntimeError) as caught:
        list(loop())
    assert name in str(caught.value)
    assert type(caught.value.__cause__).__name__ == name
    assert "in raise_end" in "".join(caught.value._pyroTraceback)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["ConnectionClosedError", "TimeoutError", "CommunicationError", "NamingError"])
def test_errors_of_ours_raised_inside_a_method_are_ordinary_replies(serve: Serve, name: str) -> None:
    served = serve(Thing(), MAX_RETRIES=5)
    calls: list[str] = []
    served.daemon.methodcall_error_handler = lambda *args: calls.append(args[2])
    proxy = served.proxy()
    proxy.echo(0)
    connection = proxy._pyroConnection
    with pytest.raises(PyroError, match="inside") as caught:
        proxy.raise_ours(name)
    assert type(caught.value).__name__ == name
    assert proxy._pyroConnection is connection
    assert proxy.echo(1) == 1
    assert calls == ["raise_ours"]  # it was not taken for a broken connection and tried again


def test_an_oserror_inside_a_method_is_an_ordinary_reply(serve_some: Serve) -> None:
    proxy = serve_some(Thing(), MAX_RETRIES=2).proxy()
    with pytest.raises(BrokenPipeError, match="inside"):
        proxy.raise_os()
    assert proxy.echo(1) == 1


def test_an_exception_can_be_a_result(serve_some: Serve) -> None:
    result = serve_some(Thing()).proxy().return_one()
    assert isinstance(result, ValueError)
    assert result.args == ("returned",)


def test_an_exception_keeps_no_proxy_alive(serve_some: Serve) -> None:
    """Scenario 42."""
    served = serve_some(Thing())
    gc.disable()
    try:
        proxy = type(served.proxy())(served.daemon.uriFor("thing"), kernel=served.kernel)
        reference = weakref.ref(proxy)
        try:  # pytest.raises would keep the traceback itself
            proxy.raise_builtin("x")
        except ValueError:
            pass
        del proxy
        assert reference() is None
    finally:
        gc.enable()


@pytest.mark.feature("F295")
def test_the_error_handler_is_told(serve: Serve) -> None:
    served = serve(Thing())
    told: list[Any] = []
    served.daemon.methodcall_error_handler = lambda *args: told.append(args)
    with pytest.raises(ValueError):
        served.proxy().raise_builtin("x", 2)
    ((daemon, _, method, args, kwargs, error),) = told
    assert daemon is served.daemon
    assert (method, list(args), dict(kwargs)) == ("raise_builtin", ["x", 2], {})
    assert isinstance(error, ValueError)


def test_an_error_handler_that_fails_costs_no_reply(serve_some: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Scenario 55."""
    served = serve_some(Thing())

    def handler(*args: Any) -> None:
        raise RuntimeError("handler broke")

    served.daemon.methodcall_error_handler = handler
    proxy = served.proxy()
    with pytest.raises(ValueError, match="x"):
        proxy.raise_builtin("x")
    assert proxy.echo(1) == 1
    assert "handler broke" in caplog.text
