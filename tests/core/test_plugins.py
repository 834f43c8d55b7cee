"""Plugins: which are chosen, how they are found, ordered and loaded, and what is said when one cannot be."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest

from pyroplug.core.errors import ConfigError, PluginConflict, PluginError, SerializeError
from pyroplug.core.hookspecs import Hooks, hookimpl
from pyroplug.core.kernel import Kernel, WireRegister
from pyroplug.core.plugins import OWN_DISTRIBUTION, Catalog, Choice, Found, PluginInfo, PluginSet
from pyroplug.core.settings import Schema, Setting

Make = Callable[..., Found]


class Plugin:
    """A plugin without hooks."""

    def __init__(self, name: str, **more: Any) -> None:
        self.PLUGIN = PluginInfo(name, f"the plugin {name}", **more)


@pytest.fixture
def make() -> Iterator[Make]:
    """Make an installed plugin: a module that can be imported, and its entry point."""
    made: list[str] = []

    def found(
        name: str, distribution: str = OWN_DISTRIBUTION, version: str = "1.0", info: Any = None, **more: Any
    ) -> Found:
        module = ModuleType(f"made_up_plugin_{distribution}_{name}".replace("-", "_"))
        module.__dict__["PLUGIN"] = info or PluginInfo(name, f"the plugin {name}", **more)
        sys.modules[module.__name__] = module
        made.append(module.__name__)
        return Found(name, module.__name__, distribution, version)

    yield found
    for module_name in made:
        sys.modules.pop(module_name, None)


def loaded(found: Iterable[Found], choice: Choice | None = None, also: Iterable[str] = ()) -> PluginSet:
    """A plugin set with what was chosen loaded."""
    chosen = PluginSet(Catalog(found), choice or Choice())
    chosen.load(also)
    return chosen


# ------------------------------------------------------------------------------------------------ the choice
@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, Choice()),
        ({"PYRO_PLUGINS": ""}, Choice()),
        ({"PYRO_PLUGINS": " , "}, Choice()),
        ({"PYRO_PLUGINS": "tcp, json"}, Choice(exact=("tcp", "json"))),
        ({"PYRO_PLUGINS": "+dill,-retry"}, Choice(plus=("dill",), minus=("retry",))),
        ({"PYRO_PLUGINS": "+a", "PYRO_DISABLE_PLUGINS": "b, c,"}, Choice(plus=("a",), minus=("b", "c"))),
        ({"PYRO_DISABLE_PLUGINS": "b"}, Choice(minus=("b",))),
        ({"PYRO_PLUGIN_AUTOLOAD": "0"}, Choice(autoload=False)),
        ({"PYRO_PLUGIN_AUTOLOAD": "Off"}, Choice(autoload=False)),
        ({"PYRO_PLUGIN_AUTOLOAD": "1"}, Choice(autoload=True)),
    ],
)
def test_the_environment_chooses(environ: dict[str, str], expected: Choice) -> None:
    assert Choice.from_environment(environ) == expected


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        ({"PYRO_PLUGINS": "a,+b"}, "PYRO_PLUGINS cannot be 'a,+b': give an exact list, or a list where each name has"),
        ({"PYRO_PLUGIN_AUTOLOAD": "maybe"}, "PYRO_PLUGIN_AUTOLOAD cannot be 'maybe': allowed is 1 or 0"),
    ],
)
def test_a_choice_that_makes_no_sense_is_refused(environ: dict[str, str], why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Choice.from_environment(environ)
    assert why in str(caught.value)


def test_the_plugins_of_this_distribution_are_loaded_by_default(make: Make) -> None:
    chosen = loaded([make("ours"), make("theirs", "another")])
    assert set(chosen.loaded) == {"ours"}
    assert chosen.reasons == {"theirs": "of another distribution: name it in PYRO_PLUGINS to load it"}


def test_a_named_plugin_of_another_distribution_is_loaded(make: Make) -> None:
    assert set(loaded([make("ours"), make("theirs", "another")], Choice(plus=("theirs",))).loaded) == {"ours", "theirs"}
    assert set(loaded([make("ours"), make("theirs", "another")], also=["theirs"]).loaded) == {"ours", "theirs"}


def test_an_exact_list_is_exact(make: Make) -> None:
    chosen = loaded([make("one"), make("two"), make("theirs", "another")], Choice(exact=("theirs", "two")))
    assert set(chosen.loaded) == {"two", "theirs"}
    assert chosen.reasons == {"one": "not in the list of PYRO_PLUGINS"}


def test_without_autoload_only_named_ones_are_loaded(make: Make) -> None:
    chosen = loaded([make("one"), make("two")], Choice(plus=("two",), autoload=False))
    assert set(chosen.loaded) == {"two"}
    assert chosen.reasons == {"one": "not named (PYRO_PLUGIN_AUTOLOAD=0)"}


@pytest.mark.parametrize("choice", [Choice(minus=("two",)), Choice(exact=("one", "two"), minus=("two",))])
def test_a_disabled_plugin_is_off_whatever_else_says_so(make: Make, choice: Choice) -> None:
    chosen = loaded([make("one"), make("two")], choice, also=["two"])
    assert set(chosen.loaded) == {"one"}
    assert chosen.reasons["two"] == "disabled by PYRO_DISABLE_PLUGINS or PYRO_PLUGINS"
    with pytest.raises(PluginError, match="plugin 'two' is disabled"):
        chosen.add("two")


def test_disabling_what_does_not_exist_is_a_warning(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "pyroplug.plugins"):
        loaded([make("one")], Choice(minus=("nosuch",)))
    assert "'nosuch' that is to be disabled does not exist" in caplog.text


@pytest.mark.parametrize("choice", [Choice(exact=("onne",)), Choice(plus=("onne",))])
def test_naming_what_does_not_exist_is_an_error_with_the_nearest(make: Make, choice: Choice) -> None:
    with pytest.raises(PluginError, match=r"^there is no plugin 'onne' \(did you mean 'one'\?\)$") as caught:
        loaded([make("one")], choice)
    assert caught.value.plugin == "onne"


# ------------------------------------------------------------------------------------------------ the catalog
def test_two_distributions_with_one_name_are_a_conflict(make: Make) -> None:
    with pytest.raises(PluginConflict, match="two plugins are called 'same': one of first and one of second"):
        Catalog([make("same", "first"), make("same", "second")])


def test_a_distribution_that_is_found_twice_counts_once(make: Make) -> None:
    found = make("one")
    assert [item.name for item in Catalog([found, found])] == ["one"]


def test_the_catalog_lists_what_is_installed() -> None:
    catalog = Catalog.installed()
    assert {"serpent", "json", "msgpack", "marshal", "tcp", "unix", "thread", "multiplex"} <= {i.name for i in catalog}
    assert "tcp" in catalog
    assert catalog["tcp"].distribution == OWN_DISTRIBUTION
    assert catalog["tcp"].version
    assert [item.name for item in catalog] == sorted(item.name for item in catalog)


def test_listing_imports_nothing(make: Make) -> None:
    found = make("one")
    assert found.place
    del sys.modules[found.place]
    catalog = Catalog([found])
    assert [item.name for item in catalog] == ["one"]
    with pytest.raises(PluginError):
        catalog["one"].load()


def test_an_object_replaces_the_installed_one_of_its_name(make: Make) -> None:
    mine = Plugin("one")
    catalog = Catalog([make("one"), make("two")]).with_objects([mine])
    assert catalog["one"].module is mine
    assert not catalog["one"].place
    assert catalog["two"].place


def test_two_objects_of_one_name_are_a_conflict() -> None:
    with pytest.raises(PluginConflict, match="two plugins that the program gives are called 'one'"):
        Catalog([]).with_objects([Plugin("one"), Plugin("one")])
    same = Plugin("one")
    assert [item.name for item in Catalog([]).with_objects([same, same])] == ["one"]


@pytest.mark.parametrize("thing", [object(), 7, Plugin, ModuleType("empty")])
def test_an_object_without_info_is_no_plugin(thing: object) -> None:
    with pytest.raises(PluginError, match=r"is no plugin: it has no PLUGIN = PluginInfo\(\.\.\.\)"):
        Catalog([]).with_objects([thing])


# ------------------------------------------------------------------------------------------------ loading
def test_a_broken_import_is_reported_with_distribution_and_version() -> None:
    found = Found("broken", "no_such_module_of_mine", "some-dist", "3.1")
    with pytest.raises(PluginError) as caught:
        loaded([found], Choice(plus=("broken",)))
    assert "plugin 'broken' of some-dist 3.1 cannot be loaded: ModuleNotFoundError" in str(caught.value)
    assert caught.value.plugin == "broken"
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_broken_plugin_that_nobody_wants_does_no_harm(make: Make) -> None:
    broken = Found("broken", "no_such_module_of_mine", "some-dist", "3.1")
    assert set(loaded([broken, make("one")]).loaded) == {"one"}


@pytest.mark.parametrize("failure", [RuntimeError("x"), SyntaxError("x"), AttributeError("x")])
def test_whatever_an_import_raises_is_reported(make: Make, monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    def fail(name: str) -> Any:
        raise failure

    found = make("one")
    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(PluginError, match="cannot be loaded") as caught:
        loaded([found])
    assert caught.value.__cause__ is failure


def test_a_module_without_info_is_no_plugin(make: Make) -> None:
    with pytest.raises(PluginError, match=r"plugin 'one' of pyroplug has no PLUGIN = PluginInfo"):
        loaded([make("one", info="something else")])


def test_the_name_of_the_entry_point_must_be_the_plugin_s_own(make: Make) -> None:
    with pytest.raises(PluginError, match="calls itself 'two': the entry point and PluginInfo must agree"):
        loaded([make("one", info=PluginInfo("two", ""))])


# ------------------------------------------------------------------------------------------------ opt-in, unsafe
@pytest.mark.feature("F228")
@pytest.mark.parametrize("more", [{"opt_in": True}, {"unsafe": True}])
def test_opt_in_plugins_are_loaded_when_named_only(make: Make, more: dict[str, Any]) -> None:
    chosen = loaded([make("one", **more), make("two")])
    assert set(chosen.loaded) == {"two"}
    assert chosen.reasons == {"one": "opt-in: name it in PYRO_PLUGINS to load it"}
    for choice in (Choice(plus=("one",)), Choice(exact=("one",))):
        assert "one" in loaded([make("one", **more)], choice).loaded
    assert "one" in loaded([make("one", **more)], also=["one"]).loaded
    chosen.add("one")
    assert set(chosen.loaded) == {"one", "two"}
    assert chosen.reasons == {}


@pytest.mark.feature("F221")
def test_loading_an_unsafe_plugin_is_logged_loudly(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "pyroplug.plugins"):
        loaded([make("one"), make("risky", unsafe=True)])
        assert caplog.records == []
        loaded([make("risky", unsafe=True)], Choice(plus=("risky",)))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "plugin 'risky' is loaded: it can RUN CODE that comes from the network" in record.getMessage()


# ------------------------------------------------------------------------------------------------ requirements
def test_what_is_required_comes_first(make: Make) -> None:
    chosen = loaded([make("a", requires=("c",)), make("b"), make("c", requires=("d",)), make("d")])
    assert list(chosen.loaded) == ["d", "c", "a", "b"]


def test_a_plugin_whose_requirement_is_off_is_off_too(make: Make) -> None:
    chosen = loaded([make("a", requires=("b",)), make("b", requires=("c",)), make("c")], Choice(minus=("c",)))
    assert set(chosen.loaded) == set()
    assert chosen.reasons["b"] == "it requires 'c', which is off: disabled by PYRO_DISABLE_PLUGINS or PYRO_PLUGINS"
    assert chosen.reasons["a"].startswith("it requires 'b', which is off: it requires 'c'")


def test_a_named_plugin_whose_requirement_is_off_is_an_error(make: Make) -> None:
    with pytest.raises(PluginError, match="plugin 'a' requires 'b', which is off: not in the list of PYRO_PLUGINS"):
        loaded([make("a", requires=("b",)), make("b")], Choice(exact=("a",)))
    with pytest.raises(PluginError, match="plugin 'a' requires 'nosuch', which is off: it is not installed"):
        loaded([make("a", requires=("nosuch",))], Choice(plus=("a",)))


def test_a_circle_of_requirements_is_shown(make: Make) -> None:
    circle = [make("a", requires=("b",)), make("b", requires=("c",)), make("c", requires=("a",))]
    with pytest.raises(PluginError, match="plugins require each other in a circle: a -> b -> c -> a"):
        loaded(circle)


def test_a_plugin_that_requires_itself_is_a_circle(make: Make) -> None:
    with pytest.raises(PluginError, match="in a circle: a -> a"):
        loaded([make("a", requires=("a",))])


def test_plugins_that_exclude_each_other_are_a_conflict(make: Make) -> None:
    found = [make("a"), make("b", conflicts=("a",))]
    with pytest.raises(PluginConflict, match="plugin 'b' cannot be used together with 'a'") as caught:
        loaded(found)
    assert caught.value.plugin == "b"
    assert set(loaded(found, Choice(minus=("a",))).loaded) == {"b"}


def test_a_plugin_added_later_must_fit(make: Make) -> None:
    found = [
        make("a"),
        make("b", "other", conflicts=("a",)),
        make("c", "other", requires=("nosuch",)),
        make("d", conflicts=("e",)),
        make("e", "other"),
        make("f", "other", requires=("a",)),
    ]
    chosen = loaded(found)
    with pytest.raises(PluginConflict, match="plugin 'b' cannot be used together with 'a'"):
        chosen.add("b")
    with pytest.raises(PluginConflict, match="plugin 'e' cannot be used together with 'd'"):
        chosen.add("e")
    with pytest.raises(PluginError, match="plugin 'c' requires 'nosuch', which is not loaded"):
        chosen.add("c")
    assert set(chosen.loaded) == {"a", "d"}
    assert chosen.add("f").name == "f"
    assert set(chosen.loaded) == {"a", "d", "f"}


# ------------------------------------------------------------------------------------------------ hooks
class Misspelt(Plugin):
    @hookimpl
    def pyro_bnid(self, connection: Any) -> None:
        """Not the name of a hook."""


class WrongArgument(Plugin):
    @hookimpl
    def pyro_bind(self, connexion: Any) -> None:
        """Not an argument of that hook."""


@pytest.mark.parametrize(
    ("plugin", "why"),
    [(Misspelt("mine"), "unknown hook 'pyro_bnid'"), (WrongArgument("mine"), "connexion")],
)
def test_a_hook_that_does_not_exist_is_refused(plugin: Plugin, why: str) -> None:
    with pytest.raises(PluginError, match="plugin 'mine' cannot be used") as caught:
        Kernel(extra_plugins=[plugin], environ={})
    assert why in str(caught.value)
    assert caught.value.plugin == "mine"


@pytest.mark.parametrize("kind", [Misspelt, WrongArgument])
def test_a_refused_plugin_leaves_nothing_behind(make: Make, kind: type[Plugin]) -> None:
    chosen = PluginSet(Catalog([make("one")]).with_objects([kind("mine")]), Choice(minus=()))
    chosen.choice = Choice(exact=("one",))
    with pytest.raises(PluginError):
        chosen.load()
    assert not chosen.manager.has_plugin("mine")
    assert "mine" not in chosen.loaded


class Counting(Plugin):
    """Notes which hooks of a kernel's life are called."""

    def __init__(self, name: str, calls: list[str], **more: Any) -> None:
        super().__init__(name, **more)
        self.calls = calls

    @hookimpl
    def pyro_settings(self, schema: Schema) -> None:
        self.calls.append(f"{self.PLUGIN.name} settings")
        schema.add(Setting(f"{self.PLUGIN.name.upper()}_LEVEL", int, 3, "help", owner=self.PLUGIN.name))

    @hookimpl
    def pyro_configure(self, kernel: Kernel) -> None:
        self.calls.append(f"{self.PLUGIN.name} configure")

    @hookimpl
    def pyro_unconfigure(self, kernel: Kernel) -> None:
        self.calls.append(f"{self.PLUGIN.name} unconfigure")


