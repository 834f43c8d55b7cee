"""The objects of one daemon by id, each with a table of what peers may call.

Look-ups are plain dict reads and take no lock; changes do.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .errors import DaemonError, PluginConflict
from .members import Members, is_private
from .stash import Stash

__all__ = ["Entry", "JoinedEntry", "ObjectEntry", "ProvidedEntry", "Registry", "WeakEntry"]

Function = Callable[..., Any]


class _Table(dict[str, Function]):
    """Names to callables, filled when first asked for; the only way from a peer's text to code."""

    def __init__(self, entry: Entry) -> None:
        super().__init__()
        self._entry = weakref.ref(entry)

    def __missing__(self, name: str) -> Function:
        entry = self._entry()
        if entry is None:
            raise DaemonError("unknown object")
        function = entry.functions.get(name)
        if function is None:
            raise entry.refusal(name)
        self[name] = bound = entry.bind(function)
        return bound


class Entry:
    """One registered thing.  ``dynamic`` entries find their instance anew for each call."""

    dynamic = False

    def __init__(self, object_id: str, members: Members) -> None:
        self.object_id = object_id
        self.stash = Stash()
        """For plugins."""
        self.functions: Mapping[str, Function] = {}
        self.use(members)

    def use(self, members: Members) -> None:
        """Serve these members from now on."""
        self.members = members
        self.functions = members.table()
        self.table = _Table(self)

    @property
    def target(self) -> Any:
        """What was registered, or None when it is gone."""
        raise NotImplementedError

    def bind(self, function: Function) -> Function:
        """What goes into the table for a member."""
        return function

    def instance(self, connection: Any) -> Any:
        """Dynamic entries: the object that serves a call of that connection."""
        raise NotImplementedError

    def touch(self) -> None:
        """A reference to it was handed out."""

    def refusal(self, name: str) -> AttributeError:
        """The error for a name that is not in the table (texts of Pyro5)."""
        if is_private(name):
            return AttributeError(f"attempt to access private attribute '{name}'")
        cls = self.members.cls
        if any(name in vars(base) for base in cls.__mro__):
            return AttributeError(f"attempt to access unexposed attribute '{name}' of class {cls.__name__}")
        import difflib  # for errors only

        close = difflib.get_close_matches(name, self.members.methods, n=1)
        hint = f" (did you mean '{close[0]}'?)" if close else ""
        return AttributeError(f"'{cls.__name__}' object has no attribute '{name}'{hint}")


class ObjectEntry(Entry):
    """One object, kept alive by being registered."""

    def __init__(self, object_id: str, members: Members, target: Any) -> None:
        self._target = target
        super().__init__(object_id, members)

    @property
    def target(self) -> Any:
        return self._target

    def bind(self, function: Function) -> Function:
        return function.__get__(self._target) if hasattr(function, "__get__") else _Bound(function, self._target)


class _Bound:
    """A callable that is no function, with its instance."""

    __slots__ = ("_function", "_target")

    def __init__(self, function: Function, target: Any) -> None:
        self._function = function
        self._target = target

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self._function(self._target, *args, **kwargs)


class WeakEntry(Entry):
    """One object that the program owns; the entry ends with it."""

    dynamic = True

    def __init__(self, object_id: str, members: Members, target: Any, gone: Callable[[str], object]) -> None:
        self._ref = weakref.ref(target, lambda _: gone(object_id))
        super().__init__(object_id, members)

    @property
    def target(self) -> Any:
        return self._ref()

    def instance(self, connection: Any) -> Any:
        target = self._ref()
        if target is None:
            raise DaemonError(f"unknown object: {self.object_id}")
        return target


class ProvidedEntry(Entry):
    """A class, whose instances come from a provider."""

    dynamic = True

    def __init__(self, object_id: str, members: Members, target: type, provider: Callable[[Any], Any]) -> None:
        self._target = target
        self._provider = provider
        super().__init__(object_id, members)

    @property
    def target(self) -> Any:
        return self._target

    def instance(self, connection: Any) -> Any:
        return self._provider(connection)


class JoinedEntry(Entry):
    """Several objects that share one id, as the objects of the system do."""

    def __init__(self, object_id: str, parts: Iterable[ObjectEntry]) -> None:
        self.parts = tuple(parts)
        members = Members(self.parts[0].members.cls)
        for part in self.parts:
            theirs = part.members
            taken = {*members.methods, *members.properties} & {*theirs.methods, *theirs.properties}
            if taken:
                raise PluginConflict(f"members offered twice for the object {object_id!r}: {', '.join(sorted(taken))}")
            members.methods.update(part.members.methods)
            members.properties.update(part.members.properties)
            members.extra.update(part.members.extra)
            for note, names in part.members.notes.items():
                members.notes[note] = members.notes.get(note, set()) | names
        super().__init__(object_id, members)
        own = {name: part.table[name] for part in self.parts for name in part.functions}
        self.functions = {**own, **{name: self._owners_own(name) for name in members.extra}}

    def _owners_own(self, name: str) -> Function:
        """Of pseudo methods, which are given the name of a member first, that of the part with this member."""
        parts = [part for part in self.parts if name in part.functions]

        def call(member: str, /, *args: Any, **kwargs: Any) -> Any:
            part = next((part for part in parts if member in part.members.properties), parts[0])
            return part.table[name](member, *args, **kwargs)

        return call

    @property
    def target(self) -> Any:
        return self.parts[0].target


class Registry:
    """All entries of a daemon.

    ``objects`` may be read by anybody at any time; it is changed under a lock only.
    """

    def __init__(self) -> None:
        self.objects: dict[str, Entry] = {}
        self._ids: dict[int, str] = {}  # id(target) -> object id: works for objects that take no attributes
        self._keys: dict[str, int] = {}  # the reverse
        # reentrant: a garbage collection inside may run the callback of a weak entry
        self._lock = threading.RLock()

    def add(self, entry: Entry, force: bool = False) -> None:
        """Add an entry.

        :raises DaemonError: the id is taken, or the object is registered already (unless ``force``)
        """
        target = entry.target
        with self._lock:
            if not force:
                if entry.object_id in self.objects:
                    raise DaemonError(f"an object or class is already registered with that id: {entry.object_id}")
                if self.id_of(target) is not None:
                    raise DaemonError(f"object or class already has a Pyro id: {self.id_of(target)}")
            self.remove(entry.object_id)
            self.objects[entry.object_id] = entry
            self._ids[id(target)] = entry.object_id
            self._keys[entry.object_id] = id(target)

    def remove(self, object_id: str, only: Callable[[Entry], bool] | None = None) -> Entry | None:
        """Remove the entry of that id, if there is one (and ``only(entry)`` says so)."""
        with self._lock:
            entry = self.objects.get(object_id)
            if entry is None or (only is not None and not only(entry)):
                return None
            del self.objects[object_id]
            key = self._keys.pop(object_id)
            if self._ids.get(key) == object_id:
                del self._ids[key]
            return entry

    def gone(self, object_id: str) -> None:
        """The object of a weak entry is gone; by now another one may have its id."""
        self.remove(object_id, lambda entry: entry.target is None)

    def id_of(self, target: Any) -> str | None:
        """The id under which exactly this object is registered, or None."""
        object_id = self._ids.get(id(target))
        entry = self.objects.get(object_id) if object_id is not None else None
        # the address of a dead object may be used again: compare with what is really there
        return object_id if entry is not None and entry.target is target else None

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self.objects.clear()
            self._ids.clear()
            self._keys.clear()
