"""The command ``pyroplug``: what it prints, and its exit codes."""

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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pyroplug.api import Daemon, Kernel, expose, oneway
from pyroplug.cli import _checks
from pyroplug.cli.app import app
from pyroplug.cli.client import parse_arguments, parse_value
from pyroplug.cli.output import clean, value_text
from testkit.source import entry_points
from testkit.timeouts import PATIENCE, scaled

COMMAND = (sys.executable, "-m", "pyroplug")


def environment(**changes: str) -> dict[str, str]:
    wide = {"COLUMNS": "200", "PYTHONIOENCODING": "utf-8"}
    return {**{k: v for k, v in os.environ.items() if not k.startswith("PYRO_")}, **wide, **changes}


def run(*args: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """The real command."""
    return subprocess.run(
        [*COMMAND, *args],
        env=environment(**changes),
        capture_output=True,
        encoding="utf-8",
        timeout=scaled(30),
        check=False,
        stdin=subprocess.DEVNULL,
    )


def invoke(*args: str, **options: Any) -> Result:
    """The command in this process."""
    return CliRunner().invoke(app, list(args), **options)


def error_line(text: str) -> str:
    """The single line on stderr."""
    lines = text.splitlines()
    assert len(lines) == 1, text
    assert lines[0].startswith("pyroplug: ")
    return lines[0]


class Thing:
    def __init__(self) -> None:
        self.level = 1
        self.noted: list[Any] = []

    @expose
    def give(self, *args: Any, **kwargs: Any) -> Any:
        return {"args": list(args), "kwargs": kwargs}

    @expose
    def text(self) -> str:
        return "plain \x1b[31mred\x07"

    @expose
    def names(self) -> set[str]:
        return {"b", "a"}

    @expose
    def fail(self) -> None:
        raise LookupError("not\nhere \x1b[2J")

    @expose
    def fail_strangely(self) -> None:
        raise StrangeError("odd")

    @expose
    def broken_link(self) -> None:
        raise ConnectionResetError("somewhere else")

    @expose
    @oneway
    def note(self, value: Any) -> None:
        self.noted.append(value)

    @property
    @expose
    def volume(self) -> int:
        return self.level

    @volume.setter
    def volume(self, value: int) -> None:
        self.level = value


class StrangeError(Exception):
    pass


class Picky(Daemon):
    """Lets in who knows the secret."""

    def validateHandshake(self, conn: Any, data: Any) -> Any:
        if data not in ("hush", {"user": "me"}):
            raise PermissionError("wrong secret")
        return "welcome"


@contextmanager
def serving(daemon: Daemon) -> Iterator[Daemon]:
    loop = threading.Thread(target=daemon.requestLoop)
    loop.start()
    try:
        yield daemon
    finally:
        daemon.shutdown()
        loop.join(PATIENCE)


@pytest.fixture
def thing() -> Iterator[str]:
    """The URI of a Thing."""
    with serving(Daemon(kernel=Kernel())) as daemon:
        yield str(daemon.register(Thing(), "thing"))


@pytest.fixture
def picky() -> Iterator[str]:
    with serving(Picky(kernel=Kernel())) as daemon:
        yield str(daemon.register(Thing(), "thing"))


@pytest.fixture
def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


# --------------------------------------------------------------------------- the command itself
@pytest.mark.feature("F200")
def test_the_module_is_the_command() -> None:
    result = run("--version")
    assert result.returncode == 0
    assert re.match(r"pyroplug \S+ \(protocol 502, ", result.stdout)


@pytest.mark.feature("F200")
def test_the_script_is_the_command() -> None:
    script = Path(sys.executable).with_name("pyroplug")
    if not script.exists():
        pytest.skip("pyroplug is not installed as a script here")
    result = subprocess.run([script, "--version"], capture_output=True, text=True, check=True, env=environment())
    assert result.stdout.startswith("pyroplug ")


def test_help_lists_the_commands_and_the_exit_codes() -> None:
    result = run("--help")
    assert result.returncode == 0
    for word in ("call", "config", "doctor", "echo", "genguid", "ping", "plugins", "probe", "130 interrupted"):
        assert word in result.stdout
    assert "..." not in result.stdout.replace("[ARGS]...", "")  # no cut descriptions
    assert result.stderr == ""


@pytest.mark.parametrize("command", ["call", "config", "doctor", "echo", "genguid", "ping", "plugins", "probe"])
def test_each_command_has_help(command: str) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: pyroplug {command}") or "Usage:" in result.output


def test_without_a_command_the_help_is_shown() -> None:
    result = invoke()
    assert result.exit_code == 2
    assert "Commands:" in result.output


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["prob"], "did you mean 'probe'"),
        (["probe"], "HOST:PORT"),
        (["probe", "nonsense"], "needs a port"),
        (["probe", "PYRONAME:x"], "host:port"),
        (["ping", "-c", "0", "localhost:1"], "-c"),
        (["call", "PYRO:x@localhost:99999", "m"], "99999"),
        (["call", "localhost:1", "m", "--frobnicate"], "no such option: --frobnicate"),
        (["call", "localhost:1", "m", "--serialzer=json"], "--serialzer"),
        (["call", "localhost:1", "m", "a=1", "a=2"], "twice"),
        (["call", "--serializer", "nope", "localhost:1", "m"], "unknown serializer 'nope'"),
        (["call", "--timeout", "-1", "localhost:1", "m"], "--timeout"),
        (["call", "--handshake-file", "does-not-exist", "localhost:1", "m"], "does-not-exist"),
        (["config", "COMTIMEOUT"], "did you mean 'COMMTIMEOUT'"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(args: Sequence[str], expected: str) -> None:
    result = invoke(*args)
    assert result.exit_code == 2
    assert expected in error_line(result.stderr)
    assert "usage" in result.stderr
    assert result.stdout == ""


def test_a_mistake_of_ours_is_an_internal_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("oops")

    monkeypatch.setattr("pyroplug.cli.listing.uuid.uuid4", broken)
    result = invoke("genguid")
    assert result.exit_code == 70
    assert "internal error: RuntimeError: oops" in error_line(result.stderr)
    assert "--debug" in result.stderr
    for args in (["--debug", "genguid"], ["genguid", "--debug"]):
        assert "Traceback" in invoke(*args).stderr


@pytest.mark.feature("F192")
def test_genguid_prints_a_new_id() -> None:
    first, second = invoke("genguid").output, invoke("genguid").output
    assert re.fullmatch(r"obj_[0-9a-f]{32}\n", first)
    assert first != second


# --------------------------------------------------------------------------- call
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-2.5", -2.5),
        ("true", True),
        ("null", None),
        ('"1"', "1"),
        ("word", "word"),
        ("two words", "two words"),
        ("", ""),
        ("[1, 2]", [1, 2]),
        ("[1, 2", "[1, 2"),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_words_are_json_or_text(text: str, value: Any) -> None:
    assert parse_value(text) == value


def test_keywords_have_a_name_and_an_equals_sign() -> None:
    positional, keywords = parse_arguments(("1", "a=2", "b_1=x=y", '"c=3"', "=4", "5=6", "d="))
    assert positional == [1, "c=3", "=4", "5=6"]
    assert keywords == {"a": 2, "b_1": "x=y", "d": ""}


def test_call_prints_the_result_as_json(thing: str) -> None:
    result = run("call", thing, "give", "1", "-2", "word", '{"a": [null]}', "key=true")
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout) == {"args": [1, -2, "word", {"a": [None]}], "kwargs": {"key": True}}


