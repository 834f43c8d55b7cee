"""The hooks that plugins implement.

Nothing here is called per request.  The hooks run once per kernel (R), once per class or object (O),
once per connection (C), or periodically (P), and *return* what is to be used later.

Unless a hook says otherwise: every plugin may implement it, all implementations run in the order of
plugin dependencies and then names, and an exception propagates to whoever started the operation.
An implementation may leave out parameters that it does not need.
"""

# mypy: disable-error-code="empty-body"
# pyright: reportReturnType=false
# (a specification has no body)

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pluggy

if TYPE_CHECKING:
    from .connection import ClientConnection, ServerConnection
    from .interfaces import InstanceProvider, Layer, Serializer, ServerLoopFactory, Stream, Transport
    from .kernel import Kernel, WireRegister
    from .members import Members
    from .plan import Steps
    from .proxy import ProxyBase
    from .registry import Entry
    from .settings import Schema
    from .types import TypeTable
    from .uri import URI

__all__ = ["PROJECT", "HookSpecs", "Hooks", "hookimpl", "hookspec", "steady", "wrap_stream"]

PROJECT = "pyroplug"

log = logging.getLogger("pyroplug.plugins")

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin as the implementation of the hook with its name."""


class HookSpecs:
    """The specifications; see each hook for when it is called and what becomes of the results."""

    # ------------------------------------------------------------------ R: once per kernel
    @hookspec
    def pyro_settings(self, schema: Schema) -> None:
        """R1. Declare settings with ``schema.add(Setting(...))``.

        Called while the kernel is made, before any value is known.  Two plugins declaring one name are a
        PluginConflict.
        """

    @hookspec
    def pyro_configure(self, kernel: Kernel) -> None:
        """R2. Check settings, open files.

        Called once all plugins are loaded and the settings have their values.  Raise ConfigError to refuse.
        """

    @hookspec
    def pyro_unconfigure(self, kernel: Kernel) -> None:
        """R3. Release what ``pyro_configure`` acquired.

        Called when the kernel is closed; failures are logged and do not stop the others.
        """

    @hookspec
    def pyro_serializers(self) -> Iterable[Serializer]:
        """R4. Offer serializers.

        Called while the kernel is made.  Results are merged by name and by wire id; duplicates are a
        PluginConflict.
        """

    @hookspec
    def pyro_transports(self) -> Iterable[Transport]:
        """R5. Offer transports.

        Called while the kernel is made.  Results are merged by scheme; duplicates are a PluginConflict.
        """

    @hookspec
    def pyro_servers(self) -> Iterable[ServerLoopFactory]:
        """R6. Offer server loops for the setting SERVERTYPE.

        Called while the kernel is made.  Results are merged by name; duplicates are a PluginConflict.
        """

    @hookspec
    def pyro_reserve(self, wire: WireRegister) -> None:
        """R7. Claim header flag bits, message types and annotation ids.

        Called while the kernel is made.  A claim that is taken is a PluginConflict naming both plugins.
        """

    @hookspec
    def pyro_types(self, types: TypeTable) -> None:
        """R8. Register how classes travel.

        Called while the kernel is made, and never again: the table may be changed later by the program.
        """

    @hookspec
    def pyro_client_policies(self, kernel: Kernel) -> Iterable[Callable[[ProxyBase, str, Exception, int], bool]]:
        """R10. Offer policies for failed calls.

        Called while the kernel is made.  ``policy(proxy, method, error, attempt)`` runs when a call failed
        with a communication error; the first that returns True has the call made again (``attempt`` counts
        from 1).
        """

    @hookspec
    def pyro_commands(self) -> Iterable[Any]:
        """R11. Offer commands for the command line.

        Called by ``pyroplug`` before it reads its arguments.  The results are ``click.Command`` objects; a
        name offered twice is a PluginConflict.
        """

    @hookspec
    def pyro_extensions(self, kernel: Kernel) -> Iterable[str]:
        """R12. Name protocol extensions that this plugin can do.

        Called while the kernel is made, and again when a setting was changed.  A client offers all names in the handshake, the server accepts those
        that it has too; ``connection.extensions`` then holds them on both sides, empty with old peers.  Names
        are ASCII words without comma, such as "chunks".
        """

    @hookspec(firstresult=True)
    def pyro_resolve(self, uri: URI, kernel: Kernel) -> URI | None:
        """R9. Turn a URI whose protocol is not PYRO into one that is.

        Called when a proxy connects or ``resolve`` is used.  The first result that is not None is taken;
        return None for protocols of others.
        """

    # ------------------------------------------------------------------ O: once per class, object or daemon
    @hookspec
    def pyro_describe(self, cls: type, members: Members, kernel: Kernel) -> None:
        """O1. Add to, mark or remove remote members of a class.

        Called when a class (or the first object of it) is registered with a kernel; the result is kept.
        """

    @hookspec(firstresult=True)
    def pyro_instances(self, cls: type, kernel: Kernel) -> InstanceProvider | None:
        """O2. Say where the instances of a registered class come from.

        Called when a class is registered.  The first result that is not None is taken; with none the
        registration fails.
        """

    @hookspec
    def pyro_bind_method(self, cls: type, name: str, members: Members) -> Callable[[Callable[..., Any]], Any] | None:
        """O3. Wrap a remote method.

        Called for each method when its class is described.  The results are functions that take the
        callable and return another; they are folded into one, the first plugin being outermost.
        """

    @hookspec
    def pyro_system_objects(self, daemon: Any) -> Mapping[str, Any]:
        """O4. Offer objects that every daemon has.

        Called when a daemon is made.  Results are merged by object id; several plugins may give objects
        for one id, whose members are then joined (a member offered twice is a PluginConflict).
        """

    @hookspec
    def pyro_register(self, daemon: Any, entry: Entry, options: dict[str, Any]) -> Entry | None:
        """O6. Say how a registered object is held, and how its methods are called.

        Called for each object or class that a program registers, before peers can see it.  ``options`` are
        the further arguments of ``register``: take those that are yours out of the dict, what is left in the
        end is a TypeError.  The result is an entry to use in place of the one given; of several the last counts.
        """

    @hookspec
    def pyro_daemon_closed(self, daemon: Any) -> None:
        """O5. A daemon was closed: end what was started for it.

        Every implementation is isolated: failures are logged.
        """

    # ------------------------------------------------------------------ C: once per connection
    @hookspec
    def pyro_stream_layers(self, side: str, uri: URI | None, kernel: Kernel) -> Iterable[Layer]:
        """C1. Wrap the streams of a connection.

        Called when a client connects (``side`` is "client") and once per listener or given socket of a
        daemon ("server").  The layers are sorted by their order.
        """

    @hookspec
    def pyro_hello(
        self, proxy: ProxyBase, connection: ClientConnection, hello: dict[str, Any], annotations: dict[str, bytes]
    ) -> None:
        """C2. Add to what a client says first, or raise to say nothing.

        Called before CONNECT is sent on ``connection``, whose ``uri`` tells where it leads.  ``hello`` has
        "handshake" and "object"; old peers ignore annotations they do not know, but not further keys.
        """

    @hookspec
    def pyro_validate_handshake(
        self, connection: ServerConnection, hello: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        """C3. Let a client in, or raise to refuse it.

        Called on the server when CONNECT has come.  All validators run and all must agree: any exception
        refuses, its text goes to the client.  The mappings returned are merged into the reply.
        A mapping that is returned for several clients must not be changed meanwhile: it may have been encoded already.
        """

    @hookspec
    def pyro_validate_welcome(self, proxy: ProxyBase, connection: ClientConnection, welcome: Mapping[str, Any]) -> None:
        """C4. Accept the server's answer, or raise to hang up.

        Called on the client when CONNECTOK has come; ``connection.extensions`` is known.
        """

    @hookspec
    def pyro_bind(self, connection: Any) -> Steps | None:
        """C5. Say what is to be done for the calls of this connection.

        Called after the handshake, on both sides; ``connection.side`` is "client" or "server".  Most plugins can mark
        theirs as :func:`steady`, and are not asked again for each connection.
        """

    @hookspec
    def pyro_opened(self, connection: ServerConnection) -> None:
        """C6. A connection of a daemon is ready for calls.

        Every implementation is isolated: failures are logged.
        """

    @hookspec
    def pyro_closed(self, connection: ServerConnection, error: BaseException | None) -> None:
        """C6. A connection of a daemon has ended, in whatever way; called exactly once for each opened one.

        Every implementation is isolated: failures are logged.
        """

    # ------------------------------------------------------------------ P: periodically
    @hookspec
    def pyro_housekeeping(self, daemon: Any, now: float) -> None:
        """P1. Look after things that end by themselves.

        Called about every POLLTIMEOUT seconds while the daemon runs; ``now`` is ``time.monotonic()``.
        Every implementation is isolated: failures are logged.
        """


_F = TypeVar("_F", bound=Callable[..., Any])


def steady(function: _F) -> _F:
    """A mark for ``pyro_bind``: what it returns depends on the class of the connection (which tells the side), the
    agreed extensions and the settings, and on nothing else.  It is asked once for each such combination.
    """
    function.__dict__["_pyro_steady"] = True
    return function


_Functions = tuple[tuple[Callable[..., Any], str], ...]
_Bound = tuple[tuple["Callable[[Any], Steps | None] | None", "Steps | None"], ...]
"""In the order of the plugins: who has to be asked, or what is known already."""
MAX_COMBINATIONS = 64
"""For how many combinations of extensions and settings it is remembered."""


class Hooks:
    """The typed front of the plugin manager: one method per hook, so that type checkers see both ends.

    The hooks of a connection (C) and of time (P) call the plugins' functions directly: what pluggy looks up for each
    call is looked up once, so plugins that come later need a new front.  ``trace`` has pluggy make all calls, and tell of
    them.
    """

    def __init__(self, manager: pluggy.PluginManager, *, trace: bool = False) -> None:
        self._hook = manager.hook
        self._trace = trace
        self._ready: dict[str, tuple[_Functions, bool]] = {}
        self._bound: dict[tuple[Any, ...], _Bound] = {}
        self.watcher: Callable[[str], None] | None = None
        """Told the name of each hook that is called without pluggy: for tests."""

    def _results(self, hook: pluggy.HookCaller, *values: Any) -> list[Any]:
        """What the plugins have to say; ``values`` are the parameters of the hook, in their order."""
        functions, alone = self._ready.get(hook.name) or self._prepare(hook)
        if not alone:
            return _given(hook(**dict(zip(_parameters(hook), values, strict=True))))
        if self.watcher is not None:
            self.watcher(hook.name)
        results = []
        for function, _ in functions:
            result = function(*values)
            if result is not None:
                results.append(result)
        return results

    def _prepare(self, hook: pluggy.HookCaller) -> tuple[_Functions, bool]:
        """The plugins' functions in the order of calls, with their names; and whether pluggy is not needed for them."""
        found = hook.get_hookimpls()
        parameters = _parameters(hook)
        functions = tuple((_taking(one.function, parameters, one.argnames), one.plugin_name) for one in reversed(found))
        alone = not self._trace and not any(one.hookwrapper or one.wrapper for one in found)
        self._ready[hook.name] = ready = functions, alone
        return ready

    def settings(self, schema: Schema) -> None:
        """R1."""
        self._hook.pyro_settings(schema=schema)

    def configure(self, kernel: Kernel) -> None:
        """R2."""
        self._hook.pyro_configure(kernel=kernel)

    def types(self, types: TypeTable) -> None:
        """R8."""
        self._hook.pyro_types(types=types)

    def client_policies(self, kernel: Kernel) -> list[Callable[[ProxyBase, str, Exception, int], bool]]:
        """R10, flattened."""
        return [policy for result in _given(self._hook.pyro_client_policies(kernel=kernel)) for policy in result]

    def extensions(self, kernel: Kernel) -> frozenset[str]:
        """R12, joined."""
        return frozenset(name for result in _given(self._hook.pyro_extensions(kernel=kernel)) for name in result)

    def commands(self) -> list[Any]:
        """R11, flattened."""
        return [command for result in _given(self._hook.pyro_commands()) for command in result]

    def resolve(self, uri: URI, kernel: Kernel) -> URI | None:
        """R9."""
        return cast("URI | None", self._hook.pyro_resolve(uri=uri, kernel=kernel))

    def describe(self, cls: type, members: Members, kernel: Kernel) -> None:
        """O1."""
        self._hook.pyro_describe(cls=cls, members=members, kernel=kernel)

    def instances(self, cls: type, kernel: Kernel) -> InstanceProvider | None:
        """O2."""
        return cast("InstanceProvider | None", self._hook.pyro_instances(cls=cls, kernel=kernel))

    def bind_method(self, cls: type, name: str, members: Members) -> list[Callable[[Callable[..., Any]], Any]]:
        """O3, without the plugins that had nothing to say."""
        return _given(self._hook.pyro_bind_method(cls=cls, name=name, members=members))

    def stream_layers(self, side: str, uri: URI | None, kernel: Kernel) -> list[Layer]:
        """C1, in order."""
        results = self._results(self._hook.pyro_stream_layers, side, uri, kernel)
        return results and sorted((layer for result in results for layer in result), key=lambda layer: layer.order)

    def hello(
        self, proxy: ProxyBase, connection: ClientConnection, hello: dict[str, Any], annotations: dict[str, bytes]
    ) -> None:
        """C2."""
        self._results(self._hook.pyro_hello, proxy, connection, hello, annotations)

    def validate_handshake(self, connection: ServerConnection, hello: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """C3."""
        return self._results(self._hook.pyro_validate_handshake, connection, hello)

    def validate_welcome(self, proxy: ProxyBase, connection: ClientConnection, welcome: Mapping[str, Any]) -> None:
        """C4."""
        self._results(self._hook.pyro_validate_welcome, proxy, connection, welcome)

    def system_objects(self, daemon: Any) -> list[Mapping[str, Any]]:
        """O4."""
        return _given(self._hook.pyro_system_objects(daemon=daemon))

    def register(self, daemon: Any, entry: Entry, options: dict[str, Any]) -> list[Entry]:
        """O6, without the plugins that had nothing to say."""
        return _given(self._hook.pyro_register(daemon=daemon, entry=entry, options=options))

    def daemon_closed(self, daemon: Any) -> None:
        """O5; each implementation isolated."""
        self._isolated(self._hook.pyro_daemon_closed, daemon)

    def bind(self, connection: Any) -> list[Steps]:
        """C5; what :func:`steady` plugins have said is remembered."""
        key = type(connection), connection.extensions, connection.settings.version
        known = self._bound.get(key) or self._prepare_bind(connection, key)
        if known is None:
            return self._results(self._hook.pyro_bind, connection)
        if self.watcher is not None:
            self.watcher("pyro_bind")
        found = [steps if function is None else function(connection) for function, steps in known]
        return [steps for steps in found if steps is not None]

    def _prepare_bind(self, connection: Any, key: tuple[Any, ...]) -> _Bound | None:
        hook = self._hook.pyro_bind
        functions, alone = self._ready.get(hook.name) or self._prepare(hook)
        if not alone:
            return None
        known: list[tuple[Callable[[Any], Steps | None] | None, Steps | None]] = []  # as in _Bound
        for (function, _), one in zip(functions, reversed(hook.get_hookimpls()), strict=True):
            if not getattr(one.function, "_pyro_steady", False):
                known.append((function, None))
            elif (steps := function(connection)) is not None:
                known.append((None, steps))
        if len(self._bound) >= MAX_COMBINATIONS:
            self._bound.clear()
        self._bound[key] = bound = tuple(known)
        return bound

    def opened(self, connection: ServerConnection) -> None:
        """C6; each implementation isolated."""
        self._isolated(self._hook.pyro_opened, connection)

    def closed(self, connection: ServerConnection, error: BaseException | None) -> None:
        """C6; each implementation isolated."""
        self._isolated(self._hook.pyro_closed, connection, error)

    def housekeeping(self, daemon: Any, now: float) -> None:
        """P1; each implementation isolated."""
        self._isolated(self._hook.pyro_housekeeping, daemon, now)

    def _isolated(self, hook: pluggy.HookCaller, *values: Any) -> None:
        functions, _ = self._ready.get(hook.name) or self._prepare(hook)
        for function, plugin in functions:
            try:
                function(*values)
            except Exception:  # plugin code
                log.exception("plugin %r failed in %s", plugin, hook.name)


def _parameters(hook: pluggy.HookCaller) -> tuple[str, ...]:
    assert hook.spec is not None  # all are ours
    return tuple(hook.spec.argnames)


def _taking(function: Callable[..., Any], given: Sequence[str], wanted: Sequence[str]) -> Callable[..., Any]:
    """``function``, which may leave out parameters, as one that takes all that are given, in their order."""
    if tuple(wanted) == tuple(given):
        return function
    places = [given.index(name) for name in wanted]
    if not places:
        return lambda *values: function()
    if len(places) == 1:
        place = places[0]
        return lambda *values: function(values[place])
    return lambda *values: function(*[values[place] for place in places])


def _given(results: list[Any]) -> list[Any]:
    return [result for result in results if result is not None]


def wrap_stream(stream: Stream, layers: Iterable[Layer], *, server_side: bool) -> Stream:
    """``stream`` with all layers put around it; closed when one of them fails."""
    try:
        for layer in layers:
            stream = layer.wrap(stream, server_side=server_side)
    except BaseException:
        stream.close()
        raise
    return stream
