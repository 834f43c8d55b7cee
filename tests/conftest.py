"""For all tests: the leak check, the feature report, serial tests, and timeouts that can be stretched."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from contextvars import copy_context
from functools import partial
from pathlib import Path

import pytest

from testkit.features import PROPERTY, FeatureReport, known_features, marked_features
from testkit.leaks import Snapshot, leaks
from testkit.matrix import Without
from testkit.timeouts import FACTOR, scaled

# The environment of whoever runs the tests must not change what they test.
for _name in [name for name in os.environ if name.startswith("PYRO_")]:
    del os.environ[_name]

FAILED = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option for the feature report."""
    parser.addoption(
        "--features-report", metavar="FILE", type=Path, help="write which tests prove which feature, as JSON"
    )
    parser.addoption("--without", metavar="PLUGIN", help="switch this plugin off; tests that need it are skipped")


def pytest_configure(config: pytest.Config) -> None:
    """Switch the feature report on, in the process that sees all results; stretch the limit for each test."""
    without: str | None = config.getoption("--without")
    if without:
        config.pluginmanager.register(Without(without), "without")
    path: Path | None = config.getoption("--features-report")
    if path is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(FeatureReport(path), "feature-report")
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        # started in the background by a shell: the programs that tests interrupt would inherit that
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _stretch_timeout() -> None:
    # pytest-timeout takes this before what pyproject.toml says, and after the command line.
    if FACTOR != 1:
        os.environ.setdefault("PYTEST_TIMEOUT", str(scaled(60)))


_stretch_timeout()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Check the markers; put serial tests into one worker."""
    known = known_features()
    for item in items:
        features = marked_features(item.iter_markers("feature"))
        if unknown := set(features) - known:
            raise pytest.UsageError(f"{item.nodeid}: no such feature: {', '.join(sorted(unknown))}")
        item.user_properties += [(PROPERTY, feature) for feature in features]
        if item.get_closest_marker("serial") and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group("serial"))
        for mark in item.iter_markers("leaky"):
            if not mark.args and not mark.kwargs.get("reason"):
                raise pytest.UsageError(f"{item.nodeid}: leaky needs a reason")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember that a test failed: what its traceback holds on to is no leak."""
    report = yield
    if report.when == "call" and not report.passed:
        item.stash[FAILED] = True
    return report


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """What a test leaves in context variables (``current_context.annotations = ...``) goes with it."""
    function = pyfuncitem.obj
    pyfuncitem.obj = partial(copy_context().run, function)
    try:
        return (yield)
    finally:
        pyfuncitem.obj = function


@pytest.fixture(autouse=True)
def _no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves threads, sockets, asyncio tasks or socket files behind."""
    if request.node.get_closest_marker("leaky"):
        yield
        return
    folder = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    before = Snapshot.take()
    yield
    if request.node.stash.get(FAILED, False):
        return
    if found := leaks(before, folder):
        pytest.fail("left behind by the test:\n" + "\n".join(f"  - {line}" for line in found), pytrace=False)
