"""What each format does with the values that formats differ in, and the settings of the serializers."""

from __future__ import annotations

import array
import collections
import datetime
import decimal
import enum
import json as stdjson
import marshal as stdmarshal
import math
import pickle as stdpickle
import struct
import sys
import types as stdtypes
import uuid
import warnings
from typing import Any

import msgpack as library
import pytest

from pyroplug.core.errors import ConfigError, PluginConflict, PluginError, SerializeError
from pyroplug.core.settings import Schema
from pyroplug.core.types import TypeTable
from pyroplug.core.uri import URI
from pyroplug.serializers import cloudpickle, dill, json, marshal, msgpack, pickle, serpent
from pyroplug.testing.serializers import bind

PLUGINS = {
    "serpent": serpent,
    "marshal": marshal,
    "json": json,
    "msgpack": msgpack,
    "pickle": pickle,
    "dill": dill,
    "cloudpickle": cloudpickle,
}
HEADER = b"# serpent utf-8 python3.2\n"


def _characters(text: str) -> array.array[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.13 has a new code, which Pyro does not know
        return array.array("u", text)


class Colour(enum.Enum):
    RED = "red"


class Text(str):
    __slots__ = ()


class Whole(int):
    pass


class Thing:
    def __init__(self) -> None:
        self.value = [1]


def _packed(value: Any) -> bytes:
    data: bytes | None = library.packb(value)
    assert data is not None
    return data


def _echo(plugin: Any, value: Any, **settings: Any) -> Any:
    codec = bind(plugin, **settings)
    return codec.loads(codec.dumps(value))


@pytest.mark.feature("F120", "F121")
def test_names_and_wire_ids() -> None:
    known = {name: (s.wire_id, s.safe) for p in PLUGINS.values() for s in p.pyro_serializers() for name in [s.name]}
    assert known == {
        "serpent": (1, True),
        "marshal": (2, False),
        "json": (3, True),
        "msgpack": (4, True),
        "pickle": (104, False),
        "dill": (105, False),
        "cloudpickle": (107, False),
    }
    for name, plugin in PLUGINS.items():
        assert plugin.PLUGIN.name == name
        assert plugin.PLUGIN.unsafe == plugin.PLUGIN.opt_in == (not known[name][1])


def test_all_settings_go_together() -> None:
    schema = Schema()
    for plugin in PLUGINS.values():
        getattr(plugin, "pyro_settings", lambda schema: None)(schema=schema)
    owners = {setting.name: setting.owner for setting in schema}
    assert owners == {
        "SERPENT_BYTES_REPR": "serpent",
        "SERPENT_BYTES_DECODE": "serpent",
        "JSON_MODULE": "json",
        "PICKLE_PROTOCOL_VERSION": "pickle",
        "DILL_PROTOCOL_VERSION": "dill",
    }
    assert issubclass(PluginConflict, PluginError)


@pytest.mark.parametrize("name", ["serpent", "json", "msgpack", "marshal"])
class TestTextForms:
    @pytest.mark.parametrize(
        ("value", "arrives"),
        [
            (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
            (decimal.Decimal("1.50"), "1.50"),
            (Colour.RED, "red"),
            (Text("sub"), "sub"),
            (Whole(7), 7),
            (array.array("i", [1, 2]), [1, 2]),
            (array.array("i"), []),
            (_characters("ab"), "ab"),
            (collections.OrderedDict(a=1), {"a": 1}),
            (collections.defaultdict(list, a=[1]), {"a": [1]}),
        ],
    )
    def test_standard_classes(self, name: str, value: Any, arrives: Any) -> None:
        result = _echo(PLUGINS[name], [value])[0]
        assert result == arrives
        assert type(result) in (type(arrives), collections.OrderedDict)

    def test_dates_and_times(self, name: str) -> None:
        naive, aware = (
            datetime.datetime(2020, 1, 2, 3, 4, 5, 6),
            datetime.datetime(2020, 1, 2, tzinfo=datetime.timezone.utc),
        )
        date = datetime.date(2020, 1, 2)
        if name == "msgpack":
            assert _echo(msgpack, [naive, date]) == [naive, date]
            with pytest.raises(SerializeError, match="time zone"):
                bind(msgpack).dumps(aware)
        else:
            assert _echo(PLUGINS[name], [naive, aware, date]) == [v.isoformat() for v in (naive, aware, date)]

    def test_an_object_that_is_sent_is_not_changed(self, name: str) -> None:
        thing = Thing()
        daemon = object()
        vars(thing)["_pyroDaemon"] = daemon
        bind(PLUGINS[name]).dumps([thing])
        bind(PLUGINS[name]).dumps_call("o", "m", (thing,), {"k": thing})
        assert vars(thing) == {"value": [1], "_pyroDaemon": daemon}

    def test_functions_files_and_modules_are_refused(self, name: str) -> None:
        codec = bind(PLUGINS[name])
        value: Any
        for value in (_echo, len, sys, Thing, sys.stdout.__class__, iter([]), "x".upper):
            with pytest.raises(SerializeError, match="don't know how to serialize class"):
                codec.dumps([value])


# --------------------------------------------------------------------------- serpent
@pytest.mark.feature("F125", "F139")
class TestSerpent:
    def test_bytes_arrive_as_bytes_unless_told_otherwise(self) -> None:
        as_dict = {"data": "AP8=", "encoding": "base64"}
        assert _echo(serpent, [b"\x00\xff"]) == [b"\x00\xff"]
        assert _echo(serpent, b"\x00\xff", SERPENT_BYTES_DECODE=False) == as_dict
        assert _echo(serpent, as_dict) == b"\x00\xff"
        assert _echo(serpent, {**as_dict, "more": 1}) == {**as_dict, "more": 1}
        assert _echo(serpent, {"data": 5, "encoding": "base64"}) == {"data": 5, "encoding": "base64"}
        assert _echo(serpent, {"data": "A", "encoding": "base64"}) == {"data": "A", "encoding": "base64"}

    def test_bytes_literals(self) -> None:
        assert bind(serpent, SERPENT_BYTES_REPR=True).dumps(b"a'") == HEADER + b'b"a\'"'
        assert _echo(serpent, {b"key": [b""]}, SERPENT_BYTES_REPR=True) == {b"key": [b""]}

    @pytest.mark.parametrize("value", [{None: 1}, {frozenset([1]): 2}, {frozenset([1])}, {b"k": 1}, {b"m"}, {Thing()}])
    def test_keys_that_cannot_arrive_are_refused(self, value: Any) -> None:
        with pytest.raises(SerializeError):
            bind(serpent).dumps(value)

    def test_keys(self) -> None:
        value = {True: 2, 1.5: 3, "a": 4, (1, "x"): 5, 2j: 6}
        assert _echo(serpent, value) == value
        assert _echo(serpent, {Colour.RED: 1}) == {"red": 1}

    def test_what_other_implementations_write(self) -> None:
        codec = bind(serpent)
        for text, value in {
            "# serpent utf-8 python2.6\n[\n  1,\n  2\n]\n": [1, 2],
            "None": None,
            "  (1, )": (1,),
            "(1)": 1,
            "{'a': 1, }": {"a": 1},
            "1.0E10": 1e10,
            "-.5": -0.5,
            "5.": 5.0,
            "+3": 3,
            "'\\u00e9\\x41\\U0001f600\\101\\N{BULLET}\\d'": "\u00e9A\U0001f600A\u2022\\d",
            "(1.0-2.5e3j)": 1 - 2500j,
            "[2j,-1e30000]": [2j, -math.inf],
        }.items():
            if "\\d" in text:
                with pytest.warns((DeprecationWarning, SyntaxWarning)):  # Python's, about the unknown escape
                    assert codec.loads(text.encode()) == value
            else:
                assert codec.loads(text.encode()) == value

    @pytest.mark.parametrize(
        "text",
        [
            "", "(", ")", "(]", "[1", "[1 2]", "[1,,2]", "[,]", "{1:}", "{:1}", "{1:2,3}", "{1,2:3}", "{1:2:3}", "1,2",
            "1:2", "foo", "foo()", "__import__('os')", "lambda: 1", "[x for x in y]", "f'{1}'", "1+1", "--1", "0x10",
            "1_000", "inf", "nan", "'a' 'b'", "'a'\"b\"", "'open", "'open\\'", '"', "'''a'''", "{[]: 1}", "{{}}", "\u0663",
            "'a\x00b'", "[1] # comment", "b'\u00e9'", "'\\x4'", "'\\ud800'" + "x", "1j2", "j", "9" * 5000,
        ],
    )  # fmt: skip
    def test_everything_else_is_refused(self, text: str) -> None:
        with pytest.raises(SerializeError):
            bind(serpent).loads(text.encode("utf-8"))


# --------------------------------------------------------------------------- json
@pytest.mark.feature("F126")
class TestJson:
    def test_requests_are_read_by_name(self) -> None:
        request = {"more": 1, "kwargs": None, "params": [1], "method": "m", "object": "o"}
        assert bind(json).loads_call(stdjson.dumps(request).encode()) == ("o", "m", [1], {})

    def test_text_is_not_escaped(self) -> None:
        assert bind(json).dumps("h\u00e9") == b'"h\xc3\xa9"'
        assert bind(json).dumps("\ud800") == b'"\\ud800"'

    @pytest.mark.parametrize("value", [b"x", bytearray(b"x"), memoryview(b"x"), 1j, {(1, 2): 3}, datetime.timedelta(1)])
    def test_what_the_format_cannot_tell_is_refused(self, value: Any) -> None:
        with pytest.raises(SerializeError):
            bind(json).dumps([value])

    def test_another_module(self, monkeypatch: pytest.MonkeyPatch) -> None:
        other: Any = stdtypes.ModuleType("other_json")
        other.dumps = lambda value, default: stdjson.dumps(value, default=default).encode()
        other.loads = stdjson.loads
        monkeypatch.setitem(sys.modules, "other_json", other)
        codec = bind(json, JSON_MODULE="other_json")
        assert codec.dumps("h\u00e9") == b'"h\\u00e9"'
        assert codec.loads(codec.dumps([uuid.UUID(int=1), "\ud800"])) == [str(uuid.UUID(int=1)), "\ud800"]

    def test_a_module_that_cannot_be_used_is_a_configuration_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("no_such_module", "math", "", ".x"):
            with pytest.raises(ConfigError, match="JSON_MODULE"):
                bind(json, JSON_MODULE=name)
        other: Any = stdtypes.ModuleType("other_json")
        other.dumps = other.loads = lambda value: value
        monkeypatch.setitem(sys.modules, "other_json", other)
        with pytest.raises(ConfigError, match="default"):
            bind(json, JSON_MODULE="other_json")

    @pytest.mark.parametrize(
        ("text", "depth"),
        [("1", 0), ("[]", 1), ("[[], {}]", 2), ('{"a": [{"b": []}]}', 4), ('["[[[["]', 1), ('["\\\\", "[\\"["]', 1),
         ('["\\\\\\"["]', 1), ("[" * 30 + "]" * 30, 30), ("[[],[[],[[]]]]", 4)],
    )  # fmt: skip
    def test_depth_is_counted_outside_of_strings(self, text: str, depth: int) -> None:
        stdjson.loads(text)
        assert json.nesting(text.encode()) == depth


# --------------------------------------------------------------------------- msgpack
@pytest.mark.feature("F131")
class TestMsgpack:
    def test_dates_of_four_bytes_are_read(self) -> None:
        date = datetime.date(2020, 1, 2)
        for body in (struct.pack("<i", date.toordinal()), struct.pack("<q", date.toordinal())):
            assert bind(msgpack).loads(_packed(library.ExtType(0x33, body))) == date

    @pytest.mark.parametrize(
        ("code", "body"),
        [(0x30, b"short"), (0x31, b"12x"), (0x31, b"9" * 5000), (0x32, b""), (0x32, struct.pack("<d", math.nan)),
         (0x32, struct.pack("<d", 1e300)), (0x33, b"123"), (0x33, struct.pack("<q", -5)), (0x33, struct.pack("<q", 2**60)),
         (0x55, b"x"), (0, b"")],
    )  # fmt: skip
    def test_invalid_extensions_are_refused(self, code: int, body: bytes) -> None:
        for value in (library.ExtType(code, body), ["o", "m", [library.ExtType(code, body)], {}]):
            with pytest.raises(SerializeError, match="ext"):
                bind(msgpack).loads(_packed(value))

    def test_extensions_in_arguments(self) -> None:
        codec = bind(msgpack)
        args = (1j, 2**70, datetime.datetime(2020, 1, 2), datetime.date(1, 1, 1))
        assert codec.loads_call(codec.dumps_call("o", "m", args, {}))[2] == list(args)

    def test_a_packer_that_failed_is_not_used_again(self) -> None:
        codec = bind(msgpack)
        for _ in range(3):
            with pytest.raises(SerializeError):
                codec.dumps([1, 2, object.__new__(type("X", (), {"__slots__": ()})), object()])
            assert codec.dumps([1]) == b"\x91\x01"

    def test_a_converter_may_use_the_codec(self) -> None:
        types = TypeTable()
        codec = bind(msgpack, types)
        types.register_class_to_dict(Thing, lambda t: {"__class__": "t", "inner": codec.dumps(t.value)})
        types.register_dict_to_class("t", lambda _, data: codec.loads(data["inner"]))
        assert codec.loads(codec.dumps([1, Thing(), 2])) == [1, [1], 2]

    @pytest.mark.parametrize("size", [10, 65536, 200_000])
    def test_tags_are_found_in_every_size_and_kind_of_buffer(self, size: int) -> None:
        codec = bind(msgpack)
        uri = URI("PYRO:o@h:1")
        for filler in (b"x" * size, b"x" * (65536 - 15)):
            for value in ([filler, uri], [[[uri]], filler], {"a": filler, "b": {"c": uri}}):
                data = codec.dumps(value)
                assert codec.loads(data) == codec.loads(memoryview(data)) == codec.loads(bytearray(data)) == value


# --------------------------------------------------------------------------- marshal
@pytest.mark.feature("F127", "F147")
class TestMarshal:
    def test_null_keyword_arguments_are_written_as_an_empty_dict(self) -> None:
        none: Any = None
        assert stdmarshal.loads(bind(marshal).dumps_call("o", "m", (1,), none)) == ("o", "m", [1], {})

    def test_null_keyword_arguments_are_read(self) -> None:
        assert bind(marshal).loads_call(stdmarshal.dumps(["o", "m", (1,), None])) == ("o", "m", (1,), {})

    def test_there_is_no_autoproxy(self) -> None:
        types = TypeTable()
        types.register_replacement(Thing, lambda t: URI("PYRO:o@h:1"))
        sent = stdmarshal.loads(bind(marshal, types).dumps([Thing()]))
        assert sent == [{"value": [1], "__class__": f"{Thing.__module__}.Thing"}]

    def test_short_text_has_the_form_that_connection_refusals_are_read_by(self) -> None:
        assert bind(marshal).dumps("".join(["den", "ied"]))[0] in b"zZ\xfa\xda"

    @pytest.mark.skipif(sys.version_info < (3, 13), reason="Python cannot refuse it")
    def test_code_is_refused(self) -> None:
        with pytest.raises(SerializeError):
            bind(marshal).loads(stdmarshal.dumps(compile("1", "x", "eval")))


# --------------------------------------------------------------------------- pickle and its family
class TestPickles:
    @pytest.mark.feature("F128")
    def test_the_protocol_can_be_chosen(self) -> None:
        for protocol in (0, 2, 4):
            data = bind(pickle, PICKLE_PROTOCOL_VERSION=protocol).dumps([1, b"x"])
            assert data == stdpickle.dumps([1, b"x"], protocol)
        assert bind(pickle).dumps(1) == stdpickle.dumps(1, stdpickle.HIGHEST_PROTOCOL)
        with pytest.raises(ConfigError, match="PICKLE_PROTOCOL_VERSION"):
            bind(pickle, PICKLE_PROTOCOL_VERSION=99)

    @pytest.mark.feature("F128", "F129", "F130")
    @pytest.mark.parametrize("plugin", [pickle, dill, cloudpickle])
    def test_objects_travel_by_themselves(self, plugin: Any) -> None:
        result = _echo(plugin, [Thing(), {1: {2}}, Colour.RED, datetime.timedelta(1)])
        assert result[0].value == [1]
        assert result[1:] == [{1: {2}}, Colour.RED, datetime.timedelta(1)]

    @pytest.mark.feature("F129", "F130")
    @pytest.mark.parametrize("plugin", [dill, cloudpickle])
    def test_functions_travel_too(self, plugin: Any) -> None:
        offset = 2
        assert _echo(plugin, lambda x: x + offset)(3) == 5

    @pytest.mark.feature("F129", "F130")
    @pytest.mark.parametrize(("plugin", "name"), [(dill, "dill"), (cloudpickle, "cloudpickle")])
    def test_a_missing_library_is_named(self, plugin: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(PluginError, match=rf"pip install pyroplug\[{name}\]"):
            bind(plugin)


@pytest.mark.parametrize("plain", ["text", 5, None, [1, {"a": 2}], {"k": [1]}], ids=repr)
def test_a_replacement_may_be_a_plain_value(plain: object) -> None:
    class Sensor:
        pass

    for plugin in (serpent, json, msgpack):
        types = TypeTable()
        types.register_replacement(Sensor, lambda _: plain)
        codec = bind(plugin, types)
        assert codec.loads(codec.dumps([Sensor()])) == [plain]


@pytest.mark.parametrize("value", [{(1, 2): 3}, {"x": [{(1,): 1}]}])
def test_msgpack_says_why_a_dict_with_such_a_key_cannot_arrive(value: object) -> None:
    codec = bind(msgpack)
    with pytest.raises(SerializeError, match=r"a tuple arrives as a list, .* or the serializer serpent"):
        codec.loads(codec.dumps(value))


LONG = "x#()[]{},:" * 20_000
"""What the reader cuts out of a text before it looks at the rest."""


@pytest.mark.parametrize(
    "value",
    [
        LONG,
        [LONG, "it's", 1],
        {"a'b": LONG, LONG: ('"', "")},
        [LONG + "\n", "\\"],
        [LONG, b"bytes \x00", LONG.encode()],
        ["", LONG, "", LONG],
        [LONG, "both ' and \""],
    ],
)
def test_serpent_reads_long_texts(value: Any) -> None:
    codec = bind(serpent)
    assert codec.loads(codec.dumps(value)) == value
    assert codec.loads(repr(value).encode()) == value


@pytest.mark.parametrize(
    "text", ["'{}", "'{}' 'x'", "['{}' '{}']", "'{}'x", "'{}' #", "# '{}'", "f'{}'", "['{}',b'\\x00','{}'", "('{}',"]
)
def test_serpent_refuses_long_texts_that_are_no_literals(text: str) -> None:
    with pytest.raises(SerializeError):
        bind(serpent).loads(text.replace("{}", LONG.replace("#", "-")).encode())
