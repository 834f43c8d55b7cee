"""The four source roots are one namespace package, and the wheel holds all of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from testkit.source import PACKAGE, ROOTS, TREE


@pytest.fixture(scope="module")
def wheel_files() -> list[str]:
    """The paths in a wheel, without building one."""
    return [file.distribution_path for file in WheelBuilder(str(TREE)).recurse_included_files()]


@pytest.mark.parametrize("root", ROOTS)
def test_no_root_has_an_init_that_hides_the_others(root: str) -> None:
    assert not (TREE / root / PACKAGE / "__init__.py").exists()
    assert not (TREE / root / "__init__.py").exists()


def test_the_wheel_has_no_init_at_the_top(wheel_files: list[str]) -> None:
    assert f"{PACKAGE}/__init__.py" not in wheel_files


def test_the_wheel_has_every_source_file(wheel_files: list[str]) -> None:
    expected = {
        path.relative_to(TREE / root).as_posix() for root in ROOTS for path in (TREE / root / PACKAGE).rglob("*.py")
    }
    assert expected - set(wheel_files) == set()


def test_the_wheel_has_nothing_twice_and_nothing_else(wheel_files: list[str]) -> None:
    assert len(wheel_files) == len(set(wheel_files))
    assert [name for name in wheel_files if Path(name).parts[0] != PACKAGE] == []


@pytest.mark.parametrize("portion", ["core", "plugins", "serializers", "transports"])
def test_each_portion_says_that_it_is_typed(portion: str, wheel_files: list[str]) -> None:
    assert f"{PACKAGE}/{portion}/py.typed" in wheel_files


def test_the_names_for_users_are_typed_too(wheel_files: list[str]) -> None:
    """`pyroplug.api` belongs to no portion; without this file a user's mypy takes all of it for Any."""
    assert f"{PACKAGE}/py.typed" in wheel_files


@pytest.mark.parametrize("folder", [*ROOTS, "tests", "docs", "benchmarks", "examples", "tools"])
def test_nothing_was_left_of_a_merge(folder: str) -> None:
    files = [path for path in (TREE / folder).rglob("*") if path.suffix in {".py", ".md", ".json", ".toml"}]
    marked = [path.name for path in files if b"\n<<<<<<< " in path.read_bytes()]
    assert files
    assert marked == []
