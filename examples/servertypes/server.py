"""The two server loops side by side: ``thread`` (the default) and ``multiplex``."""

import threading

from pyroplug.api import Daemon, Kernel, expose


@expose
class Worker:
    def __init__(self) -> None:
        self._change = threading.Condition()
        self._running = 0
        self._most = 0

    def work(self) -> None:
        """Wait a moment for two other calls to run at the same time."""
        with self._change:
            self._running += 1
            self._most = max(self._most, self._running)
            self._change.notify_all()
            self._change.wait_for(lambda: self._most >= 3, timeout=0.3)
            self._running -= 1

    def most_at_a_time(self) -> int:
        return self._most

    def stop(self) -> None:
        daemon.shutdown()


# the setting (PYRO_SERVERTYPE) belongs to a kernel; two kernels can have different ones
threaded = Kernel(settings={"SERVERTYPE": "thread"})
multiplex = Kernel(settings={"SERVERTYPE": "multiplex"})
with Daemon(kernel=threaded) as other, Daemon(kernel=multiplex) as daemon:
    print(other.register(Worker()), daemon.register(Worker()), flush=True)
    loop = threading.Thread(target=other.requestLoop)
    loop.start()
    daemon.requestLoop()
    other.shutdown()
    loop.join()
