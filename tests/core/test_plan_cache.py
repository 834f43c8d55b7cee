"""Plans are compiled once for connections that are alike, and never pile up."""

from __future__ import annotations

import types
from typing import Any

import pytest

from pyroplug.api import Kernel, PluginInfo, Steps, hookimpl
from pyroplug.core.hookspecs import steady


class _Connection:
    """As much of a connection as binding needs."""

    def __init__(self, kernel: Kernel) -> None:
        self.side = "server"
        self.plan = kernel.server_plan()
        self.settings = kernel.settings
        self.extensions: frozenset[str] = frozenset()


def _plugin(name: str, steps: Any) -> Any:
    plugin = types.ModuleType(name)
    plugin.PLUGIN = PluginInfo(name, "for this test")  # type: ignore[attr-defined]

    @hookimpl
    def pyro_bind(connection: Any) -> Steps:
        made: Steps = steps()
        return made

    plugin.pyro_bind = pyro_bind  # type: ignore[attr-defined]
    return plugin


@pytest.mark.parametrize(("constant", "distinct"), [(True, 2), (False, 20)])
def test_equal_steps_share_a_plan_and_fresh_ones_do_not(constant: bool, distinct: int) -> None:
    always = Steps(on_error=lambda call, error: None)
    plugin = _plugin("steps", (lambda: always) if constant else (lambda: Steps(on_error=lambda call, error: None)))
    kernel = Kernel(plugins=["serpent", "memory", plugin], environ={})
    plans = [kernel.bind(_Connection(kernel)) for _ in range(20)]
    # a plan is kept from the second time on that its steps are seen
    assert len({id(plan) for plan in plans}) == distinct
    assert len(kernel._bound) == (1 if constant else 0)
    kernel.close()


def test_a_changed_setting_makes_another_plan() -> None:
    always = Steps(on_error=lambda call, error: None)
    kernel = Kernel(plugins=["serpent", "memory", _plugin("steps", lambda: always)], environ={})
    before = [kernel.bind(_Connection(kernel)) for _ in range(3)]
    kernel.settings.COMMTIMEOUT = 5.0
    after = kernel.bind(_Connection(kernel))
    assert after not in before
    assert (before[-1].limits.idle_timeout, after.limits.idle_timeout) == (None, 5.0)
    kernel.close()


def test_a_steady_plugin_is_asked_once_for_each_combination() -> None:
    asked: list[frozenset[str]] = []

    class Plugin:
        PLUGIN = PluginInfo("steps", "for this test")

        @staticmethod
        @hookimpl
        @steady
        def pyro_bind(connection: Any) -> Steps:
            asked.append(connection.extensions)
            return Steps(overlapping=connection.settings.MAX_ANNOTATIONS)

    kernel = Kernel(plugins=["serpent", "memory", Plugin()], environ={})
    plans = [kernel.bind(_Connection(kernel)) for _ in range(5)]
    assert len(asked) == 1
    assert plans[-1] is plans[-2]
    other = _Connection(kernel)
    other.extensions = frozenset({"something"})
    kernel.bind(other)
    assert asked == [frozenset(), frozenset({"something"})]
    kernel.settings.MAX_ANNOTATIONS = 7
    assert kernel.bind(_Connection(kernel)).overlapping == 7
    assert len(asked) == 3
    kernel.close()
