"""Writes docs/features.md: every feature, its state, and the tests that prove it.

``python tools/features.py`` runs the tests marked with features; ``--report FILE`` takes the result of an
earlier ``pytest --features-report=FILE`` instead.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
LIST = TREE / "tests" / "data" / "features.json"
PAGE = TREE / "docs" / "features.md"

NOTHING_COLLECTED = 5

HEAD = """\
# Features

Written by `make features` from the tests that are marked with the features they prove; do not edit.
A feature is *proven* when a test of it has passed and none has failed.

"""


def run_tests(report: Path) -> None:
    """Run the tests of features; failing ones are no reason to stop, being unable to run them is."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "auto", "-m", "feature", f"--features-report={report}"]
    code = subprocess.run(command, cwd=TREE, check=False).returncode
    if code not in (0, 1, NOTHING_COLLECTED):
        raise SystemExit(f"pytest could not do its work: exit code {code}")


def state(tests: Mapping[str, str]) -> str:
    """The state of a feature whose tests had these outcomes."""
    if "failed" in tests.values():
        return "failing"
    return "proven" if "passed" in tests.values() else "not yet"


def cell(text: str) -> str:
    """A text for a cell of a table."""
    return text.replace("|", "\\|")


def page(outcomes: Mapping[str, Mapping[str, str]]) -> str:
    """The whole page."""
    data = json.loads(LIST.read_text("utf-8"))
    features = data["features"]
    states = {feature["id"]: state(outcomes.get(feature["id"], {})) for feature in features}
    lines: list[str] = []
    lines += ["| Section | Features | Proven | Failing |", "|---|---|---|---|"]
    for letter, title in data["sections"].items():
        here = [states[feature["id"]] for feature in features if feature["section"] == letter]
        lines.append(f"| {letter}. {title} | {len(here)} | {here.count('proven')} | {here.count('failing')} |")
    every = list(states.values())
    lines.append(f"| **All** | **{len(every)}** | **{every.count('proven')}** | **{every.count('failing')}** |")
    for letter, title in data["sections"].items():
        lines += ["", f"## {letter}. {title}", "", "| # | Feature | Home | State | Tests |", "|---|---|---|---|---|"]
        for feature in features:
            if feature["section"] == letter:
                name = feature["id"]
                tests = "<br>".join(f"`{test}`" for test in sorted(outcomes.get(name, {})))
                row = (name, cell(feature["title"]), cell(feature["home"]), states[name], tests)
                lines.append("| " + " | ".join(row) + " |")
    return HEAD + "\n".join(lines) + "\n"


def main() -> None:
    """Run the tests, write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--report", type=Path, help="a JSON file written by pytest --features-report")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = arguments.report or Path(folder) / "features.json"
        if arguments.report is None:
            run_tests(report)
        outcomes = json.loads(report.read_text("utf-8"))
    text = page(outcomes)
    PAGE.write_text(text, "utf-8")
    total = next(line for line in text.splitlines() if line.startswith("| **All**"))
    print(f"{PAGE.relative_to(TREE)}: {total}")


if __name__ == "__main__":
    main()
