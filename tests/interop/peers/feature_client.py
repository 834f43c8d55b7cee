"""A real Pyro5 client for batches and blobs: ``feature_client.py URI_OF_WORKER URI_OF_DISPATCHER``; prints JSON."""

# ruff: noqa: T201 - what it prints is its report
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

import Pyro5.api

SERIALIZERS = ("serpent", "marshal", "json", "msgpack")


def outcome(results: Iterable[Any]) -> list[Any]:
    """What a batch gave, up to its error."""
    found: list[Any] = []
    try:
        for result in results:
            found.append(result)
    except Exception as error:
        found.append([type(error).__name__, str(error), bool(getattr(error, "_pyroTraceback", None))])
    return found


def batches(worker: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    batch: Any = Pyro5.api.BatchProxy(worker)
    batch.add(1, b=2)
    batch.nope()
    batch.add(5)
    found["unknown"] = outcome(batch())
    batch = Pyro5.api.BatchProxy(worker)
    batch.add(1)
    batch.items()
    found["iterator"] = outcome(batch())
    batch = Pyro5.api.BatchProxy(worker)
    for number in range(6):
        batch.add(number)
    try:
        found["long"] = outcome(batch())
    except Exception as error:
        found["long"] = [type(error).__name__, str(error)]
    found["then"] = worker.add(1, 1)
    return found


if __name__ == "__main__":
    found = {}
    for serializer in SERIALIZERS:
        with Pyro5.api.Proxy(sys.argv[1]) as worker, Pyro5.api.Proxy(sys.argv[2]) as dispatcher:
            worker._pyroSerializer = dispatcher._pyroSerializer = serializer
            # marshal cannot write the null in a batch of Pyro5 (wire.md 9)
            one: dict[str, Any] = {"batches": batches(worker)} if serializer != "marshal" else {}
            one["blob"] = dispatcher.dispatch(Pyro5.api.SerializedBlob(("info", 1, "info"), [1, {"a": "two"}]))
            one["idempotent"] = worker.look()
            one["methods"] = sorted(worker._pyroMethods)
            found[serializer] = one
    print(json.dumps(found))
