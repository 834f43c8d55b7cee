"""Plugin autoproxy (over sockets and in callbacks: tests/behaviour)."""

from __future__ import annotations

from typing import Any

import pytest

from pyroplug.api import Proxy, PyroError, expose
from pyroplug.testing.kernels import Served

pytestmark = pytest.mark.needs("autoproxy")


class Node:
    def __init__(self, name: str = "") -> None:
        self.label = name

    @expose
    def name(self) -> str:
        return self.label


class Special(Node):
    pass


class Tree:
    def __init__(self) -> None:
        self.nodes: list[Any] = []

    @expose
    def all(self) -> Any:
        return {"list": self.nodes, "tuple": tuple(self.nodes), "dict": dict(enumerate(self.nodes))}

    @expose
    def myself(self) -> Any:
        return self

    @expose
    def fail(self) -> None:
        raise ValueError(self.nodes[0])


@pytest.fixture
def served() -> Any:
    with Served() as made:
        tree = Tree()
        made.publish(tree)
        tree.nodes += [Node("a"), Special("b")]
        for node in tree.nodes:
            made.daemon.register(node)
        yield made


@pytest.mark.feature("F145")
@pytest.mark.parametrize("serializer", ["serpent", "json", "msgpack"])
def test_wherever_they_are_inside_a_value(served: Served, serializer: str) -> None:
    proxy = served.proxy()
    proxy._pyroSerializer = serializer
    answer = proxy.all()
    for stubs in (answer["list"], answer["tuple"], answer["dict"].values()):
        assert all(isinstance(stub, Proxy) for stub in stubs)
        assert [stub.name() for stub in stubs] == ["a", "b"]
        for stub in stubs:
            stub._pyroRelease()


@pytest.mark.feature("F145")
def test_subclasses_and_the_object_itself(served: Served) -> None:
    with served.proxy().myself() as myself:
        assert myself._pyroUri == served.daemon.uriFor("thing")
        assert isinstance(myself.all()["list"][1], Proxy)


def test_inside_an_exception(served: Served) -> None:
    with pytest.raises(ValueError) as caught:
        served.proxy().fail()
    assert isinstance(caught.value.args[0], Proxy)


@pytest.mark.feature("F147")
def test_not_with_marshal(served: Served) -> None:
    served.kernel.enable("marshal")
    served.kernel.settings.SERIALIZERS_ACCEPTED = {"serpent", "marshal"}
    proxy = served.proxy()
    proxy._pyroSerializer = "marshal"
    with pytest.raises(PyroError):
        proxy.myself()
    assert proxy._pyroInvoke("name", [], {}, objectId=served.daemon.objectsById["thing"].nodes[0]._pyroId) == "a"


@pytest.mark.feature("F146")
def test_it_can_be_switched_at_any_time(served: Served) -> None:
    served.kernel.types.register_dict_to_class(f"{Node.__module__}.Node", lambda name, data: data["label"])
    served.kernel.types.register_dict_to_class(f"{Node.__module__}.Special", lambda name, data: data["label"])
    proxy = served.proxy()
    served.kernel.settings.AUTOPROXY = False
    assert proxy.all()["list"] == ["a", "b"]
    served.kernel.settings.AUTOPROXY = True
    assert isinstance(proxy.all()["list"][0], Proxy)


def test_the_published_location_is_what_travels() -> None:
    with Served("tcp4", nathost="outside.example", natport=77) as nat:
        nat.publish(Tree())
        from pyroplug.api import Proxy as ProxyClass

        with ProxyClass(nat.daemon.uriFor("thing", nat=False), kernel=nat.kernel) as proxy:
            assert proxy.myself()._pyroUri.location == "outside.example:77"


def test_objects_of_a_closed_daemon_are_none_any_more() -> None:
    node = Node("x")
    with Served() as first:
        first.publish(node, "node")
    with Served(kernel=first.kernel) as second:
        tree = Tree()
        tree.nodes.append(node)
        second.publish(tree)
        second.kernel.types.register_dict_to_class(f"{Node.__module__}.Node", lambda name, data: data["label"])
        assert second.proxy().all()["list"] == ["x"]
