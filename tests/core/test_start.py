"""What programs have to wait for before their first call: modules that nobody needed are not imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

from testkit.timeouts import scaled

NEVER = (
    "asyncio argparse csv dataclasses decimal difflib email fractions http importlib.metadata importlib.util "
    "ipaddress multiprocessing numpy pathlib pickle platform random shutil signal ssl subprocess tempfile "
    "unittest urllib uuid xml zipfile"
).split()
"""Slow to import, and of use to few: whoever needs one imports it where it is needed."""

BEFORE = "import sys; before = set(sys.modules)\n"
AFTER = "\nprint(*sorted(set(sys.modules) - before))\n"
SERVED = """
import threading
from pyroplug.api import Daemon, Proxy, expose

@expose
class Thing:
    def echo(self, value):
        return value

with Daemon() as daemon:
    uri = daemon.register(Thing())
    thread = threading.Thread(target=daemon.requestLoop)
    thread.start()
    with Proxy(uri) as proxy:
        assert proxy.echo({"a": [1, 2.5, None]}) == {"a": [1, 2.5, None]}
    daemon.shutdown()
    thread.join()
"""


def imported(source: str) -> set[str]:
    """What a program imports, beyond what this installation of Python imports by itself."""
    command = [sys.executable, "-c", BEFORE + source + AFTER]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=scaled(30))
    assert result.returncode == 0, result.stderr
    return set(result.stdout.splitlines()[-1].split())


def test_importing_the_api_imports_nothing() -> None:
    found = imported("import pyroplug.api")
    assert {name for name in found if name.startswith("pyroplug")} == {"pyroplug", "pyroplug.api"}
    assert "typing" not in found
    assert len(found) < 10


@pytest.mark.parametrize("source", ["from pyroplug.api import Daemon, Proxy, expose, oneway", SERVED])
def test_what_few_programs_need_is_not_imported(source: str) -> None:
    assert imported(source).intersection(NEVER) == set()


def test_a_first_call_imports_no_parts_of_plugins_that_it_does_not_use() -> None:
    found = imported(SERVED)
    parts = "serializers._pickling plugins.typed.arrays testing cli".split()
    assert {part for part in parts if f"pyroplug.{part}" in found} == set()
