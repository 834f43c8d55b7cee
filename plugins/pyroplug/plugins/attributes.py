"""Remote attributes: exposed properties are read and written through a proxy.

They travel as calls of the pseudo methods ``__getattr__`` and ``__setattr__`` (wire.md 12).
"""

from __future__ import annotations

from typing import Any

from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.members import Members
from pyroplug.core.plugins import PluginInfo

__all__ = ["PLUGIN"]

PLUGIN = PluginInfo("attributes", "exposed properties can be read and written remotely")


def _refusal(name: object) -> AttributeError:
    return AttributeError(f"attempt to access unexposed or unknown remote attribute '{name}'")


@hookimpl(trylast=True)
def pyro_describe(members: Members) -> None:
    """Give the class the two pseudo methods; they look into its own table of properties only."""
    properties = members.properties

    def get_attribute(instance: Any, /, name: str) -> Any:
        found = properties.get(name)
        if found is None or found.fget is None:
            raise _refusal(name)
        return found.fget(instance)

    def set_attribute(instance: Any, /, name: str, value: Any) -> None:
        found = properties.get(name)
        if found is None or found.fset is None:
            raise _refusal(name)
        found.fset(instance, value)

    members.extra["__getattr__"] = get_attribute
    members.extra["__setattr__"] = set_attribute
