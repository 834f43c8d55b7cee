"""What ``doctor`` looks at: this machine first, then, with a URI, the way to an object and back."""

from __future__ import annotations

import importlib.metadata
import ipaddress
import os
import platform
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pyroplug.core.client import Proxy
from pyroplug.core.daemon import Daemon
from pyroplug.core.errors import CommunicationError, ConfigError, ConnectionRefusedByPeer, PyroError
from pyroplug.core.members import expose
from pyroplug.core.settings import CONTROL_VARIABLES, PREFIX, nearest
from pyroplug.core.uri import URI
from pyroplug.core.wire import PROTOCOL_VERSION

from .output import milliseconds
from .probe import look
from .target import ClientOptions

if TYPE_CHECKING:
    from pyroplug.core.kernel import Kernel

    from .session import Session

__all__ = ["FAIL", "OK", "WARN", "Check", "local_checks", "uri_checks"]

OK: Final = "OK"
WARN: Final = "WARN"
FAIL: Final = "FAIL"

T = TypeVar("T")

_DEPENDENCIES: Final = ("pluggy", "serpent", "msgpack", "click")
_MESSAGE: Final[Mapping[str, object]] = {"text": "héllo", "numbers": [1, 2.5, -3], "nothing": None}


@dataclass(frozen=True)
class Check:
    """One line of the list."""

    name: str
    status: str
    text: str
    advice: str = ""
    """What to do about it."""


class _Echo:
    @expose
    def echo(self, value: Any) -> Any:
        return value


# =========================================================================== this machine
def local_checks(session: Session, options: ClientOptions) -> Iterator[Check]:
    """Everything that needs no other machine."""
    yield _versions()
    yield _environment()
    kernel = session.try_kernel()
    if isinstance(kernel, Exception):
        what = "settings" if isinstance(kernel, ConfigError) else "plugins"
        yield Check(what, FAIL, str(kernel), "correct this first: nothing else can be checked before")
        return
    yield from _plugins(kernel)
    yield _serializers(kernel)
    yield _logging(kernel)
    yield _hostname()
    yield _localhost(4)
    yield _localhost(6)
    yield _binding(kernel)
    wait = options.timeout or 5.0
    yield _loopback(kernel, options, wait, "loopback tcp", {"host": "localhost"})
    if "u" in kernel.transports:
        yield _loopback_unix(kernel, options, wait)


def _versions() -> Check:
    found, missing = [], []
    for name in ("pyroplug", *_DEPENDENCIES):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    text = f"{platform.python_implementation()} {platform.python_version()}, {', '.join(found)}"
    if missing:
        return Check(
            "versions", FAIL, f"{text}; not installed: {', '.join(missing)}", "install pyroplug again, with pip"
        )
    return Check("versions", OK, text)


def _environment() -> Check:
    # the settings of plugins are only known with a kernel, which has told about unknown names by then
    found = sorted(name for name in os.environ if name.startswith(PREFIX))
    if not found:
        return Check("environment", OK, "no PYRO_ variables, all defaults")
    return Check("environment", OK, f"set: {', '.join(found)}")


def _plugins(kernel: Kernel) -> Iterator[Check]:
    known = {setting.variable for setting in kernel.settings.schema} | set(CONTROL_VARIABLES)
    unknown = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)
    if unknown:
        names = ", ".join(name + nearest(name, known) for name in unknown)
        yield Check("variables", WARN, f"nobody reads {names}", "correct or remove them; 'pyroplug config' lists all")
    loaded = kernel.plugins.loaded
    unsafe = [name for name, info in loaded.items() if info.unsafe]
    text = f"{len(loaded)} of {len(list(kernel.plugins.catalog))} are on"
    if unsafe:
        yield Check(
            "plugins",
            WARN,
            f"{text}; UNSAFE: {', '.join(sorted(unsafe))}",
            "they run code that comes from the network: use them only where all sides trust each other",
        )
    else:
        yield Check("plugins", OK, text)


