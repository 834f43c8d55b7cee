"""``ns``: start a name server."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import quote

import click

from pyroplug.cli.output import print_json, print_text
from pyroplug.cli.session import Session
from pyroplug.cli.target import debug_option
from pyroplug.core.errors import ConfigError, NamingError, PyroError
from pyroplug.core.kernel import Kernel
from pyroplug.plugins._signals import until_signal
from pyroplug.plugins.naming import NAMESERVER_NAME, naming_of
from pyroplug.plugins.naming.nsdaemon import NameServerDaemon, start_ns
from pyroplug.plugins.naming.table import Responder

__all__ = ["default_storage", "ns", "state_folder"]

MEMORY = "memory"


def state_folder() -> str:
    """Where this user's programs keep what is to outlive them.

    :raises ConfigError: the system does not say where that is
    """
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", "")
    elif sys.platform == "darwin":
        base = os.path.expanduser("~/Library/Application Support")
    else:
        base = os.environ.get("XDG_STATE_HOME", "") or os.path.expanduser("~/.local/state")
    if not os.path.isabs(base):
        raise ConfigError("there is no folder for the names of this user; choose -s sql:FILE or -s memory")
    return os.path.join(base, "pyroplug")


def default_storage(kernel: Kernel, host: str | None, port: int | None, unixsocket: str | None) -> str:
    """The storage of a name server for which none was chosen: a file of its own for each place that has one.

    Without a fixed place nobody could come back to the file, and without the plugin for it there is none: the names are
    then in memory only.

    :raises ConfigError: the folder cannot be made
    """
    settings = kernel.settings
    port = settings.NS_PORT if port is None else port
    if "sql" not in naming_of(kernel).storages or (not unixsocket and port == 0):
        return MEMORY
    place = f"u-{os.path.abspath(unixsocket)}" if unixsocket else f"{host or getattr(settings, 'HOST', '')}-{port}"
    folder = state_folder()
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
    except OSError as exc:
        raise ConfigError(f"{folder} cannot be made: {exc.strerror or exc}; choose -s sql:FILE or -s memory") from exc
    return "sql:" + os.path.join(folder, f"names-{quote(place, safe='')}.sqlite")


def _set(kernel: Kernel, name: str, plugin: str, value: Any) -> None:
    """Let a setting have the value of an option; ``plugin`` is whose setting it is."""
    if value is not None:
        kernel.require(plugin)
        setattr(kernel.settings, name, value)


@click.command(short_help="Start a name server.")
@click.option("-n", "--host", metavar="HOST", help="Host to listen on (default HOST).")
@click.option(
    "-p", "--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 for any free one (default NS_PORT)."
)
@click.option("-u", "--unixsocket", metavar="PATH", help="Unix socket to listen on, in place of host and port.")
@click.option(
    "-s",
    "--storage",
    metavar="STORAGE",
    help="Where the names are kept: memory, sql:FILE, dbm:FILE (default: an SQLite file of this user for this place).",
)
@click.option("-c", "--bchost", metavar="HOST", help="Where to listen for broadcasts (default NS_BCHOST).")
@click.option(
    "-b",
    "--bcport",
    type=click.IntRange(0, 65535),
    help="Port to listen on for broadcasts; 0 for any free one (default NS_BCPORT).",
)
@click.option("--nathost", metavar="HOST", help="Host that others see, behind NAT (default NATHOST).")
@click.option("--natport", type=click.IntRange(1, 65535), help="Port that others see, behind NAT (default NATPORT).")
@click.option("-x", "--nobc", is_flag=True, help="Do not answer broadcasts.")
@click.option("--allow-shutdown", is_flag=True, help="Clients may end it ('pyroplug nsc shutdown').")
@click.option("--urifile", metavar="FILE", help="Write the URI into this file, for programs that look there.")
@click.option(
    "--max-lease",
    type=click.FloatRange(min=1),
    metavar="SECONDS",
    help="Longest lease that is granted (default NS_LEASE_MAX).",
)
@click.option(
    "--autoclean",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="How often to look for names without a server and remove them (default NS_AUTOCLEAN).",
)
@click.option("-q", "--quiet", is_flag=True, help="Print nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON once it runs, for programs.")
@debug_option
@click.pass_obj
def ns(
    session: Session,
    host: str | None,
    port: int | None,
    unixsocket: str | None,
    storage: str | None,
    bchost: str | None,
    bcport: int | None,
    nathost: str | None,
    natport: int | None,
    nobc: bool,
    allow_shutdown: bool,
    urifile: str | None,
    max_lease: float | None,
    autoclean: float | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Start a name server, tell where it is, and serve until SIGINT (Ctrl-C) or SIGTERM.

    The names outlive it: they are kept in a file, one for each host and port, unless --storage says otherwise. Those
    of programs that are gone go with their leases. With port 0 they are kept in memory.
    """
    kernel = session.kernel
    if unixsocket and (host or port is not None):
        raise click.UsageError("--unixsocket is in place of --host and --port: give one or the other")
    if nobc and (bchost or bcport is not None):
        raise click.UsageError("--nobc says that broadcasts are not answered: --bchost and --bcport make no sense then")
    _set(kernel, "NS_URIFILE", "naming_urifile", urifile)
    _set(kernel, "NS_LEASE_MAX", "naming", max_lease)
    _set(kernel, "NS_AUTOCLEAN", "naming_autoclean", autoclean)
    chosen = storage if storage is not None else default_storage(kernel, host, port, unixsocket)
    allowed = allow_shutdown or kernel.settings.NS_ALLOW_SHUTDOWN
    with ExitStack() as stack:
        stack.enter_context(_only_errors_are_logged())
        try:
            _, daemon, responder = start_ns(
                host,
                port,
                not nobc,
                bchost,
                bcport,
                unixsocket,
                nathost,
                natport,
                chosen,
                kernel=kernel,
                allow_shutdown=allowed,
            )
        except NamingError as exc:
            raise click.ClickException(str(exc)) from exc  # it is ours, not one that cannot be found
        except ValueError as exc:
            if isinstance(exc, PyroError):
                raise
            raise ConfigError(str(exc)) from exc
        stack.callback(daemon.close)
        came = stack.enter_context(until_signal(daemon.shutdown))
        if responder is not None:
            stack.callback(responder.close)
            responder.runInThread()
        if not quiet:
            _tell(_facts(daemon, responder, chosen, allowed), as_json)
        try:
            daemon.requestLoop()
        except PyroError:
            if not came:
                raise  # a signal that comes before the loop closes the daemon at once


