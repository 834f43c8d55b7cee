"""Names are leased: those of a program that crashes disappear, and somebody else may have them."""

import subprocess
import sys
import threading
import time

from pyroplug.api import Daemon, Kernel, NamingError, Proxy, expose, start_ns


@expose
class Worker:
    def __init__(self, name: str) -> None:
        self._name = name

    def name(self) -> str:
        return self._name


def work(port: str) -> None:
    """The program that is going to crash."""
    kernel = Kernel(settings={"NS_PORT": int(port)})
    daemon = Daemon(kernel=kernel)
    daemon.publish(Worker("the first"), "example.worker", lease=1.0)  # renewed again and again, as long as we live
    print("published", flush=True)
    daemon.requestLoop()


def main() -> None:
    uri, ns_daemon, _ = start_ns("localhost", port=0)
    threading.Thread(target=ns_daemon.requestLoop).start()
    kernel = Kernel(settings={"NS_PORT": uri.port})
    command = [sys.executable, __file__, str(uri.port)]
    with ns_daemon, subprocess.Popen(command, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        with Proxy("PYRONAME:example.worker", kernel=kernel) as proxy:
            print("working:", proxy.name())
        with Daemon(kernel=kernel) as daemon:
            threading.Thread(target=daemon.requestLoop).start()
            try:
                daemon.publish(Worker("the second"), "example.worker", safe=True)
            except NamingError as error:
                print("refused:", error)

            time.sleep(2)  # longer than the lease
            print("still there:", kernel.resolve("PYRONAME:example.worker").object != "")
            worker.kill()  # no goodbye: nobody takes the name back
            worker.wait()
            begin = time.monotonic()
            while True:
                try:
                    daemon.publish(Worker("the second"), "example.worker", safe=True)
                    break
                except NamingError:
                    time.sleep(0.1)
            print("free after the end of the lease:", time.monotonic() - begin < 5)
            with Proxy("PYRONAME:example.worker", kernel=kernel) as proxy:
                print("working:", proxy.name())
            daemon.close()
        ns_daemon.shutdown()
    kernel.close()


if __name__ == "__main__":
    work(sys.argv[1]) if len(sys.argv) > 1 else main()
