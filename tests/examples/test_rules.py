"""The rules that the documentation gives: each is shown with real calls, and the page still has its section."""

from __future__ import annotations

import array
import collections
import copy
import datetime
import decimal
import fractions
import gc
import io
import logging
import pickle
import re
import subprocess
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyroplug.api import (
    CircularCallError,
    CommunicationError,
    Daemon,
    OverloadError,
    Proxy,
    SerializeError,
    TimeoutError,
    current_context,
    expose,
    oneway,
)
from pyroplug.testing.kernels import PATIENCE, Served, make_kernel
from pyroplug.testing.transports import in_thread
from testkit.source import TREE

SERIALIZERS = "docs/howto/serializers.md"
INTERFACES = "docs/howto/design-remote-interfaces.md"
CONCURRENCY = "docs/explanation/concurrency.md"
LOOPS = ("thread", "multiplex")
SAFE = ("serpent", "json", "msgpack")


def section(page: str, heading: str) -> str:
    """The text of a section of a page, which must exist."""
    level, fenced, lines = 0, False, []
    for line in (TREE / page).read_text("utf-8").splitlines(keepends=True):
        fenced ^= line.startswith("```")
        marks, _, title = line.partition(" ")
        if not fenced and marks and not marks.strip("#"):  # a heading
            if level and len(marks) <= level:
                break
            if title.strip() == heading:
                level = len(marks)
                continue
        if level:
            lines.append(line)
    assert level, f"{page} has no section {heading!r}"
    return "".join(lines)


def block(text: str, containing: str) -> str:
    """The program in a text that contains something."""
    programs = [
        program
        for program in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        if containing in program
    ]
    assert len(programs) == 1
    return str(programs[0])


class Gate:
    """A method can wait at it; the test sees who is there, and opens it."""

    def __init__(self) -> None:
        self.arrived = threading.Semaphore(0)
        self.opened = threading.Event()

    def wait(self) -> None:
        self.arrived.release()
        assert self.opened.wait(PATIENCE)

    def reached(self, times: int = 1) -> None:
        for _ in range(times):
            assert self.arrived.acquire(timeout=PATIENCE)


@expose
class Thing:
    """What the rules are tried with."""

    def __init__(self) -> None:
        self._stock = {f"article {number}": number for number in range(2000)}
        self._log = open("/dev/null", "w")  # noqa: SIM115 - a file as a server-only attribute
        self.gate = Gate()
        self.me: Callable[[], Proxy] | None = None
        self.threads: list[int] = []

    def close(self) -> None:
        self._log.close()

    @property
    def stock(self) -> dict[str, int]:
        return self._stock

    def count(self, article: str) -> int:
        return self._stock[article]

    def set_count(self, article: str, number: int) -> None:
        self._stock[article] = number

    def echo(self, value: Any) -> Any:
        return value

    def kind(self, value: Any) -> str:
        return type(value).__name__

    def log(self, line: str) -> int:
        return self._log.write(line)

    def lines(self) -> Any:
        return io.StringIO("one\ntwo\n")

    def lock(self) -> Any:
        return self.gate.opened

    def wait(self) -> str:
        self.gate.wait()
        return "waited"

    @oneway
    def wait_unheard(self) -> None:
        self.gate.wait()

    def thread(self) -> int:
        return threading.get_ident()

    def visit(self) -> int:
        session = current_context.session
        session.visits = getattr(session, "visits", 0) + 1
        return int(session.visits)

    def call_back(self, depth: int) -> int:
        """A call that comes back to the same daemon, and the same object."""
        if not depth:
            return 0
        assert self.me is not None
        with self.me() as me:
            return 1 + int(me.call_back(depth - 1))


@pytest.fixture
def thing() -> Iterator[Thing]:
    made = Thing()
    yield made
    made.gate.opened.set()
    made.close()


def results(caplog: pytest.LogCaptureFixture) -> list[int]:
    """The sizes of the results that the log of the wire shows, as the client got them."""
    found = (re.search(r"^received from .*?: RESULT .*? size=(\d+) ", entry.getMessage()) for entry in caplog.records)
    return [int(match[1]) for match in found if match]


