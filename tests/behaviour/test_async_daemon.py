"""``AsyncDaemon``: a daemon in the event loop of the program."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

import pytest

from pyroplug.api import AsyncDaemon, CommunicationError, ConfigError, Kernel, PluginError, Proxy, PyroError, expose
from pyroplug.testing.kernels import PATIENCE, make_kernel


@expose
class Thing:
    def __init__(self) -> None:
        self.threads: set[int] = set()
        self.gate, self.entered = asyncio.Event(), asyncio.Event()

    def plain(self, value: Any) -> Any:
        self.threads.add(threading.get_ident())
        return value

    async def asynchronous(self, value: Any) -> Any:
        self.threads.add(threading.get_ident())
        await asyncio.sleep(0)
        return value

    async def wait(self) -> str:
        self.entered.set()
        await self.gate.wait()
        return "waited"

    def stop(self) -> str:
        self._pyroDaemon.shutdown()  # type: ignore[attr-defined]
        return "stopping"


@pytest.fixture
def kernel() -> Kernel:
    return make_kernel(EVENT_LOOP="asyncio")


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a test in an event loop of its own, for a limited time."""
    asyncio.run(asyncio.wait_for(main, PATIENCE))


def calls(uri: Any, kernel: Kernel) -> list[Any]:
    """What a client in another thread does."""
    with Proxy(uri, kernel=kernel) as proxy:
        return [proxy.plain(1), proxy.asynchronous(2)]


def test_it_serves_beside_the_tasks_of_the_program(kernel: Kernel) -> None:
    async def main() -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        thing = Thing()
        async with AsyncDaemon(kernel=kernel) as daemon:
            uri = daemon.register(thing)
            serving, ticking = asyncio.create_task(daemon.serve()), asyncio.create_task(tick())
            assert await asyncio.to_thread(calls, uri, kernel) == [1, 2]
            assert ticks > 1
            ticking.cancel()
        assert thing.threads == {threading.get_ident()}
        await serving  # the daemon's end is the end of that too

    run(main())


def test_two_in_one_event_loop(kernel: Kernel) -> None:
    async def main() -> None:
        async with AsyncDaemon(kernel=kernel) as one, AsyncDaemon(kernel=kernel) as two:
            uris = [daemon.register(Thing()) for daemon in (one, two)]
            serving = [asyncio.create_task(daemon.serve()) for daemon in (one, two)]
            answers = await asyncio.gather(*(asyncio.to_thread(calls, uri, kernel) for uri in uris))
            assert answers == [[1, 2], [1, 2]]
        await asyncio.gather(*serving)

    run(main())


def test_shutdown_by_a_method_and_from_another_thread(kernel: Kernel) -> None:
    async def by_a_method() -> None:
        daemon = AsyncDaemon(kernel=kernel)
        uri = daemon.register(Thing())

        def client() -> str:
            with Proxy(uri, kernel=kernel) as proxy:
                return str(proxy.stop())

        stopped = asyncio.create_task(asyncio.to_thread(client))
        await daemon.serve()
        assert await stopped == "stopping"
        with pytest.raises(PyroError, match="closed"):
            await daemon.serve()

    async def from_a_thread() -> None:
        daemon = AsyncDaemon(kernel=kernel)
        serving = asyncio.create_task(daemon.serve())
        await asyncio.sleep(0)
        await asyncio.to_thread(daemon.shutdown)
        await serving

    run(by_a_method())
    run(from_a_thread())


def test_cancelled_and_served_again(kernel: Kernel) -> None:
    async def main() -> None:
        async with AsyncDaemon(kernel=kernel) as daemon:
            uri = daemon.register(Thing())
            serving = asyncio.create_task(daemon.serve())
            proxy = Proxy(uri, kernel=kernel)
            assert await asyncio.to_thread(lambda: proxy.plain(1)) == 1
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
            again = asyncio.create_task(daemon.serve())
            assert await asyncio.to_thread(lambda: proxy.plain(2)) == 2  # over the same connection
            proxy._pyroRelease()
        await again

    run(main())


def test_closing_waits_for_async_calls_without_holding_up_the_loop(kernel: Kernel) -> None:
    async def main() -> None:
        thing = Thing()
        daemon = AsyncDaemon(kernel=kernel)
        uri = daemon.register(thing)
        serving = asyncio.create_task(daemon.serve())
        proxy = Proxy(uri, kernel=kernel)
        waiting = asyncio.create_task(asyncio.to_thread(lambda: proxy.wait()))
        await thing.entered.wait()
        closing = asyncio.create_task(daemon.aclose())
        await asyncio.sleep(0.01)
        assert not closing.done()
        thing.gate.set()
        await closing
        assert await waiting == "waited"
        proxy._pyroRelease()
        await serving

    run(main())


def test_a_condition_ends_it(kernel: Kernel) -> None:
    async def main() -> None:
        kernel.settings.POLLTIMEOUT = 0.01
        async with AsyncDaemon(kernel=kernel) as daemon:
            left = iter([True, True, False])
            await daemon.serve(lambda: next(left))
            uri = daemon.register(Thing())
            with Proxy(uri, kernel=kernel) as proxy:
                proxy._pyroTimeout = 0.05
                with pytest.raises(CommunicationError):
                    await asyncio.to_thread(lambda: proxy.plain(1))

    run(main())


def test_unsuitable_event_loops_are_refused(kernel: Kernel) -> None:
    class NoDescriptors(asyncio.SelectorEventLoop):
        def add_reader(self, fd: Any, callback: Any, *args: Any) -> None:  # type: ignore[override]
            if fd != self._ssock.fileno():  # type: ignore[attr-defined]
                raise NotImplementedError
            super().add_reader(fd, callback, *args)

    async def main() -> None:
        daemon = AsyncDaemon(kernel=kernel)
        with daemon, pytest.raises(ConfigError, match=r"NoDescriptors.*SERVERTYPE=thread"):
            await daemon.serve()

    loop = NoDescriptors()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def test_without_the_plugin() -> None:
    with pytest.raises(PluginError, match="'aio'"):
        AsyncDaemon(kernel=Kernel(environ={"PYRO_DISABLE_PLUGINS": "aio"}))
