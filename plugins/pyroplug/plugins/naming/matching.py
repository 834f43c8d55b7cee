"""Regular expressions of clients, matched so that none can hang the name server.

What they mean is what Python's ``re.match`` says.  A pattern whose work can be told beforehand to be little is matched
right here: it repeats single characters only, so that for a name of n characters no more ways to match exist than the
product of what its repetitions allow.  Any other pattern is compiled and matched in a process of its own, which is
killed when its time is over.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from typing import Any

from pyroplug.core.errors import NamingError

__all__ = ["Matcher", "is_cheap"]

MAX_PATTERN = 1000
"""Characters of a pattern."""
MAX_SPAN = 300
"""Characters in the ranges of one set; bigger ones may take long to compile when case does not matter."""
MAX_HERE = 100_000_000
"""Steps that may be made in this process: a fraction of a second, and much less for most patterns."""
SCAN = 16
"""Characters that a repetition passes over in the time of one step."""
MAX_PROCESSES = 2
"""Patterns that are matched in other processes at a time; others wait for as long as they may take."""

_PROGRAM = """
import json, re, sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
except (ImportError, OSError, ValueError):
    pass
pattern, names = json.load(sys.stdin)
try:
    match = re.compile(pattern).match
except (re.error, RecursionError, OverflowError) as exc:
    answer = str(exc)
else:
    answer = [number for number, name in enumerate(names) if match(name)]
json.dump(answer, sys.stdout)
"""


class Matcher:
    """Finds the names that match; the seconds that one pattern may take are the setting NS_REGEX_TIMEOUT."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._places = threading.BoundedSemaphore(MAX_PROCESSES)
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._closed = False

    def matching(self, pattern: str, names: Sequence[str]) -> list[str]:
        """Those names that ``re.match`` would find something in.

        :raises NamingError: the pattern is wrong, too long, or takes too much time
        :raises TypeError: the pattern is no text
        """
        if not isinstance(pattern, str):
            raise TypeError(f"a regex must be a text, not {type(pattern).__name__}")
        if len(pattern) > MAX_PATTERN:
            raise NamingError(f"invalid regex: it has {len(pattern)} characters, at most {MAX_PATTERN} are allowed")
        try:
            cheap = is_cheap(pattern, len(names), max(map(len, names), default=0))
            if cheap:
                match = re.compile(pattern).match
                return [name for name in names if match(name)]
        except (re.error, RecursionError, OverflowError, Warning) as exc:  # a warning where those are errors
            raise NamingError(f"invalid regex: {exc}") from exc
        return self._elsewhere(pattern, names)

    def close(self) -> None:
        """Kill what is running."""
        with self._lock:
            self._closed = True
            for process in self._running:
                process.kill()

    def _elsewhere(self, pattern: str, names: Sequence[str]) -> list[str]:
        question = json.dumps([pattern, names])
        if not self._places.acquire(timeout=self._seconds):
            raise NamingError(f"regex {pattern!r} was not tried: {MAX_PROCESSES} others took all of the time")
        try:
            answer: str | list[int] = json.loads(self._ask(pattern, question))
        finally:
            self._places.release()
        if isinstance(answer, str):
            raise NamingError(f"invalid regex: {answer}")
        return [names[number] for number in answer]

    def _ask(self, pattern: str, question: str) -> str:
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _PROGRAM],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="ascii",
            )
        except OSError as exc:
            raise NamingError(f"regex {pattern!r} cannot be matched: a process for it does not start: {exc}") from exc
        with process:
            with self._lock:
                self._running.add(process)
                if self._closed:
                    process.kill()
            try:
                answer, _ = process.communicate(question, timeout=self._seconds)
            except subprocess.TimeoutExpired:
                raise NamingError(
                    f"regex {pattern!r} takes more than {self._seconds:g} seconds (NS_REGEX_TIMEOUT): make it simpler"
                ) from None
            finally:
                process.kill()  # no harm to one that has ended
                with self._lock:
                    self._running.discard(process)
        if process.returncode:
            raise NamingError(f"regex {pattern!r} was too much for the process that matched it")
        return answer


# --------------------------------------------------------------------------- what a pattern can cost
def is_cheap(pattern: str, names: int, longest: int) -> bool:
    """Whether matching so many names, of so many characters at most, takes few steps whatever they are.

    :raises re.error: it is no pattern
    """
    parser = _parser()
    if parser is None:
        return False
    parsed = parser.parse(pattern)
    ways = _ways(list(parsed), longest, last=True)
    return ways is not None and ways * (len(parsed) + longest // SCAN) * names <= MAX_HERE


def _parser() -> Any:
    """The parser of ``re``, which has no public name; None if this Python has it elsewhere."""
    try:
        return importlib.import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")
    except ImportError:
        return None


_CHARACTERS = frozenset({"LITERAL", "NOT_LITERAL", "ANY", "AT"})
_REPEATS = frozenset({"MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"})


def _ways(parts: Iterable[Any], longest: int, last: bool) -> int | None:
    """The number of ways in which parts of a pattern can match; None where that cannot be told.

    ``last`` says that nothing follows: then a repetition at the end is never tried a second time.
    """
    parts = list(parts)
    product = 1
    for position, (code, argument) in enumerate(parts):
        ending = last and position == len(parts) - 1
        ways = _ways_of(str(code), argument, longest, ending)
        if ways is None:
            return None
        product *= ways
    return product


def _ways_of(code: str, argument: Any, longest: int, last: bool) -> int | None:
    if code in _CHARACTERS:
        return 1
    if code == "IN":
        return 1 if sum(value[1] - value[0] for kind, value in argument if str(kind) == "RANGE") < MAX_SPAN else None
    if code == "SUBPATTERN":
        return _ways(argument[-1], longest, last)
    if code == "BRANCH":
        each = [_ways(branch, longest, last) for branch in argument[1]]
        return None if None in each else sum(ways for ways in each if ways is not None)
    if code in _REPEATS:
        low, high, inner = argument
        codes = [str(inner_code) for inner_code, _ in inner]
        if codes not in ([one] for one in (*_CHARACTERS, "IN")) or _ways(inner, longest, last=False) is None:
            return None
        return longest + 1 if not last and high != low else 1
    return None
