"""Where a name server keeps its names: the interface, and memory.

A name server has all names in memory and answers from there; a storage makes them last.  A plugin offers one with
``naming_of(kernel).storages["word"] = factory`` in ``pyro_configure``; the factory gets the text behind the colon of
``-s word:text`` and the settings.  :mod:`pyroplug.testing.naming` holds the tests that every storage must pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from .records import Changes, Record

__all__ = ["MemoryStorage", "Storage"]


class Storage(Protocol):
    """Keeps registrations; the name server never calls two methods of one storage at a time.

    Every failure is a :class:`~pyroplug.core.errors.NamingError` that says which storage it was and what to do.
    """

    @property
    def kind(self) -> str:
        """The word that people choose it by, such as "sql"."""
        ...

    @property
    def shared(self) -> bool:
        """Whether other processes may change it, so that :meth:`poll` has to be asked."""
        ...

    def load(self) -> dict[str, Record]:
        """Everything that is there now."""
        ...

    def poll(self) -> Mapping[str, Record | None] | None:
        """What others have changed since the last :meth:`load` or ``poll``; None if only ``load`` can tell.

        Called for each look-up: when nothing has changed, it must be a matter of microseconds.
        """
        ...

    def exclusive(self) -> AbstractContextManager[None]:
        """While it is open nobody else changes anything.

        What was written inside is durable once it has ended without an exception; otherwise nothing was written.
        """
        ...

    def write(self, changes: Changes) -> None:
        """Put and remove names; only inside :meth:`exclusive`."""
        ...

    def close(self) -> None:
        """Release everything; harmless when repeated."""
        ...


class MemoryStorage:
    """Names that are gone when the name server ends."""

    kind = "memory"
    shared = False

    def load(self) -> dict[str, Record]:
        """Nothing."""
        return {}

    def poll(self) -> Changes | None:
        """Nobody else is there."""
        return {}

    def exclusive(self) -> AbstractContextManager[None]:
        """Nobody else is there."""
        return nullcontext()

    def write(self, changes: Changes) -> None:
        """The name server remembers it."""

    def close(self) -> None:
        """Nothing is open."""
