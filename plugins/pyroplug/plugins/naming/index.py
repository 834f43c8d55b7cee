"""All names in memory, found by name, prefix, tag or any other test."""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from .records import Record

__all__ = ["Index"]

T = TypeVar("T")

_FEW = 50
"""So many new names are put into the sorted list one by one; for more it is sorted anew."""


class Index:
    """The registrations, for many threads.

    One name is found without a lock.  The lock is held for work in memory only, never while anything waits.
    """

    def __init__(self, records: Mapping[str, Record]) -> None:
        self.records: dict[str, Record] = {}
        """By name; only :meth:`apply` changes it."""
        self.leases: dict[str, Record] = {}
        """Those that have a lease."""
        self._uris: dict[str, str] = {}  # what most people ask for when they want everything
        self._lock = threading.Lock()
        self._tags: dict[str, set[str]] = {}
        self._sorted: list[str] = []
        self._new: list[str] = []  # to be put into the sorted list when somebody needs it
        self._gone: set[str] = set()  # still in the sorted list, or about to be put there
        self.apply(records)

    def apply(self, changes: Mapping[str, Record | None]) -> None:
        """Put and remove names."""
        with self._lock:
            for name, record in changes.items():
                old = self.records.get(name)
                if old is not None:
                    self._forget(name, old)
                if record is not None:
                    self._add(name, record, new=old is None)
                elif old is not None:
                    del self.records[name], self._uris[name]
                    self._gone.add(name)
            if len(self._gone) > _FEW + len(self.records):
                self._sorted, self._new, self._gone = sorted(self.records), [], set()

    def _add(self, name: str, record: Record, new: bool) -> None:
        self.records[name] = record
        self._uris[name] = record.uri
        if record.lease is not None:
            self.leases[name] = record
        for tag in record.tags:
            self._tags.setdefault(tag, set()).add(name)
        if new:
            if name in self._gone:
                self._gone.discard(name)
            else:
                self._new.append(name)

    def _forget(self, name: str, old: Record) -> None:
        self.leases.pop(name, None)
        for tag in old.tags:
            names = self._tags[tag]
            names.discard(name)
            if not names:
                del self._tags[tag]

    # ----------------------------------------------------------------- finding; ``now`` is the time: see Record.lease
    def get(self, name: str, now: Callable[[], float]) -> Record | None:
        """The registration of one name, unless its lease is over."""
        record = self.records.get(name)
        if record is None or record.lease is None or record.lease.expires > now():
            return record
        return None

    def everything(self, now: float) -> dict[str, Record]:
        """All registrations."""
        return self._living(self.records, now)

    def uris(self, now: float) -> dict[str, str]:
        """All URIs."""
        return self._living(self._uris, now)

    def _living(self, of_names: dict[str, T], now: float) -> dict[str, T]:
        with self._lock:
            found = of_names.copy()
            for name in self._expired(now):
                del found[name]
        return found

    def some(self, names: Iterable[str], now: float) -> dict[str, Record]:
        """Those of some names that exist."""
        records = self.records
        found = {name: record for name in names if (record := records.get(name)) is not None}
        if self.leases:
            found = {n: r for n, r in found.items() if r.lease is None or r.lease.expires > now}
        return found

    def with_prefix(self, prefix: str) -> list[str]:
        """Names that begin so, in order (some of them may have expired)."""
        end = _after(prefix)
        with self._lock:
            if len(self._new) > _FEW:
                self._sorted += self._new
                self._sorted.sort()  # quick: most of it is in order
            else:
                for name in self._new:
                    insort(self._sorted, name)
            self._new = []
            low = bisect_left(self._sorted, prefix)
            high = bisect_left(self._sorted, end, low) if end else len(self._sorted)
            return self._sorted[low:high]

    def with_all(self, tags: Iterable[str]) -> set[str]:
        """Names that have each of the tags (some of them may have expired)."""
        with self._lock:
            found = sorted((self._tags.get(tag, set()) for tag in tags), key=len)
            return set.intersection(*found) if found else set()

    def with_any(self, tags: Iterable[str]) -> set[str]:
        """Names that have one of the tags (some of them may have expired)."""
        with self._lock:
            return set().union(*(self._tags.get(tag, set()) for tag in tags))

    def expired(self, now: float) -> list[str]:
        """Names whose leases are over."""
        with self._lock:
            return self._expired(now)

    def count(self, now: float) -> int:
        """How many names there are."""
        with self._lock:
            return len(self.records) - len(self._expired(now))

    def _expired(self, now: float) -> list[str]:
        return [n for n, record in self.leases.items() if record.lease is not None and record.lease.expires <= now]


def _after(prefix: str) -> str:
    """The first text behind all that begin with ``prefix``; empty if there is none."""
    stem = prefix.rstrip("\U0010ffff")
    return stem[:-1] + chr(ord(stem[-1]) + 1) if stem else ""
