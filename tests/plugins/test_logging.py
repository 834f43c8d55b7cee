"""Plugin logging: LOGFILE and LOGLEVEL."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyroplug.api import ConfigError
from pyroplug.testing.kernels import make_kernel

pytestmark = pytest.mark.needs("logging")


@contextlib.contextmanager
def bare_logging() -> Iterator[None]:
    """As in a program that has not set up logging; pytest has."""
    handlers, logging.root.handlers = logging.root.handlers, []
    level = logging.getLogger("pyroplug").level
    try:
        yield
    finally:
        logging.root.handlers = handlers
        logging.getLogger("pyroplug").setLevel(level)


@pytest.mark.feature("F254", "F256")
def test_a_file(tmp_path: Path) -> None:
    with bare_logging():
        file = tmp_path / "pyro.log"
        kernel = make_kernel(environ={"PYRO_LOGFILE": str(file), "PYRO_LOGLEVEL": "info"})
        try:
            logging.getLogger("pyroplug.daemon").info("a line")
            logging.getLogger("pyroplug.daemon").debug("not this one")
            text = file.read_text("utf-8")
            assert "pyroplug.daemon,INFO] a line" in text
            assert "not this one" not in text
        finally:
            kernel.close()
        assert logging.getLogger("pyroplug").handlers == []


@pytest.mark.feature("F254")
def test_nothing_without_a_level(tmp_path: Path) -> None:
    with bare_logging():
        file = tmp_path / "pyro.log"
        make_kernel(environ={"PYRO_LOGFILE": str(file)})
        assert logging.getLogger("pyroplug").handlers == []
        assert not file.exists()


@pytest.mark.feature("F254", "F255")
def test_logging_that_the_program_set_up_is_respected(tmp_path: Path) -> None:
    with bare_logging():
        handler = logging.StreamHandler()
        logging.root.addHandler(handler)
        make_kernel(LOGLEVEL="DEBUG", LOGFILE=str(tmp_path / "x"))
        assert logging.getLogger("pyroplug").handlers == []


@pytest.mark.feature("F254")
def test_two_kernels_log_once(tmp_path: Path) -> None:
    with bare_logging():
        file = str(tmp_path / "pyro.log")
        first = make_kernel(LOGLEVEL="INFO", LOGFILE=file)
        second = make_kernel(LOGLEVEL="INFO", LOGFILE=file)
        assert len(logging.getLogger("pyroplug").handlers) == 1
        second.close()
        first.close()
        assert logging.getLogger("pyroplug").handlers == []


def test_a_level_that_is_none() -> None:
    with pytest.raises(ConfigError, match="PYRO_LOGLEVEL: 'LOUD' is no level"):
        make_kernel(environ={"PYRO_LOGLEVEL": "LOUD"})


@pytest.mark.feature("F254")
def test_a_program_with_nothing_but_the_environment() -> None:
    program = "from pyroplug.api import Daemon\nDaemon().close()\n"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYRO_LOGLEVEL": "DEBUG", "PYRO_LOGFILE": "{stderr}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "PYRO_LOGLEVEL=DEBUG" in done.stderr
    quiet = subprocess.run([sys.executable, "-c", program], env={}, capture_output=True, text=True, check=True)
    assert quiet.stderr == ""
