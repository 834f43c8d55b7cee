"""Bytes from somebody who means harm: refused, quickly, and without ending anything."""

from __future__ import annotations

import json as stdjson
import time
from typing import Any

import msgpack as library
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyroplug.core.errors import PyroError, RemoteError, SecurityError, SerializeError
from pyroplug.serializers import json, marshal, msgpack, serpent
from pyroplug.testing.serializers import bind
from testkit.timeouts import PATIENCE

SAFE = {"serpent": serpent, "json": json, "msgpack": msgpack}
LEVELS = [10, 1000, 1_000_000]


def _write(name: str, value: Any) -> bytes:
    if name == "serpent":
        return repr(value).encode()
    if name == "json":
        return stdjson.dumps(value).encode()
    data: bytes | None = library.packb(value)
    assert data is not None
    return data


def _nested(name: str, levels: int) -> list[bytes]:
    if name == "serpent":
        pairs = [(b"[", b"]"), (b"(", b",)"), (b"{'a':", b"}"), (b"(", b")")]
        return [a * levels + b"1" + b * levels for a, b in pairs] + [b"[" * levels, b"-" * levels + b"1"]
    if name == "json":
        pairs = [(b"[", b"]"), (b'{"a":', b"}")]
        return [a * levels + b"1" + b * levels for a, b in pairs] + [b"[" * levels]
    if name == "msgpack":
        return [b"\x91" * levels + b"\x01", b"\x81\xa1a" * levels + b"\x01", b"\x91" * levels]
    return [b"[\x01\x00\x00\x00" * levels + b"N", b"(\x01\x00\x00\x00" * levels + b"N", b"[\x01\x00\x00\x00" * levels]


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("name", [*SAFE, "marshal"])
def test_nesting_of_every_depth_is_survived(name: str, levels: int) -> None:
    codec = bind({**SAFE, "marshal": marshal}[name])
    for data in _nested(name, levels):
        for load in (codec.loads, codec.loads_call):
            started = time.monotonic()
            try:
                load(data)
            except SerializeError as err:
                assert levels > 10 or "deep" not in str(err)  # noqa: PT017 - either is right
            else:
                # parentheses around one value are no container, but they are counted
                assert levels <= 10
            assert time.monotonic() - started < PATIENCE


@pytest.mark.parametrize("name", SAFE)
def test_tagged_dicts_inside_each_other_are_limited(name: str) -> None:
    value: Any = "x"
    for _ in range(90):
        value = {"__class__": "builtins.ValueError", "__exception__": True, "args": [value], "attributes": {}}
    assert type(bind(SAFE[name]).loads(_write(name, value))) is ValueError
    with pytest.raises(SerializeError, match="MAX_NESTING_DEPTH"):
        bind(SAFE[name], MAX_NESTING_DEPTH=100).loads(_write(name, value))


@pytest.mark.parametrize("name", SAFE)
@pytest.mark.parametrize("cls", ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "BaseException", "print", "eval"])
@pytest.mark.parametrize("space", ["builtins.", "exceptions.", ""])
def test_only_exceptions_are_made(name: str, cls: str, space: str) -> None:
    form = {"__class__": space + cls, "__exception__": True, "args": [3], "attributes": {"code": 4}}
    error = bind(SAFE[name]).loads(_write(name, form))
    assert type(error) is RemoteError
    assert error.class_name == space + cls
    assert error.remote_args == (3,)


@pytest.mark.parametrize("name", SAFE)
@pytest.mark.parametrize(
    "cls", ["os.system", "subprocess.Popen", "pyroplug.core.uri.URI", "Pyro5.util.X", "sqlite3.connect", "URI", "", "."]
)
def test_unknown_classes_are_refused(name: str, cls: str) -> None:
    for form in ({"__class__": cls, "args": ["ls"]}, [{"k": {"__class__": cls, "state": []}}]):
        with pytest.raises(SerializeError, match="unsupported serialized class"):
            bind(SAFE[name]).loads(_write(name, form))