# --------------------------------------------------------------------------- large structures, object graphs
@pytest.mark.feature("F057")
def test_an_item_of_a_property_ships_all_of_it(thing: Thing, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "pyroplug.wire")
    with Served("tcp4", settings={"LOGWIRE": True}) as served:
        served.publish(thing)
        proxy = served.proxy()

        def size(call: Callable[[], Any]) -> int:
            caplog.clear()
            assert call() == 7
            (result,) = results(caplog)
            return result

        proxy.echo(0)
        whole, one = size(lambda: proxy.stock["article 7"]), size(lambda: proxy.count("article 7"))
        assert whole > len(thing.stock) * len("'article 7':7")
        assert one < 100
        # and the item that is set is one of a copy
        proxy.stock["article 7"] = 100
        assert proxy.count("article 7") == 7
        proxy.set_count("article 7", 100)
        assert proxy.count("article 7") == 100
    assert "whole" in section(INTERFACES, "Large structures")


@pytest.mark.feature("F143")
@pytest.mark.parametrize("serializer", SAFE)
def test_a_graph_is_copied_with_the_object_that_is_passed(serializer: str, thing: Thing) -> None:
    """Ten customers that know each other's orders: what is needed is a small part of what is sent."""
    orders = [{"number": number, "text": "x" * 100} for number in range(50)]
    customer = {"id": 7, "name": "Emma", "orders": orders}
    with Served(settings={"SERIALIZER": serializer, "SERIALIZERS_ACCEPTED": {serializer}}) as served:
        served.publish(thing)
        codec = served.kernel.codecs()[serializer]
        whole = len(codec.dumps_call("thing", "echo", (customer,), {}))
        needed = len(codec.dumps_call("thing", "echo", ({"id": 7, "name": "Emma"},), {}))
        assert whole > 30 * needed
        arrived = served.proxy().echo(customer)
        assert arrived == customer
        assert arrived["orders"] is not orders  # all of it was made anew, twice
    text = section(SERIALIZERS, "Keep messages small and plain")
    assert "graph" in text
    assert "bytes" in text


# --------------------------------------------------------------------------- what survives
class Plain:
    """A class that nobody has registered."""

    def __init__(self) -> None:
        self.a = 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plain)

    __hash__ = None  # type: ignore[assignment]


UTC = datetime.timezone.utc
SAMPLES: dict[str, list[Any]] = {
    "numbers, text, lists, dicts": [2**100, 1.5, True, None, "text", [1, [2]], {"a": {"b": 1}}],
    "tuples": [(1, 2)],
    "sets, `deque`, `array`": [{1, 2}, collections.deque([1, 2]), array.array("i", [1, 2])],
    "sets": [{1, 2}],
    "`bytes`, complex numbers": [b"\0\xff", 1 + 2j],
    "`bytes`": [b"\0\xff"],
    "complex numbers": [1 + 2j],
    "dict keys that are numbers": [{1: "one"}],
    "`datetime`, `date`, `Decimal`, `UUID`, `Fraction`": [
        datetime.datetime(2026, 1, 2, 3, 4, 5, 6),
        datetime.datetime(2026, 1, 2, tzinfo=UTC),
        datetime.date(2026, 1, 2),
        decimal.Decimal("1.50"),
        uuid.UUID(int=5),
        fractions.Fraction(1, 3),
    ],
    "`datetime` without time zone, `date`": [datetime.datetime(2026, 1, 2, 3, 4, 5, 6), datetime.date(2026, 1, 2)],
    "`datetime` with time zone": [datetime.datetime(2026, 1, 2, tzinfo=UTC)],
    "`Decimal`, `UUID`": [decimal.Decimal("1.50"), uuid.UUID(int=5)],
    "`Fraction`": [fractions.Fraction(1, 3)],
    "objects of your classes": [Plain()],
}
NO_VALUES = {"safe to accept from anybody", "loaded"}


