"""What shows on the wire: sizes, compression, ping, logs, and the context of a call."""

from __future__ import annotations

import logging
import threading
import uuid
import zlib
from typing import Any

import pytest

from pyroplug.api import MessageTooLargeError, SerializeError, current_context, expose, ping
from pyroplug.core.call import current_call
from pyroplug.core.wire import (
    CONNECTOK,
    FLAG_COMPRESSED,
    FLAG_CORR_ID,
    FLAG_EXCEPTION,
    PING,
    PING_SERIALIZER,
    RESULT,
    encode,
)
from pyroplug.testing.kernels import PATIENCE, Serve, Served, make_kernel

LIMIT = 4096


@expose
class Thing:
    def __init__(self) -> None:
        self.other: Any = None

    def echo(self, value: Any = None) -> Any:
        return value

    def make(self, size: int) -> bytes:
        return b"x" * size

    def context(self) -> dict[str, Any]:
        context = current_context
        return {
            "seq": context.seq,
            "flags": context.msg_flags,
            "serializer": context.serializer_id,
            "annotations": {key: bytes(value).decode() for key, value in context.annotations.items()},
            "correlation": str(context.correlation_id),
            "object": context.client.objectId,
            "address": str(context.client_sock_addr),
        }

    def nested(self) -> list[Any]:
        before = self.context()
        inner = self.other.context()
        return [before, inner, self.context()]


# --------------------------------------------------------------------------- sizes
def payload_size(served: Served, value: bytes) -> int:
    """The size of the call ``echo(value)`` in msgpack."""
    return len(served.kernel.codecs()["msgpack"].dumps_call("thing", "echo", (value,), {}))


@pytest.mark.feature("F286", "F144")
def test_requests_just_below_and_just_above_the_limit(serve: Serve) -> None:
    served = serve(Thing(), MAX_MESSAGE_SIZE=LIMIT, SERIALIZER="msgpack")
    proxy = served.proxy()
    fits = LIMIT - payload_size(served, b"x" * 1000) + 1000
    assert proxy.echo(b"x" * fits) == b"x" * fits
    connection = proxy._pyroConnection
    # the sender itself refuses, before anything is sent
    with pytest.raises(MessageTooLargeError, match=rf"message too large \({LIMIT + 1}, max={LIMIT}\)") as caught:
        proxy.echo(b"x" * (fits + 1))
    assert (caught.value.size, caught.value.limit) == (LIMIT + 1, LIMIT)
    assert proxy._pyroConnection is connection
    assert proxy.echo(1) == 1


@pytest.mark.feature("F286")
def test_replies_just_below_and_just_above_the_limit(serve: Serve) -> None:
    served = serve(Thing(), MAX_MESSAGE_SIZE=LIMIT, SERIALIZER="msgpack")
    proxy = served.proxy()
    overhead = len(served.kernel.codecs()["msgpack"].dumps(b"x" * 1000)) - 1000
    assert len(proxy.make(LIMIT - overhead)) == LIMIT - overhead
    connection = proxy._pyroConnection
    with pytest.raises(MessageTooLargeError, match="message too large"):
        proxy.make(LIMIT - overhead + 1)
    assert proxy._pyroConnection is connection
    assert proxy.echo(1) == 1


@pytest.mark.feature("F286")
def test_a_client_refuses_replies_above_its_own_limit(serve_at: Serve) -> None:
    served = serve_at(Thing(), SERIALIZER="msgpack")
    proxy = served.proxy(kernel=make_kernel(MAX_MESSAGE_SIZE=LIMIT, SERIALIZER="msgpack"))
    assert len(proxy.make(4000)) == 4000
    with pytest.raises(MessageTooLargeError, match="message too large"):
        proxy.make(5000)
    assert proxy._pyroConnection is None  # the rest of that reply is not read
    assert proxy.echo(1) == 1


