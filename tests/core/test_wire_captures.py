"""The recorded traffic of real Pyro5 peers: it is cut, rebuilt, answered and understood as they do it."""

from __future__ import annotations

import json
import math
import pathlib
import random
import struct
import threading
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from pyroplug.core.connection import ClientConnection, ServerConnection
from pyroplug.core.daemon import Daemon
from pyroplug.core.dispatch import LATER
from pyroplug.core.errors import (
    ConnectionRefusedByPeer,
    DaemonError,
    NamingError,
    RemoteError,
    RemoteProtocolError,
)
from pyroplug.core.kernel import Kernel
from pyroplug.core.members import expose
from pyroplug.core.proxy import ProxyBase
from pyroplug.core.types import ExceptionWrapper
from pyroplug.core.uri import URI
from pyroplug.core.wire import (
    CONNECT,
    CONNECTFAIL,
    CONNECTOK,
    FLAG_COMPRESSED,
    FLAG_CORR_ID,
    FLAG_EXCEPTION,
    FLAG_ONEWAY,
    HEADER_SIZE,
    INVOKE,
    MARSHAL_ID,
    PING,
    PING_SERIALIZER,
    RESULT,
    Frame,
    FrameReader,
    encode,
    read_marshalled_text,
    sniff_version,
)
from pyroplug.plugins.oneway import oneway
from pyroplug.transports.memory import memory_pair
from testkit.timeouts import PATIENCE

FILE = pathlib.Path(__file__).parent.parent / "data" / "wire_captures.json"
LIMIT = 1 << 20
IDS = {"serpent": 1, "marshal": 2, "json": 3, "msgpack": 4}
SERIALIZERS = tuple(IDS)


@dataclass(frozen=True)
class Capture:
    """One recorded message."""

    number: int
    scenario: str
    serializer: str
    to_server: bool
    raw: bytes
    meaning: str

    def __str__(self) -> str:
        return f"{self.number}-{self.scenario}-{self.serializer}-{'c2s' if self.to_server else 's2c'}"

    @property
    def frame(self) -> Frame:
        """The message, parsed."""
        return one_frame(self.raw)


def _captures() -> Iterator[Capture]:
    for number, entry in enumerate(json.loads(FILE.read_text("utf-8"))):
        if entry["protocol"] == 502:
            raw = bytes.fromhex(entry["hex"])
            to_server = entry["direction"] == "c2s"
            yield Capture(number, entry["name"], entry["serializer"], to_server, raw, entry["meaning"])


def one_frame(raw: bytes) -> Frame:
    """The frame that these bytes are, exactly."""
    reader = FrameReader(LIMIT)
    reader.feed(raw)
    frame = reader.next_frame()
    assert frame is not None
    assert not reader.partial
    return frame


CAPTURES = list(_captures())
MESSAGES = [capture for capture in CAPTURES if len(capture.raw) >= HEADER_SIZE]


def scenario(name: str, serializer: str) -> list[Capture]:
    """The messages of one scenario in wire order."""
    return [c for c in CAPTURES if c.scenario == name and c.serializer == serializer]


def pairs(names: str) -> list[Any]:
    """(request, reply) of the named scenarios with every serializer that has them."""
    found = []
    for name in names.split():
        for serializer in SERIALIZERS:
            request: Capture | None = None
            for capture in scenario(name, serializer):
                if capture.to_server:
                    request = capture
                elif request is not None:
                    found.append(pytest.param(request, capture, id=str(capture)))
    assert found
    return found


def payload_of(frame: Frame) -> bytes:
    """The payload, inflated if need be."""
    data = bytes(frame.payload)
    return zlib.decompress(data) if frame.flags & FLAG_COMPRESSED else data


