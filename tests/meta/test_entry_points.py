"""The entry points lead to plugins that call themselves by the same name."""

from __future__ import annotations

import importlib
import re

import pytest

from pyroplug.core.plugins import PluginInfo
from testkit.source import entry_points, modules

PORTIONS = ("pyroplug.plugins.", "pyroplug.serializers.", "pyroplug.transports.")


@pytest.mark.parametrize(("name", "place"), sorted(entry_points().items()))
def test_each_entry_point_leads_to_its_plugin(name: str, place: str) -> None:
    plugin = importlib.import_module(place)
    assert isinstance(plugin.PLUGIN, PluginInfo)
    assert plugin.PLUGIN.name == name


@pytest.mark.parametrize("name", sorted(entry_points()))
def test_what_a_plugin_requires_exists(name: str) -> None:
    info: PluginInfo = importlib.import_module(entry_points()[name]).PLUGIN
    assert [other for other in (*info.requires, *info.conflicts) if other not in entry_points()] == []
    assert info.opt_in or not info.unsafe
    assert info.summary


def test_each_plugin_has_an_entry_point() -> None:
    with_plugin = [
        name
        for name, module in modules().items()
        if name.startswith(PORTIONS) and re.search(r"^PLUGIN\b.*=", module.path.read_text("utf-8"), re.MULTILINE)
    ]
    assert sorted(set(with_plugin) - set(entry_points().values())) == []
