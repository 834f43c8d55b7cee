"""What runs in the processes that are measured: ``python -m benchmarks.worker server|client SPEC``.

Both end when their standard input does, so that nothing survives the program that started them.  A client takes
commands, one JSON object per line, and answers each with one line.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from benchmarks.systems import Spec, adapter
from benchmarks.tasks import Tasks
from benchmarks.workloads import WORKLOADS, Operation

CALIBRATION = 0.02
"""Seconds that the loop for finding the number of operations has to take."""


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _server(spec: Spec, address: str | None) -> None:
    def wait_for_the_end() -> None:
        while os.read(0, 4096):
            pass
        os._exit(0)

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    adapter(spec.module).serve(spec, address, lambda location: _say({"location": location}))


class _Client:
    def __init__(self, spec: Spec, locations: dict[str, str]) -> None:
        self._spec = spec
        self._locations = locations
        self._connect = adapter(spec.module).connect
        self._started: dict[str, tuple[Operation, int]] = {}
        self._stack = ExitStack()
        self._tasks = Tasks(lambda: self._connect(spec, locations["tcp"]))

    def start(self, key: str, slice_seconds: float) -> dict[str, Any]:
        """Warm up and find out how many operations make a slice."""
        workload = WORKLOADS[key]
        location = self._locations["unix" if workload.unix else "tcp"]
        operation = workload.start(lambda: self._connect(self._spec, location), self._stack)
        operation(1)  # what is imported and made once is not the operation
        count = 1
        while True:
            begin = time.perf_counter()
            operation(count)
            taken = time.perf_counter() - begin
            if taken >= min(CALIBRATION, slice_seconds):
                break
            count *= 2
        count = max(1, round(count * slice_seconds / taken))
        self._started[key] = operation, count
        gc.collect()
        gc.freeze()  # what is there now stays; collections shall see what the calls leave behind
        return {"count": count}

    def run(self, key: str) -> dict[str, Any]:
        """One slice."""
        operation, count = self._started[key]
        cpu = time.process_time_ns()
        begin = time.perf_counter_ns()
        operation(count)
        end = time.perf_counter_ns()
        return {"count": count * WORKLOADS[key].units, "wall": end - begin, "cpu": time.process_time_ns() - cpu}

    def stop(self, key: str) -> dict[str, Any]:
        """Close what the workload has opened."""
        self._started.pop(key, None)
        self._stack.close()
        return {}

    def task(self, name: str, *arguments: Any) -> dict[str, Any]:
        """Something for a probe."""
        result: dict[str, Any] = getattr(self._tasks, name)(*arguments)
        return result


def _client(spec: Spec, locations: dict[str, str]) -> None:
    client = _Client(spec, locations)
    commands: dict[str, Callable[..., dict[str, Any]]] = {
        "start": client.start,
        "run": client.run,
        "stop": client.stop,
        "task": client.task,
    }
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        try:
            _say(commands[command](*arguments))
        except Exception as exc:  # any system may fail in any way; the others go on
            _say({"error": f"{type(exc).__name__}: {exc}"})


def _many_descriptors() -> None:
    """As many open files as this process may have."""
    try:
        import resource
    except ImportError:
        return
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    _many_descriptors()
    role, spec, extra = sys.argv[1:]
    if role == "server":
        _server(Spec(**json.loads(spec)), json.loads(extra))
    else:
        _client(Spec(**json.loads(spec)), json.loads(extra))


if __name__ == "__main__":
    main()
