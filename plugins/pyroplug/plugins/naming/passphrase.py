"""A passphrase for the name server: who does not say it in the handshake is not let in.

Both sides have it from NS_PASSPHRASE or NS_PASSPHRASE_FILE.  Our clients say it to name servers only; a Pyro5 program
says it with ``proxy._pyroHandshake``, the commands with ``--handshake-file`` too.  It travels as it is, so on networks
that others can read it needs TLS, and whoever can be made to ask a false name server has told it: give clients
the name server's address (NS_HOST) rather than have them search.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any

from pyroplug.core.connection import ServerConnection
from pyroplug.core.errors import ConfigError, SecurityError
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.kernel import Kernel
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Schema, Setting
from pyroplug.core.stash import StashKey

from .secret import shared_secret
from .table import NAMESERVER_NAME

__all__ = ["PLUGIN"]

PLUGIN = PluginInfo("naming_passphrase", "a passphrase for the name server", requires=("naming",))

LONGEST = 4096
"""Bytes that are read of the file."""

_FROM_FILE = StashKey[str]()


@hookimpl
def pyro_settings(schema: Schema) -> None:
    """NS_PASSPHRASE and NS_PASSPHRASE_FILE."""
    schema.add(
        Setting(
            "NS_PASSPHRASE",
            str,
            None,
            "what clients must say to the name server, and say to it",
            PLUGIN.name,
            optional=True,
            secret=True,
        )
    )
    schema.add(Setting("NS_PASSPHRASE_FILE", str, None, "file that holds it in one line", PLUGIN.name, optional=True))


@hookimpl
def pyro_configure(kernel: Kernel) -> None:
    """Read the file, so that a mistake shows at the start."""
    _passphrase(kernel)


def _passphrase(kernel: Kernel) -> str | None:
    settings = kernel.settings
    known = None if settings.NS_PASSPHRASE else kernel.stash.get(_FROM_FILE, None)
    if known is not None:
        return known
    secret = shared_secret(settings, "NS_PASSPHRASE", LONGEST)
    if secret is None:
        return None
    try:
        text = secret.decode()
    except UnicodeDecodeError:  # from None: the exception holds what was read
        raise ConfigError(f"NS_PASSPHRASE_FILE: {settings.NS_PASSPHRASE_FILE!r} is no text in UTF-8") from None
    if not settings.NS_PASSPHRASE:
        kernel.stash[_FROM_FILE] = text
    return text


@hookimpl
def pyro_hello(proxy: Any, hello: dict[str, Any]) -> None:
    """Say it to name servers, unless the program says something of its own."""
    if hello["object"] == NAMESERVER_NAME and hello["handshake"] == "hello":
        passphrase = _passphrase(proxy._pyroKernel)
        if passphrase is not None:
            hello["handshake"] = passphrase


@hookimpl
def pyro_validate_handshake(connection: ServerConnection, hello: Mapping[str, Any]) -> None:
    """Let in who says it.

    :raises SecurityError: anything else was said
    """
    daemon: Any = connection.endpoint.daemon  # type: ignore[attr-defined]
    if not hasattr(daemon, "nameserver"):
        return
    passphrase = _passphrase(daemon.kernel)
    said = hello["handshake"]
    if passphrase is not None and not (
        isinstance(said, str) and hmac.compare_digest(said.encode("utf-8", "replace"), passphrase.encode("utf-8"))
    ):
        raise SecurityError("this name server wants a passphrase, and this was not it (NS_PASSPHRASE)")
