"""Plugin metadata: what clients learn when they connect."""

from __future__ import annotations

from typing import Any

import pytest

from pyroplug.api import Proxy, PyroError, expose, oneway
from pyroplug.core.wire import CONNECTOK
from pyroplug.testing.kernels import Served, make_kernel
from pyroplug.testing.plugins import make_plugin

pytestmark = pytest.mark.needs("metadata")


class Thing:
    @expose
    def method(self) -> int:
        return 1

    @expose
    @oneway
    def fire(self) -> None:
        pass

    @property
    @expose
    def value(self) -> int:
        return 2

    @property
    def hidden(self) -> int:
        return 3

    def secret(self) -> None:
        pass


@pytest.mark.feature("F086")
@pytest.mark.parametrize("serializer", ["serpent", "json", "msgpack"])
def test_the_handshake_tells_the_members(serializer: str) -> None:
    with Served() as served:
        served.publish(Thing())
        peer = served.peer()
        frame = peer.hello(serializer=serializer)
        assert frame.type == CONNECTOK
        meta = peer.value(frame)["meta"]
        assert {key: set(value) for key, value in meta.items()} == {
            "methods": {"method", "fire"},
            "oneway": {"fire"},
            "attrs": {"value"},
        }


@pytest.mark.feature("F086")
def test_wrong_names_cost_no_call() -> None:
    calls: list[Any] = []
    with Served(extra_plugins=[make_plugin("spy", pyro_bind=lambda connection: None)]) as served:
        served.publish(Thing())
        served.daemon.methodcall_error_handler = lambda *args: calls.append(args)
        proxy = served.proxy()
        assert proxy.method() == 1
        seq = proxy._pyroSeq
        for name in ("secret", "hidden", "nowhere"):
            with pytest.raises(AttributeError, match=f"no exposed attribute or method '{name}'"):
                getattr(proxy, name)
        assert proxy._pyroSeq == seq
        assert calls == []


@pytest.mark.feature("F087")
def test_switched_off_on_the_client() -> None:
    with Served() as served:
        served.publish(Thing())
        with Proxy(served.daemon.uriFor("thing"), kernel=make_kernel(METADATA=False)) as proxy:
            assert proxy.method() == 1
            assert proxy._pyroMethods == set()
            with pytest.raises(AttributeError, match="unexposed attribute 'secret'"):
                proxy.secret()


@pytest.mark.feature("F271")
def test_a_client_of_an_object_without_members_is_told() -> None:
    class Empty:
        pass

    with Served() as served:
        with pytest.warns(UserWarning, match="doesn't expose anything"):
            served.publish(Empty())
        with pytest.raises(PyroError, match="doesn't expose any methods or attributes"):
            served.proxy()._pyroBind()


def test_a_server_that_tells_nothing_is_asked() -> None:
    """A server without the plugin, and a client with it, that asks Pyro.Daemon."""
    with Served(environ={"PYRO_DISABLE_PLUGINS": "metadata"}) as served:
        served.publish(Thing())
        proxy = served.proxy(kernel=make_kernel())
        assert proxy.method() == 1
        proxy._pyroGetMetadata("thing")
        assert proxy._pyroMethods == {"method", "fire"}
        assert proxy.value == 2
