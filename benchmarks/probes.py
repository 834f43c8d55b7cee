"""What is no rate: memory, waits, starts, calls in flight, system calls.

A probe takes its figures from one system at a time, in processes of its own; the systems take turns in each round,
and the median of the rounds is the result.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measure import Say, present, quiet
from benchmarks.processes import Worker, WorkerError
from benchmarks.systems import Spec

__all__ = ["PROBES", "Figure", "Findings", "Probe", "take"]

Figures = dict[str, float]


@dataclass(frozen=True)
class Figure:
    """A column of a probe's table."""

    key: str
    title: str
    form: str = ",.1f"
    chart: bool = False
    """Whether the picture shows this one."""


@dataclass(frozen=True)
class Probe:
    """One table of figures."""

    key: str
    title: str
    figures: tuple[Figure, ...]
    systems: tuple[str, ...]
    measure: Callable[[Spec], Figures]
    rounds: int = 5
    quick_rounds: int = 2
    missing: Callable[[], str | None] = lambda: None
    """Why it cannot be taken here."""


@dataclass
class Findings:
    """What a probe found."""

    probe: Probe
    samples: dict[str, list[Figures]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def median(self, system: str, figure: str) -> float | None:
        """The median of the rounds, or None where it was not taken."""
        values = [sample[figure] for sample in self.samples.get(system, ()) if figure in sample]
        return statistics.median(values) if values else None


def take(probes: Iterable[Probe], specs: Iterable[Spec], quick: bool, say: Say = quiet) -> list[Findings]:
    """Take all figures; systems that fail are told of and left out."""
    found = []
    able = {spec.name: spec for spec in present([*specs, BARE], lambda text: None)}
    for probe in probes:
        findings = Findings(probe)
        found.append(findings)
        reason = probe.missing()
        if reason is not None:
            say(f"NOT MEASURED: {probe.title}: {reason}")
            findings.failures["all"] = reason
            continue
        systems = [able[name] for name in probe.systems if name in able]
        rounds = probe.quick_rounds if quick else probe.rounds
        say(f"{probe.title}: {len(systems)} systems, {rounds} rounds")
        for _ in range(rounds):
            for spec in [spec for spec in systems if spec.name not in findings.failures]:
                try:
                    findings.samples.setdefault(spec.name, []).append(probe.measure(spec))
                except WorkerError as exc:
                    findings.failures[spec.name] = str(exc)
                    say(f"FAILED: {probe.key}: {exc}")
    return found


BARE = Spec("python", "raw", note="an interpreter that does nothing")


@contextlib.contextmanager
def _serving(spec: Spec, prefix: tuple[str, ...] = ()) -> Iterator[tuple[Worker, str]]:
    server = Worker("server", spec, None, None, prefix)
    try:
        yield server, server.answer()["location"]
    finally:
        server.end()


@contextlib.contextmanager
def _client(spec: Spec, location: str, prefix: tuple[str, ...] = ()) -> Iterator[Worker]:
    client = Worker("client", spec, {"tcp": location}, None, prefix)
    try:
        yield client
    finally:
        client.end()


def _proc() -> str | None:
    return None if Path("/proc/self/clear_refs").exists() else "only Linux tells the memory of another process"


def _status(pid: int, name: str) -> int:
    """A line of /proc/PID/status, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise WorkerError(f"/proc/{pid}/status does not tell {name}")


# ------------------------------------------------------------------- memory of one large message
SIZE = 64 << 20


def _peak(spec: Spec) -> Figures:
    with _serving(spec) as (server, location), _client(spec, location) as client:
        client.ask("task", "hold", SIZE)
        before = {worker: _status(worker.pid, "VmRSS") for worker in (client, server)}
        for worker in before:
            Path(f"/proc/{worker.pid}/clear_refs").write_text("5", "ascii")  # the peak begins anew
        client.ask("task", "echo_held", timeout=60)
        grown = {worker: (_status(worker.pid, "VmHWM") - rss) / SIZE for worker, rss in before.items()}
        return {"client": grown[client], "server": grown[server]}


# ------------------------------------------------------------------- clients that say nothing
WARM = 50
"""Clients before the first look: what is made once for all is there then."""
IDLE = (1000, 5000)


def _idle(spec: Spec) -> Figures:
    figures: Figures = {}
    with _serving(spec) as (server, location), _client(spec, location) as client:
        client.ask("task", "open", WARM)
        before = _status(server.pid, "VmRSS")
        connected = WARM
        for wanted in IDLE:
            if spec.module == "raw" and wanted > IDLE[0]:
                break  # as many threads
            connected = client.ask("task", "open", wanted + WARM, timeout=120)["connected"]
            if connected == wanted + WARM:
                figures[f"kb{wanted}"] = (_status(server.pid, "VmRSS") - before) / 1024 / wanted
            else:
                figures.setdefault("kb1000", (_status(server.pid, "VmRSS") - before) / 1024 / (connected - WARM))
                break
        figures["connected"] = connected
        try:
            more = client.ask("task", "one_more", timeout=30)
        except WorkerError:
            figures["served"] = 0
        else:
            figures |= {"served": 1, "first": more["first"], "calls": more["each"]}
    return figures


# ------------------------------------------------------------------- waits, and calls in flight
def _waits(spec: Spec) -> Figures:
    with _serving(spec) as (_, location), _client(spec, location) as slow, _client(spec, location) as quick:
        slow.ask("task", "ready", 4)
        quick.ask("task", "ready", 1)
        slow.ask("task", "naps", 0.1, 0.4)
        return {"wait": quick.ask("task", "longest_wait", 0.7)["milliseconds"]}


def _flight(spec: Spec) -> Figures:
    with _serving(spec) as (_, location), _client(spec, location) as client:
        return client.ask("task", "in_flight", 16, 2, 0.05)


# ------------------------------------------------------------------- starts
_CALL = {
    "raw": """
import socket, struct, sys, threading, msgpack
host, port = sys.argv[1].split()
sock = socket.create_connection((host, int(port)))
data = msgpack.packb(42)
sock.sendall(struct.pack("!I", len(data)) + data)
assert msgpack.unpackb(sock.recv(4096)[4:]) == 42
print("called", flush=True)
""",
    "ours": """
import sys
from pyroplug.api import Proxy
assert Proxy(sys.argv[1]).echo(42) == 42
print("called", flush=True)
""",
    "pyro5": """
import sys
from Pyro5.api import Proxy
assert Proxy(sys.argv[1]).echo(42) == 42
print("called", flush=True)
""",
}
_IDLE_SERVER = """
from {module} import Daemon, expose

@expose
class Echo:
    def echo(self, value):
        return value

daemon = Daemon(host="127.0.0.1")
daemon.register(Echo(), "echo")
print("serving", flush=True)
daemon.requestLoop()
"""
_MODULES = {"ours": "pyroplug.api", "pyro5": "Pyro5.api"}


def _environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYRO_", "PYTHON"))}


def _spawn(code: str, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=_environ())


def _line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise WorkerError(f"a process has ended without a word, with exit status {process.wait()}")
    return line


def _ended(process: subprocess.Popen[bytes]) -> float:
    """Milliseconds of processor time that a process took from its start to its end."""
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0
    assert process.stdout is not None
    process.stdout.close()
    return (usage.ru_utime + usage.ru_stime) * 1000


def _start(spec: Spec) -> Figures:
    if spec is BARE:
        begin = time.perf_counter()
        process = _spawn("import sys; sys.stdout.write('here\\n'); sys.stdout.flush(); sys.stdin.read()")
        _line(process)
        taken = (time.perf_counter() - begin) * 1000
        cpu = _ended(process)
        with _process("import time; print('here', flush=True); time.sleep(60)") as sleeper:
            memory = _status(sleeper.pid, "VmRSS") / 1e6
        return {"call": taken, "call_cpu": cpu, "memory": memory}
    module = _MODULES.get(spec.module)
    importing = f"from {module} import Daemon, Proxy, expose" if module else "import socket, struct, threading, msgpack"
    clock = "import time; begin = time.perf_counter(), time.process_time()"
    report = "print((time.perf_counter() - begin[0]) * 1000, (time.process_time() - begin[1]) * 1000, flush=True)"
    process = _spawn(f"{clock}\n{importing}\n{report}")
    wall, cpu = (float(text) for text in _line(process).split())
    _ended(process)
    figures = {"import": wall, "import_cpu": cpu}
    with _serving(spec) as (_, location):
        begin = time.perf_counter()
        process = _spawn(_CALL[spec.module], location)
        _line(process)
        figures["call"] = (time.perf_counter() - begin) * 1000
        figures["call_cpu"] = _ended(process)
    if module:
        with _process(_IDLE_SERVER.format(module=module)) as server:
            time.sleep(0.3)  # what it does at first is done
            figures["memory"] = _status(server.pid, "VmRSS") / 1e6
    return figures


@contextlib.contextmanager
def _process(code: str) -> Iterator[subprocess.Popen[bytes]]:
    process = _spawn(code)
    try:
        _line(process)
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


# ------------------------------------------------------------------- system calls
# (what threads do among themselves is not caused by calls)
_COUNTED = (
    "trace=%network,epoll_wait,epoll_pwait,epoll_ctl,poll,ppoll,select,pselect6,read,write,readv,writev,ioctl,fcntl"
)
_FEW, _MANY = 100, 600


def _no_strace() -> str | None:
    return None if shutil.which("strace") else "strace is not installed"


def _system_calls(spec: Spec) -> Figures:
    """Two connections, with few calls and with many: the difference is that of the calls."""
    counts = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for calls in (_FEW, _MANY):
            notes = [Path(folder) / f"{side}{calls}" for side in ("client", "server")]
            traced = [("strace", "-f", "-qq", "-e", _COUNTED, "-o", str(note)) for note in notes]
            with _serving(spec, traced[1]) as (server, location), _client(spec, location, traced[0]) as client:
                client.ask("task", "calls", calls, timeout=60)
                client.finish()
                server.finish()
            counts.append([_counted(note) for note in notes])
    few, many = counts
    client_calls, server_calls = ((last - first) / (_MANY - _FEW) for first, last in zip(few, many, strict=True))
    return {"client": client_calls, "server": server_calls}


def _counted(note: Path) -> int:
    return sum(1 for line in note.read_text("utf-8", "replace").splitlines() if "resumed>" not in line)


_FIVE = (
    "raw-msgpack",
    "pyroplug-thread-msgpack",
    "pyroplug-multiplex-msgpack",
    "pyro5-thread-msgpack",
    "pyro5-multiplex-msgpack",
)

PROBES = {
    probe.key: probe
    for probe in (
        Probe(
            "memory-64mb",
            "Peak memory of echo(64 MB bytes), as a multiple of the size, besides the value that the client has",
            (Figure("client", "client", ",.2f"), Figure("server", "server", ",.2f", chart=True)),
            ("raw-bytes", "raw-msgpack", "pyroplug-default", "pyroplug-thread-msgpack", "pyro5-thread-msgpack"),
            _peak,
            rounds=3,
            quick_rounds=1,
            missing=_proc,
        ),
        Probe(
            "idle",
            "Idle clients: memory of the server, and one client more",
            (
                Figure("connected", "connected", ",.0f"),
                Figure("kb1000", "KB each of the first 1000", ",.2f", chart=True),
                Figure("kb5000", "KB each of 5000", ",.2f"),
                Figure("served", "one more served", ",.0f"),
                Figure("first", "its connect + call, ms", ",.2f"),
                Figure("calls", "its calls, us each", ",.1f"),
            ),
            _FIVE,
            _idle,
            rounds=3,
            quick_rounds=1,
            missing=_proc,
        ),
        Probe(
            "waits",
            "Longest wait of a client while four others sleep 0.4 s in a method",
            (Figure("wait", "ms", ",.1f", chart=True),),
            _FIVE[1:],
            _waits,
            quick_rounds=1,
        ),
        Probe(
            "in-flight",
            "16 threads that share one proxy, methods that sleep 50 ms",
            (Figure("mean", "calls in flight, mean", ",.1f", chart=True), Figure("most", "at once", ",.0f")),
            ("pyroplug-default", *_FIVE[1:4]),
            _flight,
            quick_rounds=1,
        ),
        Probe(
            "start",
            "Import, start to the first call, idle server",
            (
                Figure("import", "import of Daemon, Proxy, expose, ms"),
                Figure("import_cpu", "import, CPU ms"),
                Figure("call", "start to first call, ms", chart=True),
                Figure("call_cpu", "whole program, CPU ms"),
                Figure("memory", "idle server, MB"),
            ),
            ("python", "raw-msgpack", "pyroplug-default", "pyro5-thread-serpent"),
            _start,
            rounds=11,
            quick_rounds=2,
            missing=_proc,
        ),
        Probe(
            "system-calls",
            "System calls for each echo(42)",
            (Figure("client", "client", ",.2f"), Figure("server", "server", ",.2f", chart=True)),
            _FIVE,
            _system_calls,
            rounds=1,
            quick_rounds=1,
            missing=_no_strace,
        ),
    )
}
"""By key, in the order of the report."""
