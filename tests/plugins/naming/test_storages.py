"""Our storages are what storages must be; SQLite files are shared with Pyro5; files that are none."""

from __future__ import annotations

import dbm
import functools
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from Pyro5.nameserver import NameServer as PyroNameServer
from Pyro5.nameserver import SqlStorage as PyroSql

from pyroplug.api import Kernel, NamingError
from pyroplug.core.uri import URI
from pyroplug.plugins.naming import naming_of, sqlite
from pyroplug.plugins.naming.dbmfile import DbmStorage
from pyroplug.plugins.naming.server import NameServer
from pyroplug.plugins.naming.sqlite import SqlStorage
from pyroplug.plugins.naming.storage import MemoryStorage
from pyroplug.testing.kernels import make_kernel
from pyroplug.testing.naming import LastingStorageConformance, SharedStorageConformance, StorageConformance

U = "PYRO:obj@localhost:4444"


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    return make_kernel()


class TestMemory(StorageConformance):
    def open(self, folder: Path) -> Any:
        return MemoryStorage()


@pytest.mark.feature("F184", "F276")
class TestSql(SharedStorageConformance):
    def open(self, folder: Path) -> Any:
        return SqlStorage(str(folder / "names.sqlite"))


@pytest.mark.feature("F184", "F276")
class TestDbm(LastingStorageConformance):
    tags = False
    leases = False

    def open(self, folder: Path) -> Any:
        return DbmStorage(str(folder / "names"))


# ----------------------------------------------------------------------------- by name
@pytest.mark.feature("F276")
def test_a_storage_is_found_by_its_word(kernel: Kernel, tmp_path: Path) -> None:
    storages = naming_of(kernel).storages
    for word, text in (("memory", ""), ("sql", str(tmp_path / "a")), ("dbm", str(tmp_path / "b"))):
        storage = storages[word](text, kernel.settings)
        assert storage.kind == word
        storage.close()


@pytest.mark.feature("F276")
@pytest.mark.parametrize(("word", "text"), [("memory", "file"), ("sql", ""), ("sql", ":memory:"), ("dbm", "")])
def test_texts_that_no_storage_takes(kernel: Kernel, word: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"the storage '{word}'"):
        naming_of(kernel).storages[word](text, kernel.settings)


@pytest.mark.parametrize("word", ["sql", "dbm"])
def test_each_can_be_switched_off(word: str) -> None:
    kernel = make_kernel(environ={"PYRO_DISABLE_PLUGINS": f"naming_{word}"})
    assert word not in naming_of(kernel).storages


# ----------------------------------------------------------------------------- one file with Pyro5
class _Closing(sqlite3.Connection):
    """Closed at the end of ``with``, which Pyro5 leaves to the garbage collector; Python 3.13 warns of that."""

    def __exit__(self, *error: Any) -> Literal[False]:
        super().__exit__(*error)
        self.close()
        return False


@pytest.fixture(autouse=True)
def _pyro5_closes_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = functools.partial(sqlite3.connect, factory=_Closing)
    monkeypatch.setattr("Pyro5.nameserver.sqlite3", SimpleNamespace(**{**vars(sqlite3), "connect": connect}))


@pytest.mark.feature("F184", "F276")
def test_pyro5_reads_what_we_wrote(kernel: Kernel, tmp_path: Path) -> None:
    path = str(tmp_path / "names.sqlite")
    ours = NameServer(kernel, SqlStorage(path))
    ours.register("a.one", U, metadata=["x", "y"])
    ours.register("a.two", U)
    ours.lease("leased", U, "secret", 30, metadata=["z"])
    ours.remove("a.two")
    ours.close()
    theirs = PyroNameServer(PyroSql(path))
    assert theirs.list(return_metadata=True) == {"a.one": (U, {"x", "y"}), "leased": (U, {"z"})}
    assert theirs.yplookup(meta_all=["x", "y"]) == {"a.one": (U, {"x", "y"})}


@pytest.mark.feature("F184", "F276")
def test_we_read_what_pyro5_wrote(kernel: Kernel, tmp_path: Path) -> None:
    path = str(tmp_path / "names.sqlite")
    theirs = PyroNameServer(PyroSql(path))
    theirs.register("a.one", U, metadata=["x", "y"])
    theirs.register("a.two", U)
    ours = NameServer(kernel, SqlStorage(path))
    assert ours.list(return_metadata=True) == {"a.one": (U, {"x", "y"}), "a.two": (U, set())}
    ours.close()


