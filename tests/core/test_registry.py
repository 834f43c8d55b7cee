"""The objects of a daemon by id: adding, forcing, weak ones, ids used again, and the table of what may be called."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from pyroplug.core.daemon import DAEMON_NAME, Daemon
from pyroplug.core.errors import DaemonError, PluginConflict, PyroError
from pyroplug.core.kernel import Kernel
from pyroplug.core.members import compute_members, expose
from pyroplug.core.registry import JoinedEntry, ObjectEntry, ProvidedEntry, Registry, WeakEntry


@expose
class Thing:
    def __init__(self, name: str = "thing") -> None:
        self._name = name

    def name(self) -> str:
        return self._name

    @staticmethod
    def static(a: int) -> int:
        return a

    def _private(self) -> None:
        """Never remote."""


class Slotted:
    __slots__ = ()

    @expose
    def method(self) -> str:
        return "slotted"


def unexposed(self: Thing) -> None:
    """Public without a mark."""


Thing.unexposed = unexposed  # type: ignore[attr-defined]


def entry(object_id: str, target: Any) -> ObjectEntry:
    """An entry for an object."""
    return ObjectEntry(object_id, compute_members(type(target)), target)


# ------------------------------------------------------------------------------------------------ the registry
def test_what_is_added_is_found_by_id_and_by_object() -> None:
    registry, thing = Registry(), Thing()
    registry.add(entry("one", thing))
    assert registry.objects["one"].target is thing
    assert registry.id_of(thing) == "one"
    assert registry.id_of(Thing()) is None


@pytest.mark.feature("F025")
def test_an_id_is_given_once() -> None:
    registry, thing = Registry(), Thing()
    registry.add(entry("one", thing))
    with pytest.raises(DaemonError, match=r"^an object or class is already registered with that id: one$"):
        registry.add(entry("one", Thing()))
    assert registry.objects["one"].target is thing


@pytest.mark.feature("F025")
def test_an_object_has_one_id() -> None:
    registry, thing = Registry(), Thing()
    registry.add(entry("one", thing))
    with pytest.raises(DaemonError, match=r"^object or class already has a Pyro id: one$"):
        registry.add(entry("two", thing))
    assert set(registry.objects) == {"one"}


@pytest.mark.feature("F290")
def test_force_replaces_what_has_the_id() -> None:
    registry, old, new = Registry(), Thing("old"), Thing("new")
    registry.add(entry("one", old))
    registry.add(entry("one", new), force=True)
    assert registry.objects["one"].target is new
    assert registry.id_of(new) == "one"
    assert registry.id_of(old) is None


@pytest.mark.feature("F290")
def test_force_gives_an_object_a_second_id() -> None:
    registry, thing = Registry(), Thing()
    registry.add(entry("one", thing))
    registry.add(entry("two", thing), force=True)
    assert set(registry.objects) == {"one", "two"}
    assert registry.id_of(thing) == "two"
    registry.remove("two")
    assert registry.objects["one"].target is thing


def test_removing_forgets_the_object() -> None:
    registry, thing = Registry(), Thing()
    added = entry("one", thing)
    registry.add(added)
    assert registry.remove("one") is added
    assert registry.remove("one") is None
    assert registry.id_of(thing) is None
    registry.add(entry("two", thing))
    assert registry.id_of(thing) == "two"


def test_clear_forgets_everything() -> None:
    registry, thing = Registry(), Thing()
    registry.add(entry("one", thing))
    registry.clear()
    assert registry.objects == {}
    assert registry.id_of(thing) is None


def test_an_address_that_is_used_again_is_not_mistaken() -> None:
    registry, thing = Registry(), Thing()
    registry.add(entry("one", thing))
    other = Thing()
    registry._ids[id(other)] = "one"  # as if it had got the address of a dead object
    assert registry.id_of(other) is None
    registry._ids[id(other)] = "gone"
    assert registry.id_of(other) is None


def test_many_threads_add_and_remove() -> None:
    registry = Registry()
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(50):
                thing, object_id = Thing(), f"{number}-{turn}"
                registry.add(entry(object_id, thing))
                assert registry.id_of(thing) == object_id
                assert registry.remove(object_id) is not None
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert registry.objects == {}
    assert registry._ids == {}


def test_one_of_many_threads_gets_an_id() -> None:
    registry, start = Registry(), threading.Barrier(8)
    won: list[bool] = []

    def work() -> None:
        start.wait()
        try:
            registry.add(entry("one", Thing()))
            won.append(True)
        except DaemonError:
            won.append(False)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 7 + [True]


# ------------------------------------------------------------------------------------------------ entries
@pytest.mark.feature("F222", "F223")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("_private", "attempt to access private attribute '_private'"),
        ("__class__", "attempt to access private attribute '__class__'"),
        ("__init__", "attempt to access private attribute '__init__'"),
        ("unexposed", "attempt to access unexposed attribute 'unexposed' of class Thing"),
        ("nosuch", "'Thing' object has no attribute 'nosuch'"),
        ("nane", "'Thing' object has no attribute 'nane' (did you mean 'name'?)"),
        ("name.__self__", "'Thing' object has no attribute 'name.__self__'"),
        ("", "'Thing' object has no attribute ''"),
    ],
)
def test_a_name_that_is_not_in_the_table_is_refused(name: str, text: str) -> None:
    made = entry("one", Thing())
    with pytest.raises(AttributeError) as caught:
        _ = made.table[name]
    assert str(caught.value) == text


def test_attributes_of_the_instance_are_never_looked_at() -> None:
    class Spying(Thing):
        looked = False

        def __getattribute__(self, name: str) -> Any:
            if name == "secret":
                type(self).looked = True
            return super().__getattribute__(name)

    thing = Spying()
    thing.secret = lambda: 1  # type: ignore[attr-defined]
    made = entry("one", thing)
    with pytest.raises(AttributeError, match="no attribute 'secret'"):
        _ = made.table["secret"]
    assert not Spying.looked


def test_the_table_binds_once() -> None:
    made = entry("one", Thing("x"))
    assert made.table["name"]() == "x"
    assert made.table["name"] is made.table["name"]
    assert made.table["static"](5) == 5


def test_a_weak_entry_goes_with_its_object() -> None:
    thing = Thing()
    gone: list[str] = []
    weak = WeakEntry("one", compute_members(Thing), thing, gone.append)
    assert weak.target is thing
    assert weak.instance(None) is thing
    del thing
    gc.collect()
    assert gone == ["one"]
    assert weak.target is None
    with pytest.raises(DaemonError, match="unknown object"):
        weak.instance(None)


def test_a_provided_entry_asks_for_the_instance() -> None:
    asked: list[Any] = []

    def provide(connection: Any) -> Thing:
        asked.append(connection)
        return Thing("provided")

    provided = ProvidedEntry("one", compute_members(Thing), Thing, provide)
    assert provided.dynamic
    assert provided.target is Thing
    assert provided.table["name"](provided.instance("connection")) == "provided"
    assert asked == ["connection"]


def test_objects_that_share_an_id_are_joined() -> None:
    class Other:
        @expose
        def other(self) -> str:
            return "other"

    joined = JoinedEntry("one", [entry("one", Thing("first")), entry("one", Other())])
    assert joined.table["name"]() == "first"
    assert joined.table["other"]() == "other"
    assert joined.members.metadata()["methods"] == {"name", "static", "other"}
    with pytest.raises(AttributeError, match="private"):
        _ = joined.table["_private"]
    with pytest.raises(PluginConflict, match="members offered twice for the object 'one': name, static"):
        JoinedEntry("one", [entry("one", Thing()), entry("one", Thing())])


def test_an_entry_does_not_keep_its_table_alive_in_a_circle() -> None:
    gc.disable()
    try:
        thing = Thing()
        reference = weakref.ref(thing)
        made = entry("one", thing)
        assert made.table["name"]() == "thing"
        del made, thing
        assert reference() is None
    finally:
        gc.enable()


# ------------------------------------------------------------------------------------------------ in a daemon
@pytest.fixture
def daemon() -> Iterator[Daemon]:
    kernel = Kernel(environ={})
    made = Daemon(memory=True, kernel=kernel)
    yield made
    made.close()
    kernel.close()


@pytest.mark.feature("F009", "F020", "F025", "F027")
def test_registering_marks_the_object(daemon: Daemon) -> None:
    thing = Thing()
    uri = daemon.register(thing)
    assert uri.object.startswith("obj_")
    assert len(uri.object) == 36
    assert thing._pyroId == uri.object  # type: ignore[attr-defined]
    assert thing._pyroDaemon.locationStr == daemon.locationStr  # type: ignore[attr-defined]
    assert daemon.objectsById[uri.object] is thing
    assert daemon.uriFor(thing) == uri == daemon.uriFor(uri.object)
    assert daemon.register(Thing()).object != uri.object


@pytest.mark.feature("F026", "F027")
def test_unregistering_takes_the_marks_off(daemon: Daemon) -> None:
    thing = Thing()
    daemon.register(thing, "one")
    daemon.unregister(thing)
    assert not hasattr(thing, "_pyroId")
    assert not hasattr(thing, "_pyroDaemon")
    assert "one" not in daemon.objectsById
    with pytest.raises(DaemonError, match="object isn't registered in this daemon"):
        daemon.unregister(thing)
    with pytest.raises(DaemonError, match="object isn't registered in this daemon"):
        daemon.uriFor(thing)
    assert daemon.register(thing, "two").object == "two"


@pytest.mark.feature("F026")
def test_unregistering_by_id(daemon: Daemon) -> None:
    thing = Thing()
    daemon.register(thing, "one")
    daemon.unregister("one")
    daemon.unregister("nosuch")
    assert "one" not in daemon.objectsById
    daemon.register(thing, "one")
    assert daemon.objectsById["one"] is thing


@pytest.mark.feature("F026")
def test_the_daemon_s_own_object_stays(daemon: Daemon) -> None:
    daemon.unregister(DAEMON_NAME)
    assert DAEMON_NAME in daemon.objectsById
    with pytest.raises(ValueError, match="object or objectid argument expected"):
        daemon.unregister(None)


@pytest.mark.parametrize("object_id", ["", "two words", "a\tb", "a\n"])
def test_an_id_has_no_blanks(daemon: Daemon, object_id: str) -> None:
    with pytest.raises(DaemonError, match="object ids cannot be empty or have blanks"):
        daemon.register(Thing(), object_id)


@pytest.mark.parametrize("object_id", [1, b"one", ["one"]])
def test_an_id_is_a_text(daemon: Daemon, object_id: Any) -> None:
    with pytest.raises(TypeError, match="objectId must be a text or None"):
        daemon.register(Thing(), object_id)


@pytest.mark.feature("F021")
def test_objects_that_take_no_attributes_can_be_registered(daemon: Daemon) -> None:
    thing = Slotted()
    uri = daemon.register(thing, "slotted")
    assert daemon.uriFor(thing) == uri
    with pytest.raises(DaemonError, match="already has a Pyro id: slotted"):
        daemon.register(thing, "again")
    daemon.unregister(thing)
    assert "slotted" not in daemon.objectsById


@pytest.mark.feature("F271")
def test_exposing_nothing_is_warned_about(daemon: Daemon) -> None:
    with pytest.warns(UserWarning, match=r"class \w*\.?object doesn't expose anything|doesn't expose anything"):
        daemon.register(object(), "nothing")


@pytest.mark.feature("F291")
def test_a_weak_object_is_unregistered_when_it_goes(daemon: Daemon) -> None:
    thing = Thing()
    daemon.register(thing, "weak", weak=True)
    assert daemon.objectsById["weak"] is thing
    assert daemon.uriFor(thing).object == "weak"
    del thing
    gc.collect()
    assert "weak" not in daemon.objectsById
    daemon.register(Thing(), "weak")  # the id is free again


@pytest.mark.feature("F291")
def test_the_end_of_a_weak_object_leaves_its_successor_alone(daemon: Daemon) -> None:
    old, new = Thing("old"), Thing("new")
    daemon.register(old, "one", weak=True)
    daemon.register(new, "one", force=True)
    del old
    gc.collect()
    assert daemon.objectsById["one"] is new


@pytest.mark.feature("F291")
def test_what_cannot_be_weak_is_refused(daemon: Daemon) -> None:
    with pytest.raises(TypeError, match="a class cannot be registered weakly"):
        daemon.register(Thing, "class", weak=True)
    with pytest.raises(TypeError):
        daemon.register(Slotted(), "slotted", weak=True)
    assert set(daemon.objectsById) == {DAEMON_NAME}


@pytest.mark.feature("F267")
def test_a_class_can_be_registered_once(daemon: Daemon) -> None:
    uri = daemon.register(Thing, "class")
    assert daemon.objectsById["class"] is Thing
    assert daemon.uriFor(Thing) == uri
    with pytest.raises(DaemonError, match="already has a Pyro id"):
        daemon.register(Thing, "again")
    daemon.unregister(Thing)
    assert not hasattr(Thing, "_pyroId")


@pytest.mark.feature("F267")
def test_instances_of_a_registered_class_can_be_registered_too(daemon: Daemon) -> None:
    daemon.register(Thing, "class")
    thing = Thing()
    assert daemon.register(thing, "one").object == "one"
    daemon.unregister(thing)
    assert daemon.uriFor(Thing).object == "class"
    daemon.unregister(Thing)


def test_a_closed_daemon_takes_nothing(daemon: Daemon) -> None:
    thing = Thing()
    daemon.register(thing, "one")
    daemon.close()
    assert not hasattr(thing, "_pyroId")
    with pytest.raises(PyroError, match="this daemon was closed; make a new one"):
        daemon.register(Thing(), "two")


@pytest.mark.feature("F028")
def test_an_object_may_be_in_several_daemons(daemon: Daemon) -> None:
    thing = Thing()
    daemon.register(thing, "here")
    with Daemon(memory=True, kernel=daemon.kernel) as other:
        other.register(thing, "there")
        assert (daemon.uriFor(thing).object, other.uriFor(thing).object) == ("here", "there")
    assert daemon.uriFor(thing).object == "here"


@pytest.mark.feature("F292")
def test_the_members_of_a_changed_class_are_found_after_a_reset(daemon: Daemon) -> None:
    class Changing:
        @expose
        def first(self) -> int:
            return 1

    thing = Changing()
    daemon.register(thing, "one")
    assert daemon._registry.objects["one"].table["first"]() == 1

    def second(self: Changing) -> int:
        return 2

    Changing.second = expose(second)  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        _ = daemon._registry.objects["one"].table["second"]
    daemon.resetMetadataCache(thing)
    assert daemon._registry.objects["one"].table["second"]() == 2
    assert daemon.proxyFor(thing)._pyroMethods == {"first", "second"}
