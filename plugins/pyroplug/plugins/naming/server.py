"""The name server: an ordinary object that knows where others are.

Its remote interface is Pyro5's, and what only our ends use: leases, ``status`` and ``shutdown``.
"""

from __future__ import annotations

import hmac
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pyroplug.core.errors import NamingError, SecurityError
from pyroplug.core.kernel import Kernel
from pyroplug.core.members import expose
from pyroplug.core.uri import URI

from .index import Index
from .matching import Matcher
from .records import Changes, Lease, Limits, Record, shown
from .storage import MemoryStorage, Storage
from .table import NAMESERVER_NAME

__all__ = ["NAMESERVER_TAG", "NameServer"]

log = logging.getLogger("pyroplug.naming")

FRESH = 0.005
"""Seconds; asking SQLite for each look-up takes longer than all the rest of it."""
NAMESERVER_TAG = "class:Pyro5.nameserver.NameServer"
"""The tag of a name server's own entry: clients of Pyro5 look for it."""
PROTOCOL = 502

# what the classes of this module mean by list, where a method has that name
_List = list


class NameServer:
    """Maps names to URIs, with tags; everything is in memory, and a storage makes it last.

    :param kernel: whose settings count (NS_MAX_NAME, NS_MAX_TAGS, NS_MAX_NAMES, NS_LEASE_MAX, NS_REGEX_TIMEOUT)
    :param storage: where the names are kept; closed by :meth:`close`
    :param shutdown: what a client that calls ``shutdown`` starts; without it none may
    :param clock: seconds, for leases; tests may turn it
    :param fresh_for: seconds within which a shared storage is not asked again whether other processes have changed
        anything; until then a look-up may answer what they have just replaced or removed
    :raises NamingError: the storage cannot be read
    """

    def __init__(
        self,
        kernel: Kernel,
        storage: Storage | None = None,
        *,
        shutdown: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.time,
        fresh_for: float = FRESH,
    ) -> None:
        settings = kernel.settings
        self.storage: Storage = storage if storage is not None else MemoryStorage()
        self._limits = Limits(settings)
        self._most: int = settings.NS_MAX_NAMES
        self._matcher = Matcher(settings.NS_REGEX_TIMEOUT)
        self._shutdown = shutdown
        self._clock = clock
        self._started = time.monotonic()
        self._writing = threading.Lock()
        """Held by whoever uses the storage; look-ups go on meanwhile."""
        self._own: Record | None = None
        self._uris: dict[str, URI] = {}
        self._shared = self.storage.shared
        self._fresh_for = fresh_for
        self._asked = 0.0
        """When the storage was asked last whether others have changed anything, by ``time.monotonic()``."""
        self._complained = False
        records = self.storage.load()
        # nobody could prolong a lease while the name server was down: each gets all of its time again
        now = clock()
        for name, record in records.items():
            if record.lease is not None:
                records[name] = record._replace(lease=record.lease._replace(expires=now + record.lease.seconds))
        self._index = Index(records)

    # ----------------------------------------------------------------- Pyro5's interface
    @expose
    def count(self) -> int:
        """How many names are registered."""
        return self._fresh().count(self._clock())

    @expose
    def lookup(self, name: str, return_metadata: bool = False) -> Any:
        """The URI of a name, or that and a set of its tags.

        :raises NamingError: nobody has registered that name
        """
        if not isinstance(name, str):
            raise TypeError("name must be a str")
        record = self._fresh().get(name, self._clock)
        if record is None:
            record = self._fresh(now=True).get(name, self._clock)  # another process may just have registered it
            if record is None:
                raise NamingError("unknown name: " + name)
        uri = self._uris.get(record.uri)
        if uri is None:
            if len(self._uris) > len(self._index.records):
                self._uris = {}  # most of it is of names that are not there any more
            uri = self._uris[record.uri] = URI(record.uri)
        return (URI(uri), set(record.tags)) if return_metadata else URI(uri)

    @expose
    def register(self, name: str, uri: Any, safe: bool = False, metadata: Iterable[str] | None = None) -> None:
        """Register a URI (or its text) under a name, in place of what had it.

        :param safe: do not replace anything
        :param metadata: tags
        :raises NamingError: the name cannot be used, or is taken and ``safe`` was asked for
        :raises URIError: the text is no URI
        """
        text = self._limits.uri(uri)
        name = self._limits.name(name)
        self._put(name, Record(text, self._limits.tags(metadata)), safe)

    @expose
    def set_metadata(self, name: str, metadata: Iterable[str] | None) -> None:
        """Replace the tags of a registered name.

        :raises NamingError: nobody has registered that name
        """
        if not isinstance(name, str):
            raise TypeError("name must be a str")
        tags = self._limits.tags(metadata)

        def change(index: Index) -> Changes:
            record = index.get(name, self._clock)
            if record is None:
                raise NamingError("unknown name: " + name)
            return {name: record._replace(tags=tags)}

        self._change(change)

    @expose
    def remove(self, name: str | None = None, prefix: str | None = None, regex: str | None = None) -> int:
        """Remove one name, or all that begin with a prefix, or all that match; how many that were.

        The name server's own entry stays.
        """
        if name and name != NAMESERVER_NAME:
            names: Iterable[str] = [name]
        elif prefix:
            names = self._fresh().with_prefix(prefix)
        elif regex:
            names = self._matching(regex)
        else:
            return 0
        return self.forget(names)

    @expose
    def list(
        self, prefix: str | None = None, regex: str | None = None, return_metadata: bool = False
    ) -> dict[str, Any]:
        """The URIs (as texts) of all names, or of those that begin with a prefix or match from their beginning.

        :param return_metadata: give pairs of URI and set of tags
        :raises NamingError: the regex is wrong, or takes too long
        """
        if prefix and regex:
            raise ValueError("you can only filter on one thing at a time")
        index, now = self._fresh(), self._clock()
        if prefix:
            found = index.some(index.with_prefix(prefix), now)
        elif regex:
            found = index.some(self._matching(regex), now)
        elif return_metadata:
            found = index.everything(now)
        else:
            return index.uris(now)
        return _answer(found, return_metadata)

    @expose
    def yplookup(
        self,
        meta_all: Iterable[str] | None = None,
        meta_any: Iterable[str] | None = None,
        return_metadata: bool = True,
    ) -> dict[str, Any]:
        """Those names that have all, or any, of the tags."""
        if meta_all and meta_any:
            raise ValueError("you can't use meta_all or meta_any at the same time")
        index = self._fresh()
        if meta_all:
            names = index.with_all(self._limits.tags(meta_all, "metadata_all"))
        elif meta_any:
            names = index.with_any(self._limits.tags(meta_any, "metadata_any"))
        else:
            return {}
        return _answer(index.some(names, self._clock()), return_metadata)

    @expose
    def ping(self) -> None:
        """Do nothing: it works."""

    # ----------------------------------------------------------------- ours: leases and what tools want to know
    @expose
    def lease(
        self,
        name: str,
        uri: Any,
        owner: str,
        seconds: float,
        metadata: Iterable[str] | None = None,
        safe: bool = False,
    ) -> float:
        """Register a name for a time; the seconds granted.

        :param owner: a random text that is nobody else's; who knows it may prolong and release the lease
        :param safe: do not replace anything of others
        :raises NamingError: as for ``register``
        """
        text = self._limits.uri(uri)
        name = self._limits.name(name)
        granted = self._limits.seconds(seconds)
        lease = Lease(self._limits.owner(owner), granted, self._clock() + granted)
        self._put(name, Record(text, self._limits.tags(metadata), lease), safe)
        return granted

    @expose
    def renew(self, owner: str, names: Iterable[str]) -> dict[str, str]:
        """Prolong leases.  By name: "ok", "unknown" (register again), or "lost" (it is another's now)."""
        owner, wanted = self._limits.owner(owner), self._limits.names(names)
        answer: dict[str, str] = {}

        def change(index: Index) -> Changes:
            now = self._clock()
            changes: Changes = {}
            for name in wanted:
                record = index.get(name, lambda: now)
                if record is None:
                    answer[name] = "unknown"
                elif not _owns(owner, record):
                    answer[name] = "lost"
                else:
                    assert record.lease is not None
                    changes[name] = record._replace(lease=record.lease._replace(expires=now + record.lease.seconds))
                    answer[name] = "ok"
            return changes

        self._change(change)
        return answer

    @expose
    def release(self, owner: str, names: Iterable[str]) -> int:
        """Give leases up: remove those of the names that still belong to the owner; how many that were."""
        owner, wanted = self._limits.owner(owner), self._limits.names(names)

        def change(index: Index) -> Changes:
            return {name: None for name in wanted if (record := index.records.get(name)) and _owns(owner, record)}

        return len(self._change(change))

    @expose
    def status(self) -> dict[str, Any]:
        """What tools show: version, protocol, storage, number of names and leases, seconds since the start."""
        from importlib import metadata as distributions  # slow, and of no use to most

        index, now = self._fresh(), self._clock()
        return {
            "version": distributions.version("pyroplug"),
            "protocol": PROTOCOL,
            "storage": self.storage.kind,
            "names": index.count(now),
            "leases": len(index.leases) - len(index.expired(now)),
            "uptime": time.monotonic() - self._started,
            "shutdown": self._shutdown is not None,
        }

    @expose
    def shutdown(self) -> None:
        """End the name server, if it was started so that clients may.

        :raises SecurityError: it was not
        """
        if self._shutdown is None:
            raise SecurityError("this name server takes no shutdown requests (NS_ALLOW_SHUTDOWN)")
        self._shutdown()

    # ----------------------------------------------------------------- for the process that it runs in
    def announce(self, uri: URI) -> None:
        """Register the name server itself; clients cannot replace or remove that."""
        own = Record(str(uri), frozenset({NAMESERVER_TAG}))
        self._change(lambda index: {NAMESERVER_NAME: own})
        self._own = own

    def records(self) -> dict[str, Record]:
        """All registrations, with their leases."""
        return self._fresh().everything(self._clock())

    def forget(self, names: Iterable[str], unless: Callable[[str, Record], bool] | None = None) -> int:
        """Remove names that are registered, but for the name server's own and those that ``unless`` is true for."""

        def change(index: Index) -> Changes:
            found = index.some(names, self._clock())
            found.pop(NAMESERVER_NAME, None)
            return {name: None for name, record in found.items() if unless is None or not unless(name, record)}

        return len(self._change(change))

    def expire(self) -> int:
        """Take names out of memory and storage whose leases are over (they are not found any more already)."""
        if not self._index.expired(self._clock()):
            return 0
        gone = self._change(lambda index: dict.fromkeys(index.expired(self._clock())))
        if gone:
            log.info("%d leases are over: %s", len(gone), shown(gone))
        return len(gone)

    def close(self) -> None:
        """Close the storage; harmless when repeated."""
        self._matcher.close()
        with self._writing:
            self._shared = False
            self.storage.close()

    # ----------------------------------------------------------------- how
    def _put(self, name: str, record: Record, safe: bool) -> None:
        if name == NAMESERVER_NAME:
            raise NamingError(f"name already registered: {name} (it is the name server's own)")

        def change(index: Index) -> Changes:
            old = index.get(name, self._clock)
            if old is None:
                if len(index.records) >= self._most:
                    raise NamingError(f"the name server is full: it takes {self._most} names (NS_MAX_NAMES)")
            elif safe and not (record.lease is not None and _owns(record.lease.owner, old)):
                raise NamingError("name already registered: " + name)
            return {name: record}

        self._change(change)

    def _change(self, decide: Callable[[Index], Changes]) -> Changes:
        """Have something changed by nobody else at the same time, in the storage first and then in memory."""
        with self._writing:
            with self.storage.exclusive():
                if self._shared:
                    self._catch_up()
                changes = decide(self._index)
                if changes:
                    self.storage.write(changes)
            self._index.apply(changes)
        return changes

    def _fresh(self, *, now: bool = False) -> Index:
        """The names, with what other processes have changed until a moment ago (or now).

        Never waits: while a thread is busy with the storage, the others see what was there before.
        """
        if not self._shared or (time.monotonic() - self._asked < self._fresh_for and not now):
            return self._index
        if self._writing.acquire(blocking=False):
            try:
                if self._shared:  # (not closed meanwhile)
                    self._asked = time.monotonic()
                    self._catch_up()
                    self._complained = False
            except NamingError as exc:  # the storage fails: we still know what we knew
                if not self._complained:
                    self._complained = True
                    log.warning("changes of other processes are not seen: %s", exc)
            finally:
                self._writing.release()
        return self._index

    def _catch_up(self) -> None:
        changes = self.storage.poll()
        if changes is None:
            self._index = Index(self.storage.load())
        elif changes:
            self._index.apply(changes)
        else:
            return
        if self._own is not None:  # who shares the storage with us has put itself there: each answers for itself
            self._index.apply({NAMESERVER_NAME: self._own})

    def _matching(self, regex: str) -> _List[str]:
        names = list(self._fresh().uris(self._clock()))
        return self._matcher.matching(regex, names)


def _owns(owner: str, record: Record) -> bool:
    return record.lease is not None and hmac.compare_digest(owner.encode(), record.lease.owner.encode())


def _answer(found: Mapping[str, Record], with_tags: bool) -> dict[str, Any]:
    if with_tags:
        return {name: (record.uri, set(record.tags)) for name, record in found.items()}
    return {name: record.uri for name, record in found.items()}
