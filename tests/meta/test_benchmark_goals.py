"""The table of goals says what a file of results says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from testkit.source import TREE
from testkit.timeouts import scaled

GOALS = TREE / "benchmarks" / "goals.py"


def table(folder: Path, results: object) -> dict[str, tuple[str, str]]:
    """By goal and bound: what was measured, and whether that is enough."""
    file = folder / "results.json"
    file.write_text(json.dumps(results), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(GOALS), str(file)], capture_output=True, text=True, timeout=scaled(20), check=True
    )
    rows = (line.strip("| ").split(" | ") for line in done.stdout.splitlines()[2:])
    return {f"{goal} {bound}": (measured, met) for goal, bound, measured, met in rows}


def test_goals_are_met_or_not_by_the_figures(tmp_path: Path) -> None:
    ours, least = "pyroplug-thread-msgpack", "pyroplug-least-msgpack"
    systems = {
        ours: {"microseconds": 20.0, "of_limit": 0.81, "cpu_slices": [21.0, 30.0, 22.0]},
        least: {"microseconds": 19.0, "cpu_slices": [20.0, 20.0, 21.0]},
        "pyro5-thread-msgpack": {"microseconds": 50.0},
    }
    probes = [{"probe": "waits", "systems": {ours: {"wait": 31.0}}}]
    found = table(tmp_path, {"rows": [{"workload": "echo-42", "systems": systems}], "probes": probes})
    assert found["echo(42), TCP >= 0.8 x raw-msgpack"] == ("0.81", "yes")
    assert found["echo(42), TCP >= 3 x pyro5-thread-msgpack"] == ("2.50", "**no**")
    (plugins,) = (row for goal, row in found.items() if goal.startswith("all default plugins"))
    assert plugins == ("1.00", "yes")
    assert found[f"four slow methods, another client waits, {ours} <= 30 ms"] == ("31.00", "**no**")
    assert found["connect + call + close >= 1.5 x raw-msgpack"] == ("not measured", "-")
