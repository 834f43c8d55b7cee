"""Compression: each side decides for what it sends, and reads whatever comes."""

import threading

from pyroplug.api import Daemon, Kernel, expose


@expose
class Archive:
    def text(self) -> str:
        return "the same line again and again\n" * 1000

    def stop(self) -> None:
        daemon.shutdown()


# PYRO_COMPRESSION=1 for a whole program; here two daemons of one program differ
with Daemon(kernel=Kernel(settings={"COMPRESSION": True})) as packed, Daemon() as daemon:
    print(packed.register(Archive()), daemon.register(Archive()), flush=True)
    loop = threading.Thread(target=packed.requestLoop)
    loop.start()
    daemon.requestLoop()
    packed.shutdown()
    loop.join()
