"""What of a class is remote: the rules of ``expose``, names, inheritance and decorators (features F222, F223, F269)."""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable
from typing import Any

import Pyro5.api
import Pyro5.server
import pytest

from pyroplug.core.kernel import Kernel
from pyroplug.core.members import Members, compute_members, expose, is_private
from pyroplug.core.plugins import PluginInfo

PRIVATE_DUNDERS = (
    "init init_subclass class module weakref call new del repr str format nonzero bool coerce cmp eq ne hash ge gt le lt "
    "dir enter exit copy deepcopy sizeof getattr setattr hasattr getattribute delattr instancecheck subclasscheck "
    "getinitargs getnewargs getstate setstate reduce reduce_ex subclasshook"
).split()


def remote(cls: type) -> tuple[set[str], set[str]]:
    """The names of the remote methods and attributes of a class."""
    members = compute_members(cls)
    return set(members.methods), set(members.properties)


# ------------------------------------------------------------------------------------------------ names
@pytest.mark.feature("F223")
@pytest.mark.parametrize("name", [f"__{name}__" for name in PRIVATE_DUNDERS])
def test_these_special_methods_are_private(name: str) -> None:
    assert is_private(name)


@pytest.mark.feature("F223")
@pytest.mark.parametrize("name", ["_", "__", "___", "____", "_x", "__x", "_x_", "__x_", "_x__", "__private"])
def test_names_that_begin_with_an_underscore_are_private(name: str) -> None:
    assert is_private(name)


@pytest.mark.feature("F301")
@pytest.mark.parametrize(
    "name", ["x", "x_", "x__", "__len__", "__getitem__", "__setitem__", "__delitem__", "__iter__", "__contains__", "__add__", "__x__", "_____"]
)  # fmt: skip
def test_these_names_may_be_exposed(name: str) -> None:
    assert not is_private(name)


@pytest.mark.interop
def test_pyro5_thinks_the_same_of_every_name() -> None:
    names = {f"{a}{b}{c}" for a in ("", "_", "__", "___") for b in ("", "x", "init", "len") for c in ("", "_", "__")}
    names |= {f"__{name}__" for name in PRIVATE_DUNDERS} | set(dir(object)) | set(dir(list)) | set(dir(int))
    names |= Pyro5.server._private_dunder_methods
    assert {name for name in names if is_private(name) != Pyro5.server.is_private_attribute(name)} == set()


# ------------------------------------------------------------------------------------------------ what is exposed
class Mixed:
    """Exposed and not, of every kind."""

    value = 1

    @expose
    def method(self) -> str:
        return "method"

    def hidden(self) -> str:
        return "hidden"

    @staticmethod
    @expose
    def static(a: int) -> int:
        return a * 2

    @classmethod
    @expose
    def by_class(cls) -> str:
        return cls.__name__

    @property
    @expose
    def getter_marked(self) -> int:
        return 1

    @expose  # type: ignore[prop-decorator]
    @property
    def property_marked(self) -> int:
        return 2

    @property
    def hidden_property(self) -> int:
        return 3

    @expose
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        return index

    @staticmethod
    def hidden_static() -> None:
        """Not exposed."""


@pytest.mark.feature("F222", "F269")
def test_only_what_is_marked_is_remote() -> None:
    assert remote(Mixed) == ({"method", "static", "by_class", "__len__"}, {"getter_marked", "property_marked"})


@expose
class Whole:
    """Everything public is exposed."""

    value = 1
    function_like = print

    class Inner:
        """A class is no method."""

    def __init__(self) -> None:
        self.instance = 1

    def method(self) -> str:
        return "method"

    def _private(self) -> None:
        """Never remote."""

    def __mangled(self) -> None:
        """Never remote."""

    @staticmethod
    def static(a: int) -> int:
        return a * 2

    @classmethod
    def by_class(cls) -> str:
        return cls.__name__

    @property
    def both(self) -> int:
        return self.instance

    @both.setter
    def both(self, value: int) -> None:
        self.instance = value

    @property
    def _hidden(self) -> int:
        return 1

    def __len__(self) -> int:
        return 3

    def __repr__(self) -> str:
        return "Whole"

    def __call__(self) -> None:
        """Never remote."""


