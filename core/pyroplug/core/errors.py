"""Every exception the toolkit raises by itself.

::

    PyroError
    +-- CommunicationError             the network, or what came over it
    |   +-- ConnectionClosedError      the link was up and broke
    |   +-- TimeoutError               nothing came within the time allowed
    |   +-- ConnectionRefusedByPeer    the server answered the handshake with "no"
    |   +-- ProtocolError              bytes that are no valid message
    |       +-- LocalProtocolError     ... we were about to send
    |       +-- RemoteProtocolError    ... the peer sent
    |       +-- MessageTooLargeError   a size limit was passed
    |       +-- SerializeError         a value could not be encoded or decoded
    +-- NamingError                    a name could not be looked up
    +-- DaemonError                    wrong use of a daemon, or an unknown object
    |   +-- OverloadError              the server refused the call: too much is running
    |   +-- CircularCallError          the call would wait for a daemon that waits for the call
    +-- SecurityError                  refused for safety's sake
    +-- URIError                       a text that is no valid URI (also a ValueError)
    +-- ConfigError                    a setting or environment variable (also a ValueError)
    +-- PluginError                    a plugin could not be found, loaded or used
    |   +-- PluginConflict             two plugins claim the same thing
    +-- RemoteError                    an exception of a class this side does not know

The names of Pyro5 (and Pyro4) keep their place in the tree, so that an ``except`` clause written for
them catches the same errors here.  What is new stands below one of theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "CircularCallError",
    "CommunicationError",
    "ConfigError",
    "ConnectionClosedError",
    "ConnectionRefusedByPeer",
    "DaemonError",
    "LocalProtocolError",
    "MessageTooLargeError",
    "NamingError",
    "OverloadError",
    "PluginConflict",
    "PluginError",
    "ProtocolError",
    "PyroError",
    "RemoteError",
    "RemoteProtocolError",
    "SecurityError",
    "SerializeError",
    "TimeoutError",
    "URIError",
]


class PyroError(Exception):
    """Base of every error of the toolkit."""


class CommunicationError(PyroError):
    """Talking to the other side went wrong."""


class ConnectionClosedError(CommunicationError):
    """The connection was up and broke, or was closed by the other side."""


class TimeoutError(CommunicationError):
    """The other side did not answer within the time allowed (seconds; COMMTIMEOUT, CONNECT_TIMEOUT)."""


class ConnectionRefusedByPeer(CommunicationError):
    """The server understood the handshake and refused it; ``reason`` is what it said."""

    def __init__(self, message: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class ProtocolError(CommunicationError):
    """Bytes that do not form a valid message at this point of the conversation."""


class LocalProtocolError(ProtocolError):
    """This side was about to send something the protocol does not allow."""


class RemoteProtocolError(ProtocolError):
    """The other side sent something the protocol does not allow."""


class MessageTooLargeError(ProtocolError):
    """A message passed a size limit; ``size`` and ``limit`` are in bytes."""

    def __init__(self, message: str = "", size: int = 0, limit: int = 0) -> None:
        super().__init__(message)
        self.size = size
        self.limit = limit


class SerializeError(ProtocolError):
    """A value could not be encoded or decoded."""


class NamingError(PyroError):
    """A name could not be resolved or registered."""


class DaemonError(PyroError):
    """A daemon was used wrongly, or does not know the object that was asked for."""


class OverloadError(DaemonError):
    """The server has too many calls running and waiting; try again after ``retry_after`` seconds.

    ``refused`` is true when the server did not run this very call; otherwise the error may come from a method, which may
    have called others that were overloaded.
    """

    refused = False

    def __init__(self, message: str = "", retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class CircularCallError(DaemonError):
    """A call was not made, because the daemon that it is for cannot serve it before it has ended.

    ``chain`` has the locations of the daemons that the calls went through, the first and the last being that one.
    """

    def __init__(self, message: str = "", chain: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.chain = tuple(chain)


class SecurityError(PyroError):
    """Something was refused because it is not safe."""


class URIError(PyroError, ValueError):
    """A text is no valid URI."""


class ConfigError(PyroError, ValueError):
    """A setting or an environment variable has a value that cannot be used."""


class PluginError(PyroError):
    """A plugin could not be found, loaded or used; ``plugin`` is its name."""

    def __init__(self, message: str = "", plugin: str = "") -> None:
        super().__init__(message)
        self.plugin = plugin


class PluginConflict(PluginError):
    """Two plugins claim the same name, flag, id or setting."""


class RemoteError(PyroError):
    """A remote exception whose class does not exist, or may not be built, on this side.

    It carries everything that came: ``class_name`` (the full dotted name on the other side), ``args``,
    ``attributes`` (the instance attributes, never set on this object), and the remote traceback in
    ``_pyroTraceback``.  ``matches("ValueError")`` compares by short or full name.
    """

    def __init__(
        self,
        class_name: str = "",
        remote_args: Sequence[Any] = (),
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        text = ", ".join(str(a) for a in remote_args)
        super().__init__(f"{class_name}: {text}" if text else class_name)
        self.class_name = class_name
        self.remote_args = tuple(remote_args)
        self.attributes: dict[str, Any] = dict(attributes or {})

    def matches(self, name: str) -> bool:
        """Whether the remote class is called ``name`` (short or fully dotted)."""
        return name in (self.class_name, self.class_name.rpartition(".")[2])

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.class_name, self.remote_args, self.attributes), self.__dict__)
