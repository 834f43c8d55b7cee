"""The plugin blob: arguments that stay serialized."""

from __future__ import annotations

import marshal
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyroplug.api import BatchProxy, Proxy, SerializedBlob, current_context, expose, oneway
from pyroplug.core.errors import MessageTooLargeError, RemoteProtocolError, SecurityError, SerializeError
from pyroplug.core.wire import FLAG_BATCH, FLAG_EXCEPTION, FLAG_KEEPSERIALIZED
from pyroplug.plugins.blob import Kept, read_marshal, write_marshal
from pyroplug.testing.kernels import PATIENCE, Serve, Served, make_kernel

pytestmark = pytest.mark.needs("blob")

SERIALIZERS = ["serpent", "json", "msgpack", "marshal"]


class Parcel:
    """A class that the dispatcher does not know."""

    def __init__(self, weight: int) -> None:
        self.weight = weight


@expose
class Worker:
    """Unpacks blobs."""

    def __init__(self) -> None:
        self._got = threading.Event()
        self.last: Any = None

    def process(self, blob: SerializedBlob) -> Any:
        return [blob.info, blob.deserialized()]

    def twice(self, blob: SerializedBlob) -> bool:
        return bool(blob.deserialized() == blob.deserialized())

    def weigh(self, blob: SerializedBlob) -> int:
        return sum(parcel.weight for parcel in blob.deserialized())

    def annotations(self, blob: SerializedBlob) -> list[str]:
        return sorted(current_context.annotations)

    def plain(self, value: Any) -> Any:
        return value

    def fail(self, blob: SerializedBlob) -> None:
        raise ValueError(blob.info)

    def give(self) -> SerializedBlob:
        return SerializedBlob(1, 2)

    @oneway
    def later(self, blob: SerializedBlob) -> None:
        self.last = blob.deserialized()
        self._got.set()

    def got(self) -> Any:
        self._got.wait(PATIENCE)
        return self.last


@expose
class Dispatcher:
    """Passes blobs on, unread."""

    def __init__(self, target: Proxy) -> None:
        self._target = target
        self.seen: list[Any] = []

    def dispatch(self, blob: SerializedBlob) -> Any:
        self.seen.append(blob.info)
        return self._target.process(blob)

    def weigh(self, blob: SerializedBlob) -> Any:
        return self._target.weigh(blob)

    def relabel(self, blob: SerializedBlob) -> Any:
        blob.info = "relabelled"
        return self._target.process(blob)


@pytest.fixture
def served(serve_everywhere: Serve) -> Served:
    return serve_everywhere(Worker())


@pytest.fixture
def local() -> Iterator[Served]:
    with Served(settings={"SERIALIZERS_ACCEPTED": set(SERIALIZERS)}) as served:
        served.publish(Worker())
        yield served


@pytest.fixture
def chain(local: Served) -> Iterator[Served]:
    """A dispatcher in a daemon and a kernel of its own, in front of the worker."""
    target = local.proxy()
    target._pyroSerializer = "serpent"  # whatever comes, this connection was made with this one
    with Served(settings={"SERIALIZERS_ACCEPTED": set(SERIALIZERS)}) as front:
        front.publish(Dispatcher(target), "dispatcher")
        yield front


# ----------------------------------------------------------------------------- F243
@pytest.mark.feature("F243")
@pytest.mark.parametrize("data", [(1, "two"), [1, 2], "text", 5, None, {"a": [1]}, {"params": 1}, []])
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_data_of_any_shape_arrives(local: Served, serializer: str, data: Any) -> None:
    proxy = local.proxy()
    proxy._pyroSerializer = serializer
    tuples_become_lists = serializer in ("json", "msgpack")
    expected = list(data) if isinstance(data, tuple) and (tuples_become_lists or serializer == "marshal") else data
    info, arrived = proxy.process(SerializedBlob("label", data))
    assert info == "label"
    assert arrived == expected
    assert proxy.twice(SerializedBlob("label", data))


