"""TCP over IPv4 and IPv6: locations such as ``localhost:4444`` and ``[::1]:4444``.

Daemon options: ``host`` (text or :mod:`ipaddress` object; None is the setting HOST, an empty text is every
interface), ``port`` (0 is a free one), ``port_range`` (instead of the setting PORT_RANGE).

``localhost`` is served on 127.0.0.1 and on ::1 where both exist: :meth:`TcpTransport.listen` then returns a
:class:`~pyroplug.transports._sockets.ListenerGroup`.
"""

from __future__ import annotations

import builtins
import errno
import functools
import logging
import operator
import os
import selectors
import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any, Final

from pyroplug.core.errors import CommunicationError, ConfigError, TimeoutError
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Schema, Setting
from pyroplug.core.uri import CONNECTED_SOCKET

from . import netutil
from ._sockets import (
    BACKLOG,
    INHERITS_OPTIONS,
    ListenerGroup,
    ListenError,
    SocketListener,
    SocketStream,
    unmatched,
)

if TYPE_CHECKING:
    from pyroplug.core.interfaces import Transport
    from pyroplug.core.settings import Settings
    from pyroplug.core.uri import URI

__all__ = ["PLUGIN", "TcpTransport", "pyro_settings", "pyro_transports"]

PLUGIN = PluginInfo("tcp", "TCP connections over IPv4 and IPv6")

log = logging.getLogger(__name__)

Address = tuple[Any, ...]
Target = tuple[int, Address]
"""Address family and socket address."""
Failures = list[tuple[Address, OSError]]
Connected = tuple[socket.socket, Address]

_STAGGER: Final = 0.25  # seconds until the next address is tried as well (RFC 8305 recommends this)
_RANDOM_PORT_TRIES: Final = 5

# Windows answers EACCES where another program holds the port exclusively; elsewhere that is a privileged port
_TAKEN: Final = frozenset({errno.EADDRINUSE} | ({errno.EACCES} if os.name == "nt" else set()))
_NO_SUCH_ADDRESS: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
_EVERYWHERE: Final = frozenset({"0.0.0.0", "::"})
_OTHER_TRANSPORTS: Final = ("unixsocket", "connected_socket", "memory")


@hookimpl
def pyro_settings(schema: Schema) -> None:
    """R1: where to listen, and the socket options."""
    add = schema.add
    add(Setting("HOST", str, "localhost", "where daemons listen; empty for every interface", owner="tcp"))
    add(Setting("NATHOST", str, None, "host name to publish instead of the real one", owner="tcp", optional=True))
    add(Setting("NATPORT", int, 0, "port to publish with NATHOST; 0 for the real one", "tcp", minimum=0, maximum=65535))
    add(Setting("PREFER_IP_VERSION", int, 0, "4 or 6: only that one where there is a choice", "tcp", choices=(0, 4, 6)))
    add(Setting("SOCK_REUSE", bool, True, "a restarted daemon may have its port at once (SO_REUSEADDR)", owner="tcp"))
    add(Setting("SOCK_NODELAY", bool, True, "send small messages without delay (TCP_NODELAY)", owner="tcp"))
    add(Setting("SOCK_KEEPALIVE", bool, True, "let the system find dead peers (SO_KEEPALIVE)", owner="tcp"))
    add(Setting("PORT_RANGE", int, 0, "how many ports to try when the first is taken", "tcp", minimum=0, maximum=65535))
    add(BACKLOG)


@hookimpl
def pyro_transports() -> Iterable[Transport]:
    """R5: the transport of ``host:port`` locations."""
    return [TcpTransport()]


