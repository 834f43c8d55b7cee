"""Names that daemons publish: leases, heartbeats, and who gets a name when."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyroplug.api import URI, Daemon, NamingError, Proxy, PyroError, expose, serve, type_meta
from pyroplug.core.kernel import Kernel
from pyroplug.plugins.naming.locate import SERVERS
from pyroplug.plugins.naming.publish import PUBLISHER
from pyroplug.plugins.naming.records import Lease
from testkit.timeouts import PATIENCE, scaled

from .conftest import RunningNameServer

MakeKernel = Callable[..., Kernel]
RunNs = Callable[..., RunningNameServer]

LEASE = scaled(2.0)
"""Seconds; renewed three times in that time, also where other things are going on."""


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait for something that somebody else does."""
    end = time.monotonic() + PATIENCE
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.01)


@expose
class Thing:
    def name(self) -> str:
        return "thing"


@pytest.fixture
def kernel(ns: RunningNameServer, new_kernel: MakeKernel) -> Kernel:
    return new_kernel(NS_PORT=ns.port, NS_HOST="127.0.0.1", NS_LEASE=LEASE)


@pytest.fixture
def daemon(kernel: Kernel) -> Iterator[Daemon]:
    with Daemon(kernel=kernel, host="127.0.0.1") as daemon:
        yield daemon


def heartbeats() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "pyroplug-heartbeat"]


# ----------------------------------------------------------------------------- publishing
@pytest.mark.feature("F177")
@pytest.mark.feature("F018")
@pytest.mark.feature("F043")
def test_names_are_there_until_the_daemon_is_closed(ns: RunningNameServer, kernel: Kernel) -> None:
    thing = Thing()
    with Daemon(kernel=kernel) as daemon:
        uri = daemon.publish(thing, "thing", metadata=type_meta(thing))
        assert uri == daemon.uriFor(thing)
        assert daemon.publish(Thing, "class").object in daemon.objectsById
        daemon.publish("PYRO:elsewhere@localhost:5", "elsewhere", lease=0)
        assert ns.names() == {
            "thing": str(uri),
            "class": str(daemon.uriFor(Thing)),
            "elsewhere": "PYRO:elsewhere@localhost:5",
        }
        assert kernel.resolve(f"PYROMETA:class:{Thing.__module__}.Thing") == uri
        assert len(heartbeats()) == 1
        assert daemon.unpublish("elsewhere")
        assert not daemon.unpublish("elsewhere")
        assert set(ns.names()) == {"thing", "class"}
        ns.daemon.nameserver.register("class", "PYRO:of@somebody.else:5")
    assert set(ns.names()) == {"class"}, "names of others stay"
    until(lambda: not heartbeats(), "the end of the heartbeat")


def test_a_lease_is_renewed_and_never_seen_by_others(ns: RunningNameServer, daemon: Daemon) -> None:
    daemon.publish(Thing(), "thing")

    def held() -> Lease:
        lease = ns.daemon.nameserver.records()["thing"].lease
        assert lease is not None
        return lease

    lease = held()
    until(lambda: held().expires > lease.expires + LEASE / 2, "a second heartbeat")
    answers = repr([ns.daemon.nameserver.list(return_metadata=True), ns.daemon.nameserver.status()])
    assert lease.owner not in answers


def test_options_are_checked(ns: RunningNameServer, daemon: Daemon) -> None:
    with pytest.raises(NamingError, match="empty"):
        daemon.publish(Thing(), "")
    with pytest.raises(TypeError, match="several texts"):
        daemon.publish(Thing(), "thing", metadata="tag")
    with pytest.raises(ValueError, match="less than 0"):
        daemon.publish(Thing(), "thing", lease=-1)
    with pytest.raises(TypeError, match="unknown"):
        daemon.publish(Thing(), "thing", unknown=1)
    assert not ns.names()
    assert not heartbeats()


