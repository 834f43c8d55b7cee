"""URIs: the text that says which object of which daemon is meant.

``PROTOCOL:object@location`` where the location is ``host:port``, ``[ipv6]:port``, or ``./x:rest`` for
transports other than TCP (``./u:/tmp/socket`` is a Unix socket).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

from .errors import URIError

__all__ = ["CONNECTED_SOCKET", "URI", "parse_location"]

CONNECTED_SOCKET = "<<connected-socket>>"
"""The "host" of objects that are reached over a socket the user supplied (Pyro5's text)."""

_SHAPE = re.compile(r"(?P<protocol>[Pp][Yy][Rr][Oo][A-Za-z]*):(?P<object>\S+?)(?:@(?P<location>.+))?\n?\Z")
_SPECIAL = re.compile(r"\./(?P<scheme>[a-z]+):(?P<rest>.+)\Z")

Location = tuple["str | None", "str | None", "int | None"]


def parse_location(location: str, default_port: int | None, what: str = "") -> Location:
    """``(sockname, host, port)`` of a location text; the first is None for ``host:port`` and the reverse.

    :raises URIError: naming the part that is wrong
    """
    what = what or location
    special = _SPECIAL.match(location)
    if special:
        # Pyro keeps the path of a Unix socket here; other schemes keep their letter to be told apart
        rest = special["rest"]
        return (rest if special["scheme"] == "u" else location), None, None
    if location.startswith("./"):
        raise URIError(f"invalid location {location!r} in {what!r}: expected ./u:path")
    host, colon, port = _split_host(location, what)
    if colon and not port:
        raise URIError(f"invalid uri {what!r}: the port is missing after ':'")
    if not colon:
        if default_port is None:
            raise URIError(f"invalid uri {what!r}: the location needs a port, as in host:4444")
        return None, host, default_port
    if not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise URIError(f"invalid port {port!r} in {what!r}: expected a number from 0 to 65535")
    return None, host, int(port)


def _split_host(location: str, what: str) -> tuple[str, str, str]:
    if location.startswith("[["):
        raise URIError(f"invalid ipv6 address in {what!r}: the enclosing brackets are doubled")
    if location.startswith("["):
        host, bracket, rest = location[1:].partition("]")
        if not bracket or not host or (rest and not rest.startswith(":")):
            raise URIError(f"invalid ipv6 address in {what!r}: expected [address]:port")
        return host, rest[:1], rest[1:]
    host, colon, port = location.partition(":")
    if ":" in port:
        raise URIError(f"invalid location {location!r} in {what!r}: write ipv6 addresses in brackets, as in [::1]:4444")
    if not host or any(c.isspace() for c in location):
        raise URIError(f"invalid location {location!r} in {what!r}: the host is missing or has blanks")
    return host, colon, port


class URI:
    """The address of one remote object; compares and hashes by value.

    Made from a text or another URI.  ``protocol`` is upper case; ``object`` is the object id (a set of
    tags for PYROMETA); ``host`` and ``port``, or ``sockname``, say where.  Ports are 0..65535.

    :raises URIError: the text is no URI (it is also a ValueError)
    """

    __slots__ = ("host", "object", "port", "protocol", "sockname")

    protocol: str
    object: Any
    sockname: str | None
    host: str | None
    port: int | None

    def __init__(self, uri: str | URI) -> None:
        if isinstance(uri, URI):
            self.__setstate__(uri.__getstate__())
            return
        if not isinstance(uri, str):
            raise TypeError(f"a URI is made from a text or a URI, not from {type(uri).__name__}")
        self.__setstate__(_parsed(uri) if len(uri) <= _USUAL else _parse(uri))
        if self.protocol == "PYROMETA":
            self.object = set(self.object)

    @classmethod
    def build(cls, protocol: str, object_id: Any, sockname: str | None, host: str | None, port: int | None) -> URI:
        """A URI from its parts, unchecked."""
        self = cls.__new__(cls)
        self.__setstate__((protocol, object_id, sockname, host, port))
        return self

    @staticmethod
    def isUnixsockLocation(location: str) -> bool:
        """Whether a location text means a Unix socket."""
        return location.startswith("./u:")

    @property
    def scheme(self) -> str:
        """Which transport the location is for: ``""`` TCP, ``"u"`` Unix socket, others their own letter."""
        if self.sockname is None:
            return ""
        special = _SPECIAL.match(self.sockname)
        return special["scheme"] if special else "u"

    @property
    def location(self) -> str:
        """The part after the ``@``, or an empty text."""
        if self.sockname is not None:
            return self.sockname if self.scheme != "u" else f"./u:{self.sockname}"
        if self.host is None:
            return ""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        name = ",".join(sorted(self.object)) if isinstance(self.object, (set, frozenset)) else self.object
        location = self.location
        if self.protocol != "PYRO" and self.sockname is None and self.port == _DEFAULT_NS_PORT:
            host = self.host or ""
            location = f"[{host}]" if ":" in host else host
        return f"{self.protocol}:{name}@{location}" if location else f"{self.protocol}:{name}"

    asString = __str__

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__} at 0x{id(self):x}; {self}>"

    def __eq__(self, other: Any) -> bool:
        if not isinstance(other, URI):
            return NotImplemented
        return self.__getstate__() == other.__getstate__()

    def __hash__(self) -> int:
        name = frozenset(self.object) if isinstance(self.object, set) else self.object
        return hash((self.protocol, name, self.sockname, self.host, self.port))

    def __getstate__(self) -> tuple[str, Any, str | None, str | None, int | None]:
        return self.protocol, self.object, self.sockname, self.host, self.port

    def __setstate__(self, state: Any) -> None:
        try:
            self.protocol, self.object, self.sockname, self.host, self.port = state
        except (TypeError, ValueError):
            raise URIError(f"invalid uri state {state!r}: expected 5 parts") from None


