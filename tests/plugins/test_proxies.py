"""Plugin proxies: how a proxy, and a daemon, travels."""

from __future__ import annotations

from typing import Any

import pytest

from pyroplug.api import Daemon, Proxy, PyroError, SerializeError
from pyroplug.testing.kernels import make_kernel

pytestmark = pytest.mark.needs("proxies")

SERIALIZERS = ["serpent", "json", "msgpack"]


@pytest.mark.feature("F085", "F302")
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_there_and_back(serializer: str) -> None:
    kernel = make_kernel()
    proxy = Proxy("PYRO:thing@localhost:4444", kernel=kernel)
    proxy._pyroGetMetadata(known_metadata={"methods": ["a", "b"], "attrs": ["c"], "oneway": ["b"]})
    proxy._pyroSerializer = "json"
    codec = kernel.codecs()[serializer]
    back = codec.loads(codec.dumps([proxy]))[0]
    assert type(back) is Proxy
    assert back == proxy
    assert (back._pyroMethods, back._pyroAttrs, back._pyroOneway) == ({"a", "b"}, {"c"}, {"b"})
    assert back._pyroSerializer == "json"
    assert back._pyroKernel is kernel
    assert back._pyroConnection is None


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_what_pyro5_sends(serializer: str) -> None:
    kernel = make_kernel()
    state = ("PYRO:x@h:1", (), ("m",), (), "hello", None)
    for name in ("Pyro5.client.Proxy", "Pyro5.server.Daemon"):
        form = {"__class__": name, "state": state if "Proxy" in name else ()}
        value = kernel.types.from_dict(form)
        if "Proxy" in name:
            assert str(value._pyroUri) == "PYRO:x@h:1"
        else:
            assert isinstance(value, str)


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_a_daemon_travels_as_a_name_without_meaning(serializer: str) -> None:
    kernel = make_kernel()
    with Daemon(memory=True, kernel=kernel) as daemon:
        codec = kernel.codecs()[serializer]
        data = codec.dumps(daemon)
        assert daemon.locationStr.encode() not in data
        assert codec.loads(data) == "<a daemon of another process>"


@pytest.mark.parametrize(
    "state",
    [
        None,
        5,
        "text",
        [],
        ["PYRO:x@h:1"],
        ["nonsense", [], [], [], "hello", None],
        [5, [], [], [], "hello", None],
        ["PYRO:x@h:1", 5, [], [], "hello", None],
        ["PYRO:x@h:1", [], [[]], [], "hello", None],
    ],
)
def test_states_that_are_none(state: Any) -> None:
    with pytest.raises(PyroError):
        make_kernel().types.from_dict({"__class__": "Pyro5.client.Proxy", "state": state})


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_without_the_plugin_they_do_not_travel(serializer: str) -> None:
    kernel = make_kernel(environ={"PYRO_DISABLE_PLUGINS": "proxies"})
    with Daemon(kernel=kernel) as daemon:
        for value in (Proxy("PYRO:thing@localhost:4444", kernel=kernel), daemon):
            with pytest.raises(SerializeError, match=rf"{type(value).__name__}'.*plugin proxies"):
                kernel.codecs()[serializer].dumps([value])
    with pytest.raises(SerializeError, match=r"unsupported serialized class: Pyro5\.client\.Proxy"):
        kernel.types.from_dict({"__class__": "Pyro5.client.Proxy", "state": []})
