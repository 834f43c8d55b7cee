"""Values that keep their types, over every serializer that can carry them."""

from __future__ import annotations

import array
import dataclasses
import datetime
import decimal
import enum
import fractions
import pathlib
import subprocess
import sys
import uuid
import zoneinfo
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyroplug.api import ConfigError, Kernel, PluginError, SerializeError, expose, remote_type
from pyroplug.plugins.typed.arrays import ARRAY
from pyroplug.testing.kernels import Serve, Served, make_kernel

pytestmark = pytest.mark.needs("types")

np: Any = pytest.importorskip("numpy")

SERIALIZERS = ("serpent", "json", "msgpack", "marshal")
UTC = datetime.timezone.utc


@dataclasses.dataclass(frozen=True)
class Point:
    x: float
    y: float = 0.0
    tags: frozenset[str] = frozenset()
    length: float = dataclasses.field(init=False, default=0.0)

    def __post_init__(self) -> None:
        if isinstance(self.x, str):
            raise ValueError("x is no number")
        object.__setattr__(self, "length", abs(self.x) + abs(self.y))


@dataclasses.dataclass
class Segment:
    ends: tuple[Point, Point]
    made: datetime.datetime
    weights: Any = None


class Color(enum.Enum):
    RED = 1
    BLUE = "blue"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Level(enum.IntEnum):
    LOW = 1


class Meter:
    """Not a dataclass; its fields are named where it is registered."""

    def __init__(self, value: float, unit: str) -> None:
        self.value, self.unit, self.secret = value, unit, "stays"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Meter) and (self.value, self.unit) == (other.value, other.unit)

    __hash__ = None  # type: ignore[assignment]


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self, a: Any, b: Any = None) -> None:
        self.a, self.b = a, b

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Slotted) and (self.a, self.b) == (other.a, other.b)

    __hash__ = None  # type: ignore[assignment]


class Pair(NamedTuple):
    a: int
    b: int


class Unregistered:
    pass


@expose
class Thing:
    def __init__(self) -> None:
        self.got: Any = None

    def echo(self, value: Any) -> Any:
        self.got = value
        return value

    def kinds(self, *values: Any) -> list[str]:
        return [type(value).__name__ for value in values]

    def fail(self, value: Any) -> None:
        raise ValueError(value)


def register(kernel: Kernel) -> None:
    remote_type(Point, kernel=kernel)
    remote_type(Segment, kernel=kernel)
    remote_type(Color, kernel=kernel)
    remote_type(Access, kernel=kernel)
    remote_type(Level, kernel=kernel)
    remote_type(Meter, fields=("value", "unit"), kernel=kernel)
    remote_type(Slotted, name="shop.Slotted", kernel=kernel)


def typed_kernel(**more: Any) -> Kernel:
    kernel = make_kernel(SERIALIZERS_ACCEPTED=set(SERIALIZERS), **more)
    register(kernel)
    return kernel


class Wire:
    """One serializer's codec that keeps types, and the plain one."""

    def __init__(self, kernel: Kernel, name: str) -> None:
        self.name = name
        self.kernel = kernel
        self.plain = kernel.codecs()[name]
        with Served(kernel=kernel) as served:
            served.publish(Thing())
            proxy = served.proxy()
            proxy._pyroSerializer = name
            proxy._pyroBind()
            connection = proxy._pyroConnection
            assert connection is not None
            assert "typed" in connection.extensions
            self.codec = connection.codec

    def again(self, value: Any) -> Any:
        (args, kwargs) = self.codec.loads_call(self.codec.dumps_call("o", "m", (value,), {"k": value}))[2:]
        result = self.codec.loads(self.codec.dumps(value))
        assert same(result, args[0])
        assert same(result, kwargs["k"])
        return result

    def attack(self, value: Any) -> Any:
        """What a peer can have made of a tagged dict that no codec of ours would send."""
        return self.codec.loads(self.plain.dumps(value))


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    kernel = typed_kernel()
    yield kernel
    kernel.close()


@pytest.fixture(scope="module")
def wires(kernel: Kernel) -> dict[str, Wire]:
    known = {"compact": Wire(kernel, "serpent")}
    kernel.settings.COMPACT = False
    return known | {name: Wire(kernel, name) for name in SERIALIZERS}


