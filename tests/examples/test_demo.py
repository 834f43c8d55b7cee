"""The demonstration: what it shows, and that it notices when something is wrong."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Runner = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.serial
def test_the_demo_shows_everything_and_ends_well(examples: Path, run: Runner) -> None:
    result = run(examples / "demo" / "demo.py")
    assert result.returncode == 0, result.stdout
    assert "WRONG" not in result.stdout
    assert re.search(r"All \d\d checks passed in \d", result.stdout)
    for transport in ("tcp", "unix", "socketpair", "memory"):
        row = next(line for line in result.stdout.splitlines() if line.startswith(f"  {transport} "))
        numbers = [int(cell.replace(",", "")) for cell in row.split()[1:] if cell.replace(",", "").isdigit()]
        assert "SKIPPED" in row or (len(numbers) == 3 and min(numbers) > 0)
    assert "shelf[title]" in result.stdout, "the remote traceback has the source line of the server"
    assert "unknown name: demo.library" in result.stdout, "the server has taken its names back"


@pytest.mark.serial
def test_the_demo_fails_loudly_when_an_answer_is_wrong(examples: Path, run: Runner, tmp_path: Path) -> None:
    source = (examples / "demo" / "demo.py").read_text("utf-8")
    broken = source.replace("return len(self._titles)", "return 7", 1)
    assert broken != source
    (tmp_path / "demo.py").write_text(broken, "utf-8")
    result = run(tmp_path / "demo.py")
    assert result.returncode == 1
    assert "FAILED: " in result.stdout
    assert "gave 7, expected 1" in result.stdout


@pytest.mark.serial
def test_the_demo_fails_loudly_without_its_server(examples: Path, run: Runner, tmp_path: Path) -> None:
    source = (examples / "demo" / "demo.py").read_text("utf-8")
    broken = source.replace("        serve(sys.argv[2], int(sys.argv[3]))\n        return 0\n", "        return 3\n")
    assert broken != source
    (tmp_path / "demo.py").write_text(broken, "utf-8")
    result = run(tmp_path / "demo.py")
    assert result.returncode == 1
    assert "the server process ended with 3 before it was ready" in result.stdout