def test_what_follows_two_dashes_is_an_argument(thing: str) -> None:
    result = invoke("call", thing, "give", "-1", "--", "--x", "-y")
    assert json.loads(result.stdout)["args"] == [-1, "--x", "-y"]


def test_sets_become_lists_and_nan_is_no_json(thing: str) -> None:
    assert invoke("call", thing, "names").stdout == '["a", "b"]\n'
    assert value_text(float("nan")) == "nan"
    assert value_text({"é\x9b": "\U000e0001"}) == '{"é\\u009b": "\\udb40\\udc01"}'
    assert value_text({1: {(2, 3): 4}}) == "{1: {(2, 3): 4}}"
    assert value_text(b"ab") == '{"data": "YWI=", "encoding": "base64"}'


def test_raw_prints_text_as_it_is(thing: str) -> None:
    assert invoke("call", thing, "text", "--raw").stdout == "plain \x1b[31mred\x07\n"
    assert json.loads(invoke("call", thing, "text").stdout) == "plain \x1b[31mred\x07"
    assert "\x1b" not in invoke("call", thing, "text").stdout


def test_a_location_means_the_daemon_itself(thing: str) -> None:
    assert json.loads(invoke("call", thing.partition("@")[2], "registered").stdout) == ["Pyro.Daemon", "thing"]


