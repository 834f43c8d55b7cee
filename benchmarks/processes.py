"""Server and client processes: started with a time limit, pinned, and always ended."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.systems import Spec

__all__ = ["ROOT", "Pair", "Worker", "WorkerError", "the_cpu"]

ROOT = Path(__file__).resolve().parent.parent
PORTIONS = ("core", "plugins", "serializers", "transports")
START_TIMEOUT = 30.0
"""Seconds for a process to import what it needs and to answer."""


class WorkerError(Exception):
    """A process failed, or did not answer in time."""


def the_cpu() -> int | None:
    """The CPU on which client and server take turns, or None where a process cannot be pinned."""
    return max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


class Worker:
    """One process and the lines it says."""

    def __init__(self, role: str, spec: Spec, extra: object, cpu: int | None, prefix: tuple[str, ...] = ()) -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("PYRO_")}
        tree = Path(spec.tree).resolve() if spec.tree else None
        paths = [str(ROOT), *([str(tree / portion) for portion in PORTIONS] if tree else [])]
        environ["PYTHONPATH"] = os.pathsep.join(paths)
        self._name = f"{role} of {spec.name}"
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._line = b""
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "benchmarks.worker", role, json.dumps(asdict(spec)), json.dumps(extra)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environ,
            cwd=ROOT,
            bufsize=0,
        )
        if cpu is not None:
            with contextlib.suppress(OSError):
                os.sched_setaffinity(self._process.pid, {cpu})

    def ask(self, *command: object, timeout: float = START_TIMEOUT) -> dict[str, Any]:
        """Send a command and wait for the answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
        except OSError as exc:
            raise WorkerError(f"{self._name} has gone: {self._last_error()}") from exc
        return self.answer(timeout)

    def answer(self, timeout: float = START_TIMEOUT) -> dict[str, Any]:
        """The next line it says."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        deadline = time.monotonic() + timeout
        while b"\n" not in self._line:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                raise WorkerError(f"{self._name} did not answer within {timeout:.0f} s")
            data = os.read(descriptor, 65536)
            if not data:
                raise WorkerError(f"{self._name} has ended: {self._last_error()}")
            self._line += data
        line, self._line = self._line.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"{self._name}: {answer['error']}")
        return answer

    def cpu_time(self) -> int | None:
        """Nanoseconds of CPU that the process has used, where the system tells."""
        if not sys.platform.startswith("linux"):
            return None
        try:
            # clock_getcpuclockid(3), which Python does not have
            return time.clock_gettime_ns((~self._process.pid << 3) | 2)
        except OSError:
            return None

    def _last_error(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else f"exit status {self._process.returncode}, and not a word"

    @property
    def pid(self) -> int:
        """The process, or what was to start it."""
        return self._process.pid

    def finish(self) -> None:
        """Let it end by itself."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(START_TIMEOUT)
        except subprocess.TimeoutExpired as exc:
            raise WorkerError(f"{self._name} does not end") from exc

    def end(self) -> None:
        """Kill it."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                stream.close()


class Pair:
    """A client of one system, and its servers: one for TCP, one for Unix sockets where those exist."""

    def __init__(self, spec: Spec, folder: Path, cpu: int | None, kinds: set[str]) -> None:
        self.spec = spec
        self._workers: list[Worker] = []
        self._servers: dict[str, Worker] = {}
        locations: dict[str, str] = {}
        try:
            for kind in sorted(kinds):
                address = str(folder / f"{len(list(folder.iterdir()))}-{spec.module}") if kind == "unix" else None
                server = Worker("server", spec, address, cpu)
                self._workers.append(server)
                self._servers[kind] = server
                locations[kind] = server.answer()["location"]
            self._client = Worker("client", spec, locations, cpu)
            self._workers.append(self._client)
        except BaseException:
            self.end()
            raise

    def start(self, key: str, slice_seconds: float) -> None:
        """Get ready for a workload."""
        self._client.ask("start", key, slice_seconds)

    def run(self, key: str, kind: str, timeout: float, server_only: bool = False) -> tuple[float, float | None]:
        """One slice: microseconds per operation by the clock, and of CPU on both sides together (or the server's)."""
        server = self._servers[kind]
        before = server.cpu_time()
        answer = self._client.ask("run", key, timeout=timeout)
        after = server.cpu_time()
        count = answer["count"]
        clients = 0 if server_only else answer["cpu"]
        cpu = None if before is None or after is None else (after - before + clients) / count / 1000
        return answer["wall"] / count / 1000, cpu

    def stop(self, key: str) -> None:
        """Close the connections of a workload."""
        self._client.ask("stop", key)

    def end(self) -> None:
        """Kill all of it."""
        for worker in self._workers:
            worker.end()


@contextlib.contextmanager
def socket_folder() -> Iterator[Path]:
    """A folder for Unix sockets, with a short path."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp" if os.path.isdir("/tmp") else None) as name:
        yield Path(name)
