"""Be called by a server: ``client.py PYRO:...``."""

import logging
import sys
import threading

from pyroplug.api import Daemon, Proxy, callback, expose


@expose
class Reader:
    def __init__(self, name: str) -> None:
        self._name = name

    @callback  # errors go to the server, as always, and are logged here too, where the mistake is
    def read(self, news: str) -> str:
        if not news.strip():
            raise ValueError("there is nothing in it")
        return f"{self._name} has read: {news}"


class Shown(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        print("logged here:", record.getMessage())


logging.getLogger("pyroplug.callback").addHandler(Shown())
logging.getLogger("pyroplug.callback").propagate = False

# the server calls while this program waits inside a call of its own: the objects need a thread to be served in
with Daemon() as daemon, Daemon() as leaving, Proxy(sys.argv[1]) as newsroom:
    for served, name in ((daemon, "Emma"), (leaving, "Otto")):
        reader = Reader(name)
        served.register(reader)
        threading.Thread(target=served.requestLoop, daemon=True).start()
        newsroom.subscribe(served.proxyFor(reader))

    print(newsroom.publish("rain is coming"))
    leaving.shutdown()
    print(newsroom.publish("Otto has left"))
    print(newsroom.publish(" "))
    print(newsroom.publish("still connected"))
    newsroom.stop()
    daemon.shutdown()
