"""A server that forks for each of its clients: ``python scenario_forking.py COUNT``.

It writes its port, serves so many clients, waits for its children, and writes what is left then.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import Any

from pyroplug.api import Daemon, default_kernel, expose


@expose
class Worker:
    def pid(self) -> int:
        return os.getpid()


def serve_one(client: socket.socket) -> None:
    with client, Daemon(connected_socket=client) as daemon:
        daemon.register(Worker(), "worker")

        def gone(conn: Any) -> None:
            daemon.shutdown()

        daemon.clientDisconnect = gone  # type: ignore[method-assign]
        daemon.requestLoop()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def say(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def main() -> None:
    default_kernel()  # its plugins are loaded once, and not in each child
    reaped: list[int] = []
    most = 0
    with socket.create_server(("127.0.0.1", 0)) as listener:
        before = descriptors()
        say(listener.getsockname()[1])
        for _ in range(int(sys.argv[1])):
            client, _ = listener.accept()
            child = os.fork()
            if not child:
                listener.close()
                serve_one(client)
                os._exit(0)
            client.close()
            most = max(most, descriptors())
        while True:
            try:
                _, status = os.wait()
            except ChildProcessError:
                break
            reaped.append(os.waitstatus_to_exitcode(status))
        say({"before": before, "after": descriptors(), "most": most, "reaped": reaped})


if __name__ == "__main__":
    main()
