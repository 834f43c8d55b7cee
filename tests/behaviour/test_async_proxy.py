"""``AsyncProxy``: calls that are awaited, over every transport and under every server loop."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from pyroplug.api import (
    AsyncDaemon,
    AsyncProxy,
    CommunicationError,
    ConfigError,
    Kernel,
    PluginError,
    Proxy,
    PyroError,
    SerializeError,
    TimeoutError,
    current_context,
    deadline,
    expose,
    oneway,
)
from pyroplug.core.exchange import Lost
from pyroplug.plugins.aio.connection import AsyncConnection
from pyroplug.testing.kernels import PATIENCE, Serve, Served, make_kernel


@expose
class Thing:
    def __init__(self) -> None:
        self._level = 3
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)
        self.closed = threading.Event()
        self.noted: list[Any] = []
        self.note_came = threading.Event()

    def echo(self, value: Any, *, times: int = 1) -> Any:
        return value if times == 1 else [value] * times

    def wait(self, value: Any) -> Any:
        self.entered.release()
        assert self.gate.wait(PATIENCE)
        return value

    async def forever(self) -> None:
        self.entered.release()
        try:
            await asyncio.Event().wait()
        finally:
            self.closed.set()

    async def later(self, value: Any) -> Any:
        await asyncio.sleep(0.001)
        return value

    def fail(self) -> None:
        raise ValueError("on purpose")

    @property
    def level(self) -> int:
        return self._level

    @level.setter
    def level(self, value: int) -> None:
        self._level = value

    def __getitem__(self, index: int) -> int:
        return index * 10

    def items(self, count: int) -> Iterator[int]:
        try:
            yield from range(count)
        finally:
            self.closed.set()

    def broken(self) -> Iterator[int]:
        yield 1
        raise ValueError("in the middle")

    def asks(self) -> bytes | None:
        current_context.response_annotations["TELL"] = b"!"
        return current_context.annotations.get("ASKS")

    @oneway
    def note(self, value: Any) -> None:
        self.noted.append(value)
        self.note_came.set()


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test in an event loop of its own, for a limited time."""
    asyncio.run(asyncio.wait_for(main(), 2 * PATIENCE))


def proxy_of(served: Served) -> AsyncProxy:
    return AsyncProxy(served.daemon.uriFor("thing"), kernel=served.kernel)


def test_methods_attributes_and_items(serve_at: Serve) -> None:
    served = serve_at(Thing())

    async def main() -> None:
        async with proxy_of(served) as proxy:
            assert await proxy.echo("x", times=2) == ["x", "x"]
            assert await proxy.level == 3
            await proxy._pyroSet("level", 4)
            assert await proxy.level == 4
            assert await proxy[7] == 70
            with pytest.raises(ValueError, match="on purpose"):
                await proxy.fail()
            assert await proxy.later(1) == 1

    run(main)


def test_what_does_not_exist_is_said(serve_some: Serve) -> None:
    served = serve_some(Thing())

    async def main() -> None:
        async with proxy_of(served) as proxy:
            with pytest.raises(AttributeError, match="no exposed attribute or method 'nothing'"):
                await proxy.nothing()
            with pytest.raises(AttributeError, match="is no exposed attribute"):
                await proxy.nothing
            with pytest.raises(AttributeError, match="is a method: call it"):
                await proxy.echo
            with pytest.raises(AttributeError, match="is an attribute: await it without calling"):
                await proxy.level()
            with pytest.raises(AttributeError, match=r"await proxy\._pyroSet\('level'"):
                proxy.level = 5
            with pytest.raises(AttributeError, match=r"\(await proxy\.level\)\.real"):
                proxy.level.real  # noqa: B018
            with pytest.raises(TypeError, match="no items"):
                async for _ in proxy.echo(1):
                    pass
            with pytest.raises(SerializeError):
                await proxy.echo(object())
            assert await proxy.echo(1) == 1

    run(main)


def test_calls_of_many_tasks_are_in_flight_together(serve_threads: Serve) -> None:
    thing = Thing()
    served = serve_threads(thing)

    async def main() -> None:
        async with proxy_of(served) as proxy:
            tasks = [asyncio.create_task(proxy.wait(number)._make()) for number in range(16)]
            for _ in tasks:
                await asyncio.to_thread(thing.entered.acquire, timeout=PATIENCE)
            assert await proxy.echo("meanwhile") == "meanwhile"
            thing.gate.set()
            assert await asyncio.gather(*tasks) == list(range(16))

    run(main)


def test_every_task_gets_its_own_answers(serve_at: Serve) -> None:
    served = serve_at(Thing())

    async def main() -> None:
        async with proxy_of(served) as proxy:

            async def one(name: int) -> None:
                for number in range(40):
                    value = [name, number, "x" * (name * 400)]
                    assert await (proxy.later(value) if number % 2 else proxy.echo(value)) == value

            await asyncio.gather(*(one(name) for name in range(50)))

    run(main)


