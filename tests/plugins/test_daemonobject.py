"""Plugin daemonobject: the object Pyro.Daemon."""

from __future__ import annotations

import pytest

from pyroplug.api import DAEMON_NAME, DaemonError, DaemonObject, expose, oneway
from pyroplug.testing.kernels import LOOPS, Served

pytestmark = pytest.mark.needs("daemonobject")


class Thing:
    @expose
    @oneway
    def fire(self) -> None:
        pass


@pytest.mark.feature("F035")
@pytest.mark.parametrize("loop", LOOPS)
def test_what_it_answers(loop: str) -> None:
    with Served("tcp4", loop) as served:
        proxy = served.proxy(DAEMON_NAME)
        assert proxy.ping() is None
        assert proxy.registered() == [DAEMON_NAME]
        served.publish(Thing(), "b")
        served.publish(Thing(), "a")
        assert proxy.registered()[0] == DAEMON_NAME
        assert set(proxy.registered()) == {DAEMON_NAME, "a", "b"}
        info = proxy.info()
        assert served.daemon.locationStr in info
        assert "3 objects registered" in info
        metadata = proxy.get_metadata("a")
        assert {key: set(value) for key, value in metadata.items()} == {
            "methods": {"fire"},
            "oneway": {"fire"},
            "attrs": set(),
        }
        with pytest.raises(DaemonError, match="unknown object: c"):
            proxy.get_metadata("c")


@pytest.mark.feature("F035")
def test_nat_is_told() -> None:
    with Served("tcp4", nathost="outside.example", natport=77) as served:
        assert "NAT location=outside.example:77" in DaemonObject(served.daemon).info()


@pytest.mark.feature("F289")
def test_the_interface_can_be_replaced() -> None:
    class Quiet(DaemonObject):
        @expose
        def registered(self) -> list[str]:
            return ["none of your business"]

    with Served(interface=Quiet) as served:
        assert served.proxy(DAEMON_NAME).registered() == ["none of your business"]
        assert served.proxy(DAEMON_NAME).ping() is None


def test_it_cannot_be_taken_off() -> None:
    with Served() as served:
        served.daemon.unregister(DAEMON_NAME)
        assert served.proxy(DAEMON_NAME).ping() is None
        with pytest.raises(DaemonError):
            served.publish(Thing(), DAEMON_NAME)
