"""The commands ``ns`` and ``nsc``: options, output, exit codes, and the live view."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pyroplug.api import Daemon, Kernel, Proxy, expose
from pyroplug.cli.app import app
from pyroplug.plugins.naming.tools import checks
from pyroplug.plugins.naming.tools.checks import Checker
from testkit.timeouts import PATIENCE, scaled

pytestmark = pytest.mark.needs("naming_tools")

COMMAND = (sys.executable, "-m", "pyroplug")
SIGNALS = [signal.SIGINT, signal.SIGTERM]
URI = "PYRO:thing@localhost:4444"
needs_unix = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")
posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")


def environment(**changes: str) -> dict[str, str]:
    mine = {name: value for name, value in os.environ.items() if not name.startswith("PYRO_")}
    return {**mine, "COLUMNS": "200", "PYTHONIOENCODING": "utf-8", **changes}


class NameServer:
    """A process of the command ``ns``, from the moment that it has told where it is."""

    def __init__(self, *options: str, **changes: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "ns", *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**changes),
        )
        assert self.process.stdout is not None
        self.said = ""
        guard = threading.Timer(scaled(30), self.process.kill)  # it starts, or it ends
        guard.start()
        for line in self.process.stdout:
            self.said += line
            if line.rstrip() in ("name server running", "}"):
                break
        guard.cancel()
        guard.join()
        found = re.search(r"PYRO:\S+?@([^\s\"]+)", self.said)
        self.location = found[1] if found else ""
        self.at = ("-u", self.location[4:]) if self.location.startswith("./u:") else self._host_and_port()

    def _host_and_port(self) -> tuple[str, ...]:
        host, _, port = self.location.rpartition(":")
        return ("-n", host, "-p", port)

    def end(self, number: int | None = signal.SIGTERM) -> tuple[int, str]:
        """Its exit code, and what it has said in the end."""
        if number is not None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=scaled(20))
        return self.process.returncode, out + err

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def serving(*options: str, **changes: str) -> Iterator[NameServer]:
    ns = NameServer(*options, **changes)
    try:
        yield ns
    finally:
        ns.close()


def run(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """The real command."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment(**changes),
        capture_output=True,
        encoding="utf-8",
        timeout=scaled(30),
        check=False,
        stdin=subprocess.DEVNULL,
    )


def complaint(text: str) -> str:
    """The one line that there is."""
    assert len(text.splitlines()) == 1, text
    assert text.startswith("pyroplug: ")
    return text


# ============================================================================= nsc
Nsc = Callable[..., Result]


@pytest.fixture(scope="module")
def ns() -> Iterator[NameServer]:
    with serving("-n", "localhost", "-p", "0", "-s", "memory") as found:
        yield found


@pytest.fixture
def nsc(ns: NameServer) -> Iterator[Nsc]:
    """The command ``nsc``, in this process, for a name server that has no names in the beginning."""

    def invoke(*arguments: str, code: int = 0, **options: Any) -> Result:
        result = CliRunner().invoke(app, ["nsc", *ns.at, *arguments], **options)
        assert result.exit_code == code, result.output
        return result

    yield invoke
    invoke("removematching", "-y", ".*")


@pytest.mark.feature("F195", "F282")
def test_names_are_registered_looked_up_and_removed(nsc: Nsc) -> None:
    assert nsc("register", "shop.a", URI, "red", "round").output == "registered shop.a\n"
    assert nsc("lookup", "shop.a").output == f"{URI}\nmetadata: red round\n"
    assert nsc("resolve", "shop.a").output == f"{URI}\nmetadata: red round\n"  # Pyro3's name of it
    assert nsc("showmeta", "shop.a").output == "red\nround\n"
    assert nsc("count").output == "2\n"
    taken = nsc("register", "shop.a", URI + "5", code=1)
    assert complaint(taken.stderr) == "pyroplug: name server: name already registered: shop.a\n"
    nsc("register", "--replace", "shop.a", URI + "5")
    assert nsc("lookup", "shop.a").output == f"{URI}5\n"
    assert nsc("remove", "shop.a").output == "removed shop.a\n"
    assert "shop.a" in nsc("remove", "shop.a", code=1).output
    assert complaint(nsc("lookup", "shop.a", code=1).stderr) == "pyroplug: name server: unknown name: shop.a\n"