def same(a: Any, b: Any) -> bool:
    """Equal, where nan is equal to nan and exceptions and proxies are compared by what they carry."""
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a):
        return math.isnan(b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, ProxyBase) and isinstance(b, ProxyBase):
        return a._pyroUri == b._pyroUri and a._pyroMethods == b._pyroMethods
    if isinstance(a, BaseException) and isinstance(b, BaseException):
        return type(a) is type(b) and same(a.args, b.args)
    return bool(a == b)


# ------------------------------------------------------------------------------------------------ the codec
def test_all_messages_of_the_protocol_are_here() -> None:
    assert len(MESSAGES) > 500
    assert {c.frame.type for c in MESSAGES if c.to_server} == {CONNECT, INVOKE, PING}
    assert {c.frame.type for c in MESSAGES if not c.to_server} == {CONNECTOK, CONNECTFAIL, RESULT, PING}


@pytest.mark.feature("F320")
@pytest.mark.parametrize("capture", MESSAGES, ids=str)
def test_a_message_is_parsed_and_rebuilt_to_the_same_bytes(capture: Capture) -> None:
    frame = capture.frame
    tag, version, kind, serializer, flags, seq, length, chunks, correlation, _, _ = struct.unpack_from(
        "!4sHBBHHII16sHH", capture.raw
    )
    assert (tag, version) == (b"PYRO", 502)
    assert frame[:4] == (kind, serializer, flags, seq)
    assert frame.correlation == correlation
    assert len(frame.payload) == length
    assert sum(8 + len(value) for value in frame.annotations.values()) == chunks
    assert HEADER_SIZE + chunks + length == len(capture.raw)
    again = encode(kind, serializer, flags, seq, frame.payload, frame.annotations, correlation)
    assert again == capture.raw
    if flags & FLAG_COMPRESSED:
        assert zlib.decompress(frame.payload)


@pytest.mark.feature("F235")
def test_the_annotations_of_the_recorded_messages_are_found() -> None:
    found: dict[str, set[bytes]] = {}
    for capture in MESSAGES:
        for key, value in capture.frame.annotations.items():
            found.setdefault(key, set()).add(value)
    assert {"STRM", "BLBI", "TEST", "RESP"} <= found.keys()
    assert b"note" in found["TEST"]
    assert found["RESP"] == {b"reply-note"}
    assert all(str(uuid.UUID(value.decode())) == value.decode() for value in found["STRM"])
    assert all(b"info-tag" in value for value in found["BLBI"])


@pytest.mark.parametrize("capture", MESSAGES, ids=str)
def test_a_message_cut_in_two_anywhere_is_the_same(capture: Capture) -> None:
    raw, whole = capture.raw, capture.frame
    for cut in range(1, len(raw)):
        reader = FrameReader(LIMIT)
        reader.feed(raw[:cut])
        assert reader.next_frame() is None
        assert reader.partial
        reader.feed(raw[cut:])
        assert reader.next_frame() == whole
        assert not reader.partial


@pytest.mark.parametrize("capture", MESSAGES, ids=str)
def test_a_message_that_comes_byte_by_byte_is_the_same(capture: Capture) -> None:
    reader = FrameReader(LIMIT)
    for number in capture.raw[:-1]:
        reader.feed(bytes([number]))
        assert reader.next_frame() is None
    reader.feed(capture.raw[-1:])
    assert reader.next_frame() == capture.frame


def test_all_messages_in_one_piece_are_all_found() -> None:
    reader = FrameReader(LIMIT)
    reader.feed(b"".join(capture.raw for capture in MESSAGES))
    assert [reader.next_frame() for _ in MESSAGES] == [capture.frame for capture in MESSAGES]
    assert reader.next_frame() is None
    assert not reader.partial


