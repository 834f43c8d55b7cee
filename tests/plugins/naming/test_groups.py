"""Groups of names, over our name server and over Pyro5's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from pyroplug.api import Groups, NamingError, PluginError, Proxy
from pyroplug.core.uri import URI
from pyroplug.plugins.naming.server import NameServer
from pyroplug.testing.kernels import Served, make_kernel

OWN = "PYRO:Pyro.NameServer@localhost:9090"
U = "PYRO:obj@localhost:4444"
PYRO5 = """
from Pyro5.nameserver import NameServerDaemon
with NameServerDaemon("127.0.0.1", 0) as daemon:
    print(daemon.uriFor("Pyro.NameServer"), flush=True)
    daemon.requestLoop()
"""


@pytest.fixture(scope="module")
def pyro5() -> Iterator[str]:
    """The URI of a real Pyro5 name server, a process."""
    process = subprocess.Popen([sys.executable, "-c", PYRO5], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(params=["ours", "Pyro5's"])
def groups(request: pytest.FixtureRequest) -> Iterator[Groups]:
    if request.param == "ours":
        ours = NameServer(make_kernel())
        ours.announce(URI(OWN))
        yield Groups(ours)
        return
    with Proxy(request.getfixturevalue("pyro5")) as theirs:
        theirs.remove(prefix=":")
        yield Groups(theirs)


@pytest.mark.feature("F017")
def test_relative_names_live_in_the_default_group(groups: Groups) -> None:
    groups.register("printer", U, metadata=["a4"])
    assert str(groups.resolve("printer")) == str(groups.resolve(":Default.printer")) == U
    assert groups.list_group() == groups.list_group(":Default") == {"printer": "object"}
    assert groups.list_group(":") == {"Default": "group"}
    groups.unregister(":Default.printer")
    with pytest.raises(NamingError, match=r"unknown name: :Default\.printer"):
        groups.unregister("printer")
    with pytest.raises(NamingError, match=r"unknown name: :Default\.printer"):
        groups.resolve("printer")


@pytest.mark.feature("F017")
def test_a_tree(groups: Groups) -> None:
    groups.create_group(":office")
    groups.create_group(":office.first")
    groups.register(":office.printer", U)
    groups.register(":office.first.lamp", U)
    groups.register(":officer", U)
    assert groups.list_group(":") == {"Default": "group", "office": "group", "officer": "object"}
    assert groups.list_group(":office") == {"first": "group", "printer": "object"}
    assert groups.list_group(":office.first") == {"lamp": "object"}
    assert groups.list_all() == {":office.printer": U, ":office.first.lamp": U, ":officer": U}
    assert groups.delete_group(":office") == 4
    assert groups.list_all() == {":officer": U}
    with pytest.raises(NamingError, match="there is no group :office"):
        groups.list_group(":office")


@pytest.mark.feature("F017")
def test_another_default_group(groups: Groups) -> None:
    groups.create_group("lab")
    inside = Groups(groups._ns, ":Default.lab")
    inside.register("lamp", U)
    assert groups.list_group("lab") == {"lamp": "object"}
    assert str(groups.resolve("lab.lamp")) == U


@pytest.mark.feature("F017")
def test_what_is_refused(groups: Groups) -> None:
    groups.register("one", U)
    groups.create_group("more")
    for call, why in (
        (lambda: groups.register("one", U), "already registered: :Default.one"),
        (lambda: groups.register("more", U), "already registered: :Default.more .it is a group"),
        (lambda: groups.create_group("one"), "already registered: :Default.one"),
        (lambda: groups.create_group("more"), "already registered"),
        (lambda: groups.create_group(":Default"), "already registered"),
        (lambda: groups.register(":nowhere.one", U), "there is no group :nowhere"),
        (lambda: groups.create_group("nowhere.inner"), "there is no group :Default.nowhere"),
        (lambda: groups.delete_group("one"), "there is no group :Default.one"),
        (lambda: groups.delete_group(":"), "cannot be removed"),
        (lambda: groups.delete_group(":Default"), "cannot be removed"),
    ):
        with pytest.raises(NamingError, match=why):
            call()
    groups.register("one", "PYRO:new@localhost:1", replace=True)
    assert str(groups.resolve("one")) == "PYRO:new@localhost:1"


@pytest.mark.feature("F017")
@pytest.mark.parametrize("name", ["", "a..b", ".a", "a.", "a b", "a\\b", "a:b", "::a", "grün", "a\n", ":.", "a\x7f"])
def test_names_that_cannot_be(groups: Groups, name: str) -> None:
    for call in (groups.resolve, groups.create_group, groups.full_name):
        with pytest.raises(NamingError, match=r"invalid name .*printable ASCII"):
            call(name)


def test_a_name_must_be_a_text(groups: Groups) -> None:
    with pytest.raises(TypeError):
        groups.resolve(5)  # type: ignore[arg-type]


@pytest.mark.feature("F017")
def test_through_a_proxy_and_without_the_plugin() -> None:
    with Served("tcp4", "thread") as served:
        server = NameServer(served.kernel)
        served.publish(server, "Pyro.NameServer")
        server.announce(URI(OWN))
        ns: Any = served.proxy("Pyro.NameServer")
        groups = Groups(ns)
        groups.create_group("group")
        groups.register("group.one", U)
        assert groups.list_group() == {"group": "group"}
        with pytest.raises(PluginError, match="naming_groups"):
            Groups(ns, kernel=make_kernel(environ={"PYRO_DISABLE_PLUGINS": "naming_groups"}))