def test_the_life_of_plugins_follows_their_requirements() -> None:
    calls: list[str] = []
    plugins = [Counting("a", calls, requires=("b",)), Counting("b", calls)]
    kernel = Kernel(extra_plugins=plugins, environ={"PYRO_A_LEVEL": "5"})
    assert calls == ["b settings", "a settings", "b configure", "a configure"]
    assert (kernel.settings.A_LEVEL, kernel.settings.B_LEVEL) == (5, 3)
    calls.clear()
    kernel.close()
    assert calls == ["a unconfigure", "b unconfigure"]


def test_a_plugin_that_fails_at_the_end_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Plugin):
        @hookimpl
        def pyro_unconfigure(self, kernel: Kernel) -> None:
            raise RuntimeError("no")

    calls: list[str] = []
    Kernel(extra_plugins=[Counting("a", calls), Failing("b"), Counting("c", calls)], environ={}).close()
    assert {"a unconfigure", "c unconfigure"} <= set(calls)
    assert "plugin 'b' failed while the kernel was closed" in caplog.text


def test_a_plugin_may_refuse_the_configuration() -> None:
    class Refusing(Plugin):
        @hookimpl
        def pyro_configure(self, kernel: Kernel) -> None:
            raise ConfigError("not like this")

    with pytest.raises(ConfigError, match="not like this"):
        Kernel(extra_plugins=[Refusing("mine")], environ={})


