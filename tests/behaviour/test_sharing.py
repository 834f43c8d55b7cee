"""One proxy, many threads."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pyroplug.api import CommunicationError, expose
from pyroplug.testing.kernels import PATIENCE, Serve


@expose
class Thing:
    def echo(self, value: Any) -> Any:
        return value

    @property
    def seven(self) -> int:
        return 7


@pytest.mark.needs("metadata")
@pytest.mark.feature("F082", "F084")
def test_fifty_threads_get_their_own_answers(serve: Serve) -> None:
    """Scenario 15."""
    proxy = serve(Thing()).proxy()
    start = threading.Barrier(50)

    def hammer(who: int) -> list[Any]:
        start.wait(PATIENCE)
        return [proxy.echo([who, number]) for number in range(10)] + [proxy.seven]

    with ThreadPoolExecutor(50) as pool:
        for who, answers in enumerate(pool.map(hammer, range(50))):
            assert answers == [[who, number] for number in range(10)] + [7]


@pytest.mark.feature("F082")
def test_one_thread_releases_while_others_call(serve_at: Serve) -> None:
    """Scenario 16."""
    proxy = serve_at(Thing()).proxy()
    stop = threading.Event()

    def release() -> int:
        count = 0
        while not stop.is_set():
            proxy._pyroRelease()
            count += 1
            time.sleep(0.001)
        return count

    def hammer(who: int) -> int:
        right = 0
        for number in range(40):
            try:
                assert proxy.echo([who, number]) == [who, number]
                right += 1
            except CommunicationError:
                pass  # released in the middle: an error, never another's answer
        return right

    with ThreadPoolExecutor(9) as pool:
        releasing = pool.submit(release)
        right = list(pool.map(hammer, range(8)))
        stop.set()
        assert releasing.result(PATIENCE) > 0
    assert sum(right) == 8 * 40  # the lock holds a release back until the call is over
    assert proxy.echo(1) == 1


@pytest.mark.feature("F071", "F083")
def test_each_proxy_has_its_own_connection(serve: Serve) -> None:
    served = serve(Thing())
    proxies = [served.proxy() for _ in range(5)]
    for number, proxy in enumerate(proxies):
        assert proxy.echo(number) == number
    assert len({id(proxy._pyroConnection) for proxy in proxies}) == 5


def test_a_proxy_that_is_dropped_hangs_up_without_a_lock(serve_at: Serve) -> None:
    """Scenarios 20 and 21: the finalizer may run anywhere, so it takes no lock of anybody."""
    served = serve_at(Thing())
    gone = threading.Event()
    served.daemon.clientDisconnect = lambda conn: gone.set()  # type: ignore[method-assign]
    keeper = served.proxy()
    keeper.echo(1)
    proxy = type(keeper)(served.daemon.uriFor("thing"), kernel=served.kernel)
    proxy.echo(1)
    held, free = threading.Event(), threading.Event()

    def hold(lock: Any) -> None:
        with lock:
            held.set()
            free.wait(PATIENCE)

    holder = threading.Thread(target=hold, args=(proxy._pyroLock,))
    holder.start()
    assert held.wait(PATIENCE)
    del proxy
    assert gone.wait(PATIENCE)
    free.set()
    holder.join(PATIENCE)
    assert keeper.echo(2) == 2
