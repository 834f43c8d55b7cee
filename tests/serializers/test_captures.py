"""The recorded messages of real peers: every payload decodes, and is encoded again to the same bytes."""

from __future__ import annotations

import datetime
import decimal
import json as stdjson
import marshal as stdmarshal
import math
import pathlib
import re
import struct
import time
import uuid
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from pyroplug.core.errors import PyroError, RemoteError, SecurityError, SerializeError
from pyroplug.core.types import ExceptionWrapper, TypeTable
from pyroplug.core.uri import URI
from pyroplug.serializers import json, marshal, msgpack, serpent
from pyroplug.testing.serializers import bind

PLUGINS = {"serpent": serpent, "json": json, "msgpack": msgpack, "marshal": marshal}
IDS = {1: "serpent", 2: "marshal", 3: "json", 4: "msgpack"}
FILE = pathlib.Path(__file__).parent.parent / "data" / "wire_captures.json"


class _Proxy:
    """Stands for the proxy class, which others register."""

    def __init__(self, state: Any) -> None:
        self.state = state


def _types() -> TypeTable:
    types = TypeTable()
    types.register_class_to_dict(_Proxy, lambda p: {"__class__": "Pyro5.client.Proxy", "state": p.state})
    types.register_dict_to_class("Pyro5.client.Proxy", lambda _, data: _Proxy(data["state"]))
    return types


def _messages() -> Iterator[Any]:
    for number, entry in enumerate(stdjson.loads(FILE.read_text("utf-8"))):
        if entry["protocol"] != 502:
            continue
        raw = bytes.fromhex(entry["hex"])
        if len(raw) < 40:
            continue
        _, _, kind, wire_id, flags, _, size, annotations = struct.unpack("!4sHBBHHII", raw[:20])
        payload = raw[40 + annotations : 40 + annotations + size]
        if kind == 6:  # the payload of a ping belongs to no serializer
            continue
        if flags & 2:
            payload = zlib.decompress(payload)
        name = f"{number}-{entry['name']}-{IDS[wire_id]}-{entry['direction']}"
        yield pytest.param(kind, IDS[wire_id], payload, entry, id=name)


