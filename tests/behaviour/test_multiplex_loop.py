"""What only the multiplex loop promises: strictly one call at a time, in one thread."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from pyroplug.api import expose, oneway
from pyroplug.testing.kernels import PATIENCE, Serve
from pyroplug.testing.transports import in_thread


@expose
class Thing:
    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self.threads: set[int] = set()

    def work(self, value: Any) -> Any:
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.threads.add(threading.get_ident())
        threading.Event().wait(0.001)
        self.inside -= 1
        return value

    @oneway
    def fire(self, value: Any) -> None:
        self.work(value)


@pytest.mark.feature("F150")
def test_one_call_at_a_time_in_one_thread(serve_multiplex: Serve) -> None:
    thing = Thing()
    served = serve_multiplex(thing)
    proxies = [served.proxy() for _ in range(10)]
    jobs = [in_thread(lambda p=proxy, n=number: [p.work(n) for _ in range(5)]) for number, proxy in enumerate(proxies)]
    assert [job.result(PATIENCE) for job in jobs] == [[number] * 5 for number in range(10)]
    assert thing.most == 1
    assert len(thing.threads) == 1


@pytest.mark.feature("F150", "F091")
def test_oneway_in_line_keeps_everything_in_one_thread(serve_multiplex: Serve) -> None:
    thing = Thing()
    served = serve_multiplex(thing, ONEWAY_THREADED=False)
    proxies = [served.proxy() for _ in range(4)]
    for number in range(20):
        proxies[number % 4].fire(number)
    assert [proxy.work(1) for proxy in proxies] == [1] * 4
    assert thing.most == 1
    assert len(thing.threads) == 1


def test_no_threads_are_made(serve_multiplex: Serve) -> None:
    before = threading.active_count()
    served = serve_multiplex(Thing())
    for number in range(10):
        assert served.proxy().work(number) == number
    assert threading.active_count() == before + 1  # the one that runs requestLoop
