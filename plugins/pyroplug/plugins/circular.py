"""Circular calls end with an error: a daemon that runs one call at a time is not called by what it waits for.

A call that is made while another is served tells the server, in an annotation, through which daemons the calls went and
which of them serve nobody until this call has ended.  A call to one of these would wait for ever; it is a
:class:`~pyroplug.core.errors.CircularCallError` instead, raised before anything is sent.  Oneway calls wait for nothing,
so they neither tell nor are refused, unless they need a new connection.

Only our own ends tell (protocol extension "circular"): behind an old peer nothing is known.  Calls that a method makes
in other threads are not looked at, because the method may not wait for them.  On a connection that is there the daemon
is known by a random id.  On a new one it is known by its location; where that says nothing, such as a private address
of another machine, the connection fails after HANDSHAKE_TIMEOUT.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from pyroplug.core.call import Call, current_call
from pyroplug.core.connection import ClientConnection, ServerConnection
from pyroplug.core.errors import CircularCallError, RemoteProtocolError
from pyroplug.core.hookspecs import hookimpl, steady
from pyroplug.core.kernel import Kernel, WireRegister
from pyroplug.core.plan import Steps
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.stash import StashKey
from pyroplug.core.uri import CONNECTED_SOCKET
from pyroplug.core.wire import FLAG_ONEWAY

__all__ = ["PLUGIN", "WAITING", "Hop", "packed", "unpacked"]

PLUGIN = PluginInfo("circular", "calls that would wait for themselves end with an error")

EXTENSION = "circular"
"""The protocol extension, and the key under which a server tells its id in the handshake."""
WAITING = "WAIT"
"""The annotation."""
MAX_SIZE = 16 * 1024
"""A chain that takes more bytes is not told, and not read."""


class Hop(NamedTuple):
    """A daemon that a chain of calls went through."""

    id: str
    """Random; empty if it serves others meanwhile."""
    place: str
    """The machine that its locations hold for."""
    locations: tuple[str, ...]
    """How clients may call it, the published one first."""

    def is_at(self, place: str, *locations: str) -> bool:
        """Whether one of these locations, seen from ``place``, surely is this daemon's."""
        return any(
            location in self.locations and (place == self.place or _means_one_machine(location))
            for location in locations
        )


def packed(chain: Iterable[Hop]) -> bytes:
    """The value of the annotation."""
    return "\0\0".join("\0".join((hop.id, hop.place, *hop.locations)) for hop in chain).encode()


def unpacked(data: bytes) -> tuple[Hop, ...]:
    """The inverse of :func:`packed`.

    :raises RemoteProtocolError: no chain could be written like that
    """
    try:
        parts = [part.split("\0") for part in bytes(data[: MAX_SIZE + 1]).decode().split("\0\0")]
        if len(data) <= MAX_SIZE:
            return tuple(Hop(hop_id, place, (first, *others)) for hop_id, place, first, *others in parts)
    except ValueError:
        pass
    raise RemoteProtocolError(f"invalid annotation {WAITING}: {bytes(data[:40])!r}")


# --------------------------------------------------------------------------- who is where
_ID = StashKey[str]()
"""A daemon's id."""
_WELCOME = StashKey[Mapping[str, Any]]()
"""What its clients are told."""
_SERVER_ID = StashKey[Any]()
"""Where a client's connection has the id that the server told."""
_PLACE = StashKey[str]()
"""Where a kernel has the name of its machine."""
_TOLD = StashKey[tuple[tuple[Hop, ...], int]]()
"""Where a call has what its client told, and the thread that runs it."""


def _id_of(daemon: Any) -> str:
    known = daemon.stash.get(_ID, None)
    return str(known or daemon.stash.setdefault(_ID, os.urandom(8).hex()))


def _place_of(kernel: Kernel) -> str:
    known = kernel.stash.get(_PLACE, None)
    return known or kernel.stash.setdefault(_PLACE, _this_machine())


def _this_machine() -> str:
    """What tells this machine, or container, from others that have the same addresses inside."""
    parts = [socket.gethostname()]
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            parts.append(file.read().strip())
        parts.append(os.readlink("/proc/self/ns/net"))
    except OSError:
        pass  # no Linux
    return " ".join(parts)


def _means_one_machine(location: str) -> bool:
    """Whether a location means the same machine everywhere: no loopback, no private network, no Unix socket."""
    if location.startswith("./"):
        return False
    import ipaddress  # is not needed before calls come in chains

    host = location.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return host.lower() != "localhost"


