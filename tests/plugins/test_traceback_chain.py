"""What belongs to an exception crosses the wire: causes, contexts, notes, groups; and who is told of it all."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyroplug.api import (
    PyroError,
    RemoteError,
    SerializeError,
    excepthook,
    expose,
    get_pyro_traceback,
    oneway,
    remote_type,
)
from pyroplug.core.types import TypeTable
from pyroplug.plugins.tracebacks import DetailedTraceback, detailed_traceback
from pyroplug.testing.kernels import PATIENCE, Serve, Served, make_kernel

pytestmark = pytest.mark.needs("tracebacks")

SERIALIZERS = ("serpent", "json", "msgpack", "marshal")
Group: Any = getattr(__builtins__, "ExceptionGroup", None) or vars(sys.modules["builtins"]).get("ExceptionGroup")
needs_groups = pytest.mark.skipif(Group is None, reason="exception groups came with Python 3.11")


class StockError(Exception):
    """Of the program, and unknown to clients that do not register it."""


class PickyError(Exception):
    """Cannot be made from the arguments that it keeps."""

    def __init__(self, *, needed: int) -> None:
        super().__init__(f"needed {needed}")
        self.needed = needed


class StubbornError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Outer:
    class NestedError(Exception):
        pass


def chained() -> Exception:
    try:
        try:
            try:
                raise KeyError("first", 1, None)
            except KeyError:
                raise StockError("second", 2.5) from None
        except StockError as exc:
            exc.left = 3  # type: ignore[attr-defined]
            exc.cell = object()  # type: ignore[attr-defined]
            add_note(exc, "look here")
            raise ValueError("third") from exc
    except ValueError:
        try:
            raise OSError(2, "fourth")
        except OSError as exc:
            return exc
    raise AssertionError("not reached")


def add_note(exc: Any, note: str) -> None:
    exc.__notes__ = [*getattr(exc, "__notes__", []), note]


def grouped() -> Any:
    inner = StockError("inner")
    inner.__cause__ = KeyError("why")
    return Group("several", [ValueError("one"), Group("more", [inner, TypeError("two")])])


class Thing:
    def __init__(self) -> None:
        self.make: Callable[[], BaseException] = chained

    @expose
    def fail(self) -> None:
        raise self.make()

    @expose
    def give(self) -> Any:
        return [self.make()]

    @expose
    @oneway
    def later(self) -> None:
        raise self.make()

    @expose
    def echo(self, value: Any) -> Any:
        return value


def failure(proxy: Any) -> Exception:
    try:
        proxy.fail()
    except Exception as exc:
        exc.__traceback__ = None
        return exc
    raise AssertionError("it did not fail")


def again(exc: BaseException, name: str, types: TypeTable | None = None) -> Any:
    """The exception, through a plain codec, as peers send it that have nothing of ours."""
    kernel = make_kernel(SERIALIZERS_ACCEPTED=set(SERIALIZERS))
    types = types or kernel.types
    codec = kernel.serializers[name].bind(types, kernel.settings)
    value = codec.loads(codec.dumps(types.exception_to_dict(exc, ["line\n"])))
    kernel.close()
    return types.from_dict(value)


def check_chain(exc: BaseException) -> None:
    assert type(exc) is FileNotFoundError
    assert exc.errno == 2
    third = exc.__context__
    assert type(third) is ValueError
    assert exc.__cause__ is None
    second: Any = third.__cause__
    assert isinstance(second, RemoteError)
    assert second.class_name.endswith(".StockError")
    assert second.args[1:] == () or second.remote_args == ("second", 2.5)
    assert second.remote_args == ("second", 2.5)
    assert second.attributes["left"] == 3
    assert "object object" in second.attributes["cell"]
    assert vars(second)["__notes__"] == ["look here"]
    assert second.__cause__ is None
    assert second.__context__ is None  # it was raised "from None"


# --------------------------------------------------------------------------- chains
@pytest.mark.feature("F107", "F108")
def test_scenario_48_causes_and_contexts(serve: Serve) -> None:
    thing = Thing()
    served = serve(thing)
    for name in ("serpent", "json", "msgpack"):
        proxy = served.proxy()
        proxy._pyroSerializer = name
        exc = failure(proxy)
        check_chain(exc)
        assert proxy.echo(1) == 1
        (given_back,) = proxy.give()
        check_chain(given_back)
        text = "".join(traceback.format_exception(exc))
        assert "KeyError" not in text
        assert re.search(r"StockError.*direct cause.*ValueError: third.*another exception.*fourth", text, re.DOTALL)
        lines = "".join(exc._pyroTraceback)  # type: ignore[attr-defined]
        assert "StockError" in lines


@pytest.mark.parametrize("name", SERIALIZERS)
def test_through_a_chain_of_servers(name: str) -> None:
    """What goes on is what came."""
    once = again(chained(), name)
    check_chain(once)
    check_chain(again(once, name))


@needs_groups
@pytest.mark.feature("F107")
def test_scenario_48_groups(serve_some: Serve) -> None:
    thing = Thing()
    thing.make = grouped
    served = serve_some(thing)
    for name in ("serpent", "json", "msgpack"):
        proxy = served.proxy()
        proxy._pyroSerializer = name
        exc: Any = failure(proxy)
        assert type(exc) is Group
        assert exc.message == "several"
        one, more = exc.exceptions
        assert (type(one), one.args) == (ValueError, ("one",))
        assert type(more) is Group
        inner, two = more.exceptions
        assert type(two) is TypeError
        assert isinstance(inner, RemoteError)
        assert inner.class_name.endswith("StockError")
        assert type(inner.__cause__) is KeyError
        matching, rest = exc.split(ValueError)
        assert len(matching.exceptions) == 1
        assert rest is not None
        assert "PYRO" not in str(exc)


@needs_groups
@pytest.mark.parametrize("name", SERIALIZERS)
def test_scenario_48_groups_of_other_kinds(name: str) -> None:
    class Mine(Group):  # type: ignore[misc]
        pass

    assert type(again(Mine("m", [ValueError(1)]), name)) is Group
    base: Any = vars(sys.modules["builtins"])["BaseExceptionGroup"]
    exc = again(base("m", [KeyboardInterrupt(), ValueError(1)]), name)
    assert type(exc) is Group
    interrupt, value = exc.exceptions
    assert isinstance(interrupt, RemoteError)
    assert interrupt.class_name == "builtins.KeyboardInterrupt"
    assert type(value) is ValueError
    cause = ValueError("outer")
    cause.__cause__ = Group("g", [KeyError(1)])
    result = again(cause, name).__cause__
    assert type(result) is Group
    assert type(result.exceptions[0]) is KeyError


def test_where_there_are_no_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver with Python 3.10."""
    if Group is None:
        pytest.skip("nothing here could send one")
    types = TypeTable()
    form = types.exception_to_dict(grouped())
    monkeypatch.setattr("pyroplug.core.types._GROUP", None)
    monkeypatch.setattr("pyroplug.core.types._ANY_GROUP", None)
    exc = types.from_dict(form)
    assert isinstance(exc, RemoteError)
    assert exc.class_name.endswith("ExceptionGroup")
    assert [type(member).__name__ for member in exc.exceptions] == ["ValueError", "RemoteError"]  # type: ignore[attr-defined]
    assert "several" in str(exc)