@pytest.mark.feature("F178")
def test_a_taken_name_is_refused_on_request(ns: RunningNameServer, daemon: Daemon) -> None:
    ns.daemon.nameserver.register("thing", "PYRO:other@localhost:5")
    with pytest.raises(NamingError, match="name already registered: thing"):
        daemon.publish(Thing(), "thing", safe=True)
    assert ns.names() == {"thing": "PYRO:other@localhost:5"}
    uri = daemon.publish(Thing(), "thing")
    assert ns.names() == {"thing": str(uri)}


@pytest.mark.feature("F041")
def test_persistent_names_stay_and_keep_the_id_of_their_object(ns: RunningNameServer, kernel: Kernel) -> None:
    ids = []
    for _ in range(2):
        with Daemon(kernel=kernel) as daemon:
            uri = daemon.publish(Thing(), "thing", persistent=True)
            ids.append(uri.object)
        assert ns.names() == {"thing": str(uri)}
    assert ids[0] == ids[1]


def test_serve_publishes(ns: RunningNameServer, kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    with Daemon(kernel=kernel) as daemon:
        thread = threading.Thread(target=serve, args=({Thing(): "thing"},), kwargs={"daemon": daemon})
        thread.start()
        with until(lambda: "thing" in ns.names() and Proxy("PYRONAME:thing", kernel=kernel), "the name") as proxy:
            assert proxy.name() == "thing"
        daemon.shutdown()
        thread.join(PATIENCE)
    assert not ns.names()
    assert "thing: PYRO:obj_" in capsys.readouterr().out


def test_a_daemon_closes_quickly_when_the_name_server_is_gone(
    new_kernel: MakeKernel, caplog: pytest.LogCaptureFixture
) -> None:
    with RunningNameServer() as ns:
        kernel = new_kernel(NS_PORT=ns.port, NS_HOST="127.0.0.1")
        daemon = Daemon(kernel=kernel)
        daemon.publish(Thing(), "thing")
    begin = time.monotonic()
    daemon.close()
    assert time.monotonic() - begin < scaled(2)
    assert "thing stay in the name server" in caplog.text


def test_many_names_are_renewed_together(ns: RunningNameServer, kernel: Kernel) -> None:
    calls = []
    renew = ns.daemon.nameserver.renew
    entry = ns.daemon._registry.objects["Pyro.NameServer"]

    def counted(owner: str, names: Any) -> dict[str, str]:
        calls.append(len(names))
        return renew(owner, names)

    entry.table["renew"] = counted
    with Daemon(kernel=kernel) as one, Daemon(kernel=kernel) as two:
        for number in range(20):
            one.publish(f"PYRO:x@localhost:{number + 1}", f"one{number}")
            two.publish(f"PYRO:x@localhost:{number + 1}", f"two{number}")
        assert len(heartbeats()) == 1
        until(lambda: len(calls) >= 4, "two rounds of heartbeats")
    assert set(calls[2:4]) == {20}


# ----------------------------------------------------------------------------- crashes (scenario 58)
SERVER = """
import logging, sys
from pyroplug.api import Daemon, expose
logging.basicConfig(level=logging.INFO, stream=sys.stderr)
class Thing:
    @expose
    def name(self): return "first"
daemon = Daemon(host="127.0.0.1")
print(daemon.publish(Thing(), "thing", safe=True), flush=True)
daemon.requestLoop()
"""


@pytest.fixture
def server(ns: RunningNameServer) -> Iterator[subprocess.Popen[str]]:
    """A program that publishes the name "thing"."""
    environ = {**os.environ, "PYRO_NS_HOST": "127.0.0.1", "PYRO_NS_PORT": str(ns.port), "PYRO_NS_LEASE": str(LEASE)}
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("PYRO:")
        yield process
        process.kill()


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system cannot stop processes")
def test_scenario_58_the_name_of_a_dead_server_is_free_and_never_stolen_back(
    ns: RunningNameServer, kernel: Kernel, server: subprocess.Popen[str]
) -> None:
    """A server hangs: its entry ends with its lease, another one takes over, the heartbeat that comes late gets nothing."""
    time.sleep(LEASE * 1.5)
    assert "thing" in ns.names(), "as long as it lives, the name is there"
    server.send_signal(signal.SIGSTOP)
    with Daemon(kernel=kernel, host="127.0.0.1") as second:
        with pytest.raises(NamingError, match="already registered"):
            second.publish(Thing(), "thing", safe=True)
        begin = time.monotonic()
        until(lambda: "thing" not in ns.names(), "the end of the lease")
        assert time.monotonic() - begin < LEASE + scaled(1)
        uri = second.publish(Thing(), "thing", safe=True)
        server.send_signal(signal.SIGCONT)
        assert server.stderr is not None
        for line in server.stderr:
            if "somebody else has taken the name thing" in line:
                break
        assert ns.names() == {"thing": str(uri)}
        time.sleep(LEASE)  # two more heartbeats of both
        assert ns.names() == {"thing": str(uri)}
    # the second leaves: the first, which lives, has the name again
    until(lambda: ns.names().get("thing", str(uri)) != str(uri), "the first taking its name again")


def test_scenario_58_the_name_of_a_killed_server_disappears(
    ns: RunningNameServer, server: subprocess.Popen[str]
) -> None:
    server.kill()
    server.wait(PATIENCE)
    assert "thing" in ns.names()
    until(lambda: "thing" not in ns.names(), "the end of the lease")


@pytest.mark.feature("F043")
def test_a_program_that_ends_without_closing_its_daemon_takes_its_names_back(ns: RunningNameServer) -> None:
    program = SERVER.replace("daemon.requestLoop()", "")
    environ = {**os.environ, "PYRO_NS_HOST": "127.0.0.1", "PYRO_NS_PORT": str(ns.port)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, timeout=PATIENCE * 3, check=True
    )
    assert done.stdout.startswith("PYRO:")
    assert not ns.names()


def test_a_name_that_was_free_for_a_moment_is_not_stolen(
    ns: RunningNameServer, daemon: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    """Between the answer that nobody has it and registering again somebody else was faster."""
    daemon.publish(Thing(), "thing")
    ns.daemon.nameserver.register("thing", "PYRO:faster@localhost:5")
    entry = ns.daemon._registry.objects["Pyro.NameServer"]
    entry.table["renew"] = lambda owner, names: dict.fromkeys(names, "unknown")
    until(lambda: "somebody else has taken the name thing" in caplog.text, "a heartbeat")
    assert ns.names() == {"thing": "PYRO:faster@localhost:5"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_takes_nothing_back_and_can_publish(ns: RunningNameServer, daemon: Daemon) -> None:
    daemon.publish(Thing(), "parents")
    publisher = daemon.kernel.stash[PUBLISHER]
    for publish in (False, True):
        with publisher._lock:  # whatever the parent's threads are doing at that moment
            child = os.fork()
        if not child:
            try:
                if publish:
                    daemon.publish("PYRO:x@localhost:5", "childs", lease=0)
                else:
                    publisher._exit()
                    daemon.kernel.close()
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
    assert set(ns.names()) == {"parents", "childs"}


# ----------------------------------------------------------------------------- the name server restarts (scenario 60)
def test_scenario_60_after_a_restart_persistent_entries_are_there_and_servers_come_back(
    new_kernel: MakeKernel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    storage = f"sql:{tmp_path}/names.db"
    with RunningNameServer(storage=storage) as ns:
        port = ns.port
        kernel = new_kernel(NS_PORT=port, NS_HOST="127.0.0.1", NS_LEASE=LEASE)
        ns.daemon.nameserver.register("by hand", "PYRO:byhand@localhost:5", metadata=["kept"])
        daemon = Daemon(kernel=kernel)
        uri = daemon.publish(Thing(), "live")
        stays = daemon.publish("PYRO:stays@localhost:6", "stays", persistent=True)
    with daemon:
        with RunningNameServer(port=port, storage=storage) as ns:
            assert set(ns.names()) == {"by hand", "live", "stays"}
            assert kernel.resolve("PYRONAME:live") == uri
            assert kernel.resolve("PYROMETA:kept").port == 5
        with RunningNameServer(port=port) as ns:  # one that knows nothing
            until(lambda: ns.names() == {"live": str(uri), "stays": str(stays)}, "registering again")
            assert "registered live again" in caplog.text


def test_a_name_server_that_is_away_is_waited_for(new_kernel: MakeKernel, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with RunningNameServer() as ns:
        port = ns.port
        kernel = new_kernel(NS_PORT=port, NS_HOST="127.0.0.1", NS_LEASE=0.3)
        daemon = Daemon(kernel=kernel)
        daemon.publish(Thing(), "thing")
    with daemon:
        until(lambda: "the name server is away" in caplog.text, "a heartbeat without an answer")
        with RunningNameServer(port=port) as ns:
            until(lambda: "thing" in ns.names(), "registering again")
            assert caplog.text.count("the name server is away") == 1


def test_a_name_that_is_taken_back_is_not_registered_again(ns: RunningNameServer, daemon: Daemon) -> None:
    """Not even when a heartbeat is on its way at that moment, and finds the name gone."""
    publisher = daemon.kernel.stash[PUBLISHER]
    daemon.publish(Thing(), "thing")
    entry = next(iter(publisher._entries()))[1]
    daemon.unpublish("thing")
    from pyroplug.plugins.naming.publish import _renew

    publisher._ask(lambda ns: _renew(ns, "0" * 32, [entry]))
    assert not ns.names()


# ----------------------------------------------------------------------------- Pyro5's name server
@pytest.mark.interop
def test_with_a_name_server_of_pyro5(new_kernel: MakeKernel) -> None:
    """It knows no leases: plain registrations, which are looked after all the same."""
    from Pyro5.nameserver import start_ns

    pyro_uri, pyro, _ = start_ns("127.0.0.1", 0, enableBroadcast=False)
    names: Any = pyro.nameserver
    thread = threading.Thread(target=pyro.requestLoop)
    thread.start()
    try:
        kernel = new_kernel(NS_HOST="127.0.0.1", NS_PORT=pyro_uri.port, NS_LEASE=0.3)
        with Daemon(kernel=kernel) as daemon:
            uri = daemon.publish(Thing(), "thing", metadata=["tag"])
            daemon.publish("PYRO:stays@localhost:6", "stays", persistent=True)
            assert kernel.resolve("PYRONAME:thing") == uri
            assert kernel.resolve("PYROMETA:tag") == uri
            assert [proxy._pyroConnection for proxy in kernel.stash[SERVERS]._found.values()] == [None]
            with pytest.raises(NamingError, match="unknown name"):
                kernel.resolve("PYRONAME:nobody")
            names.remove("thing")
            until(lambda: "thing" in names.list(), "registering again")
            names.register("thing", "PYRO:other@localhost:5")
            time.sleep(0.5)
            assert names.list()["thing"] == "PYRO:other@localhost:5"
        assert set(names.list()) == {"Pyro.NameServer", "stays", "thing"}
        kernel.close()
    finally:
        pyro.shutdown()
        thread.join(PATIENCE)
        pyro.close()


def test_a_kernel_that_is_closed_ends_its_heartbeat(ns: RunningNameServer, new_kernel: MakeKernel) -> None:
    kernel = new_kernel(NS_PORT=ns.port, NS_HOST="127.0.0.1")
    daemon = Daemon(kernel=kernel)
    daemon.publish(URI("PYRO:x@localhost:5"), "x")
    kernel.close()
    assert not heartbeats()
    with pytest.raises(PyroError):
        Proxy("PYRONAME:nobody", kernel=kernel).x()
    daemon.close()
