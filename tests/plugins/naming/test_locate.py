"""Finding name servers, and looking names up."""

from __future__ import annotations

import ipaddress
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyroplug import api
from pyroplug.api import (
    URI,
    CommunicationError,
    ConfigError,
    Daemon,
    NamingError,
    PluginError,
    Proxy,
    PyroError,
    expose,
    locate_ns,
    type_meta,
)
from pyroplug.core.kernel import Kernel
from pyroplug.plugins.naming.choice import RoundRobin, any_of, first_to_answer
from pyroplug.plugins.naming.locate import SERVERS, resolve
from pyroplug.plugins.naming.table import NAMING
from pyroplug.testing.kernels import Served, has_ipv6, make_kernel
from testkit.timeouts import PATIENCE, scaled

from .conftest import RunningNameServer

MakeKernel = Callable[..., Kernel]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@expose
class Thing:
    def __init__(self, name: str = "thing") -> None:
        self._name = name

    def name(self) -> str:
        return self._name


@pytest.fixture
def served() -> Iterator[Served]:
    with Served("tcp4") as served:
        served.publish(Thing())
        yield served


# ----------------------------------------------------------------------------- finding
@pytest.mark.feature("F012")
@pytest.mark.feature("F176")
def test_the_name_server_of_this_machine_is_found(ns: RunningNameServer, kernel: Kernel) -> None:
    with locate_ns(kernel=kernel) as found:
        assert str(found.lookup("Pyro.NameServer")) == f"PYRO:Pyro.NameServer@127.0.0.1:{ns.port}"


def test_a_host_is_taken_in_every_form(ns: RunningNameServer, new_kernel: MakeKernel) -> None:
    kernel = new_kernel(NS_PORT=ns.port)
    for host in ("127.0.0.1", "localhost", ipaddress.ip_address("127.0.0.1")):
        with locate_ns(host, kernel=kernel) as found:
            found.ping()
        with locate_ns(host, ns.port, kernel=new_kernel()) as found:
            found.ping()


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
@pytest.mark.parametrize("host", ["::1", "[::1]", ipaddress.ip_address("::1")])
def test_a_name_server_with_ipv6(
    host: object, run_ns: Callable[..., RunningNameServer], new_kernel: MakeKernel
) -> None:
    ns = run_ns("::1")
    with locate_ns(host, ns.port, kernel=new_kernel()) as found:
        found.ping()
    with locate_ns(kernel=new_kernel(NS_HOST="::1", NS_PORT=ns.port)) as found:
        found.ping()
    with locate_ns(kernel=new_kernel(NS_HOST="localhost", NS_PORT=ns.port)) as found:  # whichever IP version it is
        found.ping()


def test_a_name_server_on_a_unix_socket(
    run_ns: Callable[..., RunningNameServer], new_kernel: MakeKernel, tmp_path: Path
) -> None:
    path = str(tmp_path / "ns")
    with RunningNameServer(None, None, unixsocket=path) as ns:  # type: ignore[arg-type]
        kernel = new_kernel()
        assert ns.responder is None
        with locate_ns(f"./u:{path}", kernel=kernel) as found:
            found.register("thing", "PYRO:thing@localhost:5")
        assert resolve(f"PYRONAME:thing@./u:{path}", kernel=kernel) == URI("PYRO:thing@localhost:5")
        kernel.close()


def test_what_is_no_place_is_refused(new_kernel: MakeKernel) -> None:
    with pytest.raises(ValueError, match="blanks"):
        locate_ns("no place", kernel=new_kernel())


@pytest.mark.feature("F279")
def test_names_are_resolved(ns: RunningNameServer, kernel: Kernel, served: Served) -> None:
    uri = served.daemon.uriFor("thing")
    ns.daemon.nameserver.register("shop.thing", uri)
    for text in ("PYRONAME:shop.thing", f"PYRONAME:shop.thing@127.0.0.1:{ns.port}", "PYRONAME:shop.thing@localhost"):
        assert resolve(text, kernel=kernel) == uri
        assert kernel.resolve(text) == uri
        with Proxy(text, kernel=kernel) as proxy:
            assert proxy.name() == "thing"
    assert resolve(uri, kernel=kernel) == uri
    with pytest.raises(NamingError, match="unknown name: nobody"):
        resolve("PYRONAME:nobody", kernel=kernel)
    with pytest.raises(TypeError):
        resolve(5, kernel=kernel)  # type: ignore[arg-type]


