"""The command ``service``: what it prints is what the operating systems read."""

from __future__ import annotations

import os
import plistlib
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pyroplug.plugins.service import definition
from testkit.timeouts import PATIENCE

pytestmark = [pytest.mark.feature("F198"), pytest.mark.needs("service")]

COMMAND = ["/opt/a b/pyroplug", "ns", "-s", 'sql:/var/100%/"x".db', "--host", "$HOST", "", "back\\slash"]
ENVIRONMENT = {"PYRO_NS_PORT": "9999", "PYRO_HOST": "a & b <c>"}


def printed(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pyroplug", "service", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE * 3,
        env={**{name: value for name, value in os.environ.items() if not name.startswith("PYRO_")}, **environment},
    )


def line_of(unit: str, key: str) -> str:
    return next(line.partition("=")[2] for line in unit.splitlines() if line.startswith(f"{key}="))


def test_systemd_starts_just_that_command() -> None:
    unit = definition("systemd", "names", COMMAND, ENVIRONMENT, user=True)
    line = line_of(unit, "ExecStart").replace("%%", "%").replace("$$", "$")
    assert shlex.split(line) == COMMAND  # systemd's quoting is the shell's, in what is used of it
    assert line_of(unit, "WantedBy") == "default.target"
    assert "DynamicUser" not in unit
    assert 'Environment="PYRO_HOST=a & b <c>"' in unit
    system = definition("systemd", "names", COMMAND, {}, user=False)
    assert line_of(system, "WantedBy") == "multi-user.target"
    assert line_of(system, "DynamicUser") == "yes"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="this system has no systemd to ask")
def test_systemd_finds_no_fault_in_it(tmp_path: Path) -> None:
    path = tmp_path / "names.service"
    command = [sys.executable, *COMMAND[1:]]
    path.write_text(definition("systemd", "names", command, ENVIRONMENT, user=False), encoding="utf-8")
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE * 3,
    )
    assert "names.service" not in result.stderr, result.stderr


def test_launchd_starts_just_that_command() -> None:
    job = plistlib.loads(definition("launchd", "names", COMMAND, ENVIRONMENT, user=True).encode())
    assert job["Label"] == "names"
    assert job["ProgramArguments"] == COMMAND
    assert job["EnvironmentVariables"] == ENVIRONMENT
    assert job["RunAtLoad"] is True


@pytest.mark.parametrize("user", [True, False])
def test_windows_gets_a_task(user: bool) -> None:
    text = definition("windows", "names", COMMAND, {}, user)
    task = ElementTree.fromstring(text)
    space = {"t": "http://schemas.microsoft.com/windows/2004/02/mit/task"}
    assert task.findtext(".//t:Exec/t:Command", namespaces=space) == COMMAND[0]
    assert task.findtext(".//t:Exec/t:Arguments", namespaces=space) == subprocess.list2cmdline(COMMAND[1:])
    assert (task.find(".//t:LogonTrigger", space) is not None) is user
    with_variables = ElementTree.fromstring(definition("windows", "names", COMMAND, ENVIRONMENT, user))
    assert 'set "PYRO_HOST=a & b <c>"' in (with_variables.findtext(".//t:Exec/t:Arguments", namespaces=space) or "")


def test_the_command_prints_what_runs_here() -> None:
    result = printed("--kind", "systemd", "--name", "names", "ns", "--port", "0", PYRO_NS_TIMEOUT="3")
    assert result.returncode == 0, result.stderr
    assert "Environment=PYRO_NS_TIMEOUT=3" in result.stdout
    command = shlex.split(line_of(result.stdout, "ExecStart"))
    assert command[-3:] == ["ns", "--port", "0"]
    shown = subprocess.run([*command[:-2], "--help"], check=False, capture_output=True, text=True, timeout=PATIENCE * 3)
    assert shown.returncode == 0
    assert "Start a name server" in shown.stdout


def test_secrets_stay_out() -> None:
    result = printed("--kind", "systemd", "ns", PYRO_NS_BCKEY="the secret")
    assert result.returncode == 0
    assert "the secret" not in result.stdout
    assert "NS_BCKEY" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--name", "two words", "ns"], "has blanks"),
        (["ns", "-s", "sql:a\nExecStart=/bin/evil"], "line break"),
        ([], "Missing argument"),
    ],
)
def test_what_cannot_be_a_service(arguments: list[str], problem: str) -> None:
    result = printed(*arguments)
    assert result.returncode == 2
    assert problem in result.stderr
    assert result.stdout == ""