@pytest.mark.feature("F243")
def test_blobs_over_every_transport_and_loop(served: Served) -> None:
    proxy = served.proxy()
    assert proxy.process(SerializedBlob(("a", 1), ["x" * 100_000])) == [("a", 1), ["x" * 100_000]]
    with pytest.raises(ValueError, match="label"):
        proxy.fail(SerializedBlob("label", [1]))
    proxy.later(SerializedBlob(0, ["oneway"]))
    assert proxy.got() == ["oneway"]
    assert proxy.plain(1) == 1


@pytest.mark.feature("F243")
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_a_dispatcher_passes_them_on_unread(local: Served, chain: Served, serializer: str) -> None:
    proxy = chain.proxy("dispatcher")
    proxy._pyroSerializer = serializer
    assert proxy.dispatch(SerializedBlob("to the worker", ["a", 1])) == ["to the worker", ["a", 1]]
    assert proxy.relabel(SerializedBlob("x", ["a", 1])) == ["relabelled", ["a", 1]]


@pytest.mark.feature("F243")
@pytest.mark.parametrize("serializer", ["serpent", "json", "msgpack"])
def test_the_dispatcher_needs_no_classes(local: Served, chain: Served, serializer: str) -> None:
    mine, theirs = make_kernel(), local.kernel
    for kernel in (mine, theirs):
        kernel.types.register_class_to_dict(Parcel, lambda one: {"__class__": "Parcel", "weight": one.weight})
        kernel.types.register_dict_to_class("Parcel", lambda name, data: Parcel(data["weight"]))
    proxy = chain.proxy("dispatcher", kernel=mine)
    proxy._pyroSerializer = serializer
    assert proxy.weigh(SerializedBlob("parcels", [Parcel(3), Parcel(4)])) == 7
    with pytest.raises((SerializeError, SecurityError)):  # but it could not read them itself
        proxy.weigh([Parcel(3)])
    mine.close()


