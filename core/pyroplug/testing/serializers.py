"""The conformance suite for serializers, for ours and for those of third parties.

A complete test file for a serializer plugin ``mypackage.upper``; nothing but pytest is needed to run it::

    from mypackage import upper
    from pyroplug.testing.serializers import SerializerConformance


    class TestUpper(SerializerConformance):
        plugin = upper  # a module with pyro_serializers (and perhaps pyro_settings)
        keeps_bytes = False  # what the format cannot tell; see the class for all of these

Every ``test_`` method is one promise of the interfaces :class:`~pyroplug.core.interfaces.Serializer` and
:class:`~pyroplug.core.interfaces.Codec`.  The tests use plain ``assert``.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from typing import Any

from pyroplug.core.errors import DaemonError, OverloadError, PyroError, RemoteError, SerializeError
from pyroplug.core.interfaces import Codec, Serializer
from pyroplug.core.settings import Schema, Setting, Settings
from pyroplug.core.types import DEFAULT_DEPTH, ExceptionWrapper, TypeTable
from pyroplug.core.uri import URI

__all__ = ["SerializerConformance", "bind", "make_settings"]


def make_settings(plugin: Any = None, **values: Any) -> Settings:
    """Settings as a kernel would make them for one serializer plugin: MAX_NESTING_DEPTH and the plugin's own."""
    schema = Schema([Setting("MAX_NESTING_DEPTH", int, DEFAULT_DEPTH, "how deep values may be nested", minimum=1)])
    declare = getattr(plugin, "pyro_settings", None)
    if declare is not None:
        declare(schema=schema)
    return Settings(schema, environ={}, values=values)


def bind(plugin: Any, types: TypeTable | None = None, **values: Any) -> Codec:
    """A codec of the first serializer that a plugin module offers, with the given settings."""
    serializer: Serializer = next(iter(plugin.pyro_serializers()))
    return serializer.bind(TypeTable() if types is None else types, make_settings(plugin, **values))


class _Point:
    """A class that no receiver knows unless a converter is registered."""

    def __init__(self, x: int, y: int) -> None:
        self.x = x
        self.y = y


class _Endless:
    pass