def table(which: str) -> dict[str, dict[str, str]]:
    """One of the tables of the page: what it says of each kind of value, by serializer."""
    text = (TREE / SERIALIZERS).read_text("utf-8")
    lines = text.partition(f"<!-- values: {which} -->\n")[2].partition("\n\n")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    head, _, *body = rows
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in body}


def what_becomes_of(proxy: Proxy, value: Any) -> str:
    """In the words of the table."""
    try:
        arrived = proxy.echo(value)
    except CommunicationError:
        return "refused"
    except Exception as exc:  # SecurityError for classes; anything else is no refusal
        return "refused" if type(exc).__name__ == "SecurityError" else repr(exc)
    if type(arrived) is type(value) and arrived == value:
        return "yes"
    if isinstance(value, dict) and list(arrived) == [str(key) for key in value]:
        return "as text"
    return {"str": "as text", "list": "as lists"}.get(type(arrived).__name__, repr(arrived))


@pytest.mark.feature("F134")
@pytest.mark.parametrize("which", ["typed", "plain"])
@pytest.mark.parametrize("serializer", [*SAFE, "marshal", "pickle"])
def test_the_tables_of_what_survives_are_true(which: str, serializer: str, thing: Thing) -> None:
    rows = table(which)
    assert {"tuples", "objects of your classes", "dict keys that are numbers"} <= set(rows)
    settings = {"SERIALIZER": serializer, "SERIALIZERS_ACCEPTED": {serializer}, "TYPED_VALUES": which == "typed"}
    with Served(settings=settings) as served:
        served.publish(thing)
        proxy = served.proxy()
        for kind, cells in rows.items():
            if kind in NO_VALUES:
                continue
            (said,) = (text for names, text in cells.items() if serializer in names)
            for value in SAMPLES[kind]:
                assert what_becomes_of(proxy, value) == said, f"{kind}: {value!r}"
        # exceptions of Python, URIs and proxies arrive as such, always
        error = proxy.echo(ValueError("as it was", 5))
        assert type(error) is ValueError
        assert error.args == ("as it was", 5)
        assert proxy.echo(proxy._pyroUri) == proxy._pyroUri
        assert proxy.echo(proxy) == proxy


@pytest.mark.feature("F136")
@pytest.mark.parametrize("serializer", SAFE)
def test_what_belongs_to_a_process_stays_there(serializer: str, thing: Thing) -> None:
    with Served(settings={"SERIALIZER": serializer, "SERIALIZERS_ACCEPTED": {serializer}}) as served:
        served.publish(thing)
        proxy = served.proxy()
        for value in (thing._log, threading.Lock(), threading.current_thread(), len, [iter([1])]):
            with pytest.raises(SerializeError):
                proxy.echo(value)
        with pytest.raises(SerializeError):
            proxy.lock()
        assert list(proxy.lines()) == ["one\n", "two\n"]  # a file that is returned is an iterator
        assert proxy.log("line") == 4  # as an attribute of the server's object the file does no harm
    assert "private attributes" in section(SERIALIZERS, "What can never travel")


@pytest.mark.feature("F136")
def test_pickle_carries_no_files_either(thing: Thing) -> None:
    with Served(settings={"SERIALIZER": "pickle", "SERIALIZERS_ACCEPTED": {"pickle"}}) as served:
        served.publish(thing)
        with pytest.raises(SerializeError):
            served.proxy().echo(thing._log)


