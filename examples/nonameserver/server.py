"""Publish an object without a name server: print its URI and serve."""

from pyroplug.api import Daemon, expose


@expose
class Thing:
    def method(self, arg: int) -> int:
        return arg * 2

    def stop(self) -> None:
        """Lets the client end the example; Ctrl-C does too."""
        daemon.shutdown()


with Daemon() as daemon:
    # without an id of our own the object gets a random one, so nobody guesses the URI
    print(daemon.register(Thing()), flush=True)
    daemon.requestLoop()
