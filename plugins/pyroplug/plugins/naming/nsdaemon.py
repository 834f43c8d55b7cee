"""The daemon of a name server, and starting one: alone, or inside a program that has an event loop of its own."""

from __future__ import annotations

import contextlib
import errno
import logging
import sys
from collections.abc import Callable
from typing import Any

from pyroplug.core.daemon import Daemon
from pyroplug.core.errors import ConfigError, NamingError
from pyroplug.core.kernel import Kernel, default_kernel
from pyroplug.core.settings import nearest
from pyroplug.core.uri import URI

from .locate import is_loopback, locate_ns
from .server import NameServer
from .table import NAMESERVER_NAME, Announcer, Responder, naming_of

__all__ = ["NameServerDaemon", "start_ns", "start_ns_loop"]

log = logging.getLogger("pyroplug.naming")

SECONDS_TO_ASK = 1.0
"""How long whoever has our port gets to say that it is a name server."""


class NameServerDaemon(Daemon):
    """A daemon whose one object is a name server.

    :param host: see :class:`~pyroplug.core.daemon.Daemon`
    :param port: TCP port (default: NS_PORT), 0 for any free one
    :param unixsocket: path of a Unix socket to use in place of host and port
    :param nathost: the host for URIs where it differs (NATHOST); what is registered is never translated
    :param natport: likewise the port (NATPORT)
    :param storage: ``memory``, or what other plugins know, such as ``sql:names.db``; or a storage
    :param allow_shutdown: whether clients may end it (default: NS_ALLOW_SHUTDOWN)
    :raises DaemonError: the location cannot be used
    :raises ConfigError: there is no such storage (also a ValueError)
    :raises NamingError: the storage cannot be used
    """

    nameserver: NameServer

    def __init__(
        self,
        host: Any = None,
        port: int | None = None,
        unixsocket: str | None = None,
        nathost: Any = None,
        natport: int | None = None,
        storage: Any = None,
        *,
        kernel: Kernel | None = None,
        allow_shutdown: bool | None = None,
        **options: Any,
    ) -> None:
        kernel = kernel or default_kernel()
        naming = naming_of(kernel)
        settings = kernel.settings
        self._beside = contextlib.ExitStack()
        where: int = settings.NS_PORT if port is None else port
        try:
            super().__init__(host, where, unixsocket, nathost, natport, kernel=kernel, **options)
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                _say_who_is_there(exc, kernel, unixsocket and f"./u:{unixsocket}", host, where)
            raise
        try:
            allowed = settings.NS_ALLOW_SHUTDOWN if allow_shutdown is None else allow_shutdown
            self.nameserver = NameServer(kernel, _storage(kernel, storage), shutdown=self.shutdown if allowed else None)
            self._beside.callback(self.nameserver.close)
            self.nameserver.announce(self.register(self.nameserver, NAMESERVER_NAME))
            self._start(naming.services)
        except BaseException:
            self.close()
            raise
        log.info("name server at %s, storage %s", self.locationStr, storage or "memory")

    def _start(self, starters: list[Announcer]) -> None:
        for start in starters:
            started = start(self)
            if started is not None:
                self._beside.callback(started.close)

    def announce(self) -> None:
        """Make it findable, in whatever ways the plugins and settings say: URI file, DNS-SD."""
        self._start(naming_of(self.kernel).announcers)

    def __enter__(self) -> NameServerDaemon:
        super().__enter__()
        return self

    def close(self) -> None:
        super().close()
        self._beside.close()


def _storage(kernel: Kernel, storage: Any) -> Any:
    if not isinstance(storage, str):
        return storage
    kind, _, rest = storage.partition(":")
    storages = naming_of(kernel).storages
    make = storages.get(kind)
    if make is None:
        raise ConfigError(
            f"invalid storage type {storage!r}{nearest(kind, storages)}: known are {', '.join(storages)}{kernel.off()}"
        )
    return make(rest, kernel.settings)


