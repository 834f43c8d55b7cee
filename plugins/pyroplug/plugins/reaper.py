"""Lifetimes: how long a registered object stays registered.

``daemon.register(obj, lifetime=...)`` says it for each object:

==================  ================================================================================
``"permanent"``     until it is unregistered (the default)
``"weak"``          as long as the program keeps the object (the same as ``weak=True``)
``"session"``       as long as the client whose call registered it stays connected
seconds             leased: until nobody has called it for that long
==================  ================================================================================

Each call renews a lease, and so does passing the object to somebody, and ``proxy._pyroRenew()`` (``renew`` of
the object ``Pyro.Daemon``).  No object is taken away while a call runs on it.  One that was taken away is told so:
its method ``_gotReaped()``, if it has one, is called once no call runs any more.  TRANSIENTS_CLEANUP_AGE leases all
objects that are registered during calls without an id and without a lifetime.

Objects without a lifetime are served as if this plugin were not there.
"""

from __future__ import annotations

import logging
import re
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, NamedTuple

from pyroplug.core.call import current_call
from pyroplug.core.connection import ServerConnection
from pyroplug.core.daemon import DAEMON_NAME, Daemon
from pyroplug.core.errors import DaemonError
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.kernel import Kernel
from pyroplug.core.members import expose
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.proxy import ProxyBase
from pyroplug.core.registry import Entry, ObjectEntry, WeakEntry
from pyroplug.core.settings import Schema, Setting
from pyroplug.core.stash import StashKey

__all__ = ["PLUGIN", "Reaper", "Registration", "reaper_of", "registrations", "set_transients_cleanup_age"]

PLUGIN = PluginInfo("reaper", "lifetimes of registered objects: weak, session, leased")

log = logging.getLogger("pyroplug.reaper")

PERMANENT, WEAK, SESSION, LEASED = "permanent", "weak", "session", "leased"
_WITHOUT_ID = re.compile(r"obj_[0-9a-f]{32}\Z")


class Registration(NamedTuple):
    """One object of a daemon and how it is held; times in seconds."""

    object_id: str
    type: str
    """Name of the object's class."""
    lifetime: str
    """``permanent``, ``weak``, ``session`` or ``leased``."""
    age: float
    idle: float | None
    """Since it was used; None where nobody counts."""
    expires: float | None
    """Until its lease ends, if nobody uses it; None for other lifetimes."""
    running: int | None
    """Calls that run on it now; None where nobody counts."""
    owner: str | None
    """The client whose call registered it."""


# --------------------------------------------------------------------------- what is held
class Session:
    """A connection as the owner of objects."""

    def __init__(self, peer: str, *, ended: bool = False) -> None:
        self.peer = peer
        self.entries: weakref.WeakSet[HeldEntry] = weakref.WeakSet()
        self.lock = threading.Lock()
        self.ended = ended


_SESSION = StashKey[Session]()
_SINCE = StashKey[float]()
_OWNER = StashKey[str]()


