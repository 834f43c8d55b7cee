"""Plugins: what one says about itself, and how the wanted ones are found, ordered and loaded.

A plugin is a module (or any object) with functions marked by ``hookimpl`` and a ``PLUGIN`` that says who
it is.  It is found through the entry-point group ``pyroplug.plugins``.

pluggy's own loader is not used: it imports everything in the group, loads one of two plugins with the
same name without a word, and stops half-way at the first broken import.
"""

from __future__ import annotations

import functools
import importlib
import logging
import sys
from collections.abc import Iterable, Mapping
from types import FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import pluggy

from .discovery import entry_points
from .errors import ConfigError, PluginConflict, PluginError
from .hookspecs import PROJECT, HookSpecs
from .settings import nearest

__all__ = ["GROUP", "OWN_DISTRIBUTION", "SWITCHED_OFF", "Catalog", "Choice", "Found", "PluginInfo", "PluginSet"]

log = logging.getLogger("pyroplug.plugins")

GROUP = "pyroplug.plugins"
OWN_DISTRIBUTION = "pyroplug"
SWITCHED_OFF = "disabled by PYRO_DISABLE_PLUGINS or PYRO_PLUGINS"
"""The reason of plugins that somebody took out of the default."""


class PluginInfo(NamedTuple):
    """What a plugin says about itself.

    ``opt_in`` plugins are never loaded unless named; ``unsafe`` ones can run code that comes from the
    network, which is logged loudly when they are loaded (and which implies ``opt_in``).
    """

    name: str
    summary: str
    requires: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    opt_in: bool = False
    unsafe: bool = False


class Found(NamedTuple):
    """A plugin that is installed, loaded or not."""

    name: str
    place: str
    """``module`` or ``module:object``; empty for an object that the program gives."""
    distribution: str
    version: str
    module: Any = None

    def load(self) -> tuple[PluginInfo, Any]:
        """Import it.

        :raises PluginError: the import fails, or there is no ``PLUGIN`` with this name
        """
        plugin = self.module
        if self.place:
            module, _, attributes = self.place.partition(":")
            try:
                plugin = importlib.import_module(module)
                plugin = functools.reduce(getattr, attributes.split(".") if attributes else (), plugin)
            except Exception as exc:  # any import may fail in any way
                raise PluginError(
                    f"plugin {self.name!r} of {self.distribution} {self.version} cannot be loaded: {exc!r}", self.name
                ) from exc
        info = getattr(plugin, "PLUGIN", None)
        if not isinstance(info, PluginInfo):
            raise PluginError(f"plugin {self.name!r} of {self.distribution} has no PLUGIN = PluginInfo(...)", self.name)
        if info.name != self.name:
            raise PluginError(
                f"plugin {self.name!r} of {self.distribution} calls itself {info.name!r}: the entry point and "
                f"PluginInfo must agree",
                self.name,
            )
        return info, plugin


class Choice(NamedTuple):
    """Which plugins are wanted, from the environment or from code."""

    exact: tuple[str, ...] | None = None
    plus: tuple[str, ...] = ()
    minus: tuple[str, ...] = ()
    autoload: bool = True

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Choice:
        """Read PYRO_PLUGINS, PYRO_DISABLE_PLUGINS and PYRO_PLUGIN_AUTOLOAD."""
        wanted = cls.parse(environ.get("PYRO_PLUGINS", ""), "PYRO_PLUGINS")
        disabled = tuple(part.strip() for part in environ.get("PYRO_DISABLE_PLUGINS", "").split(",") if part.strip())
        text = environ.get("PYRO_PLUGIN_AUTOLOAD", "").strip().lower()
        if text not in ("", "0", "1", "yes", "no", "on", "off", "true", "false"):
            raise ConfigError(f"PYRO_PLUGIN_AUTOLOAD cannot be {text!r}: allowed is 1 or 0")
        autoload = text not in ("0", "no", "off", "false")
        return cls(wanted.exact, wanted.plus, wanted.minus + disabled, autoload)

    @classmethod
    def parse(cls, text: str, where: str) -> Choice:
        """Read an exact list, or a list of changes to the defaults where each part starts with + or -."""
        parts = [part.strip() for part in text.split(",") if part.strip()]
        if not parts:
            return cls()
        changes = [part for part in parts if part[0] in "+-"]
        if changes and len(changes) != len(parts):
            raise ConfigError(f"{where} cannot be {text!r}: give an exact list, or a list where each name has + or -")
        if not changes:
            return cls(exact=tuple(parts))
        return cls(
            plus=tuple(part[1:] for part in parts if part[0] == "+"),
            minus=tuple(part[1:] for part in parts if part[0] == "-"),
        )


