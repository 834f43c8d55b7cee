"""Every example, run as its reader would: the server, and the client with the URIs that the server printed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pyroplug.api import Proxy
from testkit.source import TREE

EXAMPLES = TREE / "examples"


@dataclass(frozen=True)
class Example:
    """What a pair of programs must print; each text is a part of the output."""

    folder: str
    client_says: tuple[str, ...]
    server_says: tuple[str, ...] = ()
    server: str = "server.py"
    client: str = "client.py"
    client_code: int = 0
    proves: tuple[str, ...] = ()
    name_server: bool = False
    """Whether one has to run."""


PAIRS = [
    Example("naming", (
        "by name: Hull: sunny spells",
        "by tags: Leeds: sunny spells",
        "all names: ['example.weather']",
        "tags: ['class:__main__.Weather', 'english', 'example']",
        "two names, one object: True",
        "removed: 1",
        "error: unknown name: example.wether",
    ), (
        "published as example.weather:",
    ), proves=("F013", "F018", "F177", "F206", "F272", "F273", "F274", "F278"), name_server=True),
    Example("providers", (
        "cellar prints a poster",
        "attic prints page",
        "cellar prints page",
        "example.printer.attic ['a4', 'printer']",
        "one that answers:",
    ), proves=("F272",), name_server=True),
    Example("async", (
        "ready at once: False False",
        "50 is the end of the chain",
        "error handler: division by zero",
        "awaited: [1, 2, 3]",
        "batch: [2, 4]",
    ), proves=("F095", "F096", "F097", "F098")),
    Example("attributes", (
        "target is 20.0",
        "target is 21.5 and the reading 21.0",
        "refused: 90 degrees is out of range",
        "read only: ",
        "not exposed: ",
    )),
    Example("autoproxy", (
        "got a Proxy for Emma",
        "balances: 100 250",
        "richest: Otto",
        "closed: unknown object",
    )),
    Example("autoreconnect", (
        "talking to generation 1\nlost: ",
        "Error\ntalking to generation 2",
    )),
    Example("autoretry", (
        "no retries: TimeoutError\nwith retries: fetched by call number 3\nidempotent: seen by call number 3",
    )),
    Example("batchedcalls", (
        "made so far: 0",
        "results: [10, 11, 12, 13, 14]",
        "first: 2\nsecond: division by zero\ncalls made in all: 7",
    )),
    Example("blob_dispatch", (
        "answer: 3 items",
    ), (
        "received on weather: ['rain', 'wind', {'degrees': 7.5}]",
    )),
    Example("callback", (
        "soup: started\nsoup: half done\nsoup: served\ntips: 3",
        "pyroplug.callback: ",
        "ValueError: this is burnt",
        "the guest says: this is burnt",
    )),
    Example("callcontext", (
        "correlation: 11111111-2222-3333-4444-555555555555",
        "annotation: for the desk",
        "came back: seen by the desk",
    )),
    Example("compression", (
        "compressed: 30000 characters came as 1",
        "plain: 30000 characters came as 3",
    )),
    Example("dataclasses", (
        "total: Decimal('15.50')",
        "paid: True Order Status.PAID",
        "ours is still Status.OPEN",
        "count: {<Status.OPEN: 'open'>: 1, <Status.PAID: 'paid'>: 2}",
        "out of stock: rare things 0",
    ), (
        "order of Emma placed 2026-03-01T12:00:00+00:00",
    ), proves=("F133",)),
    Example("errorhook", (
        "the client gets the exception as ever: division by zero",
    ), (
        "divide(1, 0) raised ZeroDivisionError: division by zero",
        "forget() raised RuntimeError: nobody waits for this",
    )),
    Example("eventloop", (
        "method(42) = 84 and 42",
        "the loop also saw: ['knock']",
    )),
    Example("eventloop", (
        "daemons: public internal",
        "different ports: True",
    ), server="server_combined.py", client="client_combined.py"),
    Example("exceptions", (
        "KeyError: 'plum'",
        "RemoteError: __main__.OutOfStock ('apple', 2) {'left': 2}",
        "is it OutOfStock? True",
        " +--- This exception occured remotely (Pyro) - Remote traceback:\n | Traceback (most recent call last):",
        " |     return total / people",
        " | ZeroDivisionError: division by zero\n +--- End of remote traceback",
    ), client_code=1),
    Example("futures", (
        "meanwhile: 0.03",
        "results: ['picture of Vega', 'picture of Deneb', 'picture of Altair']",
        "no such star: 'Sirius'",
        "single: 1.25",
        "chained: READY!",
    )),
    Example("handshake", (
        "refused: wrong password",
        "the server says: welcome, alibaba\ncontent: gold",
    ), (
        "disconnected: alibaba",
    )),
    Example("instancemode", (
        "single: 1 instance(s), calls seen [1, 2, 3]",
        "session: 2 instance(s), calls seen [1, 2, 1]",
        "percall: 3 instance(s), calls seen [1, 1, 1]",
        "creator: made by the creator",
    )),
    Example("asyncio", ("reached: 10", "grown: True")),
    Example("leases", (
        "letter: a letter | memo: a memo",
        "Desk: permanent, Note: leased, Note: session",
        "renewed for 0.5 seconds; still: a memo",
        "letter: unknown object",
        "memo: unknown object",
        "\nDesk: permanent\n",
    ), (
        "reaped: a letter",
        "reaped: a memo",
    ), proves=("F059", "F060")),
    Example("logwire", (
        "pyroplug.wire: sent to ",
        "CONNECT flags=0x0",
        "CONNECTOK",
        '"method": "method"',
        "method(42) = 84",
    )),
    Example("maxsize", (
        "small: 9000",
        "our limit: True, limit 10000, still connected: True",
        "the server's limit: connection closed",
        "the server's limit, on the way back: MessageTooLargeError",
    )),
    Example("nonameserver", ("method(42) = 84",), proves=("F062",)),
    Example("nonameserver", (
        "method(42) = 84",
    ), (
        "Pyro daemon running on ",
    ), server="server_simple.py", proves=("F062",)),
    Example("numpy-arrays", (
        "counts: [250 250 250 250] edges: float64 (5,)",
        "solved: [2. 3.]",
        "norm: 5.0 float32",
        "days: 2026-01-01 2026-01-02 2026-01-03",
        "refused: numpy arrays of dtype object cannot be sent",
    ), (
        "got float64 (10, 100)",
    ), proves=("F142",)),
    Example("oneway", (
        "answers: [None, None, None]",
        "waited for the slow disk: False",
        "written: ['line 0', 'line 1', 'line 2']",
    ), (
        "failed: RuntimeError('the client will never know; the server logs it')",
    )),
    Example("proxysharing", (
        "wrong answers: 0",
        "calls counted: 1600",
        "the copy counts too: 1601",
    )),
    Example("resourcetracking", (
        "the laser is free again: True",
        "still in use: ['camera']",
    )),
    Example("ser_custom", (
        "before: SecurityError",
        "serpent: Price 5.00 EUR",
        "json: Price 5.00 EUR",
        "msgpack: Price 5.00 EUR",
    )),
    Example("servertypes", (
        "thread: at most 3 call(s) at a time",
        "multiplex: at most 1 call(s) at a time",
    )),
    Example("streaming", (
        "names: ['north', 'south']",
        "stopped at: 0.6",
        "made all: False - the generator was closed: True",
    )),
    Example("synchronized", (
        "open: several calls at a time",
        "guarded: one call at a time",
    )),
    Example("timeout", (
        "quick: 42",
        "too slow: ",
        "connected: False",
        "next call: 42",
        "timeout of this kernel's proxies: 2.0",
    )),
    Example("deadlines", (
        "without haste: it shines",
        "the server knows the time: True",
        "not in time",
        "the server stopped: True",
        "cancelled: True",
    )),
    Example("unixdomainsock", (
        "scheme: u host: None",
        "the socket file: s",
    ), (
        "removed: True",
    )),
    Example("upload", (
        "mean: 4.5",
        "the generator was closed early\nfirst above 5: 5.1",
        "no mean: the sensor is unplugged",
    )),
    Example("usersession", (
        "Emma has pear, kiwi\nOtto has plum\nOtto has nothing",
    )),
    Example("weak", (
        "title: letter",
        "gone: unknown object",
    )),
    Example("filetransfer", (
        "whole: 4194304 bytes in 1 piece(s), right: True",
        "as a stream: 4194304 bytes in 64 piece(s), right: True",
        "in annotations: 4194304 bytes in 64 piece(s), right: True",
    ), proves=("F240",)),
    Example("deadlock", (
        "client: calling\nserver: calling back\nclient: calling\nserver: calling back\nclient: enough",
        "refused, because the only thread would wait for itself: 2 daemons in a circle",
    ), proves=("F105", "F106")),
]  # fmt: skip

ALONE = [
    ("discovery/discovery.py", ("nobody: failed to locate", "by its file: True", "by its place: True")),
    ("naming_embedded/embedded.py", ("it is half past nine and there are 2 names", "left: ['Pyro.NameServer']")),
    (
        "naming_leases/crash.py",
        (
            "refused: name already registered",
            "still there: True",
            "free after the end of the lease: True\nworking: the second",
        ),
    ),
    (
        "naming_restart/restart.py",
        ("from the file: PYRO:archive@localhost:4444", "still published: nothing", "registered again: True"),
    ),
    ("socketpair/with_threads.py", ("@<<connected-socket>>:0", "method(42) = 84", "still open: True")),
    (
        "socketpair/with_fork.py",
        ("the worker is the child: True", "square(12) = 144", "the child ended with 0"),
    ),
]


def _name(example: Example) -> str:
    return example.folder + ("" if example.server == "server.py" else f"-{Path(example.server).stem}")


@pytest.mark.parametrize(
    "example",
    [pytest.param(pair, id=_name(pair), marks=[pytest.mark.feature(one) for one in pair.proves]) for pair in PAIRS],
)
def test_server_and_client(
    example: Example,
    examples: Path,
    start: Callable[..., Any],
    run: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    settings = {}
    if example.name_server:
        (uri,) = start("-m", "pyroplug", "ns", "-n", "localhost", "-p", "0", "-s", "memory").wait_until_ready()
        settings["PYRO_NS_PORT"] = uri.rpartition(":")[2]
    server = start(examples / example.folder / example.server, env=settings)
    uris = server.wait_until_ready()
    result = run(examples / example.folder / example.client, *uris, env=settings)
    assert result.returncode == example.client_code, result.stdout
    for text in example.client_says:
        assert text in result.stdout
    # the client has told the server to stop, and it has nothing left to do
    output = server.finish()
    assert server.process.returncode == 0, output
    for text in example.server_says:
        assert text in output
    assert "Traceback" not in output


@pytest.mark.parametrize(("program", "says"), ALONE, ids=[program for program, _ in ALONE])
def test_program_alone(
    program: str, says: tuple[str, ...], examples: Path, run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    result = run(examples / program)
    if "SKIPPED" in result.stdout:
        pytest.skip(result.stdout.strip())
    assert result.returncode == 0, result.stdout
    for text in says:
        assert text in result.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for other processes there")
@pytest.mark.parametrize("server", ["nonameserver/server.py", "nonameserver/server_simple.py"])
def test_ctrl_c_ends_a_server_without_a_traceback(server: str, examples: Path, start: Callable[..., Any]) -> None:
    program = start(examples / server)
    (uri,) = program.wait_until_ready()
    with Proxy(uri) as thing:
        assert thing.method(1) == 2  # it is inside the request loop now
    program.process.send_signal(signal.SIGINT)
    output = program.finish()
    assert program.process.returncode == 0, output
    assert "Traceback" not in output


def test_each_example_is_run_and_listed() -> None:
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir() and not path.name.startswith((".", "_"))}
    pairs = {pair.folder for pair in PAIRS}
    alone = {program.partition("/")[0] for program, _ in ALONE}
    elsewhere = {"demo", "plugins"}
    assert folders == pairs | alone | elsewhere
    listed = (EXAMPLES / "README.md").read_text("utf-8")
    assert [folder for folder in sorted(folders) if f"({folder}/)" not in listed] == []