@pytest.mark.feature("F243")
def test_the_payload_goes_on_unchanged(chain: Served, local: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    data = Kept.data

    def watched(kept: Kept) -> Any:
        seen.append(bytes(kept.payload))
        return data(kept)

    monkeypatch.setattr(Kept, "data", watched)
    proxy = chain.proxy("dispatcher")
    proxy._pyroSerializer = "msgpack"
    proxy.dispatch(SerializedBlob(0, [1, 2]))
    assert seen == [chain.kernel.codecs()["msgpack"].dumps_call("dispatcher", "dispatch", [1, 2], {})]


@pytest.mark.parametrize("front_compresses", [True, False])
def test_compressed_blobs(local: Served, front_compresses: bool) -> None:
    with Served(settings={"COMPRESSION": front_compresses}) as front:
        target = Proxy(local.daemon.uriFor("thing"), kernel=front.kernel)
        front.publish(Dispatcher(target), "dispatcher")
        client = make_kernel(COMPRESSION=True)
        with front.proxy("dispatcher", kernel=client) as proxy:
            assert proxy.dispatch(SerializedBlob(0, ["x" * 10_000])) == [0, ["x" * 10_000]]
        target._pyroRelease()
        client.close()


def test_the_routing_stays_with_its_call(local: Served) -> None:
    proxy = local.proxy()
    assert proxy.annotations(SerializedBlob(1, [])) == ["BLBI"]
    assert "BLBI" not in current_context.annotations
    assert proxy.plain(2) == 2


def test_a_local_blob_has_its_data_at_once() -> None:
    data = object()
    blob = SerializedBlob("mine", data)
    assert blob.deserialized() is data
    assert repr(blob) == "<SerializedBlob 'mine', local>"
    with pytest.raises(TypeError, match="kept message"):
        SerializedBlob("mine", data, is_blob=True)


# ----------------------------------------------------------------------------- wrong use
@pytest.mark.feature("F243")
@pytest.mark.parametrize("serializer", [*SERIALIZERS, "pickle"])
def test_it_must_be_the_only_argument(serializer: str) -> None:
    with Served(settings={"SERIALIZERS_ACCEPTED": {"serpent", serializer}}) as served:
        served.publish(Worker())
        proxy = served.proxy()
        proxy._pyroSerializer = serializer
        blob = SerializedBlob("info", [1])
        calls = BatchProxy(proxy)
        calls.process(blob)
        for attempt in (
            lambda: proxy.process(blob, 1),
            lambda: proxy.process(1, blob),
            lambda: proxy.process(blob=blob),
            lambda: proxy.process(blob, more=1),
            lambda: proxy.plain([blob]),
            proxy.give,
            calls,
        ):
            with pytest.raises(SerializeError, match="must be the only argument"):
                attempt()
        assert proxy.plain(1) == 1


def test_it_cannot_be_pickled() -> None:
    with pytest.raises(SerializeError):
        pickle.dumps(SerializedBlob(1, 2))


def test_a_serializer_that_is_not_loaded_is_named_before_anything_is_sent(local: Served) -> None:
    kept = Kept(b"", 99, local.kernel.codecs()["serpent"])
    with pytest.raises(SerializeError, match="serializer 99"):
        local.proxy().process(SerializedBlob("x", kept, is_blob=True))


@pytest.mark.parametrize(
    "routing",
    [
        None,
        b"",
        b"N",
        marshal.dumps(("info", "thing")),
        marshal.dumps(("info", 1, "process")),
        marshal.dumps(["info", "thing", "process"]),
        marshal.dumps((compile("1", "x", "eval"), "thing", "process")),
        marshal.dumps(("info", "thing", "process"))[:-1],
        b"\xff" * 50,
    ],
)
def test_bad_routing_is_refused_and_the_connection_stays(local: Served, routing: bytes | None) -> None:
    annotations = {} if routing is None else {"BLBI": routing}
    with local.peer() as peer:
        peer.hello()
        reply = peer.call("thing", "process", 1, flags=FLAG_KEEPSERIALIZED, annotations=annotations)
        assert reply.flags & FLAG_EXCEPTION
        assert isinstance(peer.value(reply), Exception)
        assert peer.value(peer.call("thing", "plain", 5)) == 5


def test_routing_reaches_only_what_is_exposed(local: Served) -> None:
    with local.peer() as peer:
        peer.hello()
        for method in ("__init__", "_got", "__class__", "nope"):
            reply = peer.call(
                "x", "y", flags=FLAG_KEEPSERIALIZED, annotations={"BLBI": write_marshal((1, "thing", method))}
            )
            assert isinstance(peer.value(reply), AttributeError)


def test_a_payload_that_is_no_request_fails_where_it_is_read(local: Served) -> None:
    with local.peer() as peer:
        peer.hello()
        message = peer.call_message(
            "a", "b", flags=FLAG_KEEPSERIALIZED | FLAG_BATCH, annotations={"BLBI": write_marshal((1, "thing", "fail"))}
        )
        peer.send(message)  # a batch of blobs makes no sense, and is told so
        assert isinstance(peer.value(peer.message())[0].exception, RemoteProtocolError)
    for payload in (b"[1]", b"5", b"garbage", b'{"object": 1}'):
        kept = Kept(payload, 3, local.kernel.codecs()["json"])
        with pytest.raises(SerializeError):
            SerializedBlob(1, kept, is_blob=True).deserialized()


def test_limits_hold_for_blobs(local: Served) -> None:
    client = make_kernel(MAX_MESSAGE_SIZE=10_000)
    with local.proxy(kernel=client) as proxy:
        assert proxy.process(SerializedBlob("x", ["y" * 9000]))
        with pytest.raises(MessageTooLargeError):
            proxy.process(SerializedBlob("x", ["y" * 10_001]))
        with pytest.raises(SerializeError, match="simple value"):
            proxy.process(SerializedBlob(object(), []))
        deep: list[Any] = []
        for _ in range(25):
            deep = [deep]
        with pytest.raises(SerializeError, match="nested too deeply"):
            proxy.process(SerializedBlob(deep, []))
        assert proxy.plain(1) == 1
    client.close()


# ----------------------------------------------------------------------------- marshal without marshal
SIMPLE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 200), 1 << 200)
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text(st.characters(codec=None), max_size=20)
    | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=4)
        | st.sets(st.integers() | st.text(max_size=5), max_size=4)
        | st.frozensets(st.integers() | st.text(max_size=5), max_size=4)
    ),
    max_leaves=12,
)