@pytest.mark.parametrize("name", SAFE)
@pytest.mark.parametrize("cls", ["__main__.X", "a.__class__", "a__b.C"])
def test_double_underscores_are_refused(name: str, cls: str) -> None:
    codec = bind(SAFE[name])
    with pytest.raises(SecurityError, match="double underscores"):
        codec.loads(_write(name, {"__class__": cls}))
    with pytest.raises(SecurityError, match="double underscores"):
        codec.loads_call(codec.dumps_call("o", "m", ([{"__class__": cls}],), {}))


@pytest.mark.parametrize(
    "data",
    [
        b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff\xa1a", b"\xdb\xff\xff\xff\xffabc", b"\xc6\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x31", b"\xdd\x00\x00\x00\x20" * 30, b"\xc1", b"\x91", b"\x01\x01", b"\x81\x90\x01",
    ],
)  # fmt: skip
def test_msgpack_lengths_are_not_believed(data: bytes) -> None:
    with pytest.raises(SerializeError):
        bind(msgpack).loads(data)


@pytest.mark.parametrize("quote", [b"'", b'"'])
@pytest.mark.parametrize(
    "unit", [b"%s", b"\\%s", b"%s\\", b"%sa", b"a%s", b"b%s", b"%s,", b"\\\\%s", b"%s " + b"x" * 50]
)
def test_serpent_reads_in_proportion_to_the_length(unit: bytes, quote: bytes) -> None:
    data = b"[" + unit.replace(b"%s", quote) * 200_000
    started = time.monotonic()
    with pytest.raises(SerializeError):
        bind(serpent).loads(data)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("end", [b"", b"j", b"xj", b".j", b"+", b"+j", b"e", b"e5xj", b"+1xj", b"."])
@pytest.mark.parametrize("start", [b"1", b"1.", b".", b"1e", b"-", b"1+", b"1.5+1.", b"b", b"\\"])
def test_serpent_reads_long_numbers_in_proportion_to_the_length(start: bytes, end: bytes) -> None:
    for middle in (b"1", b"\xd9\xa3", b"_"):
        started = time.monotonic()
        try:
            bind(serpent).loads(start + middle * 300_000 + end)
        except SerializeError:
            pass
        assert time.monotonic() - started < 5


def test_serpent_never_evaluates() -> None:
    for text in (
        b"__import__('os').system('true')",
        b"().__class__",
        b"[].append(1)",
        b"{**{}}",
        b"[*'ab']",
        b"f'{1}'",
    ):
        with pytest.raises(SerializeError):
            bind(serpent).loads(text)


@pytest.mark.parametrize("name", SAFE)
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_noise_is_a_value_or_a_refusal(name: str, data: st.DataObject) -> None:
    codec = bind(SAFE[name])
    good = codec.dumps_call("obj", "echo", (1, "text", [None, {"k": 2.5}]), {"k": "v"})
    noise = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        noise[data.draw(st.integers(0, len(noise) - 1))] = data.draw(st.integers(0, 255))
    for raw in (bytes(noise), data.draw(st.binary(max_size=40))):
        for load in (codec.loads, codec.loads_call):
            try:
                load(raw)
            except PyroError:
                pass


@pytest.mark.parametrize("name", SAFE)
@pytest.mark.parametrize("tag", [5, None, [1], {"a": 1}, 1.5, True])
def test_a_class_tag_that_is_no_text_means_nothing(name: str, tag: Any) -> None:
    value = {"__class__": tag, "x": [1]}
    assert bind(SAFE[name]).loads(_write(name, value)) == value


@pytest.mark.parametrize("name", SAFE)
@pytest.mark.parametrize(
    "state", [None, 5, [], ["PYRO"], ["PYRO", "o", None, "h", "1"], ["PYRO", 5, None, "h", 1], [1, "o", None, "h", 1],
              ["PYRO", "o", 5, None, None], ["PYRO", "o", None, "h", -1], ["PYRO", "o", None, "h", True],
              ["PYRO", [1], None, "h", 1], ["PYRO", "o", None, "h", 1, 2]],
)  # fmt: skip
def test_invalid_uris_are_refused(name: str, state: Any) -> None:
    with pytest.raises(SerializeError, match="URI"):
        bind(SAFE[name]).loads(_write(name, {"__class__": "Pyro5.core.URI", "state": state}))