@pytest.mark.feature("F195", "F205", "F282")
def test_names_are_listed(nsc: Nsc) -> None:
    for name, tags in {"a.one": ("red",), "a.two": ("red", "round"), "b.one": ()}.items():
        nsc("register", name, URI, *tags)

    def names(*command: str) -> list[str]:
        return [line.split()[0] for line in nsc(*command).output.splitlines()[1:]]

    assert names("list") == ["Pyro.NameServer", "a.one", "a.two", "b.one"]
    assert names("listall", "a.") == ["a.one", "a.two"]
    assert names("listmatching", r".*\.one") == ["a.one", "b.one"]
    assert names("yplookup_all", "red", "round") == ["a.two"]
    assert names("yplookup-any", "round", "green") == ["a.two"]
    assert names("listmeta_all", "red") == ["a.one", "a.two"]
    nsc("setmeta", "b.one", "blue")
    assert names("listmeta_any", "blue") == ["b.one"]
    assert nsc("setmeta", "b.one").output == "metadata of b.one: none\n"
    assert names("yplookup_any", "blue") == []
    assert json.loads(nsc("list", "b", "--json").output) == [{"name": "b.one", "uri": URI, "metadata": []}]


@pytest.mark.feature("F186", "F195", "F282")
def test_the_other_commands_and_json(nsc: Nsc, ns: NameServer) -> None:
    uri = f"PYRO:Pyro.NameServer@{ns.location}"
    assert nsc("ping").output.startswith(f"{uri} answers: time=")
    assert json.loads(nsc("ping", "--json").output)["uri"] == uri
    assert json.loads(nsc("--json", "register", "x", URI, "b", "a").output) == {
        "name": "x",
        "uri": URI,
        "metadata": ["a", "b"],
    }
    assert json.loads(nsc("lookup", "x", "--json").output)["metadata"] == ["a", "b"]
    assert json.loads(nsc("showmeta", "x", "--json").output) == ["a", "b"]
    assert json.loads(nsc("count", "--json").output) == {"count": 2}
    assert json.loads(nsc("remove", "x", "y", "--json", code=1).output) == {"x": True, "y": False}
    status = json.loads(nsc("status", "--json").output)
    assert (status["uri"], status["storage"], status["names"]) == (uri, "memory", 1)
    assert "storage" in nsc("status").output
    refused = complaint(nsc("shutdown", code=1).stderr)
    assert refused.startswith("pyroplug: name server: ")
    assert "shutdown" in refused


@pytest.mark.feature("F282")
def test_many_names_are_removed_after_a_question(nsc: Nsc) -> None:
    for number in range(12):
        nsc("register", f"many.{number:02}", URI)
    asked = nsc("removematching", "many.*", code=1, input="n\n")
    assert "12 names that match 'many.*': many.00, many.01" in asked.stderr
    assert "and 2 more" in asked.stderr
    nobody = nsc("removematching", "many.*", code=2, input="")
    assert "--yes" in nobody.stderr
    assert nsc("count").output == "13\n"
    assert nsc("removematching", "many.0.*", input="y\n").stdout.endswith("removed: 10\n")
    assert nsc("removematching", "-y", "many.*").output == "removed: 2\n"
    assert "no names" in complaint(nsc("removematching", "many.*", code=1).stderr)