@contextmanager
def _only_errors_are_logged() -> Iterator[None]:
    """Without settings of the user's: that a name is unknown is an answer, and no news for who runs the name server."""
    logger = logging.getLogger("pyroplug")
    if logger.hasHandlers():
        yield
        return
    handler = logging.StreamHandler()
    handler.setLevel(logging.ERROR)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _facts(daemon: NameServerDaemon, responder: Responder | None, storage: str, shutdown: bool) -> dict[str, Any]:
    settings = daemon.kernel.settings
    uri, inside = (str(daemon.uriFor(NAMESERVER_NAME, nat=nat)) for nat in (True, False))
    return {
        "version": daemon.kernel.plugins.catalog["naming"].version,
        "storage": storage,
        "names": daemon.nameserver.count(),
        "broadcast": responder.locationStr if responder is not None else None,
        "urifile": getattr(settings, "NS_URIFILE", "") or None,
        "shutdown": shutdown,
        "internal_uri": inside if inside != uri else None,
        "uri": uri,
    }


def _tell(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(facts)
    else:
        kept = facts["names"] - 1  # without its own
        lines = [
            f"pyroplug {facts['version']} name server",
            f"storage: {facts['storage']}" + (f" ({kept} names kept)" if kept else ""),
            f"broadcasts: {'answered on ' + facts['broadcast'] if facts['broadcast'] else 'not answered'}",
            f"shutdown requests: {'accepted' if facts['shutdown'] else 'refused'}",
            *([f"URI file: {facts['urifile']}"] if facts["urifile"] else []),
            *([f"URI inside: {facts['internal_uri']}"] if facts["internal_uri"] else []),
            f"URI: {facts['uri']}",
            "name server running",
        ]
        print_text("\n".join(lines))
    sys.stdout.flush()
