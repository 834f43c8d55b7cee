"""Checks what `make wheel` built: ``python tools/check_dist.py dist``.

The wheel (built from the sdist) must hold exactly the package files of the sdist, those must be exactly
the ones of the tree, and none of them may be ``pyroplug/__init__.py``: that file would hide three of the
four source roots.
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

TREE = Path(__file__).resolve().parent.parent
ROOTS = ("core", "plugins", "serializers", "transports")
PACKAGE = "pyroplug"


def package_files(paths: Iterable[str]) -> set[str]:
    """Of paths relative to the tree those inside the source roots, as they are called in the wheel."""
    found = set[str]()
    for path in paths:
        root, *rest = PurePosixPath(path).parts
        if root in ROOTS and rest and rest[0] == PACKAGE:
            found.add("/".join(rest))
    return found


def in_tree() -> set[str]:
    """The package files of the working tree."""
    files = (path for root in ROOTS for path in (TREE / root).rglob("*") if path.is_file())
    return package_files(
        path.relative_to(TREE).as_posix() for path in files if "__pycache__" not in path.parts and path.suffix != ".pyc"
    )


def in_sdist(archive: Path) -> set[str]:
    """The package files of a source distribution."""
    with tarfile.open(archive) as tar:
        return package_files(name.partition("/")[2] for name in tar.getnames() if name.partition("/")[2])


def in_wheel(archive: Path) -> set[str]:
    """The package files of a wheel."""
    with zipfile.ZipFile(archive) as wheel:
        return {name for name in wheel.namelist() if not name.split("/", 1)[0].endswith(".dist-info")}


def difference(left: str, left_files: set[str], right: str, right_files: set[str]) -> list[str]:
    """One line for each file that only one side has."""
    return [f"only in the {left}: {name}" for name in sorted(left_files - right_files)] + [
        f"only in the {right}: {name}" for name in sorted(right_files - left_files)
    ]


def main(argv: list[str]) -> int:
    """Compare; print what is wrong."""
    dist = Path(argv[1] if len(argv) > 1 else "dist")
    sdists, wheels = sorted(dist.glob("*.tar.gz")), sorted(dist.glob("*.whl"))
    if len(sdists) != 1 or len(wheels) != 1:
        print(f"{dist} must hold one sdist and one wheel, it holds {len(sdists)} and {len(wheels)}", file=sys.stderr)
        return 1
    sdist, wheel = in_sdist(sdists[0]), in_wheel(wheels[0])
    problems = difference("sdist", sdist, "wheel", wheel) + difference("tree", in_tree(), "sdist", sdist)
    if f"{PACKAGE}/__init__.py" in wheel:
        problems.append(f"{PACKAGE}/__init__.py must not exist, it hides the other source roots")
    problems += [
        f"{PACKAGE}/{portion}/py.typed is missing"
        for portion in ("core", "plugins", "serializers", "transports")
        if f"{PACKAGE}/{portion}/py.typed" not in wheel
    ]
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print(f"{wheels[0].name}: {len(wheel)} files, the same as in {sdists[0].name} and in the tree")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