@pytest.mark.interop
@pytest.mark.parametrize("name", SERIALIZERS)
@pytest.mark.parametrize("make", [chained, pytest.param(grouped, marks=needs_groups)])
def test_old_peers_get_the_exception_all_the_same(name: str, make: Callable[[], BaseException]) -> None:
    serializers = pytest.importorskip("Pyro5.serializers")
    errors = pytest.importorskip("Pyro5.errors")
    kernel = make_kernel(SERIALIZERS_ACCEPTED=set(SERIALIZERS))
    original = make()
    data = kernel.codecs()[name].dumps(kernel.types.exception_to_dict(original, ["line\n"]))
    theirs = serializers.serializers[name]
    exc = theirs.loads(data)
    if isinstance(exc, dict):
        exc = theirs.dict_to_class(exc)
    assert exc._pyroTraceback == ["line\n"]
    if make is chained:
        assert type(exc) is FileNotFoundError
    else:
        assert type(exc) is errors.PyroError
        assert "several (2 sub-exceptions)\n  ValueError: one" in str(exc)
    kernel.close()


# --------------------------------------------------------------------------- limits
@pytest.mark.parametrize("name", SERIALIZERS)
def test_long_chains_are_cut(name: str) -> None:
    first = exc = ValueError(0)
    for number in range(1, 500):
        exc.__cause__ = ValueError(number)
        exc = exc.__cause__
    data = TypeTable().exception_to_dict(first)
    assert len(repr(data)) < 5000
    result, length = again(first, name), 0
    while result is not None:
        assert result.args == (length,)
        result, length = result.__cause__, length + 1
    assert 5 < length < 20


