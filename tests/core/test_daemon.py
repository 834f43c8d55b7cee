"""Daemons: arguments, locations, and what a daemon shows of itself."""

from __future__ import annotations

import gc
import re
import socket
import warnings
import weakref
from pathlib import Path
from typing import Any

import pytest

from pyroplug.api import URI, ConfigError, Daemon, DaemonError, DaemonObject, PyroError, expose
from pyroplug.core.daemon import DAEMON_NAME
from pyroplug.testing.kernels import LOOPS, Served, make_kernel
from pyroplug.testing.plugins import make_plugin


class Thing:
    @expose
    def echo(self, value: Any) -> Any:
        return value


@pytest.mark.feature("F022", "F033", "F019")
def test_where_a_daemon_listens(tmp_path: Path) -> None:
    kernel = make_kernel()
    with Daemon(host="127.0.0.1", kernel=kernel) as daemon:
        uri = daemon.register(Thing(), "fixed")
        assert str(uri) == f"PYRO:fixed@127.0.0.1:{daemon.sock.getsockname()[1]}"
        assert daemon.natLocationStr is None
        with pytest.raises(Exception, match="in use"):
            Daemon(host="127.0.0.1", port=daemon.sock.getsockname()[1], kernel=kernel)
    path = str(tmp_path / "a b")
    with Daemon(unixsocket=path, kernel=kernel) as daemon:
        assert daemon.locationStr == f"./u:{path}"
    assert not (tmp_path / "a b").exists()


@pytest.mark.needs("serpent")
@pytest.mark.feature("F023", "F173", "F022")
def test_arguments_that_exclude_each_other() -> None:
    kernel = make_kernel()
    here, there = socket.socketpair()
    with here, there:
        with pytest.raises(ValueError, match="no other location"):
            Daemon("localhost", connected_socket=here, kernel=kernel)
        with pytest.raises(ValueError, match="nathost cannot be used with unixsocket"):
            Daemon(unixsocket="/x", nathost="y", natport=1, kernel=kernel)
        with pytest.raises(ValueError, match=r"nathost cannot be used with \./m"):
            Daemon(memory=True, nathost="y", kernel=kernel)
        with pytest.raises(ValueError, match="natport can only be given with nathost"):
            Daemon(natport=5, kernel=kernel)
        with pytest.raises(ConfigError, match="no transport that is loaded can listen"):
            Daemon(nonsense=True, host=None, memory=False, kernel=make_kernel(plugins=["serpent", "memory", "thread"]))
        with Daemon(connected_socket=here, kernel=kernel) as daemon:
            assert daemon.sock is None
            assert daemon.uriFor("x").host == "<<connected-socket>>"
        assert here.fileno() != -1


def test_a_daemon_that_cannot_be_made_leaves_nothing_behind() -> None:
    def refuse(daemon: Any) -> None:
        raise RuntimeError("no system objects today")

    with pytest.raises(RuntimeError, match="no system objects today"):
        Daemon(host="127.0.0.1", kernel=make_kernel(extra_plugins=[make_plugin("x", pyro_system_objects=refuse)]))
    with pytest.raises(TypeError, match="connected_socket must be a stream socket"):
        Daemon(connected_socket="no socket", kernel=make_kernel())


@pytest.mark.feature("F009", "F025")
def test_object_ids() -> None:
    with Daemon(memory=True, kernel=make_kernel()) as daemon:
        assert re.fullmatch(r"obj_[0-9a-f]{32}", daemon.register(Thing()).object)
        assert daemon.register(Thing(), "my.object").object == "my.object"
        for bad in ("", "two words", "tab\there", "line\n"):
            with pytest.raises(DaemonError, match="cannot be empty or have blanks"):
                daemon.register(Thing(), bad)
        with pytest.raises(TypeError, match="must be a text or None"):
            daemon.register(Thing(), 5)  # type: ignore[arg-type]
        with pytest.raises(DaemonError, match="already registered with that id"):
            daemon.register(Thing(), DAEMON_NAME)


@pytest.mark.feature("F296")
def test_public_attributes() -> None:
    with Daemon(host="127.0.0.1", kernel=make_kernel()) as daemon:
        thing = Thing()
        daemon.register(thing, "thing")
        assert daemon.objectsById["thing"] is thing
        assert set(daemon.objectsById) == {DAEMON_NAME, "thing"}
        assert daemon.transportServer is not None
        assert daemon.sock in daemon.sockets
        assert isinstance(daemon.uriFor("thing"), URI)
        assert "2 objects" in repr(daemon)
        daemon.selector  # noqa: B018 - there, whatever it is
        assert daemon.locationStr in repr(daemon)


