"""The daemon of a name server."""

from __future__ import annotations

from typing import Any

from pyroplug.core.daemon import Daemon

__all__ = ["NameServerDaemon"]


class NameServerDaemon(Daemon):
    """A daemon whose one object is a name server."""

    nameserver: Any
    """The object that it serves."""
