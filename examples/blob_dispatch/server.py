"""A dispatcher that passes messages on without reading them, and the listener it passes them to."""

import sys
from typing import Any

from pyroplug.api import Daemon, Proxy, SerializedBlob, expose


@expose
class Dispatcher:
    def __init__(self) -> None:
        self._listeners: dict[str, Any] = {}

    def register(self, topic: str, listener: Any) -> None:
        self._listeners[topic] = listener

    def process(self, message: SerializedBlob) -> str:
        # only the info can be read here; the data keeps the bytes it came in, and may hold anything
        listener: Proxy = self._listeners[message.info]
        result: str = listener.receive(message)
        return result

    def stop(self) -> None:
        for listener in self._listeners.values():
            listener._pyroRelease()
        daemon.shutdown()


@expose
class Listener:
    def receive(self, message: SerializedBlob) -> str:
        data = message.deserialized()  # now it is decoded, by the one who wants it
        sys.stdout.write(f"received on {message.info}: {data}\n")
        return f"{len(data)} items"


with Daemon() as daemon:
    print(daemon.register(Dispatcher()), daemon.register(Listener()), flush=True)
    daemon.requestLoop()