def test_names_may_stand_for_names(ns: RunningNameServer, kernel: Kernel) -> None:
    register = ns.daemon.nameserver.register
    register("new", "PYRO:obj@localhost:5")
    register("old", "PYRONAME:new")
    register("tagged", "PYROMETA:new")
    register("newest", "PYRO:obj@localhost:6", metadata=["new"])
    assert resolve("PYRONAME:old", kernel=kernel) == URI("PYRO:obj@localhost:5")
    assert resolve("PYRONAME:tagged", kernel=kernel) == URI("PYRO:obj@localhost:6")
    register("a", "PYRONAME:b")
    register("b", "PYRONAME:a")
    with pytest.raises(NamingError, match="PYRONAME:a -> PYRONAME:b -> PYRONAME:a"):
        resolve("PYRONAME:a", kernel=kernel)


def test_one_connection_is_used_again_and_released_with_the_kernel(ns: RunningNameServer, kernel: Kernel) -> None:
    ns.daemon.nameserver.register("thing", "PYRO:thing@localhost:5")
    seen = set()
    ns.daemon.validateHandshake = lambda conn, data: seen.add(conn)  # type: ignore[method-assign]
    threads = [threading.Thread(target=resolve, args=("PYRONAME:thing",), kwargs={"kernel": kernel}) for _ in range(8)]
    resolve("PYRONAME:thing", kernel=kernel)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 1


def test_a_name_server_that_moved_is_found_again(
    run_ns: Callable[..., RunningNameServer], new_kernel: MakeKernel
) -> None:
    with RunningNameServer() as first:
        kernel = new_kernel(NS_PORT=first.port, NS_HOST="127.0.0.1")
        first.daemon.nameserver.register("thing", "PYRO:thing@localhost:5")
        assert resolve("PYRONAME:thing", kernel=kernel).port == 5
    with pytest.raises(NamingError, match="failed to locate"):
        resolve("PYRONAME:thing", kernel=kernel)
    second = run_ns()
    second.daemon.nameserver.register("thing", "PYRO:thing@localhost:6")
    kernel.settings.NS_PORT = second.port
    assert resolve("PYRONAME:thing", kernel=kernel).port == 6


def test_a_restarted_server_with_another_port_is_found_by_its_proxy(ns: RunningNameServer, kernel: Kernel) -> None:
    for bind in (False, True):
        with Served("tcp4") as served:
            served.publish(Thing("first"))
            ns.daemon.nameserver.register("thing", served.daemon.uriFor("thing"))
            proxy = Proxy("PYRONAME:thing", kernel=kernel)
            if bind:
                proxy._pyroBind()
                assert proxy._pyroUri.protocol == "PYRO"
            assert proxy.name() == "first"
        with Served("tcp4") as served, proxy:
            served.publish(Thing("second"))
            ns.daemon.nameserver.register("thing", served.daemon.uriFor("thing"))
            with pytest.raises(CommunicationError):
                proxy.name()
            assert proxy.name() == "second"
            proxy._pyroReconnect(1)
            assert proxy.name() == "second"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_asks_on_a_connection_of_its_own(ns: RunningNameServer, kernel: Kernel) -> None:
    ns.daemon.nameserver.register("thing", "PYRO:thing@localhost:5")
    resolve("PYRONAME:thing", kernel=kernel)
    seen = []
    ns.daemon.validateHandshake = lambda conn, data: seen.append(conn)  # type: ignore[method-assign]
    child = os.fork()
    if not child:
        try:
            os._exit(resolve("PYRONAME:thing", kernel=kernel).port or 1)
        finally:
            os._exit(99)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 5
    assert len(seen) == 1


