"""Name servers as processes: killed in the middle of writing, and two of them with one file."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pyroplug.api import CommunicationError, NamingError, Proxy
from pyroplug.plugins.naming.server import FRESH
from testkit.timeouts import PATIENCE, scaled

SCRIPT = Path(__file__).parent / "peers" / "name_server.py"
NS = "Pyro.NameServer"
KILLS = 20
NAMES = 10_000


class Process:
    """A name server process."""

    def __init__(self, file: Path) -> None:
        self._process = subprocess.Popen([sys.executable, str(SCRIPT), str(file)], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.uri = self._process.stdout.readline().strip()

    def kill(self) -> None:
        """As ``kill -9`` does it."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextmanager
def running(file: Path) -> Iterator[Any]:
    process = Process(file)
    try:
        with Proxy(process.uri) as proxy:
            yield proxy
    finally:
        process.kill()


class Registrar:
    """Threads that register names, and remember those that the name server has acknowledged."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, str] = {}
        self._numbers = iter(range(NAMES))
        self._lock = threading.Condition()

    def work(self, uri: str) -> None:
        """Register until the name server is gone or there are enough."""
        with Proxy(uri) as ns:
            while True:
                with self._lock:
                    number = next(self._numbers, None)
                if number is None:
                    return
                name, target = f"name{number}", f"PYRO:o{number}@localhost:1"
                try:
                    ns.register(name, target, metadata=[f"tag{number % 7}"])
                except CommunicationError:
                    return
                with self._lock:
                    self.acknowledged[name] = target
                    self._lock.notify_all()

    def wait_for(self, count: int) -> None:
        """Until so many were acknowledged."""
        with self._lock:
            assert self._lock.wait_for(lambda: len(self.acknowledged) >= count, scaled(60))


@pytest.mark.feature("F184", "F276")
@pytest.mark.stress
@pytest.mark.timeout(scaled(300))
def test_what_was_acknowledged_survives_being_killed(tmp_path: Path) -> None:
    file = tmp_path / "names.sqlite"
    registrar = Registrar()
    for kill in range(KILLS):
        process = Process(file)
        threads = [threading.Thread(target=registrar.work, args=(process.uri,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            # a thread may have a registration under way that is never acknowledged: at most two for each kill
            registrar.wait_for((kill + 1) * (NAMES // KILLS - 3))
        finally:
            process.kill()
            for thread in threads:
                thread.join(PATIENCE)
    with running(file) as ns:
        found = ns.list()
        assert {name: uri for name, uri in registrar.acknowledged.items() if found.get(name) != uri} == {}
        assert len(registrar.acknowledged) >= KILLS * (NAMES // KILLS - 3)
        tagged = ns.yplookup(["tag3"], return_metadata=False)
        assert {n for n in registrar.acknowledged if int(n[4:]) % 7 == 3} <= set(tagged)
    db = sqlite3.connect(file)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert db.execute("SELECT count(*) FROM pyro_metadata").fetchone()[0] == len(found)  # each has one
    db.close()


@pytest.mark.feature("F276")
@pytest.mark.stress
def test_two_name_servers_with_one_file(tmp_path: Path) -> None:
    file = tmp_path / "names.sqlite"
    with running(file) as one, running(file) as two:
        one.register("from one", "PYRO:a@localhost:1", metadata=["x"])
        assert str(two.lookup("from one")) == "PYRO:a@localhost:1"
        two.set_metadata("from one", ["y"])
        time.sleep(2 * FRESH)  # so long a name server may answer what was true before
        assert one.yplookup(["x"]) == {}
        assert set(one.yplookup(["y"])) == {"from one"}
        assert two.remove("from one") == 1
        time.sleep(2 * FRESH)
        with pytest.raises(NamingError, match="unknown name"):
            one.lookup("from one")


@pytest.mark.feature("F276")
@pytest.mark.stress
def test_of_many_who_want_a_name_one_gets_it(tmp_path: Path) -> None:
    file = tmp_path / "names.sqlite"
    names = [f"name{number}" for number in range(40)]
    winners: dict[str, list[int]] = {name: [] for name in names}
    with running(file) as one, running(file) as two:
        uris = [one._pyroUri, two._pyroUri]
        together = threading.Barrier(4)

        def work(number: int) -> None:
            with Proxy(uris[number % 2]) as ns:
                together.wait(PATIENCE)
                for name in names:
                    try:
                        ns.register(name, f"PYRO:o{number}@localhost:1", safe=True)
                    except NamingError as exc:
                        assert "already registered" in str(exc)  # noqa: PT017 - the others go on
                    else:
                        winners[name].append(number)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert {len(numbers) for numbers in winners.values()} == {1}
        wanted = {name: f"PYRO:o{numbers[0]}@localhost:1" for name, numbers in winners.items()}
        time.sleep(2 * FRESH)
        for ns in (one, two):
            found = ns.list()
            del found[NS]
            assert found == wanted
