"""Each plugin can be switched off alone, and everything else still works."""

from __future__ import annotations

import contextvars
import uuid
from typing import Any

import pytest

from pyroplug.api import (
    BatchProxy,
    CommunicationError,
    ConfigError,
    Daemon,
    DaemonError,
    Kernel,
    PluginError,
    Proxy,
    PyroError,
    SerializedBlob,
    SerializeError,
    current_context,
    expose,
    oneway,
    oneway_counts,
    ping,
)
from pyroplug.core.wire import FLAG_COMPRESSED, FLAG_EXCEPTION, encode
from pyroplug.testing.kernels import PATIENCE, Served, make_kernel

DEFAULT = sorted(make_kernel().plugins.loaded)


@expose
class Thing:
    def echo(self, value: Any = None, *, key: Any = None) -> Any:
        return value if key is None else [value, key]

    def fail(self) -> None:
        raise ValueError("on purpose", 5)

    def size(self, text: str) -> int:
        return len(text)

    @oneway
    def fire(self) -> None:
        pass

    @property
    def number(self) -> int:
        return 5

    def _private(self) -> None:
        raise AssertionError


def without(name: str, **settings: Any) -> Kernel:
    """A kernel with everything but that plugin."""
    if name == "serpent":
        settings = {"SERIALIZER": "json", **settings}
    return make_kernel(
        environ={"PYRO_DISABLE_PLUGINS": name}, SERVERTYPE="multiplex" if name == "thread" else "thread", **settings
    )


def serve(name: str, **settings: Any) -> Served:
    """A daemon of such a kernel."""
    served = Served("tcp4" if name == "memory" else "memory", kernel=without(name, **settings))
    served.publish(Thing())
    return served


@pytest.mark.parametrize("name", DEFAULT)
def test_everything_else_works(name: str) -> None:
    kernel = without(name)
    assert name not in kernel.plugins.loaded
    assert "disabled" in kernel.plugins.reasons[name]
    with serve(name) as served:
        proxy = served.proxy()
        assert proxy.echo(5) == 5
        assert proxy.echo([1, {"a": None}], key="k") == [[1, {"a": None}], "k"]
        assert proxy.size("x" * 300_000) == 300_000
        with pytest.raises(ValueError, match="on purpose") as caught:
            proxy.fail()
        assert caught.value.args == ("on purpose", 5)
        assert "in fail" in "".join(caught.value._pyroTraceback)  # type: ignore[attr-defined]
        with pytest.raises(AttributeError, match="private"):
            proxy._pyroInvoke("_private", [], {})
        with pytest.raises(AttributeError, match="nowhere"):
            proxy.nowhere()
        with pytest.raises(SerializeError):
            proxy.echo(object())
        with pytest.raises(CommunicationError, match="unknown object"):
            served.proxy("nowhere").echo()
        others = [served.proxy() for _ in range(3)]
        assert [other.echo(number) for number, other in enumerate(others)] == [0, 1, 2]
        proxy._pyroRelease()
        assert proxy.echo("again") == "again"
        if name not in ("attributes", "metadata"):  # without metadata every name is taken for a method
            assert proxy.number == 5
        if name != "oneway":
            assert proxy.fire() is None
        assert proxy.echo("end") == "end"


@pytest.mark.parametrize("name", DEFAULT)
def test_its_settings_and_reservations_disappear(name: str) -> None:
    everything, rest = make_kernel(), without(name)
    gone = set(everything.plugins.loaded) - set(rest.plugins.loaded)
    assert name in gone
    for other in gone - {name}:
        assert "which is off" in rest.plugins.reasons[other]
    mine = {setting.name for setting in everything.settings.schema if setting.owner in gone}
    left = {setting.name for setting in rest.settings.schema}
    assert mine & left == set()
    assert gone & set(rest.wire._owners.values()) == set()
    for setting in mine:
        with pytest.raises(AttributeError, match=f"there is no setting '{setting}'"):
            getattr(rest.settings, setting)
        with pytest.raises(ConfigError, match=f"there is no setting '{setting}'"):
            without(name, **{setting: 1})
        with pytest.warns(UserWarning, match=f"unknown environment variable: PYRO_{setting}"):
            make_kernel(environ={"PYRO_DISABLE_PLUGINS": name, f"PYRO_{setting}": "1"})


