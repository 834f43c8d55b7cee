"""No module holds state: what a program does with one kernel does not show in another."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from testkit.source import modules

CONTAINERS = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
FACTORIES = [
    "dict",
    "list",
    "set",
    "bytearray",
    "defaultdict",
    "OrderedDict",
    "Counter",
    "deque",
    "ChainMap",
    "WeakValueDictionary",
    "WeakKeyDictionary",
    "WeakSet",
    "local",
]
CONSTANT = re.compile(r"_{0,2}[A-Z][A-Z0-9_]*\Z")
READ_ONLY = re.compile(
    r"(Final\[)?((typing|collections\.abc|types)\.)?(Mapping|MappingProxyType|Sequence|Collection|Set)\b"
)


def mutable(value: ast.expr | None) -> bool:
    if isinstance(value, ast.Call):
        function = value.func.value if isinstance(value.func, ast.Subscript) else value.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        return name in FACTORIES
    return isinstance(value, CONTAINERS)


def assignments(body: list[ast.stmt]) -> Iterator[tuple[ast.stmt, list[ast.expr], ast.expr | None, str]]:
    """The assignments made while a module is imported, in blocks too: statement, targets, value, annotation."""
    for node in body:
        if isinstance(node, ast.Assign):
            yield node, node.targets, node.value, ""
        elif isinstance(node, ast.AnnAssign):
            yield node, [node.target], node.value, ast.unparse(node.annotation).strip("'\"")
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            for name in ("body", "orelse", "finalbody"):
                yield from assignments(getattr(node, name, []))
            for handler in getattr(node, "handlers", []):
                yield from assignments(handler.body)


def state(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The line and name of each module-level thing that could change."""
    for node, targets, value, annotation in assignments(tree.body):
        if not mutable(value):
            continue
        for target in targets:
            name = ast.unparse(target)
            if name != "__all__" and not (CONSTANT.match(name) and READ_ONLY.match(annotation)):
                yield node.lineno, name


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("x = []", ["x"]),
        ("X = {}", ["X"]),
        ("X: dict[str, int] = {}", ["X"]),
        ("X: Mapping[str, int] = {'a': 1}", []),
        ("_X: Final[Mapping[str, int]] = {}", []),
        ("x: Mapping[str, int] = {}", ["x"]),
        ("__all__ = ['x']", []),
        ("x = set[int]()", ["x"]),
        ("x = weakref.WeakSet()", ["x"]),
        ("try:\n  import a\nexcept ImportError:\n  x = {}", ["x"]),
        ("def f():\n  x = []", []),
        ("x = frozenset({1})", []),
        ("x = threading.local()", ["x"]),
    ],
)
def test_the_finder_itself(source: str, found: list[str]) -> None:
    assert [name for _, name in state(ast.parse(source))] == found


def test_no_module_holds_state() -> None:
    assert [
        f"{module.where}:{line} {name}: make it read only (a Mapping, a tuple, a frozenset) or give it an owner"
        for module in modules().values()
        for line, name in state(module.tree)
    ] == []


def test_nothing_is_kept_per_thread() -> None:
    """A call may move between threads, and a thread serves many calls: a ContextVar follows the call."""
    found = []
    for module in modules().values():
        for item in module.imports:
            if (item.module, item.name) == ("threading", "local"):
                found.append(f"{module.where}:{item.line}")
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("threading.local", "_thread._local"):
                found.append(f"{module.where}:{node.lineno}")
    assert found == []
