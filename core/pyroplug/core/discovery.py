"""What installed distributions say about themselves, read straight from their folders.

:mod:`importlib.metadata` tells the same, but importing and asking it takes longer than all the rest of a program's start:
it brings the email package, zip files and regular expressions.  Here only names of folders and small files are read.
Where something stands on ``sys.path`` that is no folder, or somebody has put another finder of distributions into the
interpreter, :mod:`importlib.metadata` is asked after all.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

__all__ = ["Point", "entry_points"]

_ENDINGS = (".dist-info", ".egg-info")


class Point(NamedTuple):
    """One entry point: ``place`` is ``module`` or ``module:object``."""

    name: str
    place: str
    distribution: str
    version: str


def entry_points(group: str) -> list[Point]:
    """The entry points of a group, in the order of ``sys.path``; of a distribution that is found twice the first."""
    try:
        return _found(group, sys.path) if _plain_finders(sys.meta_path) else _asked(group)
    except NotADirectoryError:  # a zip file, for example
        return _asked(group)


def _plain_finders(finders: Iterable[Any]) -> bool:
    """Whether nothing but the interpreter's own finder knows distributions."""
    own = "_frozen_importlib_external"
    return not any(
        hasattr(finder, "find_distributions")
        and getattr(finder, "__module__", "") not in (own, "importlib._bootstrap_external")
        for finder in finders
    )


def _found(group: str, path: Iterable[str]) -> list[Point]:
    points: list[Point] = []
    seen: set[str] = set()
    for folder in dict.fromkeys(path):
        try:
            names = os.listdir(folder or ".")
        except (FileNotFoundError, PermissionError):
            continue
        for name in names:
            stem, ending = os.path.splitext(name)
            if ending not in _ENDINGS:
                continue
            distribution = re.sub(r"[-_.]+", "_", stem.partition("-")[0]).lower()
            if distribution in seen:
                continue
            seen.add(distribution)
            info = os.path.join(folder, name)
            section = list(_section(_text(info, "entry_points.txt"), group))
            if section:
                known = _text(info, "METADATA") or _text(info, "PKG-INFO")
                told = _header(known, "Name") or stem.partition("-")[0], _header(known, "Version")
                points += [Point(*pair, *told) for pair in section]
    return points


def _text(folder: str, name: str) -> str:
    try:
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            return file.read()
    except OSError:  # it has none, or is gone or a file by itself
        return ""


def _section(text: str, group: str) -> Iterator[tuple[str, str]]:
    inside = False
    if group not in text:
        return
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("["):
            inside = line == f"[{group}]"
        elif inside and "=" in line and line[0] != "#":
            name, _, place = line.partition("=")
            yield name.strip(), place.partition("[")[0].strip()


def _header(text: str, name: str) -> str:
    for line in text.splitlines():
        if not line.strip():
            break  # the description begins
        key, _, value = line.partition(":")
        if key.lower() == name.lower():
            return value.strip()
    return ""


def _asked(group: str) -> list[Point]:
    import importlib.metadata

    points = []
    told: dict[int, tuple[str, str]] = {}  # each look at a name or version parses the metadata anew
    for entry in importlib.metadata.entry_points(group=group):
        dist = entry.dist
        if id(dist) not in told:
            told[id(dist)] = (dist.name, dist.version) if dist else ("?", "?")
        points.append(Point(entry.name, entry.value.partition("[")[0].strip(), *told[id(dist)]))
    return points
