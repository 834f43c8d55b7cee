"""``__all__`` of the public modules of core tells the truth."""

from __future__ import annotations

import ast
import importlib

import pytest

from testkit.source import Module, modules

PUBLIC = [
    module
    for name, module in modules().items()
    if name.startswith("pyroplug.core.") and not any(part.startswith("_") for part in name.split("."))
]


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.name)
def test_all_names_exist(module: Module) -> None:
    assert module.exports is not None, f"{module.where} has no __all__"
    loaded = importlib.import_module(module.name)
    assert [name for name in module.exports if not hasattr(loaded, name)] == []
    assert len(module.exports) == len(set(module.exports))


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.name)
def test_nothing_public_is_missing(module: Module) -> None:
    """A class or function is listed, or its name begins with an underscore."""
    defined = [
        node.name
        for node in module.tree.body
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    assert [name for name in defined if not name.startswith("_") and name not in (module.exports or ())] == []
