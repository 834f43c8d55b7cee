"""We stay faster than Pyro5 with the same serializer, by a wide enough margin for a noisy machine to tell."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from testkit.source import TREE
from testkit.timeouts import scaled

GUARD = TREE / "benchmarks" / "guard.py"


@pytest.mark.serial
@pytest.mark.stress
def test_calls_of_every_kind_are_faster_than_those_of_pyro5() -> None:
    pytest.importorskip("Pyro5")
    done = subprocess.run([sys.executable, str(GUARD)], capture_output=True, text=True, timeout=scaled(60), check=False)
    assert done.stdout, done.stderr
    ratios = json.loads(done.stdout)
    assert done.returncode == 0, f"ratios to Pyro5: {ratios}\n{done.stderr}"