@pytest.mark.feature("F223", "F269")
def test_a_marked_class_exposes_what_is_public_in_it() -> None:
    assert remote(Whole) == ({"method", "static", "by_class", "__len__"}, {"both"})


@pytest.mark.parametrize(
    ("name", "args", "result"), [("method", (), "method"), ("static", (4,), 8), ("by_class", (), "Whole")]
)
def test_all_kinds_of_methods_are_called_with_the_instance_first(name: str, args: tuple[Any, ...], result: Any) -> None:
    function = compute_members(Whole).methods[name]
    assert function(Whole(), *args) == result


def test_a_class_method_gets_the_class_of_the_instance() -> None:
    class Derived(Whole):
        pass

    assert compute_members(Derived).methods["by_class"](Derived()) == "Derived"


def test_keyword_arguments_named_like_ours_reach_the_method() -> None:
    class Thing:
        @staticmethod
        @expose
        def static(**kwargs: Any) -> Any:
            return kwargs

        @classmethod
        @expose
        def by_class(cls, **kwargs: Any) -> Any:
            return kwargs

    members = compute_members(Thing)
    arguments = {"instance": 1, "self": 2, "function": 3, "_": 4}
    assert members.methods["static"](Thing(), **arguments) == arguments
    assert members.methods["by_class"](Thing(), **arguments) == arguments


@pytest.mark.feature("F269")
def test_one_marked_accessor_exposes_the_property() -> None:
    class Thing:
        def __init__(self) -> None:
            self.kept = 0

        @property
        def by_setter(self) -> int:
            return self.kept

        @by_setter.setter
        @expose
        def by_setter(self, value: int) -> None:
            self.kept = value

        @property
        def by_deleter(self) -> int:
            return self.kept

        @by_deleter.deleter
        @expose
        def by_deleter(self) -> None:
            self.kept = 0

        write_only = property(fset=expose(lambda self, value: None))
        unmarked = property(lambda self: 1)

    assert remote(Thing) == (set(), {"by_setter", "by_deleter", "write_only"})


def test_expose_returns_what_it_is_given() -> None:
    def function(self: Any) -> None:
        """Anything."""

    prop = property(function)
    assert expose(function) is function
    assert expose(prop) is prop
    assert expose(Whole) is Whole


# ------------------------------------------------------------------------------------------------ refusals
@pytest.mark.feature("F223", "F269")
@pytest.mark.parametrize("name", ["_x", "__init__", "__call__", "__repr__", "_Private"])
def test_private_names_cannot_be_exposed(name: str) -> None:
    def function(self: Any) -> None:
        """Anything."""

    function.__name__ = name
    for target in (function, property(function), type(name, (), {})):
        with pytest.raises(AttributeError, match=f"exposing private names .* is not allowed: {name}"):
            expose(target)


@pytest.mark.feature("F269")
@pytest.mark.parametrize("kind", [staticmethod, classmethod])
def test_the_order_of_decorators_is_checked(kind: Callable[[Any], Any]) -> None:
    def method(*args: Any) -> None:
        """Anything."""

    with pytest.raises(
        AttributeError, match=f"@expose must stand below @{kind.__name__}, next to the function: method"
    ):
        expose(kind(method))


@pytest.mark.parametrize("thing", [7, "text", None, [], property()])
def test_what_has_no_name_cannot_be_exposed(thing: Any) -> None:
    with pytest.raises(AttributeError, match="@expose"):
        expose(thing)


def test_other_descriptors_cannot_be_exposed() -> None:
    class Slotted:
        __slots__ = ("x",)

    with pytest.raises(AttributeError, match="only methods, properties and classes"):
        expose(vars(Slotted)["x"])


