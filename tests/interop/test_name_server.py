"""Name servers of Pyro5 and ours, asked by both: whoever asks whom, the answers are the same.

What is compared with is what Pyro5 answers to Pyro5.  Everything is a process of its own.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from testkit.timeouts import scaled

pytestmark = [pytest.mark.interop, pytest.mark.needs("naming_tools"), pytest.mark.xdist_group("interop-naming")]

PEERS = Path(__file__).parent / "peers"
THEIRS, OURS = "Pyro5.api", "pyroplug.api"
APIS = (THEIRS, OURS)
SERIALIZERS = ("serpent", "json", "msgpack")
NAME_SERVERS: Mapping[str, tuple[str, ...]] = {
    THEIRS: ("-m", "Pyro5.nameserver"),
    OURS: ("-m", "pyroplug", "ns"),
}
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("PYRO_")}
LIMIT = scaled(30)


@dataclass(frozen=True)
class Running:
    """A process that serves, and what it has said."""

    process: subprocess.Popen[str]
    said: str

    def find(self, pattern: str) -> str:
        found = re.search(pattern, self.said)
        assert found, self.said
        return found[1]


@dataclass(frozen=True)
class NameServer:
    """A name server that runs: what clients are given to find it, and how it calls itself."""

    host: str
    port: str
    uri: str
    responder: str = ""
    """The port for broadcasts."""


@contextmanager
def running(ready: str, *arguments: str, **environment: str) -> Iterator[Running]:
    """A Python program, from the line that matches ``ready`` on; it is ended by the end of its input, or by force."""
    process = subprocess.Popen(
        [sys.executable, "-u", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**CLEAN, **environment},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    guard = threading.Timer(LIMIT, process.kill)  # it is ready in time, or it ends
    guard.start()
    try:
        said = ""
        for line in process.stdout:
            said += line
            if re.search(ready, line):
                break
        else:
            pytest.fail(f"{arguments} ended before it was ready:\n{said}")
        guard.cancel()
        yield Running(process, said)
        process.stdin.close()
        if "-m" in arguments:
            process.terminate()
        process.wait(LIMIT)
    finally:
        guard.cancel()
        guard.join()
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


@contextmanager
def name_server(api: str, *options: str, **environment: str) -> Iterator[NameServer]:
    """A name server of Pyro5 or ours, started by the command for that."""
    storage = () if "-s" in options else ("-s", "memory")
    with running(r"^URI = |^name server running", *NAME_SERVERS[api], *options, *storage, **environment) as found:
        uri = found.find(r"URI *[=:] *(PYRO:\S+)")
        location = uri.partition("@")[2]
        bc = re.search(r"[Bb]roadcast.* on \S+:(\d+)", found.said)
        host, _, port = (location, "", "") if location.startswith("./") else location.rpartition(":")
        yield NameServer(host, port, uri, bc[1] if bc else "")


def ask(api: str, serializer: str, host: str, port: str, **environment: str) -> dict[str, Any]:
    """All that a client has to ask; where the name server is, is left out of the answers."""
    done = subprocess.run(
        [sys.executable, str(PEERS / "naming_client.py"), api, serializer, host, port],
        capture_output=True,
        text=True,
        env={**CLEAN, **environment},
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers


def anywhere(answers: dict[str, Any]) -> dict[str, Any]:
    """The answers without where the name server is."""
    return {name: answer for name, answer in answers.items() if name not in ("located", "resolve")}


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, NameServer]]:
    """A name server of each kind; in each, the object ``demo`` is registered, of a server of the other kind."""
    with ExitStack() as stack:
        found = {}
        for api, other in zip(APIS, reversed(APIS), strict=True):
            ns = found[api] = stack.enter_context(name_server(api, "-n", "localhost", "-p", "0", "-x"))
            server = (str(PEERS / "naming_server.py"), other, "serpent", ns.host, ns.port)
            stack.enter_context(running("PYRO:", *server))
        yield found


@pytest.fixture(scope="module")
def reference(servers: Mapping[str, NameServer]) -> dict[str, Any]:
    """What Pyro5 answers to Pyro5."""
    ns = servers[THEIRS]
    return anywhere(ask(THEIRS, "serpent", ns.host, ns.port))


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize(("client", "server"), [(THEIRS, OURS), (OURS, THEIRS), (OURS, OURS)])
@pytest.mark.feature("F012", "F013", "F018", "F176", "F177", "F178", "F272", "F273", "F275", "F279")
def test_whoever_asks_whom_gets_the_same_answers(
    client: str, server: str, serializer: str, servers: Mapping[str, NameServer], reference: dict[str, Any]
) -> None:
    ns = servers[server]
    answers = ask(client, serializer, ns.host, ns.port)
    assert answers["located"] == answers["resolve"] == ns.uri
    assert anywhere(answers) == reference
    assert answers["PYRONAME:demo"] == answers["PYROMETA:class,demo"] == [1, "two", 3.5]


@pytest.mark.parametrize(
    ("client", "serializer"), [(THEIRS, "marshal"), (OURS, "marshal"), (OURS, "pickle"), (OURS, "dill")]
)
@pytest.mark.feature("F191")
def test_a_serializer_that_has_to_be_named(client: str, serializer: str, reference: dict[str, Any]) -> None:
    """(Theirs accepts marshal from everybody, and then cannot answer each question with it.)"""
    accepted = {"PYRO_SERIALIZERS_ACCEPTED": f"serpent,{serializer}"}
    with name_server(OURS, "-n", "localhost", "-p", "0", "-x", **accepted) as ns:
        answers = ask(client, serializer, ns.host, ns.port)
        assert anywhere(answers) == {name: answer for name, answer in reference.items() if not name.startswith("PYRO")}
        with pytest.raises(AssertionError, match=r"accepted are: [^)]*serpent"):
            ask(client, "json", ns.host, ns.port)


SERVING = """
import sys
from {api} import expose, serve
@expose
class Demo:
    def echo(self, value): return value
