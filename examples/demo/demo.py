"""The main job, for real: a name server, a server and a client, every transport, every serializer.

``make demo`` runs it.  It starts a name server (the command ``pyroplug ns``) and a server that publishes objects by name, each
a process of its own, finds the objects by their names, calls them in every way there is, checks each answer, measures how
many calls a second go through, and ends by itself: with 0 when everything was as it must be, with 1 and a list of what was
not otherwise.

Read ``publish`` and ``serve`` for the server side and the functions named ``show_...`` for the client side.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pyroplug.api import (
    URI,
    BatchProxy,
    CommunicationError,
    Daemon,
    Kernel,
    NamingError,
    Proxy,
    __version__,
    behavior,
    expose,
    get_pyro_traceback,
    locate_ns,
    oneway,
)

SERIALIZERS = ("serpent", "json", "msgpack")
SECONDS_EACH = 0.25
"""How long calls are counted for each transport and serializer."""
PATIENCE = 20.0
"""Seconds after which the demo gives up, whatever hangs."""
PASS_SOCKETS = os.name == "posix"
"""Whether a child process can be given an open socket."""
UNIX = hasattr(socket, "AF_UNIX")


# ------------------------------------------------------------------------------------------ the server
@expose
class Book:
    """Made on the server while it runs, and registered: clients get proxies for it."""

    def __init__(self, title: str) -> None:
        self._title = title

    @property
    def title(self) -> str:
        return self._title


@expose
class Library:
    """A plain object: one instance that serves all calls."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._titles: list[str] = []
        self._motto = "silence, please"
        self._notes: list[str] = []
        self._noted = threading.Condition()

    def echo(self, value: Any) -> Any:
        return value

    def pid(self) -> int:
        return os.getpid()

    def add(self, title: str, *, year: int = 0) -> int:
        self._titles.append(f"{title} ({year})" if year else title)
        return len(self._titles)

    def __len__(self) -> int:
        return len(self._titles)

    def __getitem__(self, index: int) -> str:
        return self._titles[index]

    @property
    def motto(self) -> str:
        return self._motto

    @motto.setter
    def motto(self, text: str) -> None:
        self._motto = text

    def search(self, text: str) -> Iterator[str]:
        for title in self._titles:
            if text in title:
                yield title

    def borrow(self, index: int) -> Book:
        book = Book(self._titles[index])
        self._daemon.register(book)
        return book

    def lend(self, title: str) -> str:
        shelf = {known: place for place, known in enumerate(self._titles)}
        return f"place {shelf[title]}"

    @oneway
    def note(self, text: str) -> None:
        with self._noted:
            self._notes.append(text)
            self._noted.notify_all()

    def notes(self, count: int) -> list[str]:
        """The notes, once there are so many."""
        with self._noted:
            self._noted.wait_for(lambda: len(self._notes) >= count, timeout=5)
            return self._notes


class _Counted:
    def __init__(self) -> None:
        self._calls = 0


@expose
@behavior(instance_mode="single")
class Single(_Counted):
    def call(self) -> int:
        self._calls += 1
        return self._calls


@expose
@behavior(instance_mode="session")
class Session(_Counted):
    def call(self) -> int:
        self._calls += 1
        return self._calls


@expose
@behavior(instance_mode="percall")
class PerCall(_Counted):
    def call(self) -> int:
        self._calls += 1
        return self._calls


def publish(daemon: Daemon) -> None:
    """Register a plain object and three classes."""
    daemon.register(Library(daemon), "demo.library")
    for cls in (Single, Session, PerCall):
        daemon.register(cls, f"demo.{cls.__name__.lower()}")


