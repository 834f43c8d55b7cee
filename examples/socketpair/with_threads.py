"""Bring your own sockets: daemon and proxy in two threads, over a pair that nobody else can reach."""

import socket
import threading

from pyroplug.api import Daemon, Proxy, expose


@expose
class Thing:
    def method(self, arg: int) -> int:
        return arg * 2


ours, theirs = socket.socketpair()
with ours, theirs:
    # no address, no port, nothing listens: the daemon serves exactly the peer of this socket
    with Daemon(connected_socket=theirs) as daemon:
        print(daemon.register(Thing(), "example.thing"))
        loop = threading.Thread(target=daemon.requestLoop)
        loop.start()
        # there is no location to connect to: just the object's id and the other end
        with Proxy("example.thing", connected_socket=ours) as thing:
            print("method(42) =", thing.method(42))
        daemon.shutdown()
        loop.join()
    # the sockets are ours; daemon and proxy never close them
    ours.sendall(b"!")
    print("still open:", theirs.recv(1) == b"!")
