"""Plugin attributes: exposed properties, and nothing else, are remote attributes."""

from __future__ import annotations

from typing import Any

import pytest

from pyroplug.api import expose
from pyroplug.testing.kernels import Served

pytestmark = pytest.mark.needs("attributes")


class Base:
    def __init__(self) -> None:
        self._x = 1
        self.log: list[str] = []

    @property
    @expose
    def both(self) -> int:
        return self._x

    @both.setter
    def both(self, value: int) -> None:
        if value < 0:
            raise ValueError("must not be negative")
        self._x = value

    @both.deleter
    def both(self) -> None:
        self.log.append("deleted!")

    @property
    @expose
    def failing(self) -> int:
        raise LookupError("cannot tell")

    @property
    def hidden(self) -> int:
        return 99

    def _write(self, value: int) -> None:
        self._x = value

    written = expose(property(lambda self: self._x, _write))

    @expose
    def method(self) -> int:
        return self._x


class Derived(Base):
    both: Any = property(lambda self: -1)


@pytest.mark.needs("metadata")
@pytest.mark.feature("F068", "F069", "F269")
def test_reading_and_writing() -> None:
    with Served() as served:
        base = Base()
        served.publish(base)
        proxy = served.proxy()
        proxy.both = 5
        assert (proxy.both, base._x) == (5, 5)
        proxy.both = proxy.both + 1
        assert proxy.method() == 6
        proxy.written = 9
        assert base._x == 9
        with pytest.raises(ValueError, match="must not be negative"):
            proxy.both = -1
        with pytest.raises(LookupError, match="cannot tell"):
            _ = proxy.failing
        assert base.log == []


@pytest.mark.feature("F068")
def test_what_is_not_exposed_is_refused_by_both_sides() -> None:
    with Served() as served:
        served.publish(Base())
        proxy = served.proxy()
        for name in ("hidden", "_x", "log", "method", "__class__", "nowhere"):
            for method, arguments in (("__getattr__", [name]), ("__setattr__", [name, 1])):
                with pytest.raises(AttributeError, match="unexposed or unknown remote attribute"):
                    proxy._pyroInvoke(method, arguments, {})
        with pytest.raises(AttributeError):
            _ = proxy.hidden
        with pytest.raises(AttributeError):
            proxy.hidden = 1
        with pytest.raises(AttributeError):
            proxy.method = 1


@pytest.mark.needs("metadata")
def test_an_override_that_is_not_exposed_hides_the_property() -> None:
    with Served() as served:
        served.publish(Derived())
        proxy = served.proxy()
        proxy._pyroBind()
        assert "both" not in proxy._pyroAttrs
        with pytest.raises(AttributeError):
            _ = proxy.both
        with pytest.raises(AttributeError, match="unexposed or unknown"):
            proxy._pyroInvoke("__getattr__", ["both"], {})


@pytest.mark.needs("metadata")
@pytest.mark.parametrize("arguments", [[], [1, 2, 3], [None], [["both"]], [{"both": 1}]])
def test_odd_arguments(arguments: list[Any]) -> None:
    with Served() as served:
        served.publish(Base())
        proxy = served.proxy()
        with pytest.raises((AttributeError, TypeError)):
            proxy._pyroInvoke("__getattr__", arguments, {})
        assert proxy.both == 1
