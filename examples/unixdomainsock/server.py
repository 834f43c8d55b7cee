"""A Unix domain socket in place of host and port: for this machine only, guarded by file permissions."""

import os
import socket
import stat
import sys
import tempfile

from pyroplug.api import Daemon, expose


@expose
class Thing:
    def __init__(self, path: str) -> None:
        self._path = path

    def mode(self) -> str:
        return stat.filemode(os.stat(self._path).st_mode)

    def stop(self) -> None:
        daemon.shutdown()


if not hasattr(socket, "AF_UNIX"):
    sys.exit("SKIPPED: this platform has no Unix domain sockets")

with tempfile.TemporaryDirectory() as folder:
    # the path may have blanks; it ends up in the URI as PYRO:object@./u:path
    path = os.path.join(folder, "example socket")
    with Daemon(unixsocket=path) as daemon:
        print(daemon.register(Thing(path), "example.thing"), flush=True)
        daemon.requestLoop()
    # the daemon removes its socket file; one left over by a program that was killed is taken over
    print("removed:", not os.path.exists(path))