MESSAGES = list(_messages())


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (math.isnan(a) and math.isnan(b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)


def _normal(name: str, data: bytes) -> Any:
    """Bytes to compare: sets have no order, marshal's flags depend on reference counts, and so on."""
    if name == "marshal":
        return stdmarshal.loads(data)
    if name == "serpent":
        # the echo of a bytes dict comes back from Pyro without the blanks that real bytes get
        data = data.replace(b"'data': '", b"'data':'").replace(b"', 'encoding': ", b"','encoding':")
        return re.sub(rb"\{('[^{}:]*')\}", lambda m: b",".join(sorted(m[1].split(b","))), data)
    return data


def test_there_are_hundreds_of_them() -> None:
    assert len(MESSAGES) > 500


@pytest.mark.feature("F120", "F125", "F126", "F127", "F131")
@pytest.mark.parametrize(("kind", "name", "payload", "entry"), MESSAGES)
def test_message(kind: int, name: str, payload: bytes, entry: dict[str, Any]) -> None:
    codec = bind(PLUGINS[name], _types())
    if b"__main__.Sub" in payload:  # what the originals send for a registered object with marshal
        with pytest.raises(SecurityError, match="double underscores"):
            codec.loads(payload)
        return
    if kind != 4:
        value = codec.loads(payload)
        again = codec.dumps(value)
    else:
        object_id, method, args, kwargs = codec.loads_call(payload)
        assert isinstance(object_id, str)
        assert isinstance(method, str)
        assert isinstance(kwargs, dict)
        null_kwargs: Any = None
        is_null = not kwargs and (payload.endswith((b"None)", b'"kwargs": null}', b"\xc0")))
        again = codec.dumps_call(object_id, method, args, null_kwargs if is_null else kwargs)
        assert codec.loads_call(again)[:2] == (object_id, method)
    assert _same(_normal(name, again), _normal(name, payload))


@pytest.mark.parametrize("name", PLUGINS)
@pytest.mark.parametrize(
    ("scenario", "value"),
    [
        ("call_unicode", "h\u00e9llo"),
        ("call_bytes", b"\x00\xff raw"),
        ("call_kinds", {"t": (1, 2), "l": [1.5, None, True], "n": -5, "s": "x"}),
        ("type_set", {1}),
        ("type_complex", 1 + 2j),
        ("type_uuid", "uuid"),
        ("type_decimal", "decimal"),
        ("type_datetime", "datetime"),
        ("type_date", "date"),
        ("type_bigint", 2**70),
        ("type_nan", math.nan),
        ("type_inf", math.inf),
        ("type_bytearray", bytearray(b"ab")),
    ],
)
def test_requests_are_built_from_values_as_the_originals_do(
    name: str, scenario: str, value: Any, local_zone_is_utc: None
) -> None:
    value = (
        {
            "uuid": uuid.UUID(int=5),
            "decimal": decimal.Decimal("1.50"),
            "datetime": datetime.datetime(2020, 1, 2, 3, 4, 5),
            "date": datetime.date(2020, 1, 2),
        }.get(value, value)
        if isinstance(value, str)
        else value
    )
    wanted = [
        p.values[2] for p in MESSAGES if p.values[0] == 4 and p.values[1] == name and p.values[3]["name"] == scenario
    ]
    if not wanted:
        pytest.skip(f"{scenario} was not recorded with {name}")
    codec = bind(PLUGINS[name])
    assert _same(_normal(name, codec.dumps_call("demo", "echo", (value,), {})), _normal(name, wanted[0]))


@pytest.fixture
def local_zone_is_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def _reply(scenario: str, name: str) -> Any:
    for param in MESSAGES:
        kind, serializer, payload, entry = param.values
        if kind == 5 and serializer == name and entry["name"] == scenario:
            return bind(PLUGINS[name], _types()).loads(payload)
    pytest.skip(f"{scenario} was not recorded with {name}")


@pytest.mark.parametrize("name", PLUGINS)
class TestReplies:
    def test_exception(self, name: str) -> None:
        error = _reply("exception", name)
        assert type(error) is ZeroDivisionError
        assert error.args == ("division by zero",)
        assert vars(error)["_pyroTraceback"][0] == "Traceback (most recent call last):\n"

    def test_exception_with_attributes(self, name: str) -> None:
        error = _reply("exception_attributes", name)
        assert type(error) is ValueError
        assert error.args == ("bad", 42)
        assert vars(error)["extra"] == "info"

    def test_exception_of_an_unknown_class(self, name: str) -> None:
        error = _reply("exception_custom_class", name)
        assert type(error) is RemoteError
        assert error.class_name == "mymod.MyErr"
        assert error.remote_args == ("mine",)

    def test_pyro_error(self, name: str) -> None:
        error = _reply("exception_pyro", name)
        assert isinstance(error, PyroError)
        assert type(error).__name__ == "NamingError"

    def test_batch_with_a_failing_call(self, name: str) -> None:
        results = _reply("batch", name)
        if isinstance(results, ValueError):  # Pyro5 cannot answer this with marshal
            return
        assert list(results[:1]) == [3]
        assert type(results[-1]) is ExceptionWrapper
        assert type(results[-1].exception) is ZeroDivisionError

    def test_uri(self, name: str) -> None:
        assert isinstance(_reply("result_uri", name), URI)

    def test_proxy(self, name: str) -> None:
        assert isinstance(_reply("result_proxy", name), _Proxy)


def test_an_unregistered_proxy_class_is_refused() -> None:
    with pytest.raises(SerializeError, match=r"unsupported serialized class: Pyro5\.client\.Proxy"):
        bind(json).loads(b'{"__class__": "Pyro5.client.Proxy", "state": []}')