class TcpTransport:
    """Carries ``host:port``; keeps no state."""

    scheme = ""

    # ----------------------------------------------------------------------- the client's end
    def connect(self, uri: URI, timeout: float | None, settings: Settings) -> SocketStream:
        """A stream to ``uri``, trying every address of its host; see :class:`~pyroplug.core.interfaces.Transport`.

        Looking the name up counts towards ``timeout`` but cannot be interrupted by it.
        """
        host, port = uri.host, uri.port
        if host == CONNECTED_SOCKET:
            raise unmatched(uri)
        if host is None or port is None:
            raise CommunicationError(f"{uri} names no host and port")
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            targets = _resolve(host, port, settings.PREFER_IP_VERSION)
        except (OSError, ValueError) as error:  # ValueError: what is not even a host name (idna, null bytes)
            raise CommunicationError(f"cannot connect to {uri.location}: {_unresolved(host, error)}") from error
        failures: Failures = []
        # this machine answers or refuses at once: only addresses elsewhere can leave us waiting
        attempt = _in_turn if len(targets) == 1 or netutil.is_loopback(host) else _race
        connected = attempt(targets, deadline, failures)
        if connected is None:
            raise _not_connected(uri, timeout, failures)
        _configure(connected[0], settings)
        return SocketStream(*connected)

    # ----------------------------------------------------------------------- the daemon's end
    def listen(self, options: Mapping[str, Any], settings: Settings) -> SocketListener | ListenerGroup | None:
        """A listener for ``host`` and ``port``; a group of two for ``localhost`` on both IP versions.

        None when an option of another transport is given.

        :raises ListenError: the address cannot be had (also an OSError)
        :raises ConfigError: host or port are no such thing (also a ValueError)
        :raises ValueError: there is a ``natport`` without ``nathost``
        """
        if any(options.get(name) not in (None, "", False) for name in _OTHER_TRANSPORTS):
            return None
        nat = _nat(options, settings)
        host = _checked_host(options.get("host"), settings)
        port = _checked_port(options.get("port"))
        span = options.get("port_range")
        ports = _ports(port, settings.PORT_RANGE if span is None else int(span))
        sockets = _open(host, ports, settings)
        location = _location(host, sockets[0], settings)
        prepare = None if INHERITS_OPTIONS else (lambda sock: _configure(sock, settings))
        published = None if nat is None else _shown((nat[0], nat[1] or sockets[0].getsockname()[1]))
        listeners = [SocketListener(sock, location, published=published, prepare=prepare) for sock in sockets]
        log.debug("listening on %s", ", ".join(_shown(sock.getsockname()) for sock in sockets))
        return listeners[0] if len(listeners) == 1 else ListenerGroup(listeners, location)


def _configure(sock: socket.socket, settings: Settings) -> None:
    if settings.SOCK_NODELAY:
        netutil.set_nodelay(sock)
    if settings.SOCK_KEEPALIVE:
        netutil.set_keepalive(sock)


def _shown(address: Sequence[Any]) -> str:
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


# --------------------------------------------------------------------------- names to addresses
def _resolve(host: str, port: int, version: int, flags: int = 0) -> list[Target]:
    """The addresses of ``host``, IP versions taking turns; of ``version`` only, unless there are none of that."""
    targets = list(_plain_address(host, port) or _addresses(host, port, flags))
    if len(targets) == 1:
        return targets
    wanted = [target for target in targets if target[0] == {4: socket.AF_INET, 6: socket.AF_INET6}.get(version)]
    return wanted or _interleaved(targets)


@functools.lru_cache(maxsize=256)
def _plain_address(host: str, port: int) -> tuple[Target, ...]:
    """The address that a host is already, as nothing has to be looked up then; or nothing."""
    try:
        socket.inet_pton(socket.AF_INET, host)
    except (OSError, ValueError):
        return ()
    return ((socket.AF_INET, (host, port)),)


def _addresses(host: str, port: int, flags: int) -> Iterator[Target]:
    if host.lower() == "localhost":
        # by definition (RFC 6761), which saves reading the hosts file for every connection
        yield socket.AF_INET, ("127.0.0.1", port)
        if socket.has_ipv6:
            yield socket.AF_INET6, ("::1", port, 0, 0)
        return
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    for family, _, _, _, address in dict.fromkeys(found):
        if family in (socket.AF_INET, socket.AF_INET6):
            yield family, address


def _interleaved(targets: Sequence[Target]) -> list[Target]:
    first = [target for target in targets if target[0] == targets[0][0]]
    others = [target for target in targets if target[0] != targets[0][0]]
    return [target for target in chain.from_iterable(zip_longest(first, others)) if target is not None]


def _unresolved(host: str, error: Exception) -> str:
    reason = getattr(error, "strerror", None) or error
    return f"the host {host!r} cannot be found ({reason})"


# --------------------------------------------------------------------------- connecting
def _remaining(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise builtins.TimeoutError("timed out")
    return left


def _refuse_self(sock: socket.socket, address: Address) -> None:
    # a connection to a free local port of the ephemeral range can meet itself (TCP simultaneous open);
    # it would look alive, and keep the server from ever getting its port back
    if sock.getsockname()[:2] == address[:2]:
        raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))


