"""The table of types: objects to dicts and back, and exceptions in both directions."""

from __future__ import annotations

import pathlib
import sqlite3
import struct
import sys
import threading
from collections import OrderedDict
from typing import Any

import pytest

from pyroplug.core import errors
from pyroplug.core.errors import PyroError, RemoteError, SecurityError, SerializeError
from pyroplug.core.types import NOT_REPLACED, ExceptionWrapper, TypeTable
from pyroplug.core.uri import URI


class Animal:
    def __init__(self, name: str = "x") -> None:
        self.name = name


class Dog(Animal):
    pass


class Slots:
    __slots__ = ("__private", "a", "unset")

    def __init__(self) -> None:
        self.a = 1
        self.__private = 2


class MoreSlots(Slots):
    __slots__ = "b"  # noqa: PLC0205 - a text is allowed and has to be understood

    def __init__(self) -> None:
        super().__init__()
        self.b = 3


class State:
    def __init__(self, state: Any) -> None:
        self.state = state

    def __getstate__(self) -> Any:
        return self.state


class MineError(Exception):
    pass


class PickyError(Exception):
    def __init__(self, *, needed: int) -> None:
        super().__init__("picky")
        self.needed = needed


@pytest.fixture
def types() -> TypeTable:
    return TypeTable()


def _form(name: str, *args: Any, **attributes: Any) -> dict[str, Any]:
    return {"__class__": name, "__exception__": True, "args": args, "attributes": attributes}


def _trip(types: TypeTable, exc: BaseException, lines: list[str] | None = None) -> Any:
    return types.from_dict(types.exception_to_dict(exc, lines))


