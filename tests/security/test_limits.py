"""Every limit, just below and just above; what wants to be large, deep or slow; and what is secret."""

from __future__ import annotations

import json
import logging
import pickle
import struct
import threading
import time
import tracemalloc
import zlib
from typing import Any

import msgpack
import pytest

from pyroplug.api import (
    ConfigError,
    Kernel,
    MessageTooLargeError,
    Proxy,
    RemoteError,
    SerializeError,
)
from pyroplug.core.wire import (
    CONNECT,
    CONNECTFAIL,
    CONNECTOK,
    FLAG_COMPRESSED,
    FLAG_EXCEPTION,
    INVOKE,
    RESULT,
    encode,
    read_marshalled_text,
)
from pyroplug.testing.kernels import PATIENCE, Serve, Served, WirePeer, as_bytes, make_kernel
from testkit.timeouts import scaled

SERIALIZERS = ("serpent", "json", "msgpack")


def reason(peer: WirePeer) -> str:
    """The text of the CONNECTFAIL that must come."""
    frame = peer.message()
    assert frame.type == CONNECTFAIL
    return read_marshalled_text(frame.payload) if frame.serializer_id == 2 else str(peer.value(frame))


# --------------------------------------------------------------------------- stalls
@pytest.mark.feature("F081")
def test_a_peer_that_stalls_at_every_single_byte_of_the_handshake(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve(HANDSHAKE_TIMEOUT=scaled(0.4))
    bystander = served.proxy()
    message = served.peer().connect_message()
    caplog.clear()
    started = time.monotonic()
    stalled = [served.peer() for _ in range(len(message))]
    for cut, peer in enumerate(stalled):
        if cut:
            peer.send(message[:cut])
    assert bystander.echo("meanwhile") == "meanwhile"
    assert served.proxy().echo("newcomer") == "newcomer"
    for peer in stalled:
        assert "timeout" in reason(peer)
        assert peer.ended()
    assert time.monotonic() - started < scaled(5)
    assert bystander.echo("after") == "after"
    # one line each, and one for the peer that only lent its message
    lines = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) in (len(stalled), len(stalled) + 1)
    assert all("timeout in the handshake" in record.getMessage() for record in lines)


def test_a_peer_that_goes_on_byte_by_byte_has_one_deadline(serve: Serve) -> None:
    """Sending a little now and then does not extend the time for the handshake."""
    served = serve(HANDSHAKE_TIMEOUT=0.2)
    peer = served.peer()
    message = peer.connect_message()
    stop = threading.Event()

    def trickle() -> None:
        for byte in message[:-1]:
            if stop.wait(0.02):
                return
            try:
                peer.send(bytes([byte]))
            except OSError:
                return

    thread = threading.Thread(target=trickle)
    thread.start()
    started = time.monotonic()
    try:
        assert "timeout" in reason(peer)
        assert time.monotonic() - started < scaled(1)
    finally:
        stop.set()
        thread.join(PATIENCE)


