"""Finding a name server, and looking names up in it."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from pyroplug.core.client import Proxy
from pyroplug.core.errors import CommunicationError, ConfigError, NamingError, PyroError, TimeoutError
from pyroplug.core.kernel import Kernel, default_kernel
from pyroplug.core.settings import nearest
from pyroplug.core.stash import StashKey
from pyroplug.core.uri import URI, parse_location

from .table import NAMESERVER_NAME, Search, naming_of

__all__ = ["SERVERS", "Ambiguous", "Here", "NameServers", "SetHost", "locate_ns", "name_server_uri", "resolve"]

log = logging.getLogger("pyroplug.naming")

T = TypeVar("T")

NS_PORT_OF_URIS = 9090
"""What a URI says when its text names no port; the setting NS_PORT then decides."""
MAX_ALIASES = 10
"""How many names may stand for names, one after the other."""
FIRST_PAUSE = 0.02
"""Seconds until a name that is waited for is looked up again; doubled each time."""


class Ambiguous(NamingError):
    """Several name servers answered, and nobody said which one to take."""


# --------------------------------------------------------------------------- where
def name_server_uri(kernel: Kernel, host: Any, port: int | None = None) -> URI:
    """The URI of the name server at a place: a host, an :mod:`ipaddress` object, or ``./u:path``.

    :raises URIError: that is no place
    """
    text = str(host)
    port = port or kernel.settings.NS_PORT
    if not text.startswith(("./", "[")) and ":" in text:
        text = f"[{text}]"
    sockname, name, _ = parse_location(text, port)
    return URI.build("PYRO", NAMESERVER_NAME, sockname, name, None if sockname else port)


def _place_of(uri: URI) -> tuple[str | None, int | None]:
    """Host and port for :func:`locate_ns`, as a PYRONAME or PYROMETA uri has them."""
    if uri.sockname is not None:
        return uri.location, None
    return uri.host, None if uri.port == NS_PORT_OF_URIS else uri.port


def is_loopback(host: str) -> bool:
    """Whether a host name or address plainly means this machine."""
    host = host.strip("[]").lower()
    return host in ("localhost", "::1", "ip6-localhost") or host.startswith("127.") or host.endswith(".localhost")


class Here:
    """The name server of this machine, if NS_HOST says that it may be there."""

    name = "this machine"
    order = 10

    def locate(self, search: Search) -> Sequence[URI]:
        """The first that answers."""
        settings = search.kernel.settings
        if not is_loopback(settings.NS_HOST):
            return ()
        hosts = [settings.NS_HOST]
        if sys.platform == "linux" and "127.0.1.1" not in hosts and settings.NS_HOST != "::1":
            # where Debian keeps the name of the machine.  Linux answers or refuses at once; others may leave us waiting
            hosts.append("127.0.1.1")
        failure: CommunicationError | None = None
        for host in hosts:
            uri = name_server_uri(search.kernel, host, search.port)
            try:
                search.open(uri)
            except CommunicationError as exc:
                failure = failure or exc  # the first says it all
            else:
                return [uri]
        raise failure or CommunicationError("there is no place to look")


class SetHost:
    """The name server at NS_HOST, if that is another machine."""

    name = "NS_HOST"
    order = 30

    def locate(self, search: Search) -> Sequence[URI]:
        """The one there."""
        host = search.kernel.settings.NS_HOST
        if not host or is_loopback(host):
            return ()
        uri = name_server_uri(search.kernel, host)
        if uri.host:
            _must_exist(uri.host, search.left())
        search.open(uri)
        return [uri]


def _must_exist(host: str, seconds: float) -> None:
    """Look a host name up, in a thread because that cannot be interrupted: it may take the system a minute.

    :raises TimeoutError: it is not known by then
    """
    import socket

    if ":" in host or host.replace(".", "").isdigit():
        return
    done = threading.Event()

    def look_up() -> None:
        try:
            socket.getaddrinfo(host, None)
        except (OSError, ValueError):
            pass  # the transport will say it better
        done.set()

    threading.Thread(target=look_up, name="pyroplug-lookup", daemon=True).start()
    if not done.wait(seconds):
        raise TimeoutError(f"looking up the host {host!r} took longer than {seconds:.1f} seconds")


# --------------------------------------------------------------------------- finding
def locate_ns(
    host: Any = None,
    port: int | None = None,
    broadcast: bool | None = None,
    *,
    kernel: Kernel | None = None,
    timeout: float | None = None,
) -> Proxy:
    """A connected proxy of a name server.

    With a host just that one is asked.  Without, in this order: this machine (if NS_HOST is a loopback name), the
    network by broadcast, the URI file, DNS-SD, NS_HOST; each as far as its plugin is on and its settings say so.

    :param host: where it is, a name, an address, or ``./u:path``
    :param port: its port (default: NS_PORT); without a host also the port that broadcasts go to, as in Pyro
    :param broadcast: ask the whole network (default: NS_BROADCAST)
    :param timeout: seconds that all this may take (default: NS_TIMEOUT)
    :raises NamingError: none was found: what was tried, and how each failed; or several, and no way to choose
    """
    kernel = kernel or default_kernel()
    naming = naming_of(kernel)
    if broadcast:
        kernel.require("naming_broadcast")
    search = Search(kernel, timeout or kernel.settings.NS_TIMEOUT, port, broadcast)
    try:
        if host:
            return _at(search, name_server_uri(kernel, host, port))
        tried = []
        for locator in sorted(naming.locators, key=lambda locator: locator.order):
            try:
                found = locator.locate(search)
                if found:
                    return _choose(search, locator.name, found)
            except Ambiguous:
                raise
            except (PyroError, OSError) as exc:
                tried.append(f"{locator.name}: {exc}")
        off = ", ".join(sorted(name for name in kernel.plugins.reasons if name.startswith("naming_")))
        tried += [f"off: plugin {off}"] if off else []
        raise NamingError(f"failed to locate the name server. {'; '.join(tried) or 'Nothing was tried'}")
    finally:
        search.close()


def _at(search: Search, uri: URI) -> Proxy:
    try:
        if uri.host and not is_loopback(uri.host):
            _must_exist(uri.host, search.left())
        return search.take(uri)
    except CommunicationError as exc:
        raise NamingError(f"failed to locate the name server at {uri.location}: {exc}") from exc


def _choose(search: Search, way: str, found: Sequence[URI]) -> Proxy:
    """The one that was found, whatever number of addresses it has.

    :raises Ambiguous: there are several
    :raises CommunicationError: none of them lets us in
    """
    failures = []
    alive: dict[str, URI] = {}  # by where each says that it is: one may have answered from several interfaces
    first_only = len(found) == 1 or search.kernel.settings.NS_DISCOVERY == "first"
    for uri in found:
        try:
            proxy = search.open(uri)
            if first_only:
                return search.take(uri)
            alive.setdefault(str(proxy.lookup(NAMESERVER_NAME)), uri)
        except PyroError as exc:
            failures.append(f"{uri.location} answered, but: {exc}")
    if not alive:
        raise CommunicationError("; ".join(failures))
    if len(alive) > 1:
        places = ", ".join(sorted(uri.location for uri in alive.values()))
        raise Ambiguous(
            f"{len(alive)} name servers answered ({way}): {places}; say which one with NS_HOST and NS_PORT or in the "
            f"uri (PYRONAME:name@host:port), or set NS_DISCOVERY=first to take whichever answers first"
        )
    return search.take(next(iter(alive.values())))


# --------------------------------------------------------------------------- kept connections
class NameServers:
    """The name servers that a kernel has found, each with a connection that is used again.

    :param kernel: whose they are
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._lock = threading.Lock()
        self._found: dict[tuple[str | None, int | None], Proxy] = {}
        self._process = os.getpid()

    def ask(self, host: str | None, port: int | None, question: Callable[[Proxy], T]) -> T:
        """What ``question`` returns, given a proxy of the name server there (or anywhere, without host).

        Where the one that answered last is gone, another one is looked for, once.

        :raises NamingError: there is none, or what ``question`` raises
        :raises CommunicationError: the connection broke, and again
        """
        place = (host, port)
        known = self._known(place)
        if known is not None:
            try:
                return self._asked(known, question)
            except TimeoutError:
                self._forget(place, known)
                raise  # the time of the caller is over
            except CommunicationError as exc:
                log.debug("the name server %s is gone: %s", known._pyroUri, exc)
                self._forget(place, known)
        proxy = locate_ns(host, port, kernel=self._kernel)
        settings = self._kernel.settings
        proxy._pyroTimeout = settings.COMMTIMEOUT or settings.NS_TIMEOUT
        with self._lock:
            kept = self._found.setdefault(place, proxy)
        if kept is not proxy:  # another thread was faster
            proxy._pyroRelease()
        return self._asked(kept, question)

    def _asked(self, proxy: Proxy, question: Callable[[Proxy], T]) -> T:
        try:
            return question(proxy)
        finally:
            if "lease" not in proxy._pyroMethods:
                # one of Pyro5: as long as we stay connected, one of its few threads is there for us only
                proxy._pyroRelease()

    def _known(self, place: tuple[str | None, int | None]) -> Proxy | None:
        if self._process != os.getpid():
            # after a fork: these connections are the parent's, to be closed here but not to be talked on
            self._process = os.getpid()
            self._lock = threading.Lock()
            self._found = {}
        return self._found.get(place)

    def _forget(self, place: tuple[str | None, int | None], proxy: Proxy) -> None:
        with self._lock:
            if self._found.get(place) is proxy:
                del self._found[place]
        proxy._pyroRelease()

    def close(self) -> None:
        """Hang up everywhere."""
        with self._lock:
            proxies, self._found = list(self._found.values()), {}
        for proxy in proxies:
            proxy._pyroRelease()


