"""Fixtures that serve an object: over every transport and server loop, or some of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyroplug.testing.kernels import LOOPS, Serve, Served

COMBINATIONS = [f"{transport}-{loop}" for transport in ("tcp4", "unix", "memory", "pair") for loop in LOOPS]


@contextlib.contextmanager
def serving(combination: str, folder: Path) -> Iterator[Serve]:
    """A function that serves an object; capitals are settings, the rest goes to the daemon."""
    transport, _, loop = combination.partition("-")
    with contextlib.ExitStack() as stack:

        def serve(target: object = None, object_id: str = "thing", **options: object) -> Served:
            settings = {name: options.pop(name) for name in list(options) if name.isupper()}
            served = Served(transport, loop, folder=folder, settings=settings, **options)  # type: ignore[arg-type]
            stack.enter_context(served)
            if target is not None:
                served.publish(target, object_id)
            return served

        yield serve


@pytest.fixture(params=COMBINATIONS)
def serve(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Serve]:
    """Every transport under every server loop."""
    with serving(request.param, tmp_path) as function:
        yield function


@pytest.fixture(params=["tcp4-thread", "memory-multiplex", "pair-thread"])
def serve_some(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Serve]:
    """A socket, no socket, and one that was given."""
    with serving(request.param, tmp_path) as function:
        yield function


@pytest.fixture(params=["tcp4-thread", "unix-multiplex", "memory-thread"])
def serve_at(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Serve]:
    """The transports that clients can connect to again."""
    with serving(request.param, tmp_path) as function:
        yield function


@pytest.fixture(params=["tcp4-thread", "memory-thread"])
def serve_threads(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Serve]:
    """The thread loop."""
    with serving(request.param, tmp_path) as function:
        yield function


@pytest.fixture(params=["tcp4-multiplex", "memory-multiplex"])
def serve_multiplex(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Serve]:
    """The multiplex loop."""
    with serving(request.param, tmp_path) as function:
        yield function
