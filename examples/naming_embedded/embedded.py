"""A name server inside a program, in an event loop of its own: no other process is needed."""

import selectors
import threading

from pyroplug.api import Daemon, Kernel, Proxy, expose, locate_ns, start_ns


@expose
class Clock:
    def time(self) -> str:
        return "half past nine"


uri, ns_daemon, responder = start_ns("localhost", port=0)
print("answers broadcasts:", responder is not None)  # nobody else can reach localhost
kernel = Kernel(settings={"NS_PORT": uri.port})  # other programs: PYRO_NS_PORT
daemon = Daemon(kernel=kernel)
stopping = threading.Event()


def event_loop() -> None:
    """Serves both, and could do anything else as well."""
    while not stopping.is_set():
        with selectors.DefaultSelector() as selector:
            for served in (ns_daemon, daemon):
                for sock in served.sockets:
                    selector.register(sock, selectors.EVENT_READ, served)
            for key, _ in selector.select(timeout=0.1):
                key.data.events([key.fileobj])


thread = threading.Thread(target=event_loop)
thread.start()
# whoever asks the name server must not be the one who has to answer for it: not from within the loop
daemon.publish(Clock(), "example.clock")
with Proxy("PYRONAME:example.clock", kernel=kernel) as clock, locate_ns(kernel=kernel) as ns:
    print("it is", clock.time(), "and there are", ns.count(), "names")
    daemon.unpublish("example.clock")
    print("left:", sorted(ns.list()))
stopping.set()
thread.join()
daemon.close()
ns_daemon.close()
kernel.close()
