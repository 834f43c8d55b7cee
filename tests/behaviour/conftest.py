"""The fixture ``serve``: one test, run over every transport and server loop."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyroplug.testing.kernels import LOOPS, TRANSPORTS, Serve, Served, has_ipv6

COMBINATIONS = [f"{transport}-{loop}" for transport in TRANSPORTS for loop in LOOPS]


def make_serve(transport: str, loop: str, folder: Path, stack: contextlib.ExitStack) -> Serve:
    """A function that serves an object; capitals are settings, the rest goes to the daemon."""
    if transport == "tcp6" and not has_ipv6():
        pytest.skip("this machine has no ::1")

    def serve(target: Any = None, object_id: str = "thing", **options: Any) -> Served:
        settings = {name: options.pop(name) for name in list(options) if name.isupper()}
        served = Served(transport, options.pop("loop", loop), folder=folder, settings=settings, **options)
        stack.enter_context(served)
        if target is not None:
            served.publish(target, object_id)
        return served

    return serve


@pytest.fixture(params=COMBINATIONS)
def serve(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Serve]:
    """Every transport under every server loop."""
    transport, _, loop = request.param.partition("-")
    with contextlib.ExitStack() as stack:
        yield make_serve(transport, loop, tmp_path, stack)


@pytest.fixture(params=[name for name in COMBINATIONS if not name.startswith("pair")])
def serve_at(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Serve]:
    """The transports that have a location which clients can connect to, and can close."""
    transport, _, loop = request.param.partition("-")
    with contextlib.ExitStack() as stack:
        yield make_serve(transport, loop, tmp_path, stack)


@pytest.fixture(params=["tcp4-thread", "tcp4-multiplex", "memory-thread", "memory-multiplex"])
def serve_some(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Serve]:
    """A socket and no socket, for what no transport takes part in."""
    transport, _, loop = request.param.partition("-")
    with contextlib.ExitStack() as stack:
        yield make_serve(transport, loop, tmp_path, stack)


@pytest.fixture(params=["tcp4", "unix", "memory"])
def serve_threads(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Serve]:
    """The thread loop."""
    with contextlib.ExitStack() as stack:
        yield make_serve(request.param, "thread", tmp_path, stack)


@pytest.fixture(params=["tcp4", "unix", "memory"])
def serve_multiplex(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Serve]:
    """The multiplex loop."""
    with contextlib.ExitStack() as stack:
        yield make_serve(request.param, "multiplex", tmp_path, stack)


@pytest.fixture
def quick_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Server loops look for idle and stalled clients often, so that nobody has to wait for that."""
    for module in ("_base", "thread"):
        monkeypatch.setattr(f"pyroplug.transports.servers.{module}.SWEEP_INTERVAL", 0.02)