@pytest.mark.parametrize("seed", range(10))
def test_all_messages_in_pieces_of_any_size_are_all_found(seed: int) -> None:
    dice = random.Random(seed)
    stream = b"".join(capture.raw for capture in MESSAGES)
    reader = FrameReader(LIMIT)
    frames: list[Frame] = []
    offset = 0
    while offset < len(stream):
        size = dice.choice((1, 7, 39, 40, 41, 300, 5000))
        reader.feed(stream[offset : offset + size])
        offset += size
        while (frame := reader.next_frame()) is not None:
            frames.append(frame)
    assert frames == [capture.frame for capture in MESSAGES]


@pytest.mark.feature("F115", "F116")
def test_the_message_of_another_generation_is_refused_by_its_version() -> None:
    capture = next(c for c in CAPTURES if c.scenario == "wrong_version" and c.to_server)
    assert sniff_version(capture.raw) == 48
    reader = FrameReader(LIMIT)
    for byte in capture.raw[:5]:
        reader.feed(bytes([byte]))
        assert reader.next_frame() is None
    reader.feed(capture.raw[5:6])
    with pytest.raises(RemoteProtocolError, match=r"^invalid protocol version: 48$"):
        reader.next_frame()


def test_what_pyro_answers_to_another_generation_can_be_read() -> None:
    reply = next(c for c in CAPTURES if c.scenario == "wrong_version" and not c.to_server)
    assert reply.frame.type == CONNECTFAIL
    assert reply.frame.serializer_id == MARSHAL_ID
    assert "invalid protocol version: 48" in read_marshalled_text(reply.frame.payload)


# ------------------------------------------------------------------------------------------------ our client
@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    made = Kernel(settings={"SERIALIZERS_ACCEPTED": set(SERIALIZERS)}, environ={})
    yield made
    made.close()


def delivered(kernel: Kernel, capture: Capture, method: str = "echo") -> Any:
    """What a caller of ours gets when this reply comes."""
    frame = capture.frame
    here, there = memory_pair()
    connection = ClientConnection(here, kernel.client_plan(), IDS[capture.serializer], kernel.settings)
    try:
        connection.use(kernel.bind(connection))
        connection.settimeout(PATIENCE)
        connection.seq = (frame.seq - 1) & 0xFFFF
        there.send(capture.raw)
        return connection.call("demo", method, (), {})
    finally:
        here.close()
        there.close()


VALUES = (
    "call call_none call_unicode call_bytes call_kinds type_set type_complex type_uuid type_decimal type_datetime "
    "type_date type_bigint type_nan type_inf type_bytearray attr_get attr_set dunder_item_len daemon_registered "
    "daemon_ping daemon_get_metadata ns_count ns_ping"
)


@pytest.mark.feature("F088", "F122")
@pytest.mark.parametrize(("request_", "reply"), pairs(VALUES))
def test_a_recorded_result_is_the_value_that_was_meant(kernel: Kernel, request_: Capture, reply: Capture) -> None:
    value = delivered(kernel, reply)
    name, text = reply.scenario, reply.meaning
    if "client sees " in text:
        kind, _, shown = text.partition("client sees ")[2].partition(" ")
        if name == "type_bytearray":
            assert value == b"ab"  # Pyro's client sees a dict of base64 with serpent
        else:
            assert type(value).__name__ == kind
            assert str(value) == shown.strip("'\"")
    elif text.startswith("RESULT ") and name in ("call", "call_none", "call_unicode", "attr_get", "dunder_item_len"):
        expected = {"call": 7, "call_none": None, "call_unicode": "h\u00e9llo"}.get(name, value)
        assert value == expected
        assert ascii(value) == text.removeprefix("RESULT ").replace("\\u00e9", "\\xe9")
    elif name == "call_bytes":
        assert value == b"\x00\xff raw"
    elif name == "call_kinds":
        assert same(value, {"t": (1, 2), "l": [1.5, None, True], "n": -5, "s": "x"})
    elif name == "daemon_registered":
        assert {"Pyro.Daemon", "demo"} <= set(value)
    elif name == "daemon_get_metadata":
        assert set(value["methods"]) >= {"add", "echo", "__len__"}
        assert set(value["oneway"]) == {"fire"}
        assert set(value["attrs"]) == {"readonly", "value"}
    else:
        assert name in ("attr_set", "daemon_ping", "ns_count", "ns_ping")