@pytest.mark.feature("F017", "F195")
def test_groups(nsc: Nsc) -> None:
    assert nsc("creategroup", ":Lab").output == "made the group :Lab\n"
    nsc("register", ":Lab.scope", URI)
    assert nsc("listgroup", ":Lab").output.splitlines()[1].split() == ["scope", "object"]
    assert "1 name in the group :Lab: :Lab.scope" in nsc("deletegroup", ":Lab", code=1, input="n\n").stderr
    assert nsc("deletegroup", "-y", ":Lab").output == "removed the group :Lab and 1 names in it\n"
    nsc("creategroup", ":Empty")
    assert nsc("deletegroup", ":Empty").output == "removed the group :Empty and 0 names in it\n"  # nothing to ask about
    assert "there is no group :Lab" in complaint(nsc("listgroup", ":Lab", code=1).stderr)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("register", "a\x1b[2J", URI), 2, "control characters"),
        (("register", "", URI), 2, "control characters"),
        (("register", "a", "nonsense"), 2, "PYRO:object@host:port"),
        (("listmatching", "("), 1, "regex"),
        (("removematching", "-y", "("), 1, "regex"),
        (("setmeta", "nobody", "x"), 1, "unknown name: nobody"),
        (("lookup",), 2, "NAME"),
        (("yplookup_all",), 2, "TAG"),
        (("lst",), 2, "did you mean 'list'"),
        (("list", "--port", "many"), 2, "--port"),
        (("ping", "-u", "somewhere"), 2, "two places"),
        (("ping", "-n", "no such host"), 2, "is no host"),
        (("ping", "--serializer", "serpnt"), 2, "did you mean 'serpent'"),
        (("watch", "--interval", "0"), 2, "--interval"),
    ],
)
def test_a_wrong_command_line_is_one_clear_line(arguments: tuple[str, ...], code: int, says: str, nsc: Nsc) -> None:
    line = complaint(nsc(*arguments, code=code).stderr)
    assert says in line
    assert "\x1b" not in line


def test_a_name_server_that_cannot_be_reached_is_exit_code_3() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = str(unused.getsockname()[1])
    there = CliRunner().invoke(app, ["nsc", "-n", "localhost", "-p", port, "list"])
    assert (there.exit_code, complaint(there.stderr).split(": ")[1]) == (3, "network")
    found = CliRunner().invoke(app, ["nsc", "list"], env={"PYRO_NS_PORT": port, "PYRO_NS_TIMEOUT": "2"})
    assert found.exit_code == 3
    assert f"localhost:{port}" in complaint(found.stderr)


@pytest.mark.feature("F282")
def test_without_a_place_it_is_looked_for(ns: NameServer) -> None:
    port = ns.location.rpartition(":")[2]
    result = CliRunner().invoke(app, ["nsc", "-v", "ping"], env={"PYRO_NS_PORT": port})
    assert result.exit_code == 0
    assert f"name server: PYRO:Pyro.NameServer@{ns.location}" in result.stderr


@pytest.mark.feature("F183", "F193", "F195")
def test_the_address_for_broadcasts_can_be_given() -> None:
    unused = {"PYRO_NS_PORT": str(_port_of_nobody())}
    with serving("-n", "0.0.0.0", "-p", "0", "-s", "memory", "-c", "127.0.0.1", "-b", "0") as there:
        found = re.search(r"broadcasts: answered on 127\.0\.0\.1:(\d+)", there.said)
        assert found, there.said
        result = CliRunner().invoke(app, ["nsc", "-c", "127.0.0.1", "-p", found[1], "-v", "ping"], env=unused)
    assert result.exit_code == 0, result.output
    port = there.location.rpartition(":")[2]
    assert f"name server: PYRO:Pyro.NameServer@127.0.0.1:{port}" in result.stderr


@pytest.mark.feature("F199")
def test_one_script_has_all_commands() -> None:
    """The installer makes ``pyroplug``, ``pyroplug.exe`` or whatever else the platform wants of this."""
    from importlib.metadata import entry_points

    (script,) = entry_points(group="console_scripts", name="pyroplug")
    assert script.load().__module__ == "pyroplug.cli"
    help_text = CliRunner().invoke(app, ["--help"]).output
    assert {"ns", "nsc", "echo", "genguid", "call"} <= {
        line.split()[0] for line in help_text.splitlines() if line.strip()
    }


