"""What the operating system is asked for by one call: to send and receive, and on the server to wait."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from testkit.timeouts import scaled

STRACE = shutil.which("strace")

pytestmark = [
    pytest.mark.stress,
    pytest.mark.serial,
    pytest.mark.skipif(STRACE is None, reason="strace is not installed: system calls cannot be counted"),
]

# (what threads do among themselves, and the standby's looks at the clock, is not caused by calls)
COUNTED = (
    "trace=%network,epoll_wait,epoll_pwait,epoll_ctl,poll,ppoll,select,pselect6,read,write,readv,writev,ioctl,fcntl"
)
FEW, MANY = 100, 600

SERVER = """
from pyroplug.api import Daemon, expose

@expose
class Thing:
    def echo(self, value):
        return value

    def stop(self):
        daemon.shutdown()

with Daemon(host="127.0.0.1") as daemon:
    print(daemon.register(Thing(), "thing"), flush=True)
    daemon.requestLoop()
"""
CLIENT = """
import sys
from pyroplug.api import Proxy

with Proxy(sys.argv[1]) as proxy:
    for number in range(int(sys.argv[2])):
        assert proxy.echo(number) == number
    proxy.stop()
"""


def run(folder: Path, calls: int) -> tuple[int, int]:
    """How many system calls client and server make for a connection with so many calls."""
    notes = folder / f"client{calls}", folder / f"server{calls}"
    traced = [[str(STRACE), "-f", "-qq", "-e", COUNTED, "-o", str(note), sys.executable, "-c"] for note in notes]
    with subprocess.Popen([*traced[1], SERVER], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            uri = server.stdout.readline().strip()
            subprocess.run([*traced[0], CLIENT, uri, str(calls)], check=True, timeout=scaled(20))
            server.wait(scaled(20))
        finally:
            server.kill()
    client, served = (
        sum(1 for line in note.read_text("utf-8", "replace").splitlines() if "resumed>" not in line) for note in notes
    )
    return client, served


@pytest.mark.skipif(sys.platform != "linux", reason="strace is for Linux")
def test_a_call_costs_two_system_calls_on_the_client_and_three_on_the_server(tmp_path: Path) -> None:
    few, many = run(tmp_path, FEW), run(tmp_path, MANY)
    client, server = ((last - first) / (MANY - FEW) for first, last in zip(few, many, strict=True))
    assert client < 2.1, f"{client:.2f} system calls of the client for each call"
    assert server < 3.2, f"{server:.2f} system calls of the server for each call"
