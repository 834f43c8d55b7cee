"""Name servers found by broadcast: Pyro's datagrams, signed answers, and who is not listened to."""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyroplug.api import URI, BroadcastServer, ConfigError, Daemon, NamingError, PluginError, locate_ns
from pyroplug.core.kernel import Kernel
from pyroplug.testing.kernels import make_kernel
from testkit.timeouts import PATIENCE

from .conftest import RunningNameServer

MakeKernel = Callable[..., Kernel]
RunNs = Callable[..., RunningNameServer]


@contextlib.contextmanager
def answering(uri: URI | str, host: str = "127.0.0.1", port: int = 0, **settings: Any) -> Iterator[BroadcastServer]:
    """A responder in a thread."""
    with BroadcastServer(uri, host, port, kernel=make_kernel(**settings)) as responder:
        responder.runInThread()
        yield responder


def asking(new_kernel: MakeKernel, port: int, *hosts: str, **settings: Any) -> Kernel:
    """A kernel that asks these hosts only."""
    values = {"NS_BROADCAST": True, "NS_BCPORT": port, "BROADCAST_ADDRS": list(hosts or ("127.0.0.1",)), "NS_PORT": 1}
    return new_kernel(**{**values, **settings})


def ask(port: int, question: bytes = b"GET_NSURI", seconds: float = PATIENCE) -> bytes | None:
    """What a responder answers to one datagram."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(seconds)
        sock.sendto(question, ("127.0.0.1", port))
        try:
            return sock.recv(1000)
        except TimeoutError:
            return None


# ----------------------------------------------------------------------------- finding
@pytest.mark.feature("F181")
def test_a_name_server_is_found_by_asking(ns: RunningNameServer, new_kernel: MakeKernel) -> None:
    with answering(ns.uri) as responder:
        kernel = asking(new_kernel, responder.getPort())
        with locate_ns(kernel=kernel) as found:
            assert found.count() == 1
            assert found._pyroUri == ns.uri
        with locate_ns(port=responder.getPort(), broadcast=True, kernel=asking(new_kernel, 9)) as found:
            found.ping()  # a port without a host is, as in Pyro, also the one for broadcasts
        ns.daemon.nameserver.register("thing", "PYRO:thing@localhost:5")
        assert kernel.resolve("PYRONAME:thing").port == 5


@pytest.mark.feature("F181")
@pytest.mark.feature("F183")
def test_a_real_broadcast_is_answered(ns: RunningNameServer, new_kernel: MakeKernel) -> None:
    with (
        answering(ns.uri, "") as responder,
        locate_ns(kernel=asking(new_kernel, responder.getPort(), "127.255.255.255")) as found,
    ):
        found.ping()


def test_nobody_is_asked_unless_wanted(ns: RunningNameServer, new_kernel: MakeKernel) -> None:
    """Whoever answers could be anybody."""
    with answering(ns.uri) as responder:
        port = responder.getPort()
        with pytest.raises(NamingError, match=r"broadcast: not asked \(NS_BROADCAST=1 asks everybody"):
            locate_ns(kernel=asking(new_kernel, port, NS_BROADCAST=None))
        with pytest.raises(NamingError) as caught:
            locate_ns(broadcast=False, kernel=asking(new_kernel, port))
        assert "broadcast" not in str(caught.value)
        with pytest.raises(NamingError, match="IPv6 has no broadcasts"):
            locate_ns(kernel=asking(new_kernel, port, PREFER_IP_VERSION=6))
        with locate_ns(broadcast=True, kernel=asking(new_kernel, port, NS_BROADCAST=False)) as found:
            found.ping()


def test_the_error_tells_who_was_asked_and_who_could_not_be(new_kernel: MakeKernel) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        with pytest.raises(NamingError, match=rf"no answer from 127\.0\.0\.1 \(UDP port {port}\), no\.such\.host"):
            locate_ns(kernel=asking(new_kernel, port, "127.0.0.1", "no.such.host.invalid", NS_TIMEOUT=0.3))
        silent.settimeout(PATIENCE)
        assert silent.recv(100) == b"GET_NSURI"
    with pytest.raises(NamingError, match="nobody was asked"):
        locate_ns(kernel=asking(new_kernel, port, BROADCAST_ADDRS=[]))


def test_an_answer_that_leads_nowhere_is_no_name_server(new_kernel: MakeKernel) -> None:
    answers = {
        "PYRO:Pyro.NameServer@127.0.0.1:1": r"127\.0\.0\.1:1 answered, but: .*refused",
        "PYRONAME:x": "nowhere to connect to",
    }
    for uri, complaint in answers.items():
        with answering(uri) as responder, pytest.raises(NamingError, match=complaint):
            locate_ns(kernel=asking(new_kernel, responder.getPort(), NS_TIMEOUT=0.3))


# ----------------------------------------------------------------------------- several (scenario 61)
@pytest.fixture
def two(run_ns: RunNs) -> Iterator[tuple[RunningNameServer, RunningNameServer, int]]:
    """Two name servers that answer on the same port of different addresses, and the port."""
    first, second = run_ns(), run_ns()
    with answering(first.uri) as one, answering(second.uri, "127.0.0.2", one.getPort()):
        yield first, second, one.getPort()


def test_scenario_61_of_two_name_servers_none_is_taken_by_luck(
    two: tuple[RunningNameServer, RunningNameServer, int], new_kernel: MakeKernel
) -> None:
    first, second, port = two
    kernel = asking(new_kernel, port, "127.0.0.1", "127.0.0.2")
    for attempt in (lambda: locate_ns(kernel=kernel), lambda: kernel.resolve("PYRONAME:x")):
        with pytest.raises(NamingError, match=r"2 name servers answered \(broadcast\)") as caught:
            attempt()
        for hint in (
            first.uri.location,
            second.uri.location,
            "NS_HOST",
            "PYRONAME:name@host:port",
            "NS_DISCOVERY=first",
        ):
            assert hint in str(caught.value)
    # the ways to choose
    with locate_ns(kernel=asking(new_kernel, port, "127.0.0.1", "127.0.0.2", NS_DISCOVERY="first")) as found:
        assert found._pyroUri in (first.uri, second.uri)
    with locate_ns(kernel=asking(new_kernel, port, "127.0.0.1", "127.0.0.2", NS_PORT=second.port)) as found:
        assert found._pyroUri.port == second.port
    second.daemon.nameserver.register("x", "PYRO:x@localhost:5")
    assert kernel.resolve(f"PYRONAME:x@{second.uri.location}").port == 5


def test_one_name_server_that_answers_twice_is_one(ns: RunningNameServer, new_kernel: MakeKernel) -> None:
    other_text = f"PYRO:Pyro.NameServer@localhost:{ns.port}"
    with answering(ns.uri) as one, answering(other_text, "127.0.0.2", one.getPort()):
        found = locate_ns(kernel=asking(new_kernel, one.getPort(), "127.0.0.1", "127.0.0.2"))
    found._pyroRelease()


def test_one_of_two_that_is_gone_does_not_count(ns: RunningNameServer, new_kernel: MakeKernel) -> None:
    with answering(ns.uri) as one, answering("PYRO:Pyro.NameServer@127.0.0.1:1", "127.0.0.2", one.getPort()):
        for discovery in ("unique", "first"):
            kernel = asking(new_kernel, one.getPort(), "127.0.0.2", "127.0.0.1", NS_DISCOVERY=discovery)
            if discovery == "first":
                with contextlib.suppress(NamingError), locate_ns(kernel=kernel) as found:
                    assert found._pyroUri == ns.uri
            else:
                with locate_ns(kernel=kernel) as found:
                    assert found._pyroUri == ns.uri


# ----------------------------------------------------------------------------- signed answers
KEY = "correct horse battery staple"


def test_signed_answers_are_asked_for_and_used(ns: RunningNameServer, new_kernel: MakeKernel, tmp_path: Path) -> None:
    """A key is enough: nobody who does not have it can answer."""
    path = tmp_path / "key"
    path.write_text(KEY + "\n")
    with answering(ns.uri, NS_BCKEY_FILE=str(path)) as responder:
        kernel = asking(new_kernel, responder.getPort(), NS_BROADCAST=None, NS_BCKEY=KEY)
        with locate_ns(kernel=kernel) as found:
            assert found._pyroUri == ns.uri
        assert ask(responder.getPort()) == str(ns.uri).encode(), "clients of Pyro5 are answered as ever"


def test_a_spoofed_answer_is_never_used(
    ns: RunningNameServer, new_kernel: MakeKernel, caplog: pytest.LogCaptureFixture
) -> None:
    """Not a plain one, not one signed with another key, not one signed for somebody else's question."""
    questions = []
    real = str(ns.uri).encode()
    with answering(ns.uri, NS_BCKEY=KEY) as responder:
        old = ask(responder.getPort(), b"GET_NSURI_SIGNED " + b"0" * 32)
    assert old is not None
    assert old.endswith(real)
    answers = {
        "not signed": real,
        "another key": b"NSURI_SIGNED " + b"0" * 64 + b" " + real,
        "signed with another key": old,
    }
    for why, answer in answers.items():
        caplog.clear()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as spoofer:
            spoofer.bind(("127.0.0.1", 0))
            spoofer.settimeout(PATIENCE)

            def reply(spoofer: socket.socket = spoofer, answer: bytes = answer) -> None:
                question, asker = spoofer.recvfrom(1000)
                questions.append(question)
                spoofer.sendto(answer, asker)

            thread = threading.Thread(target=reply)
            thread.start()
            kernel = asking(new_kernel, spoofer.getsockname()[1], NS_BCKEY=KEY, NS_TIMEOUT=0.4)
            with pytest.raises(NamingError, match=rf"127\.0\.0\.1 was not listened to: .*{why}"):
                locate_ns(kernel=kernel)
            thread.join()
        assert "answer from 127.0.0.1 ignored" in caplog.text
    assert len({question for question in questions if question.startswith(b"GET_NSURI_SIGNED ")}) == 3
    assert KEY.encode() not in b"".join(questions)


