"""Our server loops are what server loops must be."""

from __future__ import annotations

import pytest

from pyroplug.testing.loops import ServerLoopConformance
from pyroplug.transports.servers import multiplex, thread


@pytest.mark.feature("F149", "F152")
@pytest.mark.usefixtures("quick_sweeps")
class TestThread(ServerLoopConformance):
    plugin = thread
    name = "thread"
    concurrent = True


@pytest.mark.feature("F150", "F152")
@pytest.mark.usefixtures("quick_sweeps")
class TestMultiplex(ServerLoopConformance):
    plugin = multiplex
    name = "multiplex"
    concurrent = False