def test_a_peer_that_stalls_inside_a_call(serve: Serve, harmless: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("_base", "thread"):
        monkeypatch.setattr(f"pyroplug.transports.servers.{module}.SWEEP_INTERVAL", 0.02)
    served = serve(STALL_TIMEOUT=0.15, POLLTIMEOUT=0.02)
    peers = [served.peer() for _ in range(8)]
    with harmless(served, lines=8) as records:
        for number, peer in enumerate(peers):
            peer.hello()
            message = peer.call_message("thing", "echo", "x" * 100_000)
            peer.send(message[: [1, 5, 39, 40, 41, 1000, 90_000, len(message) - 1][number]])
        for peer in peers:
            assert peer.ended()
    assert all("no progress inside a message" in record.getMessage() for record in records)


# --------------------------------------------------------------------------- sizes
@pytest.mark.feature("F286")
def test_a_handshake_of_just_the_size_and_one_more(serve: Serve, harmless: Any) -> None:
    served = serve(MAX_HANDSHAKE_SIZE=2000)
    size = len(served.peer().connect_message(handshake="")) - 40
    peer = served.peer()
    assert peer.hello(handshake="x" * (2000 - size)).type == CONNECTOK
    peer = served.peer()
    with harmless(served):
        peer.send(peer.connect_message(handshake="x" * (2001 - size)))
        assert reason(peer) == "message too large (2001, max=2000)"
    # what is announced is enough: nothing more has to be sent, and nothing is kept
    peer = served.peer()
    with harmless(served):
        peer.send(struct.pack("!4sHBBHHII16sHH", b"PYRO", 502, CONNECT, 1, 0, 0, 0xFFFFFFFF, 0, bytes(16), 0, 0x4DC5))
        assert "message too large (4294967295" in reason(peer)


@pytest.mark.feature("F286")
def test_the_handshake_is_small_and_calls_are_not(serve: Serve) -> None:
    served = serve()
    limit = served.kernel.settings.MAX_HANDSHAKE_SIZE
    assert limit == 64 * 1024
    proxy = served.proxy()
    assert len(proxy.echo("x" * (2 * limit))) == 2 * limit


@pytest.mark.feature("F286")
def test_a_call_of_just_the_size_and_one_more(serve: Serve, harmless: Any) -> None:
    served = serve(MAX_MESSAGE_SIZE=3000)
    peer = served.peer()
    size = len(peer.call_message("thing", "echo", "")) - 40
    peer.hello()
    peer.send(peer.call_message("thing", "echo", "x" * (3000 - size)))
    assert peer.message().type == RESULT
    with harmless(served) as records:
        peer.send(peer.call_message("thing", "echo", "x" * (3001 - size)))
        assert peer.ended()
    assert "message too large (3001, max=3000)" in records[0].getMessage()


def test_memory_follows_what_came_not_what_was_announced(serve: Serve) -> None:
    served = serve("memory")
    peers = [served.peer() for _ in range(20)]
    for peer in peers:
        peer.hello()
    tracemalloc.start()
    try:
        for peer in peers:
            header = struct.pack("!4sHBBHHII16sHH", b"PYRO", 502, INVOKE, 1, 0, 1, 1024**3 - 1, 0, bytes(16), 0, 0x4DC5)
            peer.send(header + b"x" * 100_000)
        assert served.proxy().echo(1) == 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100 * 1024**2


# --------------------------------------------------------------------------- inflating
@pytest.mark.feature("F287", "F286")
def test_a_bomb_in_the_handshake(serve: Serve, harmless: Any) -> None:
    """30 kB that would become 30 MB: it is inflated to the limit of the handshake and no further."""
    served = serve()
    bomb = zlib.compress(b"0" * 30_000_000, 9)
    assert len(bomb) < 64 * 1024
    peer = served.peer()
    tracemalloc.start()
    try:
        with harmless(served):
            peer.send(encode(CONNECT, 1, FLAG_COMPRESSED, 0, bomb))
            assert "message too large after inflating (max=65536)" in reason(peer)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000


@pytest.mark.feature("F287", "F286")
def test_a_bomb_in_a_call(serve: Serve, harmless: Any) -> None:
    served = serve(MAX_MESSAGE_SIZE=1_000_000)
    peer = served.peer()
    peer.hello()
    bomb = zlib.compress(b"0" * 60_000_000, 9)
    with harmless(served):
        peer.send(encode(INVOKE, 1, FLAG_COMPRESSED, 1, bomb))
        frame = peer.message()
        assert (frame.type, frame.flags) == (RESULT, FLAG_EXCEPTION)
        error = peer.value(frame)
        assert isinstance(error, MessageTooLargeError)
        assert "after inflating (max=1000000)" in str(error)
    assert peer.value(peer.call("thing", "echo", 1)) == 1


@pytest.mark.feature("F287", "F286")
def test_inflated_to_just_the_size_and_one_more(serve: Serve) -> None:
    served = serve(MAX_MESSAGE_SIZE=5000)
    codec = served.kernel.codecs()["serpent"]
    base = len(codec.dumps_call("thing", "echo", ("",), {}))
    peer = served.peer()
    peer.hello()
    for size, fine in ((5000, True), (5001, False)):
        payload = codec.dumps_call("thing", "echo", ("x" * (size - base),), {})
        assert len(payload) == size
        peer.send(encode(INVOKE, 1, FLAG_COMPRESSED, 1, zlib.compress(payload)))
        frame = peer.message()
        if fine:
            assert not frame.flags & FLAG_EXCEPTION
        else:
            assert isinstance(peer.value(frame), MessageTooLargeError)


# --------------------------------------------------------------------------- nesting
def deep(serializer: str, levels: int) -> bytes:
    """So many lists inside each other."""
    if serializer == "msgpack":
        return b"\x91" * levels + b"\xc0"
    if serializer == "json":
        return b"[" * levels + b"]" * levels
    return b"# serpent utf-8 python3.2\n" + b"[" * levels + b"]" * levels


@pytest.mark.parametrize("levels", [1000, 60_000])
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_deep_nesting_in_the_handshake(serve: Serve, harmless: Any, serializer: str, levels: int) -> None:
    served = serve(MAX_HANDSHAKE_SIZE=300_000)
    peer = served.peer()
    with harmless(served):
        peer.send(encode(CONNECT, served.kernel.serializer_id(serializer), 0, 0, deep(serializer, levels)))
        assert reason(peer)


@pytest.mark.parametrize("levels", [1000, 1_000_000])
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_deep_nesting_in_a_call(serve: Serve, harmless: Any, serializer: str, levels: int) -> None:
    served = serve()
    peer = served.peer()
    peer.hello()
    with harmless(served):
        peer.send(encode(INVOKE, served.kernel.serializer_id(serializer), 0, 1, deep(serializer, levels)))
        frame = peer.message()
        assert (frame.type, frame.flags) == (RESULT, FLAG_EXCEPTION)
        assert isinstance(peer.value(frame), SerializeError)
    assert peer.value(peer.call("thing", "echo", 1)) == 1


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_nesting_just_below_and_above(serve: Serve, serializer: str) -> None:
    served = serve(MAX_NESTING_DEPTH=20)
    proxy = served.proxy()
    proxy._pyroSerializer = serializer

    def nested(levels: int) -> Any:
        value: Any = 1
        for _ in range(levels):
            value = [value]
        return value

    accepted = [levels for levels in range(10, 30) if _accepted(proxy, nested(levels))]
    assert accepted == list(range(10, accepted[-1] + 1))
    assert 15 <= accepted[-1] <= 20  # the request itself, and what holds the arguments, count as well


def _accepted(proxy: Proxy, value: Any) -> bool:
    try:
        assert proxy.echo(value) == value
    except SerializeError as exc:
        assert "nested too deeply" in str(exc)  # noqa: PT017 - the other way to end is as good
        return False
    return True


# --------------------------------------------------------------------------- numbers
def annotated(count: int, payload: bytes) -> bytes:
    area = b"".join(b"A%03d" % number + struct.pack("!I", 0) for number in range(count))
    message = bytearray(as_bytes(encode(CONNECT, 1, 0, 0, area + payload)))
    struct.pack_into("!II", message, 12, len(payload), len(area))
    return bytes(message)


def test_as_many_annotations_as_allowed_and_one_more(serve: Serve, harmless: Any) -> None:
    served = serve(MAX_ANNOTATIONS=5)
    payload = served.peer().connect_message()[40:]
    peer = served.peer()
    peer.send(annotated(5, payload))
    assert peer.message().type == CONNECTOK
    peer = served.peer()
    with harmless(served):
        peer.send(annotated(6, payload))
        assert "too many annotations (max=5)" in reason(peer)


@pytest.mark.feature("F227")
def test_as_many_clients_as_allowed_and_one_more(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    served = serve(MAX_CONNECTIONS=3)
    peers = [served.peer() for _ in range(3)]
    for peer in peers:
        assert peer.hello().type == CONNECTOK
    caplog.clear()
    late = served.peer()
    assert "too many connections (MAX_CONNECTIONS=3)" in reason(late)
    assert late.ended()
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1
    for peer in peers:
        assert peer.value(peer.call("thing", "echo", 1)) == 1


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("MAX_MESSAGE_SIZE", 1023),
        ("MAX_HANDSHAKE_SIZE", 255),
        ("MAX_NESTING_DEPTH", 3),
        ("MAX_ANNOTATIONS", 0),
        ("MAX_CONNECTIONS", 0),
        ("THREADPOOL_SIZE", 0),
        ("THREADPOOL_SIZE_MIN", 0),
        ("CALL_QUEUE_SIZE", -1),
        ("HANDSHAKE_TIMEOUT", -1),
        ("COMMTIMEOUT", -0.1),
        ("ONEWAY_QUEUE_SIZE", 0),
    ],
)
def test_limits_that_would_allow_nothing_are_refused(name: str, wrong: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} cannot be"):
        Kernel(settings={name: wrong}, environ={})
    with pytest.raises(ConfigError, match=f"PYRO_{name} cannot be"):
        make_kernel(environ={f"PYRO_{name}": str(wrong)})