# ----------------------------------------------------------------------------- tags
@pytest.mark.feature("F272")
@pytest.mark.feature("F273")
def test_objects_are_found_by_their_tags(ns: RunningNameServer, kernel: Kernel) -> None:
    register = ns.daemon.nameserver.register
    register("one", "PYRO:one@localhost:1", metadata=["printer", "a4"])
    register("two", "PYRO:two@localhost:2", metadata=["printer", "a4", "colour"])
    register("three", "PYRO:three@localhost:3", metadata=["a4"])
    found = {resolve("PYROMETA:printer,a4", kernel=kernel).object for _ in range(60)}
    assert found == {"one", "two"}
    assert resolve("PYROMETA:colour", kernel=kernel).object == "two"
    assert resolve(f"PYROMETA:colour@127.0.0.1:{ns.port}", kernel=make_kernel()).object == "two"
    with pytest.raises(NamingError, match="nothing is registered that has all of the tags a3, printer"):
        resolve("PYROMETA:printer,a3", kernel=kernel)


@pytest.mark.feature("F272")
def test_policies_choose_among_several(ns: RunningNameServer, kernel: Kernel, served: Served) -> None:
    register = ns.daemon.nameserver.register
    for number in range(1, 5):
        register(f"gone{number}", f"PYRO:thing@127.0.0.1:{free_port()}", metadata=["thing"])
    register("there", served.daemon.uriFor("thing"), metadata=["thing"])
    turns = [str(resolve("PYROMETA:thing", policy="round_robin", kernel=kernel)) for _ in range(10)]
    assert turns[:5] == turns[5:]
    assert len(set(turns)) == 5
    for _ in range(5):
        assert resolve("PYROMETA:thing", policy="first", kernel=kernel) == served.daemon.uriFor("thing")
    kernel.settings.NS_POLICY = "first"
    with Proxy("PYROMETA:thing", kernel=kernel) as proxy:
        assert proxy.name() == "thing"
    ns.daemon.nameserver.remove("there")
    with pytest.raises(NamingError, match=r"none of 4 objects answers: .*refused"):
        resolve("PYROMETA:thing", kernel=kernel)
    kernel.settings.NS_POLICY = "rundom"
    with pytest.raises(ConfigError, match=r"no policy 'rundom' \(did you mean 'random'\?\).*round_robin"):
        resolve("PYROMETA:thing", kernel=kernel)


def test_round_robin_forgets_questions_when_there_are_too_many() -> None:
    turn = RoundRobin()
    uris = [URI(f"PYRO:x@localhost:{port}") for port in (1, 2)]
    for number in range(3000):
        assert turn(str(number), uris, make_kernel) in uris  # type: ignore[arg-type]
    assert len(turn._turns) <= 1000
    assert any_of("x", uris, make_kernel) in uris  # type: ignore[arg-type]


def test_first_to_answer_does_not_wait_for_the_silent(new_kernel: MakeKernel, served: Served) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uris = [URI(f"PYRO:thing@127.0.0.1:{silent.getsockname()[1]}"), served.daemon.uriFor("thing")]
        kernel = new_kernel(NS_TIMEOUT=0.4)
        assert first_to_answer("x", uris, kernel) == uris[1]
        with pytest.raises(NamingError, match="none of 1"):
            first_to_answer("x", uris[:1], kernel)


@pytest.mark.feature("F274")
def test_type_meta() -> None:
    class Base:
        pass

    class Derived(Base):
        pass

    expected = {f"class:{cls.__module__}.{cls.__name__}" for cls in (Base, Derived)}
    assert type_meta(Derived) == type_meta(Derived()) == expected
    assert type_meta(Derived(), prefix="k:") == {name.replace("class:", "k:") for name in expected}
    assert type_meta(5) == set()
    from Pyro5.api import type_meta as pyros

    assert pyros(Derived) == type_meta(Derived)


