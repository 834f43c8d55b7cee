"""The daemon: publishes objects at a location and has a server loop run their calls."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .call import current_call
from .client import Proxy
from .connection import MAX_WELCOMES, ServerConnection, Welcome
from .errors import ConfigError, DaemonError, PluginError, PyroError
from .hookspecs import wrap_stream
from .interfaces import Listener, Publisher, Stream
from .kernel import Kernel, default_kernel
from .registry import Entry, JoinedEntry, ObjectEntry, ProvidedEntry, Registry, WeakEntry
from .stash import Stash
from .uri import CONNECTED_SOCKET, URI

if TYPE_CHECKING:
    from .plan import Plan

__all__ = ["DAEMON_NAME", "Daemon", "serve"]

log = logging.getLogger("pyroplug.daemon")

DAEMON_NAME = "Pyro.Daemon"
"""The object id under which every daemon answers questions about itself."""


def _always() -> bool:
    return True


class Daemon:
    """Publishes objects and serves the calls that come for them.

    :param host: where to listen, a name or address (default: HOST, which is localhost)
    :param port: TCP port, 0 for any free one
    :param unixsocket: path of a Unix socket to use in place of host and port
    :param nathost: the host to write into URIs, where it differs from the one bound (TCP; NATHOST)
    :param natport: likewise the port, 0 for the one bound (NATPORT)
    :param interface: class of the object ``Pyro.Daemon``
    :param connected_socket: serve just the peer of this socket; it is never closed by the daemon
    :param kernel: whose plugins and settings to use (default: the default kernel)
    :param servertype: name of the server loop (SERVERTYPE)
    :param options: further arguments that a transport knows
    :raises DaemonError: the location cannot be used
    :raises ValueError: arguments that exclude each other
    """

    _pyroNoState = True  # as with proxies

    def __init__(
        self,
        host: Any = None,
        port: int = 0,
        unixsocket: str | None = None,
        nathost: Any = None,
        natport: int | None = None,
        interface: type | None = None,
        connected_socket: Any = None,
        *,
        kernel: Kernel | None = None,
        servertype: str | None = None,
        **options: Any,
    ) -> None:
        self.kernel = kernel or default_kernel()
        settings = self.kernel.settings
        if getattr(self.annotations, "__func__", None) is not Daemon.annotations:
            self.kernel.require("annotations")  # nobody else would ever ask for them
        if interface is not None:
            self.kernel.require("daemonobject")  # nor make one of these
        self.stash = Stash()
        self.interface = interface
        self._registry = Registry()
        self._endpoint = _Endpoint(self)
        self._loop_thread: int | None = None
        self._loop_ended = threading.Event()
        self._loop_ended.set()
        self._shutting_down = False
        self._patience_ends: float | None = None
        self._closed = False
        self._inherited = False
        self._lock = threading.RLock()
        self._listeners: tuple[Listener, ...] = ()
        self.methodcall_error_handler: Callable[..., None] | None = None
        """Called as (daemon, client address, method, args, kwargs, exception) for each exception of a method."""

        if connected_socket is not None:
            if host or port or unixsocket or nathost or natport:
                raise ValueError("with connected_socket no other location can be given")
            self.locationStr = f"{CONNECTED_SOCKET}:0"
            self.natLocationStr = None
        else:
            if nathost is not None and unixsocket:
                raise ValueError("nathost cannot be used with unixsocket")
            where = {"host": host, "port": port, "unixsocket": unixsocket, "nathost": nathost, "natport": natport}
            self._listeners = self._listen(**where, **options)
            self.locationStr = self._listeners[0].location
            self.natLocationStr = getattr(self._listeners[0], "published", None)
        try:
            if nathost is not None and self.natLocationStr is None:
                raise ValueError(
                    f"nathost cannot be used with {self.locationStr}: clients need no other location for it"
                )
            self._add_system_objects()
            self.transportServer = self.kernel.server_factory(servertype).create(self._endpoint, settings)
            self.kernel.forks.remember(self)
            for listener in self._listeners:
                self.transportServer.add_listener(listener)
            if connected_socket is not None:
                self.transportServer.add_stream(self.kernel.given_stream(connected_socket, server_side=True))
        except BaseException:
            if hasattr(self, "transportServer"):
                self.transportServer.close()
            for listener in self._listeners:
                listener.close()
            raise

    # ----------------------------------------------------------------- where
    natLocationStr: str | None
    locationStr: str

    def _listen(self, **options: Any) -> tuple[Listener, ...]:
        found = []
        for transport in self.kernel.transports.values():
            listener = transport.listen(options, self.kernel.settings)
            if listener is not None:
                found.append(listener)
        if len(found) != 1:
            for listener in found:
                listener.close()
            given = ", ".join(f"{key}={value!r}" for key, value in options.items() if value is not None)
            what = "no transport that is loaded can" if not found else "more than one transport would"
            names = ", ".join(sorted(self.kernel.transports))
            raise ConfigError(f"{what} listen for {given}; loaded: {names!r}{self.kernel.off()}")
        return tuple(getattr(found[0], "members", found))

    def uriFor(self, objectOrId: Any = None, nat: bool = True) -> URI:
        """The URI of an object that is registered here, or for any object id.

        :param nat: use the published location, if there is one, and not the one bound
        :raises DaemonError: the object is not registered here
        """
        object_id = objectOrId
        if not isinstance(objectOrId, str):
            object_id = self._registry.id_of(objectOrId)
            if object_id is None:
                raise DaemonError("object isn't registered in this daemon")
        location = (self.natLocationStr if nat else None) or self.locationStr
        return URI(f"PYRO:{object_id}@{location}")

    def proxyFor(self, objectOrId: Any, nat: bool = True) -> Proxy:
        """A proxy for an object that is registered here; it knows the members already."""
        uri = self.uriFor(objectOrId, nat)
        entry = self._registry.objects.get(uri.object)
        if entry is None:
            raise DaemonError(f"object isn't registered in this daemon: {uri.object}")
        proxy = Proxy(uri, kernel=self.kernel)
        metadata = entry.members.metadata()
        if metadata["methods"] or metadata["attrs"]:
            proxy._pyroGetMetadata(known_metadata=metadata)
        return proxy

    # ----------------------------------------------------------------- what
    @property
    def objectsById(self) -> dict[str, Any]:
        """What is registered, by id; classes as classes, weak ones as long as they live."""
        return {object_id: entry.target for object_id, entry in list(self._registry.objects.items())}

    def register(
        self,
        obj_or_class: Any,
        objectId: str | None = None,
        force: bool = False,
        weak: bool = False,
        **options: Any,
    ) -> URI:
        """Publish an object, or a class whose instances the daemon makes.

        :param objectId: text without blanks; ``obj_`` and 32 hex digits if not given
        :param force: replace what is registered under that id, and do not mind an id the object has already
        :param weak: do not keep the object alive; it is unregistered when it goes
        :param options: what plugins that are loaded know
        :returns: its URI
        :raises DaemonError: the id is taken, or the object is registered already
        :raises TypeError: the id is no text, or ``weak`` was asked for a class or an object that cannot be
            referred to weakly, or no plugin knows one of the options
        """
        self._check_open()
        if objectId is None:
            objectId = f"obj_{os.urandom(16).hex()}"
        elif not isinstance(objectId, str):
            raise TypeError(f"objectId must be a text or None, not {type(objectId).__name__}")
        elif not objectId or any(c.isspace() for c in objectId):
            raise DaemonError(f"object ids cannot be empty or have blanks: {objectId!r}")
        is_class = isinstance(obj_or_class, type)
        cls = obj_or_class if is_class else type(obj_or_class)
        members = self.kernel.members_of(cls)
        if not members.methods and not members.properties:
            warnings.warn(
                f"class {cls.__qualname__} doesn't expose anything: no method of it can be called remotely; "
                f"did you forget @expose?",
                UserWarning,
                stacklevel=2,
            )
        entry: Entry
        if is_class:
            if weak:
                raise TypeError("a class cannot be registered weakly")
            provider = self.kernel.hooks.instances(cls, self.kernel)
            if provider is None:
                raise PluginError(
                    f"class {cls.__qualname__} cannot be registered: no plugin that is loaded makes instances of "
                    f"it (plugin 'instances'); register an object instead"
                )
            entry = ProvidedEntry(objectId, members, cls, provider)
        elif weak:
            entry = WeakEntry(objectId, members, obj_or_class, self._registry.gone)
        else:
            entry = ObjectEntry(objectId, members, obj_or_class)
        for replace in self.kernel.hooks.register(self, entry, options):
            entry = replace
        if options:
            names = ", ".join(sorted(options))
            raise TypeError(f"register() got arguments that no plugin knows: {names}{self.kernel.off()}")
        self._registry.add(entry, force)
        try:
            obj_or_class._pyroId = objectId
            obj_or_class._pyroDaemon = weakref.proxy(self)
        except (AttributeError, TypeError):
            pass  # takes no attributes: the registry knows it all the same
        return self.uriFor(objectId)

    def unregister(self, objectOrId: Any) -> None:
        """Take an object, a class, or whatever has that id, off the daemon.

        Calls that are running go on.  The daemon's own object stays.

        :raises DaemonError: that object is not registered here
        """
        if objectOrId is None:
            raise ValueError("object or objectid argument expected")
        object_id = objectOrId if isinstance(objectOrId, str) else self._registry.id_of(objectOrId)
        if object_id is None:
            raise DaemonError("object isn't registered in this daemon")
        if object_id == DAEMON_NAME:
            return
        self._registry.remove(object_id)
        if not isinstance(objectOrId, str):
            _forget_marks(objectOrId)

    def publish(self, obj_or_uri: Any, name: str, **options: Any) -> URI:
        """Make an object known to everybody under a name, as long as this daemon lives.

        :param obj_or_uri: an object or class, which is registered here if it is not yet, or the URI of anything
        :param options: what the plugin ``naming`` knows: ``metadata``, ``lease``, ``persistent``, ``safe``
        :returns: the URI that the name stands for
        :raises PluginError: no plugin that is loaded knows name servers
        """
        self._check_open()
        return self._publisher().publish(self, obj_or_uri, name, **options)

    def unpublish(self, name: str) -> bool:
        """Take back a name; False if this daemon has not published it."""
        return self._publisher().withdraw(self, name)

    def _publisher(self) -> Publisher:
        publisher = self.kernel.publisher
        if publisher is None:
            raise PluginError(f"no plugin that is loaded knows name servers (plugin 'naming'){self.kernel.off()}")
        return publisher

    def resetMetadataCache(self, objectOrId: Any, nat: bool = True) -> None:
        """Look at the class of a registered object again, because it was changed."""
        entry = self._registry.objects.get(self.uriFor(objectOrId, nat).object)
        if entry is not None:
            self.kernel.forget_members(entry.members.cls)
            entry.use(self.kernel.members_of(entry.members.cls))

    def _add_system_objects(self) -> None:
        parts: dict[str, list[Any]] = {}
        for offered in self.kernel.hooks.system_objects(self):
            for object_id, target in offered.items():
                parts.setdefault(object_id, []).append(target)
        for object_id, targets in parts.items():
            entries = [ObjectEntry(object_id, self.kernel.members_of(type(target)), target) for target in targets]
            self._registry.add(entries[0] if len(entries) == 1 else JoinedEntry(object_id, entries))

    # ----------------------------------------------------------------- when
    def requestLoop(self, loopCondition: Callable[[], bool] = _always) -> None:
        """Serve in this thread until :meth:`shutdown` is called or ``loopCondition()`` is false.

        Ctrl-C ends the loop too, and no more than that: this method returns.

        :raises PyroError: the daemon was closed
        """
        with self._serving():
            try:
                self.transportServer.run(loopCondition)
            except KeyboardInterrupt:
                log.info("the request loop was ended by Ctrl-C")

    @contextlib.contextmanager
    def _serving(self) -> Iterator[None]:
        """While this thread turns the loop."""
        self._check_open()
        self._loop_thread = threading.get_ident()
        self._loop_ended.clear()
        try:
            yield
        finally:
            try:
                if self._shutting_down:
                    self.close()
            finally:
                # in this order: a signal handler that runs in this very thread, even inside set(), must see that it
                # is the loop's own, or it would wait for an event whose lock it interrupted
                self._loop_ended.set()
                self._loop_thread = None

    def events(self, eventsockets: Iterable[Any]) -> None:
        """Handle the sockets (of ``sockets``) that a foreign event loop found ready; never waits."""
        self._check_open()
        self.transportServer.events(eventsockets)

    @property
    def sockets(self) -> list[Any]:
        """What a foreign event loop must watch for reading; ask again in each round."""
        return self.transportServer.sockets

    @property
    def sock(self) -> Any:
        """The listening socket, or None."""
        return self._listeners[0].sock if self._listeners else None

    @property
    def selector(self) -> Any:
        """The selector of the server loop, if it has one."""
        return getattr(self.transportServer, "selector", None)

    def combine(self, daemon: Any) -> None:
        """Serve another daemon (or anything with ``sockets`` and ``events``) in this daemon's loop.

        :raises TypeError: the server loop cannot do that
        """
        self.transportServer.combine(getattr(daemon, "transportServer", daemon))

    def shutdown(self) -> None:
        """Stop serving and close; from any thread, a signal handler or a remote call.

        Calls that run get SHUTDOWN_TIMEOUT seconds to finish (see :attr:`abandoned`); those that wait, or come
        meanwhile, are refused with an OverloadError.  When this returns nothing answers any more,
        unless it was called by one of those calls or inside the loop: these end first.
        """
        self._shutting_down = True
        self.transportServer.shutdown()
        call = current_call.get()
        inside = getattr(self.transportServer, "is_own_thread", bool)()  # such as in clientDisconnect
        inside = inside or self._loop_thread == threading.get_ident()
        if inside or (call and call.connection.endpoint is self._endpoint):
            if self._loop_thread is None:
                # a foreign event loop drives us, and the call that asked for this is still to be answered
                threading.Thread(target=self.close, name="pyroplug-shutdown", daemon=True).start()
            return
        self._wait_for_loop()
        self.close()

    def close(self) -> None:
        """Stop listening, hang up on every client, end every thread.  A closed daemon is of no more use."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        if self._loop_thread not in (None, threading.get_ident()):
            # nobody may take the loop's things away while another thread turns it
            self.transportServer.shutdown()
            self._wait_for_loop()
        self.transportServer.close()
        for listener in self._listeners:
            listener.close()
        self.kernel.hooks.daemon_closed(self)  # first: what plugins still run needs the objects
        for entry in list(self._registry.objects.values()):
            _forget_marks(entry.target)
        self._registry.clear()

    @property
    def abandoned(self) -> list[str]:
        """After :meth:`shutdown` or :meth:`close`: the calls that were not over after SHUTDOWN_TIMEOUT seconds.

        Their clients have lost the connection; the methods may still run, in threads that end with the process.
        """
        return list(getattr(self.transportServer, "abandoned", ()))

    def _wait_for_loop(self) -> None:
        """Wait for the end of the loop that another thread turns, but together no longer than calls have time to end."""
        now = time.monotonic()
        ends = self._patience_ends
        if ends is None:
            ends = self._patience_ends = now + self.kernel.settings.SHUTDOWN_TIMEOUT + 1
        self._loop_ended.wait(max(0.0, ends - now))

    def _pyroForked(self) -> None:
        """In a forked child: a daemon that served stays with the parent, one that did not may serve here."""
        self._lock = threading.RLock()
        served = not self._loop_ended.is_set()
        self._loop_ended = threading.Event()
        self._loop_ended.set()
        self._loop_thread = None
        self._inherited = self._closed = self._closed or served
        forked = getattr(self.transportServer, "forked", None)
        if forked is not None:
            forked(served)
        if served:
            for listener in self._listeners:
                listener.close()

    def _check_open(self) -> None:
        if self._inherited:
            raise PyroError("this daemon serves in the process that was forked; make a new one here")
        if self._closed:
            raise PyroError("this daemon was closed; make a new one")

    def __enter__(self) -> Daemon:
        self._check_open()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._registry.objects)} objects"
        return f"<{type(self).__module__}.{type(self).__name__} at 0x{id(self):x}; {self.locationStr}; {state}>"

    # ----------------------------------------------------------------- to be overridden
    def validateHandshake(self, conn: ServerConnection, data: Any) -> Any:
        """Override: let a client in by returning a value for it, or raise to refuse it.

        ``data`` is the client's ``_pyroHandshake``.  The text of what is raised is sent to the client.
        """
        return "hello"

    def clientDisconnect(self, conn: ServerConnection) -> None:
        """Override: a client has gone, in whatever way."""

    def housekeeping(self) -> None:
        """Override: called about every POLLTIMEOUT seconds while the daemon serves."""

    def annotations(self) -> dict[str, bytes]:
        """Override: annotations for every reply."""
        return {}

    @staticmethod
    def serveSimple(
        objects: Mapping[Any, str | None],
        host: Any = None,
        port: int = 0,
        daemon: Daemon | None = None,
        ns: bool = True,
        verbose: bool = True,
    ) -> None:
        """Publish objects and serve; see :func:`serve`."""
        serve(objects, host, port, daemon, ns, verbose)


