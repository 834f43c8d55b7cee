"""Forked processes: neither end of an inherited connection is touched, and no lock of the parent is waited for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from testkit.timeouts import scaled

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork there"),
    pytest.mark.parametrize("loop", ["thread", "multiplex", "asyncio"]),
]

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("PYRO_")}

BEGIN = """
import os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: forking with threads; that is what is tested
from pyroplug.api import Daemon, Kernel, Proxy, PyroError, expose

LOOP, FOLDER = sys.argv[1:]
kernel = Kernel(settings={"SERVERTYPE": LOOP, "SHUTDOWN_TIMEOUT": 20.0})

@expose
class Thing:
    def echo(self, value): return value
    def pid(self): return os.getpid()

def child(work):
    '''Run it in a forked process; its exit status.'''
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    signal.alarm(20)  # a child that hangs ends
    try:
        work()
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
    os._exit(0)

def served(**where):
    daemon = Daemon(kernel=kernel, **where)
    uri = daemon.register(Thing(), "thing")
    thread = threading.Thread(target=daemon.requestLoop)
    thread.start()
    proxy = Proxy(uri, kernel=kernel)
    assert proxy.echo("before") == "before"
    return daemon, thread, proxy
"""


def run(program: str, loop: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + program, loop, str(folder)],
        capture_output=True,
        text=True,
        env=CLEAN,
        timeout=scaled(50),
        check=False,
    )
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("fine", "", 0)


@pytest.mark.parametrize("where", ['host="127.0.0.1"', 'unixsocket=FOLDER + "/s"'], ids=["tcp", "unix"])
def test_a_proxy_in_a_child_connects_by_itself(loop: str, where: str, tmp_path: Path) -> None:
    """Scenario 35."""
    run(
        f"""
daemon, thread, proxy = served({where})
mine, connection = proxy._pyroConnection.stream.sock.fileno(), proxy._pyroConnection

def work():
    for number in range(300):
        assert proxy.echo(number) == number
    assert proxy._pyroConnection is not connection
    assert proxy.pid() == os.getppid()
    proxy._pyroRelease()

children = [threading.Thread(target=lambda: codes.append(child(work))) for _ in range(3)]
codes = []
for each in children:
    each.start()
for number in range(500):
    assert proxy.echo([number]) == [number]
for each in children:
    each.join()
assert proxy._pyroConnection is connection
assert proxy.echo("after") == "after"
assert codes == [0, 0, 0], codes
proxy._pyroRelease()
daemon.shutdown()
thread.join()
print("fine")
""",
        loop,
        tmp_path,
    )


def test_locks_that_other_threads_held(loop: str, tmp_path: Path) -> None:
    """Scenario 36: threads call, connect and make futures all the time while the process forks."""
    run(
        """
daemon, thread, proxy = served(host="127.0.0.1")
stop = threading.Event()

def hammer():
    while not stop.is_set():
        proxy.echo(1)
        proxy.echo.future(2).value
        with Proxy(daemon.uriFor("thing"), kernel=kernel) as other:
            other.echo(3)

threads = [threading.Thread(target=hammer) for _ in range(4)]
for each in threads:
    each.start()

def work():
    assert proxy.echo(1) == 1
    assert proxy.echo.future(2).value == 2
    with Proxy(daemon.uriFor("thing"), kernel=kernel) as other:
        assert other.echo(3) == 3

codes = [child(work) for _ in range(10)]
stop.set()
for each in threads:
    each.join()
assert codes == [0] * 10, codes
proxy._pyroRelease()
daemon.shutdown()
thread.join()
print("fine")
""",
        loop,
        tmp_path,
    )


def test_a_daemon_that_serves_stays_with_the_parent(loop: str, tmp_path: Path) -> None:
    """Scenario 40: the child lets go of its copies without a word, at once, and may have a daemon of its own."""
    run(
        """
daemon, thread, proxy = served(unixsocket=FOLDER + "/s")
ours = {fd for fd in os.listdir("/proc/self/fd")} if sys.platform == "linux" else set()

def work():
    started = time.monotonic()
    try:
        daemon.requestLoop()
    except PyroError as error:
        assert "make a new one here" in str(error), error
    else:
        assert False, "it served"
    daemon.shutdown()
    daemon.close()
    assert time.monotonic() - started < 5  # SHUTDOWN_TIMEOUT is 20
    if sys.platform == "linux":
        assert len(os.listdir("/proc/self/fd")) < len(ours) - 3, "sockets of the parent are still open"
    own, thread, proxy = served(host="127.0.0.1")
    assert proxy.pid() == os.getpid()
    proxy._pyroRelease()
    own.shutdown()
    thread.join()

assert [child(work) for _ in range(2)] == [0, 0]
assert os.path.exists(FOLDER + "/s")
assert proxy.echo("after") == "after"
with Proxy(daemon.uriFor("thing"), kernel=kernel) as newcomer:
    assert newcomer.pid() == os.getpid()
proxy._pyroRelease()
daemon.shutdown()
thread.join()
print("fine")
""",
        loop,
        tmp_path,
    )


def test_a_daemon_that_does_not_serve_yet_may_serve_in_a_child(loop: str, tmp_path: Path) -> None:
    """As programs do that give ``requestLoop`` to a new process."""
    run(
        """
daemon = Daemon(host="127.0.0.1", kernel=kernel)
uri = daemon.register(Thing(), "thing")
pid = os.fork()
if not pid:
    signal.alarm(20)
    daemon.requestLoop()
    os._exit(0)
with Proxy(uri, kernel=kernel) as proxy:
    assert [proxy.echo(number) for number in range(10)] == list(range(10))
    assert proxy.pid() == pid
os.kill(pid, signal.SIGKILL)
os.waitpid(pid, 0)
daemon.close()
print("fine")
""",
        loop,
        tmp_path,
    )