def serve(unixsocket: str, descriptor: int) -> None:
    """The server process: all daemons at once, until the standard input is closed."""
    daemons = {"tcp": Daemon()}
    if unixsocket:
        daemons["unix"] = Daemon(unixsocket=unixsocket)
    given = socket.socket(fileno=descriptor) if descriptor >= 0 else None
    if given is not None:
        daemons["socketpair"] = Daemon(connected_socket=given)
    loops = [threading.Thread(target=daemon.requestLoop) for daemon in daemons.values()]
    for daemon, loop in zip(daemons.values(), loops, strict=True):
        publish(daemon)
        loop.start()
    # by name, over TCP: as long as this process lives, anybody finds them who finds the name server
    for name in ("demo.library", "demo.single"):
        daemons["tcp"].publish(daemons["tcp"].uriFor(name), name, metadata={"demo", name.partition(".")[2]})
    # one line tells the parent where everything is, and that it is ready
    print(json.dumps({name: daemon.locationStr for name, daemon in daemons.items()}), flush=True)
    sys.stdin.read()
    for daemon in daemons.values():
        daemon.shutdown()
    for loop in loops:
        loop.join()
    for daemon in daemons.values():
        daemon.close()  # takes the names back
    if given is not None:
        given.close()


# ------------------------------------------------------------------------------------------ the client
class Report:
    """Prints what was called and what came back; remembers what was wrong."""

    def __init__(self) -> None:
        self.checks = 0
        self.problems: list[str] = []

    def title(self, text: str) -> None:
        print(f"\n{text}\n{'-' * len(text)}")

    def check(self, what: str, got: Any, expected: Any) -> None:
        self.checks += 1
        wrong = "" if got == expected else f"   <-- WRONG, expected {expected!r}"
        if wrong:
            self.problems.append(f"{what} gave {got!r}, expected {expected!r}")
        print(f"  {what:<42} {got!r}{wrong}")


class Place:
    """One transport: how to get a proxy for an object that is published over it."""

    def __init__(self, name: str, location: str, kernel: Kernel, given: socket.socket | None = None) -> None:
        self.name, self.location, self._kernel, self._given = name, location, kernel, given

    def proxy(self, object_id: str) -> Any:
        if self._given is not None:
            return Proxy(object_id, connected_socket=self._given, kernel=self._kernel)
        return Proxy(f"PYRO:{object_id}@{self.location}", kernel=self._kernel)


def show_names(report: Report, kernel: Kernel) -> None:
    """The name server as a phone book; objects by name and by tags, whoever serves them."""
    with locate_ns(kernel=kernel) as ns:
        report.title(f"Names, in the name server {ns._pyroUri}")
        report.check("list(ns.list(prefix='demo.'))", sorted(ns.list(prefix="demo.")), ["demo.library", "demo.single"])
        report.check("ns.lookup('demo.library').object", ns.lookup("demo.library").object, "demo.library")
    for uri in ("PYRONAME:demo.library", "PYROMETA:demo,library"):
        with Proxy(uri, kernel=kernel) as library:
            report.check(f"Proxy({uri!r}).echo(1)", library.echo(1), 1)
    try:
        kernel.resolve("PYRONAME:demo.librarian")
        answer = "found"
    except NamingError as error:
        answer = str(error)
    report.check("PYRONAME:demo.librarian", answer, "unknown name: demo.librarian")


def show_calls(report: Report, place: Place) -> None:
    """Methods, keyword arguments, attributes, len, index, iteration, oneway."""
    with place.proxy("demo.library") as library:
        report.title(f"Calls, over {place.name}: {library._pyroUri}")
        report.check("in another process", library.pid() != os.getpid(), True)
        report.check("library.add('Emma', year=1815)", library.add("Emma", year=1815), 1)
        report.check("library.add('Ulysses')", library.add("Ulysses"), 2)
        report.check("library.motto", library.motto, "silence, please")
        library.motto = "read on"
        report.check("library.motto, after assigning to it", library.motto, "read on")
        report.check("len(library)", len(library), 2)
        report.check("library[0]", library[0], "Emma (1815)")
        report.check("list(library)", list(library), ["Emma (1815)", "Ulysses"])
        report.check("'Ulysses' in library", "Ulysses" in library, True)
        report.check("list(library.search('s')), a generator", list(library.search("s")), ["Ulysses"])
        batch = BatchProxy(library)
        batch.echo("one message")
        batch.echo("for two calls")
        report.check("list(batch())", list(batch()), ["one message", "for two calls"])
        report.check("library.echo.future(42).result()", library.echo.future(42).result(5), 42)
        report.check("library.note('dust'), oneway", library.note("dust"), None)
        report.check("library.notes(1)", library.notes(1), ["dust"])
        with library.borrow(1) as book:
            report.check("library.borrow(1), registered there, is a", type(book).__name__, "Proxy")
            report.check("book.title", book.title, "Ulysses")


