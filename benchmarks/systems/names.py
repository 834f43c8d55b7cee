"""Name servers with 100,000 names in an SQLite file: ours, Pyro5's, and a plain echo as the limit of a look-up."""

from __future__ import annotations

import contextlib
import functools
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import Client, Ready, Served, Spec, ours, pyro5

ROWS = ("ns-lookup", "ns-register", "ns-remove", "ns-prefix", "ns-regex", "ns-tags", "ns-list")
SPECS = [
    *(
        Spec(
            f"ns-{kind}-{serializer}",
            "names",
            {"kind": kind, "loop": "thread", "serializer": serializer},
            peer="" if kind == "pyro5" else f"ns-pyro5-{serializer}",
            rows=ROWS,
        )
        for kind in ("pyroplug", "pyro5")
        for serializer in ("msgpack", "serpent")
    ),
    Spec("echo-msgpack", "names", {"kind": "echo", "loop": "thread", "serializer": "msgpack"}, rows=("ns-lookup",)),
]
NAMES = 100_000


def missing() -> str | None:
    return pyro5.missing()


def _uri(number: int) -> str:
    return f"PYRO:obj_{number:032x}@server{number % 50}.example.com:4444"


def _fill(path: str) -> None:
    """Names of Pyro5's own, which both servers read."""
    from Pyro5.nameserver import SqlStorage

    SqlStorage(path)
    db = sqlite3.connect(path)
    numbers = range(NAMES)
    names = ((n, f"app.group{n % 100}.service-{n}", _uri(n)) for n in numbers)
    db.executemany("INSERT INTO pyro_names (id, name, uri) VALUES (?, ?, ?)", names)
    tags = ((n, tag) for n in numbers for tag in (f"class:app.Class{n % 20}", f"zone{n % 1000}"))
    db.executemany("INSERT INTO pyro_metadata (object, metadata) VALUES (?, ?)", tags)
    db.commit()
    db.close()


@contextlib.contextmanager
def _file() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="bench-names-") as folder:
        path = str(Path(folder) / "names.sqlite")
        _fill(path)
        yield path


def serve(spec: Spec, address: str | None, ready: Ready) -> None:
    kind = spec.options["kind"]
    if kind == "pyro5":
        _serve_pyro5(spec, ready)
        return
    from pyroplug.api import Daemon, expose

    kernel = ours.make_kernel(spec)
    with Daemon(kernel=kernel, host="127.0.0.1") as daemon, _file() as path:
        if kind == "echo":
            ready(str(daemon.register(expose(Served)(), "Pyro.NameServer")))
        else:
            from pyroplug.plugins.naming.server import NameServer
            from pyroplug.plugins.naming.sqlite import SqlStorage

            ready(str(daemon.register(NameServer(kernel, SqlStorage(path)), "Pyro.NameServer")))
        daemon.requestLoop()


def _serve_pyro5(spec: Spec, ready: Ready) -> None:
    from Pyro5.api import config
    from Pyro5.nameserver import NameServerDaemon

    settings: Any = config
    settings.SERIALIZER = spec.options["serializer"]
    with _file() as path, NameServerDaemon("127.0.0.1", 0, storage=f"sql:{path}") as daemon:
        ready(str(daemon.uriFor("Pyro.NameServer")))
        daemon.requestLoop()


@functools.cache
def _client_kernel(tree: str, options: tuple[tuple[str, str], ...]) -> Any:
    return ours.make_kernel(Spec("", "", dict(options), tree=tree))


def connect(spec: Spec, location: str) -> Client:
    if spec.options["kind"] == "pyro5":
        from Pyro5.api import Proxy as PyroProxy
        from Pyro5.api import config

        settings: Any = config
        settings.SERIALIZER = spec.options["serializer"]
        theirs: Any = PyroProxy(location)
        return Client(theirs, theirs._pyroRelease)
    from pyroplug.api import Proxy

    proxy: Any = Proxy(location, kernel=_client_kernel(spec.tree, tuple(spec.options.items())))
    return Client(_Echoing(proxy) if spec.options["kind"] == "echo" else proxy, proxy._pyroRelease)


class _Echoing:
    """What a look-up would cost if it were an echo."""

    def __init__(self, proxy: Any) -> None:
        self._proxy = proxy

    def lookup(self, name: str) -> Any:
        return self._proxy.echo(42)

    def echo(self, value: Any, /) -> Any:
        return self._proxy.echo(value)
