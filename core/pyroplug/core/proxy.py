"""The client side of a call: a stand-in whose methods run somewhere else."""

from __future__ import annotations

import functools
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from .connection import ClientConnection, Lost
from .errors import CommunicationError, ConnectionClosedError, OverloadError, PyroError, SerializeError
from .members import is_private
from .uri import CONNECTED_SOCKET, URI
from .wire import FLAG_ONEWAY

if TYPE_CHECKING:
    from .forks import Forks
    from .interfaces import Stream
    from .plan import Plan

__all__ = ["CallScope", "ClientRuntime", "ProxyAdditions", "ProxyBase", "RemoteMethod"]

log = logging.getLogger("pyroplug.proxy")

RECONNECT_DELAY = 2.0
"""Seconds between the tries of ``_pyroReconnect`` (as in Pyro)."""

MAX_INTERFACES = 1000
"""How many classes made for remote interfaces are kept in one kernel."""

# the special names that an object may reasonably offer and a program call by name.  All others are looked for on
# any object that inspect, copy, numpy, a debugger or the interpreter meets: never worth a connection, and answering
# them would let a server take part in what happens in this process
_SPECIAL = frozenset(
    f"__{name}__"
    for name in (
        "len length_hint getitem setitem delitem missing iter reversed contains next add sub mul matmul truediv floordiv "
        "mod divmod pow lshift rshift and xor or radd rsub rmul rmatmul rtruediv rfloordiv rmod rdivmod rpow rlshift "
        "rrshift rand rxor ror iadd isub imul imatmul itruediv ifloordiv imod ipow ilshift irshift iand ixor ior neg "
        "pos abs invert round trunc floor ceil"
    ).split()
)


_MEMBER_KINDS = frozenset({"methods", "attrs", "oneway"})


class CallScope(Protocol):
    """The calls that a piece of code makes, for another that may want to end them."""

    def active(self) -> AbstractContextManager[None]:
        """Calls made in this block belong to it."""
        ...

    def cancel(self) -> bool:
        """Give up those that are under way, from any thread; False if there is none that can be."""
        ...


class ProxyAdditions:
    """What plugins add to the proxies of their kernel; they fill it in ``pyro_configure``."""

    def __init__(self) -> None:
        self.methods: dict[str, Callable[..., Any]] = {}
        """``proxy._pyroName(...)`` calls ``methods["_pyroName"](proxy, ...)``."""
        self.calls: dict[str, Callable[..., Any]] = {}
        """``proxy.method.name(...)`` calls ``calls["name"](proxy, "method", ...)``."""
        self.attributes: dict[str, Callable[[], Any]] = {}
        """``proxy._pyroName`` begins as what ``attributes["_pyroName"]()`` returns, and goes with copies."""
        self.scope: Callable[[], CallScope] | None = None
        """Makes scopes, where calls can be given up by others than their callers."""
        self.on_release: list[Callable[[ProxyBase], None]] = []
        """Called when a proxy has closed its connection because it was told to."""
        self._interfaces: dict[tuple[type, frozenset[str]], type] = {}

    def interface(self, cls: type, methods: frozenset[str]) -> type:
        """``cls`` with the methods of a remote interface as attributes, made once for each interface.

        A name that a class has is found much faster than one that ``__getattr__`` has to be asked for.
        """
        key = (cls, methods)
        made = self._interfaces.get(key)
        if made is None:
            members: dict[str, Any] = {"__module__": cls.__module__, "__doc__": cls.__doc__, "_pyroOwnClass": cls}
            for name in methods:
                if not any(name in vars(base) for base in cls.__mro__):  # what a class has by itself stays local
                    members[name] = property(functools.partial(RemoteMethod, _call, name))
            made = type(cls.__name__, (cls,), members)
            made.__qualname__ = cls.__qualname__
            if len(self._interfaces) >= MAX_INTERFACES:
                self._interfaces.clear()
            self._interfaces[key] = made
        return made