# --------------------------------------------------------------------------- what is missed, and what it says
def test_without_instances() -> None:
    with serve("instances") as served, pytest.raises(PluginError, match="plugin 'instances'"):
        served.publish(Thing, "class")


def test_without_pair() -> None:
    import socket

    here, there = socket.socketpair()
    with here, there, pytest.raises(ConfigError, match="plugin 'pair'"):
        Daemon(connected_socket=here, kernel=without("pair"))


def test_without_a_transport() -> None:
    with pytest.raises(ConfigError, match="no transport that is loaded can listen"):
        Daemon(unixsocket="/nowhere", kernel=without("unix"))
    with pytest.raises(CommunicationError, match=r"no transport is loaded for '\./u:/nowhere'"):
        Proxy("PYRO:x@./u:/nowhere", kernel=without("unix")).echo()
    with pytest.raises(ConfigError, match="no transport that is loaded can listen"):
        Daemon(kernel=without("tcp"))


def test_without_a_serializer() -> None:
    with pytest.raises(SerializeError, match=r"'json' is not available: plugin 'json' is disabled by PYRO_DISABLE"):
        Proxy("PYRO:x@localhost:4", kernel=without("json", SERIALIZER="json"))
    with serve("json") as served:
        proxy = served.proxy(kernel=make_kernel(SERIALIZER="json"))
        with pytest.raises(CommunicationError, match="serializer that is not accepted"):
            proxy.echo()


@pytest.mark.parametrize("name", ["thread", "multiplex"])
def test_without_a_server_loop(name: str) -> None:
    kernel = make_kernel(environ={"PYRO_DISABLE_PLUGINS": name}, SERVERTYPE=name)
    with pytest.raises(ConfigError, match=f"SERVERTYPE cannot be '{name}'"):
        Daemon(memory=True, kernel=kernel)


def test_without_attributes() -> None:
    with serve("attributes") as served, pytest.raises(AttributeError):
        _ = served.proxy().number


@pytest.mark.feature("F087")
def test_without_metadata() -> None:
    with serve("metadata") as served:
        proxy = served.proxy()
        assert proxy.echo(1) == 1
        assert not proxy._pyroMetadataKnown
        with pytest.raises(AttributeError, match="'Thing' object has no attribute 'nowhere'"):
            proxy.nowhere()
        with pytest.raises(TypeError, match=r"no exposed __iter__ .* off: .*metadata"):
            list(proxy)


def test_without_daemonobject() -> None:
    with serve("daemonobject") as served:
        # other plugins may have their say under that name; nobody pings
        with pytest.raises((AttributeError, CommunicationError), match=r"Pyro\.Daemon"):
            served.proxy("Pyro.Daemon").ping()
        assert served.proxy().echo(1) == 1


def test_without_what_daemon_classes_and_arguments_rely_on() -> None:
    class Annotating(Daemon):
        def annotations(self) -> dict[str, bytes]:
            return {"XTRA": b"x"}

    with pytest.raises(PluginError, match="'annotations', which is off"):
        Annotating(memory=True, kernel=without("annotations"))
    with pytest.raises(PluginError, match="'daemonobject', which is off"):
        Daemon(memory=True, interface=Thing, kernel=without("daemonobject"))
    with serve("daemonobject") as served, pytest.raises(AttributeError, match="switched off here: plugin daemonobject"):
        served.proxy("Pyro.Daemon").ping()


def test_without_ping() -> None:
    with serve("ping") as served:
        proxy = served.proxy()
        with pytest.raises(PluginError, match="ping"):
            ping(proxy)
        assert proxy.echo(1) == 1
        # a client that has it meets a server that has not: that hangs up, as for any message it does not know
        with Proxy(served.daemon.uriFor("thing"), kernel=make_kernel()) as other:
            with pytest.raises(CommunicationError):
                ping(other)
            assert other.echo(1) == 1


def test_without_compression() -> None:
    """A peer that compresses all the same gets an error, and the connection goes on."""
    with serve("compression") as served:
        peer = served.peer()
        peer.hello()
        peer.send(encode(4, 1, FLAG_COMPRESSED, 1, b"\x78\x5e"))
        frame = peer.message()
        assert frame.flags == FLAG_EXCEPTION
        assert isinstance(peer.value(frame), PyroError)
        assert peer.value(peer.call("thing", "echo", 1)) == 1


