"""Timeouts that a slow machine can stretch, all at once.

``PYROPLUG_TEST_TIMEOUT_FACTOR=5 make test`` multiplies every wait, and the limit for a whole test, by five.
"""

from __future__ import annotations

import os
from typing import Final

__all__ = ["FACTOR", "PATIENCE", "scaled"]

FACTOR: Final = float(os.environ.get("PYROPLUG_TEST_TIMEOUT_FACTOR") or 1)


def scaled(seconds: float) -> float:
    """``seconds`` on a machine of ordinary speed, in seconds on this one."""
    return seconds * FACTOR


PATIENCE: Final = scaled(5.0)
"""How long to wait for what happens at once unless something is broken."""
