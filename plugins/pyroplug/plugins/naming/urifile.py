"""The URI file: a name server writes down where it is, and clients read it (NS_URIFILE).

For places that broadcasts do not reach, with a folder that both ends see, and for ports that nobody knows before.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

from pyroplug.core.errors import CommunicationError, NamingError, URIError
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.kernel import Kernel
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Schema, Setting
from pyroplug.core.uri import URI

from .table import NAMESERVER_NAME, Closeable, Search, naming_of

__all__ = ["PLUGIN", "FromFile", "UriFile"]

PLUGIN = PluginInfo("naming_urifile", "name servers write their uri to a file, clients read it", requires=("naming",))

log = logging.getLogger("pyroplug.naming")

LONGEST = 4096
"""Bytes that are read of it."""


class UriFile:
    """The file of a running name server.

    :raises NamingError: it cannot be written
    """

    def __init__(self, path: str, uri: URI) -> None:
        import tempfile

        self._path = path
        self._text = f"{uri}\n"
        try:
            # beside it and then renamed: nobody ever reads half of it
            number, name = tempfile.mkstemp(prefix=os.path.basename(path), dir=os.path.dirname(path) or ".")
            try:
                with open(number, "w", encoding="utf-8") as file:
                    file.write(self._text)
                os.chmod(name, 0o644)
                os.replace(name, path)
            except BaseException:
                os.unlink(name)
                raise
        except OSError as exc:
            raise NamingError(f"the uri file {path!r} cannot be written: {exc.strerror or exc} (NS_URIFILE)") from exc
        log.info("wrote %s to %s", uri, path)

    def close(self) -> None:
        """Remove it, unless another name server has written its own by now."""
        try:
            with open(self._path, encoding="utf-8") as file:
                ours = file.read(LONGEST) == self._text
            if ours:
                os.unlink(self._path)
        except (OSError, ValueError) as exc:
            log.debug("the uri file %s was not removed: %s", self._path, exc)


class FromFile:
    """Reads the file."""

    name = "URI file"
    order = 25

    def locate(self, search: Search) -> Sequence[URI]:
        """What stands in it, if a name server is there."""
        path = search.kernel.settings.NS_URIFILE
        if not path:
            return ()
        try:
            with open(path, encoding="utf-8") as file:
                uri = URI(file.read(LONGEST).strip())
        except OSError as exc:
            raise CommunicationError(f"{path!r} cannot be read: {exc.strerror or exc}") from exc
        except (URIError, UnicodeDecodeError) as exc:
            raise CommunicationError(f"{path!r} holds no uri: {exc}") from exc
        if uri.protocol != "PYRO":
            raise CommunicationError(f"{path!r} holds {uri}, which is nowhere to connect to")
        search.open(uri)
        return [uri]


def _announce(daemon: Any) -> Closeable | None:
    path = daemon.kernel.settings.NS_URIFILE
    return UriFile(path, daemon.uriFor(NAMESERVER_NAME)) if path else None


@hookimpl
def pyro_settings(schema: Schema) -> None:
    """NS_URIFILE."""
    schema.add(
        Setting("NS_URIFILE", str, None, "file in which a name server leaves its uri", PLUGIN.name, optional=True)
    )


@hookimpl
def pyro_configure(kernel: Kernel) -> None:
    """A way to find name servers, and to be found."""
    naming = naming_of(kernel)
    naming.locators.append(FromFile())
    naming.announcers.append(_announce)
