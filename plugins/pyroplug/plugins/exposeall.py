"""REQUIRE_EXPOSE=0: everything public of a registered class is remote, as in programs before ``@expose``.

Private names stay private.  This gives up deny-by-default; prefer to expose what is needed.
"""

from __future__ import annotations

from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.kernel import Kernel
from pyroplug.core.members import Members, compute_members
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Schema, Setting

__all__ = ["PLUGIN"]

PLUGIN = PluginInfo("exposeall", "REQUIRE_EXPOSE=0 exposes everything public")


@hookimpl
def pyro_settings(schema: Schema) -> None:
    """REQUIRE_EXPOSE."""
    schema.add(
        Setting(
            "REQUIRE_EXPOSE", bool, True, "only what @expose marks is remote; 0: everything public", owner="exposeall"
        )
    )


@hookimpl(tryfirst=True)
def pyro_describe(cls: type, members: Members, kernel: Kernel) -> None:
    """Add what is public, before other plugins look at the members."""
    if not kernel.settings.REQUIRE_EXPOSE:
        everything = compute_members(cls, everything=True)
        members.methods.update(everything.methods)
        members.properties.update(everything.properties)
