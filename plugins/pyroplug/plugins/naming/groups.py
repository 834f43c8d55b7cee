"""Hierarchical names: groups of names as Pyro3 had them, over any name server.

Names form a tree.  Its root is ``:``, parts are separated by ``.``; a name that begins with ``:`` is absolute, any other
lives in the default group.  ``printer`` is ``:Default.printer``.  Parts are printable ASCII without blank, backslash, dot
and colon.  In the name server, which may be Pyro5's, an object's name is its absolute name, and a group is an entry whose
name ends with a dot.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pyroplug.core.errors import NamingError
from pyroplug.core.kernel import Kernel
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.uri import URI

from .table import NAMESERVER_NAME

__all__ = ["DEFAULT_GROUP", "GROUP", "OBJECT", "PLUGIN", "Groups"]

PLUGIN = PluginInfo("naming_groups", "hierarchical names in groups, over any name server", requires=("naming",))

ROOT = ":"
DEFAULT_GROUP = ":Default"
GROUP_TAG = "pyroplug:group"
GROUP, OBJECT = "group", "object"
_PART = re.compile(r"[!-\-/-9;-\[\]-~]+\Z")


class Groups:
    """A view of a name server in which names form a tree.

    :param nameserver: a proxy of a name server, or a name server
    :param default: the group of relative names
    :param kernel: whose plugins count; without it that of the proxy
    :raises PluginError: the plugin ``naming_groups`` is off
    """

    def __init__(self, nameserver: Any, default: str = DEFAULT_GROUP, kernel: Kernel | None = None) -> None:
        kernel = kernel or getattr(nameserver, "_pyroKernel", None)
        if kernel is not None:
            kernel.require("naming_groups")
        self._ns = nameserver
        self._default = ROOT
        self._default = self.full_name(default)

    def full_name(self, name: str) -> str:
        """The absolute form of a name.

        :raises NamingError: it is no name
        """
        if not isinstance(name, str):
            raise TypeError(f"a name must be a text, not {type(name).__name__}")
        if name == ROOT:
            return name
        parts = name.removeprefix(ROOT).split(".")
        for part in parts:
            if not _PART.match(part):
                raise NamingError(
                    f"invalid name {name!r}: the part {part!r} must be printable ASCII without blank, '\\', '.' and ':'"
                )
        return name if name.startswith(ROOT) else self._inside(self._default) + name

    # ----------------------------------------------------------------- objects
    def register(self, name: str, uri: URI | str, metadata: Iterable[str] | None = None, replace: bool = False) -> None:
        """Register an object; its group must exist.

        :raises NamingError: the name is taken (unless ``replace``), is a group's, or there is no such group
        """
        name = self._new(name)
        self._ns.register(name, uri, safe=not replace, metadata=metadata)

    def resolve(self, name: str) -> URI:
        """The URI of an object.

        :raises NamingError: there is no such object
        """
        uri: URI = self._ns.lookup(self.full_name(name))
        return uri

    def unregister(self, name: str) -> None:
        """Remove an object.

        :raises NamingError: there is no such object
        """
        name = self.full_name(name)
        if not self._ns.remove(name=name):
            raise NamingError(f"unknown name: {name}")

    # ----------------------------------------------------------------- groups
    def create_group(self, name: str) -> None:
        """Make a group; the one around it must exist.

        :raises NamingError: there is something with that name, or there is no group around it
        """
        name = self._new(name)
        if self._exists(name):
            raise NamingError(f"name already registered: {name}")
        # some URI has to be there, and this one is valid as long as the name server is
        self._ns.register(name + ".", self._ns.lookup(NAMESERVER_NAME), safe=True, metadata=[GROUP_TAG])

    def delete_group(self, name: str) -> int:
        """Remove a group with all that is in it; how many objects and groups that were, itself included.

        :raises NamingError: there is no such group, or it is the root or the default group
        """
        name = self.full_name(name)
        if name in (ROOT, DEFAULT_GROUP):
            raise NamingError(f"the group {name} cannot be removed")
        self._must_be_group(name)
        removed: int = self._ns.remove(prefix=name + ".")
        return removed

    def list_group(self, name: str | None = None) -> dict[str, str]:
        """What is right inside a group: by name, without that of the group, ``"object"`` or ``"group"``.

        :param name: the group; the default group if not given
        :raises NamingError: there is no such group
        """
        group = self._default if name is None else self.full_name(name)
        self._must_be_group(group)
        start = self._inside(group)
        found: dict[str, str] = {}
        for full in self._ns.list(prefix=start):
            part, dot, _ = full[len(start) :].partition(".")
            if part:
                found[part] = GROUP if dot else found.get(part, OBJECT)
        if group == ROOT:
            found[DEFAULT_GROUP.removeprefix(ROOT)] = GROUP
        return dict(sorted(found.items()))

    def list_all(self) -> dict[str, str]:
        """The URIs of all objects in the tree, by absolute name."""
        return {name: uri for name, uri in sorted(self._ns.list(prefix=ROOT).items()) if not name.endswith(".")}

    # ----------------------------------------------------------------- how
    @staticmethod
    def _inside(group: str) -> str:
        """What the names of everything in a group begin with."""
        return group if group == ROOT else group + "."

    def _new(self, name: str) -> str:
        name = self.full_name(name)
        around, dot, _ = name.rpartition(".")
        self._must_be_group(around if dot else ROOT)
        if self._is_group(name):
            raise NamingError(f"name already registered: {name} (it is a group)")
        return name

    def _must_be_group(self, name: str) -> None:
        if not self._is_group(name):
            raise NamingError(f"there is no group {name}")

    def _is_group(self, name: str) -> bool:
        return name in (ROOT, DEFAULT_GROUP) or self._exists(name + ".")

    def _exists(self, name: str) -> bool:
        try:
            self._ns.lookup(name)
        except NamingError:
            return False
        return True
