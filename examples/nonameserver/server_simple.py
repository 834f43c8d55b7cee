"""The same in one statement: it makes a daemon, prints the URIs and serves until it is shut down."""

from pyroplug.api import Daemon, expose


@expose
class Thing:
    _pyroDaemon: Daemon  # every registered object gets this

    def method(self, arg: int) -> int:
        return arg * 2

    def stop(self) -> None:
        self._pyroDaemon.shutdown()


# ns=False: the name becomes the object id in the URI and no name server is asked;
# pyroplug.api.serve(..., use_ns=False) is the same as a function
Daemon.serveSimple({Thing(): "example.thing"}, ns=False)