@pytest.mark.feature("F289", "F035")
@pytest.mark.parametrize("loop", LOOPS)
def test_an_interface_of_ones_own(loop: str) -> None:
    class Mine(DaemonObject):
        @expose
        def more(self) -> str:
            return f"I serve {len(self.daemon.objectsById)}"

    with Served(loop=loop, interface=Mine) as served:
        served.publish(Thing())
        proxy = served.proxy(DAEMON_NAME)
        assert proxy.more() == "I serve 2"
        assert proxy.ping() is None
        assert proxy.registered() == [DAEMON_NAME, "thing"]
        assert "more" in proxy.get_metadata(DAEMON_NAME)["methods"]


def test_objects_of_several_plugins_under_one_id_are_joined() -> None:
    class More:
        @expose
        def extra(self) -> str:
            return "joined"

    class Clash:
        @expose
        def ping(self) -> str:
            return "mine"

    plugin = make_plugin("more", pyro_system_objects=lambda daemon: {DAEMON_NAME: More()})
    with Served(extra_plugins=[plugin]) as served:
        proxy = served.proxy(DAEMON_NAME)
        assert proxy.extra() == "joined"
        assert proxy.ping() is None
    clash = make_plugin("clash", pyro_system_objects=lambda daemon: {DAEMON_NAME: Clash()})
    with pytest.raises(PyroError, match=r"members offered twice for the object 'Pyro\.Daemon': ping"):
        Daemon(memory=True, kernel=make_kernel(extra_plugins=[clash]))


@pytest.mark.feature("F027")
def test_marks_on_objects_go_with_the_daemon() -> None:
    thing = Thing()
    with Daemon(memory=True, kernel=make_kernel()) as daemon:
        daemon.register(thing, "thing")
        assert thing._pyroId == "thing"  # type: ignore[attr-defined]
    assert not hasattr(thing, "_pyroId")
    assert not hasattr(thing, "_pyroDaemon")


@pytest.mark.feature("F048")
def test_a_registered_object_keeps_no_daemon_alive() -> None:
    thing = Thing()
    daemon = Daemon(memory=True, kernel=make_kernel())
    daemon.register(thing)
    daemon.close()
    reference = weakref.ref(daemon)
    del daemon
    gc.collect()
    assert reference() is None


@pytest.mark.feature("F048")
@pytest.mark.parametrize("loop", LOOPS)
def test_a_daemon_that_serves_is_not_collected(loop: str) -> None:
    with Served(loop=loop) as served:
        served.publish(Thing())
        daemon = weakref.proxy(served.daemon)
        proxy = served.proxy()
        gc.collect()
        assert proxy.echo(1) == 1
        assert daemon.locationStr


def test_a_dead_objects_address_may_be_used_again() -> None:
    with Daemon(memory=True, kernel=make_kernel()) as daemon:
        for number in range(50):
            thing = Thing()
            daemon.register(thing, f"t{number}", weak=True)
            del thing
        gc.collect()
        assert set(daemon.objectsById) == {DAEMON_NAME}
        with pytest.raises(DaemonError):
            daemon.uriFor(Thing())


@pytest.mark.feature("F023")
def test_nat_settings() -> None:
    with Daemon(host="127.0.0.1", kernel=make_kernel(NATHOST="outside", NATPORT=99)) as daemon:
        assert daemon.natLocationStr == "outside:99"
        assert str(daemon.uriFor("x")) == "PYRO:x@outside:99"
        assert daemon.uriFor("x", nat=False).location == daemon.locationStr


@pytest.mark.parametrize("loop", ["thread", "multiplex"])
@pytest.mark.parametrize("where", [{"memory": True}, {"host": "127.0.0.1"}], ids=["memory", "tcp"])
def test_a_daemon_that_nobody_closes_goes_before_its_kernel(loop: str, where: dict[str, Any]) -> None:
    kernel = make_kernel(SERVERTYPE=loop)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # its socket says that nobody has closed it
        daemon = Daemon(kernel=kernel, **where)
        thing = Thing()
        daemon.register(thing)
        gone = weakref.ref(daemon)
        del daemon
        gc.collect()
    assert gone() is None
    with Daemon(kernel=kernel, memory=True) as other:
        assert other.register(thing, "again").object == "again"