# ------------------------------------------------------------------------------------------------ inheritance
@pytest.mark.feature("F222", "F269")
def test_what_is_inherited_keeps_its_mark() -> None:
    class Base:
        @expose
        def base(self) -> None:
            """Exposed."""

        def hidden(self) -> None:
            """Not exposed."""

    class Derived(Base):
        def more(self) -> None:
            """Not exposed."""

    assert remote(Derived) == ({"base"}, set())


def test_exposing_a_class_does_not_expose_what_it_inherits() -> None:
    class Base:
        def base(self) -> None:
            """Not exposed."""

    @expose
    class Derived(Base):
        def more(self) -> None:
            """Exposed."""

    assert remote(Derived) == ({"more"}, set())
    assert remote(Base) == (set(), set())


def test_a_subclass_of_an_exposed_class_must_mark_what_it_adds() -> None:
    class Derived(Whole):
        def added(self) -> None:
            """Not exposed."""

    assert "added" not in remote(Derived)[0]
    assert "method" in remote(Derived)[0]


@pytest.mark.feature("F222")
def test_overriding_without_a_mark_takes_a_method_away() -> None:
    class Derived(Whole):
        def method(self) -> str:
            return "mine"

        both = None  # type: ignore[assignment]

    assert remote(Derived) == ({"static", "by_class", "__len__"}, set())

    class Again(Derived):
        @expose
        def method(self) -> str:
            return "exposed again"

    assert "method" in remote(Again)[0]
    assert compute_members(Again).methods["method"](Again()) == "exposed again"


def test_the_nearest_class_wins_with_several_bases() -> None:
    class Left:
        @expose
        def method(self) -> str:
            return "left"

    class Right:
        def method(self) -> str:
            return "right"

        @expose
        def only_right(self) -> None:
            """Exposed."""

    class Both(Left, Right):
        pass

    class Reversed(Right, Left):
        pass

    assert remote(Both) == ({"method", "only_right"}, set())
    assert compute_members(Both).methods["method"](Both()) == "left"
    assert remote(Reversed) == ({"only_right"}, set())


def test_a_method_may_become_a_property_and_the_reverse() -> None:
    class Base:
        @expose
        def a(self) -> None:
            """A method."""

        @expose  # type: ignore[prop-decorator]
        @property
        def b(self) -> int:
            return 1

    @expose
    class Derived(Base):
        @property
        def a(self) -> int:  # type: ignore[override]
            return 1

        def b(self) -> None:  # type: ignore[override]
            """A method."""

    assert remote(Derived) == ({"b"}, {"a"})


def test_abstract_methods_are_exposed_by_who_implements_them() -> None:
    class Base(abc.ABC):
        @abc.abstractmethod
        def method(self) -> None:
            """Not exposed."""

    @expose
    class Derived(Base):
        def method(self) -> None:
            """Exposed."""

    assert remote(Derived) == ({"method"}, set())