def _serializers(kernel: Kernel) -> Check:
    settings = kernel.settings
    there = ", ".join(sorted(kernel.serializers))
    try:
        kernel.serializer_id(settings.SERIALIZER)
        kernel.server_plan()
    except PyroError as exc:
        return Check(
            "serializers", FAIL, str(exc), "set PYRO_SERIALIZER and PYRO_SERIALIZERS_ACCEPTED to what there is"
        )
    accepted = settings.SERIALIZERS_ACCEPTED
    text = f"{there}; proxies use {settings.SERIALIZER}, daemons accept {', '.join(sorted(accepted))}"
    if settings.SERIALIZER not in accepted:
        return Check("serializers", WARN, text, "daemons with these settings refuse proxies with these settings")
    return Check("serializers", OK, text)


def _logging(kernel: Kernel) -> Check:
    level = getattr(kernel.settings, "LOGLEVEL", None)
    if level is None:
        return Check("logging", OK, "off; PYRO_LOGLEVEL=DEBUG shows what happens")
    target = kernel.settings.LOGFILE
    if target == "{stderr}":
        return Check("logging", OK, f"{level} to stderr")
    folder = os.path.dirname(os.path.abspath(target))
    writable = os.access(target, os.W_OK) if os.path.exists(target) else os.access(folder, os.W_OK)
    if not writable:
        return Check("logging", FAIL, f"{target} cannot be written", "set PYRO_LOGFILE to a file that can")
    return Check("logging", OK, f"{level} to {target}")


def _hostname() -> Check:
    name = socket.gethostname()
    advice = "add it to the hosts file or DNS, or give daemons the address that others use: PYRO_HOST, PYRO_NATHOST"
    try:
        addresses = sorted(_bounded(lambda: _addresses(name, 0), 5.0))
    except TimeoutError:
        return Check("hostname", WARN, f"{name}: no answer from the name service", advice)
    except OSError as exc:
        return Check("hostname", WARN, f"{name} does not resolve ({exc.strerror or exc})", advice)
    shown = ", ".join(addresses)
    if all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in addresses):
        return Check("hostname", WARN, f"weird DNS setup: {name} resolves to localhost ({shown})", advice)
    return Check("hostname", OK, f"{name} is {shown}")


def _addresses(host: str, port: int) -> set[str]:
    return {str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}