def test_circles_and_wide_groups() -> None:
    one, other = ValueError(1), ValueError(2)
    one.__cause__, other.__cause__ = other, one
    result = again(one, "serpent")
    assert result.__cause__.args == (2,)
    assert result.__cause__.__cause__ is None
    if Group is not None:
        wide: Any = Group("w", [ValueError(str(number)) for number in range(10_000)])
        data = TypeTable().exception_to_dict(wide)
        assert len(repr(data)) < 50_000
        assert len(again(wide, "serpent").exceptions) == 100
        deep: Any = ValueError("x")
        for _ in range(100):
            deep = Group("d", [deep, ValueError()])
        assert len(repr(TypeTable().exception_to_dict(deep))) < 20_000
        assert isinstance(again(deep, "serpent"), Group)


@pytest.mark.parametrize("name", SERIALIZERS)
def test_whatever_a_cause_holds(name: str) -> None:
    """Its data is made plain: an exception never fails to travel because of one that belongs to it."""
    loop: list[Any] = []
    loop.append(loop)
    for odd in (
        object(),
        loop,
        {1: 2},
        {"__class__": "x"},
        {"k": open},
        b"x",
        2**100,
        "z" * 10**6,
        StubbornError(),
        {1},
    ):
        exc = ValueError("outer")
        cause = StubbornError(odd)
        cause.odd = odd  # type: ignore[attr-defined]
        exc.__cause__ = cause
        form = TypeTable().exception_to_dict(exc)
        assert len(repr(form)) < 50_000
        result = again(exc, name)
        assert type(result) is ValueError
        assert isinstance(result.__cause__, RemoteError)
        assert result.__cause__.class_name.endswith("StubbornError")


@pytest.mark.parametrize("name", SERIALIZERS)
@pytest.mark.parametrize(
    "linked",
    [
        5,
        [],
        {},
        {"chain": 5},
        {"chain": [5]},
        {"chain": [{}]},
        {"chain": [{"class": 5}]},
        {"chain": [{"class": "builtins.SystemExit", "how": "cause"}]},
        {"chain": [{"class": "builtins.KeyboardInterrupt", "args": 5, "attributes": 7}]},
        {"chain": [{"class": "os.system", "args": ["x"]}]},
        {"chain": [{"class": "a.__b__", "args": ["x"]}]},
        {"members": 5},
        {"members": [5]},
        {"members": [{"class": "x.Y"}], "message": None},
        {"chain": [{"class": "builtins.ValueError", "attributes": {"__class__": "x", "__traceback__": 5, "args": 5}}]},
    ],
    ids=lambda linked: str(linked)[:40],
)
def test_hostile_links(name: str, linked: Any) -> None:
    kernel = make_kernel(SERIALIZERS_ACCEPTED=set(SERIALIZERS))
    codec = kernel.codecs()[name]
    form = {
        "__class__": "builtins.ValueError",
        "__exception__": True,
        "args": ("x",),
        "attributes": {"_pyroplugLinked": linked, "_pyroplugType": ["x"]},
    }
    try:
        exc = codec.loads(codec.dumps(form))
    except SerializeError:
        return
    finally:
        kernel.close()
    while exc is not None:
        assert isinstance(exc, Exception)
        assert type(exc).__name__ in ("ValueError", "RemoteError", "ExceptionGroup", "PyroError")
        exc = exc.__cause__ or exc.__context__


def test_deep_links_do_not_exhaust_the_stack() -> None:
    types = TypeTable()
    link: dict[str, Any] = {"class": "builtins.ValueError"}
    for _ in range(5000):
        link = {"class": "x.Group", "members": [link], "message": "m"}
    form = {"__class__": "x.Group", "__exception__": True, "args": (), "attributes": {"_pyroplugLinked": link}}
    exc = types.from_dict(form)  # what is too deep is left out: that something failed is worth more
    assert isinstance(exc, Exception)


