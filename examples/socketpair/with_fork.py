"""Bring your own sockets: parent and child process over a pair made before ``fork``."""

import os
import socket
import sys

from pyroplug.api import Daemon, Proxy, expose


@expose
class Worker:
    def pid(self) -> int:
        return os.getpid()

    def square(self, number: int) -> int:
        return number * number

    def stop(self) -> None:
        daemon.shutdown()


if not hasattr(os, "fork"):
    sys.exit("SKIPPED: this platform has no fork")

parents, childs = socket.socketpair()
child = os.fork()
if child == 0:
    # each process closes the end that is not its own, or neither would notice when the other one dies
    parents.close()
    with childs, Daemon(connected_socket=childs) as daemon:
        daemon.register(Worker(), "worker")
        daemon.requestLoop()
    os._exit(0)

childs.close()
with parents:
    with Proxy("worker", connected_socket=parents) as worker:
        print("the worker is the child:", worker.pid() == child)
        print("square(12) =", worker.square(12))
        worker.stop()
    _, status = os.waitpid(child, 0)
    print("the child ended with", os.waitstatus_to_exitcode(status))