def test_a_wrapper_that_copies_the_marks_is_remote_and_another_is_not() -> None:
    def keeping(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any) -> Any:
            return function(*args)

        return wrapper

    def losing(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: function(*args)

    class Thing:
        @keeping
        @expose
        def kept(self) -> None:
            """Exposed."""

        @losing
        @expose
        def lost(self) -> None:
            """Exposed, then hidden by its wrapper."""

    assert remote(Thing) == ({"kept"}, set())


def test_what_is_put_on_the_instance_is_never_remote() -> None:
    thing = Whole()
    thing.extra = print  # type: ignore[attr-defined]
    assert "extra" not in compute_members(type(thing)).table()


def test_attributes_of_any_other_kind_are_not_remote() -> None:
    class Callable_:  # noqa: N801 - beside the one of typing
        _pyroExposed = True

        def __call__(self) -> None:
            """A callable object is no method."""

    @expose
    class Thing:
        number = 1
        instance = Callable_()
        partial = functools.partial(print)
        klass = Callable_

    assert remote(Thing) == (set(), set())


# ------------------------------------------------------------------------------------------------ members
def test_metadata_are_sets_of_names() -> None:
    members = compute_members(Whole)
    members.notes["oneway"] = {"method"}
    assert members.metadata() == {
        "methods": {"method", "static", "by_class", "__len__"},
        "attrs": {"both"},
        "oneway": {"method"},
    }
    members.metadata()["methods"].clear()
    assert set(members) == {"method", "static", "by_class", "__len__"}


def test_pseudo_methods_can_be_called_and_are_not_listed() -> None:
    members = compute_members(Whole)
    members.extra["__getattr__"] = print
    assert members.table()["__getattr__"] is print
    assert "__getattr__" not in members.metadata()["methods"]


def test_marks_of_decorators_are_found() -> None:
    class Thing:
        @expose
        def marked(self) -> None:
            """With a mark."""

        @staticmethod
        @expose
        def static() -> None:
            """Without."""

    Thing.marked._pyroOneway = True  # type: ignore[attr-defined]
    members = compute_members(Thing)
    assert members.marked("marked", "_pyroOneway")
    assert not members.marked("static", "_pyroOneway")
    assert not members.marked("nosuch", "_pyroOneway")


@pytest.mark.feature("F270")
def test_everything_public_when_told_so() -> None:
    members = compute_members(Mixed, everything=True)
    assert set(members.methods) == {"method", "hidden", "static", "by_class", "__len__", "__getitem__", "hidden_static"}
    assert set(members.properties) == {"getter_marked", "property_marked", "hidden_property"}


@pytest.mark.feature("F270")
def test_require_expose_off_in_a_kernel() -> None:
    kernel = Kernel(settings={"REQUIRE_EXPOSE": False}, environ={})
    assert "hidden" in kernel.members_of(Mixed).methods
    kernel.close()
    kernel = Kernel(environ={})
    assert "hidden" not in kernel.members_of(Mixed).methods
    kernel.close()


def test_a_kernel_looks_at_a_class_once() -> None:
    kernel = Kernel(environ={})
    members = kernel.members_of(Whole)
    assert kernel.members_of(Whole) is members
    kernel.forget_members(Whole)
    assert kernel.members_of(Whole) is not members
    kernel.close()


def test_plugins_may_take_members_away_and_wrap_them() -> None:
    from pyroplug.core.hookspecs import hookimpl

    class Taking:
        PLUGIN = PluginInfo("taking", "")

        @hookimpl
        def pyro_describe(self, members: Members) -> None:
            members.methods.pop("static", None)

        @hookimpl
        def pyro_bind_method(self, name: str) -> Callable[[Callable[..., Any]], Any] | None:
            return (lambda function: lambda *args: f"wrapped {function(*args)}") if name == "method" else None

    kernel = Kernel(extra_plugins=[Taking()], environ={})
    members = kernel.members_of(Whole)
    assert "static" not in members.methods
    assert members.methods["method"](Whole()) == "wrapped method"
    assert members.methods["by_class"](Whole()) == "Whole"
    kernel.close()


# ------------------------------------------------------------------------------------------------ the oracle
@pytest.mark.interop
def test_classes_marked_by_pyro5_are_remote_here() -> None:
    @Pyro5.api.expose
    class Theirs:
        def method(self) -> None:
            """Exposed."""

        @property
        def attribute(self) -> int:
            return 1

        def _private(self) -> None:
            """Never remote."""

    assert remote(Theirs) == ({"method"}, {"attribute"})


@pytest.mark.interop
@pytest.mark.parametrize("cls", [Mixed, Whole])
def test_pyro5_finds_the_same_members_in_our_classes(cls: type) -> None:
    metadata = Pyro5.server._get_exposed_members(cls())
    assert remote(cls) == (metadata["methods"], metadata["attrs"])
