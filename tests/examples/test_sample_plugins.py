"""The third-party distribution in examples/plugins: built, installed aside, listed, switched on and used."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from testkit.source import TREE
from testkit.timeouts import scaled

# one worker: the distribution is built once
pytestmark = pytest.mark.xdist_group("sample-plugins")

SOURCE = TREE / "examples" / "plugins"

SERVER = """
from pyroplug.api import Daemon, expose

@expose
class Thing:
    def size(self, data: bytes) -> int:
        assert isinstance(data, bytes), type(data)
        return len(data)

    def stop(self) -> None:
        daemon.shutdown()

with Daemon() as daemon:
    print(daemon.register(Thing(), "thing"), flush=True)
    daemon.requestLoop()
"""

CLIENT = """
import sys
from pyroplug.api import Proxy, URI, current_context

uri = URI(sys.argv[1])
with Proxy(uri) as thing, Proxy(f"PYRO:Pyro.Daemon@{uri.location}") as daemon:
    thing._pyroSerializer = "jsonb64"
    print("sizes:", thing.size(b"abc"), thing.size(bytes(1000)))
    counts = daemon.call_counts()
    print("methods:", counts["methods"])
    print("connections:", sorted(counts["connections"].values()))
    thing.stop()
"""

LIST = """
from pyroplug.api import Kernel

kernel = Kernel()
for found in kernel.plugins.catalog:
    if found.distribution == "pyroplug-sample":
        state = "on" if found.name in kernel.plugins.loaded else kernel.plugins.reasons[found.name]
        print(f"{found.name} {found.version}: {state}")
print("counting:", "CALLCOUNT_NAMES" in kernel.settings.schema, "serializer:", "jsonb64" in kernel.serializers)
"""

WANTED = {"PYRO_PLUGINS": "+jsonb64,+callcount", "PYRO_SERIALIZERS_ACCEPTED": "serpent,jsonb64"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of programs that see the distribution; nothing is taken from the network."""
    target = tmp_path_factory.mktemp("sample") / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    command += ["--disable-pip-version-check", "--target", str(target), str(SOURCE)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=scaled(60), check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(target), os.environ.get("PYTHONPATH", "")]))}


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a program into a file."""

    def write(text: str) -> Path:
        path = tmp_path / f"program{len(list(tmp_path.iterdir()))}.py"
        path.write_text(textwrap.dedent(text), "utf-8")
        return path

    return write


Write = Callable[[str], Path]
Runner = Callable[..., "subprocess.CompletedProcess[str]"]


def test_installed_plugins_of_others_are_listed_but_off(
    installed: Mapping[str, str], program: Write, run: Runner
) -> None:
    result = run(program(LIST), env=dict(installed))
    off = "of another distribution: name it in PYRO_PLUGINS to load it"
    assert result.stdout.splitlines() == [
        f"callcount 1.0: {off}",
        f"jsonb64 1.0: {off}",
        "counting: False serializer: False",
    ]


def test_named_plugins_are_on(installed: Mapping[str, str], program: Write, run: Runner) -> None:
    result = run(program(LIST), env={**installed, **WANTED})
    assert result.stdout.splitlines() == ["callcount 1.0: on", "jsonb64 1.0: on", "counting: True serializer: True"]


def test_naming_the_serializer_names_its_plugin(installed: Mapping[str, str], program: Write, run: Runner) -> None:
    result = run(program(LIST), env={**installed, "PYRO_SERIALIZER": "jsonb64"})
    assert "jsonb64 1.0: on" in result.stdout
    assert "callcount 1.0: of another distribution" in result.stdout


def test_server_and_client_use_both(
    installed: Mapping[str, str], program: Write, start: Callable[..., Any], run: Runner
) -> None:
    server = start(program(SERVER), env={**installed, **WANTED})
    uris = server.wait_until_ready()
    result = run(program(CLIENT), *uris, env={**installed, **WANTED})
    assert result.returncode == 0, result.stdout
    assert result.stdout.splitlines() == ["sizes: 3 1000", "methods: {'thing.size': 2}", "connections: [2]"]
    output = server.finish()
    assert server.process.returncode == 0, output


def test_the_command_line_has_its_command(
    installed: Mapping[str, str], program: Write, start: Callable[..., Any], run: Runner
) -> None:
    server = start(program(SERVER), env={**installed, **WANTED})
    (uri,) = server.wait_until_ready()
    location = uri.partition("@")[2]
    result = run("-m", "pyroplug", "callcount", location, env={**installed, **WANTED})
    assert result.returncode == 0, result.stdout
    assert result.stdout.startswith("methods:\n")
    listed = run("-m", "pyroplug", "plugins", env={**installed, **WANTED})
    assert "callcount" in listed.stdout
    settings = run("-m", "pyroplug", "config", env={**installed, **WANTED})
    assert "CALLCOUNT_NAMES" in settings.stdout


def test_a_server_without_the_plugin_refuses_the_serializer(
    installed: Mapping[str, str], program: Write, start: Callable[..., Any], run: Runner
) -> None:
    server = start(program(SERVER))
    uris = server.wait_until_ready()
    result = run(program(CLIENT), *uris, env={**installed, **WANTED})
    assert result.returncode == 1
    assert "serializer that is not accepted: 130" in result.stdout


@pytest.mark.timeout(scaled(60))
def test_its_own_tests_pass(installed: Mapping[str, str], run: Runner, tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    result = run(
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        tmp_path / "pytest.ini",
        SOURCE / "tests",
        env=dict(installed),
    )
    assert result.returncode == 0, result.stdout
    assert "passed" in result.stdout
    assert "skipped" not in result.stdout
