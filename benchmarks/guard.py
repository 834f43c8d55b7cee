"""A guard against becoming slow: are we still faster than Pyro5 with the same serializer?  Less than 20 seconds.

``python benchmarks/guard.py`` prints the ratios and exits with 1 when one is below its bound.  The bounds are
generous, and what counts is the CPU time (client and server) of the best slice of each side: noise can only make a
slice slower.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # started as a file, and yet part of a package

from benchmarks.measure import Plan, Row, run  # noqa: E402
from benchmarks.systems import all_specs  # noqa: E402
from benchmarks.workloads import WORKLOADS  # noqa: E402

BOUNDS = {
    "echo-42": {"pyroplug-thread-msgpack": 1.3, "pyroplug-thread-serpent": 1.3, "pyroplug-default": 2.0},
    "echo-dict": {"pyroplug-default": 2.0},
    "batch-1000": {"pyroplug-thread-msgpack": 0.7},
    "oneway": {"pyroplug-thread-msgpack": 3.0},
    "stream": {"pyroplug-thread-msgpack": 4.0},
    "shared-16": {"pyroplug-thread-msgpack": 1.1},
}
"""By workload, how many times as fast as its peer each system has to be."""
PLAN = Plan(rounds=4, slice_seconds=0.03)
LIMIT = 18.0
"""Seconds within which it gives up trying again."""


def ratios(bounds: dict[str, dict[str, float]] = BOUNDS, plan: Plan = PLAN) -> dict[str, float | None]:
    """Each system against its peer, by ``workload system``; None where one of the two cannot be measured."""
    specs = {spec.name: spec for spec in all_specs()}
    peers = {name: specs[name].peer for systems in bounds.values() for name in systems}
    workloads = [
        replace(WORKLOADS[key], systems=(*systems, *(peers[name] for name in systems)))
        for key, systems in bounds.items()
    ]
    rows: list[Row] = run([specs[name] for name in dict.fromkeys([*peers, *peers.values()])], workloads, plan)
    return {
        f"{row.workload.key} {name}": row.best_ratio(name, peers[name])
        for row in rows
        for name in bounds[row.workload.key]
    }


def main() -> int:
    begin = time.monotonic()
    best: dict[str, float | None] = {}
    failed = BOUNDS
    while True:
        started = time.monotonic()
        for name, ratio in ratios(failed).items():
            known = best.get(name)
            best[name] = ratio if known is None or (ratio is not None and ratio > known) else known
        now = time.monotonic()
        below = {
            key: {name: bound for name, bound in systems.items() if (best[f"{key} {name}"] or 0) < bound}
            for key, systems in BOUNDS.items()
        }
        failed = {key: systems for key, systems in below.items() if systems}
        # what a busy machine has disturbed gets a second chance, as far as the time allows
        if not failed or now - begin + (now - started) > LIMIT:
            break
    print(json.dumps(best))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
