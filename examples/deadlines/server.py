"""Work that takes long, and ends when nobody waits for it any more."""

import asyncio

from pyroplug.api import Daemon, current_context, expose


@expose
class Workshop:
    def __init__(self) -> None:
        self._journal: list[str] = []

    def polish(self, seconds: float) -> str:
        """A plain method: it waits with the token instead of sleeping, and so hears at once that it may stop."""
        if current_context.cancelled.wait(seconds):
            self._journal.append("polish: stopped")
            return "nobody reads this"
        self._journal.append("polish: done")
        return "it shines"

    async def dry(self, seconds: float) -> str:
        """An async method is cancelled, as any task is."""
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self._journal.append("dry: cancelled")
            raise
        return "it is dry"

    def time_left(self) -> float | None:
        return current_context.deadline

    def journal(self) -> list[str]:
        return self._journal

    def stop(self) -> None:
        daemon.shutdown()


with Daemon() as daemon:
    print(daemon.register(Workshop(), "workshop"), flush=True)
    daemon.requestLoop()