@pytest.fixture(params=[*SERIALIZERS, "compact"])
def wire(request: pytest.FixtureRequest, wires: dict[str, Wire]) -> Wire:
    return wires[request.param]


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        equal_nan = one.dtype.kind in "fcmM"
        return bool(one.dtype == other.dtype and np.array_equal(one, other, equal_nan=equal_nan))
    if isinstance(one, (list, tuple, deque)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return len(one) == len(other) and all(map(same, one.values(), other.values())) and list(one) == list(other)
    if isinstance(one, float):
        return repr(one) == repr(other)
    if isinstance(one, (datetime.datetime, datetime.time)):
        return repr(one) == repr(other)
    return bool(one == other)


ZONED = datetime.datetime(2026, 7, 1, 12, 30, tzinfo=zoneinfo.ZoneInfo("Europe/Amsterdam"))
VALUES: list[Any] = [
    set(),
    frozenset(),
    {1, "a", None},
    frozenset({2.5}),
    {(1, (2, "x")), frozenset({3})},
    {Color.RED, Color.BLUE},
    1j,
    complex(float("-inf"), 2.0),
    decimal.Decimal("1.10"),
    decimal.Decimal("NaN"),
    decimal.Decimal("-1E+100"),
    fractions.Fraction(-1, 3),
    fractions.Fraction(10**60, 7),
    uuid.UUID("12345678123456781234567812345678"),
    datetime.date(1, 1, 1),
    datetime.datetime(9999, 12, 31, 23, 59, 59, 999999),  # naive
    datetime.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=-3, minutes=-30))),
    datetime.datetime(2026, 10, 25, 2, 30, fold=1),
    ZONED,
    ZONED.replace(month=10, day=25, hour=2, fold=1),
    datetime.time(1, 2, 3, 4),
    datetime.time(1, 2, tzinfo=UTC),
    datetime.timedelta(-3, 5, 7),
    datetime.timedelta.max,
    deque([1, {2}], maxlen=3),
    array.array("d", [1.5, float("inf")]),
    array.array("q", [-(2**63), 2**63 - 1]),
    array.array("B", b"\0\xff"),
    array.array("H"),
    pathlib.PurePosixPath("/a/b"),
    pathlib.PureWindowsPath("C:\\x"),
    pathlib.Path("here"),
    {uuid.UUID(int=5): [datetime.date(2000, 1, 1)]},
    {(1, 2): "tuple", frozenset({1}): "set", Point(1, 2): "point"},
    b"",
    b"\0\xff",
    [b"x", {"deep": [b"y", {3}]}],
    Point(1.5, -2.0, frozenset({"a"})),
    Segment((Point(0, 0), Point(1, 1)), ZONED),
    [Point(1), [Point(2), {"k": Point(3)}]],
    Color.BLUE,
    Access.READ | Access.WRITE,
    Access(0),
    Meter(3.5, "V"),
    Slotted({1}, [Slotted(None)]),
]


def tuples_kept(wire: Wire, value: Any) -> bool:
    return not (wire.name in ("json", "msgpack") and isinstance(value, Segment))


# --------------------------------------------------------------------------- what there is
@pytest.mark.feature("F132", "F133", "F134")
@pytest.mark.parametrize(
    "value", VALUES, ids=[f"{number}-{type(value).__name__}" for number, value in enumerate(VALUES)]
)
def test_scenario_53_values_keep_their_types(wire: Wire, value: Any) -> None:
    result = wire.codec.loads(wire.codec.dumps(value)) if value != value else wire.again(value)  # noqa: PLR0124
    if isinstance(value, Segment) and not tuples_kept(wire, value):
        result.ends = tuple(result.ends)
    if isinstance(value, decimal.Decimal) and value.is_nan():
        assert isinstance(result, decimal.Decimal)
        assert result.is_nan()
    else:
        assert same(result, value)


@pytest.mark.parametrize("value", [OrderedDict(b=1, a={2}), {1: {2}, None: 3}])
def test_containers_that_formats_write_by_themselves(wire: Wire, value: Any) -> None:
    result = wire.again(value)
    if isinstance(value, OrderedDict):
        assert type(result) is (OrderedDict if wire.name in ("serpent", "marshal") else dict)
        assert result == value
        assert list(result) == ["b", "a"]
    elif wire.name == "json":
        assert result == {"1": {2}, "null": 3}
    else:
        assert same(result, value)


