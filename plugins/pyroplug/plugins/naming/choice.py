"""Choosing one of several objects that would all do: the policies of NS_POLICY."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from pyroplug.core.client import Proxy
from pyroplug.core.errors import NamingError, PyroError
from pyroplug.core.kernel import Kernel
from pyroplug.core.uri import URI

from .table import Policy

__all__ = ["RoundRobin", "any_of", "first_to_answer", "policies"]

MAX_QUESTIONS = 1000
"""For how many questions it is remembered who had the last turn."""
MAX_ASKED = 16
"""How many of the candidates are asked whether they are there."""


def any_of(wanted: str, candidates: Sequence[URI], kernel: Kernel) -> URI:
    """Any one, by chance."""
    import random  # (as slow to import as the rest of the package together)

    return random.choice(candidates)


class RoundRobin:
    """One after the other, beginning anywhere so that clients which have just started do not all meet at the first."""

    def __init__(self) -> None:
        self._turns: dict[str, int] = {}
        self._lock = threading.Lock()

    def __call__(self, wanted: str, candidates: Sequence[URI], kernel: Kernel) -> URI:
        import random

        with self._lock:
            if wanted not in self._turns and len(self._turns) >= MAX_QUESTIONS:
                self._turns.clear()
            turn = self._turns.get(wanted, random.randrange(len(candidates)))
            self._turns[wanted] = turn + 1
        return candidates[turn % len(candidates)]


def first_to_answer(wanted: str, candidates: Sequence[URI], kernel: Kernel) -> URI:
    """The first with whom a handshake is done, within NS_TIMEOUT; at most 16 of them, by chance, are asked at once.

    :raises NamingError: nobody answered
    """
    import queue
    import random

    asked = random.sample(candidates, min(MAX_ASKED, len(candidates)))
    seconds = kernel.settings.NS_TIMEOUT
    answers: queue.SimpleQueue[tuple[URI, PyroError | None]] = queue.SimpleQueue()

    def ask(uri: URI) -> None:
        try:
            with Proxy(uri, kernel=kernel) as proxy:
                proxy._pyroTimeout = seconds
                proxy._pyroBind()
        except PyroError as exc:
            answers.put((uri, exc))
        else:
            answers.put((uri, None))

    for uri in asked:
        threading.Thread(target=ask, args=(uri,), name="pyroplug-first", daemon=True).start()
    failures = []
    for _ in asked:
        try:
            uri, failure = answers.get(timeout=seconds)
        except queue.Empty:
            failures.append(f"no answer within {seconds:g} seconds (NS_TIMEOUT)")
            break
        if failure is None:
            return uri
        failures.append(str(failure))
    raise NamingError(f"{wanted}: none of {len(asked)} objects answers: {'; '.join(failures)}")


def policies() -> Mapping[str, Policy]:
    """Those that are always there, by name."""
    return {"random": any_of, "round_robin": RoundRobin(), "first": first_to_answer}