class _Endpoint:
    """What connections and server loops see of a daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.objects = daemon._registry.objects
        self.messages = daemon.kernel.wire.messages
        self.attributes = daemon.kernel.connection_attributes
        self.settings = daemon.kernel.settings
        self.base_plan = daemon.kernel.server_plan()
        self._layers = daemon.kernel.hooks.stream_layers("server", None, daemon.kernel)
        self._welcomes: dict[tuple[int, ...], tuple[Welcome, list[Mapping[str, Any]]]] = {}

    @property
    def daemon(self) -> Daemon:
        """The daemon itself, for plugins."""
        return self._daemon

    # ----------------------------------------------------------------- for server loops
    def connection(self, stream: Stream, *, given: bool = False) -> ServerConnection:
        self.base_plan = self._daemon.kernel.server_plan()
        if not given:  # the kernel has put the layers around streams that the user gave
            stream = wrap_stream(stream, self._layers, server_side=True)
        return ServerConnection(self, stream, given=given)

    def housekeeping(self) -> None:
        daemon = self._daemon
        _isolated("housekeeping", daemon.housekeeping)
        daemon.kernel.hooks.housekeeping(daemon, time.monotonic())

    # ----------------------------------------------------------------- for connections
    def greet(self, connection: ServerConnection, hello: Mapping[str, Any]) -> Mapping[str, Any]:
        daemon = self._daemon
        answer = daemon.validateHandshake(connection, hello["handshake"])
        parts = daemon.kernel.hooks.validate_handshake(connection, hello)
        entry = self.objects.get(hello["object"])
        if entry is None:
            # last: only who was let in may know which objects there are
            raise DaemonError(f"unknown object: {hello['object']}")
        connection.objectId = entry.object_id  # (the same text for all, where thousands are connected)
        if type(answer) is not str or answer != "hello":
            return _joined(answer, parts)
        key = tuple(map(id, parts))  # the parts themselves are kept below, so that their ids stay theirs
        known = self._welcomes.get(key)
        if known is None:
            if len(self._welcomes) >= MAX_WELCOMES:
                self._welcomes.clear()
            self._welcomes[key] = known = Welcome(_joined(answer, parts)), parts
        return known[0]

    def bind(self, connection: Any) -> Plan:
        return self._daemon.kernel.bind(connection)

    def opened(self, connection: ServerConnection) -> None:
        self._daemon.kernel.hooks.opened(connection)

    def closed(self, connection: ServerConnection, error: BaseException | None) -> None:
        _isolated("clientDisconnect", self._daemon.clientDisconnect, connection)
        self._daemon.kernel.hooks.closed(connection, error)


def _joined(answer: Any, parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    reply = {"handshake": answer}
    for part in parts:
        reply.update(part)
    return reply


def _isolated(what: str, function: Callable[..., Any], *args: Any) -> None:
    """Run code of the program whose failure must not spread."""
    try:
        function(*args)
    except Exception:
        log.exception("%s failed", what)


def _forget_marks(target: Any) -> None:
    for name in ("_pyroId", "_pyroDaemon"):
        try:
            delattr(target, name)
        except (AttributeError, TypeError):
            pass  # never had it, or takes no attributes


def serve(
    objects: Mapping[Any, str | None],
    host: Any = None,
    port: int = 0,
    daemon: Daemon | None = None,
    use_ns: bool = True,
    verbose: bool = True,
) -> None:
    """Publish objects (or classes) and serve until the daemon is shut down.

    :param objects: what to publish, and each one's name or None
    :param host: see :class:`Daemon`; only without ``daemon``
    :param port: see :class:`Daemon`; only without ``daemon``
    :param daemon: a daemon to use; it is not closed in the end
    :param use_ns: publish the names in the name server; without it they become the object ids
    :param verbose: print the URI of each object
    :raises PluginError: ``use_ns`` without a plugin that knows name servers
    """
    own = daemon is None
    if daemon is None:
        daemon = Daemon(host, port)
    elif host is not None or port:
        raise ValueError("host and port can only be given without daemon")
    try:
        if use_ns:
            daemon._publisher()  # before anything is printed
        if verbose:
            print(f"Pyro daemon running on {daemon.locationStr}")  # noqa: T201 - asked for by verbose
        for target, name in objects.items():
            uri = daemon.register(target, None if use_ns else name)
            if use_ns and name:
                daemon.publish(uri, name)
            if verbose:
                print(f"{name or repr(target)}: {uri}")  # noqa: T201
        daemon.requestLoop()
    finally:
        if own:
            daemon.close()