class Hold:
    """What holds one object: counts the calls that run on it, and knows when its time has come."""

    def __init__(self, target: Any, object_id: str, clock: Callable[[], float]) -> None:
        self._target = target
        self._object_id = object_id
        self._clock = clock
        self._lock = threading.Lock()
        self.session: Session | None = None
        self.seconds: float | None = None
        self.used = clock()
        self.running = 0
        self.ended = False
        self._taken = self._told = False

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, counted while it runs."""

        def call(*args: Any, **kwargs: Any) -> Any:
            with self._lock:
                if self.ended:  # between the look-up and here
                    raise DaemonError(f"unknown object: {self._object_id}")
                self.running += 1
            result: Any = None
            try:
                result = function(*args, **kwargs)
            finally:
                if not isinstance(result, Coroutine):
                    self._left()
            return self._until_done(result) if isinstance(result, Coroutine) else result

        return call

    async def _until_done(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """An async method runs until it is done, not until it is started."""
        try:
            return await coroutine
        finally:
            self._left()

    def _left(self) -> None:
        with self._lock:
            self.running -= 1
            self.used = self._clock()
        self._tell()

    def touch(self) -> None:
        """Renew the lease."""
        with self._lock:
            self.used = self._clock()

    def expires(self) -> float | None:
        """Seconds until the lease ends, or None without one."""
        if self.seconds is None:
            return None
        return self.seconds if self.running else max(0.0, self.used + self.seconds - self._clock())

    def due(self) -> bool:
        """Whether its time has come; no call begins any more then."""
        with self._lock:
            if (self.session is not None and self.session.ended) or (
                self.seconds is not None and not self.running and self.used + self.seconds <= self._clock()
            ):
                self.ended = True
            return self.ended

    def taken_away(self) -> None:
        """It is not registered any more, because it was due."""
        with self._lock:
            self._taken = True
        self._tell()

    def _tell(self) -> None:
        if not self._taken:
            return
        with self._lock:
            if self.running or self._told:
                return
            self._told = True
        told = getattr(self._target, "_gotReaped", None)
        if callable(told):
            try:
                told()
            except Exception:  # code of the program
                log.exception("_gotReaped of %s failed", self._object_id)


class HeldEntry(ObjectEntry):
    """An object with a session or a lease."""

    def __init__(self, entry: ObjectEntry, hold: Hold) -> None:
        self.hold = hold  # (and not the reverse: what is unregistered goes at once, without a garbage collection)
        super().__init__(entry.object_id, entry.members, entry.target)
        self.stash = entry.stash

    def bind(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return self.hold.around(super().bind(function))

    def touch(self) -> None:
        self.hold.touch()


class Reaper:
    """Takes away the objects of one daemon whose time has come.

    ``clock`` may be replaced by tests, before anything is registered.
    """

    def __init__(self, daemon: Daemon, transients_age: float) -> None:
        self._daemon = weakref.ref(daemon)
        self._held: weakref.WeakSet[HeldEntry] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._over = Session("", ended=True)  # that of all clients who owned nothing
        self.clock: Callable[[], float] = time.monotonic
        self.transients_age = transients_age
        """Seconds of the lease of objects that are registered during calls, without id and lifetime; 0: none."""

    def hold(self, entry: ObjectEntry, session: Session | None, seconds: float | None) -> HeldEntry:
        """An entry that ends with its session or lease."""
        hold = Hold(entry.target, entry.object_id, self.clock)
        hold.session, hold.seconds = session, seconds
        held = HeldEntry(entry, hold)
        if session is not None:
            with session.lock:
                if session.ended:
                    raise DaemonError("lifetime 'session': the client has gone already")
                session.entries.add(held)
        with self._lock:
            self._held.add(held)
        return held

    def reap(self) -> list[str]:
        """Take away what is due; the ids."""
        with self._lock:
            held = list(self._held)
        return [entry.object_id for entry in held if entry.hold.due() and self.take(entry)]

    def end(self, connection: ServerConnection) -> None:
        """A client has gone: take away what it owned."""
        # a call that still runs may come to register something: it finds a session that has ended
        session = connection.stash.setdefault(_SESSION, self._over)
        if session is self._over:
            return
        with session.lock:
            session.ended = True
            entries = list(session.entries)
        for entry in entries:
            if entry.hold.due():
                self.take(entry)

    def take(self, entry: HeldEntry) -> bool:
        """Take one away; False if somebody else was faster."""
        daemon = self._daemon()
        if daemon is None or daemon._registry.remove(entry.object_id, lambda found: found is entry) is None:
            return False
        if daemon._registry.id_of(entry.target) is None:
            for name in ("_pyroId", "_pyroDaemon"):
                try:
                    delattr(entry.target, name)
                except (AttributeError, TypeError):
                    pass  # takes no attributes
        log.debug("%s is not registered any more: its lifetime is over", entry.object_id)
        entry.hold.taken_away()
        return True


_REAPER = StashKey[Reaper]()


def reaper_of(daemon: Daemon) -> Reaper:
    """The reaper of a daemon."""
    reaper = daemon.stash.get(_REAPER, None)
    if reaper is None:
        age = daemon.kernel.settings.TRANSIENTS_CLEANUP_AGE
        reaper = daemon.stash.setdefault(_REAPER, Reaper(daemon, age))
    return reaper


def registrations(daemon: Daemon) -> list[Registration]:
    """What the program has registered with a daemon: who holds it, how long, since when."""
    now = reaper_of(daemon).clock()
    return [_describe(entry, now) for entry in list(daemon._registry.objects.values()) if _SINCE in entry.stash]


def set_transients_cleanup_age(daemon: Daemon, seconds: float) -> None:
    """Lease objects that are registered during calls, without id and lifetime, from now on (0: do not)."""
    if seconds < 0:
        raise ValueError(f"an age cannot be negative: {seconds}")
    reaper_of(daemon).transients_age = seconds


def _describe(entry: Entry, now: float) -> Registration:
    held = entry.hold if isinstance(entry, HeldEntry) else None
    target = entry.target
    cls = target if isinstance(target, type) else type(target)
    if held is not None:
        lifetime = SESSION if held.session is not None else LEASED
    else:
        lifetime = WEAK if isinstance(entry, WeakEntry) else PERMANENT
    return Registration(
        object_id=entry.object_id,
        type=cls.__qualname__,
        lifetime=lifetime,
        age=max(0.0, now - entry.stash[_SINCE]),
        idle=None if held is None else 0.0 if held.running else max(0.0, now - held.used),
        expires=None if held is None else held.expires(),
        running=None if held is None else held.running,
        owner=entry.stash.get(_OWNER, None),
    )


# --------------------------------------------------------------------------- what clients can ask
@expose
class Leases:
    """What the object ``Pyro.Daemon`` answers about lifetimes."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def renew(self, objectId: str) -> float:
        """Renew the lease of an object; the seconds that it has now.

        :raises DaemonError: there is no such object, or it has no lease
        """
        entry = self._daemon._registry.objects.get(objectId)
        if entry is None:
            raise DaemonError(f"unknown object: {objectId}")
        if not isinstance(entry, HeldEntry) or entry.hold.seconds is None:
            raise DaemonError(f"object has no lease: {objectId}")
        entry.touch()
        return entry.hold.seconds

    def leases(self) -> list[dict[str, Any]]:
        """What was registered by calls of this client, and how long it stays; nothing of other clients."""
        call = current_call.get()
        session = call.connection.stash.get(_SESSION, None) if call is not None else None
        if session is None:
            return []
        with session.lock:
            entries = list(session.entries)
        now = reaper_of(self._daemon).clock()
        told = [_describe(entry, now) for entry in entries if not entry.hold.ended]
        return [
            {
                "object": one.object_id,
                "lifetime": one.lifetime,
                "age": one.age,
                "idle": one.idle,
                "expires": one.expires,
            }
            for one in sorted(told, key=lambda one: one.object_id)
        ]


