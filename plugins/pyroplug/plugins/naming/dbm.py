"""Names in a dbm file of Pyro4, which has no tags: ``-s dbm:names``."""

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

PLUGIN = PluginInfo("naming_dbm", "a name server's names in a dbm file of Pyro4", requires=("naming",))


def _open(path: str, settings: Settings) -> Storage:
    from .dbmfile import DbmStorage

    return DbmStorage(path)


@hookimpl
def pyro_configure(kernel: Kernel) -> None:
    """The storage "dbm"."""
    naming_of(kernel).storages["dbm"] = _open