serve({{Demo(): "served"}}, use_ns=True, verbose=True, host="localhost")
"""


@pytest.mark.parametrize(("server", "where"), [(THEIRS, OURS), (OURS, THEIRS), (OURS, OURS)])
@pytest.mark.feature("F177", "F043")
def test_objects_that_are_served_by_name(server: str, where: str, servers: Mapping[str, NameServer]) -> None:
    """``serve`` publishes in the other name server; ours takes the name back when SIGINT ends it."""
    ns = servers[where]
    lookup = ("-n", ns.host, "-p", ns.port, "lookup", "served")
    environment = {"PYRO_NS_HOST": ns.host, "PYRO_NS_PORT": ns.port}
    with running("served: PYRO:|<.*>: PYRO:|PYRO:", "-c", SERVING.format(api=server), **environment) as found:
        uri = found.find(r"(PYRO:\S+@\S+)")
        assert their_nsc(*lookup).startswith(uri)
        if os.name == "posix":
            found.process.send_signal(signal.SIGINT)
        else:
            found.process.kill()
    if server == OURS and os.name == "posix":
        with pytest.raises(AssertionError, match="unknown name: served"):
            their_nsc(*lookup)
    else:
        their_nsc("-n", ns.host, "-p", ns.port, "remove", "served")


# --------------------------------------------------------------------------- the tools
THEIR_COMMANDS = (
    ("ping",),
    ("register", "tool.a", "PYRO:a@localhost:4444"),
    ("register", "tool.b", "PYRO:b@localhost:4444"),
    ("setmeta", "tool.a", "red"),
    ("list", "tool."),
    ("listmatching", r"tool\.[b-z]"),
    ("lookup", "tool.a"),
    ("yplookup_all", "red"),
    ("yplookup_any", "red", "green"),
    ("remove", "tool.a"),
    ("remove", "tool.a"),
    ("removematching", "tool.*"),
    ("list", "tool."),
)


def their_nsc(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "Pyro5.nsc", *arguments],
        input="y\n",
        capture_output=True,
        text=True,
        env=CLEAN,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.feature("F188", "F195", "F205", "F282")
def test_their_nsc_cannot_tell_our_name_server_from_theirs(servers: Mapping[str, NameServer]) -> None:
    said = {
        api: [their_nsc("-n", ns.host, "-p", ns.port, *command) for command in THEIR_COMMANDS]
        for api, ns in servers.items()
    }
    assert said[OURS] == said[THEIRS]
    assert "tool.b --> PYRO:b@localhost:4444" in said[OURS][4]


OUR_COMMANDS = (
    (("register", "tool.a", "PYRO:a@localhost:4444", "red"), 0),
    (("register", "tool.a", "PYRO:a@localhost:4444"), 1),
    (("register", "tool.b", "PYRO:b@localhost:4444"), 0),
    (("lookup", "tool.a"), 0),
    (("lookup", "tool.nobody"), 1),
    (("list", "tool.", "--json"), 0),
    (("listmatching", r"tool\.[b-z]"), 0),
    (("yplookup_all", "red"), 0),
    (("yplookup_any", "red", "green"), 0),
    (("setmeta", "tool.b", "blue"), 0),
    (("showmeta", "tool.b"), 0),
    (("remove", "tool.a"), 0),
    (("remove", "tool.a"), 1),
    (("removematching", "-y", "tool.*"), 0),
    (("list", "tool."), 0),
)


@pytest.mark.feature("F188", "F195", "F205", "F282")
def test_our_nsc_works_the_same_with_both(servers: Mapping[str, NameServer]) -> None:
    from click.testing import CliRunner

    from pyroplug.cli.app import app

    said: dict[str, list[tuple[int, str]]] = {}
    for api, ns in servers.items():
        results = [
            CliRunner().invoke(app, ["nsc", "-n", ns.host, "-p", ns.port, *command]) for command, _ in OUR_COMMANDS
        ]
        said[api] = [(result.exit_code, result.output) for result in results]
    assert said[OURS] == said[THEIRS]
    assert [code for code, _ in said[OURS]] == [code for _, code in OUR_COMMANDS]
    assert said[OURS][3][1] == "PYRO:a@localhost:4444\nmetadata: red\n"


@pytest.mark.feature("F188")
def test_our_view_of_their_name_server(servers: Mapping[str, NameServer]) -> None:
    from click.testing import CliRunner

    from pyroplug.cli.app import app

    ns = servers[THEIRS]
    result = CliRunner().invoke(app, ["nsc", "watch", "--once", "--json", "-n", ns.host, "-p", ns.port])
    assert result.exit_code == 0, result.output
    states = {entry["name"]: entry["state"] for entry in json.loads(result.output)["names"]}
    assert states == {"Pyro.NameServer": "answers", "demo": "answers"}


# --------------------------------------------------------------------------- other places, other ways
@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")
@pytest.mark.feature("F172", "F281")
@pytest.mark.parametrize(("client", "server"), [(THEIRS, OURS), (OURS, THEIRS)])
def test_on_a_unix_socket(client: str, server: str, tmp_path: Path, reference: dict[str, Any]) -> None:
    with name_server(server, "-u", str(tmp_path / "ns")) as ns:
        answers = ask(client, "serpent", ns.host, "")
        listed = their_nsc("-u", str(tmp_path / "ns"), "list")
    if server == THEIRS:
        (tmp_path / "ns").unlink()  # SIGTERM ends it at once, and it leaves the file
    assert answers["located"] == ns.uri == f"PYRO:Pyro.NameServer@./u:{tmp_path / 'ns'}"
    assert anywhere(answers) == {name: answer for name, answer in reference.items() if not name.startswith("PYRO")}
    assert ns.uri in listed


@pytest.mark.feature("F012", "F181", "F182")
@pytest.mark.parametrize(("client", "server"), [(THEIRS, OURS), (OURS, THEIRS), (OURS, OURS)])
def test_found_by_broadcast(client: str, server: str, reference: dict[str, Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        nothing = str(unused.getsockname()[1])
    with name_server(server, "-n", "0.0.0.0", "-p", "0", "--bchost", "127.0.0.1", "--bcport", "0") as ns:
        assert ns.responder
        settings = {
            "PYRO_NS_PORT": nothing,  # nobody is at the place that is tried first
            "PYRO_NS_BCPORT": ns.responder,
            "PYRO_BROADCAST_ADDRS": "127.0.0.1",
            **({"PYRO_NS_BROADCAST": "1"} if client == OURS else {}),  # they ask everybody anyway
        }
        answers = ask(client, "serpent", "", "", **settings)
    assert answers["located"] == f"PYRO:Pyro.NameServer@127.0.0.1:{ns.port}"  # the interface that reaches the client
    assert anywhere(answers) == {name: answer for name, answer in reference.items() if not name.startswith("PYRO")}


@pytest.mark.feature("F012", "F167")
@pytest.mark.parametrize(("client", "server"), [(THEIRS, OURS), (OURS, THEIRS)])
def test_found_where_the_settings_say(client: str, server: str, servers: Mapping[str, NameServer]) -> None:
    ns = servers[server]
    answers = ask(client, "serpent", "", "", PYRO_NS_HOST=ns.host, PYRO_NS_PORT=ns.port)
    assert answers["located"] == ns.uri
    assert answers["PYRONAME:demo"] == [1, "two", 3.5]


@pytest.mark.feature("F189", "F280")
@pytest.mark.parametrize(("client", "server"), [(THEIRS, OURS), (OURS, THEIRS), (OURS, OURS)])
def test_embedded_in_an_event_loop(client: str, server: str, reference: dict[str, Any]) -> None:
    with running("PYRO:", str(PEERS / "naming_embedded.py"), server) as found:
        host, _, port = found.find(r"PYRO:\S+@(\S+)").rpartition(":")
        answers = ask(client, "json", host, port)
    assert anywhere(answers) == {name: answer for name, answer in reference.items() if not name.startswith("PYRO")}


@pytest.mark.feature("F276")
@pytest.mark.parametrize(("first", "second"), [(THEIRS, OURS), (OURS, THEIRS)])
def test_one_goes_on_with_the_file_of_the_other(first: str, second: str, tmp_path: Path) -> None:
    place = ("-n", "localhost", "-p", "0", "-x", "-s", f"sql:{tmp_path / 'names.sqlite'}")
    with name_server(first, *place) as ns:
        for command in (("register", "kept", "PYRO:a@localhost:4444"), ("setmeta", "kept", "red", "round")):
            their_nsc("-n", ns.host, "-p", ns.port, *command)
    with name_server(second, *place) as ns:
        said = their_nsc("-n", ns.host, "-p", ns.port, "lookup", "kept")
    assert said.startswith("PYRO:a@localhost:4444\n")
    assert "red" in said
    assert "round" in said
