"""What a name server keeps for each name, and what it accepts from clients."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from typing import Any, NamedTuple

from pyroplug.core.errors import NamingError
from pyroplug.core.proxy import ProxyBase
from pyroplug.core.settings import Settings
from pyroplug.core.uri import URI

__all__ = ["Changes", "Lease", "Limits", "Record"]


class Lease(NamedTuple):
    """How long a registration lasts, and who may prolong it."""

    owner: str
    """The secret of the daemon that registered it."""
    seconds: float
    """What was granted."""
    expires: float
    """When it ends, in seconds of ``time.time()``."""


class Record(NamedTuple):
    """One registration."""

    uri: str
    tags: frozenset[str] = frozenset()
    lease: Lease | None = None


Changes = dict[str, "Record | None"]
"""What becomes of names: None means that the name goes."""

# control characters would break lists and logs, surrogates cannot be stored or sent
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Limits:
    """Checks what clients send; the settings NS_MAX_NAME, NS_MAX_TAGS and NS_LEASE_MAX.

    Values of the wrong type are a TypeError, as in Pyro5; all others that are refused are a NamingError.
    """

    def __init__(self, settings: Settings) -> None:
        self.max_name: int = settings.NS_MAX_NAME
        self.max_tags: int = settings.NS_MAX_TAGS
        self.max_lease: float = settings.NS_LEASE_MAX

    def name(self, name: Any) -> str:
        """A name to be registered."""
        if not isinstance(name, str):
            raise TypeError("name must be a str")
        return self._text(name, "name")

    def uri(self, uri: Any) -> str:
        """A URI to be registered, as text.

        :raises URIError: the text is no URI
        """
        if isinstance(uri, URI):
            return str(uri)
        if not isinstance(uri, str):
            raise TypeError("only URIs or strings can be registered")
        URI(uri)
        return uri

    def tags(self, metadata: Any, what: str = "metadata") -> frozenset[str]:
        """The tags in an iterable of texts; None is none."""
        if isinstance(metadata, str):
            raise TypeError(f"{what} should not be a str, but another iterable (set, list, etc)")
        if isinstance(metadata, ProxyBase):  # to iterate it would be to call whoever the client names
            raise TypeError(f"{what} cannot be a remote object")
        if not metadata:
            return frozenset()
        tags = list(islice(metadata, self.max_tags + 1))
        if len(tags) > self.max_tags:
            raise NamingError(f"{what} has more than {self.max_tags} tags (NS_MAX_TAGS)")
        for tag in tags:
            if not isinstance(tag, str):
                raise TypeError(f"{what} must be made of texts, not of {type(tag).__name__}")
            self._text(tag, f"tag in {what}")
        return frozenset(tags)

    def seconds(self, seconds: Any) -> float:
        """The length of a lease that is granted."""
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            raise TypeError(f"the seconds of a lease must be a number, not {type(seconds).__name__}")
        if not seconds > 0:  # which is what nan is not, either
            raise NamingError(f"a lease cannot be {seconds} seconds long")
        return min(float(seconds), self.max_lease)

    def owner(self, owner: Any) -> str:
        """The secret of whoever has leases."""
        if not isinstance(owner, str):
            raise TypeError("owner must be a str")
        return self._text(owner, "owner")

    def names(self, names: Any) -> list[str]:
        """Names that are asked about."""
        if isinstance(names, str) or not isinstance(names, (list, tuple, set, frozenset)):
            raise TypeError("names must be a list of texts")
        return [self.name(name) for name in names]

    def _text(self, text: str, what: str) -> str:
        if not text:
            raise NamingError(f"{what} is empty")
        if len(text) > self.max_name:
            raise NamingError(f"{what} has {len(text)} characters, at most {self.max_name} are allowed (NS_MAX_NAME)")
        unfit = _UNFIT.search(text)
        if unfit is not None:
            raise NamingError(f"{what} has a control character: {text[:60]!r} at position {unfit.start()}")
        return text


def shown(names: Iterable[str], most: int = 3) -> str:
    """Some names for an error text or a log line."""
    first = list(islice(names, most + 1))
    return ", ".join(map(repr, first[:most])) + (", ..." if len(first) > most else "")
