"""Plugin exposeall: REQUIRE_EXPOSE=0."""

from __future__ import annotations

import warnings

import pytest

from pyroplug.api import expose
from pyroplug.testing.kernels import Served

pytestmark = pytest.mark.needs("exposeall")


class Old:
    """A class from before @expose."""

    def method(self) -> int:
        return 1

    @property
    def value(self) -> int:
        return 2

    @staticmethod
    def static() -> int:
        return 3

    def _private(self) -> None:
        raise AssertionError

    def __secret(self) -> None:
        raise AssertionError


class Mixed(Old):
    @expose
    def marked(self) -> int:
        return 4

    def added(self) -> int:
        return 5


@pytest.mark.needs("metadata")
@pytest.mark.feature("F270")
def test_everything_public_is_remote() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is warned about: there is something exposed
        with Served(settings={"REQUIRE_EXPOSE": False}) as served:
            served.publish(Old())
            served.publish(Mixed(), "mixed")
            proxy = served.proxy()
            assert (proxy.method(), proxy.value, proxy.static()) == (1, 2, 3)
            mixed = served.proxy("mixed")
            assert (mixed.marked(), mixed.added(), mixed.method()) == (4, 5, 1)
            for name in ("_private", "_Old__secret", "__init__", "__class__", "__reduce__"):
                with pytest.raises(AttributeError):
                    proxy._pyroInvoke(name, [], {})


@pytest.mark.needs("metadata")
@pytest.mark.feature("F270")
def test_it_is_off_by_default() -> None:
    with Served() as served:
        served.publish(Mixed(), "mixed")
        proxy = served.proxy("mixed")
        proxy._pyroBind()
        assert proxy._pyroMethods == {"marked"}
        assert proxy._pyroAttrs == set()
        with pytest.raises(AttributeError, match="unexposed attribute 'added'"):
            proxy._pyroInvoke("added", [], {})


@pytest.mark.feature("F270")
def test_the_environment_can_say_so() -> None:
    with Served(environ={"PYRO_REQUIRE_EXPOSE": "0"}) as served:
        served.publish(Old())
        assert served.proxy().method() == 1