def test_a_key_that_cannot_be_had_is_an_error_at_once(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    with pytest.raises(ConfigError, match=r"NS_BCKEY_FILE: .*cannot be read: No such file"):
        make_kernel(NS_BCKEY_FILE=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"NS_BCKEY_FILE: .*is empty"):
        make_kernel(NS_BCKEY_FILE=str(empty))
    assert KEY not in make_kernel(NS_BCKEY=KEY).settings.dump()


# ----------------------------------------------------------------------------- answering
@pytest.mark.feature("F164")
@pytest.mark.feature("F182")
def test_a_name_server_on_every_interface_answers_with_the_one_that_reaches_the_asker(
    run_ns: RunNs, new_kernel: MakeKernel
) -> None:
    ns = run_ns("0.0.0.0", bchost="127.0.0.1", bcport=0)
    assert ns.responder is not None
    port = int(ns.responder.locationStr.rpartition(":")[2])
    ns.responder.runInThread()
    assert ask(port) == f"PYRO:Pyro.NameServer@127.0.0.1:{ns.port}".encode()
    with locate_ns(kernel=asking(new_kernel, port)) as found:
        assert found.count() == 1


@pytest.mark.feature("F169")
@pytest.mark.feature("F190")
def test_behind_nat_the_internal_address_is_answered(run_ns: RunNs) -> None:
    ns = run_ns("0.0.0.0", bchost="127.0.0.1", bcport=0, nathost="outside.example", natport=1234)
    assert str(ns.uri) == "PYRO:Pyro.NameServer@outside.example:1234"
    assert ns.daemon.nameserver.list()["Pyro.NameServer"] == str(ns.uri)
    assert ns.responder is not None
    ns.responder.runInThread()
    answer = ask(int(ns.responder.locationStr.rpartition(":")[2]))
    assert answer == f"PYRO:Pyro.NameServer@127.0.0.1:{ns.port}".encode()


def test_whoever_cannot_be_reached_does_not_answer(run_ns: RunNs, tmp_path: Path) -> None:
    assert run_ns("127.0.0.1", bcport=0).responder is None
    assert run_ns("localhost", bcport=0).responder is None
    assert run_ns(None, None, unixsocket=str(tmp_path / "s"), bcport=0).responder is None
    assert run_ns("0.0.0.0", enableBroadcast=False).responder is None
    assert run_ns("0.0.0.0", bcport=0, bchost="127.0.0.1").responder is not None


def test_what_is_no_question_gets_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    with answering("PYRO:Pyro.NameServer@localhost:9090") as responder:
        for noise in (b"", b"GET_NSURI ", b"get_nsuri", b"\0" * 200, b"GET_NSURI_SIGNED x"):
            assert ask(responder.getPort(), noise, 0.05) is None
        # (the location is printed as it is registered)
        assert ask(responder.getPort()) == b"PYRO:Pyro.NameServer@localhost:9090"
    with answering("PYRO:Pyro.NameServer@" + "x" * 100 + ":9090"):
        assert "too long for broadcasts" in caplog.text


@pytest.mark.feature("F280")
def test_a_responder_is_run_in_any_of_four_ways() -> None:
    uri = "PYRO:Pyro.NameServer@localhost:5"
    kernel = make_kernel(NS_BCHOST="127.0.0.1", NS_BCPORT=0)
    with BroadcastServer(uri, kernel=kernel) as responder:
        assert responder.locationStr == f"127.0.0.1:{responder.getPort()}"
        # by hand, when its socket is ready
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, selectors.DefaultSelector() as selector:
            sock.settimeout(PATIENCE)
            selector.register(responder, selectors.EVENT_READ)
            sock.sendto(b"GET_NSURI", ("127.0.0.1", responder.getPort()))
            assert selector.select(PATIENCE)
            responder.processRequest()
            assert sock.recv(100) == uri.encode()
        # in a thread
        thread = responder.runInThread()
        assert ask(responder.getPort()) == uri.encode()
    assert not thread.is_alive()
    # in the loop of a daemon, or several
    with BroadcastServer(uri, kernel=kernel) as responder, Daemon(kernel=make_kernel(SERVERTYPE="multiplex")) as daemon:
        daemon.combine(responder)
        thread = threading.Thread(target=daemon.requestLoop)
        thread.start()
        assert ask(responder.getPort()) == uri.encode()
        daemon.shutdown()
        thread.join()


def test_a_port_that_is_taken_is_told() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=rf"cannot listen for broadcasts on 127\.0\.0\.1 UDP port {port}: Address"):
            BroadcastServer("PYRO:x@localhost:5", "127.0.0.1", port, kernel=make_kernel())