def test_attributes_are_read_and_set(thing: str) -> None:
    assert invoke("call", thing, "volume").stdout == "1\n"
    assert invoke("call", thing, "volume=11").exit_code == 0
    assert invoke("call", thing, "volume").stdout == "11\n"
    assert invoke("call", thing, "volume", "5").exit_code == 2
    assert invoke("call", thing, "volum=5").exit_code == 2


def test_a_oneway_method_prints_null(thing: str) -> None:
    assert invoke("call", thing, "note", "x").stdout == "null\n"


@pytest.mark.skipif("streaming" not in entry_points(), reason="there is no plugin that streams results")
def test_a_stream_is_printed_line_by_line() -> None:
    class Streamer:
        @expose
        def items(self) -> Iterator[Any]:
            yield from (1, "two", {"three": 3})

    with serving(Daemon(kernel=Kernel())) as daemon:
        result = invoke("call", str(daemon.register(Streamer(), "streamer")), "items")
    assert result.stdout == '1\n"two"\n{"three": 3}\n'


@pytest.mark.parametrize("serializer", ["serpent", "json", "msgpack"])
def test_the_serializer_can_be_chosen(thing: str, serializer: str) -> None:
    result = invoke("call", "--serializer", serializer, thing, "give", "1")
    assert json.loads(result.stdout)["args"] == [1]


def test_a_method_that_does_not_exist_is_wrong_usage(thing: str) -> None:
    result = invoke("call", thing, "giv")
    assert result.exit_code == 2
    assert "has no method 'giv' (did you mean 'give'?)" in error_line(result.stderr)


def test_a_remote_exception_is_one_line_and_exit_code_1(thing: str) -> None:
    result = run("call", thing, "fail")
    assert result.returncode == 1
    assert "remote exception: LookupError: not here \\x1b[2J" in error_line(result.stderr)
    assert result.stdout == ""


def test_a_remote_exception_of_an_unknown_class_shows_its_name(thing: str) -> None:
    assert "StrangeError: odd" in error_line(invoke("call", thing, "fail_strangely").stderr)


def test_a_remote_connection_error_is_not_ours(thing: str) -> None:
    result = invoke("call", thing, "broken_link")
    assert result.exit_code == 1
    assert "remote exception: ConnectionResetError: somewhere else" in result.stderr


def test_the_remote_traceback_is_shown_when_asked_for(thing: str) -> None:
    result = invoke("call", thing, "fail", "--traceback")
    assert result.exit_code == 1
    assert "Traceback (most recent call last)" in result.stderr
    assert 'raise LookupError("not' in result.stderr
    assert "\x1b" not in result.stderr
    assert "Remote traceback" in invoke("call", thing, "fail", "--debug").stderr


def test_nobody_there_is_exit_code_3(free_port: int) -> None:
    for command in (["call", f"localhost:{free_port}", "ping"], ["ping", f"PYRO:x@localhost:{free_port}"]):
        result = invoke(*command)
        assert result.exit_code == 3
        line = error_line(result.stderr)
        assert "network: cannot connect" in line
        assert "[hint: " in line


