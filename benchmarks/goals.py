"""What is to be reached, and whether a file of results says that it was: ``python benchmarks/goals.py [FILE]``."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["GOALS", "Goal", "Results", "as_markdown"]

OURS = "pyroplug-thread-msgpack"
AS_IT_COMES = "pyroplug-default"


class Results:
    """The figures of one run, by the names of workloads, probes and systems; None for what was not measured."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._rows = {row["workload"]: row["systems"] for row in data["rows"]}
        self._probes = {probe["probe"]: probe["systems"] for probe in data.get("probes", ())}

    def value(self, workload: str, system: str, key: str) -> Any:
        """A figure of a workload."""
        return self._rows.get(workload, {}).get(system, {}).get(key)

    def ratio(self, workload: str, system: str, other: str) -> float | None:
        """How many times as fast as ``other``."""
        one, two = (self.value(workload, name, "microseconds") for name in (system, other))
        return two / one if one and two else None

    def of_limit(self, workload: str, system: str = OURS) -> float | None:
        """How many times as fast as the limit."""
        ratio: float | None = self.value(workload, system, "of_limit")
        return ratio

    def cpu_difference(self, workload: str, system: str, other: str) -> float | None:
        """Microseconds of CPU that ``system`` takes over ``other``: the median of the differences in each round."""
        one, two = (self.value(workload, name, "cpu_slices") for name in (system, other))
        return statistics.median(a - b for a, b in zip(one, two, strict=False)) if one and two else None

    def probe(self, key: str, figure: str, system: str = OURS) -> float | None:
        """A figure of a probe."""
        found: float | None = self._probes.get(key, {}).get(system, {}).get(figure)
        return found


@dataclass(frozen=True)
class Goal:
    """A figure and its bound."""

    title: str
    measured: Callable[[Results], float | None]
    at_least: float | None = None
    at_most: float | None = None
    unit: str = ""

    def met(self, value: float) -> bool:
        """Whether the value keeps the bound."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    @property
    def bound(self) -> str:
        """The bound as text."""
        sign, value = (">=", self.at_least) if self.at_least is not None else ("<=", self.at_most)
        return f"{sign} {value:g} {self.unit}".strip()


def _limit(title: str, workload: str, bound: float, system: str = OURS, limit: str = "raw-msgpack") -> Goal:
    return Goal(title, lambda r: r.of_limit(workload, system), at_least=bound, unit=f"x {limit}")


def _against(title: str, workload: str, system: str, other: str, bound: float) -> Goal:
    return Goal(title, lambda r: r.ratio(workload, system, other), at_least=bound, unit=f"x {other}")


def _probe(title: str, key: str, figure: str, bound: float, unit: str, system: str = OURS, least: bool = False) -> Goal:
    bounds: dict[str, Any] = {"at_least" if least else "at_most": bound}
    return Goal(title, lambda r: r.probe(key, figure, system), unit=unit, **bounds)


def _goals() -> Iterator[Goal]:
    multiplex = "pyroplug-multiplex-msgpack"
    yield _limit("echo(42), TCP", "echo-42", 0.80)
    yield _against("echo(42), TCP", "echo-42", OURS, "pyro5-thread-msgpack", 3)
    yield _limit("echo(dict), TCP", "echo-dict", 0.85)
    yield _limit("echo(42), Unix socket", "echo-42-unix", 0.78)
    yield _against("default settings, echo(42)", "echo-42", AS_IT_COMES, "pyro5-thread-serpent", 2.2)
    yield _against("default settings, echo(dict)", "echo-dict", AS_IT_COMES, "pyro5-thread-serpent", 2.2)
    yield _probe("system calls of the client for a call", "system-calls", "client", 2.05, "")
    yield _probe("system calls of the server for a call", "system-calls", "server", 3.05, "")
    yield Goal(
        "all default plugins, CPU of both sides for a call, over a kernel with only what the call needs",
        lambda r: r.cpu_difference("echo-42", OURS, "pyroplug-least-msgpack"),
        at_most=2,
        unit="us",
    )
    for system, other, bound in ((multiplex, "pyro5-multiplex-msgpack", 2), (OURS, "pyro5-thread-msgpack", 5)):
        yield Goal(
            f"64 busy clients, server CPU for a call, {system}",
            lambda r, system=system: r.value("busy-64", system, "cpu_microseconds"),  # type: ignore[misc]
            at_most=15,
            unit="us",
        )
        yield _against(f"64 busy clients, {system}", "busy-64", system, other, bound)
    yield _probe("5000 idle clients, server memory of each", "idle", "kb5000", 1, "KB")
    yield _probe("5000 idle clients, clients connected", "idle", "connected", 5000, "", least=True)
    yield _probe("5000 idle clients, one more is served", "idle", "served", 1, "", least=True)
    for system in (OURS, multiplex):
        yield _probe(f"four slow methods, another client waits, {system}", "waits", "wait", 30, "ms", system)
    yield _probe("16 threads share a proxy, calls in flight", "in-flight", "most", 14, "", least=True)
    yield _limit("connect + call + close", "connect", 1.5)
    yield _limit("oneway", "oneway", 0.54)
    yield _limit("batch of 1000", "batch-1000", 0.45)
    yield _limit("remote generator, 100,000 items", "stream-100k", 0.6)
    yield _limit("echo(1 MB bytes)", "bytes-1mb", 0.7, limit="raw-bytes")
    yield _limit("echo(64 MB bytes)", "bytes-64mb", 0.7, limit="raw-bytes")
    for side in ("client", "server"):
        yield _probe(f"echo(64 MB bytes), peak memory of the {side}", "memory-64mb", side, 1.1, "x the size")
    yield _limit("asyncio, 100 tasks on one connection", "await-100", 0.5, limit="raw-aio-msgpack")
    for title, figure, bound, unit in (
        ("import of Daemon, Proxy and expose from pyroplug.api", "import", 25, "ms"),
        ("start to the first call", "call", 50, "ms"),
        ("idle server", "memory", 16, "MB"),
    ):
        yield _probe(title, "start", figure, bound, unit, AS_IT_COMES)


GOALS = list(_goals())


def as_markdown(data: Mapping[str, Any]) -> str:
    """The table of goals."""
    results = Results(data)
    lines = ["| goal | bound | measured | met |", "|---|---|---:|---|"]
    for goal in GOALS:
        value = goal.measured(results)
        cells = ("not measured", "-") if value is None else (f"{value:.2f}", "yes" if goal.met(value) else "**no**")
        lines.append(f"| {goal.title} | {goal.bound} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "results" / "latest.json"
    print(as_markdown(json.loads(file.read_text("utf-8"))))