class ClientRuntime(Protocol):
    """What a proxy needs of its kernel."""

    @property
    def forks(self) -> Forks:
        """Who is told in forked children."""
        ...

    @property
    def additions(self) -> ProxyAdditions:
        """What plugins add to proxies."""
        ...

    @property
    def settings(self) -> Any:
        """The settings."""
        ...

    @property
    def policies(self) -> Sequence[Callable[[ProxyBase, str, Exception, int], bool]]:
        """What to do about failed calls."""
        ...

    @property
    def metadata_source(self) -> tuple[str, str] | None:
        """Object id and method that tell the members of an object, for servers that do not tell by themselves."""
        ...

    def require(self, name: str) -> None:
        """Raise PluginError if that plugin is off."""
        ...

    def off(self) -> str:
        """The plugins that are there but off, as a remark for error texts; empty when there are none."""
        ...

    def serializer_id(self, name: str) -> int:
        """The wire id of a serializer that is loaded (or can be: one named here is opted in)."""
        ...

    def is_safe_serializer(self, name: str) -> bool:
        """Whether a serializer is loaded and safe to use because a peer says so."""
        ...

    def resolve(self, uri: URI) -> URI:
        """A URI that says where the object is."""
        ...

    def connect(self, uri: URI, timeout: float | None) -> Stream:
        """A stream to that place."""
        ...

    def given_stream(self, sock: Any, *, server_side: bool) -> Stream:
        """A stream over a socket of the user's."""
        ...

    def client_plan(self) -> Plan:
        """What holds before the handshake."""
        ...

    def hello(
        self, proxy: ProxyBase, connection: ClientConnection, hello: dict[str, Any], annotations: dict[str, bytes]
    ) -> None:
        """Let plugins add to the handshake."""
        ...

    def welcome(self, proxy: ProxyBase, connection: ClientConnection, welcome: Mapping[str, Any]) -> None:
        """Let plugins check and read the server's answer."""
        ...

    def bind(self, connection: Any) -> Plan:
        """The plan after the handshake."""
        ...


def _call(name: str, proxy: ProxyBase, /, *args: Any, **kwargs: Any) -> Any:
    return proxy._pyroInvoke(name, args, kwargs)


class RemoteMethod(functools.partial[Any]):
    """A method of a remote object; calling it makes the call.

    It is a :func:`functools.partial` so that making and calling one needs no code in Python.
    """

    __slots__ = ()

    @classmethod
    def of(cls, proxy: ProxyBase, name: str) -> RemoteMethod:
        """The method ``name`` of the proxy's object."""
        return cls(_call, name, proxy)

    @property
    def _name(self) -> str:
        name: str = self.args[0]
        return name

    @property
    def _proxy(self) -> ProxyBase:
        proxy: ProxyBase = self.args[1]
        return proxy

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        addition = self._proxy._pyroKernel.additions.calls.get(name)
        if addition is not None:
            return functools.partial(addition, self._proxy, self._name)
        raise AttributeError(
            f"remote methods have no attributes: '{self._name}.{name}' would reach into another object; "
            f"offer a method for it on the server"
        )

    @property
    def __name__(self) -> str:
        return self._name

    @property
    def __self__(self) -> ProxyBase:
        return self._proxy

    def __repr__(self) -> str:
        return f"<RemoteMethod {self._name} of {self._proxy._pyroUri}>"


