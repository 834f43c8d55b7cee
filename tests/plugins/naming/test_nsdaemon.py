"""Name servers of one's own: started, embedded, refused, shut down; and the URI file."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pyroplug.api import (
    URI,
    ConfigError,
    Daemon,
    NameServerDaemon,
    NamingError,
    Proxy,
    PyroError,
    SecurityError,
    expose,
    locate_ns,
    start_ns,
    start_ns_loop,
)
from pyroplug.core.kernel import Kernel
from pyroplug.plugins.naming.storage import MemoryStorage
from pyroplug.testing.kernels import LOOPS, WirePeer, make_kernel
from testkit.timeouts import PATIENCE, scaled

from .conftest import RunningNameServer

MakeKernel = Callable[..., Kernel]
RunNs = Callable[..., RunningNameServer]


@expose
class Thing:
    def name(self) -> str:
        return "thing"


# ----------------------------------------------------------------------------- starting
@pytest.mark.feature("F280")
def test_start_ns_gives_what_an_event_loop_needs(new_kernel: MakeKernel) -> None:
    uri, daemon, responder = start_ns("127.0.0.1", 0, kernel=new_kernel())
    with daemon:
        assert responder is None
        assert isinstance(daemon, NameServerDaemon)
        assert uri == daemon.uriFor("Pyro.NameServer") == daemon.uriFor(daemon.nameserver)
        assert daemon.nameserver.lookup("Pyro.NameServer") == uri
        assert daemon.nameserver.lookup("Pyro.NameServer", return_metadata=True)[1] == {
            "class:Pyro5.nameserver.NameServer"
        }


def test_the_port_is_that_of_the_settings_unless_given(new_kernel: MakeKernel) -> None:
    with NameServerDaemon("127.0.0.1", 0, kernel=new_kernel()) as daemon:
        port = daemon.sock.getsockname()[1]
    with NameServerDaemon("127.0.0.1", kernel=new_kernel(NS_PORT=port)) as daemon:
        assert daemon.sock.getsockname()[1] == port


@pytest.mark.feature("F280")
def test_start_ns_loop_says_where_it_is_and_ends_when_told(
    new_kernel: MakeKernel, capsys: pytest.CaptureFixture[str]
) -> None:
    rounds = iter((True, False, False))
    kernel = new_kernel(POLLTIMEOUT=0.05)
    start_ns_loop("127.0.0.1", 0, loopCondition=lambda: next(rounds), kernel=kernel)
    told = capsys.readouterr().out
    assert "NS running on 127.0.0.1:" in told
    assert "URI = PYRO:Pyro.NameServer@127.0.0.1:" in told
    assert told.endswith("NS shut down.\n")
    start_ns_loop(
        "0.0.0.0", 0, bchost="127.0.0.1", bcport=0, nathost="nat", natport=5, loopCondition=lambda: False, kernel=kernel
    )
    told = capsys.readouterr().out
    assert "Broadcast server running on 127.0.0.1:" in told
    assert "external URI = PYRO:Pyro.NameServer@nat:5" in told
    assert "internal URI = PYRO:Pyro.NameServer@" in told


@pytest.mark.feature("F179")
def test_it_is_up_in_less_than_a_second() -> None:
    """Of processor time, interpreter included: the machine may have other things to do."""
    program = "import time; from pyroplug.api import start_ns; start_ns('127.0.0.1', 0)[1].close(); print(time.process_time())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert float(done.stdout) < 1.0


def test_a_second_name_server_on_the_same_port_is_told_about_the_first(
    run_ns: RunNs, new_kernel: MakeKernel, tmp_path: Path
) -> None:
    first = run_ns()
    with pytest.raises(OSError, match=r"in use.*a name server is running there already \(PYRO:Pyro\.NameServer@127"):
        start_ns("127.0.0.1", first.port, kernel=new_kernel())
    with Daemon("127.0.0.1", kernel=new_kernel()) as other:
        begin = time.monotonic()
        with pytest.raises(OSError, match="something that is no name server has it"):
            start_ns("127.0.0.1", other.sock.getsockname()[1], kernel=new_kernel())
        assert time.monotonic() - begin < scaled(3)
    assert locate_ns("127.0.0.1", first.port, kernel=new_kernel())._pyroInvoke("count", (), {}) == 1


def test_storages_are_chosen_by_name_or_given(new_kernel: MakeKernel) -> None:
    kernel = new_kernel()
    for storage in (None, "memory", MemoryStorage()):
        with NameServerDaemon("127.0.0.1", 0, storage=storage, kernel=kernel) as daemon:
            assert daemon.nameserver.count() == 1
    with pytest.raises(ConfigError, match=r"invalid storage type 'sqk:x' \(did you mean 'sql'\?\): known are .*memory"):
        NameServerDaemon("127.0.0.1", 0, storage="sqk:x", kernel=kernel)
    without = new_kernel(environ={"PYRO_DISABLE_PLUGINS": "naming_sql"})
    with pytest.raises(ConfigError, match=r"invalid storage type 'sql:x'.*plugins that are off: .*naming_sql"):
        NameServerDaemon("127.0.0.1", 0, storage="sql:x", kernel=without)


def test_a_storage_that_fails_leaves_the_port_free(new_kernel: MakeKernel, tmp_path: Path) -> None:
    path = tmp_path / "names.db"
    path.write_bytes(b"this is no database, not at all" * 100)
    with pytest.raises(NamingError, match=r"names\.db"):
        NameServerDaemon("127.0.0.1", 0, storage=f"sql:{path}", kernel=new_kernel())


# ----------------------------------------------------------------------------- embedding
@pytest.mark.feature("F189")
@pytest.mark.feature("F280")
def test_name_server_daemon_and_responder_in_one_loop(new_kernel: MakeKernel) -> None:
    kernel = new_kernel(SERVERTYPE="multiplex")
    uri, nsdaemon, responder = start_ns("0.0.0.0", 0, bchost="127.0.0.1", bcport=0, kernel=kernel)
    assert responder is not None
    port = nsdaemon.sock.getsockname()[1]
    with nsdaemon, Daemon("127.0.0.1", kernel=kernel) as daemon:
        nsdaemon.nameserver.register("thing", daemon.register(Thing()))
        daemon.combine(nsdaemon)
        daemon.combine(responder)
        thread = threading.Thread(target=daemon.requestLoop)
        thread.start()
        client = new_kernel(
            NS_HOST="nowhere.invalid",
            NS_BROADCAST=True,
            NS_BCPORT=int(responder.locationStr.rpartition(":")[2]),
            BROADCAST_ADDRS=["127.0.0.1"],
        )
        with Proxy("PYRONAME:thing", kernel=client) as proxy:
            assert proxy.name() == "thing"
        with locate_ns(kernel=client) as found:
            assert found._pyroUri == URI(f"PYRO:Pyro.NameServer@127.0.0.1:{port}")
        assert uri.object == "Pyro.NameServer"
        client.close()
        daemon.shutdown()
        thread.join(PATIENCE)
    responder.close()


@pytest.mark.feature("F189")
@pytest.mark.parametrize("loop", ["thread", "multiplex"])
def test_a_name_server_in_a_foreign_event_loop(loop: str, new_kernel: MakeKernel) -> None:
    kernel = new_kernel(SERVERTYPE=loop)
    uri, nsdaemon, _ = start_ns("127.0.0.1", 0, kernel=kernel)
    end = threading.Event()

    def turn() -> None:
        while not end.is_set():
            with selectors.DefaultSelector() as selector:
                for sock in nsdaemon.sockets:
                    selector.register(sock, selectors.EVENT_READ)
                ready = [key.fileobj for key, _ in selector.select(0.05)]
            if ready:
                nsdaemon.events(ready)

    thread = threading.Thread(target=turn)
    thread.start()
    try:
        client = new_kernel(NS_HOST="127.0.0.1", NS_PORT=uri.port)
        with locate_ns(kernel=client) as found:
            found.register("thing", "PYRO:thing@localhost:5")
            assert client.resolve("PYRONAME:thing").port == 5
        client.close()
    finally:
        end.set()
        thread.join(PATIENCE)
        nsdaemon.close()


@pytest.mark.feature("F185")
@pytest.mark.parametrize("loop", LOOPS)
def test_clients_that_stop_in_the_middle_are_hung_up_on_and_keep_nobody_waiting(
    loop: str, run_ns: RunNs, new_kernel: MakeKernel
) -> None:
    ns = run_ns(SERVERTYPE=loop, STALL_TIMEOUT=0.3, HANDSHAKE_TIMEOUT=0.3, POLLTIMEOUT=0.1)
    kernel = new_kernel()

    def connected() -> WirePeer:
        return WirePeer(kernel.connect(ns.uri, PATIENCE), kernel)

    with connected() as silent, connected() as half, locate_ns("127.0.0.1", ns.port, kernel=kernel) as found:
        half.hello("Pyro.NameServer")
        half.send(half.call_message("Pyro.NameServer", "count")[:-3])
        assert found.count() == 1
        silent.message()  # why it is refused
        assert silent.ended()
        assert half.ended()
        assert found.count() == 1


# ----------------------------------------------------------------------------- the end
@pytest.mark.feature("F186")
def test_clients_may_shut_it_down_if_that_is_allowed(run_ns: RunNs, new_kernel: MakeKernel) -> None:
    allowed = RunningNameServer(allow_shutdown=True)
    with locate_ns("127.0.0.1", allowed.port, kernel=new_kernel()) as found:
        found.shutdown()
    allowed._thread.join(PATIENCE)
    assert not allowed._thread.is_alive()
    allowed.stop()
    for refusing in (run_ns(), run_ns(NS_ALLOW_SHUTDOWN=True, allow_shutdown=False)):
        with locate_ns("127.0.0.1", refusing.port, kernel=new_kernel()) as found:
            with pytest.raises(SecurityError, match="NS_ALLOW_SHUTDOWN"):
                found.shutdown()
            found.ping()


def test_closing_twice_is_harmless_and_a_closed_one_is_of_no_use(new_kernel: MakeKernel) -> None:
    _, daemon, _ = start_ns("127.0.0.1", 0, kernel=new_kernel())
    daemon.close()
    daemon.close()
    with pytest.raises(PyroError, match="was closed"), daemon:
        pass


# ----------------------------------------------------------------------------- the URI file
@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "ns.uri")


@pytest.fixture
def reader(path: str, new_kernel: MakeKernel) -> Kernel:
    return new_kernel(NS_URIFILE=path, NS_PORT=1)


@pytest.mark.feature("F180")
def test_a_name_server_leaves_its_uri_in_a_file_while_it_runs(path: str, reader: Kernel) -> None:
    with RunningNameServer(NS_URIFILE=path) as ns:
        assert Path(path).read_text() == f"{ns.uri}\n"
        if os.name == "posix":
            assert Path(path).stat().st_mode & 0o777 == 0o644
        with locate_ns(kernel=reader) as found:
            assert found._pyroUri == ns.uri
        ns.daemon.nameserver.register("thing", "PYRO:thing@localhost:5")
        assert reader.resolve("PYRONAME:thing").port == 5
    assert os.listdir(os.path.dirname(path)) == []
    with pytest.raises(NamingError, match=r"URI file: '.*ns\.uri' cannot be read: No such file"):
        locate_ns(kernel=reader)


@pytest.mark.feature("F180")
def test_after_a_restart_elsewhere_clients_follow_the_file(path: str, reader: Kernel) -> None:
    for port in (5, 6):
        with RunningNameServer(NS_URIFILE=path) as ns:
            ns.daemon.nameserver.register("thing", f"PYRO:thing@localhost:{port}")
            assert reader.resolve("PYRONAME:thing").port == port


def test_a_file_of_another_name_server_is_left_alone(path: str) -> None:
    with RunningNameServer(NS_URIFILE=path):
        second = RunningNameServer(NS_URIFILE=path)
    with second:
        assert Path(path).read_text() == f"{second.uri}\n"
    assert not os.path.exists(path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "holds no uri"),
        (b"PYRO:half", "holds no uri"),
        (b"\xff\xfe\x00", "holds no uri"),
        (b"PYRONAME:x", "nowhere to connect to"),
        (b"PYRO:Pyro.NameServer@127.0.0.1:1\n", "refused"),
        (b"x" * 10_000_000, "holds no uri"),
    ],
)
def test_a_file_that_leads_nowhere_is_told(content: bytes, complaint: str, path: str, reader: Kernel) -> None:
    Path(path).write_bytes(content)
    with pytest.raises(NamingError, match=rf"URI file: .*{complaint}") as caught:
        locate_ns(kernel=reader)
    assert len(str(caught.value)) < 6000


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NamingError, match=r"uri file .*cannot be written: .*NS_URIFILE"):
        start_ns("127.0.0.1", 0, kernel=make_kernel(NS_URIFILE=str(tmp_path / "none" / "file")))