def _hop(daemon: Any, waits: bool) -> Hop:
    locations = [daemon.natLocationStr, daemon.locationStr]
    bound = daemon.sock.getsockname() if daemon.sock is not None else None
    if isinstance(bound, tuple):
        host, port = bound[:2]
        locations.append(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    return Hop(_id_of(daemon) if waits else "", _place_of(daemon.kernel), tuple(dict.fromkeys(filter(None, locations))))


# --------------------------------------------------------------------------- the chain
def _chain(served: Call) -> Sequence[Hop]:
    """Whom a call goes through that is made here and now; empty when nobody has to wait for it."""
    told, thread = served.stash.get(_TOLD, ((), 0))
    if thread != threading.get_ident():
        told = ()
    daemon = served.connection.endpoint.daemon
    held: Sequence[Any] = getattr(daemon.transportServer, "held", tuple)()
    if not told and not held:
        return ()
    waiting = [acceptor.daemon for acceptor in held if acceptor.daemon is not daemon]
    return (*told, *(_hop(other, True) for other in waiting), _hop(daemon, bool(held)))


def _refuse(chain: Sequence[Hop], number: int, what: str) -> NoReturn:
    names = [hop.locations[0] for hop in chain[number:]]
    names.append(names[0])
    raise CircularCallError(
        f"circular call: {what} at {names[0]} would never be answered, because this daemon runs one call at a time and "
        f"waits for the very call that makes this one ({' -> '.join(names)}); let it run several at a time "
        f"(SERVERTYPE=thread), or make one of these calls oneway",
        names,
    )


def _look(call: Call) -> None:
    """On a connection that is there."""
    served = current_call.get()
    if served is None or call.flags & FLAG_ONEWAY:
        return
    chain = _chain(served)
    if not chain:
        return
    server = call.connection.stash.get(_SERVER_ID, None)
    for number, hop in enumerate(chain):
        if hop.id and hop.id == server:
            _refuse(chain, number, f"{call.object_id}.{call.method}")
    if EXTENSION in call.connection.extensions:
        told = packed(chain)
        if len(told) <= MAX_SIZE:
            call.annotations = {**call.annotations, WAITING: told}


def _keep(call: Call, data: bytes) -> None:
    call.stash[_TOLD] = unpacked(data), threading.get_ident()


_CLIENT = Steps(before_send=_look, probe=current_call.get)
_SERVER = Steps(annotations={WAITING: _keep})


# --------------------------------------------------------------------------- hooks
@hookimpl
def pyro_reserve(wire: WireRegister) -> None:
    """The annotation."""
    wire.annotation(WAITING)


@hookimpl
def pyro_extensions() -> Iterable[str]:
    """Chains are told and read."""
    return [EXTENSION]


@hookimpl
def pyro_hello(connection: ClientConnection) -> None:
    """A daemon that waits does not answer a handshake either."""
    served = current_call.get()
    uri = connection.uri
    if served is None or uri is None or uri.host == CONNECTED_SOCKET:
        return
    chain = _chain(served)
    if chain:
        place = _place_of(served.connection.endpoint.daemon.kernel)
        for number, hop in enumerate(chain):
            if hop.id and hop.is_at(place, uri.location, connection.peer):
                _refuse(chain, number, f"a new connection for {uri.object}")


@hookimpl
def pyro_validate_handshake(connection: ServerConnection) -> Mapping[str, Any] | None:
    """Tell the client which daemon this is, if it may have to know."""
    daemon: Any = connection.endpoint.daemon  # type: ignore[attr-defined]
    if EXTENSION not in connection.extensions or getattr(daemon.transportServer, "concurrent", False):
        return None
    welcome = daemon.stash.get(_WELCOME, None)
    return welcome or daemon.stash.setdefault(_WELCOME, {EXTENSION: _id_of(daemon)})  # type: ignore[no-any-return]


@hookimpl
def pyro_validate_welcome(connection: ClientConnection, welcome: Mapping[str, Any]) -> None:
    """Remember it."""
    if EXTENSION in welcome:
        connection.stash[_SERVER_ID] = welcome[EXTENSION]


@hookimpl
@steady
def pyro_bind(connection: Any) -> Steps | None:
    """Calls that are made while another is served are looked at; what is told is kept."""
    if connection.side == "client":
        return _CLIENT if connection.blocking else None  # a task that awaits holds nobody up
    return _SERVER if EXTENSION in connection.extensions else None