# --------------------------------------------------------------------------- compression
@pytest.mark.feature("F287")
def test_compression(serve: Serve) -> None:
    served = serve(Thing(), COMPRESSION=True)
    proxy = served.proxy()
    text = "abc" * 100_000
    assert proxy.echo(text) == text
    assert proxy.echo("small") == "small"
    peer = served.peer()
    assert peer.hello().type == CONNECTOK
    frame = peer.call("thing", "echo", text)
    assert frame.flags & FLAG_COMPRESSED
    assert len(frame.payload) < 5000
    assert bytes(frame.payload[:2]) == b"\x78\x5e"
    assert not peer.call("thing", "echo", "small").flags & FLAG_COMPRESSED


@pytest.mark.needs("serpent")
@pytest.mark.feature("F287")
def test_each_side_decides_for_what_it_sends(serve_at: Serve) -> None:
    """And reads what comes, whatever it decided."""
    text = "abc" * 10_000
    for server_side, client_side in ((True, False), (False, True)):
        with Served("tcp4", "thread", settings={"COMPRESSION": server_side}) as served:
            served.publish(Thing())
            assert served.proxy(kernel=make_kernel(COMPRESSION=client_side)).echo(text) == text
    served = serve_at(Thing())
    peer = served.peer()
    peer.hello()
    codec = served.kernel.codecs()["serpent"]
    packed = zlib.compress(codec.dumps_call("thing", "echo", (text,), {}))
    peer.send(encode(4, served.kernel.serializer_id("serpent"), FLAG_COMPRESSED, 1, packed))
    frame = peer.message()
    assert (frame.flags, peer.value(frame)) == (0, text)


def test_exceptions_can_be_compressed_too(serve_some: Serve) -> None:
    proxy = serve_some(Thing(), COMPRESSION=True).proxy()
    with pytest.raises(TypeError, match="unexpected keyword"):
        proxy.echo(**{"nonsense" * 50: 1})


# --------------------------------------------------------------------------- ping
@pytest.mark.feature("F303")
def test_ping(serve: Serve) -> None:
    served = serve(Thing())
    proxy = served.proxy()
    ping(proxy)
    connection = proxy._pyroConnection
    assert proxy.echo(1) == 1
    ping(proxy)
    assert proxy._pyroConnection is connection
    peer = served.peer()
    peer.hello()
    peer.send(encode(PING, PING_SERIALIZER, 0, 7, b"ping"))
    frame = peer.message()
    assert (frame.type, frame.seq, bytes(frame.payload)) == (PING, 7, b"pong")


def test_a_ping_that_nobody_answers(serve_at: Serve) -> None:
    served = serve_at(Thing())
    proxy = served.proxy()
    ping(proxy)
    served.daemon.shutdown()
    with pytest.raises(Exception, match=r"closed|lost|cannot connect"):
        ping(proxy)
    assert proxy._pyroConnection is None


@pytest.mark.feature("F035")
def test_the_daemons_own_object(serve: Serve) -> None:
    served = serve(Thing())
    proxy = served.proxy("Pyro.Daemon")
    assert proxy.ping() is None
    assert proxy.registered() == ["Pyro.Daemon", "thing"]
    assert served.daemon.locationStr in proxy.info()
    assert set(proxy.get_metadata("thing")["methods"]) == {"echo", "make", "context", "nested"}
    with pytest.raises(Exception, match="unknown object: nowhere"):
        proxy.get_metadata("nowhere")


# --------------------------------------------------------------------------- logs
@pytest.mark.needs("serpent")
@pytest.mark.feature("F288")
def test_logwire(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "pyroplug.wire")
    served = serve(Thing(), LOGWIRE=True)
    proxy = served.proxy()
    assert proxy.echo("findme") == "findme"
    served.daemon.shutdown()  # the server may log what it has sent after the client has it
    texts = [record.getMessage() for record in caplog.records if record.name == "pyroplug.wire"]
    kinds = [text.split(": ")[1].split(" ")[0] for text in texts]
    for kind in ("CONNECT", "CONNECTOK", "INVOKE", "RESULT"):
        assert kinds.count(kind) == 2, kinds  # as sent and as received
    (sent, received) = [text for text in texts if ": INVOKE" in text]
    assert sent.startswith("sent to") or received.startswith("sent to")
    for text in (sent, received):
        assert "findme" in text
        assert "seq=1" in text
        assert "ser=1" in text


