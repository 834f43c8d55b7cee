"""Fixtures that serve an object, over every transport and server loop or over some of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyroplug.testing.kernels import LOOPS, TRANSPORTS, Serve, Served, has_ipv6

__all__ = ["EVERYWHERE", "serve_over", "serving"]

EVERYWHERE = tuple(f"{transport}-{loop}" for transport in TRANSPORTS for loop in LOOPS)
"""Every transport under every server loop."""


@contextlib.contextmanager
def serving(combination: str, folder: Path) -> Iterator[Serve]:
    """A function that serves an object; capitals are settings, the rest goes to the daemon."""
    transport, _, loop = combination.partition("-")
    if transport == "tcp6" and not has_ipv6():
        pytest.skip("this machine has no ::1")
    with contextlib.ExitStack() as stack:

        def serve(target: Any = None, object_id: str = "thing", **options: Any) -> Served:
            settings = {name: options.pop(name) for name in list(options) if name.isupper()}
            served = Served(transport, options.pop("loop", loop), folder=folder, settings=settings, **options)
            stack.enter_context(served)
            if target is not None:
                served.publish(target, object_id)
            return served

        yield serve


def serve_over(combinations: Iterable[str], doc: str) -> Callable[..., Iterator[Serve]]:
    """A fixture that gives such a function, once for each combination of transport and server loop."""

    @pytest.fixture(params=list(combinations))
    def serve(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Serve]:
        with serving(request.param, tmp_path) as function:
            yield function

    serve.__doc__ = doc
    return serve
