"""Something to call; the interesting part is in the client."""

from pyroplug.api import Daemon, expose


@expose
class Thing:
    def method(self, arg: int) -> int:
        return arg * 2

    def stop(self) -> None:
        daemon.shutdown()


with Daemon() as daemon:
    print(daemon.register(Thing(), "example.thing"), flush=True)
    daemon.requestLoop()
