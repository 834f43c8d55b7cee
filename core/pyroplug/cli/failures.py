"""Exit codes, and what an error means to who typed the command: whose fault it is and what to do."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyroplug.core.errors import (
    CommunicationError,
    ConfigError,
    ConnectionRefusedByPeer,
    NamingError,
    PluginError,
    ProtocolError,
    PyroError,
    RemoteError,
    SerializeError,
    URIError,
)

if TYPE_CHECKING:
    from .session import Session

__all__ = ["Exit", "Failure", "RemoteFailure", "class_name", "explain"]


class Exit(enum.IntEnum):
    """The exit codes, which scripts may rely on."""

    OK = 0
    FAILED = 1
    """The operation failed: the remote method raised, a check failed."""
    USAGE = 2
    """Wrong arguments or options."""
    UNREACHABLE = 3
    """No connection: nobody there, unknown host or name, no answer to the attempt."""
    PEER = 4
    """Connected, but the other side refused, hung up, took too long or does not speak our protocol."""
    SETUP = 5
    """A plugin or setting of this side cannot be used."""
    INTERNAL = 70
    """A mistake in pyroplug itself."""
    INTERRUPTED = 130
    """Ctrl-C."""


class RemoteFailure(Exception):
    """A remote method raised; ``error`` is what."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True)
class Failure:
    """What to tell about an error: the exit code, whose fault it is, the text, and perhaps what to do."""

    code: Exit
    who: str
    text: str
    hint: str = ""

    def line(self) -> str:
        """All of it in one line."""
        text = " ".join(self.text.split())
        return f"pyroplug: {self.who}: {text}" + (f" [hint: {self.hint}]" if self.hint else "")


def class_name(error: BaseException) -> str:
    """The class of an exception, as the server called it."""
    if isinstance(error, RemoteError):
        return error.class_name
    cls = type(error)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def explain(error: BaseException, session: Session) -> Failure:
    """What an error means."""
    if isinstance(error, RemoteFailure):
        return _remote(error.error)
    if isinstance(error, CommunicationError) and not isinstance(error, OSError):  # which a listener's is, too
        return _communication(error, session)
    if isinstance(error, NamingError):  # once connected, the name server is there and says no
        return Failure(Exit.FAILED if session.connected else Exit.UNREACHABLE, "name server", str(error))
    if isinstance(error, URIError):
        return Failure(Exit.USAGE, "usage", str(error), "URIs look like PYRO:object@host:port")
    if isinstance(error, PluginError):
        return Failure(Exit.SETUP, "plugins here", str(error), "'pyroplug plugins' shows all; PYRO_PLUGINS chooses")
    if isinstance(error, ConfigError):
        return Failure(Exit.SETUP, "settings here", str(error), "correct it, or leave it out")
    if isinstance(error, (PyroError, OSError)):
        return Failure(Exit.FAILED, "here", str(error) or type(error).__name__)
    owner = session.running_plugin
    text = f"{class_name(error)}: {error}"
    if owner:
        return Failure(Exit.FAILED, f"plugin {owner}", text, "run again with --debug to see where")
    return Failure(Exit.INTERNAL, "internal error", text, "run again with --debug, and report what it shows")


def _remote(error: BaseException) -> Failure:
    text = class_name(error)
    shown = str(error)
    if isinstance(error, RemoteError):
        shown = ", ".join(str(argument) for argument in error.remote_args)
    hint = "" if not getattr(error, "_pyroTraceback", None) else "--traceback shows where it was raised"
    return Failure(Exit.FAILED, "remote exception", f"{text}: {shown}" if shown else text, hint)


def _communication(error: CommunicationError, session: Session) -> Failure:
    text = str(error) or type(error).__name__
    if isinstance(error, ConnectionRefusedByPeer):
        return Failure(Exit.PEER, "server", text, _refusal_hint(error.reason))
    if isinstance(error, SerializeError):
        return Failure(Exit.FAILED, "serializer", text, "another --serializer may do")
    if isinstance(error, ProtocolError):
        return Failure(Exit.PEER, "server", text, "'pyroplug probe' tells what is running there")
    if session.connected:
        return Failure(Exit.PEER, "connection", text, "--timeout says how long to wait; the server's log may say more")
    return Failure(Exit.UNREACHABLE, "network", text, "'pyroplug doctor URI' looks step by step")


def _refusal_hint(reason: str) -> str:
    reason = reason.lower()
    if "unknown object" in reason:
        return "'pyroplug call PYRO:Pyro.Daemon@HOST:PORT registered' lists the objects of a daemon"
    if "serializer" in reason:
        return "choose another with --serializer; 'pyroplug probe' tells which are accepted"
    return "if the server wants a secret, give it with --handshake-file"
