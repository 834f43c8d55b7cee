"""Does what is registered answer?  Many are asked at a time, none for longer than a time limit."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pyroplug.core.client import Proxy
from pyroplug.core.errors import CommunicationError, ConnectionRefusedByPeer, PyroError, TimeoutError, URIError
from pyroplug.core.kernel import Kernel
from pyroplug.core.uri import URI

__all__ = ["ANSWERS", "Answer", "Checker"]

ANSWERS: Final = "answers"
GONE: Final = "gone"
SILENT: Final = "silent"
REFUSES: Final = "refuses"
UNKNOWN: Final = "unknown"
WRONG: Final = "wrong"


@dataclass(frozen=True)
class Answer:
    """What became of the attempt to connect to an object."""

    state: str
    """``answers``; ``gone``: nobody listens there; ``silent``: no answer within the time limit; ``unknown``: the daemon
    does not have the object; ``refuses``: it does not let us in; ``wrong``: what answers is no daemon, or the URI is bad."""
    seconds: float | None = None
    """How long connecting and the handshake took."""
    reason: str = ""


class _Round:
    """One pass over the names; answers that come after its end find nobody who reads them."""

    def __init__(self, count: int) -> None:
        self.answers: dict[str, Answer] = {}
        self.dead: dict[str, Answer] = {}
        """Locations where nobody listens or answers: the other objects there need not be tried."""
        self._missing = count
        self._change = threading.Condition()

    def put(self, uri: str, answer: Answer) -> None:
        with self._change:
            self.answers[uri] = answer
            self._missing -= 1
            if not self._missing:
                self._change.notify_all()

    def wait(self, seconds: float) -> dict[str, Answer]:
        with self._change:
            self._change.wait_for(lambda: not self._missing, seconds)
            return dict(self.answers)


class Checker:
    """Connects to objects, and tells how that went.

    The daemon's welcome for the object is all that is wanted: no method runs.

    :param timeout: seconds for connecting, and again for the handshake
    :param workers: how many are tried at a time
    """

    def __init__(self, kernel: Kernel, timeout: float = 2.0, workers: int = 32) -> None:
        self._kernel = kernel
        self._timeout = timeout
        self._workers = workers
        self._jobs: queue.SimpleQueue[tuple[_Round, str] | None] = queue.SimpleQueue()
        self._running: set[str] = set()
        self._threads: list[threading.Thread] = []

    def check(self, uris: Iterable[str]) -> dict[str, Answer]:
        """The answers of these URIs; always ends in time, whatever the network and the resolver do."""
        wanted = list(dict.fromkeys(uris))
        fresh = [uri for uri in wanted if uri not in self._running]  # others hang since an earlier round
        this = _Round(len(fresh))
        for uri in fresh:
            self._running.add(uri)
            self._jobs.put((this, uri))
        while len(self._threads) < min(self._workers, len(fresh)):
            # daemon threads: one that hangs in the resolver must not keep the process from ending
            thread = threading.Thread(target=self._work, name="pyroplug-check", daemon=True)
            self._threads.append(thread)
            thread.start()
        turns = -(-len(fresh) // self._workers)
        answers = this.wait(turns * self._timeout * 2 + 1 if fresh else 0)
        late = Answer(SILENT, reason="no answer in time")
        return {uri: answers.get(uri, late) for uri in wanted}

    def close(self) -> None:
        """End the threads; those that wait for somebody are left to themselves."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(self._timeout)
        self._threads.clear()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            this, uri = job
            answer = self._try(this, uri)
            self._running.discard(uri)
            this.put(uri, answer)

    def _try(self, this: _Round, text: str) -> Answer:
        try:
            uri = URI(text)
            if uri.protocol != "PYRO":
                raise URIError("it has to be looked up")
        except URIError as exc:
            return Answer(WRONG, reason=str(exc))
        if uri.location in this.dead:
            return this.dead[uri.location]
        start = time.perf_counter()
        try:
            with Proxy(uri, kernel=self._kernel) as proxy:
                proxy._pyroTimeout = self._timeout
                proxy._pyroMaxRetries = 0
                proxy._pyroBind()
        except ConnectionRefusedByPeer as exc:
            unknown = "unknown object" in exc.reason.lower()  # what every Pyro calls it
            return Answer(UNKNOWN if unknown else REFUSES, reason=exc.reason or str(exc))
        except TimeoutError as exc:
            return this.dead.setdefault(uri.location, Answer(SILENT, reason=str(exc)))
        except CommunicationError as exc:
            answer = Answer(GONE if _nobody_there(exc) else WRONG, reason=str(exc))
            return this.dead.setdefault(uri.location, answer) if answer.state == GONE else answer
        except (PyroError, OSError) as exc:
            return Answer(WRONG, reason=str(exc))
        except Exception as exc:  # plugin code, and what Python makes of odd host names
            return Answer(WRONG, reason=f"{type(exc).__name__}: {exc}")
        return Answer(ANSWERS, time.perf_counter() - start)


def _nobody_there(error: CommunicationError) -> bool:
    return type(error) is CommunicationError  # no connection; its kinds come from somebody who is there