def test_what_is_built_on_a_builtin_type(wire: Wire) -> None:
    """The same, alone and beside something that makes the value be looked at."""
    values: list[Any] = [Level.LOW, Pair(1, 2)]
    for value in values:
        alone, beside = wire.again(value), wire.again([value, {1}])[0]
        assert same(alone, beside)
        assert alone == (list(value) if isinstance(alone, list) else value)
    assert type(wire.again(Level.LOW)) is (int if wire.name in ("json", "msgpack") else Level)


def test_plain_values_are_the_same_bytes(wire: Wire) -> None:
    if wire.codec.dumps(1) == b"\x01" and wire.name == "serpent":
        return  # the form that takes its place has no plain codec
    for value in (1, "x", [1, [2.5, None]], {"a": {"b": True}}, (1, 2), {"bytes": b"x"}):
        if wire.name == "json" and isinstance(value, dict) and "bytes" in value:
            continue
        assert wire.codec.dumps(value) == wire.plain.dumps(value)
        assert wire.codec.dumps_call("o", "m", (value,), {}) == wire.plain.dumps_call("o", "m", (value,), {})


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(), st.binary(), st.uuids(),
    st.decimals(allow_nan=False), st.fractions(), st.dates(), st.timedeltas(), st.times(), st.datetimes(),
    st.datetimes(timezones=st.timezones()), st.complex_numbers(allow_nan=False),
    st.builds(Point, st.integers(-9, 9), st.floats(-9, 9)), st.sampled_from(Color),
)  # fmt: skip
KEYS = st.one_of(st.integers(), st.text(), st.dates(), st.uuids(), st.sampled_from(Color))
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(), inner, max_size=4),
        st.dictionaries(st.uuids(), inner, max_size=3),
        st.sets(KEYS, max_size=4),
        st.frozensets(KEYS, max_size=4),
        st.lists(inner, max_size=3).map(deque),
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(value=TREES)
def test_any_tree(value: Any) -> None:
    for wire in _all_wires():
        if wire.name == "serpent" and "\\x00" in repr(value):
            continue  # serpent has no NUL in a text
        try:
            result = wire.again(value)
        except SerializeError as exc:
            assert "surrogate" in str(exc) or "NUL" in str(exc)  # noqa: PT017
            continue
        assert same(result, value), wire.name


_WIRES: tuple[Wire, ...] = ()


def _all_wires() -> tuple[Wire, ...]:
    global _WIRES  # noqa: PLW0603 - hypothesis takes no fixtures of a narrower scope
    if not _WIRES:
        kernel = typed_kernel()
        _WIRES = tuple(Wire(kernel, name) for name in SERIALIZERS)
    return _WIRES


# --------------------------------------------------------------------------- numpy
ARRAYS: list[Any] = [
    np.arange(6, dtype="i8").reshape(2, 3),
    np.array(5, "u2"),
    np.array([True, False]),
    np.array([1.5, float("nan")], "f2"),
    np.array([1 + 2j], "c8"),
    np.zeros((0, 3)),
    np.zeros((2, 0), "S3"),
    np.array(["ab", "çé", ""]),
    np.array([b"ab", b"c"]),
    np.array(["2026-01-01", "NaT"], "M8[ms]"),
    np.array([3], "m8[25s]"),
    np.arange(8, dtype=">i4"),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(20)[::3],
    np.ones((1,) * 32),
]


@pytest.mark.feature("F142")
@pytest.mark.parametrize("value", ARRAYS, ids=lambda value: f"{value.dtype}{value.shape}"[:30])
def test_numpy_arrays(wire: Wire, value: Any) -> None:
    result = wire.again(value)
    assert np.array_equal(result, value, equal_nan=value.dtype.kind in "fcmM")
    assert result.dtype == value.dtype.newbyteorder("=")
    assert result.shape == value.shape
    assert result.flags.writeable
    assert result.flags.c_contiguous


@pytest.mark.feature("F142")
@pytest.mark.parametrize("kind", ["int64", "int8", "uint32", "float32", "bool_", "complex64", "datetime64"])
def test_numpy_scalars(wire: Wire, kind: str) -> None:
    value = np.datetime64("2026-01-01") if kind == "datetime64" else getattr(np, kind)(1)
    result = wire.again([value, {"k": value}])
    assert result[0] == value
    assert type(result[0]) is type(value)
    assert type(result[1]["k"]) is type(value)
    double = wire.again(np.float64(2.5))
    assert double == 2.5
    assert isinstance(double, float)


