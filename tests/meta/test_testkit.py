"""The leak check finds leaks, the feature report tells what happened."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from testkit import leaks as leak_check
from testkit.leaks import Snapshot, leaks
from testkit.source import TREE

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="sockets are counted through /proc")


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leak_check, "GRACE", 0.05)


def test_nothing_is_found_where_nothing_is_left() -> None:
    assert leaks(Snapshot.take()) == []


def test_a_thread_is_found_and_named() -> None:
    before, stop = Snapshot.take(), threading.Event()
    thread = threading.Thread(target=stop.wait, name="left-behind", daemon=True)
    thread.start()
    try:
        (line,) = leaks(before)
        assert "'left-behind' (daemon)" in line
    finally:
        stop.set()
        thread.join()


def test_a_thread_that_is_about_to_end_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leak_check, "GRACE", 5.0)
    before, stop = Snapshot.take(), threading.Event()
    timer = threading.Timer(0.05, stop.set)
    thread = threading.Thread(target=stop.wait)
    thread.start()
    timer.start()
    assert leaks(before) == []


@linux_only
def test_a_socket_is_found_and_shown() -> None:
    before = Snapshot.take()
    with socket.socket() as left:
        left.bind(("127.0.0.1", 0))
        (line,) = leaks(before)
        assert str(left.getsockname()[1]) in line


@linux_only
def test_a_descriptor_without_an_object_is_found() -> None:
    before = Snapshot.take()
    left = socket.socket().detach()
    try:
        (line,) = leaks(before)
        assert "without a Python object" in line
    finally:
        os.close(left)


def test_a_task_is_found() -> None:
    before = Snapshot.take()

    async def never() -> None:
        await asyncio.Event().wait()

    loop = asyncio.new_event_loop()
    try:
        task = loop.create_task(never(), name="left-task")
        assert [line for line in leaks(before) if "left-task" in line]
        task.cancel()
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    finally:
        loop.close()


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")
def test_a_socket_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the whole path may be too long for the address of a socket
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("left.sock")
    assert [line for line in leaks(Snapshot.take(), tmp_path) if line.endswith("left.sock")]
    (tmp_path / "left.sock").unlink()


def test_looking_is_cheap() -> None:
    times = []
    for _ in range(20):
        start = time.perf_counter()
        leaks(Snapshot.take())
        times.append(time.perf_counter() - start)
    assert min(times) < 0.001


SAMPLE = """
import threading, pytest
stop = threading.Event()

@pytest.mark.feature("F001")
def test_leaves_a_thread():
    threading.Thread(target=stop.wait, name="left-behind", daemon=True).start()

@pytest.mark.leaky("tries the marker")
@pytest.mark.feature("F002")
def test_may_leave_a_thread():
    threading.Thread(target=stop.wait, daemon=True).start()

@pytest.mark.feature("F003", "F004")
@pytest.mark.parametrize("x", [1, 2])
def test_works(x):
    pass

@pytest.mark.serial
@pytest.mark.feature("F003")
def test_fails():
    assert False

@pytest.mark.feature("F005")
@pytest.mark.skip(reason="tries skipping")
def test_skipped():
    pass
"""


@pytest.mark.parametrize("workers", ["0", "2"])
def test_the_markers_and_the_feature_report(tmp_path: Path, workers: str) -> None:
    sample, report = tmp_path / "test_sample.py", tmp_path / "report.json"
    sample.write_text(SAMPLE)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(TREE / "tests"), str(TREE / "tests" / "support")]),
        "PYROPLUG_TEST_TIMEOUT_FACTOR": "0.05",
    }
    for name in [name for name in environment if name.startswith("PYTEST_")]:
        del environment[name]
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-c", str(TREE / "pyproject.toml"), "-n", workers]
    command += ["--timeout=30", "-p", "no:cacheprovider", f"--features-report={report}", str(sample)]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "left behind by the test:" in result.stdout
    assert "left-behind" in result.stdout
    found = {
        feature: {test.rpartition("::")[2]: outcome for test, outcome in tests.items()}
        for feature, tests in json.loads(report.read_text()).items()
    }
    assert found == {
        "F001": {"test_leaves_a_thread": "failed"},
        "F002": {"test_may_leave_a_thread": "passed"},
        "F003": {"test_works": "passed", "test_fails": "failed"},
        "F004": {"test_works": "passed"},
        "F005": {"test_skipped": "skipped"},
    }


def test_an_unknown_feature_is_refused(tmp_path: Path) -> None:
    (tmp_path / "test_sample.py").write_text("import pytest\n@pytest.mark.feature('F999')\ndef test_a():\n    pass\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TREE / "tests"), str(TREE / "tests" / "support")])}
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-c", str(TREE / "pyproject.toml"), str(tmp_path)]
    result = subprocess.run(
        [*command, "-p", "no:cacheprovider"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert "no such feature: F999" in result.stderr + result.stdout