# --------------------------------------------------------------------------- registration
@pytest.mark.feature("F133")
class TestConverters:
    def test_the_first_registered_class_decides(self, types: TypeTable) -> None:
        types.register_class_to_dict(Animal, lambda a: {"__class__": "animal"})
        types.register_class_to_dict(Dog, lambda d: {"__class__": "dog"})
        assert types.to_dict(Dog(), "json") == {"__class__": "animal"}
        types.unregister_class_to_dict(Animal)
        assert types.to_dict(Dog(), "json") == {"__class__": "dog"}
        assert types.to_dict(Animal(), "json")["__class__"].endswith(".Animal")
        types.unregister_class_to_dict(Animal)

    def test_pyros_argument_is_accepted(self, types: TypeTable) -> None:
        types.register_class_to_dict(Animal, lambda a: {"n": 1}, serpent_too=False)
        assert types.to_dict(Animal(), "serpent") == {"n": 1}

    def test_dicts_become_objects_by_the_exact_name(self, types: TypeTable) -> None:
        seen: list[Any] = []

        def make(name: str, data: Any) -> str:
            seen.append((name, data))
            return "made"

        types.register_dict_to_class("__main__.Animal", make)
        assert types.from_dict({"__class__": "__main__.Animal", "n": 1}) == "made"
        assert seen == [("__main__.Animal", {"__class__": "__main__.Animal", "n": 1})]
        types.unregister_dict_to_class("__main__.Animal")
        types.unregister_dict_to_class("__main__.Animal")
        with pytest.raises(SecurityError):
            types.from_dict({"__class__": "__main__.Animal"})

    def test_a_registered_name_wins_over_the_fixed_ones(self, types: TypeTable) -> None:
        types.register_dict_to_class("builtins.ValueError", lambda name, data: "mine")
        assert types.from_dict(_form("builtins.ValueError")) == "mine"

    def test_what_is_inside_reaches_a_converter_as_it_came_or_converted_first(self, types: TypeTable) -> None:
        types.register_dict_to_class("in", lambda name, data: "inner")
        types.register_dict_to_class("out", lambda name, data: data["x"])
        assert types.recreate([{"__class__": "out", "x": {"__class__": "in"}}]) == [{"__class__": "in"}]
        assert types.recreate([{"__class__": "out", "x": {"__class__": "in"}}], inner_first=True) == ["inner"]

    def test_failures_of_converters(self, types: TypeTable) -> None:
        types.register_dict_to_class("a", lambda name, data: 1 / 0)
        with pytest.raises(SerializeError, match="converter for class a failed: ZeroDivisionError") as info:
            types.from_dict({"__class__": "a"})
        assert isinstance(info.value.__cause__, ZeroDivisionError)

        def refuse(name: str, data: Any) -> Any:
            raise SecurityError("no")

        types.register_dict_to_class("b", refuse)
        with pytest.raises(SecurityError, match="no"):
            types.from_dict({"__class__": "b"})

    def test_wrong_arguments_are_refused(self, types: TypeTable) -> None:
        wrong: Any
        for wrong in (type, "Animal", 5, None, Animal()):
            with pytest.raises(ValueError, match="class"):
                types.register_class_to_dict(wrong, lambda a: {})
            with pytest.raises(ValueError, match="class"):
                types.register_replacement(wrong, lambda a: a)
        wrong = Animal
        with pytest.raises(TypeError, match="text"):
            types.register_dict_to_class(wrong, lambda name, data: None)

    def test_tables_share_nothing(self, types: TypeTable) -> None:
        types.register_class_to_dict(Animal, lambda a: {"mine": 1})
        assert TypeTable().to_dict(Animal(), "json") != {"mine": 1}

    def test_registering_while_others_convert(self, types: TypeTable) -> None:
        stop, failures = threading.Event(), []

        def convert() -> None:
            while not stop.is_set():
                try:
                    types.to_dict(Animal(), "json")
                    types.from_dict(_form("ValueError", 1))
                except Exception as err:
                    failures.append(err)

        threads = [threading.Thread(target=convert) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(300):
            cls = type(f"C{number}", (), {})
            types.register_class_to_dict(cls, lambda c: {})
            types.register_dict_to_class(f"c{number}", lambda name, data: None)
            types.register_replacement(cls, lambda c: c)
            types.unregister_class_to_dict(cls)
            types.unregister_dict_to_class(f"c{number}")
            types.unregister_replacement(cls)
        stop.set()
        for thread in threads:
            thread.join()
        assert not failures


@pytest.mark.feature("F145")
class TestReplacements:
    def test_the_nearest_class_decides(self, types: TypeTable) -> None:
        assert not types.has_replacements
        types.register_replacement(Animal, lambda a: URI("PYRO:animal@h:1"))
        assert types.has_replacements
        assert types.to_dict(Dog(), "json")["state"][1] == "animal"
        types.register_replacement(Dog, lambda a: URI("PYRO:dog@h:1"))
        assert types.to_dict(Dog(), "json")["state"][1] == "dog"
        assert types.to_dict(Animal(), "json")["state"][1] == "animal"
        types.unregister_replacement(Dog)
        assert types.to_dict(Dog(), "json")["state"][1] == "animal"

    def test_an_object_may_stay_as_it_is(self, types: TypeTable) -> None:
        types.register_replacement(Animal, lambda a: NOT_REPLACED)
        assert types.replace(Animal()) is NOT_REPLACED
        assert types.to_dict(Animal("n"), "json")["name"] == "n"
        assert repr(NOT_REPLACED) == "NOT_REPLACED"

    def test_plain_values_may_take_the_place(self, types: TypeTable) -> None:
        types.register_replacement(Animal, lambda a: [a.name])
        assert types.to_dict(Animal("n"), "json") == ["n"]

    def test_marshal_has_none(self, types: TypeTable) -> None:
        types.register_replacement(Animal, lambda a: "other")
        assert types.to_dict(Animal("n"), "marshal")["name"] == "n"


# --------------------------------------------------------------------------- any class
@pytest.mark.feature("F132")
class TestDefaultForms:
    def test_attributes_with_the_class(self, types: TypeTable) -> None:
        dog = Dog("rex")
        form = types.to_dict(dog, "json")
        assert form == {"name": "rex", "__class__": f"{Dog.__module__}.Dog"}
        form["name"] = "other"
        assert vars(dog) == {"name": "rex"}

    def test_slots(self, types: TypeTable) -> None:
        assert types.to_dict(MoreSlots(), "json") == {
            "_Slots__private": 2,
            "a": 1,
            "b": 3,
            "__class__": f"{MoreSlots.__module__}.MoreSlots",
        }

    def test_state(self, types: TypeTable) -> None:
        state = {"k": 1}
        assert types.to_dict(State(state), "json") == {"k": 1}
        assert types.to_dict(State(state), "serpent") == {"k": 1, "__class__": f"{State.__module__}.State"}
        assert state == {"k": 1}
        assert types.to_dict(State({"__class__": "mine"}), "serpent") == {"__class__": "mine"}
        assert types.to_dict(State((1,)), "serpent") == (1,)
        assert types.to_dict(State((1,)), "json")["state"] == (1,)

    def test_a_daemon_never_travels(self, types: TypeTable) -> None:
        dog = Dog()
        vars(dog)["_pyroDaemon"] = daemon = object()
        assert types.to_dict(dog, "json")["_pyroDaemon"] is None
        assert vars(dog)["_pyroDaemon"] is daemon

    @pytest.mark.feature("F136", "F142")
    def test_what_has_no_form(self, types: TypeTable) -> None:
        with pathlib.Path(__file__).open("rb") as file:
            for value in (object(), threading.Lock(), len, lambda: 1, sys, Dog, file, b"bytes", range(3)):
                with pytest.raises(SerializeError, match=r"don't know how to serialize class .* using serializer json"):
                    types.to_dict(value, "json")

    def test_uris(self, types: TypeTable) -> None:
        for text in ("PYRO:o@h:1", "PYRO:o@./u:/x", "PYRONAME:n", "PYROMETA:a,b"):
            form = types.to_dict(URI(text), "json")
            assert form["__class__"] == "Pyro5.core.URI"
            assert types.from_dict(form) == URI(text)
            assert types.from_dict({**form, "__class__": "Pyro4.core.URI", "state": list(form["state"])}) == URI(text)


class TestFixedClasses:
    def test_what_is_no_tagged_dict_comes_back(self, types: TypeTable) -> None:
        for value in (1, "x", None, [1], {"a": 1}, Animal):
            assert types.from_dict(value) is value

    def test_special_numbers_and_ordered_dicts(self, types: TypeTable) -> None:
        nan = {"__class__": "float", "value": "nan"}
        assert str(types.from_dict(nan)) == "nan"
        assert repr(types.from_dict({"__class__": "complex", "real": nan, "imag": 1})) == "(nan+1j)"
        ordered = types.from_dict({"__class__": "collections.OrderedDict", "items": [("a", nan), ["b", 2]]})
        assert type(ordered) is OrderedDict
        assert list(ordered) == ["a", "b"]
        assert str(ordered["a"]) == "nan"
        for bad in (
            {"__class__": "float"},
            {"__class__": "float", "value": "x"},
            {"__class__": "float", "value": [1]},
            {"__class__": "complex", "real": 1},
            {"__class__": "collections.OrderedDict", "items": 5},
            {"__class__": "collections.OrderedDict", "items": [[1, 2, 3]]},
            {"__class__": "collections.OrderedDict", "items": [[[], 2]]},
        ):
            with pytest.raises(SerializeError, match="invalid serialized"):
                types.from_dict(bad)

    def test_wrapped_exceptions(self, types: TypeTable) -> None:
        form = types.to_dict(ExceptionWrapper(ValueError("x")), "json")
        assert form["__class__"] == "Pyro5.core._ExceptionWrapper"
        for name in ("Pyro5.core._ExceptionWrapper", "Pyro4.futures._ExceptionWrapper"):
            wrapper = types.from_dict({**form, "__class__": name})
            with pytest.raises(ValueError, match="x"):
                wrapper.raise_it()
            with pytest.raises(ValueError, match="x"):
                wrapper.raiseIt()
            assert repr(wrapper) == "<ExceptionWrapper of ValueError('x')>"
        with pytest.raises(SerializeError, match="no exception"):
            types.from_dict({"__class__": "Pyro5.core._ExceptionWrapper", "exception": 5})

    def test_converters_count_for_wrapped_exceptions(self, types: TypeTable) -> None:
        types.register_class_to_dict(MineError, lambda e: {"__class__": "mine"})
        types.register_dict_to_class("mine", lambda name, data: MineError("made"))
        form = types.to_dict(ExceptionWrapper(MineError()), "json")
        assert form["exception"] == {"__class__": "mine"}
        assert types.from_dict(form).exception.args == ("made",)


# --------------------------------------------------------------------------- walking
class TestRecreate:
    def test_every_place(self, types: TypeTable) -> None:
        types.register_dict_to_class("x", lambda name, data: "X")
        tag = {"__class__": "x"}
        value = {"a": [dict(tag), (dict(tag), {"b": dict(tag)})], "c": dict(tag), "s": {1}}
        assert types.recreate(value) == {"a": ["X", ("X", {"b": "X"})], "c": "X", "s": {1}}

    @pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: (v,), lambda v: {"k": v}])
    def test_depth(self, types: TypeTable, wrap: Any) -> None:
        value: Any = "x"
        for _ in range(30):
            value = wrap(value)
        assert types.recreate(value, 30) == value
        with pytest.raises(SerializeError, match=r"limit 29, MAX_NESTING_DEPTH"):
            types.recreate(value, 29)