@pytest.mark.feature("F276")
def test_both_at_the_same_time(kernel: Kernel, tmp_path: Path) -> None:
    path = str(tmp_path / "names.sqlite")
    ours = NameServer(kernel, SqlStorage(path), fresh_for=0)
    theirs = PyroNameServer(PyroSql(path))
    ours.lease("leased", U, "secret", 30)
    theirs.register("one", U, metadata=["x"])
    assert str(ours.lookup("one")) == U
    assert ours.yplookup(["x"]) == {"one": (U, {"x"})}
    theirs.set_metadata("one", ["y"])
    assert ours.yplookup(["x"]) == {}
    ours.register("two", U, metadata=["y"])
    assert set(theirs.yplookup(["y"])) == {"one", "two"}
    assert theirs.remove(prefix="tw") == 1
    with pytest.raises(NamingError, match="unknown name: two"):
        ours.lookup("two")
    theirs.register("leased", "PYRO:taken@localhost:1")  # which knows nothing of leases
    assert ours.renew("secret", ["leased"]) == {"leased": "lost"}
    with pytest.raises(NamingError, match="already registered"):
        ours.register("one", U, safe=True)
    PyroSql(path).clear()
    assert ours.list() == {}
    ours.close()


@pytest.mark.feature("F276")
def test_a_file_without_metadata_is_brought_up_to_date(kernel: Kernel, tmp_path: Path) -> None:
    path = str(tmp_path / "old.sqlite")
    old = sqlite3.connect(path)
    old.execute("CREATE TABLE pyro_names (name nvarchar PRIMARY KEY NOT NULL, uri nvarchar NOT NULL)")
    old.executemany("INSERT INTO pyro_names VALUES (?, ?)", [("a", U), ("b", U)])
    old.commit()
    old.close()
    ours = NameServer(kernel, SqlStorage(path))
    assert ours.list() == {"a": U, "b": U}
    ours.set_metadata("a", ["x"])
    assert PyroNameServer(PyroSql(path)).yplookup(["x"]) == {"a": (U, {"x"})}
    ours.close()


# ----------------------------------------------------------------------------- after a restart
@pytest.mark.feature("F184")
def test_names_tags_and_leases_outlive_the_name_server(kernel: Kernel, tmp_path: Path) -> None:
    path = str(tmp_path / "names.sqlite")
    now = [1000.0]
    first = NameServer(kernel, SqlStorage(path), clock=lambda: now[0])
    first.announce(URI("PYRO:Pyro.NameServer@localhost:1"))
    first.register("kept", U, metadata=["x"])
    first.lease("leased", U, "secret", 10)
    first.close()
    now[0] += 1000  # nobody could send a heartbeat meanwhile
    second = NameServer(kernel, SqlStorage(path), clock=lambda: now[0])
    second.announce(URI("PYRO:Pyro.NameServer@localhost:2"))
    assert second.lookup("kept", True) == (URI(U), {"x"})
    assert str(second.lookup("leased")) == U
    assert str(second.lookup("Pyro.NameServer")) == "PYRO:Pyro.NameServer@localhost:2"
    assert second.renew("secret", ["leased"]) == {"leased": "ok"}
    now[0] += 11
    assert second.expire() == 1
    second.close()
    third = NameServer(kernel, SqlStorage(path))
    assert set(third.list()) == {"kept", "Pyro.NameServer"}
    third.close()


def test_each_of_two_answers_for_itself(kernel: Kernel, tmp_path: Path) -> None:
    path = str(tmp_path / "names.sqlite")
    one, two = (NameServer(kernel, SqlStorage(path), fresh_for=0) for _ in range(2))
    one.announce(URI("PYRO:Pyro.NameServer@localhost:1"))
    two.announce(URI("PYRO:Pyro.NameServer@localhost:2"))
    assert str(one.lookup("Pyro.NameServer")) == "PYRO:Pyro.NameServer@localhost:1"
    assert str(two.lookup("Pyro.NameServer")) == "PYRO:Pyro.NameServer@localhost:2"
    PyroSql(path).clear()
    assert list(one.list()) == list(two.list()) == ["Pyro.NameServer"]
    one.close()
    two.close()


