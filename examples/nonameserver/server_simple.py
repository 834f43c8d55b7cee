"""The same in one statement: ``serve`` makes a daemon, prints the URIs and runs until it is shut down."""

from pyroplug.api import Daemon, expose, serve


@expose
class Thing:
    _pyroDaemon: Daemon  # every registered object gets this

    def method(self, arg: int) -> int:
        return arg * 2

    def stop(self) -> None:
        self._pyroDaemon.shutdown()


# use_ns=False: the name becomes the object id in the URI and no name server is asked
serve({Thing(): "example.thing"}, use_ns=False)