# --------------------------------------------------------------------------- registered exceptions
@pytest.mark.feature("F107", "F133")
@pytest.mark.parametrize("kind", [StockError, PickyError, Outer.NestedError], ids=lambda kind: kind.__name__)
def test_scenario_48_registered_classes(kind: type[Exception]) -> None:
    thing = Thing()

    def make() -> Exception:
        exc = kind(needed=5) if kind is PickyError else kind("text", 2)
        exc.__cause__ = StockError("cause")
        exc.color = "red"  # type: ignore[attr-defined]
        return exc

    thing.make = make
    with Served() as served:
        served.publish(thing)
        client = make_kernel()
        assert type(failure(served.proxy(kernel=client))) is RemoteError
        for kernel in (served.kernel, client):
            remote_type(kind, name=f"shop.{kind.__name__}", kernel=kernel)
        exc = failure(served.proxy(kernel=client))
        check_class(exc, kind, make())
        client.close()


def check_class(exc: Any, kind: type[Exception], original: Exception) -> None:
    assert (type(exc), exc.args) == (kind, original.args)
    assert exc.color == "red"
    assert "raise self.make()" in "".join(exc._pyroTraceback)
    assert type(exc.__cause__) is (StockError if kind is StockError else RemoteError)
    if kind is PickyError:
        assert exc.needed == 5


def test_registered_exceptions_are_checked() -> None:
    types = TypeTable()
    types.register_exception(StockError, "a")
    types.register_exception(StockError, "a")
    cls: Any
    for cls, name in ((PickyError, "a"), (StockError, "b")):
        with pytest.raises(ValueError, match="registered already"):
            types.register_exception(cls, name)
    for cls in (int, KeyboardInterrupt):
        with pytest.raises(ValueError, match="class of exceptions"):
            types.register_exception(cls, "c")


# --------------------------------------------------------------------------- showing it
class Weird(Exception):
    @property
    def _pyroTraceback(self) -> Any:
        raise RuntimeError("no")

    @property
    def exceptions(self) -> Any:
        raise RuntimeError("no")


def odd_exceptions() -> list[BaseException]:
    circle = ValueError("circle")
    circle.__cause__ = KeyError("x")
    circle.__cause__.__context__ = circle
    odd: list[BaseException] = [circle, StubbornError(), SystemExit(3), KeyboardInterrupt(), Weird()]
    for trace in (5, ["a", None, 3], "one\ntwo", (), b"x", {"x": 1}):
        exc = ValueError(trace)
        exc._pyroTraceback = trace  # type: ignore[attr-defined]
        odd.append(exc)
    noted: Any = ValueError("noted")
    noted.__notes__ = 5
    odd.append(noted)
    if Group is not None:
        member = ValueError("member")
        member._pyroTraceback = ["remote line\n"]  # type: ignore[attr-defined]
        odd.append(Group("g", [member]))
    return odd


