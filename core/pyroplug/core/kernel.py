"""The kernel: plugins and settings put together, and the plans that connections read."""

from __future__ import annotations

import functools
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

from .errors import CommunicationError, ConfigError, PluginConflict, PluginError, SerializeError, URIError
from .forks import Forks
from .hookspecs import Hooks, wrap_stream
from .interfaces import Codec, Publisher, Serializer, ServerLoopFactory, Stream, Transport
from .members import Members, compute_members
from .plan import Inflater, Limits, Plan, Steps
from .plugins import SWITCHED_OFF, Catalog, Choice, PluginInfo, PluginSet
from .proxy import ProxyAdditions
from .settings import Schema, Setting, Settings, nearest
from .stash import Stash
from .types import TypeTable
from .uri import URI
from .wire import FLAG_CORR_ID, FLAG_EXCEPTION, FLAG_ONEWAY, FLAG_SEGMENTS, INVOKE, Frame, Message, head

if TYPE_CHECKING:
    from .connection import ClientConnection, ServerConnection
    from .proxy import ProxyBase

__all__ = ["KERNEL_SETTINGS", "Kernel", "WireRegister", "default_kernel"]

log = logging.getLogger("pyroplug.kernel")


def _not_empty(value: str) -> str | None:
    return None if value.strip() else "it names one of those that are loaded"


KERNEL_SETTINGS = (
    Setting("SERIALIZER", str, "serpent", "serializer of proxies that have none of their own", check=_not_empty),
    Setting("SERIALIZERS_ACCEPTED", set, {"serpent", "json", "msgpack"}, "serializers that a daemon accepts"),
    Setting("SERVERTYPE", str, "thread", "server loop of daemons", check=_not_empty),
    Setting("COMMTIMEOUT", float, 0.0, "seconds a call may take, and a client may be idle; 0: no limit", minimum=0),
    Setting("CONNECT_TIMEOUT", float, 15.0, "seconds to establish a connection; 0: no limit", minimum=0),
    Setting("HANDSHAKE_TIMEOUT", float, 15.0, "seconds from connection to accepted handshake; 0: no limit", minimum=0),
    Setting("STALL_TIMEOUT", float, 60.0, "seconds without progress inside one message; 0: no limit", minimum=0),
    Setting("SHUTDOWN_TIMEOUT", float, 5.0, "seconds that running calls get to finish at shutdown", minimum=0),
    Setting("POLLTIMEOUT", float, 2.0, "seconds between housekeeping rounds of a daemon", minimum=0.001),
    Setting("MAX_MESSAGE_SIZE", int, 1024**3, "bytes of one message, also after inflating", minimum=1024),
    Setting("MAX_HANDSHAKE_SIZE", int, 64 * 1024, "bytes of a message before the handshake is accepted", minimum=256),
    Setting("MAX_ANNOTATIONS", int, 100, "annotations in one message", minimum=1),
    Setting("MAX_NESTING_DEPTH", int, 200, "levels of nesting in a value", minimum=4, maximum=100_000),
    Setting("MAX_CONNECTIONS", int, 100_000, "clients connected to one daemon at a time", minimum=1),
    Setting("THREADPOOL_SIZE", int, 80, "calls that one daemon runs at a time", minimum=1),
    Setting("THREADPOOL_SIZE_MIN", int, 4, "worker threads kept when idle", minimum=1),
    Setting("CALL_QUEUE_SIZE", int, 1000, "calls that wait for a worker before further ones are refused", minimum=0),
)
"""The settings of the kernel itself; all others belong to plugins."""


MAX_BOUND_PLANS = 64
"""How many plans of connections are kept for the next ones."""