@pytest.mark.feature("F107", "F108", "F304")
@pytest.mark.parametrize(
    ("request_", "reply"),
    pairs(
        "exception exception_attributes exception_custom_class exception_pyro exception_private "
        "exception_unknown_method exception_unknown_object ns_lookup_unknown ns_list_two"
    ),
)
def test_a_recorded_exception_is_raised(kernel: Kernel, request_: Capture, reply: Capture) -> None:
    expected: dict[str, tuple[type[Exception], tuple[Any, ...] | None]] = {
        "exception": (ZeroDivisionError, ("division by zero",)),
        "exception_attributes": (ValueError, ("bad", 42)),
        "exception_custom_class": (RemoteError, ("mymod.MyErr: mine",)),
        "exception_pyro": (NamingError, ("unknown name: x",)),
        "exception_private": (AttributeError, ("attempt to access private attribute '_private'",)),
        "exception_unknown_method": (AttributeError, ("'Demo' object has no attribute 'nosuch'",)),
        "exception_unknown_object": (DaemonError, ("unknown object",)),
        "ns_lookup_unknown": (NamingError, ("unknown name: nope",)),
        "ns_list_two": (ValueError, None),
    }
    cls, args = expected[reply.scenario]
    with pytest.raises(cls) as caught:
        delivered(kernel, reply)
    assert type(caught.value) is cls
    if args is not None:
        assert caught.value.args == args
    lines = vars(caught.value)["_pyroTraceback"]
    assert lines[0] == "Traceback (most recent call last):\n"
    if reply.scenario == "exception_attributes":
        assert caught.value.extra == "info"  # type: ignore[attr-defined]
    if isinstance(caught.value, RemoteError):
        assert caught.value.class_name == "mymod.MyErr"
        assert caught.value.matches("MyErr")
        assert caught.value.remote_args == ("mine",)


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_the_end_of_an_iteration_does_not_end_that_of_the_caller(kernel: Kernel, serializer: str) -> None:
    replies = [c for c in scenario("stream", serializer) if not c.to_server and c.frame.flags & FLAG_EXCEPTION]
    with pytest.raises(RuntimeError, match="raised StopIteration"):
        delivered(kernel, replies[-1])
    with pytest.raises(StopIteration):
        delivered(kernel, replies[-1], "__next__")


@pytest.mark.feature("F085", "F145", "F302")
@pytest.mark.parametrize(("request_", "reply"), pairs("result_uri result_proxy arg_proxy ns_lookup"))
def test_recorded_uris_and_proxies_arrive_as_such(kernel: Kernel, request_: Capture, reply: Capture) -> None:
    value = delivered(kernel, reply)
    expected = {"result_uri": "PYRO:abc@localhost:1234", "result_proxy": "PYRO:abc@localhost:1234",
                "arg_proxy": "PYRO:zz@localhost:77"}  # fmt: skip
    if reply.scenario in ("result_uri", "ns_lookup"):
        assert isinstance(value, URI)
        assert str(value) == expected.get(reply.scenario, str(value))
    else:
        assert isinstance(value, ProxyBase)
        assert str(value._pyroUri) == expected[reply.scenario]


@pytest.mark.parametrize("serializer", ["serpent", "json", "msgpack"])
def test_a_recorded_autoproxy_knows_its_members(kernel: Kernel, serializer: str) -> None:
    value = delivered(kernel, scenario("autoproxy", serializer)[-1])
    assert isinstance(value, ProxyBase)
    assert value._pyroMethods == {"hi"}


@pytest.mark.feature("F287")
def test_recorded_compressed_replies_are_inflated(kernel: Kernel) -> None:
    assert delivered(kernel, scenario("compressed_call", "serpent")[-1]) == "a" * 200
    assert delivered(kernel, scenario("compressed_annotated", "serpent")[-1]) == "b" * 150