class Catalog:
    """All installed plugins by name; nothing is imported to find out."""

    def __init__(self, found: Iterable[Found]) -> None:
        self._found: dict[str, Found] = {}
        for item in found:
            other = self._found.get(item.name)
            if other is not None and (other.distribution, other.place) != (item.distribution, item.place):
                raise PluginConflict(
                    f"two plugins are called {item.name!r}: one of {other.distribution} and one of "
                    f"{item.distribution}; uninstall one of them",
                    item.name,
                )
            self._found[item.name] = item

    @classmethod
    def installed(cls) -> Catalog:
        """What the entry points of the environment say."""
        return cls(Found(*point) for point in entry_points(GROUP))

    def with_objects(self, plugins: Iterable[Any]) -> Catalog:
        """The same, and plugins given as objects, which win over installed ones of the same name."""
        given: dict[str, Found] = {}
        for plugin in plugins:
            info = getattr(plugin, "PLUGIN", None)
            if not isinstance(info, PluginInfo):
                raise PluginError(f"{plugin!r} is no plugin: it has no PLUGIN = PluginInfo(...)")
            if info.name in given and given[info.name].module is not plugin:
                raise PluginConflict(f"two plugins that the program gives are called {info.name!r}", info.name)
            given[info.name] = Found(info.name, "", "(given by the program)", "", plugin)
        return Catalog([*(item for name, item in self._found.items() if name not in given), *given.values()])

    def __iter__(self) -> Any:
        return iter(sorted(self._found.values(), key=lambda item: item.name))

    def __contains__(self, name: object) -> bool:
        return name in self._found

    def __getitem__(self, name: str) -> Found:
        try:
            return self._found[name]
        except KeyError:
            raise PluginError(f"there is no plugin {name!r}{nearest(name, self._found)}", name) from None


class _Manager(pluggy.PluginManager):
    """pluggy's manager, quicker at finding the hook implementations among the names of a module."""

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> Any:
        if type(plugin) is ModuleType:
            value = vars(plugin).get(name)
            if type(value) is FunctionType:
                return value.__dict__.get(f"{PROJECT}_impl")
            if not isinstance(value, (MethodType, staticmethod, classmethod)):
                return None
        return super().parse_hookimpl_opts(plugin, name)


