"""The feature ``callcount``: a daemon counts the calls it answers, by method and by connection.

The numbers are on every daemon's own object, ``Pyro.Daemon``: ``call_counts()`` and ``reset_call_counts()``.  The
command ``pyroplug callcount HOST:PORT`` shows them.  Calls whose caller does not wait (oneway) are not answered and so
not counted.

How it comes together, in the order in which it happens:

* ``pyro_settings`` declares PYRO_CALLCOUNT_NAMES when the kernel is made.
* ``pyro_system_objects`` makes one ``Counts`` for each daemon and adds its methods to ``Pyro.Daemon``.
* ``pyro_bind`` gives each new connection a step to run before a reply is sent.  That step is all that happens
  during a call; no hook does.
* ``pyro_closed`` forgets a connection.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import click

from pyroplug.core.call import Call
from pyroplug.core.client import Proxy
from pyroplug.core.connection import ServerConnection
from pyroplug.core.daemon import DAEMON_NAME, Daemon
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.members import expose
from pyroplug.core.plan import Steps
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Schema, Setting
from pyroplug.core.stash import StashKey

__all__ = ["PLUGIN", "Counts", "command"]

PLUGIN = PluginInfo("callcount", "counts the calls of a daemon by method and connection")

OTHERS = "(others)"


class Counts:
    """The numbers of one daemon."""

    def __init__(self, names: int) -> None:
        self._names = names
        self._lock = threading.Lock()  # calls of different connections run at the same time
        self._methods: Counter[str] = Counter()
        self._connections: Counter[str] = Counter()

    def count(self, call: Call) -> None:
        """A call is about to be answered, with a result or an error."""
        method, peer = f"{call.object_id}.{call.method}", call.connection.peer
        with self._lock:
            # callers choose the names, so that their number has to have an end
            if method not in self._methods and len(self._methods) >= self._names:
                method = OTHERS
            self._methods[method] += 1
            self._connections[peer] += 1

    def forget(self, peer: str) -> None:
        """A connection has ended."""
        with self._lock:
            self._connections.pop(peer, None)

    @expose
    def call_counts(self) -> dict[str, dict[str, int]]:
        """How many calls were answered: by method since the start, by connection for those still there."""
        with self._lock:
            return {"methods": dict(self._methods), "connections": dict(self._connections)}

    @expose
    def reset_call_counts(self) -> None:
        """Start again from nothing."""
        with self._lock:
            self._methods.clear()
            self._connections.clear()


# the plugin keeps nothing in the module: two daemons, or two kernels, must not share numbers
_COUNTS = StashKey[Counts]()


@hookimpl
def pyro_settings(schema: Schema) -> None:
    """CALLCOUNT_NAMES: the environment variable is PYRO_CALLCOUNT_NAMES."""
    schema.add(
        Setting("CALLCOUNT_NAMES", int, 1000, "methods counted one by one, the rest together", "callcount", minimum=1)
    )


@hookimpl
def pyro_system_objects(daemon: Daemon) -> Mapping[str, Any]:
    """Join our methods to those that ``Pyro.Daemon`` has already."""
    counts = daemon.stash[_COUNTS] = Counts(daemon.kernel.settings.CALLCOUNT_NAMES)
    return {DAEMON_NAME: counts}


@hookimpl
def pyro_bind(connection: Any) -> Steps | None:
    """Count what this connection is answered; clients have nothing to count."""
    if connection.side != "server":
        return None
    return Steps(before_reply=connection.endpoint.daemon.stash[_COUNTS].count)


@hookimpl
def pyro_closed(connection: ServerConnection) -> None:
    """The numbers of a connection go with it."""
    connection.endpoint.daemon.stash[_COUNTS].forget(connection.peer)  # type: ignore[attr-defined] # in no Protocol


@click.command("callcount")
@click.argument("location")
def command(location: str) -> None:
    """Show the calls that the daemon at LOCATION (host:port or ./u:path) has answered."""
    with Proxy(f"PYRO:{DAEMON_NAME}@{location}") as daemon:
        counts = daemon.call_counts()
    for title, numbers in counts.items():
        click.echo(f"{title}:")
        for name, number in sorted(numbers.items(), key=lambda item: (-item[1], item[0])):
            click.echo(f"{number:>8}  {name}")


@hookimpl
def pyro_commands() -> Iterable[click.Command]:
    """A command for ``pyroplug``."""
    return [command]
