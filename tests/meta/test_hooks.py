"""Every hook is called by the kernel, says when, and is documented."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys

import pytest

from pyroplug.core.hookspecs import Hooks, HookSpecs
from testkit.source import TREE, modules

HOOKS = [name for name in vars(HookSpecs) if name.startswith("pyro_")]


def mentioned_in_core() -> set[str]:
    """The hooks that core names somewhere, as an attribute or as text, other than to define them."""
    found: set[str] = set()
    for name, module in modules().items():
        if not name.startswith("pyroplug.core."):
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Attribute):
                found.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def test_there_are_hooks() -> None:
    assert len(HOOKS) >= 20


@pytest.mark.parametrize("name", HOOKS)
def test_each_hook_is_called(name: str) -> None:
    called = hasattr(Hooks, name.removeprefix("pyro_")) or name in mentioned_in_core()
    assert called, f"nothing in core calls {name}"


@pytest.mark.parametrize("name", HOOKS)
def test_the_typed_front_calls_the_hook_it_is_named_after(name: str) -> None:
    front = getattr(Hooks, name.removeprefix("pyro_"), None)
    if front is not None:
        assert name in front.__code__.co_names


def test_the_typed_front_has_no_other_methods() -> None:
    methods = [name for name, value in vars(Hooks).items() if inspect.isfunction(value) and not name.startswith("_")]
    assert [name for name in methods if f"pyro_{name}" not in HOOKS] == []


@pytest.mark.parametrize("name", HOOKS)
def test_each_hook_says_its_code_and_when_it_is_called(name: str) -> None:
    doc = inspect.getdoc(getattr(HookSpecs, name)) or ""
    assert re.match(r"[ROCP]\d+\. [A-Z]", doc), "the docstring begins with the code of the hook"


@pytest.mark.parametrize("name", HOOKS)
def test_each_hook_is_documented(name: str) -> None:
    page = (TREE / "docs" / "plugins.md").read_text("utf-8")
    reference = page.partition("<!-- hooks:begin -->")[2].partition("<!-- hooks:end -->")[0]
    assert f"`{name}`" in reference


def test_the_hook_reference_is_up_to_date() -> None:
    command = [sys.executable, str(TREE / "tools" / "gen_docs.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
