"""``pytest --without PLUGIN`` tells tests that need a plugin from those that should not."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from testkit.source import TREE
from testkit.timeouts import scaled

SAMPLE = "tests/meta/samples/without_batch.py"

pytestmark = pytest.mark.timeout(scaled(120))


def run(*command: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, *command], cwd=TREE, env=environment, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def test_a_test_that_needs_the_plugin_is_skipped_and_others_are_not() -> None:
    output = run("-m", "pytest", "-rA", "-p", "no:cacheprovider", SAMPLE, "--without", "batch")
    outcomes = {
        name: outcome for outcome, name in re.findall(r"^(PASSED|FAILED|ERROR) \S+::(\w+)", output, re.MULTILINE)
    }
    skipped = re.findall(r"^SKIPPED \[(\d+)\] .*: needs the plugin batch$", output, re.MULTILINE)
    assert outcomes == {
        "test_passes": "PASSED",
        "test_passes_with_another_mark": "PASSED",
        "test_fails": "FAILED",
        "test_fails_for_another_plugin": "FAILED",
    }, output
    assert sum(map(int, skipped)) == 5, output


def test_an_unknown_plugin_is_refused() -> None:
    assert "--without batsch: there is no such plugin" in run("-m", "pytest", SAMPLE, "--without", "batsch")


def test_the_table() -> None:
    output = run("tools/matrix.py", "batch", "--", "-n0", SAMPLE, "-k", "not another_plugin")
    assert re.search(r"^batch +2 +5 +1$", output, re.MULTILINE), output
    assert "samples/without_batch::test_fails: ['AssertionError: a batch of errors" in output
