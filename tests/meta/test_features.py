"""docs/features.md is up to date with the markers in the tests."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from testkit.source import TREE

PAGE = TREE / "docs" / "features.md"


def rows() -> dict[str, str]:
    """The row of each feature in the page."""
    found = re.findall(r"^\| (F\d{3}) \|(.*)$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert len(found) == len(dict(found))
    return dict(found)


def test_the_page_has_every_feature() -> None:
    assert sorted(rows()) == [f"F{number:03}" for number in range(1, 325)]


def test_the_page_names_every_test_that_is_marked(tmp_path: Path) -> None:
    report = tmp_path / "features.json"
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-m", "feature", "-p", "no:cacheprovider"]
    result = subprocess.run(
        [*command, f"--features-report={report}"], cwd=TREE, capture_output=True, text=True, check=False
    )
    assert result.returncode in (0, 5), result.stdout + result.stderr
    page = rows()
    missing = [
        f"{feature}: {test}"
        for feature, tests in json.loads(report.read_text("utf-8")).items()
        for test in tests
        if f"`{test}`" not in page[feature]
    ]
    assert missing == [], "run `make features`"


def test_the_page_names_no_test_file_that_is_gone() -> None:
    named = {path for row in rows().values() for path in re.findall(r"`(tests/[^`:]+\.py)::", row)}
    assert sorted(path for path in named if not (TREE / path).exists()) == []