SERVERS = StashKey[NameServers]()
"""Where a kernel has its name servers."""


# --------------------------------------------------------------------------- looking up
def resolve(uri: str | URI, delay_time: float = 0.0, *, policy: str | None = None, kernel: Kernel | None = None) -> URI:
    """The direct URI of what a ``PYRONAME:name@host:port`` or ``PYROMETA:tag,tag@host:port`` stands for.

    Where the location is left out the name server is looked for; where just the port is, it is NS_PORT.

    :param delay_time: seconds to wait for a name, or for a name server, that is not there yet (NS_LOOKUP_DELAY)
    :param policy: how to choose among several that have all the tags (NS_POLICY)
    :raises NamingError: there is no such name, or no name server
    """
    kernel = kernel or default_kernel()
    uri = URI(uri)
    delay = delay_time or kernel.settings.NS_LOOKUP_DELAY
    deadline = time.monotonic() + delay
    pause = FIRST_PAUSE
    while True:
        try:
            return _followed(uri, policy or kernel.settings.NS_POLICY, kernel)
        except Ambiguous:
            raise
        except (NamingError, CommunicationError):
            left = deadline - time.monotonic()
            if left <= 0:
                raise
        time.sleep(min(pause, left))
        pause = min(2 * pause, max(0.2, delay / 5))


