"""What is left behind by a test: threads, sockets, asyncio tasks, socket files.

Looking costs some ten microseconds.  Only when something seems to be left are threads waited for and the
garbage collector run.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .timeouts import scaled

__all__ = ["GRACE", "Snapshot", "leaks"]

GRACE: Final = scaled(2.0)
"""How long things that are about to end may take, in seconds."""

_FDS: Final = "/proc/self/fd"
_COUNTABLE: Final = sys.platform == "linux" and os.path.isdir(_FDS)


@dataclass(frozen=True)
class Snapshot:
    """What exists at one moment."""

    threads: frozenset[threading.Thread]
    sockets: frozenset[str]
    tasks: frozenset[int]

    @classmethod
    def take(cls) -> Snapshot:
        """What exists now."""
        return cls(
            frozenset(threading.enumerate()), frozenset(_open_sockets()), frozenset(id(task) for task in _tasks())
        )


def _open_sockets() -> dict[str, int]:
    """The open sockets of this process: their identity in the system, and a descriptor of each."""
    found: dict[str, int] = {}
    if not _COUNTABLE:
        return found
    for name in os.listdir(_FDS):
        try:
            target = os.readlink(f"{_FDS}/{name}")
        except OSError:
            continue  # the descriptor that listed the directory, or one just closed elsewhere
        if target.startswith("socket:["):
            found[target] = int(name)
    return found


def _tasks() -> Iterator[asyncio.Task[Any]]:
    """All asyncio tasks that have not ended, of whatever loop."""
    # The name differs between versions of Python, and there is no public way to ask for all loops at once.
    registry: Iterable[Any] = getattr(asyncio.tasks, "_scheduled_tasks", ())
    registry = registry or getattr(asyncio.tasks, "_all_tasks", ())
    while True:
        try:
            tasks = list(registry)
        except RuntimeError:
            continue  # another thread made a task while the set was copied
        return (task for task in tasks if not task.done())


def _new_threads(before: Snapshot) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread not in before.threads and thread.is_alive()]


def _new_sockets(before: Snapshot) -> dict[str, int]:
    return {target: fd for target, fd in _open_sockets().items() if target not in before.sockets}


def _new_tasks(before: Snapshot) -> list[asyncio.Task[Any]]:
    return [task for task in _tasks() if id(task) not in before.tasks]


def _socket_files(folder: Path | None) -> list[str]:
    found = []
    for parent, _, names in os.walk(folder) if folder else ():
        for name in names:
            path = os.path.join(parent, name)
            try:
                if stat.S_ISSOCK(os.lstat(path).st_mode):
                    found.append(path)
            except OSError:
                continue  # removed meanwhile
    return found


def _describe(fd: int) -> str:
    """A socket as its Python object shows itself, or else by its addresses."""
    for thing in gc.get_objects():
        if isinstance(thing, socket.socket) and thing.fileno() == fd:
            return repr(thing)
    try:
        with socket.socket(fileno=os.dup(fd)) as copy:
            return f"fd {fd} without a Python object, {copy!r}"
    except OSError:
        return f"fd {fd}"


def _wait(before: Snapshot, deadline: float) -> None:
    """Until all is gone, or the deadline has passed."""
    for thread in _new_threads(before):
        thread.join(max(0.0, deadline - time.monotonic()))
    while (_new_sockets(before) or _new_tasks(before)) and time.monotonic() < deadline:
        time.sleep(0.005)  # the end of a socket or task of another thread gives no sign to wait for


def leaks(before: Snapshot, folder: Path | None = None) -> list[str]:
    """What exists now and did not before, one line each; socket files are looked for in ``folder``."""
    if not (_new_threads(before) or _new_sockets(before) or _new_tasks(before) or _socket_files(folder)):
        return []
    gc.collect()
    _wait(before, time.monotonic() + GRACE)
    found = [
        f"thread {thread.name!r}{' (daemon)' if thread.daemon else ''}: {thread!r}" for thread in _new_threads(before)
    ]
    found += [f"socket {_describe(fd)}" for fd in _new_sockets(before).values()]
    found += [f"asyncio task {task!r}" for task in _new_tasks(before)]
    found += [f"socket file {path}" for path in _socket_files(folder)]
    return found
