"""A server that calls its clients back."""

from typing import Any

from pyroplug.api import Daemon, expose


@expose
class Kitchen:
    def cook(self, dish: str, guest: Any) -> int:
        """``guest`` arrives as a proxy for the client's object: calling it goes back over the network."""
        tips = 0
        for step in ("started", "half done", "served"):
            tips += guest.news(dish, step)
        guest._pyroRelease()
        return tips

    def burn(self, guest: Any) -> str:
        try:
            guest.complain()
        except ValueError as error:
            return f"the guest says: {error}"
        finally:
            guest._pyroRelease()
        return "nobody noticed"

    def stop(self) -> None:
        daemon.shutdown()


with Daemon() as daemon:
    print(daemon.register(Kitchen()), flush=True)
    daemon.requestLoop()