class ProxyBase:
    """A remote object: calls, results, exceptions, properties, indexing and ``len`` look like local ones.

    Nothing is connected before the first use.  Any number of threads may share a proxy; their calls are under way
    together on its one connection, or wait for each other where the server can do no better.  Names starting
    with an underscore stay local.

    ``_pyroTimeout`` (seconds, None: no limit; COMMTIMEOUT) limits each call; ``_pyroSerializer`` (None:
    SERIALIZER), ``_pyroHandshake`` (any value the server's validator wants) and ``_pyroOneway`` (names of methods whose
    replies nobody wants) may be set too, and what plugins add.
    """

    _pyroOwnClass: ClassVar[type | None] = None
    """The class a proxy was made of, once it has the methods of its remote interface."""
    _pyroConnectionClass: ClassVar[type[ClientConnection]] = ClientConnection
    """What its connections are."""
    _pyroNoState: ClassVar[bool] = True
    """Its attributes do not describe it: it travels in a form that a plugin has registered, or not at all."""
    # on the class: what holds for an object whose __init__ did not get that far
    _pyroConnection: ClientConnection | None = None
    _pyroMethods: Set[str] = frozenset()
    _pyroAttrs: Set[str] = frozenset()
    _pyroOneway: Set[str] = frozenset()
    _pyroUri: URI
    _pyroKernel: ClientRuntime
    _pyroHandshake: Any
    _pyroSaysHello = True
    """Whether it begins with a handshake on a socket that it was given; off, the peer must not expect one."""
    _pyroRawWireResponse: bool
    _pyroMetadataKnown: bool
    _pyroNotes: Mapping[str, Set[str]]
    """What else the server says of its methods: sets of names, by what is said."""

    def __init__(self, uri: str | URI, connected_socket: Any = None, *, kernel: ClientRuntime | None = None) -> None:
        """Make a proxy.

        :param uri: where the object is; with ``connected_socket`` just the object's name
        :param connected_socket: a socket that is connected to a daemon already; never closed by the proxy
        :param kernel: whose plugins and settings to use; the default kernel if not given
        :raises URIError: the text is no URI
        """
        kernel = kernel or self._pyroDefaultKernel()
        if connected_socket is not None:
            uri = URI.build("PYRO", str(uri), None, CONNECTED_SOCKET, 0)
        self._pyroSetup(URI(uri), kernel, connected_socket)
        kernel.serializer_id(self._pyroSerializer or kernel.settings.SERIALIZER)

    def _pyroDefaultKernel(self) -> ClientRuntime:
        raise PyroError("a ProxyBase needs a kernel; pyroplug.api.Proxy has a default one")

    def _pyroSetup(self, uri: URI, kernel: ClientRuntime, connected_socket: Any = None) -> None:
        settings = kernel.settings
        self.__dict__.update(
            _pyroUri=uri,
            _pyroNamedUri=None,  # what _pyroBind has replaced
            _pyroKernel=kernel,
            _pyroConnection=None,
            _pyroLock=threading.RLock(),
            _pyroMethods=set(),
            _pyroAttrs=set(),
            _pyroOneway=set(),
            _pyroMetadataKnown=False,
            _pyroNotes={},
            _pyroHandshake="hello",
            _pyroRawWireResponse=False,
            _pyroGivenSocket=connected_socket,
            _pyroLastSeq=0,
            _pyroTimeoutValue=settings.COMMTIMEOUT or None,
            _pyroSerializerName=None,
        )
        for name, initial in kernel.additions.attributes.items():
            self.__dict__[name] = initial()

    # ----------------------------------------------------------------- calling
    def __getattr__(self, name: str) -> Any:
        # only for names that are no attributes of this object
        if name in self._pyroMethods:
            return RemoteMethod.of(self, name)
        return self._pyroMember(name)

    def _pyroMember(self, name: str) -> Any:
        if name.startswith("_pyro"):
            return self._pyroAddition(name)
        if is_private(name) or (name.startswith("__") and name not in _SPECIAL and name not in self._pyroMethods):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if not self._pyroMetadataKnown:
            self._pyroGetMetadata()
        if name in self._pyroAttrs:
            return self._pyroInvoke("__getattr__", (name,), {})
        if name in self._pyroMethods or not self._pyroMetadataKnown:
            return RemoteMethod.of(self, name)
        connection = self._pyroConnection
        off = "" if connection is None else connection.plan.switched_off
        raise AttributeError(f"remote object '{self._pyroUri}' has no exposed attribute or method '{name}'{off}")

    def _pyroAddition(self, name: str) -> Any:
        """What a plugin added to proxies under that name."""
        kernel: ClientRuntime | None = self.__dict__.get("_pyroKernel")
        if kernel is None:
            raise AttributeError(name)  # not even __init__ was here
        addition = kernel.additions.methods.get(name)
        if addition is None:
            raise AttributeError(f"no plugin that is loaded gives {name!r} to proxies{kernel.off()}")
        return functools.partial(addition, self)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            object.__setattr__(self, name, value)
            return
        if not self._pyroMetadataKnown:
            self._pyroGetMetadata()
        if name in self._pyroAttrs or not self._pyroMetadataKnown:
            self._pyroInvoke("__setattr__", (name, value), {})
            return
        raise AttributeError(f"remote object '{self._pyroUri}' has no exposed attribute '{name}'")

    def _pyroInvoke(
        self,
        methodname: str,
        vargs: Sequence[Any],
        kwargs: Mapping[str, Any],
        flags: int = 0,
        objectId: str | None = None,
    ) -> Any:
        """Make one remote call.

        :raises CommunicationError: the connection failed; it is closed, the next call opens a new one
        """
        state = self.__dict__  # attributes of an object with __getattr__ are slow to look up
        attempt = 0
        while True:
            connection: ClientConnection | None = state["_pyroConnection"]
            error: CommunicationError | OverloadError
            try:
                if connection is None or not connection.overlapping:
                    with state["_pyroLock"]:
                        connection = state["_pyroConnection"]
                        if connection is None:
                            connection = self._pyroConnect()
                        if not connection.overlapping:
                            return self._pyroMake(connection, methodname, vargs, kwargs, flags, objectId)
                # (as _pyroMake does it; a call more costs a percent)
                if methodname in state["_pyroOneway"]:
                    flags |= FLAG_ONEWAY
                return connection.call(
                    objectId or connection.objectId, methodname, vargs, kwargs, flags, state["_pyroRawWireResponse"]
                )
            except Lost as lost:
                assert connection is not None
                if connection.gone:
                    self._pyroDrop(connection)
                if not lost.sent and isinstance(lost.error, ConnectionClosedError):
                    continue  # another thread released the proxy, or found the connection broken: nothing was tried
                error = lost.error
            except CommunicationError as exc:
                if connection is not None:
                    raise  # the server's answer, or a mistake in the arguments
                error = exc  # connecting failed
            except OverloadError as exc:
                if not exc.refused:
                    raise
                error = exc
            except BaseException:
                if connection is not None and connection.gone:
                    self._pyroDrop(connection)
                raise
            attempt += 1
            try:
                if not any(policy(self, methodname, error, attempt) for policy in self._pyroKernel.policies):
                    raise error
            finally:
                del error  # (its traceback has this frame)

    def _pyroMake(
        self,
        connection: ClientConnection,
        methodname: str,
        vargs: Sequence[Any],
        kwargs: Mapping[str, Any],
        flags: int,
        objectId: str | None,
    ) -> Any:
        if methodname in self._pyroOneway:
            flags |= FLAG_ONEWAY
        return connection.call(
            objectId or connection.objectId, methodname, vargs, kwargs, flags, self._pyroRawWireResponse
        )

    # ----------------------------------------------------------------- the connection
    def _pyroBind(self) -> bool:
        """Connect now, and keep the resolved URI; False when it was connected already."""
        with self._pyroLock:
            if self._pyroConnection is not None:
                return False
            self._pyroConnect(replace_uri=True)
            return True

    def _pyroConnect(self, replace_uri: bool = False) -> ClientConnection:
        kernel = self._pyroKernel
        settings = kernel.settings
        kernel.forks.remember(self)
        resolved = self._pyroResolve()
        timeout = self._pyroTimeout
        if self._pyroGivenSocket is not None:
            stream = kernel.given_stream(self._pyroGivenSocket, server_side=False)
            handshake = self._pyroSaysHello
        else:
            stream = kernel.connect(resolved, _shorter(timeout, settings.CONNECT_TIMEOUT))
            handshake = True
        try:
            serializer = kernel.serializer_id(self._pyroSerializer or settings.SERIALIZER)
            connection = self._pyroConnectionClass(
                stream, kernel.client_plan(), serializer, settings, owns_stream=self._pyroGivenSocket is None
            )
            connection.owner = weakref.ref(self)
            connection.uri = resolved
            connection.objectId = resolved.object
            connection.settimeout(_shorter(timeout, settings.HANDSHAKE_TIMEOUT))
            if handshake:
                self._pyroGreet(connection, resolved)
            else:
                connection.seq = self._pyroLastSeq
            connection.use(kernel.bind(connection))
            connection.settimeout(timeout)
        except BaseException:
            stream.close()
            raise
        self.__dict__["_pyroConnection"] = connection
        if replace_uri and self._pyroUri.protocol != "PYRO":
            self.__dict__.update(_pyroUri=resolved, _pyroNamedUri=self._pyroUri)
        return connection

    def _pyroResolve(self) -> URI:
        """Where the object is now."""
        uri, named = self._pyroUri, self.__dict__.get("_pyroNamedUri")
        if uri.protocol != "PYRO":
            return self._pyroKernel.resolve(uri)
        if named is None:
            return uri
        try:
            self.__dict__["_pyroUri"] = uri = self._pyroKernel.resolve(
                named
            )  # a server that was restarted may have moved
        except PyroError as exc:
            log.debug("%s cannot be resolved, it was %s: %s", named, uri, exc)
        return uri

    def _pyroGreet(self, connection: ClientConnection, uri: URI) -> None:
        hello: dict[str, Any] = {"handshake": self._pyroHandshake, "object": uri.object}
        annotations: dict[str, bytes] = {}
        self._pyroKernel.hello(self, connection, hello, annotations)
        try:
            welcome = connection.hello(hello, annotations, self._pyroLastSeq)
        except ConnectionClosedError as exc:
            raise CommunicationError(f"cannot connect to {uri.location}: {exc}") from exc
        self._pyroKernel.welcome(self, connection, welcome)
        self._pyroValidateHandshake(welcome["handshake"])

    def _pyroValidateHandshake(self, response: Any) -> None:
        """Called with the value that the server's validator returned; override it and raise to hang up."""

    def _pyroAnnotations(self) -> Mapping[str, bytes]:
        """Override: annotations for every message (Pyro4's way)."""
        return {}

    def _pyroResponseAnnotations(self, annotations: Mapping[str, bytes], msgtype: int) -> None:
        """Override: called with the annotations of each reply that has any, and its message type (Pyro4's way)."""

    def _pyroDrop(self, connection: ClientConnection | None) -> None:
        """Use this connection no more.  Calls of other threads that are under way on it go on."""
        state = self.__dict__
        if connection is not None and state["_pyroConnection"] is connection:
            with self._pyroLock:
                if state["_pyroConnection"] is connection:
                    state.update(_pyroConnection=None, _pyroLastSeq=connection.seq)
        if connection is not None:
            connection.retire()

    def _pyroForked(self) -> None:
        """In a forked child: the connection is the parent's, and whoever holds the lock is not here."""
        state = self.__dict__
        state["_pyroLock"] = threading.RLock()
        connection = state["_pyroConnection"]
        if connection is not None:
            state["_pyroConnection"] = None
            state["_pyroLastSeq"] = connection.seq
            connection.forked()

    def _pyroRelease(self) -> None:
        """Close the connection; the proxy stays usable and connects again when used.

        Calls of other threads that are under way end as they would have; the connection is closed after the last.
        """
        with self._pyroLock:
            connection = self._pyroConnection
            if connection is not None:
                connection.released()
                self._pyroDrop(connection)
        for released in self._pyroKernel.additions.on_release:
            released(self)

    def _pyroReconnect(self, tries: int = 100000000) -> None:
        """Close the connection and connect again, trying up to ``tries`` times, 2 seconds apart.

        :raises ConnectionClosedError: out of tries
        """
        self._pyroRelease()
        while tries > 0:
            try:
                self._pyroBind()
                return
            except CommunicationError as exc:
                tries -= 1
                log.debug("reconnecting to %s failed, %d tries left: %s", self._pyroUri, tries, exc)
                if tries > 0:
                    time.sleep(RECONNECT_DELAY)
        raise ConnectionClosedError(f"could not reconnect to {self._pyroUri}: tries exhausted")

    def _pyroClaimOwnership(self) -> None:
        """Nothing: a proxy may be used by any thread (Pyro5 programs call this)."""

    # ----------------------------------------------------------------- metadata
    def _pyroGetMetadata(self, objectId: str | None = None, known_metadata: Mapping[str, Any] | None = None) -> None:
        """Learn the remote members: by connecting, or from ``known_metadata``, or by asking the daemon."""
        if known_metadata is not None:
            self._pyroProcessMetadata(known_metadata)
            return
        with self._pyroLock:
            connection = self._pyroConnection or self._pyroConnect()
            if self._pyroMetadataKnown and objectId is None:
                return
            source = self._pyroKernel.metadata_source
            if source is not None:
                system_object, method = source
                object_id = objectId or connection.objectId
                self._pyroProcessMetadata(self._pyroInvoke(method, [object_id], {}, objectId=system_object))

    def _pyroProcessMetadata(self, metadata: Mapping[str, Iterable[str]]) -> None:
        self.__dict__.update(
            _pyroMethods=set(metadata.get("methods", ())),
            _pyroAttrs=set(metadata.get("attrs", ())),
            _pyroOneway=set(metadata.get("oneway", ())) | self._pyroOneway,
            _pyroMetadataKnown=True,
            _pyroNotes={
                key: frozenset(name for name in names if isinstance(name, str))
                for key, names in metadata.items()
                if key not in _MEMBER_KINDS and isinstance(names, (set, frozenset, list, tuple))
            },
        )
        own = self._pyroOwnClass or type(self)
        self.__class__ = self._pyroKernel.additions.interface(own, frozenset(self._pyroMethods))
        if not self._pyroMethods and not self._pyroAttrs:
            raise PyroError("remote object doesn't expose any methods or attributes. Did you forget @expose on them?")

    # ----------------------------------------------------------------- options
    @property
    def _pyroLocalSocket(self) -> Any:
        """The address of our end of the connection; None while not connected."""
        try:
            return self._pyroConnection.stream.sock.getsockname()  # type: ignore[union-attr]
        except (AttributeError, OSError):
            return None

    @property
    def _pyroTimeout(self) -> float | None:
        """How long a call may take (seconds; None: no limit)."""
        value: float | None = self.__dict__["_pyroTimeoutValue"]
        return value

    @_pyroTimeout.setter
    def _pyroTimeout(self, seconds: float | None) -> None:
        value = float(seconds) if seconds else None
        if value is not None and value < 0:
            raise ValueError(f"a timeout cannot be negative: {seconds}")
        self.__dict__["_pyroTimeoutValue"] = value
        connection = self._pyroConnection
        if connection is not None:
            connection.settimeout(value)

    @property
    def _pyroSerializer(self) -> str | None:
        """The serializer of this proxy; None for the setting SERIALIZER."""
        value: str | None = self.__dict__["_pyroSerializerName"]
        return value

    @_pyroSerializer.setter
    def _pyroSerializer(self, name: str | None) -> None:
        if name is not None:
            self._pyroKernel.serializer_id(name)
        with self._pyroLock:
            self.__dict__["_pyroSerializerName"] = name
            self._pyroDrop(self._pyroConnection)  # a connection keeps the serializer it was made with

    @property
    def _pyroSeq(self) -> int:
        """The sequence number of the last request (0..65535)."""
        connection = self._pyroConnection
        return connection.seq if connection is not None else int(self.__dict__["_pyroLastSeq"])

    # ----------------------------------------------------------------- the object protocol
    def __getitem__(self, index: Any) -> Any:
        return self.__getattr__("__getitem__")(index)

    def __setitem__(self, index: Any, value: Any) -> None:
        self.__getattr__("__setitem__")(index, value)

    def __delitem__(self, index: Any) -> None:
        self.__getattr__("__delitem__")(index)

    def __len__(self) -> int:
        try:
            method = self.__getattr__("__len__")
        except AttributeError:
            # TypeError, because list(proxy) asks for a length and goes on only after that
            raise TypeError(f"remote object '{self._pyroUri}' has no exposed __len__") from None
        return int(method())

    def __iter__(self) -> Iterator[Any]:
        if not self._pyroMetadataKnown:
            self._pyroGetMetadata()
        if "__iter__" in self._pyroMethods:
            iterator: Iterator[Any] = self.__getattr__("__iter__")()
            return iterator
        if "__getitem__" not in self._pyroMethods:
            off = "" if self._pyroMetadataKnown else self._pyroKernel.off()
            raise TypeError(f"remote object '{self._pyroUri}' has no exposed __iter__ or __getitem__{off}")
        return self._pyroItems()

    def _pyroItems(self) -> Iterator[Any]:
        index = 0
        while True:
            try:
                item = self[index]
            except IndexError:
                return
            yield item
            index += 1

    def __contains__(self, item: Any) -> bool:
        if not self._pyroMetadataKnown:
            self._pyroGetMetadata()
        if "__contains__" in self._pyroMethods:
            return bool(self._pyroInvoke("__contains__", (item,), {}))
        return any(item == other for other in self)

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ProxyBase):
            return NotImplemented
        return self is other or other._pyroUri == self._pyroUri

    def __hash__(self) -> int:
        return hash(self._pyroUri)

    def __dir__(self) -> list[str]:
        local = list(super().__dir__())
        try:
            if not self._pyroMetadataKnown:
                self._pyroGetMetadata()
        except (CommunicationError, PyroError):
            return sorted(local)  # not reachable now: that is no reason for dir() to fail
        return sorted({*local, *self._pyroMethods, *self._pyroAttrs})

    def __repr__(self) -> str:
        state = self.__dict__
        connection = state.get("_pyroConnection")
        where = f"connected to {connection.peer}" if connection is not None else "not connected"
        return (
            f"<{type(self).__module__}.{type(self).__name__} at 0x{id(self):x}; {where}; for {state.get('_pyroUri')}>"
        )

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._pyroRelease()

    def __del__(self) -> None:
        # no lock and no look-up that could reach the network: this may run anywhere, at any time
        connection = self.__dict__.get("_pyroConnection")
        if connection is not None:
            connection.forsaken()

    # ----------------------------------------------------------------- copies
    def __copy__(self) -> Any:
        other = type(self).__new__(type(self))
        other._pyroSetup(self._pyroUri, self._pyroKernel, self.__dict__["_pyroGivenSocket"])
        for name in (
            "_pyroMethods",
            "_pyroAttrs",
            "_pyroOneway",
            "_pyroMetadataKnown",
            "_pyroNotes",
            "_pyroHandshake",
            "_pyroRawWireResponse",
            "_pyroTimeoutValue",
            "_pyroSerializerName",
            *self._pyroKernel.additions.attributes,
        ):
            value = self.__dict__.get(name, other.__dict__.get(name))  # a plugin may be younger than this proxy
            other.__dict__[name] = set(value) if isinstance(value, set) else value
        return other

    def __deepcopy__(self, memo: Any) -> Any:
        return self.__copy__()

    def __getstate__(self) -> tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...], Any, str | None]:
        """What travels: Pyro5's state, with the handshake value replaced, because it often is a password."""
        if self.__dict__["_pyroGivenSocket"] is not None:
            raise SerializeError("a proxy over a connected socket cannot be serialized: nobody else has that socket")
        return (
            str(self._pyroUri),
            tuple(self._pyroOneway),
            tuple(self._pyroMethods),
            tuple(self._pyroAttrs),
            "hello",
            self._pyroSerializer,
        )

    def __setstate__(self, state: Sequence[Any]) -> None:
        self._pyroRestore(state, self._pyroDefaultKernel())

    def _pyroRestore(self, state: Sequence[Any], kernel: ClientRuntime) -> None:
        try:
            uri, oneway, methods, attrs, handshake, serializer = state[:6]
        except (TypeError, ValueError):
            raise SerializeError(f"invalid proxy state: expected 6 parts, not {state!r}") from None
        self._pyroSetup(URI(uri), kernel)
        self.__dict__.update(
            _pyroOneway=set(oneway),
            _pyroMethods=set(methods),
            _pyroAttrs=set(attrs),
            _pyroMetadataKnown=bool(methods or attrs),
            _pyroHandshake=handshake,
            # what the sender likes to use may not exist here, or let a third party run code here
            _pyroSerializerName=serializer if serializer and kernel.is_safe_serializer(serializer) else None,
        )

    def __reduce_ex__(self, protocol: Any) -> Any:
        return (_new_proxy, (self._pyroOwnClass or type(self),), self.__getstate__())


def _new_proxy(cls: type[ProxyBase]) -> ProxyBase:
    return cls.__new__(cls)


def _shorter(first: float | None, second: float | None) -> float | None:
    """The shorter of two times, where None (and 0) means no limit."""
    return min(first or float("inf"), second or float("inf")) if first or second else None
