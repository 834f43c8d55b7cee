"""Which tests prove which feature: the marker ``feature`` and what becomes of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from _pytest.mark import Mark

__all__ = ["FeatureReport", "known_features", "marked_features"]

PROPERTY: Final = "feature"
LIST: Final = Path(__file__).resolve().parents[2] / "data" / "features.json"

RANK: Mapping[str, int] = {"collected": 0, "skipped": 1, "passed": 2, "failed": 3}
"""Of several outcomes of one test function the highest counts."""


def known_features() -> frozenset[str]:
    """The ids of all features there are."""
    return frozenset(feature["id"] for feature in json.loads(LIST.read_text("utf-8"))["features"])


def marked_features(marks: Iterable[Mark]) -> list[str]:
    """The feature ids named by marks."""
    return sorted({str(name) for mark in marks for name in mark.args})


class FeatureReport:
    """Writes what became of the tests that prove features; a pytest plugin.

    The file holds ``{feature id: {test function: outcome}}``; all the parameters of a test function are
    one, which has passed when none failed and at least one passed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.outcomes: dict[str, dict[str, str]] = {}

    def add(self, feature: str, nodeid: str, outcome: str) -> None:
        """Note one outcome."""
        test = nodeid.partition("[")[0].partition("@")[0]
        tests = self.outcomes.setdefault(feature, {})
        if RANK[outcome] >= RANK.get(tests.get(test, ""), 0):
            tests[test] = outcome

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note the tests there are, which matters when they are only collected."""
        for item in session.items:
            for feature in marked_features(item.iter_markers("feature")):
                self.add(feature, item.nodeid, "collected")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the result of one phase; also called for what other processes ran."""
        if report.when != "call" and report.passed:
            return
        for name, value in report.user_properties:
            if name == PROPERTY:
                self.add(str(value), report.nodeid, report.outcome)

    def pytest_sessionfinish(self) -> None:
        """Write the file."""
        self.path.write_text(json.dumps(self.outcomes, indent=1, sort_keys=True) + "\n", "utf-8")
