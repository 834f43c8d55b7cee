"""The commands of the name server.

::

    ns       start one
    nsc      ask and change one: the options that say which, and its commands
    watch    the live view of ``nsc watch``
    checks   does what is registered answer?
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.plugins import PluginInfo

__all__ = ["PLUGIN"]

PLUGIN = PluginInfo(
    "naming_tools", "the commands 'ns' and 'nsc': start, ask and watch a name server", requires=("naming",)
)


@hookimpl
def pyro_commands() -> Iterable[Any]:
    """``ns`` and ``nsc``."""
    from .ns import ns  # only the command line needs them, and click
    from .nsc import nsc

    return [ns, nsc]
