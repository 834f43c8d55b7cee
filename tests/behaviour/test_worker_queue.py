"""The queue of the thread loop: what happens between the look at the workers and the queueing."""

from __future__ import annotations

from typing import Any

import pytest

from pyroplug.core.connection import QuickTask, Task
from pyroplug.core.errors import OverloadError, PyroError
from pyroplug.core.interfaces import Acceptor
from pyroplug.core.kernel import Kernel
from pyroplug.transports.servers.thread import ThreadLoop


class Waiting(QuickTask):
    """A task that notes what becomes of it."""

    quick = False

    def __init__(self) -> None:
        self.refused: PyroError | None = None

    def run(self) -> None:
        return None

    def refuse(self, error: PyroError) -> None:
        self.refused = error


class Nobody:
    """No daemon."""


@pytest.fixture
def loop() -> Any:
    kernel = Kernel(settings={"THREADPOOL_SIZE": 1, "THREADPOOL_SIZE_MIN": 1, "CALL_QUEUE_SIZE": 1}, environ={})
    acceptor: Acceptor = Nobody()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    loop = ThreadLoop(acceptor, kernel.settings)
    yield loop
    loop._queue.clear()
    loop._busy = 0
    loop.close()


def test_a_worker_that_became_free_meanwhile_is_not_waited_for(loop: ThreadLoop) -> None:
    task: Task = Waiting()
    assert loop._wait_for_worker(None, task) is task  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert not loop._queue


def test_a_full_pool_queues_and_a_full_queue_refuses(loop: ThreadLoop) -> None:
    loop._busy = 1
    first, second = Waiting(), Waiting()
    assert loop._wait_for_worker(None, first) is None  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert len(loop._queue) == 1
    refusal = loop._wait_for_worker(None, second)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert refusal is not None
    assert refusal is not second
    refusal.run()
    assert isinstance(second.refused, OverloadError)
    assert second.refused.retry_after > 0