class WireRegister:
    """Who uses which flag bit, message type and annotation id; ``pyro_reserve`` fills it."""

    def __init__(self) -> None:
        self.inflaters: dict[int, Inflater] = {}
        self.messages: dict[int, Callable[[ServerConnection, Frame], Message | None]] = {}
        self.owner = "kernel"
        """Who is claiming now; the kernel sets it before it calls a plugin."""
        self._owners: dict[tuple[str, object], str] = {
            ("flag", FLAG_EXCEPTION): "kernel",
            ("flag", FLAG_CORR_ID): "kernel",
            ("flag", FLAG_SEGMENTS): "kernel",
            **{("message", kind): "kernel" for kind in range(1, 6)},
        }

    def flag(self, bit: int, name: str, inflate: Inflater | None = None) -> None:
        """Claim a header flag bit; with ``inflate`` the kernel undoes a payload filter where it is set."""
        if bit <= 0 or bit & (bit - 1) or bit > 0x8000:
            raise PluginConflict(
                f"plugin {self.owner!r}: flag {name} must be a single bit up to 0x8000, not {bit:#x}", self.owner
            )
        self._claim("flag", bit)
        if inflate is not None:
            self.inflaters[bit] = inflate

    def message(self, kind: int, handler: Callable[[ServerConnection, Frame], Message | None]) -> None:
        """Claim a message type (6..255) and say who handles it on the server, after the handshake."""
        self._claim("message", kind)
        self.messages[kind] = handler

    def annotation(self, key: str) -> None:
        """Claim an annotation id (4 ASCII characters)."""
        self._claim("annotation", key)

    def owner_of_annotation(self, key: str) -> str | None:
        """The plugin that claimed an annotation id."""
        return self._owners.get(("annotation", key))

    def _claim(self, what: str, key: object) -> None:
        other = self._owners.setdefault((what, key), self.owner)
        if other != self.owner:
            raise PluginConflict(f"{what} {key!r} is claimed by plugin {self.owner!r} and by {other!r}", self.owner)


