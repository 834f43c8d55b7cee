"""A dbm file as Pyro4 wrote them.

Such a file holds names and URIs only.  Tags last until the name server ends, and names with a lease are not stored at
all: their servers register them again.  For anything but old data use ``sql``.
"""

from __future__ import annotations

import dbm
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from pyroplug.core.errors import NamingError

from .records import Changes, Record

__all__ = ["DbmStorage"]


class DbmStorage:
    """One dbm file, opened for each change only: what is written is on its way to the disk.

    :param path: of the file, as ``dbm.open`` understands it (it may add an ending); made if it is not there
    :raises ValueError: the path is empty
    :raises NamingError: the file is no dbm file, or of a kind that this Python lacks
    """

    kind = "dbm"
    shared = False

    def __init__(self, path: str) -> None:
        if not path:
            raise ValueError("the storage 'dbm' needs a file: dbm:names")
        self._path = path
        with self._open("c"):
            pass

    def load(self) -> dict[str, Record]:
        """Everything in the file."""
        with self._open("r") as db:
            return {_text(name): Record(_text(db[name])) for name in list(db.keys())}

    def poll(self) -> Changes | None:
        """Only one process can use such a file."""
        return {}

    def exclusive(self) -> AbstractContextManager[None]:
        """Each :meth:`write` is complete."""
        return nullcontext()

    def write(self, changes: Changes) -> None:
        """Put and remove names; a lease is not stored, nor what it replaces."""
        with self._open("w") as db:
            for name, record in changes.items():
                key = name.encode()
                if record is not None and record.lease is None:
                    db[key] = record.uri.encode()
                elif key in db:
                    del db[key]

    def close(self) -> None:
        """Nothing is open."""

    @contextmanager
    def _open(self, flag: Any) -> Iterator[Any]:
        try:
            with dbm.open(self._path, flag) as db:
                yield db
        except _ERRORS as exc:
            raise NamingError(f"the storage dbm:{self._path} cannot be used: {exc}; nothing was changed") from exc


_ERRORS: Any = dbm.error  # a tuple, which type checkers take for a class


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