def test_a_heartbeat_counts_for_all_who_share_a_file(kernel: Kernel, tmp_path: Path) -> None:
    path = str(tmp_path / "names.sqlite")
    now = [1000.0]
    one = NameServer(kernel, SqlStorage(path), clock=lambda: now[0], fresh_for=0)
    two = NameServer(kernel, SqlStorage(path), clock=lambda: now[0], fresh_for=0)
    one.lease("name", U, "secret", 10)
    for _ in range(3):
        now[0] += 8
        assert one.renew("secret", ["name"]) == {"name": "ok"}
        assert str(two.lookup("name")) == U
        assert two.expire() == 0
    now[0] += 11
    assert two.expire() == 1
    assert one.renew("secret", ["name"]) == {"name": "unknown"}
    one.close()
    two.close()


@pytest.mark.feature("F276")
def test_dbm_keeps_tags_and_leases_only_while_it_runs(kernel: Kernel, tmp_path: Path) -> None:
    path = str(tmp_path / "names")
    with dbm.open(path, "c") as old:
        old["from Pyro4"] = U
    first = NameServer(kernel, DbmStorage(path))
    first.register("one", U, metadata=["x"])
    first.lease("leased", U, "secret", 10)
    assert set(first.list()) == {"from Pyro4", "one", "leased"}
    assert set(first.yplookup(["x"])) == {"one"}
    first.close()
    second = NameServer(kernel, DbmStorage(path))
    assert second.list(return_metadata=True) == {"from Pyro4": (U, set()), "one": (U, set())}


# ----------------------------------------------------------------------------- files that are none
def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear reader, " * 100)
    with pytest.raises(NamingError, match=r"letter.txt cannot be opened: file is not a database.*nothing was changed"):
        SqlStorage(str(path))
    assert path.read_text() == "Dear reader, " * 100
    with pytest.raises(NamingError, match=r"dbm:.*letter.txt cannot be used"):
        DbmStorage(str(path))
    assert path.read_text() == "Dear reader, " * 100


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NamingError, match=r"cannot be opened: .*there is no folder .*missing"):
        SqlStorage(str(tmp_path / "missing" / "names.sqlite"))
    with pytest.raises(NamingError, match="cannot be used"):
        DbmStorage(str(tmp_path / "missing" / "names"))


def test_a_file_from_a_newer_version(tmp_path: Path) -> None:
    path = str(tmp_path / "names.sqlite")
    SqlStorage(path).close()
    db = sqlite3.connect(path)
    db.execute("UPDATE pyroplug_version SET version = version + 1")
    db.commit()
    before = list(db.iterdump())
    with pytest.raises(NamingError, match=r"newer version of pyroplug \(tables of version 2, this one knows 1"):
        SqlStorage(path)
    assert list(db.iterdump()) == before
    db.close()


def test_a_file_that_is_locked(kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "PATIENCE", 0.1)
    path = str(tmp_path / "names.sqlite")
    ns = NameServer(kernel, SqlStorage(path))
    ns.register("one", U)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(NamingError, match=r"names.sqlite cannot be written: database is locked.*try again"):
        ns.register("two", U)
    assert str(ns.lookup("one")) == U  # it goes on answering
    with pytest.raises(NamingError, match="unknown name: two"):
        ns.lookup("two")
    other.execute("ROLLBACK")
    ns.register("two", U)
    assert set(ns.list()) == {"one", "two"}
    other.close()
    ns.close()


def test_a_disk_that_is_full(kernel: Kernel, tmp_path: Path) -> None:
    path = str(tmp_path / "names.sqlite")
    storage = SqlStorage(path)
    ns = NameServer(kernel, storage)
    ns.register("one", U)
    pages = storage._db.execute("PRAGMA page_count").fetchone()[0]
    storage._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(NamingError, match="cannot be written: database or disk is full"):
        ns.register("two" * 300, U, metadata=[f"{'tag' * 300}{number}" for number in range(200)])
    assert set(ns.list()) == {"one"}
    storage._db.execute("PRAGMA max_page_count = 1000000")
    ns.register("two", U)
    ns.close()
    again = NameServer(kernel, SqlStorage(path))
    assert set(again.list()) == {"one", "two"}
    again.close()


def test_a_file_that_is_read_only(kernel: Kernel, tmp_path: Path) -> None:
    path = tmp_path / "names.sqlite"
    storage = SqlStorage(str(path))
    ns = NameServer(kernel, storage)
    ns.register("one", U)
    storage._db.execute("PRAGMA query_only = 1")  # file permissions would not stop a privileged user
    with pytest.raises(NamingError, match="readonly database: the file and its folder must be writable"):
        ns.register("two", U)
    assert ns.list() == {"one": U}
    ns.close()
