"""The results as text, as JSON, and as the tables of docs/benchmarks.md."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from benchmarks.measure import Plan, Row
from benchmarks.probes import Findings

__all__ = ["as_json", "as_markdown", "as_text", "probes_as_markdown"]

HEAD = ("system", "per s", "us each", "CPU us", "spread", "x limit", "x Pyro5")


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _cells(row: Row, name: str) -> tuple[str, ...]:
    result = row.results[name]
    workload = row.workload
    per_second = 1e6 / result.micros
    speed = f"{per_second * workload.megabytes:,.0f} MB" if workload.megabytes else f"{per_second:,.0f}"
    peer = result.spec.peer
    return (
        name,
        speed,
        _number(result.micros, ",.1f"),
        _number(result.cpu_micros, ",.1f"),
        _number(result.spread, ".0%"),
        _number(row.ratio(name, workload.limit), ".2f"),
        _number(row.ratio(name, peer) if peer else None, ".2f"),
    )


def as_text(rows: Iterable[Row], found: Iterable[Findings] = ()) -> str:
    """Tables for a terminal."""
    lines = []
    for row in rows:
        limit = row.workload.limit
        lines += ["", row.workload.title + (f"  (limit: {limit})" if limit else "")]
        lines += _aligned([HEAD, *(_cells(row, name) for name in row.results)])
        lines += [f"{name}: not measured: {reason}" for name, reason in row.failures.items()]
    for findings in found:
        lines += ["", findings.probe.title, *_aligned(_probe_table(findings))]
        lines += [f"{name}: not measured: {reason}" for name, reason in findings.failures.items()]
    return "\n".join(lines)


def _aligned(table: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for first, *rest in table:
        cells = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
        yield "  ".join([first.ljust(widths[0]), *cells]).rstrip()


def _probe_table(findings: Findings) -> list[tuple[str, ...]]:
    figures = findings.probe.figures
    return [
        ("system", *(figure.title for figure in figures)),
        *(
            (system, *(_number(findings.median(system, figure.key), figure.form) for figure in figures))
            for system in findings.samples
            if findings.samples[system]
        ),
    ]


def probes_as_markdown(found: Iterable[Findings], pictures: Mapping[str, str]) -> str:
    """The tables of the probes for the documentation, each with its picture."""
    lines = []
    for findings in found:
        head, *table = _probe_table(findings)
        lines += ["", f"### {findings.probe.title}", ""]
        if findings.probe.key in pictures:
            lines += [f"![{findings.probe.title}]({pictures[findings.probe.key]})", ""]
        lines += ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
        lines += ["| " + " | ".join(cells) + " |" for cells in table]
        if findings.failures:
            lines += ["", *(f"- {name}: not measured: {reason}" for name, reason in findings.failures.items())]
    return "\n".join(lines).strip()


def as_markdown(rows: Iterable[Row], pictures: Mapping[str, str]) -> str:
    """Tables for the documentation, with a picture before each for whose workload there is one (paths by key)."""
    lines = []
    for row in rows:
        limit = row.workload.limit
        lines += ["", f"### {row.workload.title}", ""]
        if row.workload.key in pictures:
            lines += [f"![{row.workload.title}]({pictures[row.workload.key]})", ""]
        lines += [f"The limit is `{limit}`.", ""] if limit else []
        lines += ["| " + " | ".join(HEAD) + " |", "|---|" + "---:|" * (len(HEAD) - 1)]
        lines += ["| " + " | ".join(_cells(row, name)) + " |" for name in row.results]
        if row.failures:
            lines += ["", *(f"- {name}: not measured: {reason}" for name, reason in row.failures.items())]
    return "\n".join(lines).strip()


def machine() -> dict[str, Any]:
    """Where it was measured."""
    versions: dict[str, str] = {}
    from importlib.metadata import PackageNotFoundError, version

    for name in ("pyroplug", "Pyro5", "Pyro4", "rpyc", "grpcio", "thriftpy2", "zerorpc", "msgpack", "serpent"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "versions": versions,
    }


def as_json(rows: Iterable[Row], found: Iterable[Findings], plan: Plan) -> dict[str, Any]:
    """Everything, slices included."""
    return {
        **machine(),
        "rounds": plan.rounds,
        "slice_seconds": plan.slice_seconds,
        "rows": [
            {
                "workload": row.workload.key,
                "limit": row.workload.limit,
                "failures": row.failures,
                "systems": {
                    name: {
                        "microseconds": result.micros,
                        "cpu_microseconds": result.cpu_micros,
                        "spread": result.spread,
                        "of_limit": row.ratio(name, row.workload.limit),
                        "of_pyro5": row.ratio(name, result.spec.peer) if result.spec.peer else None,
                        "slices": result.wall,
                        "cpu_slices": result.cpu,
                    }
                    for name, result in row.results.items()
                },
            }
            for row in rows
        ],
        "probes": [
            {
                "probe": findings.probe.key,
                "failures": findings.failures,
                "systems": {
                    system: {figure.key: findings.median(system, figure.key) for figure in findings.probe.figures}
                    | {"samples": samples}
                    for system, samples in findings.samples.items()
                },
            }
            for findings in found
        ],
    }
