"""What survives a fork: sockets of the parent, and locks that nobody in the child will ever release.

A forked child has one thread.  Whatever has connections, threads or locks is remembered here, weakly, and told in the
child before any code of the program runs there; so no call has to ask whether it is in another process.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["Forks", "Inherited"]

log = logging.getLogger("pyroplug.forks")


class Inherited(Protocol):
    """Something that does not work on in a forked child as it is."""

    def _pyroForked(self) -> None:
        """We are in the child now, and no other thread is there: begin anew, and touch nothing of the parent's."""
        ...


class Forks:
    """What one kernel has to tell in forked children."""

    def __init__(self) -> None:
        # by identity: proxies are equal when their URIs are
        self._inherited: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        if hasattr(os, "register_at_fork"):  # not on Windows
            os.register_at_fork(after_in_child=_teller(weakref.ref(self)))

    def remember(self, thing: Inherited) -> None:
        """Tell it in forked children, as long as it lives."""
        self._inherited[id(thing)] = thing

    def tell(self) -> None:
        """We are in a child."""
        for thing in list(self._inherited.values()):
            try:
                thing._pyroForked()
            except Exception:  # code of plugins, and descriptors that the program may have closed
                log.exception("%s cannot be used in this forked process", type(thing).__name__)


def _teller(forks: weakref.ref[Forks]) -> Callable[[], None]:
    def tell() -> None:
        alive = forks()
        if alive is not None:
            alive.tell()

    return tell
