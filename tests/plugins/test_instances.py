"""Plugin instances: the decorator and the modes (their behaviour under load is in tests/behaviour)."""

from __future__ import annotations

from typing import Any

import pytest

from pyroplug.api import behavior, expose
from pyroplug.testing.kernels import Served

pytestmark = pytest.mark.needs("instances")


@pytest.mark.feature("F268")
def test_the_decorator_checks_its_arguments() -> None:
    class Thing:
        pass

    with pytest.raises(SyntaxError, match="missing argument"):
        behavior(Thing)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="invalid instance mode: 'forever', expected one of single, session, percall"):
        behavior("forever")
    with pytest.raises(TypeError, match="must be a callable"):
        behavior("single", 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="only be used on a class"):
        behavior("single")(5)  # type: ignore[type-var]
    assert behavior("single")(Thing) is Thing
    assert behavior()(Thing) is Thing


@pytest.mark.feature("F268", "F267")
def test_the_creator_gets_the_class_and_subclasses_count() -> None:
    class Base:
        made_by = ""

        @expose
        def who(self) -> str:
            return self.made_by

    class Special(Base):
        made_by = "special"

    seen: list[Any] = []

    def create(cls: Any) -> Any:
        seen.append(cls)
        return Special()

    cls = behavior("single", create)(Base)
    with Served() as served:
        served.publish(cls)
        assert served.proxy().who() == "special"
        assert served.proxy().who() == "special"
    assert seen == [Base]


def test_each_daemon_has_its_own_single() -> None:
    @behavior("single")
    class Counter:
        def __init__(self) -> None:
            self.count = 0

        @expose
        def next(self) -> int:
            self.count += 1
            return self.count

    with Served() as first, Served() as second:
        first.publish(Counter)
        second.publish(Counter)
        assert [first.proxy().next(), first.proxy().next(), second.proxy().next()] == [1, 2, 1]


def test_two_classes_in_one_session() -> None:
    def make(name: str) -> Any:
        class Thing:
            @expose
            def who(self) -> list[Any]:
                return [name, id(self)]

        return Thing

    with Served() as served:
        served.publish(make("a"), "a")
        served.publish(make("b"), "b")
        proxy = served.proxy("a")
        first = proxy.who()
        second = proxy._pyroInvoke("who", [], {}, objectId="b")
        assert (first[0], second[0]) == ("a", "b")
        assert proxy.who() == first
        assert proxy._pyroInvoke("who", [], {}, objectId="b") == second


@pytest.mark.needs("metadata")
def test_attributes_and_static_methods_of_registered_classes() -> None:
    class Thing:
        @property
        @expose
        def value(self) -> int:
            return 7

        @staticmethod
        @expose
        def static(x: int) -> int:
            return x * 2

        @classmethod
        @expose
        def of_class(cls) -> str:
            return cls.__name__

    with Served() as served:
        served.publish(Thing)
        proxy = served.proxy()
        assert (proxy.value, proxy.static(4), proxy.of_class()) == (7, 8, "Thing")
