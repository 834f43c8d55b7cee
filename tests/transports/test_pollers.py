"""What server loops wait with: descriptors may be closed, and used for something else, behind their backs."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pyroplug.transports.servers._base import READ, WRITE, EpollPoller, SelectorPoller, Source
from testkit.timeouts import PATIENCE

Poller = EpollPoller | SelectorPoller


@pytest.fixture(params=[EpollPoller, SelectorPoller])
def poller(request: pytest.FixtureRequest) -> Iterator[Poller]:
    made: Poller = request.param()
    yield made
    made.close()


def test_what_is_ready(poller: Poller) -> None:
    here, there = socket.socketpair()
    with here, there:
        source = Source(here.fileno())
        poller.add(source, READ)
        assert poller.poll(0) == []
        there.send(b"!")
        assert poller.poll(1) == [(source.fd, READ)]
        poller.set(source, WRITE)
        assert poller.poll(1) == [(source.fd, WRITE)]
        poller.set(source, 0)
        assert poller.poll(0) == []
        poller.set(source, READ)
        assert poller.poll(1) == [(source.fd, READ)]
        poller.forget(source)
        poller.set(source, READ)  # comes too late
        assert poller.poll(0) == []
        assert not poller.sources


@pytest.fixture
def handed_over(poller: Poller) -> Iterator[tuple[Source, Source]]:
    """A source that was polled until its descriptor was closed, and the one that has that number now."""
    first, second = socket.socketpair(), socket.socketpair()
    old = Source(first[0].fileno())
    poller.add(old, READ)
    first[0].close()
    os.dup2(second[0].fileno(), old.fd)
    second[1].send(b"!")
    yield old, Source(old.fd)
    os.close(old.fd)
    for sock in (first[1], *second):
        sock.close()


@pytest.mark.parametrize("parked", [False, True])
@pytest.mark.parametrize("interest", [None, 0, READ, WRITE])
def test_a_descriptor_that_has_a_new_owner_is_left_to_it(
    poller: Poller, handed_over: tuple[Source, Source], parked: bool, interest: int | None
) -> None:
    old, new = handed_over
    if parked:
        poller.set(old, 0)
    poller.add(new, READ)
    if interest is None:
        poller.forget(old)
    else:
        poller.set(old, interest)
    assert poller.sources == {new.fd: new}
    assert poller.poll(1) == [(new.fd, READ)]
    poller.forget(new)
    assert poller.poll(0) == []


@pytest.mark.parametrize("late", ["set", "forget"])
def test_the_new_owner_comes_at_the_same_moment(poller: Poller, handed_over: tuple[Source, Source], late: str) -> None:
    old, new = handed_over
    newcomer = threading.Thread(target=poller.add, args=(new, READ))

    class Table(dict[int, Source]):
        def get(self, fd: int, default: Any = None) -> Any:
            found = super().get(fd, default)
            if not newcomer.ident:  # between looking who has the descriptor and what follows from that
                newcomer.start()
                newcomer.join(0.1)
            return found

    poller.sources = Table(poller.sources)
    if late == "set":
        poller.set(old, 0)
    else:
        poller.forget(old)
    newcomer.join(PATIENCE)
    assert poller.sources == {new.fd: new}
    assert poller.poll(1) == [(new.fd, READ)]