def test_large_values_in_both_directions_at_once(serve_at: Serve) -> None:
    served = serve_at(Thing())
    values = [bytes([number]) * 3_000_000 for number in range(4)]

    async def main() -> None:
        async with proxy_of(served) as proxy:
            proxy._pyroSerializer = "msgpack"
            assert await asyncio.gather(*(proxy.echo(value) for value in values)) == values

    run(main)


@pytest.mark.feature("F241")
def test_streams(serve_at: Serve) -> None:
    thing = Thing()
    served = serve_at(thing)

    async def main() -> None:
        async with proxy_of(served) as proxy:
            assert [item async for item in proxy.items(5000)] == list(range(5000))
            with pytest.raises(ValueError, match="in the middle"):
                async for _ in proxy.broken():
                    pass
            thing.closed.clear()
            async with await proxy.items(10**6) as items:
                assert await anext(items) == 0
            assert await asyncio.to_thread(thing.closed.wait, PATIENCE)
            thing.closed.clear()
            async for item in proxy.items(10**6):
                if item == 3:
                    break
            gc.collect()
            await proxy.echo(1)  # tells the server of what was dropped
            assert await asyncio.to_thread(thing.closed.wait, PATIENCE)

    run(main)


@pytest.mark.feature("F092")
def test_batches_and_oneway_calls(serve_some: Serve) -> None:
    thing = Thing()
    served = serve_some(thing)

    async def main() -> None:
        async with proxy_of(served) as proxy:
            batch = proxy._pyroBatch()
            batch.echo(1)
            batch.later(2)
            batch.fail()
            assert len(batch) == 3
            results = await batch()
            assert [next(results), next(results)] == [1, 2]
            with pytest.raises(ValueError, match="on purpose"):
                next(results)
            assert await proxy.note("came") is None
            assert await asyncio.to_thread(thing.note_came.wait, PATIENCE)
            batch.note("batch")
            assert await batch(oneway=True) is None

    run(main)


def test_annotations_belong_to_the_task(serve_some: Serve) -> None:
    served = serve_some(Thing())

    async def main() -> None:
        async with proxy_of(served) as proxy:

            async def ask(text: bytes) -> None:
                current_context.annotations = {"ASKS": text}
                for _ in range(5):
                    assert await proxy.asks() in (text, {"data": text, "encoding": "base64"})
                assert current_context.response_annotations["TELL"] == b"!"

            await asyncio.gather(*(ask(b"%d" % number) for number in range(10)))
            assert await proxy.asks() is None

    run(main)


def test_a_cancelled_call_costs_only_itself(serve_threads: Serve) -> None:
    thing = Thing()
    served = serve_threads(thing)

    async def main() -> None:
        async with proxy_of(served) as proxy:
            await proxy.echo(0)
            connection = proxy._pyroConnection
            task = asyncio.create_task(proxy.wait("never seen")._make())
            other = asyncio.create_task(proxy.wait("seen")._make())
            for _ in range(2):
                await asyncio.to_thread(thing.entered.acquire, timeout=PATIENCE)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            thing.gate.set()
            assert await other == "seen"
            assert [await proxy.echo(number) for number in range(20)] == list(range(20))
            assert proxy._pyroConnection is connection

    run(main)


def test_cancelling_reaches_the_server(serve_at: Serve) -> None:
    thing = Thing()
    served = serve_at(thing)

    async def main() -> None:
        async with proxy_of(served) as proxy:
            task = asyncio.create_task(proxy.forever()._make())
            await asyncio.to_thread(thing.entered.acquire, timeout=PATIENCE)
            task.cancel()
            assert await asyncio.to_thread(thing.closed.wait, PATIENCE)
            assert await proxy.echo(1) == 1

    run(main)


def test_a_deadline_holds_for_all_calls_together(serve_at: Serve) -> None:
    thing = Thing()
    served = serve_at(thing)

    async def main() -> None:
        async with proxy_of(served) as proxy:
            await proxy.echo(0)
            with deadline(0.1):
                await proxy.echo(1)
                with pytest.raises(TimeoutError):
                    await proxy.forever()
            assert await asyncio.to_thread(thing.closed.wait, PATIENCE)
            assert await proxy.echo(1) == 1

    run(main)


def test_a_timeout_ends_the_call(serve_threads: Serve) -> None:
    thing = Thing()
    served = serve_threads(thing)

    async def main() -> None:
        async with proxy_of(served) as proxy:
            await proxy.echo(0)
            proxy._pyroTimeout = 0.1
            begin = time.monotonic()
            with pytest.raises(TimeoutError, match="did not answer in time"):
                await proxy.wait(1)
            assert time.monotonic() - begin < PATIENCE
            thing.gate.set()
            proxy._pyroTimeout = None
            assert await proxy.echo(2) == 2

    run(main)


