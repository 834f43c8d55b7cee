"""The plugin compact: what arrives is what serpent would have delivered, only sooner."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime
import decimal
import enum
import functools
import math
import sys
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgpack as library
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pyroplug.api import URI, Kernel, Proxy, SerializedBlob, expose
from pyroplug.core.errors import PyroError, RemoteError, SerializeError
from pyroplug.core.interfaces import Codec
from pyroplug.core.types import ExceptionWrapper, TypeTable
from pyroplug.plugins.typed.codec import TypedTable, typed_codec
from pyroplug.serializers.compact import CompactSerializer
from pyroplug.serializers.serpent import SerpentSerializer
from pyroplug.testing.kernels import Served, make_kernel
from pyroplug.testing.serializers import SerializerConformance, make_settings

pytestmark = pytest.mark.needs("compact")

TEXT = ord("#")


class TestConformance(SerializerConformance):
    serializer = CompactSerializer()


# --------------------------------------------------------------------------- the values that programs send
class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Pair(NamedTuple):
    a: Any
    b: Any


@dataclasses.dataclass
class Point:
    x: Any
    y: Any = None


class Slotted:
    __slots__ = ("a",)

    def __init__(self, a: Any) -> None:
        self.a = a


class Stateful:
    def __getstate__(self) -> dict[str, Any]:
        return {"only": "this"}


class Text(str):
    __slots__ = ()


class Registered:
    def __init__(self, value: Any) -> None:
        self.value = value


class Replaced:
    pass


def _made(make: Callable[..., Any], name: str, data: dict[str, Any]) -> Any:
    return make(**{key: value for key, value in data.items() if key != "__class__"})


def _table() -> TypeTable:
    types = TypeTable()
    types.register_class_to_dict(Registered, lambda obj: {"__class__": "test.Registered", "value": obj.value})
    for name, make in (("test.Registered", Registered), (f"{__name__}.Point", Point)):
        types.register_dict_to_class(name, functools.partial(_made, make), inner_first=True)
    types.register_replacement(Replaced, lambda obj: URI("PYRO:replaced@localhost:1"))
    return types


def _codecs(typed: bool) -> tuple[Codec, Codec]:
    values = make_settings(None)
    formats = (SerpentSerializer(), CompactSerializer())
    if not typed:
        one, two = (serializer.bind(_table(), values) for serializer in formats)
        return one, two
    made = [typed_codec(serializer, TypedTable(_table()), values) for serializer in formats]
    assert made[0] is not None
    assert made[1] is not None
    return made[0], made[1]


CODECS = {"alone": _codecs(False), "with types": _codecs(True)}

UTC = datetime.timezone.utc
_numbers = (
    st.integers()
    | st.integers(2**63 - 2, 2**64 + 2)
    | st.integers(-(2**63) - 2, -(2**63) + 2)
    | st.floats()
    | st.booleans()
)
_texts = (
    st.text() | st.text(st.characters(exclude_categories=())) | st.sampled_from(["base64", "__class__", "encoding"])
)
_plain = st.none() | _numbers | _texts | st.binary(max_size=20)
_odd = st.sampled_from(
    [
        bytearray(b"xyz"),
        memoryview(b"xyz"),
        memoryview(b"abcdef")[::2],
        1 - 2j,
        complex(math.nan, 1),
        complex(math.inf, -0.0),
        datetime.datetime(2026, 1, 2, 3, 4, 5, 6),
        datetime.datetime(2026, 1, 2, tzinfo=UTC),
        datetime.date(2026, 1, 2),
        datetime.time(1, 2),
        datetime.timedelta(days=1.5),
        decimal.Decimal("1.50"),
        uuid.UUID(int=5),
        array.array("d", [1.5]),
        *([array.array("u", "text")] if sys.version_info < (3, 13) else []),  # deprecated since
        collections.deque([1, 2]),
        collections.OrderedDict(a=1),
        collections.UserDict(a=1),
        {"a": 1}.keys(),
        set(),
        frozenset({1}),
        {1, (2, 3)},
        {math.nan},
        {b"x"},
        range(3),
        Color.RED,
        Level.LOW,
        Text("text"),
        Pair(1, (2,)),
        Point(1, (2, 3)),
        Slotted([1]),
        Stateful(),
        Registered((1, 2)),
        Replaced(),
        URI("PYRO:object@localhost:4444"),
        ValueError("one", 2, (3,)),
        ExceptionWrapper(KeyError("x")),
        {"__class__": "float", "value": "nan"},
        {"__class__": "ValueError", "__exception__": True, "args": ("x",), "attributes": {"code": 5}},
        {"__class__": "unknown.Thing", "a": 1},
        {"__class__": 5},
        {"data": "aGVsbG8=", "encoding": "base64"},
        {"data": "no base64!", "encoding": "base64"},
        object(),
        len,
        [].__iter__(),
    ]
)
_keys: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | _numbers
    | _texts
    | st.binary(max_size=3)
    | st.sampled_from([Level.LOW, Text("k"), datetime.date(2026, 1, 1), 1j]),
    lambda inner: st.tuples(inner, inner),
    max_leaves=3,
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    _plain | _odd,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(_texts, inner, max_size=4)
        | st.dictionaries(_keys, inner, max_size=3)
        | st.sets(st.integers() | _texts | st.booleans(), max_size=4)
        | st.builds(Point, inner, inner)
        | st.builds(Registered, inner)
    ),
    max_leaves=15,
)


def _outcome(codec: Codec, value: Any) -> Any:
    try:
        return codec.loads(codec.dumps(value))
    except Exception as err:
        return type(err)


def _call_outcome(codec: Codec, value: Any) -> Any:
    try:
        object_id, method, args, kwargs = codec.loads_call(
            codec.dumps_call("object", "method", (value, 1), {"key": value})
        )
    except Exception as err:
        return type(err)
    return object_id, method, tuple(args), kwargs


def _shown(value: Any) -> Any:
    """A value so that two are equal only if they have the same types, the same order and the same bits."""
    if isinstance(value, float):
        return "float", "nan" if math.isnan(value) else value.hex()
    if isinstance(value, complex):
        return "complex", _shown(value.real), _shown(value.imag)
    if type(value) is dict or isinstance(value, collections.OrderedDict):
        return type(value), [(_shown(key), _shown(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple, collections.deque)):
        return type(value), [_shown(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return type(value), sorted(repr(_shown(item)) for item in value)
    if isinstance(value, BaseException):
        return type(value), _shown(value.args), _shown(vars(value))
    if isinstance(value, ExceptionWrapper):
        return type(value), _shown(value.exception)
    if isinstance(value, (Registered, Point)):
        return type(value), _shown(vars(value))
    equal: Any = type(value).__eq__
    return type(value), repr(value) if equal is object.__eq__ else value


def _is_keyed_by_nan(value: Any) -> bool:
    if isinstance(value, (Point, Registered)):
        value = vars(value)
    if isinstance(value, (dict, set)) and any(map(_is_nan, value)):
        return True
    if isinstance(value, dict):
        return any(map(_is_keyed_by_nan, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_is_keyed_by_nan, value))


def _is_nan(key: Any) -> bool:
    return any(map(_is_nan, key)) if isinstance(key, tuple) else isinstance(key, float) and math.isnan(key)


@pytest.mark.parametrize("codecs", CODECS)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(value=VALUES)
@example(value={None: 1})
@example(value={b"k": 1})
@example(value={(1, b"k"): 1})
@example(value={math.nan: 1})
@example(value={(1, math.nan): 1})
@example(value={(1, None): 1})
@example(value={1: "a", 2.5: "b", False: "c", (1, "x"): "d"})
@example(value=[{"data": "aGVsbG8=", "encoding": "base64"}])
@example(value=[{"data": "aGVsbG8=", "encoding": "base64", "more": 1}])
@example(value=[memoryview(bytes(8)).cast("i")])
@example(value={Text("k"): {None: None}})
@example(value=35)
@example(value="#")
@example(value=[(1, ({2}, (), []))])
def test_what_arrives_is_what_serpent_delivers(codecs: str, value: Any) -> None:
    serpent, compact = CODECS[codecs]
    if codecs == "with types" and _is_keyed_by_nan(value):
        return  # serpent's reader refuses what its writer wrote; here it arrives
    assert _shown(_outcome(compact, value)) == _shown(_outcome(serpent, value))
    assert _shown(_call_outcome(compact, value)) == _shown(_call_outcome(serpent, value))


@pytest.mark.parametrize("make", [list, tuple, dict], ids=lambda make: make.__name__)
@pytest.mark.parametrize("filling", [0, 70_000])
@pytest.mark.parametrize("typed", [False, True])
def test_the_same_depth_is_refused(make: Callable[[Any], Any], filling: int, typed: bool) -> None:
    serpent, compact = CODECS["with types" if typed else "alone"]

    def nested(levels: int) -> Any:
        value: Any = make(())
        for _ in range(levels - 1):
            value = make({"k": value}) if make is dict else make((value,))
        return value

    for levels in (195, 196, 197, 198, 199, 200, 201, 202, 500, 600):
        value = nested(levels)
        if filling:
            value = [value, "x" * filling]
        for outcome in (_outcome, _call_outcome):
            ours, theirs = outcome(compact, value), outcome(serpent, value)
            assert (ours is SerializeError) == (theirs is SerializeError), (levels, outcome)
            assert ours is SerializeError or ours == theirs


def test_the_same_numbers_are_too_long() -> None:
    for serpent, compact in CODECS.values():
        for digits in (4300, 4301):
            value = 10 ** (digits - 1)
            assert _outcome(compact, value) == _outcome(serpent, value) == (value if digits == 4300 else SerializeError)


def test_a_value_that_contains_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append((endless,))
    for codec in (CODECS["alone"][1], CODECS["with types"][1]):
        with pytest.raises(SerializeError, match="itself"):
            codec.dumps(endless)


RECORD = {"id": 5, "name": "x", "tags": ["a", "b"], "none": None, "at": (1.5, 2), "data": b"\x00\xff", "big": 2**70}


@pytest.mark.parametrize("codecs", CODECS)
def test_plain_data_takes_the_binary_form(codecs: str) -> None:
    compact = CODECS[codecs][1]
    for value in (42, RECORD, [RECORD] * 500, b"x" * 100_000, {"x": {1, 2}}, "x" * 100_000):
        assert compact.dumps(value)[0] != TEXT
        assert compact.dumps_call("object", "method", (value,), {"key": value})[0] != TEXT


def test_objects_with_a_type_of_their_own_take_the_binary_form_too() -> None:
    compact = CODECS["with types"][1]
    assert compact.dumps([datetime.date(2026, 1, 2), {None: 1}, decimal.Decimal(1)])[0] != TEXT


def test_what_others_may_get_is_text_that_serpent_reads() -> None:
    for serpent, compact in CODECS.values():
        data = compact.portable.dumps([1, (2, 3)])  # type: ignore[attr-defined]
        assert data[0] == TEXT
        assert serpent.loads(data) == compact.loads(data) == [1, (2, 3)]


# --------------------------------------------------------------------------- bytes from somebody who means harm
def _packb(value: Any) -> bytes:
    data: bytes | None = library.packb(value)
    assert data is not None
    return data


def _mark(code: int) -> bytes:
    return b"\xc7\x00" + bytes([code])


BAD = {
    "empty": b"",
    "cut": b"\x92\x01",
    "too much": b"\x01\x02",
    "a mark alone": _mark(1),
    "a mark that is not the first": b"\x92\x01" + _mark(1),
    "two marks": b"\x92" + _mark(1) + _mark(2),
    "a mark as a key": b"\x81" + _mark(1) + b"\x01",
    "a mark as a value": b"\x81\xa1a" + _mark(2),
    "a member that is not hashable": b"\x92" + _mark(2) + b"\x90",
    "a mark with content": b"\x92\xd4\x01x\x01",
    "an unknown extension": b"\xd4\x55x",
    "no digits": b"\xd4\x31x",
    "too many digits": b"\xc8\x20\x00\x31" + b"9" * 0x2000,
    "a short complex": b"\xd4\x30x",
    "a list as a key": b"\x81\x90\x01",
    "a long array": b"\xdd\xff\xff\xff\xff",
    "deep": b"\x91" * 2000 + b"\x01",
    "deep tuples": (b"\x92" + _mark(1)) * 300 + b"\x01",
    "deep, and not very": b"\x91" * 250 + b"\x01",
}


@pytest.mark.parametrize("case", BAD)
def test_bad_data_is_refused(case: str) -> None:
    for _, compact in CODECS.values():
        with pytest.raises(SerializeError):
            compact.loads(BAD[case])
        with pytest.raises(SerializeError):
            compact.loads_call(b"\x94\xa1o\xa1m\x92\x01" + BAD[case] + b"\x80")


@given(st.binary(max_size=60))
def test_any_bytes_give_a_value_or_an_error_of_ours(data: bytes) -> None:
    for _, compact in CODECS.values():
        for load in (compact.loads, compact.loads_call):
            try:
                load(data)
            except PyroError:
                pass


@pytest.mark.parametrize("parts", [[1, 2, 3], [1, "m", [], {}], ["o", "m", "args", {}], ["o", "m", [], []], "text"])
def test_what_is_no_request_is_refused(parts: Any) -> None:
    with pytest.raises(SerializeError):
        CODECS["alone"][1].loads_call(_packb(parts))


def test_class_tags_mean_what_they_mean_in_serpent() -> None:
    for _, compact in CODECS.values():
        with pytest.raises(SerializeError, match="unsupported serialized class"):
            compact.loads(_packb({"__class__": "os.system"}))
        error = compact.loads(_packb({"__class__": "a.B", "__exception__": True, "args": [1]}))
        assert isinstance(error, RemoteError)
        assert error.class_name == "a.B"


# --------------------------------------------------------------------------- connections
class Thing:
    def __init__(self) -> None:
        self.other: Proxy | None = None

    @expose
    def echo(self, value: Any, **more: Any) -> Any:
        return [value, more] if more else value

    @expose
    def fail(self) -> None:
        raise ValueError("no", (1, {2}))

    @expose
    def numbers(self) -> Iterator[Any]:
        yield from [(1, 2), {3}, None]

    @expose
    def inside(self, blob: SerializedBlob) -> Any:
        return blob.deserialized()

    @expose
    def pass_on(self, blob: SerializedBlob) -> Any:
        assert self.other is not None
        return self.other.inside(blob)


FORMS = {"with types": "", "alone": "types", "neither": "types,compact"}
"""What of it is switched off at the client."""


def _client(off: str, **values: Any) -> Kernel:
    return make_kernel(environ={"PYRO_DISABLE_PLUGINS": off}, **values)


def _form(proxy: Any) -> bool:
    """Whether a connection has the binary form."""
    return bool(proxy._pyroConnection.codec.dumps(1)[:1] != b"#")


@pytest.fixture
def served() -> Iterator[Served]:
    with Served() as served:
        served.publish(Thing())
        yield served


@pytest.mark.parametrize("form", [pytest.param("with types", marks=pytest.mark.needs("types")), "alone", "neither"])
def test_calls_have_the_same_results_in_either_form(served: Served, form: str) -> None:
    kernel = _client(FORMS[form])
    proxy: Any = served.proxy(kernel=kernel)
    assert proxy.echo(RECORD) == RECORD
    assert _form(proxy) == (form != "neither")
    assert proxy.echo((1, {2}), key=[None]) == [(1, {2}), {"key": [None]}]
    assert proxy.echo(proxy) == proxy
    assert proxy.echo(datetime.date(2026, 1, 2)) == (
        datetime.date(2026, 1, 2) if form == "with types" else "2026-01-02"
    )
    assert list(proxy.numbers()) == [(1, 2), {3}, None]
    with pytest.raises(ValueError) as caught:
        proxy.fail()
    assert caught.value.args == ("no", (1, {2}))
    with pytest.raises(SerializeError):
        proxy.echo(object())
    batch = proxy._pyroBatch()
    batch.echo((1, 2))
    batch.fail()
    results = batch()
    assert next(results) == (1, 2)
    with pytest.raises(ValueError):
        next(results)
    proxy._pyroRelease()
    kernel.close()


def test_old_peers_get_serpents_text(served: Served) -> None:
    with served.peer() as peer:
        peer.hello()
        reply = peer.call("thing", "echo", 42)
        assert bytes(reply.payload).startswith(b"# serpent")
        assert peer.value(reply) == 42


def test_a_blob_is_text_because_it_may_be_passed_on(served: Served) -> None:
    with Served(environ={"PYRO_DISABLE_PLUGINS": "compact,types"}) as old:
        old.publish(Thing(), "old")
        thing = Thing()
        thing.other = old.proxy("old")
        served.publish(thing, "between")
        proxy: Any = served.proxy("between")
        assert proxy.inside(SerializedBlob("info", [RECORD])) == [RECORD]
        assert _form(proxy)
        assert proxy.pass_on(SerializedBlob("info", [RECORD])) == [RECORD]


@pytest.mark.parametrize("setting", [{"COMPACT": False}, {"SERPENT_BYTES_REPR": True}, {"SERPENT_BYTES_DECODE": False}])
def test_settings_turn_it_off_also_later(served: Served, setting: dict[str, Any]) -> None:
    for early in (True, False):
        kernel = _client("", **(setting if early else {}))
        for name, value in setting.items():
            setattr(kernel.settings, name, value)
        proxy: Any = served.proxy(kernel=kernel)
        proxy.echo(b"x")
        assert not _form(proxy)
        proxy._pyroRelease()
        kernel.close()


def test_other_serializers_stay_what_they_are(served: Served) -> None:
    proxy: Any = served.proxy()
    proxy._pyroSerializer = "msgpack"
    assert proxy.echo((1, 2)) == [1, 2]
