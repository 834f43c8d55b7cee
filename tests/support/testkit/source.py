"""The source of the project, read and not run: modules, their imports, their module-level names."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Final

import tomli

__all__ = ["PACKAGE", "ROOTS", "TREE", "Import", "Module", "entry_points", "modules", "project"]

TREE: Final = Path(__file__).resolve().parents[3]
ROOTS: Final = ("core", "plugins", "serializers", "transports")
PACKAGE: Final = "pyroplug"


@dataclass(frozen=True)
class Import:
    """One imported module or name.

    ``module`` is absolute; ``name`` is what is taken from it, or None for a plain ``import``.
    """

    module: str
    name: str | None
    line: int
    type_checking: bool

    def target(self, known: Mapping[str, Module]) -> str:
        """The module that is meant: ``from package import module`` names one too."""
        whole = f"{self.module}.{self.name}"
        return whole if self.name and whole in known else self.module


@dataclass(frozen=True)
class Module:
    """One source file; ``name`` is what one would import."""

    name: str
    path: Path

    @property
    def is_package(self) -> bool:
        """Whether this is the ``__init__`` of a package."""
        return self.path.name == "__init__.py"

    @property
    def where(self) -> str:
        """The path as messages show it."""
        return self.path.relative_to(TREE).as_posix()

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree."""
        return ast.parse(self.path.read_text("utf-8"), str(self.path))

    @cached_property
    def imports(self) -> Sequence[Import]:
        """All imports, wherever they stand, those through ``import_module("...")`` too."""
        return tuple(self._walk(self.tree, type_checking=False))

    @cached_property
    def exports(self) -> Sequence[str] | None:
        """What ``__all__`` lists, or None without one."""
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and any(_is_name(target, "__all__") for target in node.targets):
                return tuple(ast.literal_eval(node.value))
        return None

    def _walk(self, node: ast.AST, *, type_checking: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (Import(alias.name, None, child.lineno, type_checking) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                module = self._absolute(child)
                yield from (Import(module, alias.name, child.lineno, type_checking) for alias in child.names)
            elif isinstance(child, ast.If) and _is_type_checking(child.test):
                yield from self._walk(ast.Module(child.body, []), type_checking=True)
                yield from self._walk(ast.Module(child.orelse, []), type_checking=type_checking)
            else:
                if isinstance(child, ast.Call) and _called(child) in ("import_module", "__import__"):
                    for argument in child.args[:1]:
                        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                            yield Import(argument.value, None, child.lineno, type_checking)
                yield from self._walk(child, type_checking=type_checking)

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.name.split(".") if self.is_package else self.name.split(".")[:-1]
        parts = parts[: len(parts) - (node.level - 1)]
        return ".".join([*parts, *([node.module] if node.module else [])])


def _is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _is_type_checking(node: ast.expr) -> bool:
    return _is_name(node, "TYPE_CHECKING") or (isinstance(node, ast.Attribute) and node.attr == "TYPE_CHECKING")


def _called(node: ast.Call) -> str:
    if isinstance(node.func, ast.Name):
        return node.func.id
    return node.func.attr if isinstance(node.func, ast.Attribute) else ""


@lru_cache(maxsize=1)
def modules() -> Mapping[str, Module]:
    """Every module of the four source roots by name."""
    found: dict[str, Module] = {}
    for root in ROOTS:
        for path in sorted((TREE / root / PACKAGE).rglob("*.py")):
            parts = path.relative_to(TREE / root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = Module(name, path)
    return found


@lru_cache(maxsize=1)
def project() -> Mapping[str, object]:
    """The contents of pyproject.toml."""
    return tomli.loads((TREE / "pyproject.toml").read_text("utf-8"))


def entry_points() -> Mapping[str, str]:
    """Our plugins: entry-point name to module, as pyproject.toml has them."""
    section = project()["project"]
    assert isinstance(section, dict)
    return dict(section["entry-points"]["pyroplug.plugins"])