def _followed(uri: URI, policy: str, kernel: Kernel) -> URI:
    """The URI at the end of names that stand for names."""
    way = [uri]
    while uri.protocol != "PYRO":
        uri = _looked_up(uri, policy, kernel)
        if uri in way or len(way) > MAX_ALIASES:
            raise NamingError(f"names that lead nowhere: {' -> '.join(map(str, [*way, uri]))}")
        way.append(uri)
    return uri


def _looked_up(uri: URI, policy: str, kernel: Kernel) -> URI:
    host, port = _place_of(uri)
    servers = kernel.stash[SERVERS]
    if uri.protocol == "PYRONAME":
        return URI(servers.ask(host, port, lambda ns: cast("URI | str", ns.lookup(uri.object))))
    choose = naming_of(kernel).policies.get(policy)
    if choose is None:
        known = naming_of(kernel).policies
        raise ConfigError(f"there is no policy {policy!r}{nearest(policy, known)}: allowed is {', '.join(known)}")
    tags = sorted(uri.object)
    found = servers.ask(host, port, lambda ns: cast("dict[str, str]", ns.yplookup(tags, None, False)))
    if not found:
        raise NamingError(f"nothing is registered that has all of the tags {', '.join(tags)}")
    candidates = [URI(found[name]) for name in sorted(found)]
    return candidates[0] if len(candidates) == 1 else choose(str(uri), candidates, kernel)