class PluginSet:
    """The plugins of one kernel: chosen, loaded in the order of what they require, then of their names.

    ``trace`` prints each hook call and who implements it.
    """

    def __init__(self, catalog: Catalog, choice: Choice, trace: bool = False) -> None:
        self.catalog = catalog
        self.choice = choice
        self.trace = trace
        self.loaded: dict[str, PluginInfo] = {}
        self.reasons: dict[str, str] = {}
        """Why a plugin is off, by name."""
        self.manager: pluggy.PluginManager = _Manager(PROJECT)
        self._modules: dict[str, Any] = {}
        self.manager.add_hookspecs(HookSpecs)
        if trace:
            self.manager.trace.root.setwriter(lambda text: sys.stderr.write(text))
            self.manager.enable_tracing()

    def load(self, also: Iterable[str] = ()) -> None:
        """Load what is wanted, and ``also`` these.

        :raises PluginError: one is missing or broken, or what it requires is off
        :raises PluginConflict: two of them exclude each other
        """
        wanted = self._wanted(also)
        infos: dict[str, PluginInfo] = {}
        for name in sorted(wanted):
            info, module = self.catalog[name].load()
            if (info.opt_in or info.unsafe) and name not in wanted.named:
                self.reasons[name] = "opt-in: name it in PYRO_PLUGINS to load it"
                continue
            infos[name] = info
            self._modules[name] = module
        order = self._in_order(infos, wanted.named)
        for name in reversed(order):  # pluggy calls what was registered last first
            self._register(infos[name])
        self.loaded = {name: infos[name] for name in order}

    def add(self, name: str) -> PluginInfo:
        """Load one more plugin, because the program named it after the kernel was made."""
        if name in self.choice.minus:
            raise PluginError(f"plugin {name!r} is disabled by PYRO_DISABLE_PLUGINS or PYRO_PLUGINS", name)
        info, module = self.catalog[name].load()
        for required in info.requires:
            if required not in self.loaded:
                raise PluginError(f"plugin {name!r} requires {required!r}, which is not loaded", name)
        for other in self.loaded.values():
            if other.name in info.conflicts or name in other.conflicts:
                raise PluginConflict(f"plugin {name!r} cannot be used together with {other.name!r}", name)
        self._modules[name] = module
        self._register(info)
        self.reasons.pop(name, None)
        return info

    def drop(self, name: str) -> None:
        """Take a plugin out again whose start failed."""
        self.manager.unregister(name=name)
        self.loaded.pop(name, None)
        self.reasons[name] = "it could not be started"

    def call_one(self, name: str, hook: str, **arguments: Any) -> Any:
        """Call one plugin's implementation of a hook, if it has one (the kernel must know whose result it is)."""
        for implementation in getattr(self.manager.hook, hook).get_hookimpls():
            if implementation.plugin_name == name:
                return implementation.function(**{key: arguments[key] for key in implementation.argnames})
        return None

    def _wanted(self, also: Iterable[str]) -> _Wanted:
        choice = self.choice
        for name in (*(choice.exact or ()), *choice.plus, *also):
            self.catalog[name]
        for name in choice.minus:
            if name not in self.catalog:
                log.warning("the plugin %r that is to be disabled does not exist", name)
        if choice.exact is not None:
            names, named = set(choice.exact), set(choice.exact)
            off = "not in the list of PYRO_PLUGINS"
        else:
            named = {*choice.plus, *also}
            names = set(named)
            off = "not named (PYRO_PLUGIN_AUTOLOAD=0)"
            if choice.autoload:
                names |= {item.name for item in self.catalog if item.distribution == OWN_DISTRIBUTION}
                off = "of another distribution: name it in PYRO_PLUGINS to load it"
        for item in self.catalog:
            if item.name not in names:
                self.reasons[item.name] = off
        for name in choice.minus:
            self.reasons[name] = SWITCHED_OFF
        # objects given by the program are named by being given
        named |= {item.name for item in self.catalog if not item.place}
        return _Wanted((names | {i.name for i in self.catalog if not i.place}) - set(choice.minus), named)

    def _in_order(self, infos: dict[str, PluginInfo], named: set[str]) -> list[str]:
        done: list[str] = []
        visiting: list[str] = []

        def visit(name: str) -> bool:
            if name in done:
                return True
            if name not in infos:
                return False
            if name in visiting:
                circle = " -> ".join([*visiting[visiting.index(name) :], name])
                raise PluginError(f"plugins require each other in a circle: {circle}", name)
            visiting.append(name)
            missing = next((required for required in sorted(infos[name].requires) if not visit(required)), None)
            visiting.pop()
            if missing is None:
                done.append(name)
                return True
            why = self.reasons.get(missing, "it is not installed")
            if name in named:
                raise PluginError(f"plugin {name!r} requires {missing!r}, which is off: {why}", name)
            self.reasons[name] = f"it requires {missing!r}, which is off: {why}"
            del infos[name]
            return False

        for name in sorted(infos):
            visit(name)
        for name in done:
            clash = next((other for other in infos[name].conflicts if other in infos or other in self.loaded), None)
            if clash is not None:
                raise PluginConflict(f"plugin {name!r} cannot be used together with {clash!r}", name)
        return done

    def _register(self, info: PluginInfo) -> None:
        if info.unsafe:
            log.warning(
                "plugin %r is loaded: it can RUN CODE that comes from the network; "
                "use it only between programs that trust each other completely",
                info.name,
            )
        try:
            self.manager.register(self._modules[info.name], info.name)
            self.manager.check_pending()
        except pluggy.PluginValidationError as exc:  # a hook that does not exist, or an argument it does not have
            self.manager.unregister(name=info.name)
            raise PluginError(f"plugin {info.name!r} cannot be used: {exc}", info.name) from exc
        self.loaded[info.name] = info


class _Wanted(set[str]):
    def __init__(self, names: Iterable[str], named: set[str]) -> None:
        super().__init__(names)
        self.named = named
