"""The name server is killed and started again: what it knew is there again, and what is published comes back by itself."""

import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from pyroplug.api import Daemon, Kernel, Proxy, expose, locate_ns, resolve


@expose
class Diary:
    def today(self) -> str:
        return "nothing happened"


def start_name_server(port: int, storage: str) -> tuple["subprocess.Popen[str]", int]:
    """A name server in another process, and its port."""
    command = [sys.executable, "-m", "pyroplug", "ns", "-n", "localhost", "-p", str(port), "-s", storage]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        found = re.match(r"URI: PYRO:\S+:(\d+)", line)
        if found:
            return process, int(found[1])
    raise RuntimeError("the name server did not start")


def end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


def main(folder: Path) -> None:
    first, port = start_name_server(0, f"sql:{folder / 'names.sqlite'}")
    kernel = Kernel(settings={"NS_PORT": port})
    with Daemon(kernel=kernel) as daemon:
        threading.Thread(target=daemon.requestLoop).start()
        daemon.publish(Diary(), "example.diary", lease=1.0)
        with locate_ns(kernel=kernel) as ns:
            ns.register("example.archive", "PYRO:archive@localhost:4444")  # by hand, and for good
        end(first)
        print("the name server is gone")

        second, _ = start_name_server(port, f"sql:{folder / 'names.sqlite'}")
        print("from the file:", kernel.resolve("PYRONAME:example.archive"))
        with Proxy("PYRONAME:example.diary", kernel=kernel) as diary:
            print("still published:", diary.today())
        end(second)

        third, _ = start_name_server(port, "memory")  # a name server that knows nothing
        place = f"localhost:{port}"
        print("registered again:", resolve(f"PYRONAME:example.diary@{place}", delay_time=20).object != "")
        daemon.shutdown()
    end(third)
    kernel.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