_USUAL = 200
"""Texts up to this length are worth to be remembered."""


def _parse(uri: str) -> tuple[str, Any, str | None, str | None, int | None]:
    match = _SHAPE.match(uri)
    if match is None:
        raise URIError(f"invalid uri {uri!r}: expected a form like PYRO:object@host:port")
    protocol = match["protocol"].upper()
    parse = _PROTOCOLS.get(protocol)
    if parse is None:
        raise URIError(f"invalid uri {uri!r}: unknown protocol {protocol!r}, known are {', '.join(_PROTOCOLS)}")
    name, location = parse(match["object"], match["location"], uri)
    return (protocol, name, *location)


# programs make many proxies for few objects, and proxies travel as texts
_parsed = functools.lru_cache(maxsize=256)(_parse)

_DEFAULT_NS_PORT = 9090  # the name server's well-known TCP port, left out when such a URI is printed (Pyro5 does)


def _parse_direct(name: str, location: str | None, uri: str) -> tuple[str, Location]:
    if not location:
        raise URIError(f"invalid uri {uri!r}: the location is missing, as in PYRO:{name}@host:port")
    if location == f"{CONNECTED_SOCKET}:0":
        return name, (None, CONNECTED_SOCKET, 0)
    return name, parse_location(location, None, uri)


def _parse_name(name: str, location: str | None, uri: str) -> tuple[str, Location]:
    return name, parse_location(location, _DEFAULT_NS_PORT, uri) if location else (None, None, None)


def _parse_tags(name: str, location: str | None, uri: str) -> tuple[set[str], Location]:
    tags = {tag.strip() for tag in name.split(",")}
    if "" in tags:
        raise URIError(f"invalid uri {uri!r}: there is an empty tag")
    return tags, _parse_name(name, location, uri)[1]


_PROTOCOLS: Mapping[str, Callable[[str, str | None, str], tuple[Any, Location]]] = {
    "PYRO": _parse_direct,
    "PYRONAME": _parse_name,
    "PYROMETA": _parse_tags,
}