def test_without_its_plugin() -> None:
    kernel = make_kernel(environ={"PYRO_DISABLE_PLUGINS": "naming_broadcast"})
    with pytest.raises(PluginError, match="naming_broadcast"):
        BroadcastServer("PYRO:x@localhost:5", kernel=kernel)


# ----------------------------------------------------------------------------- Pyro5
@pytest.mark.interop
@pytest.mark.feature("F181")
def test_pyro5_finds_ours_and_ours_finds_pyro5(ns: RunningNameServer, new_kernel: MakeKernel) -> None:
    import Pyro5.core
    import Pyro5.nameserver

    config: Any = Pyro5.config
    with answering(ns.uri) as responder:
        config.NS_HOST, config.NS_BCPORT, config.BROADCAST_ADDRS = "nowhere.invalid", responder.getPort(), ["127.0.0.1"]
        try:
            with Pyro5.core.locate_ns() as found:
                assert str(found.lookup("Pyro.NameServer")) == str(ns.uri)
        finally:
            config.reset()
    pyros = Pyro5.nameserver.BroadcastServer(Pyro5.core.URI(str(ns.uri)), "127.0.0.1", 0)
    thread = pyros.runInThread()
    try:
        with locate_ns(kernel=asking(new_kernel, pyros.getPort())) as ours:
            assert ours._pyroUri == ns.uri
    finally:
        pyros.close()
        thread.join(PATIENCE)


def test_the_log_is_quiet_when_all_is_well(ns: RunningNameServer, new_kernel: MakeKernel, caplog: Any) -> None:
    caplog.set_level(logging.WARNING)
    with answering(ns.uri) as responder, locate_ns(kernel=asking(new_kernel, responder.getPort())) as found:
        found.ping()
    assert not caplog.records
