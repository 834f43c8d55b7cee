"""A daemon inside an event loop of our own, next to other things the program waits for."""

import selectors
import socket

from pyroplug.api import Daemon, Kernel, expose


@expose
class Thing:
    running = True

    def method(self, arg: int) -> int:
        return arg * 2

    def knock(self) -> None:
        """Something else happens that the loop is interested in."""
        door.send(b"knock")

    def seen(self) -> list[str]:
        return events

    def stop(self) -> None:
        self.running = False


events: list[str] = []
door, doorkeeper = socket.socketpair()

# multiplex: daemon.sockets has the clients too, and every call runs in this thread, inside events().
# With the server loop "thread" the sockets are the listening ones, and calls run in the daemon's threads.
kernel = Kernel(settings={"SERVERTYPE": "multiplex"})
with door, doorkeeper, Daemon(kernel=kernel) as daemon, selectors.DefaultSelector() as selector:
    thing = Thing()
    print(daemon.register(thing), flush=True)
    while thing.running:
        # ask in every round: clients come and go
        watched = {sock.fileno(): sock for sock in [*daemon.sockets, doorkeeper]}
        for fd, sock in watched.items():
            selector.register(fd, selectors.EVENT_READ, sock)
        ready = [key.fileobj for key, _ in selector.select(timeout=1)]
        for fd in watched:
            selector.unregister(fd)
        if doorkeeper.fileno() in ready:
            events.append(doorkeeper.recv(100).decode())
        # events() never waits; call it in idle rounds too, it looks after deadlines
        daemon.events([watched[fd] for fd in ready if isinstance(fd, int) and fd != doorkeeper.fileno()])