def _in_turn(targets: Sequence[Target], deadline: float | None, failures: Failures) -> Connected | None:
    """One address after the other."""
    for family, address in targets:
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            failures.append((address, error))
            continue
        try:
            sock.settimeout(_remaining(deadline))
            sock.connect(address)
            _refuse_self(sock, address)
            return sock, address
        except OSError as error:
            sock.close()
            failures.append((address, error))
        except BaseException:
            sock.close()
            raise
    return None


def _race(targets: Sequence[Target], deadline: float | None, failures: Failures) -> Connected | None:
    """The next address as soon as one has failed or was silent for a moment; the first to answer wins.

    A host with a broken IPv6 route thus costs a quarter of a second, not the system's two minutes.
    """
    waiting = deque(targets)
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or selector.get_map():
                if waiting:
                    _begin(waiting.popleft(), selector, failures)
                    if not selector.get_map():
                        continue
                left = _remaining(deadline)
                patience = min(_STAGGER, left or _STAGGER) if waiting else left
                for key, _ in selector.select(patience):
                    selector.unregister(key.fileobj)
                    winner = _finished(key, failures)
                    if winner is not None:
                        return winner
        except builtins.TimeoutError as error:
            failures.extend((key.data, error) for key in selector.get_map().values())
            failures.extend((address, error) for _, address in waiting)
        finally:
            for key in selector.get_map().values():
                key.fileobj.close()  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue]
    return None


def _begin(target: Target, selector: selectors.BaseSelector, failures: Failures) -> None:
    family, address = target
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        failures.append((address, error))
        return
    sock.setblocking(False)
    code = sock.connect_ex(address)
    if code in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
        selector.register(sock, selectors.EVENT_WRITE, address)
    else:
        sock.close()
        failures.append((address, OSError(code, os.strerror(code))))


def _finished(key: selectors.SelectorKey, failures: Failures) -> Connected | None:
    sock = key.fileobj
    assert isinstance(sock, socket.socket)
    try:
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        _refuse_self(sock, key.data)
        return sock, key.data
    except OSError as error:
        sock.close()
        failures.append((key.data, error))
    return None


def _not_connected(uri: URI, timeout: float | None, failures: Failures) -> CommunicationError:
    """The error that says what was tried and what came of it."""
    tried = "; ".join(f"{_shown(address)} {(error.strerror or str(error)).lower()}" for address, error in failures)
    last = failures[-1][1] if failures else None
    if isinstance(last, builtins.TimeoutError):  # ours, or ETIMEDOUT of the system
        limit = "" if timeout is None else f" within {timeout:g} seconds"
        failure: CommunicationError = TimeoutError(f"cannot connect to {uri.location}{limit}: {tried}")
    else:
        refused = any(error.errno == errno.ECONNREFUSED for _, error in failures)
        hint = " (is the server running, and is this its port?)" if refused else ""
        failure = CommunicationError(f"cannot connect to {uri.location}: {tried}{hint}")
    failure.__cause__ = last
    return failure


# --------------------------------------------------------------------------- listening
def _checked_host(host: Any, settings: Settings) -> str:
    if host is None:
        host = settings.HOST
    if not isinstance(host, str):
        if not hasattr(host, "is_unspecified"):  # ipaddress objects
            raise ConfigError(f"host must be a text or an ipaddress object, not {host!r}")
        host = str(host)
    return str(host[1:-1] if host.startswith("[") and host.endswith("]") else host)


def _checked_port(port: Any) -> int:
    try:
        number = operator.index(0 if port is None else port)
    except TypeError:
        number = -1
    if isinstance(port, bool) or not 0 <= number <= 65535:
        raise ConfigError(f"port must be a whole number from 0 to 65535, not {port!r}")
    return number


def _ports(port: int, span: int) -> Sequence[int]:
    return range(port, min(port + max(span, 1), 65536)) if port else [0] * _RANDOM_PORT_TRIES