def _renew(proxy: ProxyBase) -> float:
    """``proxy._pyroRenew()``."""
    if proxy._pyroConnection is None:
        proxy._pyroBind()
    connection = proxy._pyroConnection
    object_id = connection.objectId if connection is not None else proxy._pyroUri.object
    return float(proxy._pyroInvoke("renew", (object_id,), {}, objectId=DAEMON_NAME))


# --------------------------------------------------------------------------- hooks
@hookimpl
def pyro_settings(schema: Schema) -> None:
    """TRANSIENTS_CLEANUP_AGE."""
    schema.add(
        Setting(
            "TRANSIENTS_CLEANUP_AGE",
            float,
            0.0,
            "seconds that objects stay which calls register without an id, when nobody uses them; 0: for ever",
            "reaper",
            minimum=0,
        )
    )


@hookimpl
def pyro_configure(kernel: Kernel) -> None:
    """``proxy._pyroRenew()``."""
    kernel.additions.methods["_pyroRenew"] = _renew


@hookimpl
def pyro_system_objects(daemon: Any) -> Mapping[str, Any]:
    """Methods of ``Pyro.Daemon``."""
    return {DAEMON_NAME: Leases(daemon)}


@hookimpl
def pyro_register(daemon: Any, entry: Entry, options: dict[str, Any]) -> Entry | None:
    """Take the option ``lifetime``."""
    lifetime = options.pop("lifetime", None)
    reaper = reaper_of(daemon)
    entry.stash[_SINCE] = reaper.clock()
    call = current_call.get()
    connection = call.connection if call is not None and call.connection.endpoint is daemon._endpoint else None
    if connection is not None:
        entry.stash[_OWNER] = connection.peer
    if lifetime is None:
        if connection is None or not reaper.transients_age or type(entry) is not ObjectEntry:
            return None
        if not _WITHOUT_ID.match(entry.object_id):
            return None
        lifetime = reaper.transients_age
    return _held(reaper, entry, lifetime, connection, daemon)


def _held(
    reaper: Reaper, entry: Entry, lifetime: Any, connection: ServerConnection | None, daemon: Daemon
) -> Entry | None:
    if lifetime == PERMANENT and not isinstance(entry, WeakEntry):
        return None
    if lifetime == WEAK and isinstance(entry, WeakEntry):
        return None
    if not isinstance(entry, ObjectEntry):
        what = "a weak registration" if isinstance(entry, WeakEntry) else "a class"
        raise TypeError(f"{what} cannot have the lifetime {lifetime!r}")
    if lifetime == WEAK:
        weak = WeakEntry(entry.object_id, entry.members, entry.target, daemon._registry.gone)
        weak.stash = entry.stash
        return weak
    if lifetime == SESSION:
        if connection is None:
            raise DaemonError("lifetime 'session' needs a client: register the object in a method that it calls")
        return reaper.hold(entry, _session(connection), None)
    if isinstance(lifetime, (int, float)) and not isinstance(lifetime, bool):
        if not lifetime > 0:
            raise ValueError(f"a lease must have more than 0 seconds, not {lifetime}")
        held = reaper.hold(entry, None, float(lifetime))
        if connection is not None:
            session = _session(connection)
            with session.lock:
                if not session.ended:
                    session.entries.add(held)  # only so that it can be asked for
        return held
    raise TypeError(f"lifetime cannot be {lifetime!r}: give 'permanent', 'weak', 'session' or seconds")


def _session(connection: ServerConnection) -> Session:
    session = connection.stash.get(_SESSION, None)
    return session or connection.stash.setdefault(_SESSION, Session(connection.peer))


@hookimpl
def pyro_closed(connection: ServerConnection) -> None:
    """Take away what the client owned."""
    daemon = getattr(connection.endpoint, "daemon", None)
    if daemon is not None:
        reaper_of(daemon).end(connection)


@hookimpl
def pyro_housekeeping(daemon: Any) -> None:
    """Look for leases that are over."""
    reaper_of(daemon).reap()