# --------------------------------------------------------------------------- exceptions
@pytest.mark.feature("F134")
class TestExceptions:
    def test_form(self, types: TypeTable) -> None:
        exc = ValueError("bad", 42)
        vars(exc)["extra"] = "info"
        form = types.exception_to_dict(exc, ("line\n",))
        assert list(form) == ["__class__", "__exception__", "args", "attributes"]
        assert form == _form("builtins.ValueError", "bad", 42, extra="info", _pyroTraceback=["line\n"])
        form["attributes"]["extra"] = "changed"
        assert vars(exc) == {"extra": "info"}
        assert types.to_dict(exc, "json") == _form("builtins.ValueError", "bad", 42, extra="info")

    @pytest.mark.parametrize("name", ["ValueError", "builtins.ValueError", "exceptions.ValueError"])
    def test_builtin_names(self, types: TypeTable, name: str) -> None:
        exc = types.from_dict(_form(name, "a", extra=1, _pyroTraceback=["l\n"]))
        assert type(exc) is ValueError
        assert exc.args == ("a",)
        assert vars(exc) == {"extra": 1, "_pyroTraceback": ["l\n"]}

    def test_other_libraries(self, types: TypeTable) -> None:
        assert type(types.from_dict({"__class__": "struct.error", "args": ["x"]})) is struct.error
        assert type(types.from_dict(_form("sqlite3.OperationalError", "x"))) is sqlite3.OperationalError
        assert type(types.from_dict(_form("sqlite3.NoSuchError"))) is RemoteError
        assert type(types.from_dict(_form("sqlite3.connect"))) is RemoteError

    def test_pyro_names(self, types: TypeTable) -> None:
        for space in ("Pyro5.errors.", "Pyro4.errors."):
            exc = types.from_dict({"__class__": f"{space}TimeoutError", "args": ["x"], "attributes": {}})
            assert type(exc) is errors.TimeoutError
            for name in ("NoSuchError", "PyroError.x", "Any", "RemoteError"):
                assert type(types.from_dict(_form(space + name, "x"))) is RemoteError
        assert type(types.from_dict(_form("TimeoutError"))) is errors.TimeoutError
        assert type(types.from_dict(_form("builtins.TimeoutError"))) is TimeoutError

    @pytest.mark.parametrize("cls", [getattr(errors, n) for n in errors.__all__ if n != "RemoteError"])
    def test_each_of_our_errors_comes_back(self, types: TypeTable, cls: type[PyroError]) -> None:
        exc = cls("text")
        form = types.exception_to_dict(exc)
        wire_name = form["__class__"]
        assert wire_name.startswith("Pyro5.errors.")
        again = types.from_dict(form)
        assert type(again) is cls
        assert again.args == ("text",)
        assert vars(again) == vars(exc)
        if wire_name != f"Pyro5.errors.{cls.__name__}":
            assert form["attributes"]["_pyroplugClass"] == cls.__name__
            assert issubclass(cls, getattr(errors, wire_name.rpartition(".")[2]))

    def test_pyro5_knows_every_name_we_send(self, types: TypeTable) -> None:
        theirs = pytest.importorskip("Pyro5.errors")
        for name in errors.__all__:
            form = types.exception_to_dict(getattr(errors, name)("text"))
            if name != "RemoteError":
                assert hasattr(theirs, form["__class__"].rpartition(".")[2])

    def test_details_of_our_errors(self, types: TypeTable) -> None:
        exc = _trip(types, errors.OverloadError("full", 2.5))
        assert exc.retry_after == 2.5
        assert _trip(types, errors.PluginConflict("text", "name")).plugin == "name"

    def test_a_precise_name_of_nothing_known(self, types: TypeTable) -> None:
        for name in ("FutureError", "builtins.SystemExit", "RemoteError", "eval"):
            exc = types.from_dict(_form("Pyro5.errors.PyroError", "x", _pyroplugClass=name, more=1))
            assert type(exc) is RemoteError
            assert exc.class_name == name
            assert exc.attributes == {"more": 1}
        odd = types.from_dict(_form("Pyro5.errors.PyroError", "x", _pyroplugClass=5))
        assert type(odd) is PyroError
        assert vars(odd) == {}

    def test_unknown_classes(self, types: TypeTable) -> None:
        exc = types.from_dict(_form("mymod.MyErr", "mine", [1], extra=1, _pyroTraceback=["l\n"], __notes__=["n"]))
        assert type(exc) is RemoteError
        assert (exc.class_name, exc.remote_args) == ("mymod.MyErr", ("mine", [1]))
        assert exc.attributes == {"extra": 1, "__notes__": ["n"]}
        assert vars(exc)["_pyroTraceback"] == ["l\n"]
        assert vars(exc)["__notes__"] == ["n"]
        assert not hasattr(exc, "extra")
        assert exc.matches("MyErr")

    def test_a_chain_of_servers_changes_nothing(self, types: TypeTable) -> None:
        form = _form("mymod.MyErr", "mine", 3, extra=1, _pyroTraceback=["l\n"])
        for _ in range(3):
            again = types.exception_to_dict(types.from_dict(form))
            assert again == form
            form = again
        assert types.exception_to_dict(types.from_dict(form), ["new\n"])["attributes"]["_pyroTraceback"] == ["new\n"]

    @pytest.mark.parametrize("exc", [SystemExit(3), KeyboardInterrupt(), GeneratorExit("x"), BaseException()])
    def test_what_ends_programs_ends_no_caller(self, types: TypeTable, exc: BaseException) -> None:
        form = types.exception_to_dict(exc)
        name = type(exc).__name__
        text = f"method raised {name}: {exc}"
        assert form == _form("Pyro5.errors.PyroError", text, _pyroplugClass=f"builtins.{name}")
        again = types.from_dict(form)
        assert type(again) is RemoteError
        assert again.matches(name)
        assert again.remote_args == (text,)
        assert types.exception_to_dict(again) == form
        from_old_server = types.from_dict(_form(f"builtins.{name}", 3))
        assert type(from_old_server) is RemoteError
        assert types.exception_to_dict(from_old_server)["__class__"] == "Pyro5.errors.PyroError"

    def test_a_remote_error_without_class(self, types: TypeTable) -> None:
        assert types.exception_to_dict(RemoteError())["__class__"] == "Pyro5.errors.PyroError"

    def test_slots_of_exceptions(self, types: TypeTable) -> None:
        class SlotError(Exception):
            __slots__ = ("code",)
            code: int

        exc = SlotError("x")
        exc.code = 5
        assert types.exception_to_dict(exc)["attributes"] == {"code": 5}

    def test_constructors_that_refuse(self, types: TypeTable) -> None:
        exc = types.from_dict(_form("builtins.UnicodeDecodeError", "only one", extra=1))
        assert type(exc) is RemoteError
        assert exc.class_name == "builtins.UnicodeDecodeError"
        assert exc.remote_args == ("only one",)
        assert exc.attributes == {"extra": 1}
        assert types.exception_to_dict(PickyError(needed=1))["attributes"] == {"needed": 1}

    def test_dangerous_attributes_are_left_out(self, types: TypeTable) -> None:
        attributes: dict[Any, Any] = {
            "__class__": 5,
            "__cause__": 5,
            "__dict__": {},
            "__x": 1,
            "with_traceback": 5,
            "args": ("new",),
            5: 6,
            "fine": 1,
            "_private": 2,
        }
        form = {**_form("ValueError", "x"), "attributes": {**attributes, "__class__": "ValueError"}}
        exc = types.from_dict(form)
        assert type(exc) is ValueError
        assert vars(exc) == {"fine": 1, "_private": 2}
        assert callable(exc.with_traceback)

    def test_read_only_attributes_do_not_cost_the_reply(self, types: TypeTable) -> None:
        exc = types.from_dict(_form("builtins.OSError", 2, "x", errno="y", characters_written=[], ok=1))
        assert exc.ok == 1

    def test_notes(self, types: TypeTable) -> None:
        exc = ValueError("x")
        vars(exc)["__notes__"] = ["a note"]
        assert vars(_trip(types, exc)) == {"__notes__": ["a note"]}
        assert vars(types.from_dict(_form("ValueError", __notes__=["a", 5]))) == {"__notes__": ["a"]}
        assert vars(types.from_dict(_form("ValueError", __notes__="a"))) == {}

    @pytest.mark.parametrize(
        ("trace", "arrives"),
        [(["a\n"], ["a\n"]), (("a\n", 5), ["a\n"]), ("a\nb", ["a\n", "b"]), (None, None), (5, None)],
    )
    def test_tracebacks_are_lines_or_nothing(self, types: TypeTable, trace: Any, arrives: Any) -> None:
        assert vars(types.from_dict(_form("ValueError", _pyroTraceback=trace))) == {"_pyroTraceback": arrives}

    @pytest.mark.parametrize("parts", [{}, {"args": None, "attributes": None}, {"args": "text", "attributes": [1]}])
    def test_missing_and_odd_parts(self, types: TypeTable, parts: dict[str, Any]) -> None:
        exc = types.from_dict({"__class__": "ValueError", "__exception__": True, **parts})
        assert type(exc) is ValueError
        assert exc.args == ()
        assert vars(exc) == {}

    def test_exceptions_inside_exceptions(self, types: TypeTable) -> None:
        inner = _form("KeyError", "k")
        exc = types.from_dict(_form("ValueError", inner, other=inner, unknown={"__class__": "a.B", "x": 1}))
        assert type(exc.args[0]) is KeyError
        assert type(exc.other) is KeyError
        assert exc.unknown == {"__class__": "a.B", "x": 1}  # costs the reply nothing

    @pytest.mark.skipif(sys.version_info < (3, 11), reason="groups are new there")
    def test_groups(self, types: TypeTable) -> None:
        group = types.from_dict(_form("builtins.ExceptionGroup", "several", [_form("ValueError", 1)]))
        assert type(group.exceptions[0]) is ValueError

    def test_the_plain_form(self, types: TypeTable) -> None:
        class SilentError(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        form = types.exception_to_plain_dict(ValueError("bad"), ["l\n"], "no way")
        text = "Error serializing exception: no way. Original exception: <class 'ValueError'>: bad"
        assert form == _form("Pyro5.errors.PyroError", text, _pyroTraceback=["l\n"])
        silent = types.exception_to_plain_dict(SilentError(), [], TypeError("x"))
        assert "SilentError without a text" in silent["args"][0]