def test_an_unknown_object_is_exit_code_4(thing: str) -> None:
    result = invoke("call", thing.replace("thing@", "nothing@"), "give")
    assert result.exit_code == 4
    assert "unknown object: nothing" in error_line(result.stderr)
    assert "registered" in result.stderr


def test_a_server_that_says_nothing_is_exit_code_3(free_port: int) -> None:
    with socket.create_server(("127.0.0.1", free_port)):
        result = invoke("call", "--timeout", "0.1", f"127.0.0.1:{free_port}", "ping")
    assert result.exit_code == 3  # the handshake is part of connecting
    assert "timeout" in error_line(result.stderr)


def test_a_result_that_does_not_come_is_exit_code_4() -> None:
    release = threading.Event()

    class Waiting:
        @expose
        def wait(self) -> None:
            release.wait(PATIENCE)

    with serving(Daemon(kernel=Kernel())) as daemon:
        uri = str(daemon.register(Waiting(), "waiting"))
        result = invoke("call", "--timeout", "0.2", uri, "wait")
        release.set()
    assert result.exit_code == 4
    assert "connection: " in error_line(result.stderr)
    assert "timeout" in result.stderr


def test_a_server_that_is_not_pyro_is_exit_code_4() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(1024)
                client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(40))

        thread = threading.Thread(target=answer)
        thread.start()
        result = invoke("ping", f"127.0.0.1:{listener.getsockname()[1]}")
        thread.join(PATIENCE)
    assert result.exit_code == 4
    assert "pyroplug probe" in error_line(result.stderr)