# ------------------------------------------------------------------------------------------------ in a kernel
def test_a_kernel_with_exactly_these_plugins() -> None:
    kernel = Kernel(plugins=["serpent", "tcp", "thread"], environ={"PYRO_PLUGINS": "+dill"})
    assert set(kernel.plugins.loaded) == {"serpent", "tcp", "thread"}
    assert set(kernel.serializers) == {"serpent"}
    assert set(kernel.transports) == {""}
    assert "3 plugins" in repr(kernel)
    kernel.close()


def test_a_kernel_obeys_the_environment() -> None:
    kernel = Kernel(environ={"PYRO_PLUGINS": "-json", "PYRO_DISABLE_PLUGINS": "msgpack"})
    assert set(kernel.serializers) == {"serpent"}
    assert {"json", "msgpack"} <= set(kernel.plugins.reasons)
    kernel.close()
    kernel = Kernel(environ={"PYRO_PLUGIN_AUTOLOAD": "0", "PYRO_PLUGINS": "+json,+tcp"})
    assert set(kernel.plugins.loaded) == {"json", "tcp"}
    kernel.close()
    kernel = Kernel(environ={"PYRO_PLUGINS": "json,tcp,thread"})
    assert set(kernel.plugins.loaded) == {"json", "tcp", "thread"}
    kernel.close()


