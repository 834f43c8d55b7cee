"""What server loops wait with: descriptors may be closed, and used for something else, behind their backs."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from pyroplug.transports.servers._base import READ, WRITE, EpollPoller, SelectorPoller, Source

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
        poller.set(source, READ)
        assert poller.poll(0) == []
        there.send(b"!")
        assert poller.poll(1) == [(source.fd, READ)]
        poller.set(source, WRITE)
        assert poller.poll(1) == [(source.fd, WRITE)]
        poller.set(source, 0)
        assert poller.poll(0) == []


@pytest.mark.parametrize("interest", [0, WRITE])
def test_a_descriptor_that_has_a_new_owner_is_left_to_it(poller: Poller, interest: int) -> None:
    first, second = socket.socketpair(), socket.socketpair()
    old = Source(first[0].fileno())
    poller.set(old, READ)
    first[0].close()
    try:
        os.dup2(second[0].fileno(), old.fd)  # the new owner has the old number
        new = Source(old.fd)
        poller.set(new, READ)
        poller.set(old, interest)
        second[1].send(b"!")
        assert poller.poll(1) == [(new.fd, READ)]
        assert poller.sources == {new.fd: new}
        poller.set(new, 0)
        assert poller.poll(0) == []
    finally:
        os.close(old.fd)
        for sock in (first[1], *second):
            sock.close()