@pytest.mark.feature("F142")
def test_numpy_inside_a_dataclass(wire: Wire) -> None:
    result = wire.again(np.arange(3))
    assert result.sum() == 3
    segment = wire.codec.loads(wire.codec.dumps(Segment((Point(0), Point(1)), ZONED, np.eye(2))))
    assert np.array_equal(segment.weights, np.eye(2))


@pytest.mark.feature("F142")
@pytest.mark.parametrize(
    "value",
    [
        np.array([object()], dtype=object),
        np.array([1, "x", None], dtype=object),
        np.zeros(2, dtype=[("a", "i4"), ("b", "f8")]),
        np.zeros(2, dtype="V8"),
        np.ma.masked_array([1, 2], [True, False]),
    ],
    ids=lambda value: str(value.dtype),
)
def test_arrays_that_cannot_be_sent(wire: Wire, value: Any) -> None:
    with pytest.raises(SerializeError, match="numpy"):
        wire.codec.dumps({"deep": [value]})


def array_form(dtype: Any, shape: Any, data: Any, tag: str = "+ndarray") -> dict[str, Any]:
    return {"__class__": tag, "dtype": dtype, "shape": shape, "data": data}


@pytest.mark.feature("F142")
@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        ("|O", [1]),
        ("O", [1]),
        ("|V8", [1]),
        ("[('a', '<i4')]", [1]),
        ("<i4,<i4", [1]),
        ("(2,)<i4", [1]),
        (">i8", [1]),
        ("<f16", [1]),
        ("<i8 ", [1]),
        ("<i8\n", [1]),
        ("|S0", [10**9]),
        ("|S99999999999", [1]),
        (["<i8"], [1]),
        (None, [1]),
        ("<M8[generic]", [1]),
        ("<i8", [2]),
        ("<i8", [0]),
        ("<i8", [-1]),
        ("<i8", [-1, -1]),
        ("<i8", [1.0]),
        ("<i8", [True]),
        ("<i8", ["1"]),
        ("<i8", 1),
        ("<i8", None),
        ("<i8", [2**62, 4]),
        ("<i8", [2**64]),
        ("<i8", [10**9, 10**9]),
        ("<i8", [1] * 33),
        ("<i8", [1] * 5000),
        ("|i1", [2**62]),
    ],
)
@pytest.mark.parametrize("tag", ["+ndarray", "+numpy"])
def test_hostile_arrays(wire: Wire, dtype: Any, shape: Any, tag: str) -> None:
    data = "AAAAAAAAAAA=" if wire.name == "json" else bytes(8)
    with pytest.raises(SerializeError, match=r"numpy|deep"):
        wire.attack(array_form(dtype, shape, data, tag))


@pytest.mark.parametrize("data", [None, 5, ["x"], {"__class__": "+bytes"}, "=", "A", {"encoding": "base64", "data": 5}])
def test_hostile_data(wire: Wire, data: Any) -> None:
    with pytest.raises(SerializeError):
        wire.attack(array_form("<i8", [1], data))


def test_a_shape_without_items_takes_no_memory(wire: Wire) -> None:
    empty = wire.attack(array_form("<i8", [0, 2**40], "" if wire.name == "json" else b""))
    assert empty.shape == (0, 2**40)
    with pytest.raises(SerializeError):
        wire.attack(array_form("<i8", [0, 2**62, 2**62], "" if wire.name == "json" else b""))