# --------------------------------------------------------------------------- pickle
@pytest.mark.feature("F135", "F138")
def test_pickle_has_to_be_named_on_both_ends(thing: Thing) -> None:
    with Served("tcp4") as served:  # a daemon that nobody has told
        served.publish(thing)
        client = make_kernel(SERIALIZER="pickle")
        with (
            served.proxy(kernel=client) as proxy,
            pytest.raises(CommunicationError, match=r"not accepted: 104 .*serpent"),
        ):
            proxy.echo(1)
    with Served("tcp4", settings={"SERIALIZERS_ACCEPTED": {"pickle"}}) as served:
        served.publish(thing)
        with (
            served.proxy(kernel=make_kernel()) as proxy,
            pytest.raises(CommunicationError, match=r"not accepted: 1 .*pickle"),
        ):
            proxy.echo(1)  # a client that nobody has told
        with served.proxy(kernel=client) as proxy:
            assert proxy.echo(Plain()) == Plain()  # both ends: objects travel without further ado
    text = section(SERIALIZERS, "Programs that relied on pickle")
    assert text.index("Redesign") < text.index("PYRO_SERIALIZERS_ACCEPTED=pickle") < text.index("old release")
    assert "both sides" in section(SERIALIZERS, "Opt-in serializers need both ends")


@pytest.mark.feature("F138")
@pytest.mark.parametrize("version", [2, 4, pickle.HIGHEST_PROTOCOL])
def test_the_pickle_protocol_of_the_older_python_can_be_named(version: int, thing: Thing) -> None:
    settings = {"SERIALIZER": "pickle", "SERIALIZERS_ACCEPTED": {"pickle"}, "PICKLE_PROTOCOL_VERSION": version}
    with Served(settings=settings) as served:
        served.publish(thing)
        data = bytes(served.kernel.codecs()["pickle"].dumps([1, "two"]))
        assert data[:2] == bytes([0x80, version])  # PROTO and its number
        assert served.proxy().echo([1, "two"]) == [1, "two"]
    assert "PYRO_PICKLE_PROTOCOL_VERSION" in section(SERIALIZERS, "Opt-in serializers need both ends")


@pytest.mark.feature("F141")
@pytest.mark.parametrize("serializer", ["pickle", "msgpack", "marshal", "serpent"])
def test_bytes_are_one_block(serializer: str) -> None:
    """As the page says: a block in most formats, a third more in serpent; a list of numbers costs much more."""
    data = bytes(range(256)) * 40
    kernel = make_kernel(SERIALIZERS_ACCEPTED={serializer})
    codec = kernel.codecs()[serializer]
    size = len(codec.dumps(data))
    if serializer == "serpent":
        assert 1.3 * len(data) < size < 1.4 * len(data)
    else:
        assert len(data) <= size < len(data) + 100
    assert codec.loads(codec.dumps(data)) == data
    assert len(codec.dumps(list(data))) > 1.4 * len(data)
    if serializer == "pickle":
        for block_of in (bytearray(data), array.array("B", data)):
            assert len(codec.dumps(block_of)) < len(data) + 200
            assert codec.loads(codec.dumps(block_of)) == block_of
        assert type(codec.loads(codec.dumps("text"))) is str
    kernel.close()
    assert "Pass `bytes`" in section(SERIALIZERS, "Keep messages small and plain")


