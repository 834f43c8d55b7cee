"""Real Pyro5 programs, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from testkit.timeouts import scaled

PEERS = Path(__file__).parent / "peers"

Spawn = Callable[..., "subprocess.Popen[str]"]


def spawn(script: str, *args: str, pass_fds: tuple[int, ...] = ()) -> subprocess.Popen[str]:
    """Start a peer script; Pyro5 refuses to be imported with a PYRO_ variable that it does not know."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYRO_")}
    return subprocess.Popen(
        [sys.executable, str(PEERS / script), *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        pass_fds=pass_fds,
    )


@contextmanager
def serving(script: str, *args: str) -> Iterator[Any]:
    """Run a peer script that serves until its stdin ends; what it says first, decoded."""
    process = spawn(script, *args)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, "the Pyro5 server did not start; see its stderr"
        yield json.loads(line)
    finally:
        process.stdin.close()
        process.stdout.close()
        try:
            process.wait(scaled(5))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="module", params=["thread", "multiplex"])
def pyro5(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Pyro5 server process: the URI of its object ``demo`` by transport; once for each of its server types."""
    path = tmp_path_factory.mktemp("u") / "s"
    with serving("pyro5_server.py", str(request.param), str(path)) as uris:
        yield uris


@pytest.fixture(scope="session")
def peer() -> Callable[..., Any]:
    """Run a peer script to its end and give what it printed, decoded."""

    def run(script: str, *args: str, stdin: str = "", pass_fds: tuple[int, ...] = ()) -> Any:
        process = spawn(script, *args, pass_fds=pass_fds)
        try:
            output, _ = process.communicate(stdin, timeout=scaled(50))
        except BaseException:
            process.kill()
            process.communicate()
            raise
        assert process.returncode == 0, "the Pyro5 client failed; see its stderr"
        return json.loads(output)

    return run


@pytest.fixture(scope="session")
def pyro5_serving() -> Callable[..., AbstractContextManager[Any]]:
    """Run a peer script that serves."""
    return serving


@pytest.fixture(scope="session")
def spawned() -> Spawn:
    """Start a peer script that goes on running."""
    return spawn
