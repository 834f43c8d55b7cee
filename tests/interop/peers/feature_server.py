"""A real Pyro5 server for batches, blobs and futures: ``feature_server.py``.

Prints one line of JSON, the URIs of its objects, and serves until its standard input ends.
"""

# ruff: noqa: T201 - what it prints is its report
# mypy: disable-error-code="untyped-decorator"

import json
import sys
import threading
from typing import Any

import Pyro5.api

SERIALIZERS = ("serpent", "marshal", "json", "msgpack")


@Pyro5.api.expose
class Worker:
    def __init__(self) -> None:
        self._all = threading.Barrier(3)

    def add(self, a: int, b: int = 0) -> int:
        return a + b

    def divide(self, a: int, b: int) -> float:
        return a / b

    def process(self, blob: Any) -> Any:
        return [blob.info, blob.deserialized()]

    def meet(self) -> bool:
        self._all.wait(10)
        return True


@Pyro5.api.expose
class Dispatcher:
    """Passes blobs on to whoever it is told about."""

    def __init__(self) -> None:
        self._target = ""

    def use(self, uri: str) -> None:
        self._target = uri

    def dispatch(self, blob: Any) -> Any:
        with Pyro5.api.Proxy(self._target) as target:
            # (Pyro5 sends the bytes of a blob under the serializer id of its own connection)
            target._pyroSerializer = SERIALIZERS[Pyro5.api.current_context.serializer_id - 1]
            return target.process(blob)


if __name__ == "__main__":
    with Pyro5.api.Daemon() as daemon:
        uris = {
            name: str(daemon.register(target, name))
            for name, target in {"worker": Worker(), "dispatcher": Dispatcher()}.items()
        }
        print(json.dumps(uris), flush=True)
        threading.Thread(target=lambda: (sys.stdin.read(), daemon.shutdown()), daemon=True).start()
        daemon.requestLoop()