def show_errors(report: Report, place: Place) -> None:
    """A remote exception with its remote traceback; a name that does not exist."""
    with place.proxy("demo.library") as library:
        report.title("Exceptions: raised there, raised here")
        lines: list[str] = []
        try:
            library.lend("Dune")
        except KeyError as error:
            report.check("library.lend('Dune') raised", type(error).__name__, "KeyError")
            lines = [line for line in get_pyro_traceback(error) if line.startswith(" |")]
        report.check("... with the server's own line", any("shelf[title]" in line for line in lines), True)
        print("".join(f"      {line}" for line in lines), end="")
        try:
            library.burn()
        except AttributeError as error:
            report.check("library.burn() raised", type(error).__name__, "AttributeError")
        report.check("the connection is still good", library.echo("yes"), "yes")


def show_instances(report: Report, place: Place) -> None:
    """Registered classes: two clients call twice each; what the instances have counted."""
    report.title("Classes: the daemon makes the instances")
    expected = {"single": [1, 2, 3, 4], "session": [1, 2, 1, 2], "percall": [1, 1, 1, 1]}
    for mode, counts in expected.items():
        with place.proxy(f"demo.{mode}") as first, place.proxy(f"demo.{mode}") as second:
            seen = [first.call(), first.call(), second.call(), second.call()]
        report.check(f"{mode}: two clients, two calls each", seen, counts)


def show_matrix(report: Report, places: list[Place]) -> None:
    """Every transport with every serializer: is the answer right, and how many calls a second?"""
    report.title("Calls per second, one client, echo(42)")
    print(f"  {'':<12}" + "".join(f"{name:>12}" for name in SERIALIZERS))
    value = {"text": "h\u00e9llo", "numbers": [1, 2.5, -(2**40)], "nothing": None, "yes": True}
    for place in places:
        cells = []
        for serializer in SERIALIZERS:
            with place.proxy("demo.library") as library:
                library._pyroSerializer = serializer
                report.checks += 1
                if library.echo(value) != value:
                    report.problems.append(f"echo over {place.name} with {serializer} changed its argument")
                cells.append(f"{rate(library.echo):>12,.0f}")
        print(f"  {place.name:<12}" + "".join(cells))


def rate(function: Callable[[int], Any]) -> float:
    """Calls per second."""
    count, begin = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begin) < SECONDS_EACH:
        for number in range(20):
            if function(number) != number:
                raise AssertionError(f"echo({number}) gave something else")
        count += 20
    return count / elapsed