def test_a_server_that_goes_away(serve_threads: Serve) -> None:
    thing = Thing()
    served = serve_threads(thing, SHUTDOWN_TIMEOUT=0.1)

    async def main() -> None:
        proxy = proxy_of(served)
        await proxy.echo(1)
        waiting = [asyncio.create_task(proxy.wait(number)._make()) for number in range(3)]
        await asyncio.to_thread(thing.entered.acquire, timeout=PATIENCE)
        closing = asyncio.create_task(asyncio.to_thread(served.daemon.shutdown))
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(result, PyroError) for result in results), results  # lost, or refused at the last moment
        assert len({id(result) for result in results}) == 3
        thing.gate.set()
        await closing
        with pytest.raises(CommunicationError):
            await proxy.echo(1)
        await proxy._pyroRelease()

    run(main)


def test_released_it_connects_again(serve_at: Serve) -> None:
    served = serve_at(Thing())

    async def main() -> None:
        proxy = proxy_of(served)
        assert await proxy._pyroBind() is True
        assert await proxy._pyroBind() is False
        await proxy._pyroRelease()
        assert proxy._pyroConnection is None
        assert await proxy.echo(1) == 1
        await proxy._pyroRelease()

    run(main)


def test_the_same_proxy_in_another_event_loop(serve_some: Serve) -> None:
    served = serve_some(Thing())
    proxy = proxy_of(served)

    async def main() -> None:
        assert await proxy.echo(1) == 1
        await proxy._pyroRelease()

    run(main)
    run(main)


def test_made_of_a_plain_proxy(serve_some: Serve) -> None:
    served = serve_some(Thing())

    async def main() -> None:
        plain = served.proxy()
        plain._pyroSerializer = "json"
        async with AsyncProxy(plain) as proxy:
            assert await proxy.echo(1) == 1
            assert proxy._pyroSerializer == "json"
            assert proxy == AsyncProxy(plain._pyroUri, kernel=served.kernel)
            assert len({proxy, AsyncProxy(plain)}) == 1
        plain._pyroRelease()

    run(main)


def test_a_proxy_that_is_dropped_closes_its_connection(serve_some: Serve) -> None:
    served = serve_some(Thing())

    async def main() -> None:
        proxy = proxy_of(served)
        await proxy.echo(1)
        connection = proxy._pyroConnection
        assert isinstance(connection, AsyncConnection)
        del proxy
        gc.collect()
        while connection.failure is None:  # noqa: ASYNC110 - the thread that connected may still hold it
            await asyncio.sleep(0.001)
        with pytest.raises(Lost, match="closed by this side"):
            await connection.call_in_task("thing", "echo", (1,), {})

    run(main)


def test_client_and_server_in_one_event_loop() -> None:
    kernel = make_kernel()

    async def main() -> None:
        async with AsyncDaemon(kernel=kernel) as daemon:
            serving = asyncio.create_task(daemon.serve())
            async with AsyncProxy(daemon.register(Thing()), kernel=kernel) as proxy:
                assert await asyncio.gather(*(proxy.later(number) for number in range(20))) == list(range(20))
                assert [item async for item in proxy.items(100)] == list(range(100))
        await serving

    run(main)


def test_a_daemon_in_the_event_loop_may_call_itself() -> None:
    """The calls of a task hold up nobody, so such a circle is none."""
    kernel = make_kernel()

    @expose
    class Circle:
        me: AsyncProxy

        async def round(self, left: int) -> int:
            return left if not left else await self.me.round(left - 1) + 1

    async def main() -> None:
        async with AsyncDaemon(kernel=kernel) as daemon:
            serving = asyncio.create_task(daemon.serve())
            circle = Circle()
            uri = daemon.register(circle)
            async with AsyncProxy(uri, kernel=kernel) as circle.me, AsyncProxy(uri, kernel=kernel) as proxy:
                assert await proxy.round(5) == 5
        await serving

    run(main)


def test_without_the_plugin() -> None:
    with pytest.raises(PluginError, match="'aio'"):
        AsyncProxy("PYRO:x@localhost:1", kernel=Kernel(environ={"PYRO_DISABLE_PLUGINS": "aio"}))


def test_unsuitable_event_loops_are_refused() -> None:
    class NoDescriptors(asyncio.SelectorEventLoop):
        def add_reader(self, fd: Any, callback: Any, *args: Any) -> None:  # type: ignore[override]
            if fd != self._ssock.fileno():  # type: ignore[attr-defined]
                raise NotImplementedError
            super().add_reader(fd, callback, *args)

    with Served("tcp4") as served:
        served.publish(Thing(), "thing")

        async def main() -> None:
            with pytest.raises(ConfigError, match=r"NoDescriptors.*SelectorEventLoop"):
                await proxy_of(served).echo(1)

        loop = NoDescriptors()
        try:
            loop.run_until_complete(main())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()


def test_plain_proxies_are_not_changed_by_it() -> None:
    with Served("tcp4") as served:
        served.publish(Thing(), "thing")
        with Proxy(served.daemon.uriFor("thing"), kernel=served.kernel) as proxy:
            assert proxy.echo(1) == 1
