"""Runs the tests once without each plugin: ``python tools/matrix.py [PLUGIN ...] [-- PYTEST ARGUMENTS]``.

Each line of the table is one run of ``pytest --without PLUGIN``.  Tests that fail with an error which names the
plugin need it; any other failure is one, and the exit code says so.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import NamedTuple

from pyroplug.core.kernel import Kernel

TREE = Path(__file__).resolve().parent.parent

SUITES = ("tests/behaviour", "tests/plugins", "tests/core")
APART = ("test_kernel_plugins_off.py", "test_minimal_kernel.py", "test_plugins.py", "test_cli.py", "test_cli_probe.py")
"""Tests about which plugins there are, and of programs that do not mind."""
SELECTION = "not (unix- or pair- or tcp6-)"
"""One transport with sockets and one without: what a plugin does hardly depends on it."""


class Row(NamedTuple):
    """What one run has found."""

    plugin: str
    passed: int
    need: int
    failed: list[str]


def run(plugin: str, arguments: list[str]) -> Row:
    """Run the tests without a plugin."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", f"--without={plugin}"]
        command += [f"--junitxml={report}", *(f"--ignore-glob=*/{name}" for name in APART)]
        if not any(argument in ("-k", "-m") for argument in arguments):
            command += ["-k", SELECTION]
        if not any(argument.startswith("tests") for argument in arguments):
            command += SUITES
        done = subprocess.run([*command, *arguments], cwd=TREE, capture_output=True, text=True, check=False)
        if not report.exists():
            return Row(plugin, 0, 0, [f"pytest did not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"])
        return counted(plugin, report)


def counted(plugin: str, report: Path) -> Row:
    """The outcomes in a report."""
    passed = need = 0
    failed: list[str] = []
    for case in ET.parse(report).iter("testcase"):
        name = f"{case.get('classname', '').replace('.', '/')}::{case.get('name')}"
        skipped = case.find("skipped")
        problem = next((found for kind in ("failure", "error") if (found := case.find(kind)) is not None), None)
        if problem is not None:
            failed.append(f"{name}: {(problem.get('message') or '').splitlines()[:1]}")
        elif skipped is None:
            passed += 1
        elif "needs the plugin" in (skipped.get("message") or ""):
            need += 1
    return Row(plugin, passed, need, failed)


def main(argv: list[str]) -> int:
    """Print the table."""
    cut = argv.index("--") if "--" in argv else len(argv)
    plugins, arguments = argv[:cut], argv[cut + 1 :]
    width = 14
    print(f"{'plugin':<{width}}{'passed':>8}{'need it':>9}{'failed':>8}", flush=True)
    failures = 0
    for plugin in plugins or sorted(Kernel(environ={}).plugins.loaded):
        row = run(plugin, arguments)
        failures += len(row.failed)
        print(f"{row.plugin:<{width}}{row.passed:>8}{row.need:>9}{len(row.failed):>8}", flush=True)
        for line in row.failed:
            print(f"    {line}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
