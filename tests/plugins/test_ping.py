"""Plugin ping: a message type of its own."""

from __future__ import annotations

import pytest

from pyroplug.api import CommunicationError, ConnectionClosedError, expose, ping
from pyroplug.core.wire import FLAG_CORR_ID, PING, encode
from pyroplug.testing.kernels import LOOPS, Served, make_kernel

pytestmark = pytest.mark.needs("ping")


class Thing:
    @expose
    def echo(self, value: int) -> int:
        return value


@pytest.mark.feature("F303")
@pytest.mark.parametrize("loop", LOOPS)
def test_the_answer_is_the_pings_own(loop: str) -> None:
    with Served("tcp4", loop) as served:
        served.publish(Thing())
        peer = served.peer()
        peer.hello()
        for serializer, seq, correlation in ((42, 0, bytes(16)), (1, 65535, bytes(range(16))), (200, 3, bytes(16))):
            flags = FLAG_CORR_ID if any(correlation) else 0
            peer.send(encode(PING, serializer, flags, seq, b"whatever", None, correlation))
            frame = peer.message()
            assert (frame.type, frame.serializer_id, frame.seq, bytes(frame.payload)) == (
                PING,
                serializer,
                seq,
                b"pong",
            )
            assert frame.correlation == correlation
        assert peer.value(peer.call("thing", "echo", 1)) == 1


@pytest.mark.feature("F303")
def test_between_calls_of_a_proxy() -> None:
    with Served() as served:
        served.publish(Thing())
        proxy = served.proxy()
        for number in range(3):
            ping(proxy)
            assert proxy.echo(number) == number


def test_a_server_that_does_not_know_pings() -> None:
    with Served(environ={"PYRO_DISABLE_PLUGINS": "ping"}) as served:
        served.publish(Thing())
        proxy = served.proxy(kernel=make_kernel())
        proxy.echo(1)
        with pytest.raises(ConnectionClosedError):
            ping(proxy)
        assert proxy._pyroConnection is None
        assert proxy.echo(2) == 2


def test_nobody_there() -> None:
    with Served() as served:
        served.publish(Thing())
        proxy = served.proxy()
    with pytest.raises(CommunicationError, match="cannot connect"):
        ping(proxy)


def test_before_the_handshake_it_is_refused() -> None:
    with Served() as served:
        peer = served.peer()
        peer.send(encode(PING, 42, 0, 0, b"ping"))
        assert b"unexpected message type 6" in bytes(peer.message().payload)
        assert peer.ended()