@pytest.mark.feature("F109", "F111")
@pytest.mark.parametrize("exc", odd_exceptions(), ids=lambda exc: type(exc).__name__)
def test_helpers_are_safe_on_any_exception(exc: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    excepthook(type(exc), exc, None)
    assert type(exc).__name__ in shown.getvalue()
    monkeypatch.setattr(sys, "stderr", None)
    excepthook(type(exc), exc, None)
    lines = get_pyro_traceback(exc)
    assert lines
    assert all(isinstance(line, str) for line in lines)


@needs_groups
@pytest.mark.feature("F109")
def test_remote_tracebacks_of_members_are_shown() -> None:
    assert any("remote line" in line for line in get_pyro_traceback(odd_exceptions()[-1]))


@pytest.mark.feature("F110")
@pytest.mark.parametrize("exc", odd_exceptions(), ids=lambda exc: type(exc).__name__)
def test_detailed_tracebacks_never_raise(exc: BaseException) -> None:
    class Bad:
        def __repr__(self) -> str:
            raise SystemExit

    def fail() -> None:
        bad, endless = Bad(), []  # type: ignore[var-annotated]
        endless.append(endless)
        assert bad is not None
        raise exc

    text = ""
    try:
        fail()
    except BaseException as caught:
        text = "".join(detailed_traceback(caught))
    assert "Bad whose repr failed>" in text
    assert "endless = [[" in text
    exc.__traceback__ = None


class User:
    def __repr__(self) -> str:
        return "User(name='emma', padding=" + "." * 500 + ", password='hunter2', tokens=['t1', \"t2\"], n=1)"


@pytest.mark.feature("F110")
@pytest.mark.parametrize(
    ("name", "value", "hidden", "shown"),
    [
        ("password", "hunter2", ["hunter2"], []),
        ("db_Passwd", "hunter2", ["hunter2"], []),
        ("API_KEY", b"hunter2", ["hunter2"], []),
        ("config", {"user": "emma", "password": "hunter2"}, ["hunter2"], ["emma"]),
        ("config", [{"auth": {"inner": ["hunter2"]}, "a": 1}], ["hunter2"], ["'a': 1"]),
        ("text", "connect(host='h', password='hunter2')", ["hunter2"], ["host"]),
        ("text", "password=hunter2 and more", ["hunter2"], ["and more"]),
        ("header", "Authorization: hunter2", ["hunter2"], []),
        ("user", User(), ["hunter2", "t1", "t2"], ["emma"]),
        ("plain", {"user": "emma"}, [], ["{'user': 'emma'}"]),
        ("lines", "a\nb", [], []),
    ],
)
def test_secrets_are_hidden(name: str, value: Any, hidden: list[str], shown: list[str]) -> None:
    for size in (200, 10_000):
        text = DetailedTraceback(max_value=size).value(name, value)
        assert [secret for secret in hidden if secret in text] == []
        assert [part for part in shown if part not in text] == []
        assert len(text) <= size + 3
        assert "\n" not in text


def test_what_is_a_secret_is_a_setting() -> None:
    with Served(
        settings={"DETAILED_TRACEBACK": True, "TRACEBACK_REDACT": "color", "TRACEBACK_MAX_VALUE": 20}
    ) as served:

        class Painter:
            @expose
            def paint(self, color: str, password: str, long: str) -> None:
                raise ValueError("no paint")

        served.publish(Painter())
        with pytest.raises(ValueError, match="no paint") as caught:
            served.proxy().paint("crimson", "hunter2", "z" * 100)
        text = "".join(caught.value._pyroTraceback)  # type: ignore[attr-defined]
        assert "color = <hidden>" in text
        assert "crimson" not in text
        assert "password = 'hunter2'" in text
        assert "z" * 18 in text
        assert "z" * 21 not in text
    with pytest.raises(PyroError, match=r"TRACEBACK_REDACT.* is no regular expression"):
        make_kernel(TRACEBACK_REDACT="(")
    assert DetailedTraceback(redact="").value("password", "hunter2") == "'hunter2'"


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=300), size=st.integers(0, 50))
def test_values_of_any_text(text: str, size: int) -> None:
    shown = DetailedTraceback(max_value=size).value("name", text)
    assert len(shown) <= size + 3


def test_endless_recursion_is_cut() -> None:
    def down(depth: int) -> None:
        down(depth + 1)

    with pytest.raises(RecursionError) as caught:
        down(0)
    lines = detailed_traceback(caught.value)
    assert len(lines) < 1000
    assert any("frames are not shown" in line for line in lines)


# --------------------------------------------------------------------------- who is told
@pytest.mark.needs("metadata", "oneway")
@pytest.mark.feature("F295")
def test_the_error_handler_is_told_of_oneway_calls_and_batches(serve: Serve) -> None:
    thing = Thing()
    served = serve(thing)
    told: list[tuple[str, Any, Any]] = []
    event = threading.Event()

    def handler(daemon: Any, address: Any, method: str, args: Any, kwargs: Any, exc: BaseException) -> None:
        told.append((method, type(exc), type(exc.__context__)))
        event.set()
        raise RuntimeError("a handler that fails harms nobody")

    served.daemon.methodcall_error_handler = handler
    proxy = served.proxy()
    proxy.later()
    assert event.wait(PATIENCE)
    batch = proxy._pyroBatch()
    batch.echo(1)
    batch.fail()
    results = batch()
    assert next(results) == 1
    with pytest.raises(FileNotFoundError) as caught:
        next(results)
    check_chain(caught.value)
    with contextlib.suppress(FileNotFoundError):
        proxy.fail()
    assert told == [(name, FileNotFoundError, ValueError) for name in ("later", "fail", "fail")]
