"""Running examples as a user does: each program is a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from testkit.source import TREE
from testkit.timeouts import scaled

LIMIT = scaled(20.0)
"""Seconds after which a program is ended, whatever it does; far above what one takes."""


class Program:
    """A program that serves: started, and ready once it has printed a URI."""

    def __init__(self, command: Sequence[str | Path], folder: Path, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            env={**os.environ, **(env or {})},
        )
        assert self.process.stdout is not None
        self._stdout = self.process.stdout
        self._guard = threading.Timer(LIMIT, self.process.kill)  # every wait below ends when the process does
        self._guard.start()
        self.output = ""
        self.uris: list[str] = []

    def wait_until_ready(self) -> list[str]:
        """The URIs in the first line that has any; all of them are on that line."""
        for line in iter(self._stdout.readline, ""):
            self.output += line
            if "PYRO:" in line:
                # a URI may have blanks (the path of a Unix socket): the next one begins at the next PYRO:
                self.uris = re.split(r"\s+(?=PYRO:)", line[line.index("PYRO:") :].strip())
                return self.uris
        if "SKIPPED" in self.output:
            pytest.skip(self.output.strip())
        pytest.fail(f"the server ended before it printed a URI:\n{self.output}")

    def finish(self) -> str:
        """Wait for its end; all that it has printed."""
        self.output += self._stdout.read()
        self.process.wait()
        return self.output

    def close(self) -> None:
        """End it, if it still runs."""
        self._guard.cancel()
        self._guard.join()
        self.process.kill()
        self.process.wait()
        self._stdout.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Start a program that serves; it is ended after the test."""
    programs: list[Program] = []

    def starter(*command: str | Path, env: dict[str, str] | None = None) -> Program:
        programs.append(Program(command, tmp_path, env))
        return programs[-1]

    yield starter
    for program in programs:
        program.close()


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program to its end."""

    def runner(*command: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=tmp_path,
            env={**os.environ, **(env or {})},
            timeout=LIMIT,
            check=False,
        )

    return runner


@pytest.fixture
def examples() -> Path:
    """The folder with the examples."""
    return TREE / "examples"