def test_text_of_a_name_server_cannot_steer_the_terminal(ns: NameServer, nsc: Nsc) -> None:
    with Proxy(f"PYRO:Pyro.NameServer@{ns.location}", kernel=Kernel()) as proxy:
        proxy.register("tagged", URI, metadata=["\u202egnp"])
    assert "\u202e" not in nsc("list").output
    assert "\u202e" not in nsc("list", "--json").output
    assert json.loads(nsc("list", "tagged", "--json").output)[0]["metadata"] == ["\u202egnp"]


def test_a_command_whose_plugin_is_off_is_told_so() -> None:
    result = run("nsc", "ping", PYRO_DISABLE_PLUGINS="naming_tools")
    assert result.returncode == 2
    assert "naming_tools" in complaint(result.stderr)
    groups = run("nsc", "creategroup", ":X", PYRO_DISABLE_PLUGINS="naming_broadcast,naming_groups")
    assert "naming_groups" in groups.stderr or groups.returncode == 3


# ============================================================================= does what is registered answer?
@expose
class Thing:
    def echo(self, value: Any) -> Any:
        return value


class Picky(Daemon):
    def validateHandshake(self, conn: Any, data: Any) -> Any:
        raise PermissionError("not you")


@contextmanager
def daemons(kernel: Kernel) -> Iterator[tuple[str, str]]:
    """The URIs of an object that answers, and of one whose daemon lets nobody in."""
    running = [Daemon("localhost", kernel=kernel), Picky("localhost", kernel=kernel)]
    threads = [threading.Thread(target=daemon.requestLoop) for daemon in running]
    for thread in threads:
        thread.start()
    try:
        yield str(running[0].register(Thing(), "thing")), str(running[1].register(Thing(), "thing"))
    finally:
        for daemon, thread in zip(running, threads, strict=True):
            daemon.shutdown()
            thread.join()
            daemon.close()


@pytest.fixture
def registered(nsc: Nsc) -> Iterator[dict[str, str]]:
    """Names of every kind, and what is to be found out about each."""
    kernel = Kernel()
    with (
        daemons(kernel) as (thing, picky),
        socket.create_server(("127.0.0.1", 0)) as silent,
        socket.create_server(("127.0.0.1", 0)) as gone,
    ):
        gone.close()
        location = thing.partition("@")[2]
        uris = {
            "answers": thing,
            "gone": f"PYRO:x@127.0.0.1:{_port_of_nobody()}",
            "silent": f"PYRO:x@127.0.0.1:{silent.getsockname()[1]}",
            "unknown": f"PYRO:nothing@{location}",
            "refuses": picky,
            "wrong": "PYRONAME:answers",
        }
        for state, uri in uris.items():
            nsc("register", f"is.{state}", uri, "tag")
        yield uris
    kernel.close()


def _port_of_nobody() -> int:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        return int(unused.getsockname()[1])


def test_watch_tells_which_names_answer(nsc: Nsc, registered: dict[str, str]) -> None:
    limit = f"{scaled(0.5)}"
    found = json.loads(nsc("watch", "--once", "--json", "--timeout", limit, "is.", code=1).output)
    assert {entry["name"]: entry["state"] for entry in found["names"]} == {f"is.{state}": state for state in registered}
    by_state = {entry["state"]: entry for entry in found["names"]}
    assert by_state["answers"]["ms"] > 0
    assert by_state["answers"]["address"] == registered["answers"].partition("@")[2]
    assert by_state["answers"]["metadata"] == ["tag"]
    assert "refused" in by_state["gone"]["reason"]
    assert "not you" in by_state["refuses"]["reason"]
    assert found["status"]["storage"] == "memory"
    text = nsc("watch", "--once", "is.answers").output  # exit code 0: all that were looked at answer
    assert "1 names, 1 answer" in text
    assert re.search(r"is\.answers +localhost:\d+ +answers +\d", text)


