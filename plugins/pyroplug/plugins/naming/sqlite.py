"""The SQLite file of a name server.

The file is one that Pyro5's name server reads and writes as well: its tables ``pyro_names`` and ``pyro_metadata`` hold
names, URIs and tags.  What is ours lies beside them: leases, and a log of the names that changed, which triggers keep
whoever it is that writes.  Any number of processes may use one file.  A change is on the disk (write-ahead log,
synchronised) before the client that asked for it gets its answer.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pyroplug.core.errors import NamingError

from .records import Changes, Lease, Record

__all__ = ["SqlStorage"]

log = logging.getLogger("pyroplug.naming")

VERSION = 1
"""Of our tables; a file with a higher one is left alone."""
PATIENCE = 5.0
"""Seconds to wait for another process that is writing."""
LOGGED = 10_000
"""Changes that are remembered; who has missed more reads everything."""
_MANY = 500
"""Names in one question (SQLite allows 999 parameters)."""

_PYRO_TABLES = (
    "CREATE TABLE pyro_names (id integer PRIMARY KEY, name nvarchar NOT NULL UNIQUE, uri nvarchar NOT NULL)",
    """CREATE TABLE pyro_metadata (object integer NOT NULL, metadata nvarchar NOT NULL,
    FOREIGN KEY(object) REFERENCES pyro_names(id))""",
)
_LOG = "INSERT INTO pyroplug_changes (name) VALUES"
_OUR_TABLES = (
    "CREATE TABLE pyroplug_version (version integer NOT NULL)",
    f"INSERT INTO pyroplug_version VALUES ({VERSION})",
    """CREATE TABLE pyroplug_leases (name text PRIMARY KEY, owner text NOT NULL, seconds real NOT NULL,
    expires real NOT NULL)""",
    "CREATE TABLE pyroplug_changes (seq integer PRIMARY KEY, name text NOT NULL)",
    # without it, removing the tags of one name means reading those of all
    "CREATE INDEX pyroplug_tags ON pyro_metadata (object)",
    f"CREATE TRIGGER pyroplug_put AFTER INSERT ON pyro_names BEGIN {_LOG} (NEW.name); END",
    f"CREATE TRIGGER pyroplug_changed AFTER UPDATE ON pyro_names BEGIN {_LOG} (NEW.name); END",
    # who knows nothing of leases removes or replaces a name: its lease goes with it
    f"""CREATE TRIGGER pyroplug_removed AFTER DELETE ON pyro_names
    BEGIN DELETE FROM pyroplug_leases WHERE name = OLD.name; {_LOG} (OLD.name); END""",
)


class SqlStorage:
    """One SQLite file.

    :param path: of the file; made if it is not there
    :raises ValueError: the path is empty or ``:memory:``
    :raises NamingError: the file is no database, cannot be written, or comes from a newer version
    """

    kind = "sql"
    shared = True

    def __init__(self, path: str) -> None:
        if not path:
            raise ValueError("the storage 'sql' needs a file: sql:names.sqlite")
        if path == ":memory:":
            raise ValueError("the storage 'sql' has no ':memory:' database: use the storage 'memory'")
        self._path = path
        self._seen = 0
        """The last change in the log that we know."""
        self._version = 0
        """What SQLite said when we looked last; another process's commit changes it."""
        with self._explained("opened"):
            self._db = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            with self._explained("opened"):
                self._prepare()
        except BaseException:
            self._db.close()
            raise

    # ----------------------------------------------------------------- the interface
    def load(self) -> dict[str, Record]:
        """Everything in the file."""
        with self._explained("read"), self._transaction("BEGIN"):
            self._look()
            tags: dict[int, list[str]] = {}
            for number, tag in self._db.execute("SELECT object, metadata FROM pyro_metadata"):
                tags.setdefault(number, []).append(tag)
            leases = {row[0]: Lease(*row[1:]) for row in self._db.execute("SELECT * FROM pyroplug_leases")}
            sets: dict[tuple[str, ...], frozenset[str]] = {(): frozenset()}  # most names have the tags of others
            records = {}
            for number, name, uri in self._db.execute("SELECT id, name, uri FROM pyro_names"):
                own = tuple(tags.get(number, ()))
                records[name] = Record(uri, sets.setdefault(own, frozenset(own)), leases.get(name))
        return records

    def poll(self) -> Mapping[str, Record | None] | None:
        """What other processes have committed."""
        try:  # the way of each look-up: without the machinery of _explained
            version = self._db.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error as exc:
            raise self._error("read", exc) from exc
        if version == self._version:
            return {}
        with self._explained("read"), self._transaction("BEGIN"):
            return self._news()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Nobody else can write meanwhile; waits for those who do."""
        with self._explained("written"), self._transaction("BEGIN IMMEDIATE"):
            yield

    def write(self, changes: Changes) -> None:
        """Put and remove names."""
        with self._explained("written"):
            for name, record in changes.items():
                if record is None:
                    self._remove(name)
                else:
                    self._put(name, record)
            self._seen = self._last()
            self._db.execute("DELETE FROM pyroplug_changes WHERE seq <= ?", (self._seen - LOGGED,))

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # ----------------------------------------------------------------- how
    def _prepare(self) -> None:
        mode = self._db.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        if mode.lower() != "wal":
            log.warning("%s: no write-ahead log is possible here (%s): writers make readers wait", self._path, mode)
        self._db.execute("PRAGMA synchronous=FULL")
        with self._transaction("BEGIN IMMEDIATE"):
            tables = {row[0] for row in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if "pyroplug_version" in tables:
                version = self._db.execute("SELECT max(version) FROM pyroplug_version").fetchone()[0]
                if version > VERSION:
                    raise NamingError(
                        f"the storage sql:{self._path} was made by a newer version of pyroplug "
                        f"(tables of version {version}, this one knows {VERSION}); nothing was changed"
                    )
                return
            old = "pyro_names" in tables and "pyro_metadata" not in tables  # of a Pyro without metadata
            if old:
                self._db.execute("ALTER TABLE pyro_names RENAME TO pyro_names_old")
            if old or "pyro_names" not in tables:
                for statement in _PYRO_TABLES:
                    self._db.execute(statement)
            if old:
                self._db.execute("INSERT INTO pyro_names (name, uri) SELECT name, uri FROM pyro_names_old")
                self._db.execute("DROP TABLE pyro_names_old")
            for statement in _OUR_TABLES:
                self._db.execute(statement)

    def _news(self) -> Changes | None:
        first, last = self._db.execute("SELECT min(seq), max(seq) FROM pyroplug_changes").fetchone()
        if last is None or last < self._seen or first > self._seen + 1:
            return None  # the file is another one, or more was changed than the log holds
        rows = self._db.execute("SELECT DISTINCT name FROM pyroplug_changes WHERE seq > ?", (self._seen,))
        names = [row[0] for row in rows]
        changes: Changes = dict.fromkeys(names)
        for begin in range(0, len(names), _MANY):
            changes.update(self._read(names[begin : begin + _MANY]))
        self._look()
        return changes

    def _read(self, names: list[str]) -> dict[str, Record]:
        marks = ",".join("?" * len(names))
        tags: dict[str, set[str]] = {}
        for name, tag in self._db.execute(
            f"SELECT n.name, m.metadata FROM pyro_names n JOIN pyro_metadata m ON m.object = n.id "
            f"WHERE n.name IN ({marks})",
            names,
        ):
            tags.setdefault(name, set()).add(tag)
        rows = self._db.execute(f"SELECT * FROM pyroplug_leases WHERE name IN ({marks})", names)
        leases = {row[0]: Lease(*row[1:]) for row in rows}
        rows = self._db.execute(f"SELECT name, uri FROM pyro_names WHERE name IN ({marks})", names)
        return {name: Record(uri, frozenset(tags.get(name, ())), leases.get(name)) for name, uri in rows}

    def _look(self) -> None:
        """Remember up to where we have read."""
        self._seen = self._last()
        self._version = self._db.execute("PRAGMA data_version").fetchone()[0]

    def _last(self) -> int:
        last: int | None = self._db.execute("SELECT max(seq) FROM pyroplug_changes").fetchone()[0]
        return last or 0

    def _put(self, name: str, record: Record) -> None:
        execute = self._db.execute
        if execute("UPDATE pyro_names SET uri = ? WHERE name = ?", (record.uri, name)).rowcount:
            number = execute("SELECT id FROM pyro_names WHERE name = ?", (name,)).fetchone()[0]
            execute("DELETE FROM pyro_metadata WHERE object = ?", (number,))
            execute("DELETE FROM pyroplug_leases WHERE name = ?", (name,))
        else:
            number = execute("INSERT INTO pyro_names (name, uri) VALUES (?, ?)", (name, record.uri)).lastrowid
        for tag in record.tags:
            execute("INSERT INTO pyro_metadata (object, metadata) VALUES (?, ?)", (number, tag))
        if record.lease is not None:
            execute("INSERT INTO pyroplug_leases VALUES (?, ?, ?, ?)", (name, *record.lease))

    def _remove(self, name: str) -> None:
        row = self._db.execute("SELECT id FROM pyro_names WHERE name = ?", (name,)).fetchone()
        if row is not None:
            self._db.execute("DELETE FROM pyro_metadata WHERE object = ?", row)
            self._db.execute("DELETE FROM pyro_names WHERE id = ?", row)

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        if self._db.in_transaction:  # reading inside exclusive()
            yield
            return
        seen, version = self._seen, self._version
        self._db.execute(begin)
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._seen, self._version = seen, version  # what was written or read inside does not count
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _explained(self, done: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            raise self._error(done, exc) from exc

    def _error(self, done: str, exc: sqlite3.Error) -> NamingError:
        text = str(exc)
        advice = ""
        if "locked" in text:
            advice = f": another process has been writing for more than {PATIENCE:g} seconds; try again"
        elif "not a database" in text or "malformed" in text:
            advice = ": it is damaged, or something else than a database; nothing was changed"
        elif "readonly" in text or "read-only" in text:
            advice = ": the file and its folder must be writable"
        elif "unable to open" in text:
            folder = os.path.dirname(os.path.abspath(self._path))
            advice = ": " + (f"there is no folder {folder}" if not os.path.isdir(folder) else "no right to use it")
        return NamingError(f"the storage sql:{self._path} cannot be {done}: {text}{advice}")