def _open(host: str, ports: Sequence[int], settings: Settings) -> list[socket.socket]:
    """Listening sockets for ``host`` on the first of ``ports`` that is free on all of its addresses."""
    groups = _groups(host, settings.PREFER_IP_VERSION)
    error: OSError | None = None
    for group in groups:
        for port in ports:
            try:
                return _bind(group, port, settings)
            except OSError as problem:
                error = problem
            if error.errno not in _TAKEN:
                break
        if error is not None and error.errno not in _NO_SUCH_ADDRESS:
            break
    assert error is not None  # there is always a group and a port
    if error.errno in _TAKEN and not ports[0] and len(groups[0]) > 1:
        log.warning("no port is free for %s on IPv4 and IPv6: listening on %s only", host, groups[0][0][1][0])
        with suppress(OSError):
            return _bind(groups[0][:1], 0, settings)
    raise _not_listening(host, ports, error) from error


def _groups(host: str, version: int) -> list[list[Target]]:
    """Alternatives for ``host``: the addresses of one group are listened on together."""
    if not host:
        host = "::" if version == 6 else "0.0.0.0"
    try:
        targets = _resolve(host, 0, version, socket.AI_PASSIVE)
    except (OSError, ValueError) as error:
        raise ListenError(f"cannot listen on {host!r}: {_unresolved(host, error)}") from error
    return [targets] if host.lower() == "localhost" else [[target] for target in targets]


def _bind(group: Sequence[Target], port: int, settings: Settings) -> list[socket.socket]:
    """A socket for each address of ``group``, all on one port; addresses this machine lacks are left out."""
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, address in group:
            if sockets:
                port = sockets[0].getsockname()[1]
            try:
                sockets.append(_listening(family, (address[0], port, *address[2:]), settings))
            except OSError as error:
                if error.errno not in _NO_SUCH_ADDRESS:
                    raise
                missing = error
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    if missing is not None and not sockets:
        raise missing
    return sockets


def _listening(family: int, address: Address, settings: Settings) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        netutil.set_exclusive(sock)
        if settings.SOCK_REUSE:
            netutil.set_reuseaddr(sock)
        if family == socket.AF_INET6:
            # every interface means IPv4 as well; elsewhere IPv4 has a socket of its own, or is not wanted
            with suppress(OSError, AttributeError):
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address[0] not in _EVERYWHERE)
        _configure(sock, settings)
        sock.bind(address)
        # at once: with SO_REUSEADDR only listening shows that somebody else has the port
        sock.listen(settings.LISTEN_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _not_listening(host: str, ports: Sequence[int], error: OSError) -> ListenError:
    where = f"{host or 'every interface'} port {ports[0]}"
    if error.errno not in _TAKEN:
        return ListenError(f"cannot listen on {where}: {error.strerror or error}", error.errno)
    if len(ports) > 1:
        return ListenError(f"cannot listen on {where}: this port and all up to {ports[-1]} are in use", error.errno)
    return ListenError(
        f"cannot listen on {where}: it is in use; choose another port, or 0 for any free one, or set PORT_RANGE to try "
        f"the following ones too",
        error.errno,
    )


# --------------------------------------------------------------------------- what is published
def _nat(options: Mapping[str, Any], settings: Settings) -> tuple[str, int] | None:
    """The host and port for URIs, where the daemon is told some; port 0 stands for its own."""
    host, port = options.get("nathost"), options.get("natport")
    if host is None:
        host = settings.NATHOST
    if host is None:
        if port is not None:
            raise ValueError("natport can only be given with nathost")
        return None
    return str(host), settings.NATPORT if port is None else port


def _location(host: str, sock: socket.socket, settings: Settings) -> str:
    """The location for URIs: the host as it was given, though never "every interface"."""
    bound, port = sock.getsockname()[:2]
    if bound in _EVERYWHERE:
        host = _own_address(settings.PREFER_IP_VERSION if sock.family == socket.AF_INET6 else 4)
        log.info("listening on every interface, publishing %s in URIs (NATHOST changes that)", host)
    elif bound.startswith("127.") and not netutil.is_loopback(host):
        _warn(host)
    return _shown((host, port))


def _own_address(version: int) -> str:
    name = socket.gethostname()
    try:
        plain = netutil.get_ip_address(name, version=version)
    except OSError:
        log.warning("the name of this machine, %s, does not resolve: others may not reach the objects here", name)
        return name
    if plain.is_loopback:
        _warn(name)
        plain = netutil.get_ip_address(name, workaround127=True, version=version)
    return str(plain)


def _warn(host: str) -> None:
    log.warning("weird DNS setup: %s resolves to localhost (127.x.x.x)", host)
