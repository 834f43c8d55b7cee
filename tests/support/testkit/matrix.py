"""Running the tests without one plugin: ``pytest --without PLUGIN``.

The plugin is switched off for every kernel that does not say itself what it loads, and in child processes.  A
test that fails with an error which names the plugin needs it, and counts as skipped; any other failure is one.
A test that can tell only by what does not happen says ``@pytest.mark.needs("plugin")``.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
from collections.abc import Generator, Iterator

import pytest

__all__ = ["INSTEAD", "NEEDS", "Without"]

NEEDS = "needs the plugin "
"""How the reason of a skipped test begins that cannot do without."""

INSTEAD = {"serpent": {"PYRO_SERIALIZER": "json"}, "thread": {"PYRO_SERVERTYPE": "multiplex"}}
"""What stands in for a plugin that the defaults name."""

_SKIPPED = pytest.StashKey[bool]()


class Without:
    """The pytest plugin behind the option."""

    def __init__(self, name: str) -> None:
        with contextlib.suppress(ImportError):
            # now: it refuses to be imported beside variables that it does not know
            importlib.import_module("Pyro5.api")
        os.environ.update({"PYRO_DISABLE_PLUGINS": name, "PYROPLUG_TEST_WITHOUT": name, **INSTEAD.get(name, {})})
        from pyroplug.core.kernel import Kernel

        everything, rest = Kernel(environ={}).plugins, Kernel().plugins
        if name not in everything.loaded:
            raise pytest.UsageError(f"--without {name}: there is no such plugin among {', '.join(everything.loaded)}")
        self.name = name
        self.off = frozenset(everything.loaded) - frozenset(rest.loaded)
        """The plugin, and those that require it."""
        names = "|".join(sorted(self.off))
        self._named = re.compile(
            rf"plugin '({names})'|'({names})' (is disabled|requires)|\boff( here)?: [^)\n]*\b({names})\b", re.IGNORECASE
        )

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Skip those that say what they need."""
        for item in items:
            needed = {name for mark in item.iter_markers("needs") for name in mark.args} & self.off
            if needed:
                item.add_marker(pytest.mark.skip(reason=NEEDS + ", ".join(sorted(needed))))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Make a failure that names the plugin a skipped test."""
        report = yield
        if report.failed and call.excinfo is not None:
            told = [*_texts(call.excinfo.value), *(text for _, text in report.sections)]
            if item.stash.get(_SKIPPED, False) or any(map(self._named.search, told)):
                item.stash[_SKIPPED] = True
                report.outcome = "skipped"
                report.longrepr = (str(item.path), (item.location[1] or 0) + 1, f"Skipped: {NEEDS}{self.name}")
        return report


def _texts(error: BaseException | None) -> Iterator[str]:
    """What an exception says, and those that it came of."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield str(error)
        yield from getattr(error, "_pyroTraceback", None) or ()
        error = error.__cause__ or error.__context__