def test_without_oneway() -> None:
    """The mark says nothing any more: the caller gets what the method returns."""
    with serve("oneway") as served:
        with pytest.raises(PluginError, match="'oneway', which is off"):
            oneway_counts(served.daemon)
        peer = served.peer()
        welcome = peer.value(peer.hello())  # a client of Pyro5 fails without any of the three
        assert welcome["meta"].keys() == {"methods", "attrs", "oneway"}
        proxy = served.proxy()
        assert proxy._pyroOneway == set()
        assert proxy.fire() is None
        assert proxy.echo(1) == 1


def test_without_autoproxy() -> None:
    class Giver:
        @expose
        def give(self) -> Any:
            return self

    with serve("autoproxy") as served:
        served.publish(Giver(), "giver")
        with pytest.raises(
            PyroError, match=r"unsupported serialized class: .* \(switched off here: plugin autoproxy\)"
        ):
            served.proxy("giver").give()


def test_without_retry() -> None:
    proxy = Proxy("PYRO:x@localhost:4", kernel=without("retry"))
    with pytest.raises(AttributeError, match=r"no plugin that is loaded gives '_pyroMaxRetries' .* off: .*retry"):
        assert proxy._pyroMaxRetries == 0


def test_disabled_wins_over_everything() -> None:
    kernel = make_kernel(environ={"PYRO_PLUGINS": "+dill", "PYRO_DISABLE_PLUGINS": "dill"})
    assert "dill" not in kernel.plugins.loaded
    with pytest.raises(PluginError, match="'ping' is disabled"):
        without("ping").enable("ping")
    with pytest.raises(DaemonError), Served(kernel=without("proxies")) as served:
        served.daemon.uriFor(object())
    assert PATIENCE > 0


# --------------------------------------------------------------------------- whoever uses what is off hears of it
@expose
class Wanting:
    """Methods that need plugins on the server."""

    def echo(self, value: Any = None) -> Any:
        return value

    def items(self) -> Any:
        yield from range(3)

    def track(self) -> None:
        current_context.track_resource(self)

    def close(self) -> None:
        raise AssertionError

    def remember(self) -> None:
        current_context.session.thing = 5

    @property
    def number(self) -> int:
        return 5


USES: dict[str, Any] = {
    "annotations": lambda proxy: _saying("annotations", {"ABCD": b"x"}, proxy.echo),
    "attributes": lambda proxy: proxy._pyroInvoke("__getattr__", ("number",), {}),
    "batch": lambda proxy: BatchProxy(proxy).echo(1),
    "blob": lambda proxy: proxy.echo(SerializedBlob("info", [1])),
    "correlation": lambda proxy: _saying("correlation_id", uuid.uuid4(), proxy.echo),
    "futures": lambda proxy: proxy._pyroAsync(),
    "ping": ping,
    "resources": lambda proxy: proxy.track(),
    "session": lambda proxy: proxy.remember(),
    "streaming": lambda proxy: list(proxy.items()),
}


def _saying(name: str, value: Any, call: Any) -> None:
    def run() -> None:
        setattr(current_context, name, value)
        call()

    contextvars.copy_context().run(run)


@pytest.mark.parametrize("name", sorted(USES))
def test_whoever_uses_a_plugin_that_is_off_is_told_its_name(name: str) -> None:
    with Served("memory", kernel=without(name)) as served:
        served.publish(Wanting())
        proxy = served.proxy()
        assert proxy.echo(5) == 5
        with pytest.raises((PyroError, AttributeError), match=name):
            USES[name](proxy)
        assert proxy.echo(6) == 6


@pytest.mark.feature("F148")
def test_without_autoproxy_an_object_travels_as_a_copy_and_a_proxy_has_to_be_returned() -> None:
    @expose
    class Maker:
        def copy(self) -> Any:
            return self

        def proxy(self) -> Any:
            return served.daemon.proxyFor(self)

    with Served("memory", kernel=without("autoproxy")) as served:
        served.publish(Maker())
        proxy = served.proxy()
        with pytest.raises(SerializeError, match="unsupported serialized class"):
            proxy.copy()
        assert isinstance(proxy.proxy(), Proxy)