def test_logwire_is_off_by_default(serve_some: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    serve_some(Thing()).proxy().echo("x")
    assert not [record for record in caplog.records if record.name == "pyroplug.wire"]


# --------------------------------------------------------------------------- context
@pytest.mark.needs("serpent")
@pytest.mark.feature("F231", "F232", "F233", "F234", "F236")
def test_the_context_of_a_call(serve: Serve) -> None:
    served = serve(Thing())
    peer = served.peer()
    peer.hello()
    correlation = uuid.uuid4()
    frame = peer.call("thing", "context", correlation=correlation.bytes, flags=FLAG_CORR_ID, annotations={"ABCD": b"x"})
    context = peer.value(frame)
    assert context["seq"] == peer.seq == frame.seq
    assert context["flags"] == FLAG_CORR_ID
    assert context["serializer"] == 1
    assert context["annotations"] == {"ABCD": "x"}
    assert context["correlation"] == str(correlation)
    assert context["object"] == "thing"
    assert frame.flags & FLAG_CORR_ID
    assert frame.corr_id == correlation.bytes
    if served.transport == "tcp4":
        assert "127.0.0.1" in context["address"]
    assert current_call.get() is None
    assert current_context.client is None
    assert current_context.client_sock_addr is None
    assert (current_context.seq, current_context.msg_flags, current_context.serializer_id) == (0, 0, 0)
    assert current_context.annotations == {}


@pytest.mark.feature("F231")
def test_the_context_of_nested_calls(serve_some: Serve) -> None:
    """A method that calls another daemon in the same process finds its own context again."""
    thing = Thing()
    served = serve_some(thing)
    with Served("memory", "multiplex") as other:
        other.publish(Thing(), "inner")
        thing.other = other.proxy("inner")
        before, inner, after = served.proxy().nested()
    assert before == after
    assert inner["object"] == "inner"
    assert inner["seq"] == 1


@pytest.mark.feature("F231")
def test_contexts_of_calls_that_run_at_the_same_time(serve_threads: Serve) -> None:
    barrier = threading.Barrier(8)

    class Meeting:
        @expose
        def meet(self) -> list[int]:
            before = current_context.client
            barrier.wait(PATIENCE)
            return [id(before), id(current_context.client), current_context.seq]

    served = serve_threads(Meeting())
    proxies = [served.proxy() for _ in range(8)]
    answers: list[Any] = [None] * 8

    def call(number: int) -> None:
        answers[number] = proxies[number].meet()

    threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert all(before == after for before, after, _ in answers)
    assert len({before for before, _, _ in answers}) == 8


# --------------------------------------------------------------------------- serializers accepted
@pytest.mark.feature("F121")
def test_a_serializer_that_is_not_accepted(serve: Serve) -> None:
    served = serve(Thing(), SERIALIZERS_ACCEPTED={"serpent"})
    proxy = served.proxy()
    proxy._pyroSerializer = "json"  # whose number is 3
    with pytest.raises(Exception, match=r"serializer that is not accepted: 3 \(accepted are: serpent\)"):
        proxy.echo(1)
    peer = served.peer()
    peer.hello()
    frame = peer.call("thing", "echo", 1, serializer="json")
    assert (frame.type, frame.flags, frame.serializer_id) == (RESULT, FLAG_EXCEPTION, 1)
    error = peer.value(frame)
    assert isinstance(error, SerializeError)
    assert "not accepted" in str(error)
    assert peer.value(peer.call("thing", "echo", 2)) == 2