@pytest.mark.feature("F140")
def test_the_speeds_can_be_measured(run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    """The program on the page measures each format with each kind of data, and says what cannot travel."""
    text = section(SERIALIZERS, "How fast are they?")
    path = tmp_path / "speed.py"
    path.write_text(block(text, "perf_counter"), "utf-8")
    result = run(path)
    assert result.returncode == 0, result.stdout
    lines = [line.split() for line in result.stdout.splitlines()]
    found = {(words[0], words[1]): words[2] for words in lines if len(words) in (3, 4)}
    names = ("serpent", "json", "msgpack", "marshal", "pickle")
    measured = {key: float(value) for key, value in found.items() if key[0] in names and value != "cannot"}
    kinds = {"text", "bytes", "numbers"}
    assert set(measured) == {(name, kind) for name in names for kind in kinds} - {("json", "bytes")}
    assert found["json", "bytes"] == "cannot"
    # what the page's own table says, with a wide margin: the binary formats are ahead of the text ones
    assert measured["pickle", "text"] < measured["serpent", "text"]
    assert measured["msgpack", "numbers"] < measured["serpent", "numbers"]
    for name in names:
        assert re.search(rf"^\| {name} \|", text, re.MULTILINE), f"no figures for {name}"


# --------------------------------------------------------------------------- concurrency
@pytest.mark.feature("F152", "F158")
@pytest.mark.parametrize("loop", LOOPS)
def test_a_method_that_waits_holds_up_others_only_where_one_call_runs_at_a_time(loop: str, thing: Thing) -> None:
    with Served("tcp4", loop) as served:
        served.publish(thing)
        waiting, other = served.proxy(), served.proxy()
        other.echo(0)
        job = in_thread(waiting.wait)
        thing.gate.reached()
        answer = in_thread(other.echo, 1)
        if loop == "thread":
            assert answer.result(PATIENCE) == 1
            assert not job.done()
        else:
            time.sleep(0.1)
            assert not answer.done()
        thing.gate.opened.set()
        assert (job.result(PATIENCE), answer.result(PATIENCE)) == ("waited", 1)
    text = section(CONCURRENCY, "Which loop?")
    assert "wait" in text
    assert "compute" in text


@pytest.mark.feature("F158")
def test_multiplex_is_for_objects_that_want_one_thread(thing: Thing) -> None:
    """What threads are wrong for: every call of every client runs in the thread of the loop, none beside it."""
    with Served("tcp4", "multiplex") as served:
        served.publish(thing)
        proxies = [served.proxy() for _ in range(5)]
        jobs = [in_thread(lambda p=proxy: {p.thread() for _ in range(10)}) for proxy in proxies]
        assert len(set().union(*(job.result(PATIENCE) for job in jobs))) == 1
    text = section(CONCURRENCY, "Which loop?")
    for reason in ("Threads are the wrong choice", "one thread", "computing", "very few clients", "locks"):
        assert reason in text


@pytest.mark.feature("F105", "F106")
@pytest.mark.parametrize("loop", LOOPS)
def test_a_call_that_comes_back(loop: str, thing: Thing) -> None:
    with Served("tcp4", loop) as served:
        served.publish(thing)
        thing.me = served.proxy
        proxy = served.proxy()
        if loop == "thread":
            assert proxy.call_back(3) == 3
        else:
            with pytest.raises(CircularCallError):
                proxy.call_back(1)
    assert "CircularCallError" in section(CONCURRENCY, "A call that comes back")


@pytest.mark.feature("F106")
def test_a_circle_stops_at_a_proxy_that_is_in_use(thing: Thing) -> None:
    """With an old peer, also where calls run side by side; a copy of the proxy is the way out."""
    with Served("tcp4", "thread", environ={"PYRO_DISABLE_PLUGINS": "mux"}) as served:
        served.publish(thing)
        shared, timed = served.proxy(), served.proxy()
        job = in_thread(shared.wait)
        thing.gate.reached()
        blocked = in_thread(shared.echo, 1)  # what a method in the circle would do
        with copy.copy(shared) as other:
            assert other.echo(2) == 2
        timed._pyroTimeout = 0.1
        with pytest.raises(TimeoutError):
            timed.wait()
        assert not blocked.done()
        thing.gate.opened.set()
        assert (job.result(PATIENCE), blocked.result(PATIENCE)) == ("waited", 1)
    text = section(CONCURRENCY, "A call that comes back")
    for way in ("copy.copy(proxy)", "@oneway", "_pyroTimeout"):
        assert way in text


@pytest.mark.feature("F153")
def test_more_proxies_than_threads_do_not_freeze_a_server(thing: Thing) -> None:
    settings = {"THREADPOOL_SIZE": 2, "THREADPOOL_SIZE_MIN": 1, "CALL_QUEUE_SIZE": 0}
    with Served("tcp4", "thread", settings=settings) as served:
        served.publish(thing)
        proxies = [served.proxy() for _ in range(20)]
        assert [proxy.echo(number) for number, proxy in enumerate(proxies)] == list(range(20))
        # what does fill the pool are calls that wait
        jobs = [in_thread(proxy.wait) for proxy in proxies[:2]]
        thing.gate.reached(2)
        with pytest.raises(OverloadError):
            proxies[3].echo(1)
        thing.gate.opened.set()
        assert [job.result(PATIENCE) for job in jobs] == ["waited"] * 2
    text = section(CONCURRENCY, "No thread for each client")
    for cure in ("THREADPOOL_SIZE", "COMMTIMEOUT", "_pyroRelease"):
        assert cure in text


@pytest.mark.feature("F153")
def test_a_server_hangs_up_on_silent_clients(thing: Thing, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("_base", "thread"):
        monkeypatch.setattr(f"pyroplug.transports.servers.{module}.SWEEP_INTERVAL", 0.02)
    with Served("tcp4", "thread", settings={"COMMTIMEOUT": 0.1}) as served, served.peer() as peer:
        served.publish(thing)
        peer.hello()
        assert peer.ended()


@pytest.mark.feature("F163")
def test_what_objects_can_rely_on(thing: Thing) -> None:
    with Served("tcp4", "thread") as served:
        served.publish(thing)
        first, second = served.proxy(), served.proxy()
        # one object serves all calls
        first.set_count("article 1", 55)
        assert second.count("article 1") == 55
        # what belongs to a client is kept with its connection
        assert [first.visit(), first.visit(), second.visit()] == [1, 2, 1]
        # a method may be entered again while it runs
        thing.me = served.proxy
        assert first.call_back(2) == 2
        # a oneway call runs beside the next calls of its client
        first.wait_unheard()
        thing.gate.reached()
        assert first.echo("beside") == "beside"
        # calls of threads that share a proxy run side by side, as do those of copies
        jobs = [in_thread(first.wait), in_thread(first.wait), in_thread(copy.copy(first).wait)]
        thing.gate.reached(3)
        assert first.echo(3) == 3
        assert second.echo(4) == 4
        thing.gate.opened.set()
        assert [job.result(PATIENCE) for job in jobs] == ["waited"] * 3
    text = section(CONCURRENCY, "What your objects can rely on")
    for word in ("made once", "entered again", "oneway", "share a proxy", "current_context.session", "threading.local"):
        assert word in text


@pytest.mark.feature("F163")
def test_the_calls_of_a_client_are_not_bound_to_a_thread(thing: Thing) -> None:
    """Why nothing of a client belongs into ``threading.local``: two clients may be served by one thread."""
    with Served("tcp4", "thread") as served:
        served.publish(thing)
        proxies = [served.proxy() for _ in range(6)]
        threads = {proxy.thread() for _ in range(5) for proxy in proxies}
        assert len(threads) < len(proxies)


@pytest.mark.feature("F048")
@pytest.mark.parametrize("loop", LOOPS)
def test_who_keeps_a_daemon(loop: str, thing: Thing) -> None:
    """Its request loop does, while it runs; the objects that are registered never do."""
    kernel = make_kernel(SERVERTYPE=loop)
    daemon = Daemon(memory=True, kernel=kernel)
    uri = daemon.register(thing, "thing")
    kept = weakref.ref(daemon)
    thread = threading.Thread(target=daemon.requestLoop)
    thread.start()
    del daemon
    gc.collect()
    with Proxy(uri, kernel=kernel) as proxy:
        assert proxy.echo(1) == 1
    running = kept()
    assert running is not None
    running.shutdown()
    thread.join(PATIENCE)
    del running, thread
    gc.collect()
    assert kept() is None
    kernel.close()
    text = section(CONCURRENCY, "The end")
    assert "keeps the daemon alive while it runs" in text
    assert "Keep a reference" in text


# --------------------------------------------------------------------------- much data
@pytest.mark.feature("F175")
def test_much_data_over_a_socket_of_its_own(
    run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """The program on the page: with its ticket the data comes, with another nothing does."""
    program = block(section(INTERFACES, "Much data"), "create_server")
    for ticket, comes in (("ticket", "True"), ("bytes(16)", "False")):
        path = tmp_path / f"{comes}.py"
        path.write_text(program.replace("connection.sendall(ticket)", f"connection.sendall({ticket})"), "utf-8")
        result = run(path)
        assert (result.returncode, result.stdout.strip()) == (0, comes)
