"""Takes names away whose leases are over.

Look-ups do not find them any more from that moment on; this is about memory and the storage.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from pyroplug.core.errors import NamingError

if TYPE_CHECKING:
    from .server import NameServer

__all__ = ["Sweeper"]

log = logging.getLogger("pyroplug.naming")

PERIOD = 5.0
"""Seconds between two looks."""


class Sweeper:
    """A thread beside a name server.

    :param period: seconds between two looks
    """

    def __init__(self, nameserver: NameServer, period: float = PERIOD) -> None:
        self._nameserver = nameserver
        self._period = period
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pyroplug-ns-leases", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(self._period):
            try:
                self._nameserver.expire()
            except NamingError as exc:  # the storage: it may be better next time
                log.warning("names whose leases are over stay in the storage: %s", exc)
