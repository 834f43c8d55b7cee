"""Interleaved measuring: in each round every system runs one short slice, each round in another order.

What disturbs the machine for a while disturbs all systems alike, and the median over the rounds forgets it.
Absolute figures belong to the machine; ratios within one run are the result.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.processes import Pair, WorkerError, socket_folder, the_cpu
from benchmarks.systems import Spec, adapter
from benchmarks.workloads import Workload

__all__ = ["Plan", "Result", "Row", "Say", "present", "quiet", "run"]

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How long to measure: ``rounds`` slices of ``slice_seconds`` for each system and workload."""

    rounds: int
    slice_seconds: float


@dataclass
class Result:
    """The slices of one system in one workload: microseconds per operation."""

    spec: Spec
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def micros(self) -> float:
        """Microseconds per operation: the median."""
        return statistics.median(self.wall)

    @property
    def best(self) -> float:
        """Microseconds of CPU per operation in the slice that was disturbed least; by the clock without that."""
        return min(self.cpu or self.wall)

    @property
    def cpu_micros(self) -> float | None:
        """Microseconds of CPU per operation, client and server together: the median."""
        return statistics.median(self.cpu) if self.cpu else None

    @property
    def spread(self) -> float:
        """The distance between the quartiles, as a part of the median."""
        if len(self.wall) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.wall, n=4, method="inclusive")
        return (high - low) / self.micros


@dataclass
class Row:
    """The results of one workload."""

    workload: Workload
    results: dict[str, Result] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def ratio(self, name: str, other: str) -> float | None:
        """How many times as fast as ``other``, by the medians."""
        one, two = self.results.get(name), self.results.get(other)
        return two.micros / one.micros if one and two else None

    def best_ratio(self, name: str, other: str) -> float | None:
        """The same by the CPU time of the best slices: what the rest of a busy machine disturbs least."""
        one, two = self.results.get(name), self.results.get(other)
        return two.best / one.best if one and two and bool(one.cpu) == bool(two.cpu) else None


def quiet(text: str) -> None:
    """Say it beside the results."""
    print(text, file=sys.stderr, flush=True)


def present(specs: Iterable[Spec], say: Say = quiet) -> list[Spec]:
    """Those that can be measured here; what is missing is said."""
    found: list[Spec] = []
    reasons: dict[str, str | None] = {}
    for spec in specs:
        if spec.module not in reasons:
            reason = reasons[spec.module] = adapter(spec.module).missing()
            if reason is not None:
                say(f"NOT MEASURED: {spec.module}: {reason}")
        if reasons[spec.module] is None:
            found.append(spec)
    return found


def run(specs: Iterable[Spec], workloads: Iterable[Workload], plan: Plan, say: Say = quiet) -> list[Row]:
    """Measure everything; systems that fail are told of and left out of that row."""
    workloads = list(workloads)
    cpu = the_cpu()
    rows = []
    with socket_folder() as folder, contextlib.ExitStack() as stack:
        pairs: dict[tuple[str, bool], Pair] = {}
        specs = present(specs, say)
        for workload in workloads:
            row = Row(workload)
            rows.append(row)
            able: list[Pair] = []
            for spec in specs:
                if not _fits(spec, workload):
                    continue
                pair = _ready(pairs, spec, workload, workloads, folder, cpu, stack, row, plan, say)
                if pair is not None:
                    able.append(pair)
            say(f"{workload.title}: {len(able)} systems, {plan.rounds} rounds of {plan.slice_seconds:g} s")
            _rounds(row, able, plan, say)
            for pair in able:
                if pair.spec.name in row.results:
                    try:
                        pair.stop(workload.key)
                    except WorkerError as exc:
                        # what it did was measured; the next workload gets new processes
                        say(f"FAILED: {workload.key}: {exc}")
                        pairs.pop((pair.spec.name, workload.pin)).end()
    return rows


def _fits(spec: Spec, workload: Workload) -> bool:
    name = spec.name.partition("@")[0]  # the same system from another tree is called name@tree
    return (not spec.rows or workload.key in spec.rows) and (not workload.systems or name in workload.systems)


def _ready(
    pairs: dict[tuple[str, bool], Pair],
    spec: Spec,
    workload: Workload,
    workloads: list[Workload],
    folder: Path,
    cpu: int | None,
    stack: contextlib.ExitStack,
    row: Row,
    plan: Plan,
    say: Say,
) -> Pair | None:
    """The processes of a system, started when first needed, and connected for this workload."""
    key = spec.name, workload.pin
    try:
        if key not in pairs:
            kinds = {"unix" if w.unix else "tcp" for w in workloads if _fits(spec, w)}
            pairs[key] = Pair(spec, folder, cpu if workload.pin else None, kinds)
            stack.callback(pairs[key].end)
        pairs[key].start(workload.key, plan.slice_seconds)
    except WorkerError as exc:
        row.failures[spec.name] = str(exc)
        say(f"FAILED: {workload.key}: {exc}")
        return None
    return pairs[key]


def _rounds(row: Row, pairs: list[Pair], plan: Plan, say: Say) -> None:
    workload = row.workload
    kind = "unix" if workload.unix else "tcp"
    timeout = 30 + 20 * plan.slice_seconds
    able = list(pairs)
    for number in range(plan.rounds):
        if not able:
            return
        turn = number % len(able)
        for pair in [*able[turn:], *able[:turn]]:
            name = pair.spec.name
            try:
                wall, cpu = pair.run(workload.key, kind, timeout, workload.server_only)
            except WorkerError as exc:
                row.failures[name] = str(exc)
                row.results.pop(name, None)
                able.remove(pair)
                say(f"FAILED: {workload.key}: {exc}")
                continue
            result = row.results.setdefault(name, Result(pair.spec))
            result.wall.append(wall)
            if cpu is not None:
                result.cpu.append(cpu)