@given(SIMPLE)
@settings(deadline=None, max_examples=80)
def test_what_is_written_python_reads(value: Any) -> None:
    assert marshal.loads(write_marshal(value)) == value
    assert read_marshal(write_marshal(value)) == value


@given(SIMPLE, st.integers(0, 4))
@settings(deadline=None, max_examples=80)
def test_what_python_writes_is_read(value: Any, version: int) -> None:
    twice = (value, "object id", value, [value])  # versions from 3 write what is repeated as references
    if version in (0, 1):
        twice = pickle.loads(pickle.dumps(twice))
    try:
        data = marshal.dumps(twice, version)
    except ValueError:
        return  # too large for that version
    assert read_marshal(data) == marshal.loads(data)


def test_the_encodings_of_real_peers() -> None:
    assert read_marshal(b"\xa9\x03\xfa\x04info\xda\x05thing\xda\x07process") == ("info", "thing", "process")
    assert read_marshal(b"\x29\x03\xfa\x01xr\x00\x00\x00\x00\xda\x01y") == ("x", "x", "y")
    assert read_marshal(b"f\x031.5") == 1.5
    assert read_marshal(b"x\x031.5\x012") == 1.5 + 2j


@given(st.binary(max_size=60))
@settings(deadline=None, max_examples=150)
def test_garbage_is_refused_and_nothing_else_happens(data: bytes) -> None:
    for start in (b"", b")\x03", b"\xa9\x02", b"{"):
        try:
            read_marshal(start + data)
        except RemoteProtocolError:
            pass


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80",
        b"c",
        b"0",
        b"{0N",
        b"NN",
        b"r\x00\x00\x00\x00",
        b"\xa9\x01r\x00\x00\x00\x00",
        b"\xdb\x01\x00\x00\x00r\x00\x00\x00\x00",
        b"(\xff\xff\xff\x7f",
        b"(\xff\xff\xff\xff",
        b"s\xff\xff\xff\x7f",
        b"l\xff\xff\xff\x7f",
        b"l\xe9\x03\x00\x00" + bytes(2002),
        b"z\x05\xff\xff\xff\xff\xff",
        b"{[\x00\x00\x00\x00N0",
        b"<\x01\x00\x00\x00[\x00\x00\x00\x00",
        b"f\x03abc",
        b")\x01" * 50 + b"N",
        b")\xff" + b"N" * 254,
        b"[\x11\x27\x00\x00" + b"N" * 10_001,
    ],
)
def test_attacks_are_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read_marshal(data)


def test_few_bytes_do_not_become_a_huge_structure() -> None:
    def nested(levels: int) -> bytes:
        body = b"\xa9\x02NN"
        for number in range(levels):
            body = body + b"\xa9\x02" + 2 * (b"r" + number.to_bytes(4, "little"))
        return b")" + bytes([levels + 1]) + body

    assert read_marshal(nested(5))
    with pytest.raises(RemoteProtocolError, match="too many parts"):
        read_marshal(nested(16))


def test_the_limits_of_the_reader() -> None:
    assert read_marshal(b"[\x0f\x27\x00\x00" + b"N" * 9_999) == [None] * 9_999
    assert read_marshal(b")\x01" * 20 + b"N")
    assert write_marshal((1 << 15_000) - 1)
    with pytest.raises(SerializeError, match="too large"):
        write_marshal(1 << 15_001)
