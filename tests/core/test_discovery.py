"""Entry points are found without importlib.metadata, and they are the same."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import zipfile
from importlib.metadata import DistributionFinder
from pathlib import Path

import pytest

from pyroplug.core import discovery
from pyroplug.core.discovery import Point, entry_points

GROUP = "pyroplug.plugins"
TEXT = """
# a comment
[console_scripts]
one = elsewhere:main

[pyroplug.plugins]
one = first.place
 two=second:thing.part [extra,other]
# another = comment

[last]
one = elsewhere
"""
FOUND = [Point("one", "first.place", "Some.Dist", "1.5"), Point("two", "second:thing.part", "Some.Dist", "1.5")]


def distribution(folder: Path, info: str = "some_dist-1.5.dist-info", version: str = "1.5", text: str = TEXT) -> Path:
    place = folder / info
    place.mkdir(parents=True)
    metadata = "METADATA" if info.endswith(".dist-info") else "PKG-INFO"
    (place / metadata).write_text(
        f"Metadata-Version: 2.1\nName: Some.Dist\nVersion: {version}\n\nVersion: text\n", "utf-8"
    )
    (place / "entry_points.txt").write_text(text, "utf-8")
    return folder


def theirs(group: str) -> set[Point]:
    found = importlib.metadata.entry_points(group=group)
    return {Point(e.name, e.value.partition("[")[0].strip(), e.dist.name, e.dist.version) for e in found if e.dist}


@pytest.mark.parametrize("group", [GROUP, "console_scripts", "pytest11", "no.such.group"])
def test_the_same_is_found_as_importlib_metadata_finds(group: str) -> None:
    assert set(entry_points(group)) == theirs(group)


@pytest.mark.parametrize("info", ["some_dist-1.5.dist-info", "Some.Dist-1.5-py3.11.egg-info", "some_dist.egg-info"])
def test_what_a_distribution_says_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, info: str) -> None:
    monkeypatch.setattr(sys, "path", [str(distribution(tmp_path, info)), str(tmp_path / "missing")])
    assert entry_points(GROUP) == FOUND
    assert set(FOUND) == theirs(GROUP)


def test_of_a_distribution_that_is_there_twice_the_first_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = distribution(tmp_path / "first")
    second = distribution(tmp_path / "second", "Some.Dist-2.0.dist-info", "2.0")
    monkeypatch.setattr(sys, "path", [str(first), str(second), str(first)])
    assert entry_points(GROUP) == FOUND
    monkeypatch.setattr(sys, "path", [str(second), str(first)])
    assert {point.version for point in entry_points(GROUP)} == {"2.0"}


def test_the_current_folder_is_an_empty_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(distribution(tmp_path))
    monkeypatch.setattr(sys, "path", [""])
    assert entry_points(GROUP) == FOUND


def test_distributions_in_zip_files_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = distribution(tmp_path / "folder")
    packed = tmp_path / "all.zip"
    with zipfile.ZipFile(packed, "w") as file:
        for item in filter(Path.is_file, folder.rglob("*")):
            file.write(item, item.relative_to(folder))
    monkeypatch.setattr(sys, "path", [str(packed)])
    assert entry_points(GROUP) == FOUND


def test_other_finders_of_distributions_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = distribution(tmp_path)

    class Finder(DistributionFinder):
        def find_distributions(
            self, context: DistributionFinder.Context | None = None
        ) -> list[importlib.metadata.Distribution]:
            return [importlib.metadata.PathDistribution(next(hidden.iterdir()))]

    monkeypatch.setattr(sys, "path", [])
    assert entry_points(GROUP) == []
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder()])
    assert entry_points(GROUP) == FOUND


def test_importlib_metadata_is_not_imported_for_it() -> None:
    script = f"import sys; from {discovery.__name__} import entry_points; assert entry_points({GROUP!r}); print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert {"importlib.metadata", "email", "zipfile"}.isdisjoint(result.stdout.split())
