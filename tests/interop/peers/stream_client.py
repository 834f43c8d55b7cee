"""A real Pyro5 client of our streams and context: reads ``{"uri": ..., "serializer": ...}``, prints what it got."""

# ruff: noqa: T201 - what it prints is its report

from __future__ import annotations

import gc
import json
import sys
import uuid
from collections.abc import Callable
from typing import Any

import Pyro5.api
from Pyro5.api import current_context

order = json.loads(sys.stdin.readline())
found: dict[str, Any] = {}


def outcome(check: Callable[[], Any]) -> None:
    try:
        found[check.__name__] = check()
    except Exception as exc:  # whatever it is, the test looks at it
        found[check.__name__] = f"{type(exc).__name__}: {exc}"


thing: Any
with Pyro5.api.Proxy(order["uri"]) as thing:
    thing._pyroSerializer = order["serializer"]

    @outcome
    def numbers() -> Any:
        return list(thing.numbers(50))

    @outcome
    def interleaved() -> Any:
        one, two = thing.numbers(3), thing.numbers(3)
        return [[next(one), thing.echo("x"), next(two)] for _ in range(3)]

    @outcome
    def failing() -> Any:
        got = []
        try:
            for number in thing.failing():
                got.append(number)
        except ValueError as exc:
            return [got, str(exc), any("on purpose" in line for line in getattr(exc, "_pyroTraceback", ()))]
        return got

    @outcome
    def letters() -> Any:
        return list(thing.letters)

    @outcome
    def closing() -> Any:
        before = thing.ended()
        items = thing.numbers(1000)
        first = next(items)
        items.close()
        return [first, thing.wait_for_ended(before + 1)]

    @outcome
    def dropping() -> Any:
        before = thing.ended()
        for _ in thing.numbers(1000):
            break
        gc.collect()
        return thing.wait_for_ended(before + 1)

    @outcome
    def unknown() -> Any:
        return thing._pyroInvoke("get_next_stream_item", ["nosuch"], {}, objectId="Pyro.Daemon")

    @outcome
    def context() -> Any:
        current_context.correlation_id = uuid.UUID(int=5)
        current_context.annotations = {"ABCD": b"from pyro5"}
        came, correlation = thing.context("back")
        answer = {key: bytes(value).decode() for key, value in current_context.response_annotations.items()}
        current_context.annotations = {}
        return [came, correlation, answer]

    @outcome
    def resources() -> Any:
        other: Any
        with Pyro5.api.Proxy(order["uri"]) as other:
            other.get("a")
        return thing.wait_for_closed(1)


print(json.dumps(found))