# ----------------------------------------------------------------------------- waiting
@pytest.mark.feature("F278")
def test_a_name_is_waited_for(ns: RunningNameServer, kernel: Kernel) -> None:
    with pytest.raises(NamingError, match="unknown name: late"):
        resolve("PYRONAME:late", kernel=kernel)
    begun = threading.Event()
    lookup = ns.daemon.nameserver.lookup

    def register() -> None:
        begun.wait(PATIENCE)
        ns.daemon.nameserver.register("late", "PYRO:late@localhost:5", metadata=["later"])

    thread = threading.Thread(target=register)
    thread.start()
    try:
        kernel.stash[SERVERS].ask(None, None, lambda ns: begun.set())
        assert resolve("PYRONAME:late", PATIENCE, kernel=kernel).port == 5
    finally:
        begun.set()
        thread.join()
    kernel.settings.NS_LOOKUP_DELAY = PATIENCE
    timer = threading.Timer(0.1, lambda: ns.daemon.nameserver.register("l2", "PYRO:l@localhost:6", metadata=["t2"]))
    timer.start()
    assert kernel.resolve("PYROMETA:t2").port == 6
    timer.join()
    assert lookup("l2").port == 6


@pytest.mark.feature("F278")
@pytest.mark.feature("F305")
def test_a_program_waits_for_a_name_that_another_one_registers(ns: RunningNameServer) -> None:
    program = (
        "from pyroplug.api import resolve; print('go', flush=True); print(resolve('PYRONAME:late', delay_time=60))"
    )
    environ = {**os.environ, "PYRO_NS_HOST": "127.0.0.1", "PYRO_NS_PORT": str(ns.port)}
    with subprocess.Popen([sys.executable, "-c", program], env=environ, stdout=subprocess.PIPE, text=True) as waiting:
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == "go\n"
        ns.daemon.nameserver.register("late", "PYRO:late@localhost:5")
        assert waiting.stdout.read() == "PYRO:late@localhost:5\n"


@pytest.mark.feature("F278")
def test_waiting_ends(kernel: Kernel) -> None:
    begin = time.monotonic()
    with pytest.raises(NamingError, match="unknown name: never"):
        resolve("PYRONAME:never", 0.5, kernel=kernel)
    assert 0.5 <= time.monotonic() - begin < scaled(3)


def test_a_name_server_that_is_not_up_yet_is_waited_for(new_kernel: MakeKernel) -> None:
    port = free_port()
    kernel = new_kernel(NS_HOST="127.0.0.1", NS_PORT=port)
    started = []

    def start() -> None:
        started.append(RunningNameServer(port=port))
        started[0].daemon.nameserver.register("thing", "PYRO:thing@localhost:5")

    timer = threading.Timer(0.2, start)
    timer.start()
    try:
        assert resolve("PYRONAME:thing", PATIENCE, kernel=kernel).port == 5
    finally:
        timer.join()
        for ns in started:
            ns.stop()


