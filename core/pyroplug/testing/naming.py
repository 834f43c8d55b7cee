"""What every storage of a name server must do: test classes that third parties run on theirs.

A complete test module for a storage ``mypackage.redisstore``::

    from mypackage.redisstore import RedisStorage
    from pyroplug.testing.naming import SharedStorageConformance


    class TestRedis(SharedStorageConformance):
        def open(self, folder):
            return RedisStorage("localhost", prefix=folder.name)

``open`` is called several times with one folder, and must open the same store each time.  A storage that several name
servers may use at a time inherits ``SharedStorageConformance``, one that only lasts ``LastingStorageConformance``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from .kernels import PATIENCE

__all__ = ["LastingStorageConformance", "LeaseRow", "Row", "SharedStorageConformance", "StorageConformance"]

_MOMENT = 0.05  # seconds: how long "nothing happens" is watched
URI_TEXT = "PYRO:object@localhost:4444"
TEXTS = ("plain", "with blank", "%_?*\\", "'; DROP TABLE pyro_names; --", "grün ☃ \U0001f40d", "A", "a", "x" * 1000)


class LeaseRow(NamedTuple):
    """A lease, in the shape that name servers hand to storages."""

    owner: str
    seconds: float
    expires: float


class Row(NamedTuple):
    """A registration, in the shape that name servers hand to storages."""

    uri: str
    tags: frozenset[str] = frozenset()
    lease: LeaseRow | None = None


class StorageConformance:
    """Inherit, and say how the storage is opened."""

    shared = False

    def open(self, folder: Path) -> Any:
        """The storage in that folder."""
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def _prepare(self, tmp_path: Path) -> Iterator[None]:
        self._folder = tmp_path
        with ExitStack() as stack:
            self._stack = stack
            yield

    def make(self) -> Any:
        """An opened storage that was read, closed after the test."""
        storage = self.open(self._folder)
        self._stack.callback(storage.close)
        storage.load()
        return storage

    def put(self, storage: Any, **changes: Any) -> None:
        """Write in one go."""
        with storage.exclusive():
            storage.write(changes)

    def test_it_says_what_it_is(self) -> None:
        storage = self.make()
        assert isinstance(storage.kind, str)
        assert storage.shared is self.shared

    def test_a_new_one_is_empty(self) -> None:
        storage = self.make()
        assert storage.load() == {}
        assert storage.poll() == {}

    def test_ones_own_changes_are_no_news(self) -> None:
        storage = self.make()
        self.put(storage, a=Row(URI_TEXT))
        self.put(storage, a=None, never=None)
        assert storage.poll() == {}

    def test_it_goes_on_after_a_failure(self) -> None:
        storage = self.make()
        with pytest.raises(ZeroDivisionError), storage.exclusive():
            raise ZeroDivisionError
        self.put(storage, b=Row(URI_TEXT))
        assert storage.poll() == {}

    def test_any_thread_may_use_it(self) -> None:
        storage = self.make()
        failures: list[BaseException] = []

        def use(number: int) -> None:
            try:
                self.put(storage, **{f"name{number}": Row(URI_TEXT)})
                storage.poll()
                storage.load()
            except BaseException as exc:
                failures.append(exc)

        for number in range(3):  # one after the other: a name server never does two things at a time
            thread = threading.Thread(target=use, args=(number,))
            thread.start()
            thread.join(PATIENCE)
        assert failures == []

    def test_closing_twice_is_harmless(self) -> None:
        storage = self.make()
        storage.close()
        storage.close()


class LastingStorageConformance(StorageConformance):
    """For storages that keep what was written."""

    tags = True
    """Tags are stored."""
    leases = True
    """Names with a lease are stored."""

    def found(self, storage: Any) -> dict[str, Any]:
        """What the next opening finds."""
        storage.close()
        return dict(self.make().load())

    def row(self, uri: str = URI_TEXT, *tags: str) -> Row:
        """A registration, with tags if these are stored."""
        return Row(uri, frozenset(tags) if self.tags else frozenset())

    def test_what_is_written_is_there_later(self) -> None:
        storage = self.make()
        rows = {"a": self.row(URI_TEXT, "one", "two"), "b": self.row("PYRO:b@localhost:1")}
        self.put(storage, **rows)
        assert self.found(storage) == rows

    def test_replaced_and_removed(self) -> None:
        storage = self.make()
        self.put(storage, a=self.row(URI_TEXT, "tag"), b=self.row(), c=self.row())
        self.put(storage, a=self.row("PYRO:new@localhost:1"), b=None, never=None)
        self.put(storage, c=None)
        self.put(storage, c=self.row("PYRO:again@localhost:1"))
        assert self.found(storage) == {"a": self.row("PYRO:new@localhost:1"), "c": self.row("PYRO:again@localhost:1")}

    def test_any_text(self) -> None:
        storage = self.make()
        rows = {text: self.row(URI_TEXT, text) for text in TEXTS}
        self.put(storage, **rows)
        assert self.found(storage) == rows

    def test_much_at_once(self) -> None:
        storage = self.make()
        rows = {f"name{number}": self.row(f"PYRO:o{number}@localhost:1") for number in range(2500)}
        self.put(storage, **rows)
        assert self.found(storage) == rows

    def test_leases(self) -> None:
        storage = self.make()
        leased = self.row(URI_TEXT, "tag")._replace(lease=LeaseRow("secret", 30.0, 1234567890.5))
        again = leased._replace(lease=LeaseRow("other", 1.5, 2.25))
        without = leased._replace(lease=None)
        self.put(storage, a=without, b=leased, c=leased)
        self.put(storage, a=again, b=without)
        assert self.found(storage) == ({"a": again, "b": without, "c": leased} if self.leases else {"b": without})

    def test_a_change_that_failed_is_not_there_later(self) -> None:
        storage = self.make()
        self.put(storage, a=self.row())
        with pytest.raises(ZeroDivisionError), storage.exclusive():
            raise ZeroDivisionError
        self.put(storage, b=self.row())
        assert set(self.found(storage)) == {"a", "b"}


class SharedStorageConformance(LastingStorageConformance):
    """For storages that several name servers may use at a time."""

    shared = True

    def test_changes_of_others_are_seen(self) -> None:
        one, two = _Watched(self.make()), _Watched(self.make())
        row = self.row(URI_TEXT, "x", "y")._replace(lease=LeaseRow("secret", 30.0, 99.5) if self.leases else None)
        self.put(one.storage, a=row, b=self.row())
        assert two.known() == {"a": row, "b": self.row()}
        assert two.storage.poll() == {}
        self.put(two.storage, b=None, a=row._replace(tags=frozenset()))
        assert one.known() == {"a": row._replace(tags=frozenset())}
        assert one.storage.poll() == two.storage.poll() == {}

    def test_however_much_others_changed(self) -> None:
        one, two = _Watched(self.make()), self.make()
        self.put(two, first=self.row())
        assert set(one.known()) == {"first"}
        self.put(two, **{f"name{number}": self.row() for number in range(25_000)})
        self.put(two, first=None)
        assert len(one.known()) == 25_000
        assert one.storage.poll() == {}

    def test_news_inside_of_a_change(self) -> None:
        one, two = self.make(), _Watched(self.make())
        self.put(one, a=self.row())
        with two.storage.exclusive():
            assert two.known() == {"a": self.row()}
            two.storage.write({"b": self.row()})
        assert two.storage.poll() == {}
        assert set(self.found(one)) == {"a", "b"}

    def test_a_change_that_failed_never_was(self) -> None:
        one, two = self.make(), _Watched(self.make())
        with suppress(ZeroDivisionError), one.exclusive():
            one.write({"a": self.row()})
            raise ZeroDivisionError
        assert two.known() == {}
        assert one.load() == {}

    def test_changes_exclude_each_other(self) -> None:
        one, two = self.make(), self.make()
        order: list[str] = []
        entered = threading.Event()

        def other() -> None:
            entered.set()
            with two.exclusive():
                order.append("other")

        thread = threading.Thread(target=other)
        with one.exclusive():
            one.write({"a": self.row()})
            thread.start()
            entered.wait(PATIENCE)
            thread.join(_MOMENT)  # it cannot come in, however long it tries
            order.append("first")
        thread.join(PATIENCE)
        assert order == ["first", "other"]


class _Watched:
    """A storage, and what follows from what it said."""

    def __init__(self, storage: Any) -> None:
        self.storage = storage
        self._known: dict[str, Any] = dict(storage.load())

    def known(self) -> dict[str, Any]:
        """All that is registered."""
        changes = self.storage.poll()
        if changes is None:
            self._known = dict(self.storage.load())
        else:
            self._known.update(changes)
        self._known = {name: row for name, row in self._known.items() if row is not None}
        return self._known
