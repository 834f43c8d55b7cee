"""A guard against becoming slow: are we still faster than Pyro5 with the same serializer?  At most 15 seconds.

``python benchmarks/guard.py`` prints the ratios and exits with 1 when one is below its bound.  The bounds are
generous, and what counts is the CPU time (client and server) of the best slice of each side: noise can only make a
slice slower.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # started as a file, and yet part of a package

from benchmarks.measure import Plan, Row, run  # noqa: E402
from benchmarks.systems import all_specs  # noqa: E402
from benchmarks.workloads import WORKLOADS  # noqa: E402

BOUNDS = {"pyroplug-thread-msgpack": 1.3, "pyroplug-thread-serpent": 1.3}
"""How many times as fast as its peer each system has to be, for echo(42)."""
PLAN = Plan(rounds=8, slice_seconds=0.04)
LIMIT = 15.0
"""Seconds within which it gives up trying again."""


def ratios(plan: Plan = PLAN) -> dict[str, float | None]:
    """Each system of BOUNDS against its peer; None where one of the two cannot be measured."""
    specs = [spec for spec in all_specs() if spec.name in BOUNDS]
    peers = {spec.peer for spec in specs}
    specs += [spec for spec in all_specs() if spec.name in peers]
    rows: list[Row] = run(specs, [WORKLOADS["echo-42"]], plan)
    return {spec.name: rows[0].best_ratio(spec.name, spec.peer) for spec in specs if spec.name in BOUNDS}


def main() -> int:
    begin = time.monotonic()
    best: dict[str, float | None] = {}
    while True:
        started = time.monotonic()
        for name, ratio in ratios().items():
            known = best.get(name)
            best[name] = ratio if known is None or (ratio is not None and ratio > known) else known
        now = time.monotonic()
        failed = [name for name, bound in BOUNDS.items() if (best[name] or 0) < bound]
        # a machine that was busy gets a second chance, as far as the time allows
        if not failed or now - begin + (now - started) > LIMIT:
            break
    print(json.dumps(best))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
