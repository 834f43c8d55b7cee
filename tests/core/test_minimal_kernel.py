"""The least that works: one serializer, one transport, and no other plugin; not even a server loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from pyroplug.api import ConfigError, Daemon, Kernel, Proxy, expose
from pyroplug.core.connection import ServerConnection
from pyroplug.core.dispatch import LATER
from pyroplug.core.plan import Plan
from pyroplug.core.registry import ObjectEntry, Registry
from pyroplug.core.wire import send_all
from pyroplug.testing.kernels import PATIENCE
from pyroplug.testing.transports import accept, in_thread


class Echo:
    @expose
    def echo(self, value: Any, *, twice: bool = False) -> Any:
        return [value, value] if twice else value

    def hidden(self) -> None:
        raise AssertionError("this is not exposed")


class Endpoint:
    """What a connection must know of whoever serves it, without a daemon."""

    def __init__(self, kernel: Kernel, **objects: Any) -> None:
        registry = Registry()
        for name, target in objects.items():
            registry.add(ObjectEntry(name, kernel.members_of(type(target)), target))
        self.kernel = kernel
        self.objects = registry.objects
        self.settings = kernel.settings
        self.messages: Mapping[int, Callable[..., Any]] = kernel.wire.messages
        self.attributes = kernel.connection_attributes
        self.base_plan = kernel.server_plan()
        self.events: list[str] = []

    def greet(self, connection: ServerConnection, hello: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"handshake": "hello"}

    def bind(self, connection: Any) -> Plan:
        return self.kernel.bind(connection)

    def opened(self, connection: ServerConnection) -> None:
        self.events.append("opened")

    def closed(self, connection: ServerConnection, error: BaseException | None) -> None:
        self.events.append("closed")


def serve_one(listener: Any, endpoint: Endpoint) -> None:
    """The smallest server loop: one client, until it goes."""
    stream = accept(listener)
    stream.settimeout(PATIENCE)
    connection = ServerConnection(endpoint, stream)
    buffer = bytearray(65536)
    while count := stream.recv_into(buffer):
        connection.receive(bytes(buffer[:count]))
        while (task := connection.next_task()) is not None:
            message = task.run()
            assert message is not LATER
            if message is not None:
                send_all(stream.send, message)
    connection.closed()


def test_an_echo_with_one_serializer_one_transport_and_no_other_plugin() -> None:
    kernel = Kernel(plugins=["serpent", "memory"], environ={})
    assert list(kernel.plugins.loaded) == ["memory", "serpent"]
    endpoint = Endpoint(kernel, thing=Echo())
    listener = kernel.transports["m"].listen({"memory": True}, kernel.settings)
    assert listener is not None
    serving = in_thread(serve_one, listener, endpoint)
    with Proxy(f"PYRO:thing@{listener.location}", kernel=kernel) as proxy:
        assert proxy.echo(42) == 42
        assert proxy.echo("x", twice=True) == ["x", "x"]
        with pytest.raises(AttributeError, match="unexposed attribute 'hidden'"):
            proxy.hidden()
        with pytest.raises(TypeError):
            proxy.echo()
        assert proxy.echo({"a": [1, 2.5, None]}) == {"a": [1, 2.5, None]}
    serving.result(PATIENCE)
    listener.close()
    assert endpoint.events == ["opened", "closed"]


def test_what_is_missing_is_said() -> None:
    with pytest.raises(ConfigError, match="no plugin gives a transport; loaded are: serpent"):
        Kernel(plugins=["serpent"], environ={})
    with pytest.raises(ConfigError, match="no plugin gives a serializer; loaded are: memory"):
        Kernel(plugins=["memory"], environ={})
    with pytest.raises(ConfigError, match="no plugin gives a serializer; loaded are: none"):
        Kernel(plugins=[], environ={})
    with pytest.raises(ConfigError, match="SERVERTYPE cannot be 'thread'; loaded are: none"):
        Daemon(kernel=Kernel(plugins=["serpent", "memory"], environ={}), memory=True)


def test_a_daemon_needs_just_a_server_loop_more() -> None:
    kernel = Kernel(plugins=["serpent", "memory", "multiplex"], settings={"SERVERTYPE": "multiplex"}, environ={})
    with Daemon(kernel=kernel, memory=True) as daemon:
        uri = daemon.register(Echo())
        assert list(daemon.objectsById) == [uri.object]
        loop = in_thread(daemon.requestLoop)
        with Proxy(uri, kernel=kernel) as proxy:
            assert proxy.echo(1) == 1
        daemon.shutdown()
        loop.result(PATIENCE)


def test_the_minimal_kernel_has_only_its_own_settings() -> None:
    kernel = Kernel(plugins=["serpent", "memory"], environ={})
    owners = {setting.owner for setting in kernel.settings.schema}
    assert owners <= {"kernel", "serpent", "memory", "transports"}
    assert kernel.wire.messages == {}
    assert kernel.wire.inflaters == {}
