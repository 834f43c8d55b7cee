"""Two daemons that offer the same: clients ask for any of them by a tag."""

import threading

from pyroplug.api import Daemon, expose


@expose
class Printer:
    def __init__(self, name: str) -> None:
        self._name = name

    def print(self, text: str) -> str:
        return f"{self._name} prints {text}"

    def stop(self) -> None:
        for daemon in daemons:
            daemon.shutdown()


daemons = [Daemon(), Daemon()]
uris = [
    daemon.publish(Printer(name), f"example.printer.{name}", metadata={"printer", size})
    for daemon, name, size in zip(daemons, ("attic", "cellar"), ("a4", "a3"), strict=True)
]
print(*uris, flush=True)
loops = [threading.Thread(target=daemon.requestLoop) for daemon in daemons]
for loop in loops:
    loop.start()
for daemon, loop in zip(daemons, loops, strict=True):
    loop.join()
    daemon.close()
