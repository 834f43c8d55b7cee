"""Takes names away whose servers are not there any more, for servers that have no leases.

With NS_AUTOCLEAN a thread connects to each registered location once in a while.  Names of a location that nobody could
connect to for 20 seconds are removed, unless they were registered anew meanwhile.  Leases look after themselves.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from pyroplug.core.errors import NamingError, PyroError
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.kernel import Kernel
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Schema, Setting
from pyroplug.core.uri import URI

from .records import Record, shown
from .table import naming_of

if TYPE_CHECKING:
    from .nsdaemon import NameServerDaemon
    from .server import NameServer

__all__ = ["PLUGIN", "AutoCleaner", "autoclean"]

PLUGIN = PluginInfo(
    "naming_autoclean", "a name server forgets names whose servers cannot be reached", requires=("naming",)
)

log = logging.getLogger("pyroplug.naming")

PERIOD = 2.0
"""Seconds between two looks whether it is time."""
UNREACHABLE = 20.0
"""Seconds after which a location that cannot be reached is given up."""
CONNECT_TIMEOUT = 5.0
"""Seconds to connect, if COMMTIMEOUT says nothing."""
PROBES = 16
"""Locations that are tried at a time."""


class AutoCleaner:
    """A thread beside a name server, and while it looks around some more.

    :param connect: tries a URI, and raises if nobody answers; without it, what the kernel's transports do
    :param clock: seconds; tests may turn it
    """

    def __init__(
        self,
        nameserver: NameServer,
        kernel: Kernel,
        connect: Callable[[URI], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        period: float = PERIOD,
    ) -> None:
        self._nameserver = nameserver
        self._kernel = kernel
        self._connect = connect or self._try
        self._clock = clock
        self._period = period
        self._timeout: float = kernel.settings.COMMTIMEOUT or CONNECT_TIMEOUT
        self._every: float = kernel.settings.NS_AUTOCLEAN
        self._unreachable: dict[str, float] = {}
        """Locations, and since when."""
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pyroplug-ns-autoclean", daemon=True)

    def start(self) -> None:
        """Look around from now on."""
        self._thread.start()

    def close(self) -> None:
        """End the thread; it may take as long as connecting does."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()

    def clean(self) -> int:
        """Look at each location once; how many names were removed."""
        names: dict[str, dict[str, str]] = {}
        for name, record in self._nameserver.records().items():
            location = _location(record)
            if location is not None:
                names.setdefault(location, {})[name] = record.uri
        answered = self._probe({location: URI(min(found.values())) for location, found in names.items()})
        now = self._clock()
        removed = 0
        for location, found in names.items():
            if answered.get(location, True):  # (not tried: we are about to end)
                self._unreachable.pop(location, None)
            elif now - self._unreachable.setdefault(location, now) >= UNREACHABLE:
                # what was registered anew since we looked is not meant
                gone = self._nameserver.forget(found, lambda name, record: record.uri != found[name])  # noqa: B023
                log.info("nobody answers at %s: removed %s", location, shown(found))
                removed += gone
        for location in self._unreachable.keys() - names.keys():
            del self._unreachable[location]
        return removed

    def _run(self) -> None:
        last = self._clock()
        while not self._end.wait(self._period):
            if self._clock() - last < self._every:
                continue
            try:
                self.clean()
            except NamingError as exc:  # the storage: it may be better next time
                log.warning("names of servers that are gone stay registered: %s", exc)
            last = self._clock()

    def _probe(self, uris: Mapping[str, URI]) -> dict[str, bool]:
        """By location: does anybody answer?"""
        waiting: queue.SimpleQueue[tuple[str, URI]] = queue.SimpleQueue()
        for item in uris.items():
            waiting.put(item)
        answered: dict[str, bool] = {}

        def work() -> None:
            while not self._end.is_set():
                try:
                    location, uri = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    self._connect(uri)
                    answered[location] = True
                except (PyroError, OSError):
                    answered[location] = False

        _together(work, min(PROBES, len(uris)))
        return answered

    def _try(self, uri: URI) -> None:
        self._kernel.connect(uri, self._timeout).close()


def _location(record: Record) -> str | None:
    """Where a registration leads, or None where that cannot or need not be tried."""
    if record.lease is not None:
        return None
    try:
        uri = URI(record.uri)
    except ValueError:  # an old file may hold anything
        return None
    return uri.location if uri.protocol == "PYRO" and uri.port != 0 else None


def _together(work: Callable[[], None], count: int) -> None:
    threads: Iterable[threading.Thread] = [
        threading.Thread(target=work, name=f"pyroplug-ns-probe-{number}", daemon=True) for number in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def autoclean(daemon: NameServerDaemon) -> AutoCleaner | None:
    """Clean up behind a name server, if NS_AUTOCLEAN says so."""
    if not daemon.kernel.settings.NS_AUTOCLEAN:
        return None
    cleaner = AutoCleaner(daemon.nameserver, daemon.kernel)
    cleaner.start()
    return cleaner


def _long_enough(seconds: float) -> str | None:
    return "is too short: at least 3 seconds, or 0 for never" if 0 < seconds < 3 else None


@hookimpl
def pyro_settings(schema: Schema) -> None:
    """NS_AUTOCLEAN."""
    schema.add(
        Setting(
            "NS_AUTOCLEAN",
            float,
            0.0,
            "seconds between rounds in which a name server looks for servers that are gone; 0: never",
            "naming_autoclean",
            minimum=0,
            check=_long_enough,
        )
    )


@hookimpl
def pyro_configure(kernel: Kernel) -> None:
    """A service beside each name server."""
    naming_of(kernel).services.append(autoclean)
