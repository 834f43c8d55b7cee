"""The kernel reads its own settings only: what belongs to a plugin comes through what plugins can say."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from pyroplug.core.kernel import KERNEL_SETTINGS
from pyroplug.core.plugins import OWN_DISTRIBUTION, Catalog
from pyroplug.core.settings import Schema
from testkit.source import Module, modules

CORE = [module for name, module in modules().items() if name.startswith("pyroplug.core.")]


def settings_of_plugins() -> set[str]:
    schema = Schema()
    for found in Catalog.installed():
        if found.distribution == OWN_DISTRIBUTION:
            _, plugin = found.load()
            declare = getattr(plugin, "pyro_settings", None)
            if declare is not None:
                declare(schema=schema)
    return {setting.name for setting in schema} - {setting.name for setting in KERNEL_SETTINGS}


PLUGINS = settings_of_plugins()


def mentioned(module: Module) -> Iterator[tuple[str, int]]:
    """What a module reads as an attribute, ``settings.NAME`` or ``getattr(settings, "NAME")``."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute):
            yield node.attr, node.lineno
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
            for argument in node.args[1:2]:
                if isinstance(argument, ast.Constant):
                    yield str(argument.value), node.lineno


def test_plugins_have_settings() -> None:
    assert {"MAX_RETRIES", "PAIR_HANDSHAKE", "NATHOST", "COMPRESSION"} <= PLUGINS


@pytest.mark.parametrize("module", CORE, ids=lambda module: module.name)
def test_core_reads_no_setting_of_a_plugin(module: Module) -> None:
    assert [f"{module.where}:{line} reads {name}" for name, line in mentioned(module) if name in PLUGINS] == []