def test_disabled_plugins_stay_off_even_when_the_program_names_them() -> None:
    kernel = Kernel(extra_plugins=["json"], environ={"PYRO_DISABLE_PLUGINS": "json"})
    assert "json" not in kernel.plugins.loaded
    with pytest.raises(PluginError, match="disabled"):
        kernel.enable("json")
    with pytest.raises(SerializeError, match="the serializer 'json' is not available: plugin 'json' is disabled"):
        kernel.serializer_id("json")
    kernel.close()


@pytest.mark.parametrize(
    ("off", "missing"), [("serpent,json,msgpack", "serializer"), ("tcp,unix,memory,pair", "transport")]
)
def test_a_kernel_needs_a_serializer_and_a_transport(off: str, missing: str) -> None:
    with pytest.raises(ConfigError, match=f"no plugin gives a {missing}; loaded are: "):
        Kernel(environ={"PYRO_DISABLE_PLUGINS": off})


@pytest.mark.feature("F121", "F221")
@pytest.mark.parametrize(
    "arguments",
    [
        {"settings": {"SERIALIZER": "marshal"}},
        {"settings": {"SERIALIZERS_ACCEPTED": {"marshal", "serpent"}}},
        {"environ": {"PYRO_SERIALIZER": "marshal"}},
        {"environ": {"PYRO_SERIALIZERS_ACCEPTED": "serpent, marshal"}},
        {"environ": {"PYRO_PLUGINS": "+marshal"}},
        {"extra_plugins": ["marshal"]},
    ],
)
def test_naming_an_opt_in_serializer_loads_it(arguments: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    assert "marshal" not in Kernel(environ={}).serializers
    assert caplog.records == []
    kernel = Kernel(**{"environ": {}, **arguments})
    assert "marshal" in kernel.serializers
    assert "RUN CODE" in caplog.text
    kernel.close()


@pytest.mark.feature("F297")
def test_naming_an_opt_in_serializer_later_loads_it_too() -> None:
    kernel = Kernel(environ={})
    assert kernel.serializer_id("marshal") == 2
    assert not kernel.is_safe_serializer("marshal")
    assert kernel.is_safe_serializer("serpent")
    assert "marshal" not in kernel.server_plan().names.values()  # loaded is not accepted
    with pytest.raises(SerializeError, match=r"unknown serializer 'serpant' \(did you mean 'serpent'\?\); known are: "):
        kernel.serializer_id("serpant")
    kernel.close()


def test_enabling_twice_is_enabling_once() -> None:
    kernel = Kernel(environ={})
    assert kernel.enable("marshal") is kernel.enable("marshal")
    kernel.close()


@pytest.mark.parametrize(
    ("claim", "why"),
    [
        (lambda wire: wire.flag(0x04, "MINE"), "flag 4 is claimed by plugin 'mine' and by 'oneway'"),
        (lambda wire: wire.flag(0x40, "MINE"), "flag 64 is claimed by plugin 'mine' and by 'kernel'"),
        (lambda wire: wire.flag(0x03, "MINE"), "flag MINE must be a single bit up to 0x8000, not 0x3"),
        (lambda wire: wire.flag(0, "MINE"), "must be a single bit"),
        (lambda wire: wire.flag(0x10000, "MINE"), "must be a single bit"),
        (lambda wire: wire.message(5, None), "message 5 is claimed by plugin 'mine' and by 'kernel'"),
        (lambda wire: wire.message(6, None), "message 6 is claimed by plugin 'mine' and by 'ping'"),
    ],
)
def test_claims_on_the_wire_that_are_taken_name_both_owners(claim: Callable[[WireRegister], None], why: str) -> None:
    class Claiming(Plugin):
        @hookimpl
        def pyro_reserve(self, wire: WireRegister) -> None:
            claim(wire)

    # it requires all others, so that it comes after them and is the one that is refused
    others = tuple(Kernel(environ={}).plugins.loaded)
    with pytest.raises(PluginConflict) as caught:
        Kernel(extra_plugins=[Claiming("mine", requires=others)], environ={})
    assert why in str(caught.value)
    assert caught.value.plugin == "mine"


def test_serializers_of_one_name_or_id_are_a_conflict() -> None:
    class Same:
        name, wire_id, safe = "serpent", 99, True

    class SameId:
        name, wire_id, safe = "other", 1, True

    def giving(serializer: Any) -> Plugin:
        class Giving(Plugin):
            @hookimpl
            def pyro_serializers(self) -> list[Any]:
                return [serializer]

        return Giving("mine")

    with pytest.raises(PluginConflict, match="serializer 'serpent' is there already"):
        Kernel(extra_plugins=[giving(Same())], environ={})
    with pytest.raises(PluginConflict, match="have the same wire id 1"):
        Kernel(extra_plugins=[giving(SameId())], environ={})


def test_two_plugins_with_one_setting_are_a_conflict() -> None:
    class Declaring(Plugin):
        @hookimpl
        def pyro_settings(self, schema: Schema) -> None:
            schema.add(Setting("COMPRESSION", int, 1, "help", owner="mine"))

    with pytest.raises(PluginConflict, match=r"setting COMPRESSION is declared by '(compression|mine)' and by"):
        Kernel(extra_plugins=[Declaring("mine")], environ={})


def test_hook_calls_can_be_traced(capsys: pytest.CaptureFixture[str]) -> None:
    Kernel(extra_plugins=[Counting("mine", [])], environ={"PYRO_TRACE_PLUGINS": "1"}).close()
    assert "pyro_configure" in capsys.readouterr().err
    Kernel(environ={"PYRO_TRACE_PLUGINS": "0"}).close()
    assert capsys.readouterr().err == ""


# ------------------------------------------------------------------------------------------------ calling hooks
class Taking:
    """Implementations that leave out parameters, or take them in another order."""

    PLUGIN = PluginInfo("taking", "takes what it needs")

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    @hookimpl
    def pyro_validate_handshake(self, hello: Any) -> Any:
        self.seen.append((hello,))
        return {"one": 1}

    @hookimpl
    def pyro_hello(self, annotations: Any, proxy: Any) -> None:
        self.seen.append((annotations, proxy))

    @hookimpl
    def pyro_bind(self) -> None:
        self.seen.append(())


def hooks_of(*plugins: Any) -> Hooks:
    chosen = PluginSet(Catalog([]).with_objects(plugins), Choice(exact=()))
    chosen.load()
    return Hooks(chosen.manager)


def test_each_implementation_gets_the_parameters_that_it_names() -> None:
    plugin = Taking()
    hooks = hooks_of(plugin)
    anything: Any = object()
    connection = SimpleNamespace(extensions=frozenset(), settings=SimpleNamespace(version=1))
    for _ in range(2):
        plugin.seen.clear()
        assert hooks.validate_handshake(anything, {"object": "x"}) == [{"one": 1}]
        hooks.hello(anything, anything, {}, {"ABCD": b""})
        assert hooks.bind(connection) == []
        assert plugin.seen == [({"object": "x"},), ({"ABCD": b""}, anything), ()]


def test_hook_wrappers_are_around_the_plugins() -> None:
    class Wrapper:
        PLUGIN = PluginInfo("wrapper", "changes what others say")

        @hookimpl(wrapper=True)
        def pyro_validate_handshake(self, connection: Any, hello: Any) -> Any:
            results = yield
            return [*results, {"two": connection}]

    anything: Any = 7
    assert hooks_of(Taking(), Wrapper()).validate_handshake(anything, {}) == [{"one": 1}, {"two": 7}]


def test_plugins_that_come_later_are_called_too() -> None:
    kernel = Kernel(plugins=["json", "memory"])
    said: list[str] = []
    anything: Any = object()
    assert kernel.hooks.validate_handshake(anything, {}) == []
    kernel.hooks.closed(anything, None)

    class Late:
        PLUGIN = PluginInfo("late", "comes later")

        @hookimpl
        def pyro_validate_handshake(self, hello: Any) -> None:
            said.append("validate")

        @hookimpl
        def pyro_closed(self, connection: Any) -> None:
            said.append("closed")

    kernel.plugins.catalog = kernel.plugins.catalog.with_objects([Late()])
    kernel.enable("late")
    kernel.hooks.validate_handshake(anything, {})
    kernel.hooks.closed(anything, None)
    assert said == ["validate", "closed"]


def test_traced_hooks_are_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    kernel = Kernel(plugins=["json", "memory", Taking()], environ={"PYRO_TRACE_PLUGINS": "1"})
    kernel.hooks.validate_handshake(cast("Any", object()), {"object": "x"})
    assert "pyro_validate_handshake" in capsys.readouterr().err
