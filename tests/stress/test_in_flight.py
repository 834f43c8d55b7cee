"""One proxy, many threads, more calls than there are numbers."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pyroplug.api import expose
from pyroplug.testing.kernels import PATIENCE, Served

pytestmark = [pytest.mark.stress, pytest.mark.needs("mux")]

THREADS, CALLS = 50, 2000


@expose
class Thing:
    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()

    def echo(self, value: Any) -> Any:
        return value

    def wait(self, value: Any) -> Any:
        self.entered.set()
        self.gate.wait(30 * PATIENCE)
        return value


@pytest.mark.feature("F082")
@pytest.mark.timeout(600)
def test_a_hundred_thousand_calls_of_fifty_threads() -> None:
    """Scenarios 12 and 15: every caller gets its own answer, also one that waits while the numbers begin again."""
    thing = Thing()
    with Served("tcp4", "thread", settings={"SERIALIZER": "msgpack"}) as served:
        served.publish(thing)
        proxy = served.proxy()

        def hammer(who: int) -> int:
            return sum(proxy.echo([who, number]) == [who, number] for number in range(CALLS))

        with ThreadPoolExecutor(THREADS + 1) as pool:
            waiting = pool.submit(proxy.wait, "from the first round")
            assert thing.entered.wait(PATIENCE)
            connection = proxy._pyroConnection
            assert sum(pool.map(hammer, range(THREADS))) == THREADS * CALLS
            assert proxy._pyroConnection is connection, "it was one connection all the time"
            assert not waiting.done()
            thing.gate.set()
            assert waiting.result(PATIENCE) == "from the first round"