def test_no_pickle_is_read_or_written(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("pickle was used")

    for name in ("loads", "dumps", "load", "dump", "Pickler", "Unpickler"):
        monkeypatch.setattr(f"pickle.{name}", never)
    assert wire.again(np.arange(3)).tolist() == [0, 1, 2]
    assert "pickle" not in ARRAY.unpack.__code__.co_names


def test_booleans_are_zero_or_one(wire: Wire) -> None:
    data = "AAECAw==" if wire.name == "json" else bytes(range(4))
    flags = wire.attack(array_form("|b1", [4], data))
    assert flags.view("u1").tolist() == [0, 1, 1, 1]


def test_without_numpy(tmp_path: pathlib.Path) -> None:
    """It is not imported by the plugin, and without it arrays are refused with a hint."""
    program = (
        "import sys\n"
        "from pyroplug.testing.kernels import Served\n"
        "from pyroplug.api import expose, SerializeError\n"
        "sys.modules['numpy'] = None\n"
        "@expose\n"
        "class Thing:\n"
        "    def echo(self, value): return value\n"
        "with Served() as served:\n"
        "    served.publish(Thing())\n"
        "    proxy = served.proxy()\n"
        "    assert proxy.echo({3}) == {3}\n"
        "    codec = proxy._pyroConnection.codec\n"
        "    plain = served.kernel.codecs()['serpent']\n"
        "    data = plain.dumps({'__class__': '+ndarray', 'dtype': '|b1', 'shape': [1], 'data': b'x'})\n"
        "    try: codec.loads(data)\n"
        "    except SerializeError as exc: print(exc)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "pip install pyroplug[numpy]" in result.stdout


# --------------------------------------------------------------------------- hostile values
@pytest.mark.parametrize(
    "data",
    [
        {"__class__": "+date", "iso": "2000-99-99"},
        {"__class__": "+date", "iso": 5},
        {"__class__": "+date"},
        {"__class__": "+datetime", "iso": "x"},
        {"__class__": "+time", "iso": ["1"]},
        {"__class__": "+timedelta", "days": 10**12, "seconds": 0, "microseconds": 0},
        {"__class__": "+timedelta", "days": "1", "seconds": 0, "microseconds": 0},
        {"__class__": "+decimal", "text": "x"},
        {"__class__": "+decimal", "text": [0, [1], 0]},
        {"__class__": "+fraction", "over": 1, "under": 0},
        {"__class__": "+fraction", "over": 1.5, "under": 2},
        {"__class__": "+uuid", "text": "x"},
        {"__class__": "+set", "items": [[1]]},
        {"__class__": "+set", "items": [{"a": 1}]},
        {"__class__": "+set", "items": "abc"},
        {"__class__": "+frozenset", "items": 5},
        {"__class__": "+dict", "items": [[1]]},
        {"__class__": "+dict", "items": [[1, 2, 3]]},
        {"__class__": "+dict", "items": [[[], 2]]},
        {"__class__": "+odict", "items": ["ab"]},
        {"__class__": "+deque", "items": [1], "maxlen": -1},
        {"__class__": "+deque", "items": [1], "maxlen": "1"},
        {"__class__": "+deque", "items": [1]},
        {"__class__": "+array", "typecode": "d", "kind": "f", "itemsize": 8, "data": "AAAA"},
        {"__class__": "+array", "typecode": "dd", "kind": "f", "itemsize": 8, "data": ""},
        {"__class__": "+array", "typecode": "O", "kind": "O", "itemsize": 8, "data": ""},
        {"__class__": "+array", "typecode": "d", "kind": "f", "itemsize": 3, "data": ""},
        {"__class__": "+array", "typecode": "u", "text": 5},
        {"__class__": "+path", "path": 5, "windows": False, "pure": True},
        {"__class__": "+complex", "real": "x", "imag": 0},
        {"__class__": "+complex", "real": None, "imag": 0},
        {"__class__": "+bytes", "data": 5},
        {"__class__": "+nothing"},
        {"__class__": "@Nobody", "x": 1},
        {"__class__": "@Point", "x": 1, "secret": 2},
        {"__class__": "@Point", "y": 1},
        {"__class__": "@Point", "x": "text"},
        {"__class__": "@Meter", "value": 1, "__init__": 2},
        {"__class__": "@Meter", "value": 1, "secret": 2},
        {"__class__": "@Meter", "value": 1, "__dict__": {}},
        {"__class__": "@Color", "member": "GREEN"},
        {"__class__": "@Color", "member": "__class__"},
        {"__class__": "@Color", "member": ["RED"]},
        {"__class__": "@Color"},
        {"__class__": "@Access", "value": "x"},
    ],
    ids=lambda data: str(data)[14:50],
)
def test_hostile_forms(wire: Wire, data: dict[str, Any]) -> None:
    with pytest.raises(SerializeError):
        wire.attack([data])


def test_a_zone_that_is_not_known_here(wire: Wire) -> None:
    for zone in ("Nowhere/Land", "../../etc/passwd", "/etc/passwd"):
        made = wire.attack({"__class__": "+datetime", "iso": "2026-07-01T12:30:00+02:00", "zone": zone})
        assert made == ZONED
        assert made.utcoffset() == datetime.timedelta(hours=2)


def test_depth_is_limited(wire: Wire) -> None:
    value: Any = 1
    for _ in range(300):
        value = frozenset({value})
    with pytest.raises(SerializeError, match="nested too deeply"):
        wire.codec.dumps(value)
    loop: list[Any] = [{1}]
    loop.append(loop)
    with pytest.raises(SerializeError, match="nested too deeply"):
        wire.codec.dumps(loop)


def test_what_cannot_be_sent_at_all(wire: Wire) -> None:
    for value in (open, lambda: None, [{1}, open], object()):
        with pytest.raises(SerializeError):
            wire.codec.dumps(value)


def test_objects_without_a_registration_keep_their_plain_form(wire: Wire) -> None:
    thing = Unregistered()
    thing.when = datetime.date(2000, 1, 1)  # type: ignore[attr-defined]
    name = f"{Unregistered.__module__}.Unregistered"
    assert name in str(wire.codec.dumps(thing))
    with pytest.raises(SerializeError, match="unsupported serialized class"):
        wire.again(thing)


# --------------------------------------------------------------------------- remote_type
def test_registering() -> None:
    kernel = make_kernel()
    assert remote_type(Point, kernel=kernel) is Point
    remote_type(Point, kernel=kernel)  # twice is fine

    class Other:
        x: int

    Other.__name__ = "Point"
    with pytest.raises(ValueError, match=r"'Point' is .*Point already: give .* a name of its own"):
        remote_type(Other, kernel=kernel)
    decorated = remote_type(name="another", kernel=kernel)(Other)
    assert decorated is Other
    with pytest.raises(TypeError, match="which fields Unregistered has"):
        remote_type(Unregistered, kernel=kernel)
    with pytest.raises(TypeError, match="names of attributes"):
        remote_type(Unregistered, fields=("__class__",), kernel=kernel)
    with pytest.raises(TypeError, match="make it a dataclass"):
        remote_type(Pair, kernel=kernel)
    with pytest.raises(TypeError, match="for classes"):
        remote_type(5, kernel=kernel)  # type: ignore[call-overload]
    kernel.close()


def test_without_the_plugin() -> None:
    kernel = Kernel(plugins=["serpent", "memory", "thread"], environ={})
    with pytest.raises(PluginError, match="remote_type needs the plugin 'types'"):
        remote_type(Point, kernel=kernel)
    kernel.close()


def test_a_type_that_only_one_end_knows() -> None:
    with Served() as served:
        served.publish(Thing())
        client = make_kernel()
        remote_type(Point, kernel=client)
        remote_type(Color, kernel=served.kernel)
        proxy = served.proxy(kernel=client)
        with pytest.raises(SerializeError, match=r"the remote type 'Point' is not registered here.*@remote_type"):
            proxy.echo(Point(1))
        assert proxy.echo(1) == 1
        client.close()


def test_types_belong_to_one_kernel(kernel: Kernel) -> None:
    other = make_kernel()
    wire = Wire(other, "serpent")
    with pytest.raises(SerializeError, match="not registered here"):
        wire.attack({"__class__": "@Point", "x": 1})
    other.close()


def test_what_the_program_registered_comes_first(wire: Wire) -> None:
    kernel = typed_kernel()
    kernel.types.register_class_to_dict(datetime.date, lambda value: {"__class__": "my.date", "year": value.year})
    kernel.types.register_dict_to_class("my.date", lambda name, data: ("my", data["year"]))
    mine = Wire(kernel, wire.name)
    assert mine.codec.loads(mine.codec.dumps(datetime.date(2026, 1, 1))) == ("my", 2026)
    assert mine.codec.loads(mine.codec.dumps([datetime.date(2026, 1, 1), {1}])) == [("my", 2026), {1}]
    # a form of the program's may have typed values in it
    kernel.types.register_class_to_dict(Unregistered, lambda value: {"__class__": "my.u", "made": ZONED})
    kernel.types.register_dict_to_class("my.u", lambda name, data: data)
    assert mine.codec.loads(mine.codec.dumps(Unregistered()))["__class__"] == "my.u"
    kernel.close()


# --------------------------------------------------------------------------- over connections
def test_over_every_transport(serve_some: Serve) -> None:
    thing = Thing()
    served = serve_some(thing)
    register(served.kernel)
    for name in ("serpent", "json", "msgpack"):
        proxy = served.proxy()
        proxy._pyroSerializer = name
        for value in (Point(1.0), Color.RED, {1, 2}, ZONED, np.arange(4.0), b"x", {uuid.UUID(int=1): 2}):
            result = proxy.echo(value)
            assert same(result, value)
            assert same(thing.got, value)
        assert proxy.kinds({1}, ZONED, np.eye(1), Color.RED) == ["set", "datetime", "ndarray", "Color"]
        with pytest.raises(ValueError, match="Color") as caught:
            proxy.fail(Color.RED)
        assert caught.value.args == (Color.RED,)


@pytest.mark.needs("autoproxy")
def test_registered_objects_travel_as_proxies_all_the_same(kernel: Kernel) -> None:
    @expose
    @dataclasses.dataclass
    class Account:
        owner: str

        def name(self) -> str:
            return self.owner

    remote_type(Account, kernel=kernel)
    with Served("tcp4", kernel=kernel) as served:
        account: Any = Account("emma")
        thing = Thing()
        thing.fail = lambda value: None  # type: ignore[method-assign]
        served.publish(thing)
        for name in ("serpent", "json", "msgpack"):
            proxy = served.proxy()
            proxy._pyroSerializer = name
            assert proxy.echo(account) == account
            assert isinstance(thing.got, Account)
            served.publish(account, "account")
            back = proxy.echo({"here": [account, {1}]})["here"][0]
            assert type(back).__name__ == "Proxy"
            assert back.name() == "emma"
            back._pyroRelease()
            received: Any = thing.got
            received["here"][0]._pyroRelease()
            thing.got = None
            served.daemon.unregister("account")


@pytest.mark.parametrize("off", ["client", "server"])
def test_an_end_that_has_it_not(off: str) -> None:
    """Old peers, and ends where it is off, get Pyro's forms."""
    here = typed_kernel(TYPED_VALUES=off != "server")
    there = typed_kernel(TYPED_VALUES=off != "client")
    with Served(kernel=here) as served:
        thing = Thing()
        served.publish(thing)
        proxy = served.proxy(kernel=there)
        assert proxy.echo(datetime.date(2000, 1, 1)) == "2000-01-01"
        assert proxy.echo(Color.RED) == 1
        with pytest.raises(SerializeError, match=r"unsupported serialized class|don't know how"):
            proxy.echo(np.arange(3))
    here.close()
    there.close()


def test_the_handshake_is_plain() -> None:
    with Served(kernel=typed_kernel()) as served:
        served.publish(Thing())
        seen: list[Any] = []

        def validate(conn: Any, data: Any) -> str:
            seen.append(data)
            return "hello"

        served.daemon.validateHandshake = validate  # type: ignore[method-assign]
        proxy = served.proxy()
        proxy._pyroHandshake = datetime.date(2000, 1, 1)
        assert proxy.echo(datetime.date(2000, 1, 1)) == datetime.date(2000, 1, 1)
        assert seen == ["2000-01-01"]


def test_serializers_that_carry_classes_are_left_alone() -> None:
    kernel = make_kernel(SERIALIZERS_ACCEPTED={"pickle", "serpent"}, SERIALIZER="pickle")
    with Served(kernel=kernel) as served:
        served.publish(Thing())
        proxy = served.proxy()
        assert proxy.echo(datetime.date(2000, 1, 1)) == datetime.date(2000, 1, 1)
        assert proxy.echo(np.arange(3)).tolist() == [0, 1, 2]
        connection = proxy._pyroConnection
        assert connection is not None
        assert connection.codec is kernel.codecs()["pickle"]
    kernel.close()


def test_a_setting_that_changes() -> None:
    kernel = typed_kernel()
    assert Wire(kernel, "serpent").again(b"x") == b"x"
    kernel.settings.SERPENT_BYTES_DECODE = False
    wire = Wire(kernel, "serpent")
    assert wire.again(np.arange(3)).tolist() == [0, 1, 2]
    assert wire.again(array.array("b", b"x")) == array.array("b", b"x")
    with pytest.raises(ConfigError):
        kernel.settings.TYPED_VALUES = "maybe"
    kernel.close()
