"""What the parts of the name server share: the table of a kernel that they fill, and its interfaces."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

from pyroplug.core.client import Proxy
from pyroplug.core.errors import TimeoutError
from pyroplug.core.kernel import Kernel
from pyroplug.core.settings import Settings
from pyroplug.core.stash import StashKey
from pyroplug.core.uri import URI

if TYPE_CHECKING:
    from .nsdaemon import NameServerDaemon

__all__ = [
    "NAMESERVER_NAME",
    "NAMING",
    "Announcer",
    "Closeable",
    "Locator",
    "Naming",
    "Policy",
    "Responder",
    "Search",
    "naming_of",
]

NAMESERVER_NAME = "Pyro.NameServer"
"""The object id of every name server, and the name under which it registers itself."""


class Closeable(Protocol):
    """What has to be closed in the end."""

    def close(self) -> None:
        """Release it; harmless when repeated."""
        ...


class Responder(Closeable, Protocol):
    """Answers whoever looks for a name server, in a thread of its own or in somebody's event loop."""

    @property
    def locationStr(self) -> str:
        """Where it listens."""
        ...

    def fileno(self) -> int:
        """The descriptor that a foreign event loop watches for reading."""
        ...

    def processRequest(self) -> None:
        """Answer what has come."""
        ...

    def runInThread(self) -> Any:
        """Answer in a thread of its own until it is closed; the thread."""
        ...


class Search:
    """One search for a name server: how long it may take, and the proxies that it connected.

    :param kernel: who searches
    :param seconds: how long it may take, all locators together
    :param port: the port that the program gave without a host, or None
    :param broadcast: whether to ask the whole network; None: as the settings say
    """

    def __init__(self, kernel: Kernel, seconds: float, port: int | None = None, broadcast: bool | None = None) -> None:
        self.kernel = kernel
        self.seconds = seconds
        self.port = port
        self.broadcast = broadcast
        self.deadline = time.monotonic() + seconds
        self._opened: dict[URI, Proxy] = {}

    def left(self) -> float:
        """Seconds until the deadline.

        :raises TimeoutError: none are left
        """
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"no time left (NS_TIMEOUT: {self.seconds:g} seconds in all)")
        return left

    def open(self, uri: URI) -> Proxy:
        """A proxy that is connected to that name server; closed with the search unless :meth:`take` takes it.

        Its calls may take as long as the search.

        :raises CommunicationError: nobody answers there
        """
        proxy = self._opened.get(uri)
        if proxy is None:
            proxy = Proxy(uri, kernel=self.kernel)
            proxy._pyroTimeout = self.left()
            proxy._pyroBind()
            self._opened[uri] = proxy
        proxy._pyroTimeout = self.left()
        return proxy

    def take(self, uri: URI) -> Proxy:
        """The same, and from now on the caller's."""
        proxy = self.open(uri)
        del self._opened[uri]
        proxy._pyroTimeout = self.kernel.settings.COMMTIMEOUT or None
        return proxy

    def close(self) -> None:
        """Close what nobody took."""
        with ExitStack() as stack:
            for proxy in self._opened.values():
                stack.callback(proxy._pyroRelease)
            self._opened.clear()


class Locator(Protocol):
    """One way to find name servers."""

    @property
    def name(self) -> str:
        """What it is called in error texts, such as "broadcast"."""
        ...

    @property
    def order(self) -> int:
        """Whose turn it is: 10 this machine, 20 broadcast, 25 URI file, 28 DNS-SD, 30 the host that is set."""
        ...

    def locate(self, search: Search) -> Sequence[URI]:
        """All that answered; none when there is nothing to be tried this way.

        :raises PyroError: nobody answered, and why
        """
        ...


Announcer = Callable[["NameServerDaemon"], "Closeable | None"]
"""Starts something beside a name server that was made; the daemon closes what it returns."""


class Policy(Protocol):
    """Chooses one of several objects that would all do."""

    def __call__(self, wanted: str, candidates: Sequence[URI], kernel: Kernel) -> URI:
        """One of them.

        :param wanted: what was looked up, to tell one question from another
        :param candidates: at least one
        :raises PyroError: none of them will do
        """
        ...


class Naming:
    """What the plugins of one kernel know of naming; they fill it in ``pyro_configure``."""

    def __init__(self) -> None:
        self.storages: dict[str, Callable[[str, Settings], Any]] = {}
        """By the word before the colon of ``-s sql:file``; called with the text behind it."""
        self.locators: list[Locator] = []
        """Ways to find a name server, tried in the order of their ``order``."""
        self.announcers: list[Announcer] = []
        """What makes a running name server findable by itself, such as a file."""
        self.services: list[Announcer] = []
        """What works beside a running name server, such as cleaning."""
        self.responder: Callable[[NameServerDaemon, Any, int | None], Responder | None] | None = None
        """Makes what answers broadcasts, given host and port to listen on; None where that makes no sense."""
        self.policies: dict[str, Policy] = {}
        """Ways to choose among several providers, by the names that NS_POLICY knows."""


NAMING = StashKey[Naming]()
"""Where a kernel has its table."""


def naming_of(kernel: Kernel) -> Naming:
    """The table of a kernel.

    :raises PluginError: the plugin ``naming`` is off
    """
    kernel.require("naming")
    return kernel.stash[NAMING]
