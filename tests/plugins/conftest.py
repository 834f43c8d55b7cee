"""Fixtures that serve an object: over every transport and server loop, or some of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pyroplug.plugins.callcontext import client_side
from testkit.serving import EVERYWHERE, serve_over

serve_everywhere = serve_over(EVERYWHERE, "Every transport under every server loop.")
serve = serve_over((each for each in EVERYWHERE if not each.startswith("tcp6")), "Nearly every one.")
serve_some = serve_over(
    ("tcp4-thread", "memory-multiplex", "pair-thread"), "A socket, no socket, and one that was given."
)
serve_at = serve_over(
    ("tcp4-thread", "unix-multiplex", "memory-thread"), "The transports that clients can connect to again."
)
serve_threads = serve_over(("tcp4-thread", "memory-thread"), "The thread loop.")
serve_multiplex = serve_over(("tcp4-multiplex", "memory-multiplex"), "The multiplex loop.")


@pytest.fixture
def clean_context() -> Iterator[None]:
    """Nothing is left of what other tests have said in this thread, nor of what this one says."""
    client_side.set(None)
    yield
    client_side.set(None)
