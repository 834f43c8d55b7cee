"""A real Pyro5 server with streams and context: ``stream_server.py SERVERTYPE [SETTING=VALUE ...]``.

Prints the URI of its object, and serves until its standard input ends.
"""

# ruff: noqa: T201 - what it prints is its report

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from typing import Any

import Pyro5.api


class Resource:
    def __init__(self, closed: list[str], name: str) -> None:
        self._closed, self._name = closed, name

    def close(self) -> None:
        self._closed.append(self._name)


@Pyro5.api.expose  # type: ignore[untyped-decorator,unused-ignore]
class Thing:
    def __init__(self) -> None:
        self._ended: list[str] = []
        self._closed: list[str] = []
        self._held: list[Resource] = []
        self._next: Any = None

    def numbers(self, count: int) -> Iterator[int]:
        try:
            yield from range(count)
        finally:
            self._ended.append("numbers")

    def failing(self) -> Iterator[int]:
        yield 1
        raise ValueError("on purpose")

    @property
    def letters(self) -> Iterator[str]:
        return iter("abc")

    def ended(self) -> list[str]:
        return self._ended

    def echo(self, value: Any) -> Any:
        return value

    def context(self, note: str) -> list[Any]:
        context = Pyro5.api.current_context
        context.response_annotations = {"RESP": note.encode()}
        came = {key: bytes(value).decode() for key, value in context.annotations.items()}
        return [came, str(context.correlation_id)]

    def ask(self, proxy: Any) -> Any:
        """Calls back, with its own context."""
        Pyro5.api.current_context.annotations = {}
        with proxy:
            return proxy.context("nested")

    def get(self, name: str) -> None:
        resource = Resource(self._closed, name)
        self._held.append(resource)
        Pyro5.api.current_context.track_resource(resource)

    def closed(self) -> list[str]:
        return self._closed


config: Any = Pyro5.config
config.SERVERTYPE = sys.argv[1]
for setting in sys.argv[2:]:
    name, _, value = setting.partition("=")
    setattr(config, name, type(getattr(config, name))(float(value)))
daemon = Pyro5.api.Daemon()
print(json.dumps(str(daemon.register(Thing(), "thing"))), flush=True)
threading.Thread(target=lambda: (sys.stdin.read(), daemon.shutdown()), daemon=True).start()
daemon.requestLoop()
