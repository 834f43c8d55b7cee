"""The benchmarks: ``make bench``, or ``python benchmarks/bench.py --help``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # started as a file, and yet part of a package

from benchmarks import charts, goals, report  # noqa: E402
from benchmarks.measure import Plan, Row, run  # noqa: E402
from benchmarks.probes import PROBES, Findings, take  # noqa: E402
from benchmarks.systems import all_specs  # noqa: E402
from benchmarks.workloads import WORKLOADS  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "latest.json"
DOCS = ROOT / "docs" / "benchmarks.md"
CHARTS = ROOT / "docs" / "benchmarks"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"

FULL = Plan(rounds=11, slice_seconds=0.2)
QUICK = Plan(rounds=3, slice_seconds=0.04)
LONG = ("bytes-64mb", *(key for key in WORKLOADS if key.startswith("ns-")))
"""Workloads that a quick run leaves out: one operation, or getting ready for it, takes long."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short slices, few rounds: under two minutes")
    parser.add_argument("--rounds", type=int, help="slices for each system")
    parser.add_argument("--slice", type=float, metavar="SECONDS", help="length of a slice")
    parser.add_argument(
        "--workload", action="append", choices=[*WORKLOADS, *PROBES], help="only this one (may be repeated)"
    )
    parser.add_argument("--system", action="append", metavar="TEXT", help="only systems with this in their names")
    parser.add_argument(
        "--compare",
        action="append",
        default=[],
        metavar="TREE",
        help="measure our systems from another source tree as well, in the same run",
    )
    parser.add_argument("--write-docs", action="store_true", help="put the tables into docs/benchmarks.md")
    options = parser.parse_args()

    base = QUICK if options.quick else FULL
    plan = Plan(options.rounds or base.rounds, options.slice or base.slice_seconds)
    specs = [
        variant
        for spec in all_specs()
        if not options.system or any(text in spec.name for text in options.system)
        for variant in (
            [spec, *(spec.at(tree, Path(tree).name) for tree in options.compare)] if spec.module == "ours" else [spec]
        )
    ]
    wanted = options.workload or [key for key in [*WORKLOADS, *PROBES] if not (options.quick and key in LONG)]
    begin = time.monotonic()
    rows = run(specs, [workload for key, workload in WORKLOADS.items() if key in wanted], plan)
    found = take([probe for key, probe in PROBES.items() if key in wanted], specs, options.quick)
    print(report.as_text(rows, found))
    print(f"\n{plan.rounds} rounds of {plan.slice_seconds:g} s each; {time.monotonic() - begin:.0f} s in all")
    RESULTS.parent.mkdir(exist_ok=True)
    data = report.as_json(rows, found, plan)
    RESULTS.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    if options.write_docs:
        write_docs(rows, found, data)
    failures = [name for row in rows for name in row.failures] + [name for part in found for name in part.failures]
    return 1 if any(name.startswith("pyroplug") for name in failures) else 0


def write_docs(rows: list[Row], found: list[Findings], data: dict[str, Any]) -> None:
    """Replace the part of the document that holds the results, and draw the charts."""
    text = DOCS.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    versions = ", ".join(f"{name} {version}" for name, version in data["versions"].items())
    about = (
        f"Measured on {data['date']} with Python {data['python']} on {data['system']}; {versions}; "
        f"{data['rounds']} rounds of {data['slice_seconds']:g} s."
    )
    drawn = charts.draw(rows, CHARTS) | charts.draw_probes(found, CHARTS)
    pictures = {key: path.relative_to(DOCS.parent).as_posix() for key, path in drawn.items()}
    parts = (
        about,
        "### Goals",
        goals.as_markdown(data),
        report.as_markdown(rows, pictures),
        report.probes_as_markdown(found, pictures),
    )
    DOCS.write_text(before + "\n\n".join((BEGIN, *filter(None, parts), END)) + after, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
