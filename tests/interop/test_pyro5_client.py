"""Real Pyro5 clients of our daemons: over TCP and Unix sockets, each serializer, both server loops.

One Pyro5 process per server loop makes all its calls at once (``peers/pyro5_client.py``); each test looks at what
one of them gave.
"""

from __future__ import annotations

import json
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from pyroplug.core.connection import ServerConnection
from pyroplug.core.daemon import Daemon
from pyroplug.core.errors import NamingError, OverloadError
from pyroplug.core.kernel import Kernel
from pyroplug.core.members import expose
from pyroplug.core.uri import URI
from pyroplug.plugins.blob import SerializedBlob
from pyroplug.plugins.callcontext import current_context
from pyroplug.plugins.oneway import oneway
from testkit.timeouts import PATIENCE

pytestmark = pytest.mark.interop

SERIALIZERS = ("serpent", "json", "msgpack", "marshal")
TRANSPORTS = ("tcp", "unix")


class CustomError(Exception):
    pass


CustomError.__module__ = "mymod"


@expose
class Sub:
    def hi(self, name: str) -> str:
        return f"hi {name}"


@expose
class Items:
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> str:
        return ["a", "b", "c"][index]


class Hidden:
    def secret(self) -> None:
        """Not exposed."""


@expose
class Demo:
    """The counterpart of the class of that name in ``peers/pyro5_server.py``."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._value = 1
        self._fired = threading.Event()
        self._sub = Sub()

    def add(self, a: Any, b: Any = 0) -> Any:
        return a + b

    def echo(self, value: Any) -> Any:
        return value

    def kwargs(self, *args: Any, **kwargs: Any) -> Any:
        return [list(args), kwargs]

    def nothing(self) -> None:
        """Nothing."""

    def boom(self) -> float:
        return 1 / 0

    def boom_attributes(self) -> None:
        error = ValueError("bad", 42)
        error.extra = "info"  # type: ignore[attr-defined]
        raise error

    def boom_pyro(self) -> None:
        raise NamingError("unknown name: x")

    def boom_custom(self) -> None:
        raise CustomError("mine", 7)

    def boom_overload(self) -> None:
        raise OverloadError("too much", 1.5)

    def boom_exit(self) -> None:
        raise SystemExit(3)

    def unserializable(self) -> Any:
        return threading.Lock()

    def _private(self) -> None:
        """Never remote."""

    @oneway
    def fire(self, number: int) -> None:
        self._value = number
        self._fired.set()

    def fired(self, timeout: float) -> Any:
        done = self._fired.wait(timeout)
        self._fired.clear()
        return done and self._value

    @property
    def value(self) -> int:
        return self._value

    @value.setter
    def value(self, new: int) -> None:
        self._value = new

    @property
    def readonly(self) -> str:
        return "fixed"

    @classmethod
    def by_class(cls) -> str:
        return cls.__name__

    @staticmethod
    def by_static(a: int) -> int:
        return a * 2

    def call_back(self, proxy: Any, number: int) -> Any:
        with proxy:
            return proxy.add(number, 1)

    def sub(self) -> Sub:
        return self._sub

    def uri(self) -> URI:
        return URI("PYRO:abc@localhost:1234")

    def context(self) -> dict[str, Any]:
        current_context.response_annotations = {"RESP": b"reply-note"}
        return {
            "correlation": str(current_context.correlation_id),
            "annotations": {key: value.decode() for key, value in current_context.annotations.items()},
            "serializer": current_context.serializer_id,
            "seq": current_context.seq,
        }

    def gen(self, count: int) -> Iterator[int]:
        yield from range(count)

    def gen_fail(self) -> Iterator[int]:
        yield 1
        raise ValueError("on purpose")

    def blob(self, blob: SerializedBlob) -> Any:
        return [blob.info, blob.deserialized()]

    def compress(self, on: bool) -> None:
        self._kernel.settings.COMPRESSION = on


def unexposed(self: Demo) -> None:
    """A public method without a mark."""


Demo.unexposed = unexposed  # type: ignore[attr-defined]


class ValidatingDaemon(Daemon):
    def validateHandshake(self, conn: ServerConnection, data: Any) -> Any:
        if data == "deny":
            raise PermissionError("go away")
        return {"you-said": data} if isinstance(data, dict) else "hello"


def publish(daemon: Daemon) -> URI:
    """Register what the checks need; the URI of the first object."""
    demo = Demo(daemon.kernel)
    uri = daemon.register(demo, "demo")
    daemon.register(demo._sub, "sub")
    daemon.register(Items(), "items")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        daemon.register(Hidden(), "hidden")
    return uri


@contextmanager
def running(daemon: Daemon) -> Iterator[None]:
    """Serve in a thread."""
    thread = threading.Thread(target=daemon.requestLoop)
    thread.start()
    try:
        yield
    finally:
        daemon.shutdown()
        thread.join(PATIENCE)


@pytest.fixture(scope="module", params=["thread", "multiplex"])
def results(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, peer: Callable[..., Any]
) -> dict[str, Any]:
    """What a Pyro5 client got from our daemons with this server loop: transport -> serializer -> check -> outcome."""
    everything = {"SERVERTYPE": request.param, "SERIALIZERS_ACCEPTED": set(SERIALIZERS)}
    kernel = Kernel(settings=everything, environ={})
    default = Kernel(settings={"SERVERTYPE": request.param}, environ={})
    with ExitStack() as stack:
        uris = {}
        for transport in TRANSPORTS:
            path = str(tmp_path_factory.mktemp("u") / "s") if transport == "unix" else None
            daemon = ValidatingDaemon(unixsocket=path, kernel=kernel)
            uris[transport] = str(publish(daemon))
            stack.enter_context(running(daemon))
        strict = Daemon(kernel=default)
        order = {"uris": uris, "strict": str(publish(strict)), "patience": PATIENCE}
        stack.enter_context(running(strict))
        found: dict[str, Any] = peer("pyro5_client.py", stdin=json.dumps(order) + "\n")
    kernel.close()
    default.close()
    return found


@pytest.fixture(
    params=[(transport, serializer) for transport in TRANSPORTS for serializer in SERIALIZERS], ids="-".join
)
def outcome(request: pytest.FixtureRequest, results: dict[str, Any]) -> Callable[[str], dict[str, Any]]:
    """The outcome of a check with one transport and serializer."""
    transport, serializer = request.param

    def look_up(check: str) -> dict[str, Any]:
        found: dict[str, Any] = results[transport][serializer][check]
        return found | {"serializer": serializer, "transport": transport}

    return look_up


Outcome = Callable[[str], dict[str, Any]]

METHODS = (
    "add blob boom boom_attributes boom_custom boom_exit boom_overload boom_pyro by_class by_static call_back compress "
    "context echo fire fired gen gen_fail kwargs nothing sub unserializable uri"
).split()

VALUES: dict[str, Any] = {
    "positional": 7,
    "keywords": [[1, "two"], {"a": 3, "b": [4]}],
    "nothing": None,
    "values": True,
    "big": True,
    "many_calls_on_one_connection": sum(range(1, 201)),
    "class_and_static_methods": ["Demo", 8],
    "several_connections": list(range(20)),
    "the_connection_outlives_errors": [2, True],
    "metadata": [["set", "set", "set"], METHODS, ["fire"], ["readonly", "value"]],
    "item_protocol": [3, "b", ["a", "b", "c"], True],
    "oneway": [None, 11],
    "oneway_errors_are_not_seen": [None, 4],
    "wire_ping": 3,
    "handshake_accepted_with_an_answer": [2, [{"you-said": {"user": "u", "pw": [1, 2]}}]],
    "compressed_by_us_and_by_them": [True, True, True, True],
    "sequence_numbers_wrap": [[0, 0xFFFF], [1, 0], [2, 1]],
    "reconnecting": [1, 2],
    "error_with_attributes": [["bad", 42], "info"],
    "their_proxy_is_called_back": 42,
    "their_proxy_comes_back": ["Proxy", True],
    "our_uri": ["URI", "PYRO:abc@localhost:1234"],
    "their_uri": ["URI", "PYRO:abc@localhost:1234"],
    "stream": [[0, 1, 2, 3, 4], [], 1],
    "stream_that_fails": [[1], "on purpose"],
    "streams_at_the_same_time": [[0, 0], [1, 1], [2, 2]],
    "stream_closed_early": [0, "item stream terminated", 1],
    "blob": ["info-tag", [1, "two"]],
    "serializer_that_is_not_accepted_later": [2, "invalid serializer in response: 1"],
}


BATCHES: dict[str, Any] = {
    "batch": [3, [["z"], {"k": 1}]],
    "batch_that_fails": [[3], "division by zero", True],
    "batch_oneway": [None, 5],
}


@pytest.mark.feature(
    "F065", "F086", "F088", "F089", "F122", "F241", "F243", "F149", "F150", "F172", "F287", "F301", "F303"
)
@pytest.mark.parametrize("check", VALUES)
def test_a_pyro5_client_gets_the_value(outcome: Outcome, check: str) -> None:
    found = outcome(check)
    assert found.get("raised") is None, found
    assert found["value"] == VALUES[check]


@pytest.mark.feature("F107", "F108", "F304")
def test_a_builtin_error_arrives_with_our_traceback(outcome: Outcome) -> None:
    found = outcome("builtin_error")
    assert (found["raised"], found["text"]) == ("builtins.ZeroDivisionError", "division by zero")
    lines = found["traceback"]
    assert lines[0] == "Traceback (most recent call last):\n"
    assert any("return 1 / 0" in line for line in lines)
    assert lines[-1] == "ZeroDivisionError: division by zero\n"


ERRORS: dict[str, tuple[str, str]] = {
    "pyro_error": ("Pyro5.errors.NamingError", "unknown name: x"),
    "error_of_a_class_of_the_server": (
        "Pyro5.errors.SerializeError",
        "unsupported serialized class: mymod.CustomError",
    ),
    "error_that_only_we_have": ("Pyro5.errors.DaemonError", "too much"),
    "private_method": ("builtins.AttributeError", "attempt to access private attribute '_private'"),
    "unexposed_method": ("builtins.AttributeError", "attempt to access unexposed attribute 'unexposed' of class Demo"),
    "unknown_method": ("builtins.AttributeError", "'Demo' object has no attribute 'nosuch'"),
    "dotted_method": ("builtins.AttributeError", "'Demo' object has no attribute 'echo.__class__'"),
    "unknown_object_in_a_call": ("Pyro5.errors.DaemonError", "unknown object: nosuch"),
    "daemon_metadata_of_an_unknown_object": ("Pyro5.errors.DaemonError", "unknown object: nosuch"),
}


@pytest.mark.feature("F107", "F222", "F223", "F304")
@pytest.mark.parametrize("check", ERRORS)
def test_a_pyro5_client_gets_the_error(outcome: Outcome, check: str) -> None:
    found = outcome(check)
    assert (found.get("raised"), found.get("text")) == ERRORS[check]


PATTERNS: dict[str, tuple[str, str]] = {
    "system_exit": ("Pyro5.errors.PyroError", "SystemExit"),
    "result_that_cannot_travel": ("Pyro5.errors.SerializeError", "don't know how to serialize class"),
    "wrong_arguments": ("builtins.TypeError", "positional arguments"),
    "unknown_member_is_refused_by_the_proxy": (
        "builtins.AttributeError",
        "has no exposed attribute or method 'nosuch'",
    ),
    "nothing_exposed": ("Pyro5.errors.PyroError", "doesn't expose any methods or attributes"),
    "handshake_denied": ("Pyro5.errors.CommunicationError", "rejected: go away"),
    "unknown_object": ("Pyro5.errors.CommunicationError", "rejected: unknown object: nosuch"),
    "serializer_that_is_not_accepted": (
        "Pyro5.errors.CommunicationError",
        "rejected: message used serializer that is not accepted: 2 (accepted are: json, msgpack, serpent)",
    ),
}


@pytest.mark.feature("F121", "F225", "F271")
@pytest.mark.parametrize("check", PATTERNS)
def test_a_pyro5_client_is_told_what_is_wrong(outcome: Outcome, check: str) -> None:
    found = outcome(check)
    kind, text = PATTERNS[check]
    assert found.get("raised") == kind, found
    assert text in found["text"]


def test_bytes_arrive_as_the_serializer_can(outcome: Outcome) -> None:
    found = outcome("binary")
    if found["serializer"] == "json":  # refused by Pyro5 itself
        assert found["raised"] == "Pyro5.errors.SerializeError"
    else:
        assert found["value"] == b"\x00\xff raw".hex()


# Pyro5 itself cannot write the null keyword arguments of attribute access with marshal (wire.md 9)
@pytest.mark.feature("F068")
@pytest.mark.parametrize(("check", "value"), [("attribute_get", "fixed"), ("attribute_set", 77)])
def test_attributes_are_read_and_written(outcome: Outcome, check: str, value: Any) -> None:
    found = outcome(check)
    if found["serializer"] == "marshal":
        assert found["text"] == "'NoneType' object has no attribute 'items'"
    else:
        assert found["value"] == value


@pytest.mark.feature("F068")
def test_a_read_only_attribute_is_not_written(outcome: Outcome) -> None:
    found = outcome("attribute_set_readonly")
    assert found["raised"] == "builtins.AttributeError"
    if found["serializer"] != "marshal":
        assert found["text"] == "attempt to access unexposed or unknown remote attribute 'readonly'"


@pytest.mark.feature("F092", "F093")
@pytest.mark.parametrize("check", BATCHES)
def test_batches_are_made_in_one_message(outcome: Outcome, check: str) -> None:
    found = outcome(check)
    if found["serializer"] == "marshal":  # for the same reason
        assert found["text"] == "'NoneType' object has no attribute 'items'"
    else:
        assert found["value"] == BATCHES[check], found


@pytest.mark.feature("F145", "F147")
def test_registered_objects_become_proxies(outcome: Outcome) -> None:
    ours, theirs = outcome("our_registered_object_becomes_a_proxy"), outcome("their_registered_object_becomes_a_proxy")
    if ours["serializer"] == "marshal":  # never autoproxied
        assert "raised" in ours
        assert "raised" in theirs
    else:
        assert ours["value"] == ["Proxy", ["hi"], "hi you"]
        assert theirs["value"] == 42


@pytest.mark.feature("F035")
def test_the_daemon_tells_about_itself(outcome: Outcome) -> None:
    ping, registered, info, parts, attributes, methods = outcome("daemon_object")["value"]
    assert ping is None
    assert registered[0] == "Pyro.Daemon"
    assert set(registered) == {"Pyro.Daemon", "demo", "sub", "items", "hidden"}
    assert info == "str"
    assert parts == ["attrs", "methods", "oneway"]
    assert attributes == ["readonly", "value"]
    assert {"ping", "registered", "info", "get_metadata"} <= set(methods)


@pytest.mark.feature("F234", "F235", "F236")
def test_the_context_of_the_call_is_seen(outcome: Outcome) -> None:
    found = outcome("context")
    wire_id = {"serpent": 1, "marshal": 2, "json": 3, "msgpack": 4}[found["serializer"]]
    assert found["value"] == [
        "11112222-3333-4444-5555-666677778888",
        {"TEST": "note"},
        wire_id,
        1,
        {"RESP": "reply-note"},
    ]


def test_every_check_of_the_peer_is_looked_at(results: dict[str, Any]) -> None:
    others = {
        "builtin_error", "binary", "attribute_get", "attribute_set", "attribute_set_readonly", "context",
        "our_registered_object_becomes_a_proxy", "their_registered_object_becomes_a_proxy", "daemon_object",
    }  # fmt: skip
    assert set(results["tcp"]["json"]) == others | set(VALUES) | set(BATCHES) | set(ERRORS) | set(PATTERNS)


# ------------------------------------------------------------------------------------------------ connected sockets
@pytest.mark.feature("F173")
@pytest.mark.parametrize("server", ["thread", "multiplex"])
def test_a_pyro5_client_over_a_connected_socket(server: str, peer: Callable[..., Any]) -> None:
    kernel = Kernel(settings={"SERVERTYPE": server, "SERIALIZERS_ACCEPTED": set(SERIALIZERS)}, environ={})
    ours, theirs = socket.socketpair()
    with ours, theirs:
        daemon = Daemon(connected_socket=ours, kernel=kernel)
        publish(daemon)
        with running(daemon):
            results = peer("pyro5_client.py", "pair", str(theirs.fileno()), pass_fds=(theirs.fileno(),))
    kernel.close()
    expected = [3, [[1], {"b": 2}], "PYRO:demo@<<connected-socket>>:0", ["readonly", "value"], "division by zero"]
    for serializer in ("serpent", "json", "msgpack"):
        assert results[serializer] == {"value": [*expected, "fixed"]}
    assert results["marshal"] == {"value": expected}
