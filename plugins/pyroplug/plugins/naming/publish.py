"""What the daemons of a kernel have published: leases, the heartbeat that renews them, and taking names back.

A name that a daemon publishes is leased: it disappears NS_LEASE seconds after the daemon has, and at once when the
daemon is closed.  One thread for all of them renews the leases.  It also registers again what a name server has
forgotten, and what nobody else holds any more.  Name servers that know no leases (Pyro5's) get plain registrations,
which are looked after in the same way, except that a crash leaves them behind.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Iterable
from typing import Any

from pyroplug.core.client import Proxy
from pyroplug.core.daemon import Daemon
from pyroplug.core.errors import CommunicationError, DaemonError, NamingError, PyroError
from pyroplug.core.kernel import Kernel
from pyroplug.core.stash import StashKey
from pyroplug.core.uri import URI

from .locate import SERVERS

__all__ = ["PUBLICATIONS", "PUBLISHER", "Publication", "Publications", "Publisher", "type_meta"]

log = logging.getLogger("pyroplug.naming")

BEATS = 3
"""How often a lease is renewed before it would end."""
LONGEST_PAUSE = 5.0
"""Seconds until a name server that was away is asked again, at most."""


class Publication:
    """One name that a daemon has published.

    :param seconds: of its lease; 0: none
    :param persistent: it stays when the daemon is closed
    """

    def __init__(self, name: str, uri: URI, metadata: Iterable[str], seconds: float, persistent: bool) -> None:
        self.name = name
        self.uri = uri
        self.metadata = sorted(set(metadata))
        self.seconds = seconds
        self.persistent = persistent
        self.leased = False
        """The name server has given a lease."""
        self.lost = False
        """Somebody else has the name now."""
        self.withdrawn = False
        """Nobody wants it any more."""

    @property
    def pause(self) -> float:
        """Seconds between two looks at it."""
        return self.seconds / BEATS if self.seconds else float("inf")


class Publications:
    """The names of one daemon, and the secret that its leases belong to."""

    def __init__(self) -> None:
        self.owner = os.urandom(16).hex()
        self.names: dict[str, Publication] = {}


PUBLICATIONS = StashKey[Publications]()
"""Where a daemon has its names."""


class Publisher:
    """Publishes the names of all daemons of a kernel, and keeps them up."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._away = False
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._daemons: weakref.WeakSet[Daemon] = weakref.WeakSet()
        self._thread: threading.Thread | None = None
        self._process = os.getpid()

    def _is_copy(self) -> bool:
        """Whether this was made by a fork: the names and the thread are the parent's, and the lock may be held."""
        return self._process != os.getpid()

    # ----------------------------------------------------------------- for daemons
    def publish(
        self,
        daemon: Daemon,
        target: Any,
        name: str,
        *,
        metadata: Iterable[str] = (),
        lease: float | None = None,
        persistent: bool = False,
        safe: bool = False,
    ) -> URI:
        """Make an object, a class or a URI known under a name; the URI.

        :param daemon: who publishes it, and takes it back when it is closed
        :param metadata: tags, for PYROMETA uris
        :param lease: seconds that the name outlives a crash of this program; 0: for ever (default: NS_LEASE)
        :param persistent: leave the name when the daemon is closed; an object that is not registered yet gets
            the id that the name has stood for until now, so that old URIs hold
        :param safe: refuse a name that somebody has
        :raises NamingError: no name server, or ``safe`` and the name is taken
        """
        if not name:
            raise NamingError("a name cannot be empty")
        if isinstance(metadata, str):
            raise TypeError("metadata must be several texts, not one")
        seconds = self._kernel.settings.NS_LEASE if lease is None else float(lease)
        if seconds < 0:
            raise ValueError(f"a lease cannot have less than 0 seconds: {lease}")
        uri = self._uri_of(daemon, target, name, persistent)
        entry = Publication(name, uri, metadata, seconds, persistent)
        if self._is_copy():
            self._begin()
            daemon.stash.pop(PUBLICATIONS, None)
        publications = daemon.stash.setdefault(PUBLICATIONS, Publications())
        self._ask(lambda ns: _register(ns, publications.owner, entry, safe))
        with self._lock:
            publications.names[name] = entry
            self._daemons.add(daemon)
            self._start()
        return uri

    def withdraw(self, daemon: Daemon, name: str) -> bool:
        """Take a name back, if it still is this daemon's; False if the daemon has published no such name."""
        publications = daemon.stash.get(PUBLICATIONS, None)
        entry = publications.names.pop(name, None) if publications is not None else None
        if publications is None or entry is None:
            return False
        entry.withdrawn = True
        owner = publications.owner
        self._ask(lambda ns: _remove(ns, owner, [entry]))
        return True

    def closed(self, daemon: Daemon) -> None:
        """A daemon ends: take back what is not persistent; that nobody answers is no error."""
        publications = daemon.stash.pop(PUBLICATIONS, None)
        if publications is None or self._is_copy():
            return
        with self._lock:
            self._daemons.discard(daemon)
            self._changed.notify_all()
        entries = [entry for entry in publications.names.values() if not entry.persistent]
        if not entries:
            return
        for entry in entries:
            entry.withdrawn = True
        try:
            self._ask(lambda ns: _remove(ns, publications.owner, entries))
        except PyroError as exc:
            log.warning("%s stay in the name server: %s", ", ".join(entry.name for entry in entries), exc)

    def _uri_of(self, daemon: Daemon, target: Any, name: str, persistent: bool) -> URI:
        if isinstance(target, (URI, str)):
            return URI(target)
        try:
            return daemon.uriFor(target)
        except DaemonError:
            pass
        object_id = None
        if persistent:
            try:
                object_id = self._ask(lambda ns: URI(ns.lookup(name))).object
            except NamingError:
                pass  # it is published for the first time
        return daemon.register(target, object_id if isinstance(object_id, str) else None)

    def _ask(self, question: Any) -> Any:
        return self._kernel.stash[SERVERS].ask(None, None, question)

    # ----------------------------------------------------------------- the heartbeat
    def _start(self) -> None:
        """With the lock held: have the names looked after."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._beat, name="pyroplug-heartbeat", daemon=True)
            self._thread.start()
            atexit.register(self._exit)
        self._changed.notify_all()

    def _beat(self) -> None:
        """The thread: as long as any daemon has names."""
        next_time = 0.0
        while True:
            with self._lock:
                pauses = [entry.pause for _, entry in self._entries()]
                if not pauses:
                    self._thread = None
                    break
                pause = min(pauses)
                now = time.monotonic()
                if not next_time:
                    next_time = now + pause
                next_time = min(next_time, now + pause)
                if now < next_time:
                    self._changed.wait(min(next_time - now, threading.TIMEOUT_MAX))
                    continue
            away = self._round()
            next_time = time.monotonic() + min(pause, LONGEST_PAUSE if away else pause)
        atexit.unregister(self._exit)

    def _entries(self) -> list[tuple[Publications, Publication]]:
        found = [daemon.stash.get(PUBLICATIONS, None) for daemon in list(self._daemons)]
        return [(names, entry) for names in found if names is not None for entry in list(names.names.values())]

    def _round(self) -> bool:
        """Look after all names once; whether the name server was away."""
        with self._lock:
            entries = self._entries()
        owners: dict[str, list[Publication]] = {}
        for publications, entry in entries:
            if entry.seconds:
                owners.setdefault(publications.owner, []).append(entry)
        try:
            for owner, group in owners.items():
                self._ask(lambda ns, owner=owner, group=group: _renew(ns, owner, group))
        except (CommunicationError, NamingError) as exc:
            if not self._away:
                log.warning("the name server is away, names will be registered again when it is back: %s", exc)
            self._away = True
            return True
        if self._away:
            log.info("the name server is back")
        self._away = False
        return False

    def _exit(self) -> None:
        """The interpreter ends, and some daemons were not closed."""
        for daemon in list(self._daemons):
            self.closed(daemon)

    def close(self) -> None:
        """The kernel is closed: no more heartbeats."""
        if self._is_copy():
            return
        with self._lock:
            self._daemons.clear()
            thread = self._thread
            self._changed.notify_all()
        if thread is not None:
            thread.join(self._kernel.settings.NS_TIMEOUT)


def type_meta(class_or_object: Any, prefix: str = "class:") -> set[str]:
    """Tags that tell the classes of an object, or of a class and its bases: ``class:module.Name``."""
    cls = class_or_object if isinstance(class_or_object, type) else type(class_or_object)
    return {f"{prefix}{base.__module__}.{base.__name__}" for base in cls.__mro__ if base.__module__ != "builtins"}


PUBLISHER = StashKey[Publisher]()
"""Where a kernel has its publisher."""


# --------------------------------------------------------------------------- what is said to the name server
def _knows_leases(ns: Proxy) -> bool:
    return "lease" in ns._pyroMethods


def _register(ns: Proxy, owner: str, entry: Publication, safe: bool) -> None:
    if entry.seconds and not entry.persistent and _knows_leases(ns):
        granted = ns.lease(entry.name, str(entry.uri), owner, entry.seconds, entry.metadata, safe)
        entry.seconds, entry.leased = float(granted), True
    else:
        ns.register(entry.name, str(entry.uri), safe, entry.metadata)
        entry.leased = False
    entry.lost = False


def _remove(ns: Proxy, owner: str, entries: list[Publication]) -> None:
    leased = [entry.name for entry in entries if entry.leased]
    if leased and _knows_leases(ns):
        ns.release(owner, leased)
    for entry in entries:
        if not entry.leased and _holder(ns, entry.name) == str(entry.uri):
            ns.remove(entry.name)


def _renew(ns: Proxy, owner: str, entries: list[Publication]) -> None:
    leased = [entry.name for entry in entries if entry.leased]
    answers = dict(ns.renew(owner, leased)) if leased and _knows_leases(ns) else {}
    for entry in entries:
        answer = answers.get(entry.name)
        if answer is None:  # no lease: is it there at all?
            holder = _holder(ns, entry.name)
            answer = "unknown" if holder is None else "ok" if holder == str(entry.uri) else "lost"
        if answer == "unknown":
            answer = _again(ns, owner, entry)
        if answer == "lost" and not entry.lost:
            log.warning("somebody else has taken the name %s: it does not stand for %s any more", entry.name, entry.uri)
        entry.lost = answer == "lost"


def _again(ns: Proxy, owner: str, entry: Publication) -> str:
    if entry.withdrawn:
        return "ok"
    try:
        _register(ns, owner, entry, safe=True)
    except NamingError:
        return "lost"  # another one was faster
    if entry.withdrawn:  # meanwhile
        _remove(ns, owner, [entry])
        return "ok"
    log.info("registered %s again", entry.name)
    return "ok"


def _holder(ns: Proxy, name: str) -> str | None:
    """What the name stands for now."""
    try:
        return str(ns.lookup(name))
    except NamingError:
        return None