class Kernel:
    """Plugins, settings and what follows from them; daemons and proxies belong to one.

    :param plugins: exactly these plugins, by name or as objects; without it the environment and the
        defaults decide
    :param extra_plugins: these as well
    :param settings: values that win over the environment
    :param environ: used in place of ``os.environ``
    :raises ConfigError: a setting is wrong, or no serializer or transport is left
    :raises PluginError: a plugin cannot be loaded
    """

    def __init__(
        self,
        *,
        plugins: Iterable[Any] | None = None,
        extra_plugins: Iterable[Any] = (),
        settings: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        environ = os.environ if environ is None else environ
        self._lock = threading.RLock()
        self.forks = Forks()
        """Who is told in forked children."""
        self.forks.remember(self)
        self.stash = Stash()
        self.metadata_source: tuple[str, str] | None = None
        """Object id and method that tell the members of an object; a plugin sets it in ``pyro_configure``."""
        self.publisher: Publisher | None = None
        """Makes names known to everybody; a plugin sets it in ``pyro_configure``."""
        self.additions = ProxyAdditions()
        """What plugins add to proxies; they fill it in ``pyro_configure``."""
        self.successors: dict[str, Serializer] = {}
        """By protocol extension, what takes the place of the serializer with its wire id on connections that have the
        extension; plugins put it there in ``pyro_configure``."""
        self._succession: dict[frozenset[str], tuple[int, Steps]] = {}
        self.connection_attributes: dict[str, Callable[[ServerConnection], Any]] = {}
        """What plugins add to a daemon's connections: made when it is first asked for; they fill it in ``pyro_configure``."""
        self._members: dict[type, Members] = {}
        self._codecs: tuple[int, dict[str, Codec]] | None = None
        self._plans: dict[str, tuple[int, Plan]] = {}
        self._bound: dict[tuple[Plan | Steps, ...], Plan] = {}
        self._seen: weakref.WeakSet[Steps] = weakref.WeakSet()

        schema = Schema(KERNEL_SETTINGS)
        self.plugins = self._load_plugins(plugins, extra_plugins, settings or {}, environ)
        self.hooks = Hooks(self.plugins.manager, trace=self.plugins.trace)
        self.hooks.settings(schema)
        schema.remark = self._switched_off()
        schema.check_environment(environ)
        self.settings = Settings(schema, environ, settings)

        self.serializers: dict[str, Serializer] = {}
        self.transports: dict[str, Transport] = {}
        self.servers: dict[str, ServerLoopFactory] = {}
        self.wire = WireRegister()
        self.types = TypeTable()
        self.types.remark = self._switched_off()
        for name in self.plugins.loaded:
            self._collect(name)
        self.hooks.types(self.types)
        if not self.serializers or not self.transports:
            missing = "serializer" if not self.serializers else "transport"
            raise ConfigError(f"no plugin gives a {missing}; loaded are: {', '.join(self.plugins.loaded) or 'none'}")
        self.policies: Sequence[Callable[[ProxyBase, str, Exception, int], bool]] = ()
        self.hooks.configure(self)
        self.policies = tuple(self.hooks.client_policies(self))
        self._extended_at, self.extensions = self.settings.version, self.hooks.extensions(self)

    def _pyroForked(self) -> None:
        self._lock = threading.RLock()

    # ----------------------------------------------------------------- plugins
    def _load_plugins(
        self,
        plugins: Iterable[Any] | None,
        extra: Iterable[Any],
        settings: Mapping[str, Any],
        environ: Mapping[str, str],
    ) -> PluginSet:
        given = [] if plugins is None else list(plugins)
        extra = list(extra)
        catalog = Catalog.installed().with_objects(p for p in [*given, *extra] if not isinstance(p, str))
        names = tuple(p if isinstance(p, str) else p.PLUGIN.name for p in given)
        also = {p for p in extra if isinstance(p, str)}
        choice = Choice.from_environment(environ)
        if plugins is not None:
            choice = Choice(exact=names, minus=choice.minus)
        else:
            # naming a serializer in a setting is naming its plugin
            named = Setting("_", set, set(), "").parse(environ.get("PYRO_SERIALIZERS_ACCEPTED", ""))
            named |= {environ.get("PYRO_SERIALIZER", "").strip()}
            named |= {str(settings.get("SERIALIZER", "")), *settings.get("SERIALIZERS_ACCEPTED", ())}
            also |= {name for name in named if name in catalog and name not in choice.minus}
        chosen = PluginSet(catalog, choice, trace=environ.get("PYRO_TRACE_PLUGINS", "") not in ("", "0"))
        chosen.load(also)
        return chosen

    def _collect(self, name: str) -> None:
        """Take serializers, transports, server loops and reservations from one plugin, knowing whose they are."""
        for serializer in self._results(name, "pyro_serializers"):
            self._put(self.serializers, serializer.name, serializer, f"serializer {serializer.name!r}", name)
            ids = [s.name for s in self.serializers.values() if s.wire_id == serializer.wire_id]
            if len(ids) > 1:
                raise PluginConflict(
                    f"plugin {name!r}: serializers {ids[0]!r} and {ids[1]!r} have the same wire id "
                    f"{serializer.wire_id}",
                    name,
                )
        for transport in self._results(name, "pyro_transports"):
            self._put(self.transports, transport.scheme, transport, f"transport scheme {transport.scheme!r}", name)
        for factory in self._results(name, "pyro_servers"):
            for alias in factory.names:
                self._put(self.servers, alias, factory, f"server loop {alias!r}", name)
        self.wire.owner = name
        self.plugins.call_one(name, "pyro_reserve", wire=self.wire)

    def _results(self, name: str, hook: str) -> Iterable[Any]:
        return self.plugins.call_one(name, hook) or ()

    @staticmethod
    def _put(table: dict[str, Any], key: str, value: Any, what: str, owner: str) -> None:
        if key in table:
            raise PluginConflict(f"plugin {owner!r}: {what} is there already", owner)
        table[key] = value

    def enable(self, name: str) -> PluginInfo:
        """Load one more plugin; what it adds holds for connections made from now on.

        :raises PluginError: it does not exist, is disabled, or cannot be loaded
        """
        with self._lock:
            if name in self.plugins.loaded:
                return self.plugins.loaded[name]
            info = self.plugins.add(name)
            try:
                declared = Schema()
                self.plugins.call_one(name, "pyro_settings", schema=declared)
                for setting in declared:
                    self.settings.declare(setting)
                self._collect(name)
                self.plugins.call_one(name, "pyro_types", types=self.types)
                self.plugins.call_one(name, "pyro_configure", kernel=self)
            except BaseException:
                self.plugins.drop(name)  # half of a plugin is none: the next try shall meet the same error
                raise
            finally:
                self.hooks = Hooks(self.plugins.manager, trace=self.plugins.trace)
            self._codecs = None
            self._plans.clear()
            self._bound.clear()
            return info

    def off(self) -> str:
        """The plugins that are installed but off, as a remark for error texts; empty when there are none."""
        off = sorted(self.plugins.reasons)
        return f" (plugins that are off: {', '.join(off)})" if off else ""

    def require(self, name: str) -> None:
        """Refuse to go on without a plugin.

        :raises PluginError: it is off, and why
        """
        if name not in self.plugins.loaded:
            why = self.plugins.reasons.get(name, "it is not installed")
            raise PluginError(f"this needs the plugin {name!r}, which is off: {why}", name)

    def _switched_off(self) -> str:
        """The plugins that somebody switched off, as a remark for refusals; empty by default."""
        off = sorted(name for name, why in self.plugins.reasons.items() if why == SWITCHED_OFF)
        return f" (switched off here: plugin {', '.join(off)})" if off else ""

    def close(self) -> None:
        """Let the plugins release what they hold; the kernel is of no use afterwards."""
        for name in reversed(self.plugins.loaded):
            try:
                self.plugins.call_one(name, "pyro_unconfigure", kernel=self)
            except Exception:  # plugin code
                log.exception("plugin %r failed while the kernel was closed", name)

    # ----------------------------------------------------------------- serializers
    def codecs(self) -> Mapping[str, Codec]:
        """The serializers bound to this kernel's types and settings, by name."""
        known = self._codecs
        version = self.settings.version
        if known is None or known[0] != version:
            with self._lock:
                codecs = {name: s.bind(self.types, self.settings) for name, s in self.serializers.items()}
                self._codecs = known = (version, codecs)
        return known[1]

    def serializer_id(self, name: str) -> int:
        """The wire id of a serializer; naming an opt-in one here loads its plugin.

        :raises SerializeError: there is no such serializer
        """
        serializer = self.serializers.get(name)
        if serializer is None and name in self.plugins.catalog:
            try:
                self.enable(name)
            except PluginError as exc:
                raise SerializeError(f"the serializer {name!r} is not available: {exc}") from exc
            serializer = self.serializers.get(name)
        if serializer is None:
            known = ", ".join(sorted(self.serializers))
            raise SerializeError(f"unknown serializer {name!r}{nearest(name, self.serializers)}; known are: {known}")
        return serializer.wire_id

    def serializers_with(self, extensions: Set[str]) -> Iterable[Serializer]:
        """What serializes on a connection with these protocol extensions: one for each wire id."""
        found = {serializer.wire_id: serializer for serializer in list(self.serializers.values())}
        found.update(
            (self.successors[name].wire_id, self.successors[name]) for name in self.successors.keys() & extensions
        )
        return found.values()

    def is_safe_serializer(self, name: str) -> bool:
        """Whether a serializer is loaded and safe to use because a peer says so."""
        serializer = self.serializers.get(name)
        return serializer is not None and serializer.safe

    # ----------------------------------------------------------------- plans
    def client_plan(self) -> Plan:
        """What holds for a client before the handshake: all serializers that are loaded."""
        return self._plan("client", self.serializers)

    def server_plan(self) -> Plan:
        """What holds for a server before the handshake: the serializers that are accepted."""
        accepted = self.settings.SERIALIZERS_ACCEPTED
        names = []
        for name in sorted(accepted):
            if name in self.serializers:
                names.append(name)
            elif name not in KERNEL_SETTINGS[1].default:
                self.serializer_id(name)  # names a plugin that has to be loaded, or nothing at all
                names.append(name)
        if not names:
            wanted = ", ".join(sorted(accepted)) or "empty"
            raise ConfigError(f"none of the SERIALIZERS_ACCEPTED is loaded: {wanted}{self.off()}")
        return self._plan("server:" + ",".join(names), names)

    def _plan(self, key: str, names: Iterable[str]) -> Plan:
        settings = self.settings
        known = self._plans.get(key)
        if known is not None and known[0] == settings.version:
            return known[1]
        if self._extended_at != settings.version:  # a setting may say that an extension is not wanted
            self._extended_at, self.extensions = settings.version, self.hooks.extensions(self)
        codecs = self.codecs()
        ids = {name: self.serializers[name].wire_id for name in names}
        plan = Plan(
            codecs={wire_id: codecs[name] for name, wire_id in ids.items()},
            names={wire_id: name for name, wire_id in ids.items()},
            heads={head(INVOKE, wire_id): wire_id for wire_id in ids.values()},
            limits=Limits(
                max_message_size=settings.MAX_MESSAGE_SIZE,
                max_handshake_size=min(settings.MAX_HANDSHAKE_SIZE, settings.MAX_MESSAGE_SIZE),
                max_annotations=settings.MAX_ANNOTATIONS,
                handshake_timeout=settings.HANDSHAKE_TIMEOUT or None,
                idle_timeout=settings.COMMTIMEOUT or None,
                stall_timeout=settings.STALL_TIMEOUT or None,
            ),
            error_to_dict=self.types.exception_to_dict,
            describe_error=self.types.exception_to_plain_dict,
            from_dict=self.types.from_dict,
            inflaters=self.wire.inflaters,
            flag_mask=sum(self.wire.inflaters) | FLAG_ONEWAY,
            extensions=self.extensions,
            switched_off=self._switched_off(),
        )
        self._plans[key] = (settings.version, plan)
        return plan

    def bind(self, connection: Any) -> Plan:
        """The plan of a connection whose handshake is done."""
        base: Plan = connection.plan
        steps = self.hooks.bind(connection)
        if self.successors:
            steps = [*self._succeeding(connection.extensions), *steps]  # (what plugins return counts more)
        key: tuple[Plan | Steps, ...] = (base, *steps)  # by identity
        plan = self._bound.get(key)
        if plan is None:
            plan = base.extended(steps)
            with self._lock:
                # what was made for one connection only is gone by the next: it is not kept, nor what it refers to
                if all(step in self._seen for step in steps):
                    if len(self._bound) >= MAX_BOUND_PLANS:
                        self._bound.clear()
                    self._bound[key] = plan
                else:
                    self._seen.update(steps)
        return plan

    def _succeeding(self, extensions: Set[str]) -> list[Steps]:
        names = frozenset(self.successors.keys() & extensions)
        if not names:
            return []
        version = self.settings.version
        known = self._succession.get(names)
        if known is None or known[0] != version:
            made = [self.successors[name].bind(self.types, self.settings) for name in names]
            codecs = {self.successors[name].wire_id: codec for name, codec in zip(names, made, strict=True)}
            self._succession[names] = known = (version, Steps(codecs=codecs))
        return [known[1]]

    # ----------------------------------------------------------------- classes
    def members_of(self, cls: type) -> Members:
        """The remote members of a class, described and wrapped by the plugins; computed once."""
        members = self._members.get(cls)
        if members is None:
            with self._lock:
                members = self._members.get(cls)
                if members is None:
                    members = compute_members(cls)
                    self.hooks.describe(cls, members, self)
                    for name in list(members.methods):
                        for wrap in reversed(self.hooks.bind_method(cls, name, members)):
                            members.methods[name] = wrap(members.methods[name])
                    self._members[cls] = members
        return members

    def forget_members(self, cls: type) -> None:
        """Compute the members of a class anew when they are needed next."""
        with self._lock:
            self._members.pop(cls, None)

    # ----------------------------------------------------------------- the network
    def resolve(self, uri: URI | str) -> URI:
        """A URI that says where the object is.

        :raises URIError: no plugin knows its protocol
        """
        uri = URI(uri)
        if uri.protocol == "PYRO":
            return uri
        resolved = self.hooks.resolve(uri, self)
        if resolved is None:
            raise URIError(f"{uri}: no plugin that is loaded resolves {uri.protocol} uris")
        return resolved

    def connect(self, uri: URI, timeout: float | None) -> Stream:
        """A stream to the location of a URI, with the layers of the plugins."""
        transport = self.transports.get(uri.scheme)
        if transport is None:
            known = ", ".join(sorted(f"./{scheme}:" if scheme else "host:port" for scheme in self.transports))
            raise CommunicationError(
                f"{uri}: no transport is loaded for {uri.location!r} (there are: {known}){self.off()}"
            )
        stream = transport.connect(uri, timeout, self.settings)
        return wrap_stream(stream, self.hooks.stream_layers("client", uri, self), server_side=False)

    def given_stream(self, sock: Any, *, server_side: bool) -> Stream:
        """A stream over a socket of the user's, with the layers of the plugins.

        :raises ConfigError: no plugin that is loaded takes connected sockets
        """
        for transport in self.transports.values():
            take = getattr(transport, "stream", None)
            if take is not None:
                stream: Stream = take(sock)
                side = "server" if server_side else "client"
                return wrap_stream(stream, self.hooks.stream_layers(side, None, self), server_side=server_side)
        raise ConfigError("connected_socket: no transport that is loaded takes connected sockets (plugin 'pair')")

    def hello(
        self, proxy: ProxyBase, connection: ClientConnection, hello: dict[str, Any], annotations: dict[str, bytes]
    ) -> None:
        """Let plugins add to the handshake."""
        self.hooks.hello(proxy, connection, hello, annotations)

    def welcome(self, proxy: ProxyBase, connection: ClientConnection, welcome: Mapping[str, Any]) -> None:
        """Let plugins check and read the server's answer."""
        self.hooks.validate_welcome(proxy, connection, welcome)

    def server_factory(self, name: str | None = None) -> ServerLoopFactory:
        """The server loop of that name; without one, that of the setting SERVERTYPE."""
        name = name or str(self.settings.SERVERTYPE)
        factory = self.servers.get(name)
        if factory is None:
            known = ", ".join(sorted(self.servers)) or "none"
            raise ConfigError(
                f"SERVERTYPE cannot be {name!r}{nearest(name, self.servers)}; loaded are: {known}{self.off()}"
            )
        return factory

    def __repr__(self) -> str:
        return f"<Kernel with {len(self.plugins.loaded)} plugins>"


_default_lock = threading.Lock()


@functools.cache
def _default_kernel() -> Kernel:
    return Kernel()


def default_kernel() -> Kernel:
    """The kernel of whoever does not give one; made when first needed, from the environment."""
    with _default_lock:  # two threads must not get two
        return _default_kernel()
