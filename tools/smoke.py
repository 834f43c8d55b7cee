"""Uses an installed pyroplug as a user would: ``python tools/smoke.py``, outside the tree.

One process serves an object, this one calls it; nothing but the public names is used.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

from pyroplug import api
from pyroplug.api import Daemon, Proxy, expose

PATIENCE = 30.0


@expose
class Echo:
    """What is called."""

    def echo(self, value: object) -> object:
        """Give back ``value``."""
        return value

    def divide(self, a: float, b: float) -> float:
        """Fail for ``b == 0``."""
        return a / b


def serve() -> None:
    """Serve until the standard input is closed."""
    with Daemon() as daemon:
        print(daemon.register(Echo(), "smoke.echo"), flush=True)
        loop = threading.Thread(target=daemon.requestLoop)
        loop.start()
        sys.stdin.read()
        daemon.shutdown()
        loop.join(PATIENCE)


def call(uri: str) -> None:
    """Call the served object in a few ways."""
    with Proxy(uri) as proxy:
        for value in ("héllo", 42, 1.5, None, [1, "two"], {"three": 3}):
            answer = proxy.echo(value)
            if answer != value:
                raise SystemExit(f"echo({value!r}) gave {answer!r}")
        try:
            proxy.divide(1, 0)
        except ZeroDivisionError:
            pass
        else:
            raise SystemExit("no ZeroDivisionError came over")


def main() -> None:
    """Start the other process, call it, let it end, and try the command."""
    origin = Path(str(api.__file__)).resolve()
    if "--serve" in sys.argv:
        serve()
        return
    print(f"pyroplug {getattr(api, '__version__', '')} in {origin.parent}")
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    guard = threading.Timer(PATIENCE, server.kill)
    guard.start()
    try:
        if server.stdin is None or server.stdout is None:
            raise SystemExit("no pipes")
        call(server.stdout.readline().strip())
        server.stdin.close()
        code = server.wait(PATIENCE)
    finally:
        guard.cancel()
        server.kill()
        server.wait()
    if code != 0:
        raise SystemExit(f"the server ended with {code}")
    command = shutil.which("pyroplug", path=str(Path(sys.executable).parent))
    if command is None:
        raise SystemExit("the command 'pyroplug' was not installed")
    subprocess.run([command, "plugins"], check=True, stdout=subprocess.DEVNULL, timeout=PATIENCE)
    print("smoke test passed")


if __name__ == "__main__":
    main()