def greeted(kernel: Kernel, capture: Capture) -> Any:
    """What our client makes of this answer to its handshake."""
    here, there = memory_pair()
    connection = ClientConnection(here, kernel.client_plan(), IDS[capture.serializer], kernel.settings)
    try:
        connection.settimeout(PATIENCE)
        there.send(capture.raw)
        return connection.hello({"handshake": "hello", "object": "demo"}, {}, capture.frame.seq)
    finally:
        here.close()
        there.close()


@pytest.mark.feature("F086", "F225")
@pytest.mark.parametrize(("request_", "reply"), pairs("connect connect_custom_handshake connect_nothing_exposed"))
def test_a_recorded_welcome_is_understood(kernel: Kernel, request_: Capture, reply: Capture) -> None:
    welcome = greeted(kernel, reply)
    if reply.scenario == "connect_custom_handshake":
        assert same(welcome["handshake"], {"you-said": {"user": "u", "pw": [1, 2]}})
    else:
        assert welcome["handshake"] == "hello"
    expected = set() if reply.scenario == "connect_nothing_exposed" else {"readonly", "value"}
    assert set(welcome["meta"]["attrs"]) == expected


def test_a_recorded_compressed_welcome_is_understood(kernel: Kernel) -> None:
    assert greeted(kernel, scenario("compressed_connect", "serpent")[-1])["handshake"] == "hello"


@pytest.mark.feature("F225")
@pytest.mark.parametrize(("request_", "reply"), pairs("connect_unknown_object connect_denied"))
def test_a_recorded_refusal_is_raised_with_its_reason(kernel: Kernel, request_: Capture, reply: Capture) -> None:
    with pytest.raises(ConnectionRefusedByPeer, match=r"^connection to memory:pair rejected: ") as caught:
        greeted(kernel, reply)
    assert (
        caught.value.reason == {"connect_unknown_object": "unknown object", "connect_denied": "go away"}[reply.scenario]
    )


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_a_refusal_in_marshal_is_read_whatever_the_client_speaks(kernel: Kernel, serializer: str) -> None:
    reply = next(c for c in CAPTURES if c.scenario == "wrong_version" and not c.to_server)
    capture = Capture(0, "refusal", serializer, False, reply.raw, "")
    with pytest.raises(ConnectionRefusedByPeer) as caught:
        greeted(kernel, capture)
    assert caught.value.reason == "invalid protocol version: 48"


# ------------------------------------------------------------------------------------------------ our server
@expose
class Sub:
    def hi(self) -> str:
        return "hi"


class MyErr(Exception):
    pass


MyErr.__module__ = "mymod"


