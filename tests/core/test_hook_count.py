"""A call touches no hook: a thousand calls cost as many hook calls as one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from pyroplug.api import expose, oneway
from pyroplug.testing.kernels import LOOPS, Served
from pyroplug.testing.plugins import Recorder, counted_hooks


class Thing:
    @expose
    def echo(self, value: Any) -> Any:
        return value

    @expose
    def fail(self) -> None:
        raise ValueError("x")

    @expose
    @oneway
    def fire(self) -> None:
        pass

    @property
    @expose
    def number(self) -> int:
        return 5


def hooks_of(loop: str, calls: int) -> tuple[Counter[str], Counter[str]]:
    """The hook calls that one connection with so many calls makes, as pluggy and as a plugin sees them."""
    recorder = Recorder()
    # housekeeping is a matter of time, not of calls
    settings = {"POLLTIMEOUT": 1000.0}
    with Served("memory", loop, settings=settings, extra_plugins=[recorder]) as served:
        served.publish(Thing())
        assert recorder.wait_for("pyro_system_objects")
        with served.proxy() as warm:
            warm.echo(0)  # the loop has kept house for the first time
        recorder.wait_for("pyro_closed")
        recorder.clear()
        with counted_hooks(served.kernel) as counted:
            with served.proxy() as proxy:
                for number in range(calls):
                    assert proxy.echo(number) == number
                    if number % 4 == 0:
                        with pytest.raises(ValueError):
                            proxy.fail()
                        proxy.fire()
                        assert proxy.number == 5
            assert recorder.wait_for("pyro_closed")
        return counted, Counter(name for name in recorder.names() if name != "pyro_housekeeping")


@pytest.mark.parametrize("loop", LOOPS)
def test_one_thousand_calls_cost_no_more_hooks_than_one(loop: str) -> None:
    one_counted, one_seen = hooks_of(loop, 1)
    many_counted, many_seen = hooks_of(loop, 1000)
    assert many_counted == one_counted
    assert many_seen == one_seen
    assert one_counted["pyro_bind"] == 2
    assert one_seen["pyro_opened"] == one_seen["pyro_closed"] == 1
