"""Typed storage that a plugin hangs on a kernel, daemon, connection or call.

The owner of a :class:`Stash` knows nothing of what lies in it; only whoever holds the key can read it::

    seen = StashKey[int]()
    connection.stash[seen] = 1  # a type checker knows that this is an int
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar, cast

__all__ = ["Stash", "StashKey"]

T = TypeVar("T")
D = TypeVar("D")


class StashKey(Generic[T]):
    """A unique key for values of one type; make it once, at module level."""

    __slots__ = ()


class Stash:
    """A dict whose value types follow from its keys."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: dict[StashKey[Any], object] = {}

    def __setitem__(self, key: StashKey[T], value: T) -> None:
        self._values[key] = value

    def __getitem__(self, key: StashKey[T]) -> T:
        return cast("T", self._values[key])

    def get(self, key: StashKey[T], default: D) -> T | D:
        """The value, or ``default`` when there is none."""
        return cast("T | D", self._values.get(key, default))

    def setdefault(self, key: StashKey[T], default: T) -> T:
        """The value; ``default`` becomes the value when there is none (atomic in CPython's dict)."""
        return cast("T", self._values.setdefault(key, default))

    def pop(self, key: StashKey[T], default: D) -> T | D:
        """Remove and return the value, or ``default`` when there is none."""
        return cast("T | D", self._values.pop(key, default))

    def __contains__(self, key: StashKey[T]) -> bool:
        return key in self._values

    def __len__(self) -> int:
        return len(self._values)
