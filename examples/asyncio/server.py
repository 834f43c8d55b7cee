"""A daemon in an asyncio program: async methods, plain ones, and a task of the program's own."""

import asyncio

from pyroplug.api import AsyncDaemon, expose


@expose
class Sensor:
    """Its value changes while the program runs."""

    def __init__(self, daemon: AsyncDaemon) -> None:
        self._daemon = daemon
        self._value = 0
        self._changed = asyncio.Condition()

    async def drift(self) -> None:
        """One step."""
        async with self._changed:
            self._value += 1
            self._changed.notify_all()

    def value(self) -> int:
        """A plain method: it runs in the event loop's thread, and is quick."""
        return self._value

    async def wait_for(self, value: int) -> int:
        """The client waits; here nobody does."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._value >= value)
            return self._value

    def stop(self) -> None:
        self._daemon.shutdown()


async def main() -> None:
    async with AsyncDaemon() as daemon:
        sensor = Sensor(daemon)
        print(daemon.register(sensor, "sensor"), flush=True)

        async def live() -> None:
            while True:
                await asyncio.sleep(0.02)
                await sensor.drift()

        living = asyncio.create_task(live())
        await daemon.serve()
        living.cancel()


asyncio.run(main())