# ----------------------------------------------------------------------------- nobody there (scenario 59)
@pytest.fixture(params=["refused", "silent", "silent datagrams", "slow host names", "far away"])
def nobody(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    """Settings that lead to no name server."""
    kind = request.param
    if kind == "refused":
        yield {"NS_HOST": "localhost", "NS_PORT": free_port()}
    elif kind == "silent":
        with socket.create_server(("127.0.0.1", 0)) as server:
            yield {"NS_HOST": "127.0.0.1", "NS_PORT": server.getsockname()[1]}
    elif kind == "silent datagrams":
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind(("127.0.0.1", 0))
            port = server.getsockname()[1]
            yield {"NS_BROADCAST": True, "NS_BCPORT": port, "BROADCAST_ADDRS": ["127.0.0.1"], "NS_PORT": free_port()}
    elif kind == "slow host names":
        let_go = threading.Event()
        look_up = socket.getaddrinfo

        def slow(host: object, *args: object, **kwargs: object) -> object:
            if host == "slow.example":
                let_go.wait(PATIENCE)
                raise socket.gaierror(socket.EAI_NONAME, "nobody knows")
            return look_up(host, *args, **kwargs)  # type: ignore[arg-type]

        monkeypatch.setattr(socket, "getaddrinfo", slow)
        yield {"NS_HOST": "slow.example"}
        let_go.set()
    else:
        yield {"NS_HOST": "192.0.2.1"}  # reserved: nobody has this address


@pytest.mark.parametrize("version", [0, 4, 6])
def test_scenario_59_without_a_name_server_every_lookup_ends_in_time(
    nobody: dict[str, object], version: int, new_kernel: MakeKernel
) -> None:
    """IPv4 only, IPv6 only, both; whatever way there is to get no answer."""
    seconds = 0.6
    kernel = new_kernel(PREFER_IP_VERSION=version, NS_TIMEOUT=seconds, **nobody)
    for attempt in (lambda: locate_ns(kernel=kernel), lambda: kernel.resolve("PYRONAME:thing")):
        begin = time.monotonic()
        with pytest.raises(NamingError, match="failed to locate the name server") as caught:
            attempt()
        assert time.monotonic() - begin < seconds + scaled(2)
        assert str(nobody.get("NS_HOST", "localhost")) in str(caught.value)
        assert "broadcast: " in str(caught.value)
    host = str(nobody.get("NS_HOST", "localhost"))
    begin = time.monotonic()
    with pytest.raises(NamingError, match=f"failed to locate the name server at {host}"):
        locate_ns(host, kernel=kernel)
    assert time.monotonic() - begin < seconds + scaled(2)


def test_the_error_says_what_was_tried_and_what_is_off(new_kernel: MakeKernel) -> None:
    port = free_port()
    kernel = new_kernel(NS_PORT=port, NS_HOST="localhost", environ={"PYRO_DISABLE_PLUGINS": "naming_urifile"})
    with pytest.raises(NamingError) as caught:
        locate_ns(kernel=kernel)
    text = str(caught.value)
    assert f"this machine: cannot connect to localhost:{port}: 127.0.0.1:{port} connection refused" in text
    assert "NS_BROADCAST=1" in text
    assert "off: plugin naming_" in text
    assert "naming_urifile" in text


def test_a_name_server_that_hangs_later_costs_one_timeout(
    ns: RunningNameServer, new_kernel: MakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = new_kernel(NS_HOST="127.0.0.1", NS_PORT=ns.port, NS_TIMEOUT=0.4)
    ns.daemon.nameserver.register("thing", "PYRO:thing@localhost:5")
    kernel.resolve("PYRONAME:thing")
    let_go = threading.Event()
    monkeypatch.setattr(type(ns.daemon.nameserver), "_fresh", lambda self: let_go.wait(PATIENCE))
    begin = time.monotonic()
    with pytest.raises(CommunicationError):
        kernel.resolve("PYRONAME:thing")
    assert time.monotonic() - begin < 0.4 + scaled(2)
    let_go.set()
    monkeypatch.undo()
    assert kernel.resolve("PYRONAME:thing").port == 5


# ----------------------------------------------------------------------------- plugins that are off
def test_without_the_plugin_its_name_is_told() -> None:
    kernel = make_kernel(environ={"PYRO_DISABLE_PLUGINS": "naming"})
    with pytest.raises(PluginError, match="needs the plugin 'naming', which is off"):
        locate_ns(kernel=kernel)
    with Daemon(memory=True, kernel=kernel) as daemon:
        for attempt in (lambda: daemon.publish(Thing(), "x"), lambda: daemon.unpublish("x")):
            with pytest.raises(PluginError, match="plugin 'naming'"):
                attempt()
    with pytest.raises(PyroError, match="no plugin that is loaded resolves PYRONAME"):
        kernel.resolve("PYRONAME:x")
    assert NAMING not in kernel.stash


def test_broadcasting_needs_its_plugin() -> None:
    kernel = make_kernel(environ={"PYRO_DISABLE_PLUGINS": "naming_broadcast"})
    with pytest.raises(PluginError, match="needs the plugin 'naming_broadcast'"):
        locate_ns(broadcast=True, kernel=kernel)


@pytest.mark.feature("F305")
def test_the_names_of_pyro5s_api_are_there() -> None:
    import Pyro5.api

    for name in ("locate_ns", "resolve", "type_meta", "start_ns", "start_ns_loop"):
        assert hasattr(Pyro5.api, name)
        assert callable(getattr(api, name))
    missing = {name for name in Pyro5.api.__all__ if not hasattr(api, name)}
    assert missing == set()