@expose
class Demo:
    """The object that answered when the messages were recorded."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._value = 11
        self._sub = Sub()
        self.fired: list[int] = []
        self.has_fired = threading.Event()

    def add(self, a: int, b: int) -> int:
        return a + b

    def nothing(self) -> None:
        pass

    def echo(self, value: Any = None, **kwargs: Any) -> Any:
        return [[value], kwargs] if kwargs else value

    def boom(self) -> float:
        return 1 / 0

    def boom2(self) -> None:
        error = ValueError("bad", 42)
        error.extra = "info"  # type: ignore[attr-defined]
        raise error

    def custom(self) -> None:
        raise MyErr("mine")

    def perr(self) -> None:
        raise NamingError("unknown name: x")

    @oneway
    def fire(self, number: int) -> None:
        self.fired.append(number)
        self.has_fired.set()

    @property
    def value(self) -> int:
        return self._value

    @value.setter
    def value(self, new: int) -> None:
        self._value = new

    @property
    def readonly(self) -> int:
        return 1

    def gen(self, count: int) -> Iterator[int]:
        yield from range(count)

    def blob(self, blob: Any) -> Any:
        return blob

    def annot(self) -> Any:
        return None

    def sub(self) -> Sub:
        return self._sub

    def uri(self) -> URI:
        return URI("PYRO:abc@localhost:1234")

    def prox(self) -> ProxyBase:
        from pyroplug.core.client import Proxy

        return Proxy("PYRO:abc@localhost:1234", kernel=self._kernel)

    def __getitem__(self, index: int) -> int:
        return index * 10

    def __len__(self) -> int:
        return 3


class Hidden:
    def secret(self) -> None:
        """Not exposed."""


class DemoDaemon(Daemon):
    def validateHandshake(self, conn: ServerConnection, data: Any) -> Any:
        if data == "deny":
            raise ValueError("go away")
        return {"you-said": data} if isinstance(data, dict) else "hello"


@dataclass
class Served:
    """A daemon that nobody runs: tests feed its connections by hand."""

    daemon: DemoDaemon
    demo: Demo
    endpoint: Any

    def answers(self, *requests: bytes) -> tuple[list[Frame], bool]:
        """What a client gets that sends these messages over one connection, and whether that is closed then."""
        ours, _ = memory_pair()
        connection = ServerConnection(self.endpoint, ours)
        replies: list[Frame] = []
        try:
            for raw in requests:
                connection.receive(raw)
                while (task := connection.next_task()) is not None:
                    message = task.run()
                    assert message is not LATER
                    if message is not None:
                        replies.append(one_frame(message if isinstance(message, bytes) else b"".join(message)))
            return replies, connection.closing
        finally:
            connection.closed()


@pytest.fixture
def served(kernel: Kernel) -> Iterator[Served]:
    demo = Demo(kernel)
    daemon = DemoDaemon(memory=True, kernel=kernel)
    with daemon:
        daemon.register(demo, "demo")
        with pytest.warns(UserWarning, match="doesn't expose anything"):
            daemon.register(Hidden(), "hidden")
        daemon.register(demo._sub, "obj_subbae54d")
        yield Served(daemon, demo, daemon._endpoint)


def decoded(kernel: Kernel, frame: Frame) -> Any:
    """The value that a reply carries."""
    return kernel.client_plan().codecs[frame.serializer_id].loads(payload_of(frame))


def hello_of(serializer: str) -> bytes:
    """The recorded CONNECT of a serializer."""
    return scenario("connect", serializer)[0].raw


CALLS = (
    "call call_none call_unicode call_bytes call_kinds type_set type_complex type_uuid type_decimal type_datetime "
    "type_date type_bigint type_nan type_inf type_bytearray exception exception_attributes exception_custom_class "
    "exception_pyro exception_private exception_unknown_method exception_unknown_object attr_get attr_set "
    "attr_set_readonly dunder_item_len result_uri result_proxy arg_proxy daemon_get_metadata daemon_registered "
    "daemon_ping"
)


@pytest.mark.feature("F107", "F121", "F122", "F301")
@pytest.mark.parametrize(("request_", "reply"), pairs(CALLS))
def test_our_server_answers_a_recorded_request_as_pyro_does(
    kernel: Kernel, served: Served, request_: Capture, reply: Capture
) -> None:
    (_, answer), hung_up = served.answers(hello_of(request_.serializer), request_.raw)
    theirs = reply.frame
    assert not hung_up
    assert answer.type == RESULT
    assert (answer.serializer_id, answer.seq) == (theirs.serializer_id, theirs.seq)
    assert answer.flags == theirs.flags & ~FLAG_CORR_ID  # they make one up when there was none
    ours: Any = decoded(kernel, answer)
    expected: Any = decoded(kernel, theirs)
    if reply.scenario == "daemon_get_metadata":
        ours = {key: set(names) for key, names in ours.items()}
        expected = {key: set(names) for key, names in expected.items()}
    elif reply.scenario == "daemon_registered":
        expected = expected[:4]  # theirs had further objects of that kind in the end
    if isinstance(expected, BaseException):
        assert type(ours) is type(expected)
        if reply.scenario != "exception_unknown_object":  # ours names the object
            assert ours.args == expected.args
        assert getattr(ours, "extra", None) == getattr(expected, "extra", None)
        lines = vars(ours)["_pyroTraceback"]
        assert lines[0].startswith("Traceback")
        assert str(ours.args[0]) in lines[-1] or reply.scenario == "exception_custom_class"
    else:
        assert same(ours, expected)


@pytest.mark.feature("F145")
@pytest.mark.parametrize("serializer", ["serpent", "json", "msgpack"])
def test_our_server_answers_with_a_proxy_for_a_registered_object(
    kernel: Kernel, served: Served, serializer: str
) -> None:
    (_, answer), _ = served.answers(hello_of(serializer), scenario("autoproxy", serializer)[0].raw)
    proxy = decoded(kernel, answer)
    assert isinstance(proxy, ProxyBase)
    assert proxy._pyroUri == served.daemon.uriFor("obj_subbae54d")
    assert proxy._pyroMethods == {"hi"}


@pytest.mark.feature("F086", "F225")
@pytest.mark.parametrize(
    ("request_", "reply"),
    pairs("connect connect_custom_handshake connect_nothing_exposed connect_denied connect_unknown_object"),
)
def test_our_server_answers_a_recorded_handshake_as_pyro_does(
    kernel: Kernel, served: Served, request_: Capture, reply: Capture
) -> None:
    (answer,), hung_up = served.answers(request_.raw)
    theirs = reply.frame
    assert (answer.type, answer.serializer_id, answer.seq) == (theirs.type, theirs.serializer_id, theirs.seq)
    ours, expected = decoded(kernel, answer), decoded(kernel, theirs)
    if answer.type == CONNECTFAIL:
        assert ours.startswith(expected)
        assert hung_up
    else:
        assert ours.keys() == expected.keys()
        assert same(ours["handshake"], expected["handshake"])
        assert {k: set(v) for k, v in ours["meta"].items()} == {k: set(v) for k, v in expected["meta"].items()}


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_all_recorded_calls_of_one_client_in_a_row(kernel: Kernel, served: Served, serializer: str) -> None:
    requests: list[Capture] = []
    replies: list[Capture] = []
    for name in CALLS.split():
        for capture in scenario(name, serializer):
            (requests if capture.to_server else replies).append(capture)
    answers, _ = served.answers(hello_of(serializer) + b"".join(c.raw for c in requests))
    assert answers[0].type == CONNECTOK
    assert [a.seq for a in answers[1:]] == [r.frame.seq for r in replies]
    assert [a.flags for a in answers[1:]] == [r.frame.flags & ~FLAG_CORR_ID for r in replies]


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_our_server_reads_a_conversation_byte_by_byte(served: Served, serializer: str) -> None:
    raw = hello_of(serializer) + scenario("call", serializer)[0].raw
    answers, _ = served.answers(*(raw[i : i + 1] for i in range(len(raw))))
    assert [answer.type for answer in answers] == [CONNECTOK, RESULT]


@pytest.mark.feature("F089")
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_a_recorded_oneway_call_runs_and_is_not_answered(served: Served, serializer: str) -> None:
    served.demo.has_fired.clear()
    call = scenario("oneway", serializer)[0]
    assert call.frame.flags == FLAG_ONEWAY
    answers, _ = served.answers(hello_of(serializer), call.raw)
    assert [answer.type for answer in answers] == [CONNECTOK]
    assert served.demo.has_fired.wait(PATIENCE)
    assert served.demo.fired[-1] == 11


@pytest.mark.feature("F303")
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_a_recorded_ping_is_answered(served: Served, serializer: str) -> None:
    (_, pong), _ = served.answers(hello_of(serializer), scenario("ping", serializer)[0].raw)
    assert (pong.type, pong.serializer_id, pong.seq, pong.payload) == (PING, PING_SERIALIZER, 0, b"pong")


@pytest.mark.feature("F236")
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_a_recorded_correlation_id_comes_back(served: Served, serializer: str) -> None:
    request, reply = scenario("annotations_corr", serializer)
    (_, answer), _ = served.answers(hello_of(serializer), request.raw)
    assert answer.flags & FLAG_CORR_ID
    assert answer.corr_id == reply.frame.corr_id == bytes.fromhex("11112222333344445555666677778888")


@pytest.mark.feature("F287")
def test_recorded_compressed_requests_are_understood(kernel: Kernel, served: Served) -> None:
    hello, call, annotated = (scenario(f"compressed_{name}", "serpent")[0] for name in ("connect", "call", "annotated"))
    (_, first, second), _ = served.answers(hello.raw, call.raw, annotated.raw)
    assert decoded(kernel, first) == "a" * 200
    assert decoded(kernel, second) == "b" * 150


def test_one_connection_may_mix_serializers(kernel: Kernel, served: Served) -> None:
    calls = [scenario("call", serializer)[0].raw for serializer in SERIALIZERS]
    answers, _ = served.answers(hello_of("serpent"), *calls)
    assert [answer.serializer_id for answer in answers[1:]] == [IDS[serializer] for serializer in SERIALIZERS]
    assert [decoded(kernel, answer) for answer in answers[1:]] == [7, 7, 7, 7]


@pytest.mark.feature("F115")
def test_another_generation_gets_the_answer_of_pyro(served: Served) -> None:
    request, reply = (c for c in CAPTURES if c.scenario == "wrong_version")
    (answer,), hung_up = served.answers(request.raw)
    assert (answer.type, answer.serializer_id, answer.seq) == (CONNECTFAIL, MARSHAL_ID, 0)
    assert read_marshalled_text(answer.payload) == read_marshalled_text(reply.frame.payload)
    assert hung_up


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_a_second_handshake_ends_the_connection_without_a_word(served: Served, serializer: str) -> None:
    (welcome,), hung_up = served.answers(hello_of(serializer), hello_of(serializer))
    assert welcome.type == CONNECTOK
    assert hung_up


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_a_call_before_the_handshake_is_refused_in_marshal(served: Served, serializer: str) -> None:
    (answer,), hung_up = served.answers(scenario("call", serializer)[0].raw)
    assert (answer.type, answer.serializer_id) == (CONNECTFAIL, MARSHAL_ID)
    assert "unexpected message type 4" in read_marshalled_text(answer.payload)
    assert hung_up


@pytest.mark.feature("F173")
def test_on_a_given_socket_the_first_message_may_be_a_call(kernel: Kernel, served: Served) -> None:
    metadata, add = (c for c in scenario("connected_socket", "serpent") if c.to_server)
    served.daemon.register(Demo(kernel), "d", force=True)
    ours, _ = memory_pair()
    connection = ServerConnection(served.endpoint, ours, given=True)
    replies = []
    for capture in (metadata, add):
        connection.receive(capture.raw)
        task = connection.next_task()
        assert task is not None
        message = task.run()
        assert isinstance(message, bytes)
        replies.append(decoded(kernel, one_frame(message)))
    connection.closed()
    served.daemon.unregister("d")
    assert "add" in replies[0]["methods"]
    assert replies[1] == 3


@pytest.mark.parametrize("serializer", ["serpent", "json", "msgpack"])
def test_a_recorded_batch_reply_holds_a_wrapped_exception(kernel: Kernel, serializer: str) -> None:
    value = decoded(kernel, scenario("batch", serializer)[-1].frame)
    assert value[0] == 3
    assert isinstance(value[2], ExceptionWrapper)
    assert type(value[2].exception) is ZeroDivisionError
