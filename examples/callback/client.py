"""Have an object of ours called by the server: ``client.py PYRO:...``."""

import logging
import sys
import threading

from pyroplug.api import Daemon, Proxy, callback, expose

logging.basicConfig(stream=sys.stdout, format="%(name)s: %(message)s")


@expose
class Guest:
    def news(self, dish: str, step: str) -> int:
        print(f"{dish}: {step}")
        return 1

    @callback  # an error here goes to the server, which called; the mark has it logged here too
    def complain(self) -> None:
        raise ValueError("this is burnt")


# to be called, a client needs a daemon of its own, and a thread that runs it while the program does other things
with Daemon() as daemon:
    guest = Guest()
    daemon.register(guest)  # so that it travels as a proxy
    loop = threading.Thread(target=daemon.requestLoop)
    loop.start()
    with Proxy(sys.argv[1]) as kitchen:
        print("tips:", kitchen.cook("soup", guest))
        print(kitchen.burn(guest))
        kitchen.stop()
    daemon.shutdown()
    loop.join()