# --------------------------------------------------------------------------- secrets and safe choices
@pytest.mark.feature("F302")
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_a_proxy_that_travels_carries_no_handshake_value(serializer: str) -> None:
    kernel = make_kernel()
    proxy = Proxy("PYRO:thing@localhost:4444", kernel=kernel)
    proxy._pyroHandshake = {"password": "s3cr3t-word"}
    codec = kernel.codecs()[serializer]
    data = codec.dumps({"here": proxy}) + codec.dumps_call("a", "b", (proxy,), {"p": [proxy]})
    assert b"s3cr3t-word" not in data
    assert b"s3cr3t-word" not in pickle.dumps(proxy)
    assert "s3cr3t-word" not in repr(proxy)
    assert codec.loads(codec.dumps(proxy))._pyroHandshake == "hello"


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_a_peer_cannot_pick_the_serializer_of_a_proxy_it_sends(serializer: str) -> None:
    """A proxy that arrives would otherwise have the receiver read a third party's pickles."""
    for sent, taken in (("pickle", None), ("dill", None), ("marshal", None), ("nonsense", None), ("json", "json")):
        kernel = make_kernel()
        state = ["PYRO:thing@localhost:4444", [], ["echo"], [], "hello", sent]
        form = {"__class__": "Pyro5.client.Proxy", "state": state}
        data = {
            "json": json.dumps(form).encode(),
            "msgpack": bytes(msgpack.packb(form) or b""),
            "serpent": b"# serpent utf-8 python3.2\n" + repr(form).encode(),
        }[serializer]
        proxy = kernel.codecs()[serializer].loads(data)
        assert isinstance(proxy, Proxy)
        assert proxy._pyroSerializer == taken
        assert (sent in kernel.plugins.loaded) == (taken is not None)


