"""The fixtures ``serve...``: one test, run over every transport and server loop, or over some of them."""

from __future__ import annotations

import pytest

from testkit.serving import EVERYWHERE, serve_over

serve = serve_over(EVERYWHERE, "Every transport under every server loop.")
serve_at = serve_over(
    (each for each in EVERYWHERE if not each.startswith("pair")),
    "The transports that have a location which clients can connect to, and can close.",
)
serve_some = serve_over(
    ("tcp4-thread", "tcp4-multiplex", "memory-thread", "memory-multiplex"),
    "A socket and no socket, for what no transport takes part in.",
)
serve_threads = serve_over(("tcp4-thread", "unix-thread", "memory-thread"), "The thread loop.")
serve_multiplex = serve_over(("tcp4-multiplex", "unix-multiplex", "memory-multiplex"), "The multiplex loop.")


@pytest.fixture
def quick_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Server loops look for idle and stalled clients often, so that nobody has to wait for that."""
    for module in ("_base", "thread"):
        monkeypatch.setattr(f"pyroplug.transports.servers.{module}.SWEEP_INTERVAL", 0.02)