def _say_who_is_there(failure: OSError, kernel: Kernel, path: str | None, host: Any, port: int) -> None:
    """Add to the error what has the place already."""
    place = path or str(host or "localhost")
    try:
        with locate_ns(place, port, kernel=kernel, timeout=SECONDS_TO_ASK) as ns:
            failure.args = (f"{failure}: a name server is running there already ({ns._pyroUri})",)
    except NamingError:
        failure.args = (f"{failure}: something that is no name server has it",)


def start_ns(
    host: Any = None,
    port: int | None = None,
    enableBroadcast: bool = True,
    bchost: Any = None,
    bcport: int | None = None,
    unixsocket: str | None = None,
    nathost: Any = None,
    natport: int | None = None,
    storage: Any = None,
    *,
    kernel: Kernel | None = None,
    allow_shutdown: bool | None = None,
) -> tuple[URI, NameServerDaemon, Responder | None]:
    """Make a name server for an event loop of yours; its URI, its daemon, and what answers broadcasts or None.

    Serve the daemon with ``requestLoop``, with its ``sockets`` and ``events``, or ``combine`` it with another daemon.
    The responder has ``fileno`` and ``processRequest``, can be combined too, or run by ``runInThread()``; close both.

    :param enableBroadcast: answer broadcasts, if the plugin for that is on and other machines can reach us
    :param bchost: where to listen for them (default: NS_BCHOST)
    :param bcport: the port for them (default: NS_BCPORT), 0 for any free one
    :raises DaemonError: the location cannot be used

    The others are as for :class:`NameServerDaemon`.
    """
    daemon = NameServerDaemon(
        host, port, unixsocket, nathost, natport, storage, kernel=kernel, allow_shutdown=allow_shutdown
    )
    try:
        respond = naming_of(daemon.kernel).responder if enableBroadcast else None
        responder = respond(daemon, bchost, bcport) if respond is not None else None
        try:
            daemon.announce()
        except BaseException:
            if responder is not None:
                responder.close()
            raise
    except BaseException:
        daemon.close()
        raise
    return daemon.uriFor(NAMESERVER_NAME), daemon, responder


def start_ns_loop(
    host: Any = None,
    port: int | None = None,
    enableBroadcast: bool = True,
    bchost: Any = None,
    bcport: int | None = None,
    unixsocket: str | None = None,
    nathost: Any = None,
    natport: int | None = None,
    storage: Any = None,
    loopCondition: Callable[[], bool] = lambda: True,
    *,
    kernel: Kernel | None = None,
    allow_shutdown: bool | None = None,
) -> None:
    """Run a name server until it is shut down, ``loopCondition()`` is false, or Ctrl-C; says on stdout where it is.

    The arguments are those of :func:`start_ns`.
    """
    uri, daemon, responder = start_ns(
        host,
        port,
        enableBroadcast,
        bchost,
        bcport,
        unixsocket,
        nathost,
        natport,
        storage,
        kernel=kernel,
        allow_shutdown=allow_shutdown,
    )
    try:
        if responder is not None:
            responder.runInThread()
            print(f"Broadcast server running on {responder.locationStr}")  # noqa: T201 - what it is for
        elif enableBroadcast and not unixsocket and is_loopback(URI(f"PYRO:x@{daemon.locationStr}").host or ""):
            print("Only this machine can reach the name server: broadcasts are not answered")  # noqa: T201
        existing = daemon.nameserver.count() - 1
        if existing:
            print(f"The storage holds {existing} registrations")  # noqa: T201
        print(f"NS running on {daemon.locationStr}")  # noqa: T201
        if daemon.natLocationStr:
            print(f"internal URI = {daemon.uriFor(NAMESERVER_NAME, nat=False)}")  # noqa: T201
            print(f"external URI = {uri}")  # noqa: T201
        else:
            print(f"URI = {uri}")  # noqa: T201
        sys.stdout.flush()
        daemon.requestLoop(loopCondition)
    finally:
        if responder is not None:
            responder.close()
        daemon.close()
    print("NS shut down.")  # noqa: T201