class SerializerConformance:
    """Inherit, set :attr:`plugin` (or :attr:`serializer`), and say what the format cannot do."""

    plugin: Any = None
    """A module (or object) with ``pyro_serializers``."""
    serializer: Serializer | None = None
    """A serializer, for those that are not made by a plugin module."""

    keeps_bytes = True
    """bytes arrive as bytes; False means that sending them is refused."""
    keeps_tuples = True
    """False: they arrive as lists."""
    keeps_sets = True
    """False: they arrive as lists or tuples (an empty set may do so in any case)."""
    keeps_complex = True
    """False: sending them is refused."""
    keeps_keys = True
    """Keys of dicts may be numbers; False: they arrive as text."""
    keeps_surrogates = True
    """Lone surrogates in text arrive; False: sending them is refused."""
    keeps_objects = False
    """Objects of classes travel by themselves (pickle); the table of types has little to do then."""
    limits_depth = True
    """Nesting deeper than MAX_NESTING_DEPTH is refused on both sides."""
    replaces = True
    """Replacements (autoproxy) are used."""

    # ------------------------------------------------------------------ tools
    def make(self, types: TypeTable | None = None, **settings: Any) -> Codec:
        """A codec with the given settings."""
        return self._serializer().bind(types or TypeTable(), make_settings(self.plugin, **settings))

    def _serializer(self) -> Serializer:
        if self.serializer is not None:
            return self.serializer
        assert self.plugin is not None, "set the attribute 'plugin' or 'serializer'"
        serializer: Serializer = next(iter(self.plugin.pyro_serializers()))
        return serializer

    def _echo(self, value: Any) -> Any:
        codec = self.make()
        return codec.loads(codec.dumps(value))

    def _listed(self, value: Any) -> Any:
        """``value`` as the format delivers it, for formats without tuples."""
        if isinstance(value, (list, tuple)):
            items = [self._listed(item) for item in value]
            return tuple(items) if isinstance(value, tuple) and self.keeps_tuples else items
        if isinstance(value, dict):
            return {key if self.keeps_keys else str(key): self._listed(item) for key, item in value.items()}
        return value

    @staticmethod
    def _refuses(action: Callable[..., Any], *args: Any) -> PyroError:
        try:
            result = action(*args)
        except PyroError as err:
            return err
        raise AssertionError(f"this should have been refused, but gave {result!r:.200}")

    # ------------------------------------------------------------------ the serializer itself
    def test_identity_is_complete(self) -> None:
        serializer = self._serializer()
        assert isinstance(serializer.name, str)
        assert serializer.name
        assert isinstance(serializer.wire_id, int)
        assert 1 <= serializer.wire_id <= 255
        assert serializer.wire_id != 42
        assert isinstance(serializer.safe, bool)

    # ------------------------------------------------------------------ values
    def test_simple_values_come_back_with_their_type(self) -> None:
        value: Any
        for value in (None, True, False, 0, -1, 1, 2**31, -(2**63), 2**63, 2**64 - 1, 0.0, -1.5, 1e300, "", "text", []):
            result = self._echo(value)
            assert (result, type(result)) == (value, type(value))
        assert math.copysign(1, self._echo(-0.0)) == -1

    def test_big_integers_come_back(self) -> None:
        for value in (2**64, -(2**64), 2**200, -(10**400)):
            assert self._echo(value) == value

    def test_every_kind_of_text_comes_back(self) -> None:
        for text in (
            "h\u00e9llo",
            "\u4e16\u754c",
            "\U0001f600",
            "a'b\"c\\d",
            "\x00",
            "a\nb\r\tc",
            "\x7f\x85\u2028",
            "'",
            '"',
        ):
            assert self._echo(text) == text, text
            assert self._echo({text: [text]}) == {text: [text]}

    def test_surrogates_come_back_or_are_refused(self) -> None:
        if self.keeps_surrogates:
            assert self._echo("a\ud800b") == "a\ud800b"
        else:
            assert isinstance(self._refuses(self.make().dumps, "a\ud800b"), SerializeError)

    def test_numbers_that_are_no_numbers_come_back(self) -> None:
        assert math.isnan(self._echo(math.nan))
        assert self._echo([math.inf, -math.inf]) == [math.inf, -math.inf]

    def test_containers_come_back(self) -> None:
        value: Any
        for value in (
            [],
            {},
            (),
            [1, [2, [3]]],
            (1, (2, ())),
            {"a": {"b": [1, {"c": None}]}},
            [()],
            (1,),
            [{}, [], ()],
        ):
            assert self._echo(value) == self._listed(value), value

    def test_keys_that_are_numbers(self) -> None:
        assert self._echo({1: "a", -5: "b"}) == self._listed({1: "a", -5: "b"})

    def test_bytes_come_back_or_are_refused(self) -> None:
        for value in (b"", b"\x00\xff raw", bytes(range(256)), bytearray(b"ab"), memoryview(b"cd")):
            if self.keeps_objects and isinstance(value, memoryview):
                continue
            if self.keeps_bytes:
                result = self._echo([value])[0]
                assert isinstance(result, (bytes, bytearray)), value
                assert result == bytes(value)
            else:
                assert isinstance(self._refuses(self.make().dumps, value), SerializeError)

    def test_sets_come_back_with_all_members(self) -> None:
        for value in ({1}, {1, 2, 3}, {"a", "b"}, frozenset({5})):
            result = self._echo(value)
            assert sorted(result) == sorted(value)
            assert isinstance(result, (set, frozenset)) is self.keeps_sets
        assert not self._echo(set())

    def test_complex_numbers_come_back_or_are_refused(self) -> None:
        for value in (1 + 2j, -1.5 - 0.25j, 3j, complex(0, math.inf)):
            if self.keeps_complex:
                assert self._echo(value) == value, value
            else:
                assert isinstance(self._refuses(self.make().dumps, value), SerializeError)

    # ------------------------------------------------------------------ requests
    def test_requests_come_back(self) -> None:
        codec = self.make()
        for args, kwargs in (((), {}), ((1, "x", None), {"b": 4}), (([1], {"k": (1, 2)}), {"k": [None], "\u00e9": 1})):
            object_id, method, got_args, got_kwargs = codec.loads_call(codec.dumps_call("obj", "echo", args, kwargs))
            assert (object_id, method) == ("obj", "echo")
            assert list(got_args) == [self._listed(arg) for arg in args]
            assert got_kwargs == {key: self._listed(value) for key, value in kwargs.items()}

    def test_null_keyword_arguments_are_empty_ones(self) -> None:
        codec = self.make()
        none: Any = None
        assert codec.loads_call(codec.dumps_call("o", "m", (1,), none))[3] == {}

    def test_batches_come_back(self) -> None:
        codec = self.make()
        calls = [("add", (1, 2), {}), ("echo", ("z",), {"k": 1})]
        _, method, got, _ = codec.loads_call(codec.dumps_call("o", "<batch>", calls, {}))
        assert method == "<batch>"
        assert list(got) == self._listed(calls)

    def test_requests_of_another_shape_are_refused(self) -> None:
        value: Any
        codec = self.make()
        for value in (
            1,
            None,
            "text",
            [1, 2],
            [],
            {},
            [1, "m", [], {}],
            ["o", 2, [], {}],
            ["o", "m", 3, {}],
            ["o", "m", [], 4],
        ):
            assert isinstance(self._refuses(codec.loads_call, codec.dumps(value)), SerializeError), value

    # ------------------------------------------------------------------ bytes that come in
    def test_every_kind_of_buffer_is_read(self) -> None:
        codec = self.make()
        data, request = codec.dumps({"a": [1, "x"]}), codec.dumps_call("o", "m", (1,), {})
        for kind in (bytes, bytearray, memoryview):
            assert codec.loads(kind(data)) == {"a": [1, "x"]}
            assert list(codec.loads_call(kind(request))[2]) == [1]
        inside = memoryview(b"xx" + data + b"yy")[2:-2]
        assert codec.loads(inside) == {"a": [1, "x"]}

    def test_empty_cut_and_invalid_bytes_are_refused(self) -> None:
        codec = self.make()
        data = codec.dumps({"key": ["value", 12345, {"inner": [1.5, None]}]})
        assert isinstance(self._refuses(codec.loads, b""), SerializeError)
        assert isinstance(self._refuses(codec.loads_call, b""), SerializeError)
        if self._serializer().safe:
            for end in range(1, len(data) - 1):
                try:
                    codec.loads(data[:end])  # (a part of a text may be a value)
                except SerializeError:
                    pass
            for junk in (b"\xff\xfe\xfd", b"\xc1", b")", b"}", b"\x00" * 3, b"''''", b"{'a':", b"__import__('os')"):
                try:
                    codec.loads(junk)
                except SerializeError:
                    pass

    # ------------------------------------------------------------------ depth
    def test_nesting_is_limited_on_both_sides(self) -> None:
        if not self.limits_depth:
            return
        limit = 20
        small, large = self.make(MAX_NESTING_DEPTH=limit), self.make(MAX_NESTING_DEPTH=150)
        for wrap in (lambda v: [v], lambda v: {"k": v}):
            value: Any = "x"
            for _ in range(limit):
                value = wrap(value)
            assert small.loads(small.dumps(value)) == value
            value = wrap(value)
            assert isinstance(self._refuses(small.dumps, value), SerializeError)
            err = self._refuses(small.loads, large.dumps(value))
            assert isinstance(err, SerializeError)
            assert "MAX_NESTING_DEPTH" in str(err)

    def test_endless_nesting_is_refused(self) -> None:
        codec = self.make()
        circle: list[Any] = []
        circle.append(circle)
        ring: dict[str, Any] = {}
        ring["again"] = [ring]
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        for value in (circle, ring, deep):
            if self.keeps_objects:
                continue
            assert isinstance(self._refuses(codec.dumps, value), SerializeError)

    # ------------------------------------------------------------------ objects
    def test_objects_travel_through_registered_converters(self) -> None:
        if self.keeps_objects:
            return
        types = TypeTable()
        codec = self.make(types)
        types.register_class_to_dict(_Point, lambda p: {"__class__": "geo.Point", "x": p.x, "y": p.y})
        types.register_dict_to_class("geo.Point", lambda _, data: _Point(data["x"], data["y"]))
        shapes: list[tuple[Callable[[Any], Any], Callable[[Any], Any]]] = [
            (lambda p: p, lambda v: v),
            (lambda p: [p], lambda v: v[0]),
            (lambda p: {"k": (1, p)}, lambda v: v["k"][1]),
        ]
        for wrap, unwrap in shapes:
            point = unwrap(codec.loads(codec.dumps(wrap(_Point(3, 4)))))
            assert type(point) is _Point
            assert (point.x, point.y) == (3, 4)
        _, _, args, kwargs = codec.loads_call(codec.dumps_call("o", "m", (_Point(1, 2),), {"p": _Point(5, 6)}))
        assert type(args[0]) is _Point
        assert type(kwargs["p"]) is _Point

    def test_objects_of_unknown_classes_are_refused_on_arrival(self) -> None:
        if self.keeps_objects:
            return
        codec = self.make()
        point = _Point(3, 4)
        err = self._refuses(codec.loads, codec.dumps([point]))
        assert "Point" in str(err)
        assert vars(point) == {"x": 3, "y": 4}

    def test_what_cannot_be_sent_is_refused_by_the_sender(self) -> None:
        codec = self.make()
        lock = threading.Lock()
        assert isinstance(self._refuses(codec.dumps, lock), SerializeError)
        assert isinstance(self._refuses(codec.dumps_call, "o", "m", ([lock],), {}), SerializeError)

    def test_a_failing_converter_is_a_serialize_error(self) -> None:
        if self.keeps_objects:
            return
        types = TypeTable()
        codec = self.make(types)
        types.register_class_to_dict(_Point, lambda p: {"__class__": "geo.Point", "x": p.z})
        assert isinstance(self._refuses(codec.dumps, _Point(1, 2)), SerializeError)
        types.register_class_to_dict(_Endless, lambda e: e)
        assert isinstance(self._refuses(codec.dumps, _Endless()), SerializeError)
        types.register_class_to_dict(_Point, lambda p: {"__class__": "geo.Point"})
        types.register_dict_to_class("geo.Point", lambda _, data: data["missing"])
        assert isinstance(self._refuses(codec.loads, codec.dumps(_Point(1, 2))), SerializeError)

    def test_replacements_are_sent_in_the_place_of_objects(self) -> None:
        types = TypeTable()
        codec = self.make(types)
        uri = URI("PYRO:obj@localhost:4444")
        types.register_replacement(_Point, lambda p: uri)
        if self.replaces:
            assert codec.loads(codec.dumps([_Point(1, 2), {"k": _Point(1, 2)}])) == [uri, {"k": uri}]

    def test_uris_come_back(self) -> None:
        for text in ("PYRO:obj@localhost:4444", "PYRO:obj@./u:/tmp/sock", "PYRONAME:a.b", "PYROMETA:a,b@host:9"):
            assert self._echo([URI(text)]) == [URI(text)]

    # ------------------------------------------------------------------ exceptions
    def test_exceptions_come_back_as_values(self) -> None:
        for exc in (ValueError("bad", 42), ZeroDivisionError("x"), KeyError("k"), DaemonError("unknown object")):
            vars(exc)["extra"] = ["info"]
            result = self._echo([exc])[0]
            assert (type(result), list(result.args)) == (type(exc), list(exc.args))
            assert vars(result)["extra"] == ["info"]

    def test_exception_dicts_become_exceptions(self) -> None:
        types = TypeTable()
        codec = self.make(types)
        error = OverloadError("full", 2.5)
        result = self._recreated(types, codec.loads(codec.dumps(types.exception_to_dict(error, ["line 1\n"]))))
        assert type(result) is OverloadError
        assert result.args == ("full",)
        assert result.retry_after == 2.5
        assert vars(result)["_pyroTraceback"] == ["line 1\n"]

    def test_exceptions_of_unknown_classes_become_remote_errors(self) -> None:
        types = TypeTable()
        codec = self.make(types)
        form: Mapping[str, Any] = {
            "__class__": "mymod.__private.Oops",
            "__exception__": True,
            "args": ("mine", 3),
            "attributes": {"code": 7, "_pyroTraceback": ["line\n"]},
        }
        result = self._recreated(types, codec.loads(codec.dumps(form)))
        assert type(result) is RemoteError
        assert result.class_name == "mymod.__private.Oops"
        assert result.remote_args == ("mine", 3)
        assert result.attributes == {"code": 7}
        again = self._recreated(types, codec.loads(codec.dumps(types.exception_to_dict(result))))
        assert (again.class_name, again.remote_args, again.attributes) == (result.class_name, ("mine", 3), {"code": 7})

    def test_batch_results_keep_their_exception(self) -> None:
        result = self._echo([1, ExceptionWrapper(ValueError("x"))])
        assert result[0] == 1
        assert type(result[1]) is ExceptionWrapper
        assert type(result[1].exception) is ValueError

    def _recreated(self, types: TypeTable, value: Any) -> Any:
        return types.recreate(value) if self.keeps_objects else value

    # ------------------------------------------------------------------ many threads
    def test_one_codec_serves_many_threads(self) -> None:
        codec = self.make()
        wrong: list[Any] = []

        def work(number: int) -> None:
            value = {"number": number, "text": "x" * number, "list": list(range(number))}
            for _ in range(50):
                result = codec.loads(codec.dumps(value))
                if result != value:
                    wrong.append((value, result))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