def test_watch_goes_on_while_the_name_server_is_away() -> None:
    """It tells so, and shows the names again when it is back."""
    port = str(_port_of_nobody())
    lines: list[dict[str, Any]] = []
    with serving("-n", "localhost", "-p", port, "-s", "memory") as first:
        watch = subprocess.Popen(
            [*COMMAND, "nsc", *first.at, "watch", "--json", "--interval", "0.1"],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env=environment(),
        )
        guard = threading.Timer(scaled(30), watch.kill)
        guard.start()
        assert watch.stdout is not None
        try:
            lines.append(json.loads(watch.stdout.readline()))
            first.end(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
            while "error" not in lines[-1]:
                lines.append(json.loads(watch.stdout.readline()))
            with serving("-n", "localhost", "-p", port, "-s", "memory"):
                while "error" in lines[-1]:
                    lines.append(json.loads(watch.stdout.readline()))
                if os.name == "posix":
                    watch.send_signal(signal.SIGINT)
                    watch.communicate(timeout=PATIENCE * 4)
                    assert watch.returncode == 0  # how one leaves it
        finally:
            guard.cancel()
            guard.join()
            watch.kill()
            watch.communicate()
    assert lines[0]["names"][0]["state"] == lines[-1]["names"][0]["state"] == "answers"


@posix
@pytest.mark.parametrize("rich", [True, False])
def test_watch_on_a_terminal(rich: bool, ns: NameServer, tmp_path: Path) -> None:
    import pty

    leader, follower = pty.openpty()
    (tmp_path / "rich.py").write_text("raise ImportError('hidden')\n", "utf-8")
    changes = {} if rich else {"PYTHONPATH": str(tmp_path)}
    watch = subprocess.Popen(
        [*COMMAND, "nsc", *ns.at, "watch", "--interval", "0.1"],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=environment(TERM="xterm", **changes),
    )
    os.close(follower)
    shown = b""
    try:
        while shown.count(b"answers") < 3:  # it is drawn again and again
            ready, _, _ = select.select([leader], [], [], scaled(20))
            assert ready, shown
            shown += os.read(leader, 65536)
        watch.send_signal(signal.SIGINT)
        while True:
            try:
                if not os.read(leader, 65536):
                    break
            except OSError:  # how Linux says that the other side is closed
                break
        assert watch.wait(scaled(20)) == 0
    finally:
        watch.kill()
        watch.wait()
        os.close(leader)
    assert b"Pyro.NameServer" in shown
    assert ("\u2502".encode() in shown) == rich


def test_only_so_many_are_tried_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = threading.Lock()
    together = threading.Barrier(4)
    busy, most = 0, 0

    class Slow:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            pass

        def __enter__(self) -> Slow:
            return self

        def __exit__(self, *exc_info: object) -> None:
            pass

        def _pyroBind(self) -> None:
            nonlocal busy, most
            with lock:
                busy += 1
                most = max(most, busy)
            together.wait(PATIENCE)
            with lock:
                busy -= 1

    monkeypatch.setattr(checks, "Proxy", Slow)
    kernel = Kernel()
    checker = Checker(kernel, timeout=PATIENCE, workers=4)
    answers = checker.check(f"PYRO:x@host{number}:1" for number in range(20))
    checker.close()
    kernel.close()
    assert {answer.state for answer in answers.values()} == {"answers"}
    assert len(answers) == 20
    assert most == 4


def test_a_check_that_hangs_ends_in_time_and_is_not_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    let_go = threading.Event()

    def hang(self: Checker, this: Any, uri: str) -> checks.Answer:
        begun.append(uri)
        let_go.wait(PATIENCE * 4)
        return checks.Answer("answers")

    monkeypatch.setattr(Checker, "_try", hang)
    kernel = Kernel()
    checker = Checker(kernel, timeout=0.05, workers=2)
    for _ in range(2):
        assert checker.check(["PYRO:x@far:1"])["PYRO:x@far:1"].state == "silent"
    assert begun == ["PYRO:x@far:1"]
    let_go.set()
    checker.close()
    kernel.close()


def test_the_objects_of_a_dead_server_are_not_tried_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    bind = Proxy._pyroBind

    def counted(self: Proxy) -> bool:
        tried.append(self._pyroUri.object)
        return bind(self)

    monkeypatch.setattr(Proxy, "_pyroBind", counted)
    kernel = Kernel()
    checker = Checker(kernel, timeout=PATIENCE, workers=1)
    port = _port_of_nobody()
    answers = checker.check(f"PYRO:thing{number}@127.0.0.1:{port}" for number in range(50))
    checker.close()
    kernel.close()
    assert {answer.state for answer in answers.values()} == {"gone"}
    assert tried == ["thing0"]


# ============================================================================= ns
@pytest.mark.feature("F179", "F203")
def test_ns_tells_all_about_itself(tmp_path: Path) -> None:
    with serving("-n", "127.0.0.1", "-p", "0", "-s", "memory", "--urifile", str(tmp_path / "uri")) as ns:
        lines = ns.said.splitlines()
        assert re.fullmatch(r"pyroplug \S+ name server", lines[0])
        assert lines[1:] == [
            "storage: memory",
            "broadcasts: not answered",
            "shutdown requests: refused",
            f"URI file: {tmp_path / 'uri'}",
            f"URI: PYRO:Pyro.NameServer@{ns.location}",
            "name server running",
        ]
        assert (tmp_path / "uri").read_text("utf-8").strip() == f"PYRO:Pyro.NameServer@{ns.location}"


@pytest.mark.feature("F190", "F281")
def test_ns_as_json_behind_nat_with_broadcasts() -> None:
    options = ("--nathost", "ns.example.com", "--natport", "4711", "--bchost", "127.0.0.1", "--bcport", "0")
    with serving("-n", "0.0.0.0", "-p", "0", "-s", "memory", "--allow-shutdown", "--json", *options) as ns:
        facts = json.loads(ns.said)
    assert facts["uri"] == "PYRO:Pyro.NameServer@ns.example.com:4711"
    assert re.fullmatch(r"PYRO:Pyro.NameServer@[^@]+:\d+", facts["internal_uri"])
    assert facts["internal_uri"] != facts["uri"]
    assert re.fullmatch(r"127\.0\.0\.1:\d+", facts["broadcast"])
    assert facts["shutdown"] is True
    assert facts["names"] == 1


@posix
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.feature("F193")
def test_signals_end_it_cleanly(number: int) -> None:
    with serving("-n", "localhost", "-p", "0", "-x", "-s", "memory") as ns:
        assert CliRunner().invoke(app, ["nsc", *ns.at, "lookup", "nobody"]).exit_code == 1
        assert ns.end(number) == (0, "")  # and that a name is unknown was no news


@pytest.mark.feature("F186", "F195")
def test_a_client_ends_it_if_it_may() -> None:
    with serving("-n", "localhost", "-p", "0", "-s", "memory", "--allow-shutdown") as ns:
        result = CliRunner().invoke(app, ["nsc", *ns.at, "shutdown"])
        assert result.output == f"PYRO:Pyro.NameServer@{ns.location} shuts down\n"
        assert ns.end(None) == (0, "")


@posix
@pytest.mark.feature("F184")
def test_names_are_kept_by_default_even_if_it_is_killed(tmp_path: Path) -> None:
    port = str(_port_of_nobody())
    home = {"XDG_STATE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    with serving("-n", "localhost", "-p", port, **home) as ns:
        assert str(tmp_path) in ns.said
        CliRunner().invoke(app, ["nsc", *ns.at, "register", "kept", URI, "tag"])
        ns.end(signal.SIGKILL)
    with serving("-n", "localhost", "-p", port, **home) as ns:
        assert "(1 names kept)" in ns.said
        assert CliRunner().invoke(app, ["nsc", *ns.at, "lookup", "kept"]).output == f"{URI}\nmetadata: tag\n"
    with serving("-n", "localhost", "-p", "0", **home) as other:
        assert "storage: memory" in other.said  # nobody could come back to a place that is random


@pytest.mark.feature("F193")
def test_two_name_servers_with_one_file_stand_in_for_each_other(tmp_path: Path) -> None:
    options = ("-n", "localhost", "-p", "0", "-s", f"sql:{tmp_path / 'names.sqlite'}")
    with serving(*options) as first, serving(*options) as second:
        for one, other in ((first, second), (second, first)):
            assert CliRunner().invoke(app, ["nsc", *one.at, "register", "shared", URI]).exit_code == 0
            assert CliRunner().invoke(app, ["nsc", *other.at, "lookup", "shared"]).output == f"{URI}\n"
            assert CliRunner().invoke(app, ["nsc", *other.at, "remove", "shared"]).exit_code == 0
            assert CliRunner().invoke(app, ["nsc", *one.at, "lookup", "shared"]).exit_code == 1
            own = json.loads(CliRunner().invoke(app, ["nsc", *one.at, "lookup", "Pyro.NameServer", "--json"]).output)
            assert own["uri"] == f"PYRO:Pyro.NameServer@{one.location}"


@needs_unix
@pytest.mark.feature("F281")
def test_ns_on_a_unix_socket_with_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the whole path may be too long for the address of a socket
    with serving("-u", "ns.sock", XDG_STATE_HOME=str(tmp_path), HOME=str(tmp_path)) as ns:
        assert ns.location == "./u:ns.sock"
        assert CliRunner().invoke(app, ["nsc", "-u", "ns.sock", "count"]).output == "1\n"
        assert ns.end() == (0, "")
    assert not Path("ns.sock").exists()


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("-s", "sqll:x"), 5, "did you mean 'sql'"),
        (("-s", "memory:x"), 5, "takes no file"),
        (("-s", "sql:{folder}/no.db"), 1, "no.db"),
        (("-s", "sql:{folder}/missing/x.db"), 1, "x.db"),
        (("-s", "dbm:"), 5, "file"),
        (("-n", "no such host"), 1, "no such host"),
        (("-p", "70000"), 2, "70000"),
        (("-u", "x", "-p", "1"), 2, "--unixsocket"),
        (("-x", "--bcport", "1"), 2, "--nobc"),
        (("--max-lease", "0"), 2, "--max-lease"),
        (("here",), 2, "here"),
        (("-p", "{taken}"), 1, "in use"),
    ],
)
def test_ns_that_cannot_start_says_why_in_one_line(
    options: tuple[str, ...], code: int, says: str, tmp_path: Path
) -> None:
    (tmp_path / "no.db").write_text("this is no database at all, but a long text that stands in its place" * 20)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = {"folder": tmp_path, "taken": taken.getsockname()[1]}
        given = [option.format(**place) for option in options]
        usual = [] if "-s" in options or "-u" in options else ["-s", "memory"]
        usual += [] if "-n" in options or "-u" in options else ["-n", "127.0.0.1"]
        usual += [] if "-p" in options or "-u" in options else ["-p", "0"]
        result = run("ns", *usual, *given, XDG_STATE_HOME=str(tmp_path))
    assert says in complaint(result.stderr)
    assert (result.returncode, result.stdout) == (code, "")


def test_a_second_name_server_at_the_same_place_is_told_who_is_there(ns: NameServer) -> None:
    result = run("ns", "-n", "localhost", "-p", ns.location.rpartition(":")[2], "-s", "memory")
    assert result.returncode == 1
    assert "a name server is running there already" in complaint(result.stderr)


@posix
def test_a_folder_for_names_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("ns", "-n", "localhost", "-p", "9090", XDG_STATE_HOME=str(tmp_path / "file"))
    assert result.returncode == 5
    assert "-s memory" in complaint(result.stderr)
