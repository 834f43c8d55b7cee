"""A server in a process of its own, for tests that kill, stop or restart it.

``python scenario_server.py LOOP OPTIONS``: OPTIONS are the daemon's, as JSON.  It writes its URIs, and serves until
its standard input ends.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from typing import Any

from pyroplug.api import Daemon, Kernel, behavior, expose


class MainError(Exception):
    """A class that no client has."""

    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


@expose
class Thing:
    def echo(self, value: Any = None) -> Any:
        return value

    def fail(self) -> None:
        try:
            raise KeyError("the reason")
        except KeyError as error:
            raise MainError(code=7) from error

    def numbers(self, count: int) -> Iterator[int]:
        yield from range(count)


@expose
@behavior("session")
class Session:
    def __init__(self) -> None:
        self.count = 0

    def next(self) -> int:
        self.count += 1
        return self.count


def main() -> None:
    loop, options = sys.argv[1], json.loads(sys.argv[2])
    kernel = Kernel(settings={"SERVERTYPE": loop})
    with Daemon(kernel=kernel, **options) as daemon:
        uris = [str(daemon.register(Thing(), "thing")), str(daemon.register(Session, "session"))]
        sys.stdout.write(json.dumps(uris) + "\n")
        sys.stdout.flush()

        def end() -> None:
            sys.stdin.read()
            daemon.shutdown()

        threading.Thread(target=end, daemon=True).start()
        daemon.requestLoop()
    kernel.close()


if __name__ == "__main__":
    main()
