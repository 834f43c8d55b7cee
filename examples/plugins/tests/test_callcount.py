"""The feature: over the in-memory transport, with kernels that have the plugin by name."""

# mypy: disable-error-code="import-not-found,import-untyped"
# pyright: reportMissingImports=false
# (pyroplug's own checks look at this file without the package being installed)

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner
from pyroplug_sample import callcount

from pyroplug.api import DAEMON_NAME, Daemon, Kernel, Proxy, expose


@expose
class Thing:
    """What is called."""

    def method(self, arg: int) -> int:
        return arg * 2


@pytest.fixture
def kernel() -> Kernel:
    """The defaults and our plugin, whatever the environment says."""
    return Kernel(extra_plugins=[callcount], settings={"CALLCOUNT_NAMES": 2}, environ={})


@pytest.fixture
def daemon(kernel: Kernel) -> Iterator[Daemon]:
    """A daemon that serves a thing."""
    with Daemon(kernel=kernel, memory=True) as daemon:
        daemon.register(Thing(), "thing")
        loop = threading.Thread(target=daemon.requestLoop)
        loop.start()
        yield daemon
        daemon.shutdown()
        loop.join()


def counts(daemon: Daemon) -> Any:
    """What the daemon says, the question itself not included."""
    with Proxy(daemon.uriFor(DAEMON_NAME), kernel=daemon.kernel) as itself:
        return itself.call_counts()


def test_calls_are_counted_by_method(daemon: Daemon) -> None:
    with Proxy(daemon.uriFor("thing"), kernel=daemon.kernel) as thing:
        for number in range(3):
            thing.method(number)
        assert counts(daemon)["methods"] == {"thing.method": 3}


def test_failed_calls_count_and_their_names_have_an_end(daemon: Daemon) -> None:
    with Proxy(daemon.uriFor("thing"), kernel=daemon.kernel) as thing:
        thing.method(1)
        for number in range(5):
            with pytest.raises(AttributeError):
                thing._pyroInvoke(f"invented_{number}", (), {})
        assert counts(daemon)["methods"] == {"thing.method": 1, "thing.invented_0": 1, "(others)": 4}


def test_the_numbers_can_be_reset(daemon: Daemon) -> None:
    with Proxy(daemon.uriFor(DAEMON_NAME), kernel=daemon.kernel) as itself:
        itself.ping()
        itself.reset_call_counts()
        assert itself.call_counts()["methods"] == {f"{DAEMON_NAME}.reset_call_counts": 1}


def test_two_daemons_do_not_share_numbers(kernel: Kernel, daemon: Daemon) -> None:
    with Daemon(kernel=kernel, memory=True) as other:
        assert other.stash[callcount._COUNTS] is not daemon.stash[callcount._COUNTS]


def test_without_the_plugin_nothing_is_there() -> None:
    with Daemon(kernel=Kernel(environ={}), memory=True) as daemon:
        assert "call_counts" not in daemon.proxyFor(DAEMON_NAME)._pyroMethods


def test_the_command_shows_them(daemon: Daemon) -> None:
    result = CliRunner().invoke(callcount.command, [daemon.locationStr])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("methods:\n")
    assert "connections:\n" in result.output
