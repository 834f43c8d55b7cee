"""Many calls in flight: numbers, answers in any order, and what giving up does; against a server that obeys the test."""

from __future__ import annotations

import contextlib
import queue
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from pyroplug.core.connection import ClientConnection, Lost
from pyroplug.core.errors import (
    CommunicationError,
    ConnectionClosedError,
    LocalProtocolError,
    RemoteProtocolError,
    TimeoutError,
)
from pyroplug.core.wire import INVOKE, PING, RESULT, Frame, FrameReader, encode
from pyroplug.testing.kernels import PATIENCE, as_bytes, make_kernel
from pyroplug.transports._sockets import SocketStream
from testkit.timeouts import scaled

SHORT = 0.05
MSGPACK = 4


class Server:
    """The other end: requests come out of ``next``, and ``answer`` sends what the test wants."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(PATIENCE)
        self.reader = FrameReader(10_000_000)
        self.codec = make_kernel().client_plan().codecs[MSGPACK]

    def next(self) -> tuple[Frame, Any]:
        while (frame := self.reader.next_frame()) is None:
            data = self.sock.recv(100_000)
            assert data, "the client hung up"
            self.reader.feed(data)
        return frame, self.codec.loads_call(frame.payload)[2][0] if frame.type == INVOKE else None

    def answer(self, frame: Frame, value: Any, kind: int = RESULT) -> None:
        self.sock.sendall(as_bytes(encode(kind, MSGPACK, 0, frame.seq, self.codec.dumps(value))))

    def ended(self) -> bool:
        return self.sock.recv(1) == b""


@contextlib.contextmanager
def connected(limit: int = 1000) -> Iterator[tuple[ClientConnection, Server]]:
    kernel = make_kernel()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        plan = kernel.client_plan().replaced(overlapping=limit)
        connection = ClientConnection(SocketStream(ours), plan, MSGPACK, kernel.settings)
        yield connection, Server(theirs)
        connection.close()
    kernel.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(60) as threads:
        yield threads


@pytest.fixture
def both(pool: ThreadPoolExecutor) -> Iterator[tuple[ClientConnection, Server]]:
    with connected() as pair:  # (closed before the threads are waited for)
        yield pair


def call(connection: ClientConnection, value: Any) -> Any:
    return connection.call("thing", "echo", (value,), {})


def begin(
    pool: ThreadPoolExecutor, connection: ClientConnection, server: Server, value: Any
) -> tuple[Future[Any], Frame]:
    """A call in another thread, once the server has it."""
    future = pool.submit(call, connection, value)
    frame, got = server.next()
    assert got == value
    return future, frame


def hurry(
    pool: ThreadPoolExecutor, connection: ClientConnection, server: Server, seconds: float
) -> tuple[Future[Any], Frame]:
    """A call that has no more than so much time."""
    payload = server.codec.dumps_call("thing", "echo", ("hasty",), {})
    expires = time.monotonic() + seconds
    future = pool.submit(connection.ask, INVOKE, MSGPACK, 0, payload, answer=RESULT, expires=expires)
    return future, server.next()[0]


BIG = "x" * 100_000


@pytest.mark.feature("F082")
@pytest.mark.parametrize(
    "values", [(1, 2, 3), (BIG + "1", BIG + "2", BIG + "3"), (1, BIG, 3)], ids=["small", "big", "mixed"]
)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_answers_in_any_order(
    both: tuple[ClientConnection, Server], pool: ThreadPoolExecutor, values: tuple[Any, ...], order: tuple[int, ...]
) -> None:
    connection, server = both
    calls = [begin(pool, connection, server, value) for value in values]
    assert len({frame.seq for _, frame in calls}) == 3
    for number in order:
        future, frame = calls[number]
        server.answer(frame, values[number])
        assert future.result(PATIENCE) == values[number]
    again, frame = begin(pool, connection, server, "alone")
    server.answer(frame, "alone")
    assert again.result(PATIENCE) == "alone"


def test_answers_that_come_all_at_once(both: tuple[ClientConnection, Server], pool: ThreadPoolExecutor) -> None:
    connection, server = both
    calls = [begin(pool, connection, server, number) for number in range(50)]
    data = b"".join(
        as_bytes(encode(RESULT, MSGPACK, 0, frame.seq, server.codec.dumps(number)))
        for number, (_, frame) in reversed(list(enumerate(calls)))
    )
    server.sock.sendall(data)
    assert [future.result(PATIENCE) for future, _ in calls] == list(range(50))


@pytest.mark.feature("F082")
def test_a_time_out_gives_up_one_call_only(both: tuple[ClientConnection, Server], pool: ThreadPoolExecutor) -> None:
    """Scenario 1: the late answer reaches nobody; the others, and the connection, go on."""
    connection, server = both
    patient, patient_frame = begin(pool, connection, server, "patient")
    hasty, hasty_frame = hurry(pool, connection, server, scaled(0.5))
    other, other_frame = begin(pool, connection, server, "other")
    server.answer(other_frame, "other")  # so the server lives
    assert other.result(PATIENCE) == "other"
    error = hasty.exception(PATIENCE)
    assert isinstance(error, Lost)
    assert isinstance(error.error, TimeoutError)
    assert not connection.gone
    server.answer(hasty_frame, "too late")
    server.answer(patient_frame, "patient")
    assert patient.result(PATIENCE) == "patient"
    last, frame = begin(pool, connection, server, 5)
    server.answer(frame, 5)
    assert last.result(PATIENCE) == 5


def test_a_time_out_of_the_only_call_closes_the_connection(both: tuple[ClientConnection, Server]) -> None:
    connection, server = both
    connection.settimeout(SHORT)
    with pytest.raises(Lost) as caught:
        call(connection, 1)
    assert isinstance(caught.value.error, TimeoutError)
    assert connection.gone
    server.next()
    assert server.ended()
    with pytest.raises(Lost) as caught:
        call(connection, 2)
    assert not caught.value.sent


def test_a_silent_server_gets_no_further_calls(both: tuple[ClientConnection, Server], pool: ThreadPoolExecutor) -> None:
    """One call has timed out and nothing at all was heard: others still may be answered, new ones go elsewhere."""
    connection, server = both
    patient, frame = begin(pool, connection, server, "patient")
    hasty, _ = hurry(pool, connection, server, SHORT)
    assert isinstance(hasty.exception(PATIENCE), Lost)
    assert connection.gone
    assert not patient.done()
    with pytest.raises(Lost) as caught:
        call(connection, 1)
    assert not caught.value.sent
    server.answer(frame, "patient")
    assert patient.result(PATIENCE) == "patient"
    assert server.ended()


@contextlib.contextmanager
def interrupting(when: Callable[[], Any]) -> Iterator[None]:
    """Ctrl-C for the main thread, after ``when`` has returned in another."""

    def handler(*_: Any) -> None:
        raise KeyboardInterrupt

    main = threading.get_ident()
    assert threading.current_thread() is threading.main_thread()

    def interrupt() -> None:
        when()
        time.sleep(SHORT)  # so that it waits
        signal.pthread_kill(main, signal.SIGINT)

    before = signal.signal(signal.SIGINT, handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        yield
    finally:
        thread.join(PATIENCE)
        signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals for threads")
@pytest.mark.parametrize("value", [1, BIG], ids=["short way", "long way"])
@pytest.mark.parametrize("others", [0, 1])
def test_ctrl_c_gives_up_one_call_only(
    both: tuple[ClientConnection, Server], pool: ThreadPoolExecutor, value: Any, others: int
) -> None:
    connection, server = both
    other = [begin(pool, connection, server, "other") for _ in range(others)]
    asked: queue.SimpleQueue[Frame] = queue.SimpleQueue()
    with interrupting(lambda: asked.put(server.next()[0])), pytest.raises(KeyboardInterrupt):
        call(connection, value)
    assert not connection.gone
    given_up = asked.get(timeout=PATIENCE)
    later, frame = begin(pool, connection, server, "later")
    assert frame.seq != given_up.seq
    server.answer(given_up, "nobody wants this")
    server.answer(frame, "later")
    assert later.result(PATIENCE) == "later"
    for future, frame in other:
        server.answer(frame, "other")
        assert future.result(PATIENCE) == "other"


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals for threads")
def test_ctrl_c_in_the_middle_of_sending_breaks_the_connection(
    both: tuple[ClientConnection, Server], pool: ThreadPoolExecutor
) -> None:
    connection, server = both
    other, _ = begin(pool, connection, server, "other")
    with interrupting(lambda: server.sock.recv(1)), pytest.raises(KeyboardInterrupt):
        call(connection, b"x" * 5_000_000)
    assert connection.gone
    error = other.exception(PATIENCE)
    assert isinstance(error, Lost)
    assert isinstance(error.error, ConnectionClosedError)


@pytest.mark.parametrize("count", [1, 5])
def test_the_peer_hangs_up(both: tuple[ClientConnection, Server], pool: ThreadPoolExecutor, count: int) -> None:
    connection, server = both
    calls = [begin(pool, connection, server, number) for number in range(count)]
    server.sock.close()
    errors = [future.exception(PATIENCE) for future, _ in calls]
    told = [error.error for error in errors if isinstance(error, Lost)]
    assert [type(error) for error in told] == [ConnectionClosedError] * count
    assert len({id(error) for error in told}) == count, "an exception object belongs to one caller"
    assert connection.gone


@pytest.mark.parametrize("garbage", ["number", "type", "bytes"])
def test_an_answer_to_nothing_fails_everybody(
    both: tuple[ClientConnection, Server], pool: ThreadPoolExecutor, garbage: str
) -> None:
    connection, server = both
    calls = [begin(pool, connection, server, number) for number in range(3)]
    frame = calls[1][1]
    if garbage == "number":
        server.answer(frame._replace(seq=(frame.seq + 1000) & 0xFFFF), 1)
    elif garbage == "type":
        server.answer(frame, 1, PING)
    else:
        server.sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(40))
    errors = [future.exception(PATIENCE) for future, _ in calls]
    told = [error.error for error in errors if isinstance(error, Lost)]
    assert len(told) == 3
    assert [type(error) for error in told].count(RemoteProtocolError) == 1, "whoever read it"
    assert all(isinstance(error, (RemoteProtocolError, ConnectionClosedError)) for error in told)
    assert connection.gone


@pytest.mark.feature("F082")
def test_a_number_in_use_is_never_used_again(both: tuple[ClientConnection, Server], pool: ThreadPoolExecutor) -> None:
    """Scenario 12: 65 536 numbers, and calls that are still under way when they begin again."""
    connection, server = both
    connection.seq = 0xFFFE
    waiting = [begin(pool, connection, server, number) for number in range(3)]
    assert [frame.seq for _, frame in waiting] == [0xFFFF, 0, 1]
    connection.seq = 0xFFFE  # once around
    later = [begin(pool, connection, server, number) for number in range(3, 6)]
    assert [frame.seq for _, frame in later] == [2, 3, 4]
    connection.seq = 0xFFFE
    server.answer(waiting[1][1], "was 0")
    assert waiting[1][0].result(PATIENCE) == "was 0"
    again, frame = begin(pool, connection, server, "new")
    assert frame.seq == 0
    for future, old in [*waiting[::2], *later, (again, frame)]:
        server.answer(old, old.seq)
        assert future.result(PATIENCE) == old.seq


def test_a_number_that_was_given_up_is_not_used_before_its_answer(
    both: tuple[ClientConnection, Server], pool: ThreadPoolExecutor
) -> None:
    connection, server = both
    keeper, keeper_frame = begin(pool, connection, server, "keeper")
    hasty, given_up = hurry(pool, connection, server, scaled(0.5))
    server.sock.sendall(as_bytes(encode(RESULT, MSGPACK, 0, keeper_frame.seq, server.codec.dumps("x" * 50)))[:45])
    assert isinstance(hasty.exception(PATIENCE), Lost)
    server.sock.sendall(as_bytes(encode(RESULT, MSGPACK, 0, keeper_frame.seq, server.codec.dumps("x" * 50)))[45:])
    assert keeper.result(PATIENCE) == "x" * 50
    connection.seq = given_up.seq - 1
    first, frame = begin(pool, connection, server, 1)
    assert frame.seq == given_up.seq + 1
    server.answer(given_up, "late")
    server.answer(frame, 1)
    assert first.result(PATIENCE) == 1
    connection.seq = given_up.seq - 1
    second, frame = begin(pool, connection, server, 2)
    assert frame.seq == given_up.seq
    server.answer(frame, 2)
    assert second.result(PATIENCE) == 2


def test_calls_above_the_limit_wait_for_a_place(pool: ThreadPoolExecutor) -> None:
    with connected(limit=2) as (connection, server):
        # (big: a small one that goes alone is not counted)
        calls = [begin(pool, connection, server, BIG + str(number)) for number in range(2)]
        third = pool.submit(call, connection, 2)
        payload = server.codec.dumps_call("thing", "echo", ("in vain",), {})
        with pytest.raises(Lost) as caught:
            connection.ask(INVOKE, MSGPACK, 0, payload, answer=RESULT, expires=time.monotonic() + SHORT)
        assert "2 are under way" in str(caught.value.error)
        assert not caught.value.sent
        assert isinstance(caught.value.error, TimeoutError)
        future, frame = calls[0]
        server.answer(frame, 0)
        assert future.result(PATIENCE) == 0
        frame, value = server.next()
        assert value == 2
        server.answer(frame, 2)
        server.answer(calls[1][1], 1)
        assert (third.result(PATIENCE), calls[1][0].result(PATIENCE)) == (2, 1)


def test_those_who_wait_for_a_place_hear_of_the_end(pool: ThreadPoolExecutor) -> None:
    with connected(limit=1) as (connection, server):
        first, _ = begin(pool, connection, server, 1)
        second = pool.submit(call, connection, 2)
        server.sock.close()
        for future in (first, second):
            error = future.exception(PATIENCE)
            assert isinstance(error, Lost)
            assert isinstance(error.error, ConnectionClosedError)


@pytest.mark.parametrize("count", [1, 3])
def test_a_release_lets_calls_end(both: tuple[ClientConnection, Server], pool: ThreadPoolExecutor, count: int) -> None:
    connection, server = both
    calls = [begin(pool, connection, server, number) for number in range(count)]
    connection.retire()
    with pytest.raises(Lost, match="was released") as caught:
        call(connection, "new")
    assert not caught.value.sent
    for number, (future, frame) in enumerate(calls):
        server.answer(frame, number)
        assert future.result(PATIENCE) == number
    assert server.ended()


def test_a_release_with_nobody_there_closes_at_once(both: tuple[ClientConnection, Server]) -> None:
    connection, server = both
    connection.retire()
    assert server.ended()


def test_closing_ends_all_waits(both: tuple[ClientConnection, Server], pool: ThreadPoolExecutor) -> None:
    connection, server = both
    calls = [begin(pool, connection, server, number) for number in range(3)]
    connection.close()
    for future, _ in calls:
        error = future.exception(PATIENCE)
        assert isinstance(error, Lost)
        assert isinstance(error.error, CommunicationError)


def test_messages_without_an_answer_go_between(both: tuple[ClientConnection, Server], pool: ThreadPoolExecutor) -> None:
    connection, server = both
    future, frame = begin(pool, connection, server, 1)
    payload = server.codec.dumps_call("thing", "tell", (5,), {})
    connection.post(INVOKE, MSGPACK, 4, payload)
    told, value = server.next()
    assert (told.flags, value) == (4, 5)
    assert told.seq != frame.seq
    pinged = pool.submit(connection.ask, PING, 42, 0, b"ping", answer=PING)
    ping, _ = server.next()
    server.answer(ping, "pong", PING)
    assert pinged.result(PATIENCE).type == PING
    server.answer(frame, 1)
    assert future.result(PATIENCE) == 1


def test_a_signal_handler_may_make_a_call_while_its_thread_waits_for_another(
    both: tuple[ClientConnection, Server], pool: ThreadPoolExecutor
) -> None:
    """Its own thread cannot read for it then, but it can do so itself, or another."""
    connection, server = both
    outcome: list[Any] = []

    def handler(*_: Any) -> None:
        try:
            outcome.append(call(connection, "inner"))
        except LocalProtocolError as exc:
            outcome.append(exc)

    reading, reading_frame = begin(pool, connection, server, "reads")  # so the main thread waits at its gate
    before = signal.signal(signal.SIGUSR1, handler)
    main = threading.main_thread().ident
    assert main is not None

    def serve() -> None:
        frame, _ = server.next()
        time.sleep(SHORT)
        signal.pthread_kill(main, signal.SIGUSR1)
        inner, value = server.next()
        assert value == "inner"
        server.answer(reading_frame, "reads")  # the reader goes: who takes over cannot be the outer call
        assert reading.result(PATIENCE) == "reads"
        server.answer(frame, "outer")
        server.answer(inner, "inner")

    served = pool.submit(serve)
    try:
        assert call(connection, "outer") == "outer"
    finally:
        signal.signal(signal.SIGUSR1, before)
    served.result(PATIENCE)
    assert outcome == ["inner"]


def test_many_threads(both: tuple[ClientConnection, Server], pool: ThreadPoolExecutor) -> None:
    """Answers in an order that has nothing to do with that of the requests."""
    connection, server = both
    threads, calls = 16, 100

    def hammer(who: int) -> bool:
        return all(call(connection, [who, number]) == [who, number] for number in range(calls))

    serving = pool.submit(serve_all, server, threads * calls)
    assert all(pool.map(hammer, range(threads)))
    serving.result(PATIENCE)


def serve_all(server: Server, count: int) -> None:
    """Answer what has come, newest first, whenever nothing more is there."""
    held: list[tuple[Frame, Any]] = []
    answered = 0
    while answered < count:
        if not held or server.reader.partial or _readable(server.sock):
            held.append(server.next())
            continue
        while held:
            server.answer(*held.pop())
            answered += 1


def _readable(sock: socket.socket) -> bool:
    return bool(select.select([sock], [], [], 0)[0])
