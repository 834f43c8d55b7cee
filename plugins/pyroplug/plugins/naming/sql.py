"""Names in an SQLite file that Pyro5's name server can use too: ``-s sql:names.sqlite``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.kernel import Kernel
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Settings

from .table import naming_of

if TYPE_CHECKING:
    from .storage import Storage

__all__ = ["PLUGIN"]

PLUGIN = PluginInfo(
    "naming_sql", "a name server's names in an SQLite file that Pyro5 can use too", requires=("naming",)
)


def _open(path: str, settings: Settings) -> Storage:
    from .sqlite import SqlStorage  # only who runs a name server needs SQLite

    return SqlStorage(path)


@hookimpl
def pyro_configure(kernel: Kernel) -> None:
    """The storage "sql"."""
    naming_of(kernel).storages["sql"] = _open