@pytest.mark.feature("F221", "F228", "F121", "F128")
def test_opt_in_serializers_are_off_unless_named(serve: Serve) -> None:
    served = serve()
    assert {"pickle", "dill", "cloudpickle", "marshal"} & set(served.kernel.plugins.loaded) == set()
    assert {"serpent", "json", "msgpack"} == served.kernel.settings.SERIALIZERS_ACCEPTED
    # that a client uses it does not make the server accept it
    client = make_kernel(SERIALIZER="marshal")
    with (
        Proxy(served.daemon.uriFor("thing"), kernel=client) as proxy,
        pytest.raises(Exception, match="not accepted: 2"),
    ):
        proxy.echo(1)
    assert "marshal" not in served.kernel.plugins.loaded


@pytest.mark.feature("F123", "F124", "F128")
def test_naming_an_unsafe_serializer_is_logged_loudly(caplog: pytest.LogCaptureFixture) -> None:
    for environ, settings in (
        ({"PYRO_SERIALIZERS_ACCEPTED": "serpent,pickle"}, {}),
        ({}, {"SERIALIZERS_ACCEPTED": {"serpent", "pickle"}}),
    ):
        kernel = make_kernel(environ=environ, **settings)
        assert "pickle" in kernel.plugins.loaded
        assert "can RUN CODE that comes from the network" in caplog.text
        caplog.clear()
    kernel = make_kernel()
    kernel.settings.SERIALIZERS_ACCEPTED = {"serpent", "pickle"}
    with Served(kernel=kernel) as served:
        assert "can RUN CODE" in caplog.text
        assert served.daemon._endpoint.base_plan.names.keys() == {1, kernel.serializer_id("pickle")}


@pytest.mark.feature("F228", "F033", "F022", "F167")
def test_a_daemon_binds_to_localhost() -> None:
    from pyroplug.api import Daemon

    with Daemon(kernel=make_kernel()) as daemon:
        assert daemon.locationStr.startswith("localhost:")
        assert daemon.sock.getsockname()[0] in ("127.0.0.1", "::1")
    with Daemon(kernel=make_kernel(HOST="127.0.0.1")) as daemon:
        assert daemon.locationStr.startswith("127.0.0.1:")


def test_remote_error_attributes_are_data_only(serve: Serve) -> None:
    """Attributes that a peer sends with an exception never replace methods or dunder names."""
    served = serve()
    codec = served.kernel.codecs()["json"]
    form = {
        "__class__": "ValueError",
        "__exception__": True,
        "args": ["x"],
        "attributes": {"__class__": 1, "__cause__": 2, "with_traceback": 3, "fine": 4, "__traceback__": 5},
    }
    error = codec.loads(json.dumps(form).encode())
    assert type(error) is ValueError
    assert error.fine == 4  # type: ignore[attr-defined]
    assert callable(error.with_traceback)
    assert error.__cause__ is None
    form["__class__"] = "some.where.Else"
    unknown = codec.loads(json.dumps(form).encode())
    assert isinstance(unknown, RemoteError)
    assert callable(unknown.with_traceback)
    assert unknown.attributes["fine"] == 4