@contextmanager
def running(command: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Another process, with pipes to talk to it; it is ended at the latest when we are done with it."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)
    guard = threading.Timer(PATIENCE, process.kill)  # every wait below ends when the process does
    guard.start()
    try:
        yield process
    finally:
        guard.cancel()
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


@contextmanager
def name_server_process() -> Iterator[dict[str, str]]:
    """Start a name server; give the settings that lead there; have it end."""
    command = [sys.executable, "-m", "pyroplug", "ns", "--host", "localhost", "--port", "0", "--storage", "memory"]
    with running([*command, "--allow-shutdown"]) as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if line == "name server running\n":
                break
        else:
            raise RuntimeError(f"the name server ended with {process.wait()} before it was ready")
        uri = URI(said[said.index("PYRO:") :].split()[0])
        yield {"PYRO_NS_HOST": str(uri.host), "PYRO_NS_PORT": str(uri.port)}
        with Proxy(uri) as ns:
            ns.shutdown()
        if process.wait(PATIENCE) != 0:
            raise RuntimeError(f"the name server ended with {process.returncode}")


@contextmanager
def server_process(unixsocket: str, descriptor: int, settings: dict[str, str]) -> Iterator[dict[str, str]]:
    """Start the server; give the locations of its daemons; end it."""
    command = [sys.executable, __file__, "--serve", unixsocket, str(descriptor)]
    pass_fds = (descriptor,) if descriptor >= 0 else ()
    with running(command, pass_fds=pass_fds, env={**os.environ, **settings}) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        line = server.stdout.readline()
        if not line:
            raise RuntimeError(f"the server process ended with {server.wait()} before it was ready")
        yield {"pid": str(server.pid), **json.loads(line)}
        server.stdin.close()
        if server.wait(PATIENCE) != 0:
            raise RuntimeError(f"the server process ended with {server.returncode}")


@contextmanager
def memory_daemon() -> Iterator[str]:
    """A daemon in this process; the transport ``memory`` does not leave it."""
    with Daemon(memory=True) as daemon:
        publish(daemon)
        loop = threading.Thread(target=daemon.requestLoop)
        loop.start()
        try:
            yield daemon.locationStr
        finally:
            daemon.shutdown()
            loop.join()


def run(report: Report, folder: str) -> None:
    """The whole demonstration."""
    unixsocket = os.path.join(folder, "demo.sock") if UNIX else ""
    ours, theirs = socket.socketpair()
    with ours, theirs, memory_daemon() as memory, name_server_process() as settings:
        kernel = Kernel(environ={**os.environ, **settings}, settings={"COMMTIMEOUT": 5.0})  # no call can hang
        descriptor = theirs.fileno() if PASS_SOCKETS else -1
        with server_process(unixsocket, descriptor, settings) as found:
            theirs.close()
            print(f"pyroplug {__version__}, Python {platform.python_version()} on {platform.system()}")
            print(f"server: process {found.pop('pid')}, client: process {os.getpid()}")
            places = [Place(name, location, kernel) for name, location in found.items() if name != "socketpair"]
            if "socketpair" in found:
                places.append(Place("socketpair", found["socketpair"], kernel, ours))
            places.append(Place("memory", memory, kernel))
            show_names(report, kernel)
            show_calls(report, places[0])
            show_errors(report, places[0])
            show_instances(report, places[0])
            show_matrix(report, places)
            skipped = {"unix": UNIX, "socketpair": PASS_SOCKETS}
            for name in [name for name, there in skipped.items() if not there]:
                print(f"  {name:<12} SKIPPED: this platform does not have it")
        show_the_end(report, kernel, found["tcp"])
        kernel.close()


def show_the_end(report: Report, kernel: Kernel, location: str) -> None:
    """The server has ended: what is called now must fail, and at once; its names are gone."""
    report.title("After the server has ended")
    for uri, wanted in ((f"PYRO:demo.library@{location}", CommunicationError), ("PYRONAME:demo.library", NamingError)):
        try:
            with Proxy(uri, kernel=kernel) as library:
                library.pid()
            answer = "an answer"
        except (CommunicationError, NamingError) as error:
            answer = type(error).__name__
            print(f"  {error}")
        report.check(f"Proxy({uri.partition('@')[0]!r}).pid() raised", answer, wanted.__name__)


def main() -> int:
    """Run, say how it went, and return the exit code."""
    if "--serve" in sys.argv:
        serve(sys.argv[2], int(sys.argv[3]))
        return 0
    report, begin = Report(), time.perf_counter()
    try:
        with tempfile.TemporaryDirectory() as folder:
            run(report, folder)
    except Exception as error:
        report.problems.append(f"{type(error).__name__}: {error}")
        print("".join(get_pyro_traceback(error)), file=sys.stderr)
    seconds = time.perf_counter() - begin
    if report.problems:
        print(f"\nFAILED: {len(report.problems)} problem(s) in {report.checks} checks")
        for problem in report.problems:
            print(f"  {problem}")
        return 1
    print(f"\nAll {report.checks} checks passed in {seconds:.1f} s. More: examples/README.md, docs/tutorial.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