def _bounded(function: Callable[[], T], seconds: float) -> T:
    """The result of a function that cannot be given a time limit; TimeoutError when it takes longer."""
    results: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(function())
        except Exception as exc:  # handed on below
            errors.append(exc)

    thread = threading.Thread(target=run, name="pyroplug-doctor-look-up", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError
    return results[0]


def _localhost(version: int) -> Check:
    family, address = (socket.AF_INET, "127.0.0.1") if version == 4 else (socket.AF_INET6, "::1")
    name = f"localhost ipv{version}"
    try:
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.bind((address, 0))
            listener.listen(1)
            with socket.create_connection(listener.getsockname()[:2], timeout=5):
                pass
    except OSError as exc:
        status, advice = (FAIL, "the loopback interface must be up") if version == 4 else (WARN, "fine if all use IPv4")
        return Check(name, status, f"{address} cannot be used: {exc.strerror or exc}", advice)
    return Check(name, OK, f"{address} listens and connects")


def _binding(kernel: Kernel) -> Check:
    host = getattr(kernel.settings, "HOST", None)
    if host is None:
        return Check("binding", WARN, "the plugin 'tcp' is not loaded", "daemons can only use Unix sockets")
    try:
        with Daemon(kernel=kernel) as daemon:
            location = daemon.natLocationStr or daemon.locationStr
    except (PyroError, OSError, ValueError) as exc:
        return Check("binding", FAIL, f"a daemon cannot listen: {exc}", "correct PYRO_HOST")
    where = URI(f"PYRO:x@{location}").host or ""
    if _is_local(where):
        return Check("binding", OK, f"daemons listen on {host!r}: seen by this machine only (PYRO_HOST changes that)")
    return Check("binding", OK, f"daemons listen on {host!r} and publish {where}")


def _is_local(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def _serving(kernel: Kernel, location: dict[str, Any]) -> Iterator[URI]:
    with Daemon(kernel=kernel, **location) as daemon:
        uri = daemon.register(_Echo(), "doctor.echo")
        loop = threading.Thread(target=daemon.requestLoop, name="pyroplug-doctor", daemon=True)
        loop.start()
        try:
            yield daemon.uriFor(uri.object, nat=False)
        finally:
            daemon.shutdown()
            loop.join(5)


def _loopback(kernel: Kernel, options: ClientOptions, wait: float, name: str, location: dict[str, Any]) -> Check:
    advice = "PYRO_LOGLEVEL=DEBUG shows more; a local firewall may be in the way"
    served, times = [], []
    try:
        with _serving(kernel, location) as uri:
            for serializer in sorted(set(kernel.settings.SERIALIZERS_ACCEPTED) & set(kernel.serializers)):
                with Proxy(uri, kernel=kernel) as proxy:
                    ClientOptions(serializer, wait, options.handshake).apply(proxy)
                    proxy._pyroBind()
                    start = time.perf_counter()
                    answer = proxy.echo(_MESSAGE)
                    times.append(time.perf_counter() - start)
                    if answer != _MESSAGE:
                        return Check(name, FAIL, f"serializer {serializer} changed {_MESSAGE!r} to {answer!r}", advice)
                    served.append(serializer)
    except ConnectionRefusedByPeer as exc:
        return Check(name, WARN, str(exc), "a plugin wants to be convinced in the handshake: --handshake-file")
    except Exception as exc:  # whatever a plugin of this kernel does to a plain call is what is to be found out
        return Check(name, FAIL, f"{type(exc).__name__}: {exc}", advice)
    return Check(name, OK, f"echo in {milliseconds(min(times))} ({', '.join(served)})")


def _loopback_unix(kernel: Kernel, options: ClientOptions, wait: float) -> Check:
    name = "loopback unix"
    if not hasattr(socket, "AF_UNIX"):
        return Check(name, OK, "this system has no Unix sockets")
    with tempfile.TemporaryDirectory(prefix="pyroplug-") as folder:
        return _loopback(kernel, options, wait, name, {"unixsocket": os.path.join(folder, "doctor.sock")})


# =========================================================================== the way to an object
def uri_checks(session: Session, uri: URI, options: ClientOptions) -> Iterator[Check]:
    """From the URI to a call, step by step; ends at the step that fails."""
    kernel = session.try_kernel()
    if isinstance(kernel, Exception):
        return
    try:
        direct = kernel.resolve(uri)
    except PyroError as exc:
        yield Check("resolve", FAIL, str(exc), "is the name server running, and is the name registered there?")
        return
    except Exception as exc:  # plugin code
        yield Check("resolve", FAIL, f"a plugin failed: {exc!r}", "'pyroplug plugins' shows the plugins")
        return
    yield Check("resolve", OK, f"{uri} is {direct}" if direct != uri else f"{uri} says where the object is")
    if direct.host is not None:
        yield _published_host(direct.host)
        steps = _connect(direct, options.timeout or 5.0)
        yield steps
        if steps.status == FAIL:
            return
    yield from _protocol(kernel, direct, options)


def _published_host(host: str) -> Check:
    if host in ("0.0.0.0", "::"):
        advice = (
            "the server has to publish an address that clients can use: PYRO_NATHOST there, or bind to that address"
        )
        return Check("address", FAIL, f"{host} means every interface, and is no address to connect to", advice)
    if _is_local(host):
        advice = "for other machines start the server with PYRO_HOST or -H"
        return Check("address", OK, f"{host} means the machine where you are; {advice}")
    return Check("address", OK, host)


def _connect(uri: URI, wait: float) -> Check:
    host, port = uri.host or "", uri.port or 0
    try:
        addresses = sorted(_bounded(lambda: _addresses(host, port), wait))
    except (OSError, UnicodeError) as exc:
        reason = getattr(exc, "strerror", None) or str(exc) or "no answer in time"
        return Check(
            "connect", FAIL, f"{host} does not resolve: {reason}", "is the name right, and in DNS or the hosts file?"
        )
    worked, failed = [], []
    for address in addresses:
        start = time.perf_counter()
        try:
            with socket.create_connection((address, port), timeout=wait):
                worked.append(f"{address} in {milliseconds(time.perf_counter() - start)}")
        except TimeoutError:
            failed.append(f"{address} does not answer")
        except OSError as exc:
            failed.append(f"{address} {(exc.strerror or str(exc)).lower()}")
    if worked and not failed:
        return Check("connect", OK, f"port {port}: {', '.join(worked)}")
    if worked:
        text = f"port {port}: {', '.join(worked)}; but {', '.join(failed)}"
        if _is_local(host):
            return Check("connect", OK, text)
        return Check(
            "connect", WARN, text, "clients try all addresses, but some will be slow: correct DNS or listen on all"
        )
    refused = any("refused" in text for text in failed)
    advice = (
        "is the server running, and is this its port? Does it listen on this interface?"
        if refused
        else "a firewall, NAT or a wrong address: is the machine up, and is the port open?"
    )
    return Check("connect", FAIL, f"port {port}: {', '.join(failed)}", advice)


def _protocol(kernel: Kernel, uri: URI, options: ClientOptions) -> Iterator[Check]:
    wait = options.timeout or 5.0
    try:
        found = look(kernel, uri, wait)
    except CommunicationError as exc:
        yield Check("version", FAIL, str(exc), "is the server running?")
        return
    if not found.is_pyro:
        yield Check("version", FAIL, found.reason, "is this the port of the Pyro server?")
        return
    if found.version != PROTOCOL_VERSION:
        advice = f"that is {found.kind}: it needs a client of that generation, or a plugin for its protocol"
        yield Check("version", FAIL, found.reason, advice)
        return
    yield Check(
        "version", OK, f"{found.kind}, protocol {found.version}, answers in {milliseconds(found.answer_time or 0)}"
    )
    serializer = options.serializer or kernel.settings.SERIALIZER
    if found.serializers is not None and serializer not in found.serializers:
        advice = f"use another with --serializer or PYRO_SERIALIZER, or have the server accept {serializer}"
        yield Check("accepted", WARN, f"the server accepts {', '.join(found.serializers)}, not {serializer}", advice)
    elif found.serializers is not None:
        yield Check("accepted", OK, f"serializers {', '.join(found.serializers)}")
    yield from _call(kernel, uri, options, wait)


def _call(kernel: Kernel, uri: URI, options: ClientOptions, wait: float) -> Iterator[Check]:
    with Proxy(uri, kernel=kernel) as proxy:
        step, advice = "handshake", "the server's log says why; it may want a secret: --handshake-file"
        try:
            ClientOptions(options.serializer, wait, options.handshake).apply(proxy)
            start = time.perf_counter()
            proxy._pyroBind()
            yield Check(step, OK, f"accepted in {milliseconds(time.perf_counter() - start)}")
            step, advice = "ping", "the server accepts calls but no pings: an old or foreign server"
            from pyroplug.plugins.ping import ping

            start = time.perf_counter()
            ping(proxy)
            yield Check(step, OK, f"pong in {milliseconds(time.perf_counter() - start)}")
            step, advice = "metadata", "does the class use @expose?"
            proxy._pyroGetMetadata()
            members = sorted({*proxy._pyroMethods, *proxy._pyroAttrs})
            yield Check(step, OK, f"{len(members)} members: {', '.join(members)}")
        except ConnectionRefusedByPeer as exc:
            if "unknown object" in exc.reason:
                location = uri.location
                advice = f"'pyroplug call PYRO:Pyro.Daemon@{location} registered' lists the objects there"
            yield Check(step, FAIL, str(exc), advice)
        except PyroError as exc:
            yield Check(step, FAIL, str(exc), advice)