@pytest.mark.skipif(os.name != "posix", reason="needs SIGINT for a child process")
def test_ctrl_c_is_quiet_and_exit_code_130() -> None:
    arrived = threading.Event()
    release = threading.Event()

    class Waiting:
        @expose
        def wait(self) -> None:
            arrived.set()
            release.wait(PATIENCE)

    with serving(Daemon(kernel=Kernel())) as daemon:
        uri = str(daemon.register(Waiting(), "waiting"))
        client = subprocess.Popen(
            [*COMMAND, "call", uri, "wait"], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            assert arrived.wait(scaled(20))
            client.send_signal(signal.SIGINT)
            out, err = client.communicate(timeout=scaled(20))
        finally:
            client.kill()
            client.wait()
            release.set()
    assert (client.returncode, out.strip(), err.strip()) == (130, b"", b"")


def test_a_reader_that_goes_away_is_no_error() -> None:
    with subprocess.Popen(
        [*COMMAND, "config", "--json"], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert child.stderr.read() == b""


# --------------------------------------------------------------------------- the handshake
def test_the_handshake_value_comes_from_a_file(picky: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hush\n", "utf-8")
    value = tmp_path / "secret.json"
    value.write_text('{"user": "me"}', "utf-8")
    for path in (secret, value):
        assert invoke("call", "--handshake-file", str(path), picky, "names").exit_code == 0
    assert invoke("call", "--handshake-file", "-", picky, "names", input="hush\n").exit_code == 0
    assert invoke("ping", "--handshake-file", str(secret), picky).exit_code == 0


def test_a_refusal_is_exit_code_4_and_says_what_to_do(picky: str) -> None:
    result = invoke("call", picky, "names")
    assert result.exit_code == 4
    assert "wrong secret" in error_line(result.stderr)
    assert "--handshake-file" in result.stderr


@pytest.mark.parametrize(("name", "content"), [("empty", "\n"), ("bad.json", "{hush"), ("large", "x" * 65_537)])
def test_a_bad_handshake_file_is_wrong_usage_and_stays_secret(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content, "utf-8")
    result = invoke("--debug", "call", "--handshake-file", str(path), "localhost:1", "m")
    assert result.exit_code == 2
    assert "hush" not in result.stderr


# --------------------------------------------------------------------------- ping
@pytest.mark.feature("F303")
def test_ping_prints_times(thing: str) -> None:
    result = run("ping", "-c", "2", thing)
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    assert re.match(r"connected to \S+: time=[\d.]+ ms", lines[0])
    assert [bool(re.match(rf"pong from \S+: seq={n} time=[\d.]+ ms", lines[n])) for n in (1, 2)] == [True, True]
    assert re.match(r"2 pings: min=[\d.]+ ms mean=[\d.]+ ms max=[\d.]+ ms", lines[3])


@pytest.mark.feature("F303")
def test_ping_as_json(thing: str) -> None:
    found = json.loads(invoke("ping", "--json", "-c", "4", thing.partition("@")[2]).stdout)
    assert len(found["times_ms"]) == 4
    assert found["min_ms"] <= found["mean_ms"] <= found["max_ms"]
    assert found["uri"].startswith("PYRO:Pyro.Daemon@")


# --------------------------------------------------------------------------- plugins and config
def test_plugins_as_text() -> None:
    result = run("plugins", PYRO_DISABLE_PLUGINS="retry")
    assert result.returncode == 0
    rows = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert re.match(r"oneway +on +pyroplug \S+ .*ONEWAY_THREADED", rows["oneway"])
    assert "disabled by PYRO_DISABLE_PLUGINS" in rows["retry"]
    assert "opt-in" in rows["pickle"]
    assert re.match(r"pickle +off", rows["pickle"])
    assert "\x1b" not in result.stdout


def test_plugins_as_json() -> None:
    rows = {row["name"]: row for row in json.loads(invoke("plugins", "--json").stdout)}
    assert rows["ping"]["state"] == "on"
    assert rows["ping"]["hooks"] == ["pyro_reserve"]
    assert rows["oneway"]["settings"] == ["ONEWAY_QUEUE_SIZE", "ONEWAY_THREADED", "ONEWAY_THREADS"]
    assert rows["dill"]["state"] in ("off", "broken")
    assert rows["dill"]["summary"] or rows["dill"]["reason"]


def test_plugins_are_listed_even_when_the_choice_is_wrong() -> None:
    result = run("plugins", "--json", PYRO_PLUGINS="+onewy")
    assert result.returncode == 5
    assert {row["state"] for row in json.loads(result.stdout)} == {"unknown"}
    assert "did you mean 'oneway'" in error_line(result.stderr)


@pytest.mark.feature("F119")
def test_config_as_text() -> None:
    result = run("config", PYRO_COMMTIMEOUT="2.5")
    assert result.returncode == 0
    rows = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert re.match(r"COMMTIMEOUT +2\.5 +environment +kernel +seconds", rows["COMMTIMEOUT"])
    assert re.match(r"SERIALIZERS_ACCEPTED +json,msgpack,serpent +default +kernel", rows["SERIALIZERS_ACCEPTED"])
    assert re.match(r"PLUGINS +- +default", rows["PLUGINS"])


@pytest.mark.feature("F119")
def test_config_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYRO_SERIALIZER", "json")
    rows = {row["name"]: row for row in json.loads(invoke("config", "--json").stdout)}
    assert rows["SERIALIZER"]["value"] == "json"
    assert rows["SERIALIZER"]["origin"] == "environment"
    assert rows["SERIALIZER"]["variable"] == "PYRO_SERIALIZER"
    assert rows["SERIALIZERS_ACCEPTED"]["value"] == ["json", "msgpack", "serpent"]
    (changed,) = json.loads(invoke("config", "--json", "--changed").stdout)
    assert changed["name"] == "SERIALIZER"
    (chosen,) = json.loads(invoke("config", "--json", "pyro_commtimeout").stdout)
    assert chosen["name"] == "COMMTIMEOUT"


def test_a_bad_setting_is_exit_code_5() -> None:
    result = run("config", PYRO_COMMTIMEOUT="soon")
    assert result.returncode == 5
    assert "settings here: PYRO_COMMTIMEOUT cannot be 'soon'" in error_line(result.stderr)


def test_an_unknown_variable_is_one_line_of_warning() -> None:
    result = run("config", "SERIALIZER", PYRO_SERIALISER="json")
    assert result.returncode == 0
    assert "warning: unknown environment variable: PYRO_SERIALISER (did you mean 'PYRO_SERIALIZER'?)" in error_line(
        result.stderr
    )


# --------------------------------------------------------------------------- plugins of others
def install(folder: Path, **sources: str) -> str:
    """A distribution with these plugins; gives the value for PYTHONPATH."""
    info = folder / "others-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.5\n", "utf-8")
    lines = [f"{name} = others_{name}" for name in sources]
    (info / "entry_points.txt").write_text("[pyroplug.plugins]\n" + "\n".join(lines) + "\n", "utf-8")
    for name, source in sources.items():
        head = "import click\nfrom pyroplug.api import PluginInfo, Setting, hookimpl\n"
        (folder / f"others_{name}.py").write_text(f"{head}PLUGIN = PluginInfo({name!r}, 'from elsewhere')\n{source}")
    return str(folder)


HELLO = """
@hookimpl
def pyro_commands():
    @click.command("hello")
    @click.pass_obj
    def hello(session):
        "Say hello."
        click.echo(f"hello {session.kernel.settings.SERIALIZER}")
        return 7
    return [hello]
"""
FAILS_TO_OFFER = "@hookimpl\ndef pyro_commands():\n    raise RuntimeError('no commands today')\n"
NO_COMMAND = "@hookimpl\ndef pyro_commands():\n    return ['text', click.Command('call'), click.Command(None)]\n"
FAILS_TO_RUN = """
@hookimpl
def pyro_commands():
    @click.command("crash")
    def crash():
        raise KeyError("inside")
    return [crash]
"""


def test_plugins_add_commands(tmp_path: Path) -> None:
    where = install(tmp_path, hello=HELLO)
    result = run("hello", PYTHONPATH=where, PYRO_PLUGINS="+hello")
    assert (result.returncode, result.stdout, result.stderr) == (0, "hello serpent\n", "")
    assert "Say hello." in run("--help", PYTHONPATH=where, PYRO_PLUGINS="+hello").stdout
    assert run("hello", PYTHONPATH=where).returncode == 2  # of others: only when named


def test_a_broken_plugin_command_breaks_no_other(tmp_path: Path) -> None:
    sources = {"hello": HELLO, "offer": FAILS_TO_OFFER, "wrong": NO_COMMAND, "crash": FAILS_TO_RUN}
    chosen = {"PYTHONPATH": install(tmp_path, **sources), "PYRO_PLUGINS": "+hello,+offer,+wrong,+crash"}
    result = run("hello", **chosen)
    assert (result.returncode, result.stdout) == (0, "hello serpent\n")
    warnings = result.stderr.splitlines()
    assert len(warnings) == 4
    assert any("'offer' fails to offer its commands" in line and "no commands today" in line for line in warnings)
    assert any("'wrong' offers 'call', which is a core command" in line for line in warnings)
    assert run("genguid", **chosen).stderr == ""  # our own commands do not even ask
    crashed = run("crash", **chosen)
    assert crashed.returncode == 1
    assert crashed.stderr.splitlines()[-1].startswith("pyroplug: plugin crash: KeyError: 'inside'")


def test_a_command_offered_twice_is_a_conflict_of_that_command(tmp_path: Path) -> None:
    again = HELLO.replace("@click.pass_obj", "@click.option('--loud')\n    @click.pass_obj")
    chosen = {
        "PYTHONPATH": install(tmp_path, hello=HELLO, other=again, third=FAILS_TO_RUN),
        "PYRO_PLUGINS": "+hello,+other,+third",
    }
    result = run("hello", "--loud", "x", **chosen)
    assert result.returncode == 5
    assert "the command 'hello' is offered by plugins 'hello' and 'other'" in error_line(result.stderr)
    assert "Not available" in run("--help", **chosen).stdout
    assert run("crash", **chosen).returncode == 1


def test_a_command_goes_with_its_plugin() -> None:
    result = run("echo", PYRO_DISABLE_PLUGINS="echoserver")
    assert result.returncode == 2
    assert "there is no command 'echo'" in error_line(result.stderr)


def test_a_plugin_that_cannot_be_imported_leaves_the_rest(tmp_path: Path) -> None:
    chosen = {"PYTHONPATH": install(tmp_path, sick="import no_such_module\n"), "PYRO_PLUGINS": "+sick"}
    assert run("genguid", **chosen).returncode == 0
    helped = run("--help", **chosen)
    assert helped.returncode == 0
    assert "the commands of plugins are not available" in error_line(helped.stderr)
    listed = run("plugins", "--json", **chosen)
    assert listed.returncode == 5
    rows = {row["name"]: row for row in json.loads(listed.stdout)}
    assert rows["sick"]["state"] == "broken"
    assert "no_such_module" in rows["sick"]["reason"]
    assert rows["sick"]["version"] == "1.5"


def test_a_plugin_that_fails_in_a_hook_is_named_as_the_cause(tmp_path: Path) -> None:
    source = "@hookimpl\ndef pyro_configure(kernel):\n    raise OSError('disk full')\n"
    result = run("config", PYTHONPATH=install(tmp_path, sick=source), PYRO_PLUGINS="+sick")
    assert result.returncode == 5
    assert "plugins here: a plugin failed" in error_line(result.stderr)
    assert "disk full" in result.stderr


SECRET = """
@hookimpl
def pyro_settings(schema):
    schema.add(Setting("SAFE_KEY", str, "", "the key", owner="safe", secret=True))
"""


def test_secrets_are_hidden(tmp_path: Path) -> None:
    where = install(tmp_path, safe=SECRET)
    for args in (["config"], ["config", "--json"], ["config", "SAFE_KEY"]):
        result = run(*args, PYTHONPATH=where, PYRO_PLUGINS="+safe", PYRO_SAFE_KEY="tell-nobody")
        assert result.returncode == 0
        assert "tell-nobody" not in result.stdout + result.stderr
        assert "(hidden)" in result.stdout


# --------------------------------------------------------------------------- terminals
@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo terminal")
@pytest.mark.parametrize(("changes", "colored"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colors_are_for_terminals(changes: dict[str, str], colored: bool) -> None:
    ours, theirs = os.openpty()
    data = b""
    try:
        with subprocess.Popen(
            [*COMMAND, "doctor"],
            env={**environment(), "TERM": "xterm-256color", **changes},
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
        ) as child:
            while child.poll() is None or select.select([ours], [], [], 0)[0]:
                if select.select([ours], [], [], 0.05)[0]:
                    data += os.read(ours, 65536)
    finally:
        os.close(ours)
        os.close(theirs)
    assert b"versions" in data
    assert (b"\x1b[" in data) == colored


def test_text_cannot_steer_the_terminal() -> None:
    assert clean("a\tb\nc é 漢") == "a\tb\nc é 漢"
    assert clean("\x1b[2J\x07\x7f\x9b\u202e") == "\\x1b[2J\\x07\\x7f\\x9b\\u202e"


def test_a_narrow_encoding_is_no_reason_to_fail(thing: str) -> None:
    result = run("call", thing, "give", "漢", PYTHONIOENCODING="latin-1", PYTHONUTF8="0")
    assert result.returncode == 0
    assert "\\u6f22" in result.stdout


# --------------------------------------------------------------------------- doctor
def statuses(text: str) -> dict[str, str]:
    """The checks of a doctor's list."""
    return {m[2]: m[1] for m in re.finditer(r"^(OK|WARN|FAIL) +([^:]+):", text, re.MULTILINE)}


@pytest.mark.feature("F117")
def test_the_doctor_looks_at_this_machine() -> None:
    result = run("doctor")
    assert result.returncode == 0, result.stdout
    found = statuses(result.stdout)
    assert {"versions", "plugins", "serializers", "hostname", "localhost ipv4", "localhost ipv6"} <= set(found)
    assert found["binding"] == found["loopback tcp"] == "OK"
    if hasattr(socket, "AF_UNIX"):
        assert found["loopback unix"] == "OK"
    assert result.stdout.splitlines()[-1].startswith(f"{len(found)} checks: 0 failed")


@pytest.mark.feature("F117")
def test_the_doctor_follows_a_uri(thing: str) -> None:
    result = invoke("doctor", "--json", thing)
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["ok"] is True
    names = [check["name"] for check in found["checks"]]
    last = ["resolve", "address", "connect", "version", "accepted", "handshake", "ping", "metadata"]
    assert names[-len(last) :] == last
    texts = {check["name"]: check["text"] for check in found["checks"]}
    assert texts["version"].startswith("pyroplug, protocol 502")
    assert "give" in texts["metadata"]


@pytest.mark.feature("F117")
@pytest.mark.parametrize(
    ("uri", "failing", "advice"),
    [
        ("PYRO:x@localhost:{free}", "connect", "is the server running"),
        ("PYRO:x@no-such-host.invalid:1", "connect", "is the name right"),
        ("PYRO:x@0.0.0.0:{free}", "address", "PYRO_NATHOST"),
        ("PYRO:nothing@{location}", "handshake", "registered"),
        ("PYRONAME:x", "resolve", "name server"),
    ],
)
def test_the_doctor_stops_where_it_fails(thing: str, free_port: int, uri: str, failing: str, advice: str) -> None:
    result = invoke("doctor", "--json", uri.format(free=free_port, location=thing.partition("@")[2]))
    assert result.exit_code == 1
    failed = [check for check in json.loads(result.stdout)["checks"] if check["status"] == "FAIL"]
    assert failed[0]["name"] == failing
    assert advice in failed[0]["advice"]


@pytest.mark.feature("F117")
def test_the_doctor_knows_the_secret_and_the_serializers(picky: str, tmp_path: Path) -> None:
    refused = invoke("doctor", "--json", picky)
    assert refused.exit_code == 1
    assert "wrong secret" in json.loads(refused.stdout)["checks"][-1]["text"]
    secret = tmp_path / "secret"
    secret.write_text("hush", "utf-8")
    assert invoke("doctor", "--handshake-file", str(secret), picky).exit_code == 0
    foreign = json.loads(invoke("doctor", "--json", "--serializer", "marshal", picky).stdout)["checks"]
    assert ("accepted", "WARN") in [(check["name"], check["status"]) for check in foreign]


@pytest.mark.feature("F117")
def test_the_doctor_tells_what_is_wrong_with_the_environment() -> None:
    unknown = run("doctor", PYRO_SERIALISER="json")
    assert unknown.returncode == 0
    assert statuses(unknown.stdout)["variables"] == "WARN"
    broken = run("doctor", PYRO_COMMTIMEOUT="soon")
    assert broken.returncode == 1
    assert statuses(broken.stdout)["settings"] == "FAIL"
    missing = run("doctor", PYRO_PLUGINS="+nothing")
    assert missing.returncode == 1
    assert statuses(missing.stdout)["plugins"] == "FAIL"
    refusing = run("doctor", PYRO_SERIALIZERS_ACCEPTED="json")
    assert statuses(refusing.stdout)["serializers"] == "WARN"
    unsafe = run("doctor", PYRO_PLUGINS="+pickle")
    assert statuses(unsafe.stdout)["plugins"] == "WARN"
    elsewhere = run("doctor", PYRO_HOST="no-such-host.invalid")
    assert statuses(elsewhere.stdout)["binding"] == "FAIL"


@pytest.mark.feature("F118")
@pytest.mark.parametrize(
    ("address", "status", "text"),
    [
        ("127.0.1.1", "WARN", "weird DNS setup: box resolves to localhost (127.0.1.1)"),
        ("192.0.2.7", "OK", "box is 192.0.2.7"),
        (None, "WARN", "box does not resolve"),
    ],
)
def test_the_doctor_looks_up_the_own_name(
    monkeypatch: pytest.MonkeyPatch, address: str | None, status: str, text: str
) -> None:
    def look_up(host: str, port: int, **_: Any) -> list[Any]:
        if address is None:
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "gethostname", lambda: "box")
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    check = _checks._hostname()
    assert check.status == status
    assert text in check.text
    assert bool(check.advice) == (status == "WARN")
